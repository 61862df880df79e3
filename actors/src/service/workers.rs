//! The protocol between the service and the hosts that run executions.
//!
//! ```text
//! register_host ─► recover ─► receive ─► claim ─► record_phase, append_logs … ─► finish
//!                                          └──── renew, until settled ────┘  └─► release, retry
//! ```
//!
//! A claim holds while its epoch is the row's. A host that hears that a claim
//! is lost kills the container and tells nobody.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{POLL, Service};
use crate::actor::{Actor, ActorStatus};
use crate::clock::{Clock, Time};
use crate::environment::environment;
use crate::error::Error;
use crate::execution::{Execution, ExecutionStatus, Finish, Outcome, Phase};
use crate::id::{ActorId, ExecutionId, HostId, WorkerId};
use crate::message::NewMessage;
use crate::queue::embedded::capacity;
use crate::queue::{Delivery, Queue};
use crate::store::executions::{Attempt, Stored};
use crate::store::{self, Connection};

/// When an execution that its actor has no room for is looked at again.
const NO_ROOM: Duration = Duration::from_millis(200);
/// When an execution whose claim failed is tried again: what is wrong with the
/// store or its row is not over at once.
const CLAIM_AGAIN: Duration = Duration::from_secs(1);
/// When a preparation that came to nothing is tried again; twice as long after
/// each further one.
const PREPARE_AGAIN: Duration = Duration::from_secs(5);
/// The longest that a preparation rests between two tries.
const PREPARE_AGAIN_MOST: Duration = Duration::from_secs(60);
/// Hosts that were not seen for this long are forgotten.
const HOST_FORGOTTEN: Duration = Duration::from_secs(86_400);

/// A process that takes executions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostInfo {
    /// The same each time this machine and state root register.
    pub name: String,
    /// Version of the program.
    pub version: String,
    /// Executions it runs at once.
    pub slots: u32,
}

/// What a claim is known by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClaimKey {
    /// Which execution.
    pub execution: ExecutionId,
    /// Which claim of it.
    pub epoch: i64,
}

/// An execution that is a host's to run.
#[derive(Clone)]
#[non_exhaustive]
pub struct Claim {
    /// What to renew, report and settle it by.
    pub key: ClaimKey,
    /// Which try this is, from 1.
    pub attempt: u32,
    /// The actor as it was when the claim was made.
    pub actor: Actor,
    /// The execution as it is now.
    pub execution: Execution,
    /// What it handles.
    pub message: NewMessage,
    /// The worker it is shown under.
    pub worker: WorkerId,
    /// The environment of the container; the image's own stands below it.
    /// `_abaco_access_token` is empty. Never to be logged.
    pub environment: Vec<(String, String)>,
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim")
            .field("key", &self.key)
            .field("attempt", &self.attempt)
            .field("actor", &self.actor.id)
            .field("worker", &self.worker)
            .field("environment", &"[redacted]")
            .finish_non_exhaustive()
    }
}

/// What a host hears when it renews its leases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Renewal {
    /// Claims that do not hold any more: kill the container, tell nobody.
    pub lost: Vec<ClaimKey>,
    /// Claims that hold and shall end: stop the container, finish as cancelled.
    pub halted: Vec<ClaimKey>,
}

/// Why a running execution must stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interruption {
    /// Somebody asked for it: finish as cancelled.
    Halted,
    /// The claim does not hold any more: tell nobody.
    Lost,
}

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Executions that wait for their next attempt.
    pub retried: u64,
    /// Executions that ended as lost or cancelled.
    pub ended: u64,
    /// Accepted executions that the queue did not have.
    pub queued: u64,
    /// Executions whose logs expired.
    pub logs_expired: u64,
    /// Deleted actors that have gone.
    pub actors_removed: u64,
}

/// What became of a delivery.
enum Claimed {
    Yes(Box<Claim>),
    /// Nothing to run: it ended, or somebody else has it.
    Gone,
    /// Not now: its actor runs what it may.
    NoRoom,
}

