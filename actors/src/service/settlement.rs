//! How a claim ends: finished, given back, or lost with its host.

use std::time::Duration;

use super::Service;
use super::claims::ClaimKey;
use crate::actor::ActorStatus;
use crate::clock::Time;
use crate::error::Error;
use crate::execution::{ExecutionStatus, Finish, Outcome, Phase, Phases};
use crate::metrics::{self, Again};
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
        let ended = self
            .0
            .store
            .write(move |c| {
                Box::pin(async move {
                    let ClaimKey { execution, epoch } = &key;
                    let output = &finish.output;
                    let cut = finish.output_truncated;
                    if !store::logs::append(c, execution, *epoch, output, cut, limit).await? {
                        return Ok(None);
                    }
                    let Some(stored) = store::executions::find(c, execution).await? else {
                        return Ok(None);
                    };
                    end(c, &stored, &finish, now, log_expiry).await
                })
            })
            .await?;
        self.changed(&claim.execution);
        self.0.queue.wake();
        if let Some(ended) = &ended {
            ended.count();
        }
        Ok(ended.is_some())
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
        let put_back = self
            .0
            .store
            .write(move |c| {
                Box::pin(async move {
                    let ClaimKey { execution, epoch } = &key;
                    let Some(stored) = store::executions::lock(c, execution).await? else {
                        return Ok(PutBack::Lost);
                    };
                    if stored.epoch != *epoch || stored.execution.status != ExecutionStatus::Running
                    {
                        return Ok(PutBack::Lost);
                    }
                    let finish = match must_end_cancelled(c, &stored).await? {
                        Some(cancelled) => Some(cancelled),
                        None if attempt == Attempt::Spent
                            && stored.execution.attempt >= max_attempts =>
                        {
                            Some(Finish::new(Outcome::CouldNotStart, reason))
                        }
                        None => None,
                    };
                    if let Some(finish) = finish {
                        let ended = end(c, &stored, &finish, now, log_expiry).await?;
                        return Ok(ended.map_or(PutBack::Lost, PutBack::Ended));
                    }
                    if let Some(worker) = &stored.execution.worker {
                        store::workers::set_idle(c, worker).await?;
                    }
                    store::logs::remove(c, execution).await?;
                    let visible = now.after(delay);
                    let waits =
                        store::executions::give_back(c, execution, *epoch, attempt, now, visible)
                            .await?;
                    Ok(if waits { PutBack::Waits } else { PutBack::Lost })
                })
            })
            .await?;
        self.changed(&claim.execution);
        self.0.queue.wake();
        match (&put_back, attempt) {
            (PutBack::Lost, _) => return Ok(false),
            (PutBack::Ended(ended), _) => ended.count(),
            (PutBack::Waits, Attempt::Spent) => metrics::attempts_repeated(Again::CouldNotStart, 1),
            (PutBack::Waits, Attempt::Kept) => metrics::attempts_repeated(Again::Released, 1),
        }
        Ok(true)
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

/// What became of a claim that was given back.
enum PutBack {
    /// Somebody else has it.
    Lost,
    /// It waits for its next attempt.
    Waits,
    /// There is no next attempt.
    Ended(Ended),
}

/// An execution that ended in a transaction; counted when that is committed.
#[derive(Debug)]
pub(super) struct Ended {
    outcome: Outcome,
    phases: Phases,
}

impl Ended {
    pub(super) fn count(&self) {
        metrics::execution_finished(self.outcome, &self.phases);
    }
}

/// Ends a running execution and frees its worker; the last one of an actor that
/// is being deleted takes the actor along. None where somebody else has it.
pub(super) async fn end(
    c: &mut Connection,
    stored: &Stored,
    finish: &Finish,
    now: Time,
    log_expiry: LogExpiry,
) -> Result<Option<Ended>, Error> {
    let execution = &stored.execution;
    let actor = store::actors::find(c, &execution.actor).await?;
    let expires = log_expiry.of(actor.as_ref().and_then(|a| a.log_ex), now);
    if !store::executions::finish(c, &execution.id, stored.epoch, finish, now, Some(expires))
        .await?
    {
        return Ok(None);
    }
    if let Some(worker) = &execution.worker {
        store::workers::set_idle(c, worker).await?;
    }
    if actor.is_some_and(|a| a.status == ActorStatus::ShuttingDown) {
        store::actors::remove_ended(c, Some(&execution.actor)).await?;
    }
    let mut phases = execution.phases;
    for (phase, time) in finish.phases.iter() {
        if phases.at(phase).is_none() {
            phases.set(phase, time);
        }
    }
    phases.set(Phase::Stored, now);
    Ok(Some(Ended { outcome: finish.outcome, phases }))
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
