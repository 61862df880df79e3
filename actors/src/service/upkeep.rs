//! What is put right without anybody asking.

use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};

use super::health::HOST_ALIVE;
use super::settlement::{Settled, end, lock};
use super::{ClaimKey, Service};
use crate::error::Error;
use crate::execution::{Finish, Outcome};
use crate::id::ActorId;
use crate::metrics::{self, Again};
use crate::store;
use crate::store::actors::Removed;
use crate::store::executions::{Attempt, Stored};
use crate::store::workers::IdleSince;

/// Lost executions that are given up at once.
const GIVEN_UP_AT_ONCE: usize = 8;

/// Transactions in a row that remove what is left of deleted actors; the rest is
/// left for the next time.
const REMOVE_BATCHES: u32 = 40;
/// Hosts that were not seen for this long are forgotten.
const HOST_FORGOTTEN: Duration = Duration::from_secs(86_400);

/// Workers that no host has provided after this long are not asked for any more.
const REQUEST_FORGOTTEN: Duration = Duration::from_secs(300);

/// How long a new actor's host may take to be there.
const HOST_PATIENCE: Duration = Duration::from_secs(15);

/// What came to be later at once, others had so long to renew their leases since.
const TO_RENEW: Duration = Duration::from_secs(180);
/// What came to be later at once is not taken as old for so long: what is removed
/// does not come back when the clock is set right.
pub(super) const TO_SET_RIGHT: Duration = Duration::from_secs(3_600);

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Executions that wait for their next attempt.
    pub retried: u64,
    /// Executions that ended as lost or cancelled.
    pub ended: u64,
    /// Executions whose logs expired.
    pub logs_expired: u64,
    /// Deleted actors that have gone.
    pub actors_removed: u64,
}