impl Service {
    /// Makes a process known as one that takes executions.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn register_host(&self, host: HostInfo) -> Result<HostId, Error> {
        let id = HostId::generate();
        let now = self.0.clock.now();
        let registered = id.clone();
        self.0
            .store
            .write(move |c| {
                Box::pin(async move {
                    let HostInfo { name, version, slots } = host;
                    store::hosts::insert(c, &registered, &name, &version, slots, now).await
                })
            })
            .await?;
        Ok(id)
    }

    /// Gives back at once what earlier processes of this host had claimed. Only
    /// for a process that knows them dead, since it holds the lock of their state
    /// root; others wait for the leases to end.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn recover(&self, host: &HostId) -> Result<Swept, Error> {
        let now = self.0.clock.now();
        let max_attempts = self.0.config.max_attempts;
        let log_expiry = self.log_expiry();
        let host = host.clone();
        let (swept, changed) = self
            .0
            .store
            .write(move |c| {
                Box::pin(async move {
                    let lost = store::executions::of_earlier_processes(c, &host).await?;
                    let reason = "the service was restarted while it ran";
                    let given =
                        give_back_all(c, lost, reason, max_attempts, now, log_expiry).await?;
                    store::workers::remove_of_earlier_processes(c, &host).await?;
                    Ok(given)
                })
            })
            .await?;
        self.tell(&changed);
        Ok(swept)
    }

    /// The next execution that may run; waits until there is one. Ask only with
    /// a free slot.
    ///
    /// Cancel-safe: a future that is dropped has taken nothing.
    ///
    /// # Errors
    ///
    /// Only those of every function; wait a little before the next try.
    pub async fn receive(&self) -> Result<Delivery, Error> {
        self.0.queue.receive().await
    }

    /// Makes a delivered execution the host's for the time of `lease`, and settles
    /// the delivery. `None` when there is nothing to run: it ended, another host
    /// has it, or its actor has no room now (it comes back).
    ///
    /// # Errors
    ///
    /// Only those of every function; the delivery comes back after a while.
    pub async fn claim(
        &self,
        delivery: Delivery,
        host: &HostId,
        lease: Duration,
    ) -> Result<Option<Claim>, Error> {
        let now = self.0.clock.now();
        let execution = delivery.execution.clone();
        let host = host.clone();
        let default_capacity = self.0.config.max_workers_per_actor;
        let api_server = self.0.config.api_server.clone();
        let claimed = self
            .0
            .store
            .write(move |c| {
                Box::pin(async move {
                    let lease_until = now.after(lease);
                    claim(c, &execution, &host, now, lease_until, default_capacity, &api_server)
                        .await
                })
            })
            .await;
        match claimed {
            Ok(Claimed::Yes(claim)) => {
                delivery.ack();
                self.changed(&claim.key.execution);
                Ok(Some(*claim))
            }
            Ok(Claimed::Gone) => {
                delivery.ack();
                Ok(None)
            }
            Ok(Claimed::NoRoom) => {
                delivery.retry_after(NO_ROOM);
                Ok(None)
            }
            Err(error) => {
                delivery.retry_after(CLAIM_AGAIN);
                Err(error)
            }
        }
    }

    /// Prolongs the leases of claims to `lease` from now, and says which of them
    /// are lost and which shall end. Call it several times per lease, with every
    /// claim that is not settled.
    ///
    /// # Errors
    ///
    /// Only those of every function; the leases go on running out.
    pub async fn renew(
        &self,
        host: &HostId,
        claims: &[ClaimKey],
        lease: Duration,
    ) -> Result<Renewal, Error> {
        let now = self.0.clock.now();
        let (host, claims) = (host.clone(), claims.to_vec());
        self.0
            .store
            .write(move |c| {
                Box::pin(async move {
                    let until = now.after(lease);
                    store::hosts::set_seen(c, &host, now).await?;
                    let mut renewal = Renewal::default();
                    for key in claims {
                        let halted =
                            store::executions::renew(c, &key.execution, key.epoch, &host, until)
                                .await?;
                        match halted {
                            None => renewal.lost.push(key),
                            Some(true) => renewal.halted.push(key),
                            Some(false) => {}
                        }
                    }
                    Ok(renewal)
                })
            })
            .await
    }

    /// Waits until a claim must stop: a halt is asked for, or the claim is lost
    /// or settled. At once when it happens in this process.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn interrupted(&self, claim: &ClaimKey) -> Result<Interruption, Error> {
        loop {
            let mut changes = self.0.changes.subscribe();
            let stored = {
                let mut c = self.0.store.read().await?;
                store::executions::find(&mut c, &claim.execution).await?
            };
            match stored {
                Some(stored)
                    if stored.epoch == claim.epoch
                        && stored.execution.status == ExecutionStatus::Running =>
                {
                    if stored.execution.halt_requested {
                        return Ok(Interruption::Halted);
                    }
                }
                _ => return Ok(Interruption::Lost),
            }
            Self::may_have_changed(&mut changes, &claim.execution, POLL).await;
        }
    }

    /// Notes that a claim reached `phase` now. `ImageReady` makes a SUBMITTED
    /// actor READY. False when the claim is lost.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn record_phase(&self, claim: &ClaimKey, phase: Phase) -> Result<bool, Error> {
        let now = self.0.clock.now();
        let key = claim.clone();
        let held = self
            .0
            .store
            .write(move |c| {
                Box::pin(async move {
                    let ClaimKey { execution, epoch } = &key;
                    let held =
                        store::executions::record_phase(c, execution, *epoch, phase, now).await?;
                    if held && phase == Phase::ImageReady {
                        store::actors::set_ready_by(c, execution).await?;
                    }
                    Ok(held)
                })
            })
            .await?;
        self.changed(&claim.execution);
        Ok(held)
    }

    /// Appends output of a claim. What exceeds [`crate::Config::max_log_bytes`] is
    /// cut, and the log says so; `truncated` says that the host cut already. False
    /// when the claim is lost.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn append_logs(
        &self,
        claim: &ClaimKey,
        bytes: &[u8],
        truncated: bool,
    ) -> Result<bool, Error> {
        let limit = self.0.config.max_log_bytes;
        let (key, bytes) = (claim.clone(), bytes.to_vec());
        let held = self
            .0
            .store
            .write(move |c| {
                Box::pin(async move {
                    let ClaimKey { execution, epoch } = &key;
                    store::logs::append(c, execution, *epoch, &bytes, truncated, limit).await
                })
            })
            .await?;
        self.changed(&claim.execution);
        Ok(held)
    }

    /// Ends a claimed execution: output, usage and status change together. False
    /// when the claim is lost, and then nothing changes.
    ///
    /// # Errors
    ///
    /// Only those of every function; try again, the claim still holds.
    pub async fn finish(&self, claim: &ClaimKey, finish: Finish) -> Result<bool, Error> {
        let now = self.0.clock.now();
        let limit = self.0.config.max_log_bytes;
        let log_expiry = self.log_expiry();
        let key = claim.clone();
        let held = self
            .0
            .store
            .write(move |c| {
                Box::pin(async move {
                    let ClaimKey { execution, epoch } = &key;
                    let output = &finish.output;
                    let cut = finish.output_truncated;
                    if !store::logs::append(c, execution, *epoch, output, cut, limit).await? {
                        return Ok(false);
                    }
                    let Some(stored) = store::executions::find(c, execution).await? else {
                        return Ok(false);
                    };
                    end(c, &stored, &finish, now, log_expiry).await
                })
            })
            .await?;
        self.changed(&claim.execution);
        self.0.queue.wake();
        Ok(held)
    }

    /// Gives a claimed execution back before anything of it was run: it waits
    /// again, and the attempt does not count. False when the claim is lost.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn release(&self, claim: &ClaimKey) -> Result<bool, Error> {
        self.put_back(claim, Attempt::Kept, Duration::ZERO, String::new()).await
    }

    /// Gives a claimed execution back after a failure that may pass (a registry
    /// that does not answer): it waits for `delay` at least. The attempt counts;
    /// after the last one it ends as could not start, with `reason`. False when
    /// the claim is lost.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn retry(
        &self,
        claim: &ClaimKey,
        delay: Duration,
        reason: &str,
    ) -> Result<bool, Error> {
        self.put_back(claim, Attempt::Spent, delay, reason.to_owned()).await
    }

    async fn put_back(
        &self,
        claim: &ClaimKey,
        attempt: Attempt,
        delay: Duration,
        reason: String,
    ) -> Result<bool, Error> {
        let now = self.0.clock.now();
        let max_attempts = self.0.config.max_attempts;
        let log_expiry = self.log_expiry();
        let key = claim.clone();
        let held = self
            .0
            .store
            .write(move |c| {
                Box::pin(async move {
                    let ClaimKey { execution, epoch } = &key;
                    let Some(stored) = store::executions::find(c, execution).await? else {
                        return Ok(false);
                    };
                    if stored.epoch != *epoch || stored.execution.status != ExecutionStatus::Running
                    {
                        return Ok(false);
                    }
                    if let Some(finish) = must_end_cancelled(c, &stored).await? {
                        return end(c, &stored, &finish, now, log_expiry).await;
                    }
                    if attempt == Attempt::Spent && stored.execution.attempt >= max_attempts {
                        let finish = Finish::new(Outcome::CouldNotStart, reason);
                        return end(c, &stored, &finish, now, log_expiry).await;
                    }
                    if let Some(worker) = &stored.execution.worker {
                        store::workers::set_idle(c, worker).await?;
                    }
                    store::logs::remove(c, execution).await?;
                    store::executions::give_back(c, execution, *epoch, attempt, now).await?;
                    Queue::publish(c, execution, now.after(delay)).await?;
                    Ok(true)
                })
            })
            .await?;
        self.changed(&claim.execution);
        self.0.queue.wake();
        Ok(held)
    }

    /// Puts right what a crash left: ended leases (next attempt, or lost after
    /// the last), accepted executions that the queue does not have, expired logs,
    /// deleted actors that ended, idle workers. Call it every few seconds, in any
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
        let (swept, changed) = self
            .0
            .store
            .write(move |c| {
                Box::pin(async move {
                    let lost = store::executions::with_expired_lease(c, now).await?;
                    let reason = "the host that ran it was lost";
                    let (mut swept, changed) =
                        give_back_all(c, lost, reason, max_attempts, now, log_expiry).await?;
                    for execution in store::executions::unqueued(c).await? {
                        Queue::publish(c, &execution, now).await?;
                        store::executions::set_queued(c, &execution, now).await?;
                        swept.queued += 1;
                    }
                    swept.logs_expired = store::logs::remove_expired(c, now).await?;
                    swept.actors_removed = store::actors::remove_ended(c, None).await?.len() as u64;
                    store::workers::remove_idle(c, workers_idle_since).await?;
                    store::hosts::remove_unseen(c, hosts_seen_since).await?;
                    Ok((swept, changed))
                })
            })
            .await?;
        self.tell(&changed);
        Ok(swept)
    }

    /// The next actor whose image no host has had yet; waits until there is one.
    /// The host makes the image ready, and says so with [`Service::actor_ready`]
    /// or [`Service::actor_failed`]; after [`Service::actor_waits`] or nothing at
    /// all the actor comes back, each time later, up to a minute. Messages to the
    /// actor are delivered meanwhile: this only brings it to READY before its
    /// first message.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn receive_preparation(&self) -> Result<Preparation, Error> {
        loop {
            let changed = self.0.actors_changed.notified();
            let actors = {
                let mut c = self.0.store.read().await?;
                store::actors::to_prepare(&mut c).await?
            };
            if let Some(preparation) = self.0.preparing.begin(actors, &self.0.clock) {
                // Another receiver may find more.
                self.0.actors_changed.notify_one();
                return Ok(preparation);
            }
            let _ = tokio::time::timeout(POLL, changed).await;
        }
    }

    /// Says that a host has the image of an actor at `revision`: SUBMITTED → READY.
    /// False when the actor is not SUBMITTED at that revision any more.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn actor_ready(&self, actor: &ActorId, revision: i64) -> Result<bool, Error> {
        // One blank, as in Abaco.
        self.set_actor_status(actor, revision, ActorStatus::Ready, " ").await
    }

    /// Says what an actor at `revision` waits for: it stays SUBMITTED, with
    /// `reason` as its message until the next report. False, and nothing is
    /// written, when the message says so already or the actor is not SUBMITTED at
    /// that revision any more.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn actor_waits(
        &self,
        actor: &ActorId,
        revision: i64,
        reason: &str,
    ) -> Result<bool, Error> {
        self.set_actor_status(actor, revision, ActorStatus::Submitted, reason).await
    }

    /// Says that the image of an actor at `revision` cannot be had, and why: the
    /// actor is in ERROR until its owner updates it, and its messages wait. Not
    /// for faults of ours or of the network that pass: those are retried.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn actor_failed(
        &self,
        actor: &ActorId,
        revision: i64,
        reason: &str,
    ) -> Result<bool, Error> {
        self.set_actor_status(actor, revision, ActorStatus::Error, reason).await
    }

    async fn set_actor_status(
        &self,
        actor: &ActorId,
        revision: i64,
        status: ActorStatus,
        message: &str,
    ) -> Result<bool, Error> {
        let (actor, message) = (actor.clone(), message.to_owned());
        self.0
            .store
            .write(move |c| {
                Box::pin(async move {
                    store::actors::set_status(c, &actor, revision, status, &message).await
                })
            })
            .await
    }

    fn tell(&self, changed: &[ExecutionId]) {
        for execution in changed {
            self.changed(execution);
        }
        self.0.queue.wake();
    }

    fn log_expiry(&self) -> LogExpiry {
        LogExpiry { default: self.0.config.log_expiry, ceiling: self.0.config.log_expiry_ceiling }
    }
}

