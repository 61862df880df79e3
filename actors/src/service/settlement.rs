//! How a claim ends: finished, given back, or lost with its host.

use std::time::Duration;

use super::Service;
use super::claims::ClaimKey;
use crate::actor::ActorStatus;
use crate::clock::Time;
use crate::error::Error;
use crate::execution::{ExecutionStatus, Finish, Outcome};
use crate::store::executions::{Attempt, Stored};
use crate::store::{self, Connection};

impl Service {
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
                    let Some(stored) = store::executions::lock(c, execution).await? else {
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
                    let visible = now.after(delay);
                    store::executions::give_back(c, execution, *epoch, attempt, now, visible).await
                })
            })
            .await?;
        self.changed(&claim.execution);
        self.0.queue.wake();
        Ok(held)
    }

    pub(super) fn log_expiry(&self) -> LogExpiry {
        LogExpiry { default: self.0.config.log_expiry, ceiling: self.0.config.log_expiry_ceiling }
    }
}

#[derive(Clone, Copy)]
pub(super) struct LogExpiry {
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

/// Ends a running execution and frees its worker; the last one of an actor that
/// is being deleted takes the actor along.
pub(super) async fn end(
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
pub(super) async fn must_end_cancelled(
    c: &mut Connection,
    stored: &Stored,
) -> Result<Option<Finish>, Error> {
    if stored.execution.halt_requested {
        return Ok(Some(Finish::new(Outcome::Cancelled, "cancelled: it was halted")));
    }
    let actor = store::actors::find(c, &stored.execution.actor).await?;
    Ok(actor
        .is_none_or(|a| a.status == ActorStatus::ShuttingDown)
        .then(|| Finish::new(Outcome::Cancelled, "cancelled: its actor was deleted")))
}