impl Service {
    /// Puts right what a crash left: ended leases (next attempt, or lost after
    /// the last), expired logs and results, deleted actors that ended, idle workers. Call it
    /// every few seconds, in any number of processes.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn sweep(&self) -> Result<Swept, Error> {
        let now = self.0.clock.now();
        let lost = {
            let mut c = self.0.store.read().await?;
            let clock = &self.0.clock;
            let before = clock.settled(TO_RENEW);
            store::executions::with_expired_lease(&mut c, before, clock.standing()).await?
        };
        // Where one of them fails, the rest is put right all the same.
        let given_up = self.give_up_all(lost, LostBy::Lease).await;
        let mut swept = given_up.as_ref().copied().unwrap_or_default();
        metrics::leases_lost(swept.retried + swept.ended);
        let config = &self.0.config;
        let idle_since = IdleSince {
            stateless: now.before(config.worker_idle),
            sync: now.before(config.sync_worker_idle),
            any: now.before(config.worker_ttl),
            requested: now.before(REQUEST_FORGOTTEN),
            host: now.before(HOST_ALIVE),
        };
        let settled = self.0.clock.settled(TO_SET_RIGHT);
        let hosts_seen_since = settled.before(HOST_FORGOTTEN);
        let results_since = settled.before(config.result_expiry);
        swept.logs_expired = self
            .0
            .store
            .write(move |c| {
                Box::pin(async move {
                    let logs_expired = store::logs::remove_expired(c, settled).await?;
                    store::workers::remove_idle(c, idle_since, now).await?;
                    store::results::remove_expired(c, results_since).await?;
                    store::hosts::remove_unseen(c, hosts_seen_since).await?;
                    Ok(logs_expired)
                })
            })
            .await?;
        self.say_what_lacks_a_host().await?;
        for _ in 0..REMOVE_BATCHES {
            let removed = self.remove_some_deleted(None).await?;
            swept.actors_removed += removed.actors;
            if !removed.more {
                break;
            }
        }
        given_up.map(|_| swept)
    }

    /// Tells the owners of new actors that wait for a host which is not there: no
    /// host would ever say so.
    async fn say_what_lacks_a_host(&self) -> Result<(), Error> {
        let now = self.0.clock.now();
        let (waiting, hosts) = {
            let mut c = self.0.store.read().await?;
            let waiting = store::actors::told_nothing(&mut c, now.before(HOST_PATIENCE)).await?;
            if waiting.is_empty() {
                return Ok(());
            }
            (waiting, store::hosts::all(&mut c).await?)
        };
        let there = |host: &&store::hosts::Stored| {
            host.stopped.is_none() && host.seen >= now.before(HOST_ALIVE)
        };
        let hosts: Vec<_> = hosts.iter().filter(there).collect();
        for (actor, revision, queue) in waiting {
            if !hosts.iter().any(|host| host.info.serves(&queue)) {
                let reason =
                    format!("waiting for a host: none is running that serves the queue {queue}");
                self.actor_waits(&actor, revision, &reason).await?;
            }
        }
        Ok(())
    }

    /// Removes a part of what is left of deleted actors, of `only` one or of all.
    pub(super) async fn remove_some_deleted(
        &self,
        only: Option<&ActorId>,
    ) -> Result<Removed, Error> {
        let only = only.cloned();
        let removed = self
            .0
            .store
            .write(move |c| {
                Box::pin(async move { store::actors::remove_ended(c, only.as_ref()).await })
            })
            .await?;
        metrics::executions_cancelled(removed.waited);
        Ok(removed)
    }

    /// Gives executions whose hosts are gone their next attempt, or ends them.
    /// One of which that fails holds up no other.
    pub(super) async fn give_up_all(&self, lost: Vec<Stored>, by: LostBy) -> Result<Swept, Error> {
        let mut swept = Swept::default();
        let mut failed = None;
        let mut given_up = stream::iter(lost)
            .map(|lost| self.give_up(lost, by))
            .buffer_unordered(GIVEN_UP_AT_ONCE);
        while let Some(given_up) = given_up.next().await {
            match given_up {
                Ok(Settled::Waits) => swept.retried += 1,
                Ok(Settled::Ended(ended)) => {
                    self.ended(&ended).await;
                    swept.ended += 1;
                }
                // It was settled or renewed meanwhile.
                Ok(Settled::Not | Settled::Before) => {}
                Err(error) => failed = Some(error),
            }
        }
        metrics::attempts_repeated(by.why(), swept.retried);
        failed.map_or(Ok(swept), Err)
    }

    /// Each in a transaction of its own, under the lock of the row: its host may
    /// be alive after all, and renew or settle it meanwhile.
    async fn give_up(&self, lost: Stored, by: LostBy) -> Result<Settled, Error> {
        let now = self.0.clock.now();
        let max_attempts = self.0.config.max_attempts;
        let log_expiry = self.log_expiry();
        let key = ClaimKey { execution: lost.execution.id, epoch: lost.epoch };
        let lease_until = lost.lease_until;
        let changed = key.execution.clone();
        let given_up = self
            .0
            .store
            .write(move |c| {
                Box::pin(async move {
                    let Some(held) = lock(c, &key.execution).await? else {
                        return Ok(Settled::Not);
                    };
                    let renewed = held.stored.lease_until != lease_until;
                    if !held.is_under(&key) || (by == LostBy::Lease && renewed) {
                        return Ok(Settled::Not);
                    }
                    let attempts = held.stored.execution.attempt;
                    let finish = held.must_end_cancelled().or_else(|| {
                        let times = if attempts == 1 { "time" } else { "times" };
                        let reason = format!("{}; it was tried {attempts} {times}", by.reason());
                        (attempts >= max_attempts).then(|| Finish::new(Outcome::Lost, reason))
                    });
                    // Its host is gone, so it takes nothing any more.
                    if let Some(worker) = &held.stored.execution.worker {
                        store::workers::remove(c, worker).await?;
                    }
                    if let Some(finish) = finish {
                        return end(c, &held, &finish, now, log_expiry).await.map(Settled::Ended);
                    }
                    let ClaimKey { execution, epoch } = &key;
                    // It may wait for long, or end without another attempt.
                    store::logs::remove(c, execution).await?;
                    store::results::remove(c, execution).await?;
                    let attempt = Attempt::Spent;
                    store::executions::give_back(c, execution, *epoch, attempt, now, now).await?;
                    Ok(Settled::Waits)
                })
            })
            .await?;
        self.changed(&changed);
        match &given_up {
            Settled::Not | Settled::Before => {}
            Settled::Ended(_) => self.0.queue.made_room(&changed),
            Settled::Waits => self.0.queue.waits_again(&changed, Duration::ZERO),
        }
        Ok(given_up)
    }
}

/// What tells that the host of an execution is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LostBy {
    /// Its lease is over.
    Lease,
    /// A later process of the same host, which knows it dead.
    Successor,
}

impl LostBy {
    fn reason(self) -> &'static str {
        match self {
            Self::Lease => "the host that ran it was lost",
            Self::Successor => "the service was restarted while it ran",
        }
    }

    fn why(self) -> Again {
        match self {
            Self::Lease => Again::HostLost,
            Self::Successor => Again::Restarted,
        }
    }
}