#[derive(Clone, Copy)]
struct LogExpiry {
    default: Duration,
    ceiling: Duration,
}

impl LogExpiry {
    /// When logs stored at `now` expire, by the actor's wish; -1 is as long as may be.
    fn of(self, log_ex: Option<i64>, now: Time) -> Time {
        let wish = match log_ex {
            None => self.default,
            Some(seconds) => u64::try_from(seconds).map_or(self.ceiling, Duration::from_secs),
        };
        now.after(wish.min(self.ceiling))
    }
}

async fn claim(
    c: &mut Connection,
    id: &ExecutionId,
    host: &HostId,
    now: Time,
    lease_until: Time,
    default_capacity: u32,
    api_server: &str,
) -> Result<Claimed, Error> {
    let Some(stored) = store::executions::find(c, id).await? else {
        return Ok(Claimed::Gone);
    };
    let waiting = stored.execution.status == ExecutionStatus::Submitted;
    let actor = store::actors::find(c, &stored.execution.actor).await?;
    let (true, Some(actor)) = (waiting, actor) else {
        store::queue::remove(c, id).await?;
        return Ok(Claimed::Gone);
    };
    // Capacity and order are decided here, whatever the queue delivered.
    if !matches!(actor.status, ActorStatus::Submitted | ActorStatus::Ready) {
        return Ok(Claimed::NoRoom);
    }
    let capacity = capacity(actor.stateless, actor.max_workers, default_capacity);
    if store::executions::count_running(c, &actor.id).await? >= capacity {
        return Ok(Claimed::NoRoom);
    }
    if !actor.stateless
        && store::executions::has_earlier_open(c, &actor.id, stored.sequence).await?
    {
        return Ok(Claimed::NoRoom);
    }
    let worker = store::workers::take(c, &actor.id, host, now).await?;
    let claimed = store::executions::claim(
        c,
        id,
        &store::executions::NewClaim {
            epoch: stored.epoch,
            host,
            worker: &worker,
            revision: actor.revision,
            now,
            lease_until,
        },
    )
    .await?;
    if !claimed {
        store::workers::set_idle(c, &worker).await?;
        return Ok(Claimed::Gone);
    }
    // Output of an attempt that was lost.
    store::logs::remove(c, id).await?;
    store::queue::remove(c, id).await?;
    let message = store::messages::of_execution(c, id).await?;
    let Some(Stored { execution, epoch, .. }) = store::executions::find(c, id).await? else {
        return Ok(Claimed::Gone);
    };
    let environment = environment(&actor, &execution, &message, &worker, api_server);
    Ok(Claimed::Yes(Box::new(Claim {
        key: ClaimKey { execution: id.clone(), epoch },
        attempt: execution.attempt,
        actor,
        execution,
        message,
        worker,
        environment,
    })))
}

