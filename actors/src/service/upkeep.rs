//! What is put right without anybody asking.

use std::time::Duration;

use super::Service;
use super::settlement::{Ended, LogExpiry, end, must_end_cancelled};
use crate::clock::Time;
use crate::error::Error;
use crate::execution::{Finish, Outcome};
use crate::id::ExecutionId;
use crate::metrics::{self, Again};
use crate::store::executions::{Attempt, Stored};
use crate::store::{self, Connection};

/// Hosts that were not seen for this long are forgotten.
const HOST_FORGOTTEN: Duration = Duration::from_secs(86_400);

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
    /// the last), expired logs, deleted actors that ended, idle workers. Call it every few seconds, in any
    /// number of processes.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn sweep(&self) -> Result<Swept, Error> {
        let now = self.0.clock.now();
        let max_attempts = self.0.config.max_attempts;
        let log_expiry = self.log_expiry();
        let before = |ago: Duration| {
            Time::from_micros(
                now.micros().saturating_sub(i64::try_from(ago.as_micros()).unwrap_or(i64::MAX)),
            )
        };
        let workers_idle_since = before(self.0.config.worker_idle);
        let hosts_seen_since = before(HOST_FORGOTTEN);
        let (swept, given) = self
            .0
            .store
            .write(move |c| {
                Box::pin(async move {
                    let lost = store::executions::with_expired_lease(c, now).await?;
                    let reason = "the host that ran it was lost";
                    let given =
                        give_back_all(c, lost, reason, max_attempts, now, log_expiry).await?;
                    let mut swept = given.swept();
                    swept.logs_expired = store::logs::remove_expired(c, now).await?;
                    swept.actors_removed = store::actors::remove_ended(c, None).await?.len() as u64;
                    store::workers::remove_idle(c, workers_idle_since).await?;
                    store::hosts::remove_unseen(c, hosts_seen_since).await?;
                    Ok((swept, given))
                })
            })
            .await?;
        metrics::leases_lost(swept.retried + swept.ended);
        given.count(Again::HostLost);
        self.tell(&given.changed);
        Ok(swept)
    }

    pub(super) fn tell(&self, changed: &[ExecutionId]) {
        for execution in changed {
            self.changed(execution);
        }
        self.0.queue.wake();
    }
}

/// Executions that were taken from their hosts, in a transaction.
#[derive(Debug, Default)]
pub(super) struct GivenBack {
    pub(super) changed: Vec<ExecutionId>,
    retried: u64,
    ended: Vec<Ended>,
}

impl GivenBack {
    pub(super) fn swept(&self) -> Swept {
        Swept { retried: self.retried, ended: self.ended.len() as u64, ..Swept::default() }
    }

    /// Counts them, when that is committed.
    pub(super) fn count(&self, why: Again) {
        metrics::attempts_repeated(why, self.retried);
        self.ended.iter().for_each(Ended::count);
    }
}

/// Gives running executions whose hosts are gone their next attempt, or ends them.
pub(super) async fn give_back_all(
    c: &mut Connection,
    lost: Vec<Stored>,
    reason: &str,
    max_attempts: u32,
    now: Time,
    log_expiry: LogExpiry,
) -> Result<GivenBack, Error> {
    let mut given = GivenBack::default();
    for stored in lost {
        let execution = &stored.execution;
        let finish = match must_end_cancelled(c, &stored).await? {
            Some(cancelled) => Some(cancelled),
            None if execution.attempt >= max_attempts => {
                let attempts = execution.attempt;
                let times = if attempts == 1 { "time" } else { "times" };
                Some(Finish::new(
                    Outcome::Lost,
                    format!("{reason}; it was tried {attempts} {times}"),
                ))
            }
            None => None,
        };
        if let Some(finish) = finish {
            given.ended.extend(end(c, &stored, &finish, now, log_expiry).await?);
        } else {
            let id = &execution.id;
            store::executions::give_back(c, id, stored.epoch, Attempt::Spent, now, now).await?;
            given.retried += 1;
        }
        // Its host is gone, so it takes nothing any more.
        if let Some(worker) = &execution.worker {
            store::workers::remove(c, worker).await?;
        }
        given.changed.push(stored.execution.id);
    }
    Ok(given)
}