/// Ends a running execution and frees its worker; the last one of an actor that
/// is being deleted takes the actor along.
async fn end(
    c: &mut Connection,
    stored: &Stored,
    finish: &Finish,
    now: Time,
    log_expiry: LogExpiry,
) -> Result<bool, Error> {
    let execution = &stored.execution;
    let actor = store::actors::find(c, &execution.actor).await?;
    let expires = log_expiry.of(actor.as_ref().and_then(|a| a.log_ex), now);
    if !store::executions::finish(c, &execution.id, stored.epoch, finish, now, Some(expires))
        .await?
    {
        return Ok(false);
    }
    if let Some(worker) = &execution.worker {
        store::workers::set_idle(c, worker).await?;
    }
    if actor.is_some_and(|a| a.status == ActorStatus::ShuttingDown) {
        store::actors::remove_ended(c, Some(&execution.actor)).await?;
    }
    Ok(true)
}

/// How a running execution ends that would wait again, but may not.
async fn must_end_cancelled(c: &mut Connection, stored: &Stored) -> Result<Option<Finish>, Error> {
    if stored.execution.halt_requested {
        return Ok(Some(Finish::new(Outcome::Cancelled, "cancelled: it was halted")));
    }
    let actor = store::actors::find(c, &stored.execution.actor).await?;
    Ok(actor
        .is_none_or(|a| a.status == ActorStatus::ShuttingDown)
        .then(|| Finish::new(Outcome::Cancelled, "cancelled: its actor was deleted")))
}

/// Gives running executions whose hosts are gone their next attempt, or ends them.
async fn give_back_all(
    c: &mut Connection,
    lost: Vec<Stored>,
    reason: &str,
    max_attempts: u32,
    now: Time,
    log_expiry: LogExpiry,
) -> Result<(Swept, Vec<ExecutionId>), Error> {
    let mut swept = Swept::default();
    let mut changed = Vec::new();
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
            end(c, &stored, &finish, now, log_expiry).await?;
            swept.ended += 1;
        } else {
            let id = &execution.id;
            store::executions::give_back(c, id, stored.epoch, Attempt::Spent, now).await?;
            Queue::publish(c, id, now).await?;
            swept.retried += 1;
        }
        // Its host is gone, so it takes nothing any more.
        if let Some(worker) = &execution.worker {
            store::workers::remove(c, worker).await?;
        }
        changed.push(stored.execution.id);
    }
    Ok((swept, changed))
}

/// An actor whose image a host shall make ready. Dropped while the actor is
/// still SUBMITTED, it comes back after a while.
#[derive(Debug)]
pub struct Preparation {
    /// The actor; report with its id and revision.
    pub actor: Actor,
    _guard: PreparingGuard,
}

/// An actor at a revision.
type Prepared = (ActorId, i64);

/// The preparations of this process: those under way, and those that came to
/// nothing so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Preparing(Arc<Mutex<HashMap<Prepared, Tries>>>);

#[derive(Debug, Default)]
struct Tries {
    /// Those that came to nothing.
    failed: u32,
    /// When the next may begin; none while one is under way.
    again: Option<Time>,
}

impl Preparing {
    /// Begins with the first of `actors`, which are all that are to be prepared,
    /// whose time has come.
    fn begin(&self, actors: Vec<Actor>, clock: &Clock) -> Option<Preparation> {
        let now = clock.now();
        let keys: HashSet<Prepared> =
            actors.iter().map(|actor| (actor.id.clone(), actor.revision)).collect();
        let mut preparing = self.0.lock().expect("nothing panics while it holds the preparations");
        preparing.retain(|key, tries| tries.again.is_none() || keys.contains(key));
        for actor in actors {
            let key = (actor.id.clone(), actor.revision);
            match preparing.get_mut(&key) {
                None => {
                    preparing.insert(key.clone(), Tries::default());
                }
                Some(tries) if tries.again.is_some_and(|again| again <= now) => tries.again = None,
                Some(_) => continue,
            }
            let guard = PreparingGuard { preparing: self.clone(), key, clock: clock.clone() };
            return Some(Preparation { actor, _guard: guard });
        }
        None
    }
}

#[derive(Debug)]
struct PreparingGuard {
    preparing: Preparing,
    key: Prepared,
    clock: Clock,
}

impl Drop for PreparingGuard {
    fn drop(&mut self) {
        if let Ok(mut preparing) = self.preparing.0.lock() {
            let tries = preparing.entry(self.key.clone()).or_default();
            let rest = PREPARE_AGAIN.saturating_mul(2_u32.saturating_pow(tries.failed));
            tries.failed = tries.failed.saturating_add(1);
            // From the end of a try: one may take longer than the rest after it.
            tries.again = Some(self.clock.now().after(rest.min(PREPARE_AGAIN_MOST)));
        }
    }
}
