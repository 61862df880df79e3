//! How a claim ends: finished, given back, or lost with its host.

use std::time::Duration;

use tracing::warn;

use super::Service;
use super::claims::ClaimKey;
use super::events::{Noted, note};
use crate::actor::{Actor, ActorStatus};
use crate::clock::Time;
use crate::error::{Chain, Error};
use crate::event::Event;
use crate::execution::{ExecutionStatus, Finish, Outcome, Phase, Phases, Usage};
use crate::id::{ActorId, ExecutionId};
use crate::metrics::{self, Again};
use crate::store::executions::{Attempt, Stored};
use crate::store::logs::Piece;
use crate::store::{self, Connection};
use crate::tenant::{TenantSettings, TenantsSettings};

impl Service {
    /// Ends a claimed execution: output, usage, status, and what it set as its
    /// actor's state change together. False when the claim is lost, and then
    /// nothing changes. Whoever did not get the answer may ask again: the same end
    /// of the same claim is true again.
    ///
    /// # Errors
    ///
    /// Only those of every function; try again, the claim still holds.
    pub async fn finish(&self, claim: &ClaimKey, finish: Finish) -> Result<bool, Error> {
        let now = self.0.clock.now();
        let limit = self.0.config.max_log_bytes;
        let log_expiry = self.log_expiry();
        let key = claim.clone();
        let settled = self
            .0
            .store
            .write(move |c| {
                Box::pin(async move {
                    let Some(held) = lock(c, &key.execution).await? else {
                        return Ok(Settled::Not);
                    };
                    if !held.is_under(&key) {
                        let before = held.stored.epoch == key.epoch && held.ended_as(&finish);
                        return Ok(if before { Settled::Before } else { Settled::Not });
                    }
                    let ClaimKey { execution, epoch } = &key;
                    let piece = Piece {
                        position: finish.output_position,
                        bytes: &finish.output,
                        truncated: finish.output_truncated,
                    };
                    store::logs::append(c, execution, *epoch, piece, limit).await?;
                    let had_image = finish.phases.at(Phase::ImageReady).is_some();
                    let rested = had_image
                        && held.actor.rest.is_some()
                        && store::actors::end_rest_by(c, execution, *epoch).await?.is_some();
                    let mut ended = settle(c, &held, &finish, now, log_expiry).await?;
                    ended.rested = rested;
                    Ok(Settled::Ended(ended))
                })
            })
            .await?;
        self.changed(&claim.execution);
        if !matches!(settled, Settled::Not) {
            self.0.queue.made_room(&claim.execution);
        }
        if let Settled::Ended(ended) = &settled {
            self.ended(ended).await;
        }
        Ok(!matches!(settled, Settled::Not))
    }

    /// Gives a claimed execution back that its host does not take to its end, and
    /// of which nothing runs any more: it waits again, and the attempt does not
    /// count. False when the claim is lost.
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
        let settled = self
            .0
            .store
            .write(move |c| {
                Box::pin(async move {
                    let Some(held) = lock(c, &key.execution).await? else {
                        return Ok(Settled::Not);
                    };
                    if !held.is_under(&key) {
                        return Ok(Settled::Not);
                    }
                    let finish = held.must_end_cancelled().or_else(|| {
                        let last = held.stored.execution.attempt >= max_attempts;
                        (attempt == Attempt::Spent && last)
                            .then(|| Finish::new(Outcome::CouldNotStart, reason))
                    });
                    if let Some(finish) = finish {
                        return settle(c, &held, &finish, now, log_expiry)
                            .await
                            .map(Settled::Ended);
                    }
                    let ClaimKey { execution, epoch } = &key;
                    if let Some(worker) = &held.stored.execution.worker {
                        store::workers::set_idle(c, worker).await?;
                    }
                    store::logs::remove(c, execution).await?;
                    store::results::remove(c, execution).await?;
                    let visible = now.after(delay);
                    store::executions::give_back(c, execution, *epoch, attempt, now, visible)
                        .await?;
                    Ok(Settled::Waits)
                })
            })
            .await?;
        self.changed(&claim.execution);
        match &settled {
            Settled::Not | Settled::Before => {}
            Settled::Ended(_) => self.0.queue.made_room(&claim.execution),
            Settled::Waits => self.0.queue.waits_again(&claim.execution, delay),
        }
        match (&settled, attempt) {
            (Settled::Not | Settled::Before, _) => return Ok(false),
            (Settled::Ended(ended), _) => self.ended(ended).await,
            (Settled::Waits, Attempt::Spent) => metrics::attempts_repeated(Again::CouldNotStart, 1),
            (Settled::Waits, Attempt::Kept) => metrics::attempts_repeated(Again::Released, 1),
        }
        Ok(true)
    }

    /// After an end was committed: counts it, tells who hears of it, and looks
    /// whether the actor can start at all.
    pub(super) async fn ended(&self, ended: &Ended) {
        metrics::execution_finished(ended.outcome, &ended.phases);
        self.tell(ended.noted);
        if ended.rested {
            self.0.queue.actor_changed(&ended.actor);
        }
        if ended.outcome == Outcome::CouldNotStart
            && let Err(error) = self.stop_what_never_starts(ended).await
        {
            warn!(error = %Chain(&error), actor.id = %ended.actor, "could not look whether actor {} starts", ended.actor);
        }
    }

    /// An actor whose executions could not start several times in a row needs its
    /// owner: what waits is kept, and not used up for nothing.
    async fn stop_what_never_starts(&self, ended: &Ended) -> Result<(), Error> {
        let nothing_starts = {
            let mut c = self.0.store.read().await?;
            let (actor, revision) = (&ended.actor, ended.revision);
            store::executions::nothing_starts(&mut c, actor, revision, FAILED_STARTS).await?
        };
        if nothing_starts {
            let reason = format!(
                "Error executing container: {}; this came {FAILED_STARTS} times in a row: mend it, \
                 and update the actor with another image or with force",
                ended.reason
            );
            self.actor_failed(&ended.actor, ended.revision, &reason).await?;
        }
        Ok(())
    }

    pub(super) fn log_expiry(&self) -> LogExpiry {
        let config = &self.0.config;
        let (default, ceiling) = (config.log_expiry, config.log_expiry_ceiling);
        LogExpiry { default, ceiling, tenants: config.tenants.clone() }
    }
}

/// So many executions of an actor that could not start, one after the other, put
/// it into ERROR.
const FAILED_STARTS: i64 = 6;

#[derive(Clone)]
pub(super) struct LogExpiry {
    default: Duration,
    ceiling: Duration,
    tenants: TenantsSettings,
}

impl LogExpiry {
    /// When logs stored at `now` expire, by the wish of their actor; -1 is as long as
    /// may be.
    fn of(&self, actor: &Actor, now: Time) -> Time {
        let own = |setting: fn(&TenantSettings) -> Option<Duration>, everywhere| {
            self.tenants.of(&actor.tenant, setting, everywhere)
        };
        let ceiling = own(|tenant| tenant.log_expiry_ceiling, self.ceiling);
        let wish = match actor.log_ex {
            None => own(|tenant| tenant.log_expiry, self.default),
            Some(seconds) => u64::try_from(seconds).map_or(ceiling, Duration::from_secs),
        };
        now.after(wish.min(ceiling))
    }
}

/// What became of a claim in a transaction.
pub(super) enum Settled {
    /// It does not hold: nothing.
    Not,
    /// What was asked for now, by an earlier call.
    Before,
    /// The execution waits for its next attempt.
    Waits,
    Ended(Box<Ended>),
}

/// An execution that ended in a transaction; see [`Service::ended`] for when that
/// is committed.
#[derive(Debug)]
pub(super) struct Ended {
    outcome: Outcome,
    reason: String,
    phases: Phases,
    actor: ActorId,
    revision: i64,
    /// Whether a rest of its actor has ended with it.
    rested: bool,
    noted: Noted,
}

/// An execution that no other transaction changes, and its actor.
pub(super) struct Held {
    pub(super) stored: Stored,
    actor: Actor,
}

/// Locks an execution; the actor's own row before, where its state or its rest may
/// change with it.
pub(super) async fn lock(c: &mut Connection, id: &ExecutionId) -> Result<Option<Held>, Error> {
    let Some(mut actor) = store::actors::of_execution(c, id).await? else { return Ok(None) };
    if !actor.stateless || actor.rest.is_some() {
        let Some(locked) = store::actors::lock(c, &actor.id).await? else { return Ok(None) };
        actor = locked;
    }
    Ok(store::executions::lock(c, id).await?.map(|stored| Held { stored, actor }))
}

impl Held {
    pub(super) fn is_under(&self, claim: &ClaimKey) -> bool {
        self.stored.epoch == claim.epoch && self.stored.execution.status == ExecutionStatus::Running
    }

    /// Whether it has ended, in the way that `finish` tells.
    fn ended_as(&self, finish: &Finish) -> bool {
        let execution = &self.stored.execution;
        let micros = |usage: &Usage| usage.runtime.as_micros();
        execution.outcome == Some(finish.outcome)
            && execution.exit_code == finish.exit_code
            && execution.usage.cpu_ns == finish.usage.cpu_ns
            && micros(&execution.usage) == micros(&finish.usage)
    }

    /// How it ends although it would wait again, if it may not.
    pub(super) fn must_end_cancelled(&self) -> Option<Finish> {
        if self.stored.execution.halt_requested {
            return Some(Finish::new(Outcome::Cancelled, "cancelled: it was halted"));
        }
        (self.actor.status == ActorStatus::ShuttingDown)
            .then(|| Finish::new(Outcome::Cancelled, "cancelled: its actor was deleted"))
    }
}

/// Ends an execution by the word of its claim: what it has set as its actor's
/// state counts.
async fn settle(
    c: &mut Connection,
    held: &Held,
    finish: &Finish,
    now: Time,
    log_expiry: LogExpiry,
) -> Result<Box<Ended>, Error> {
    if !held.actor.stateless {
        store::state::apply(c, &held.stored.execution.id).await?;
    }
    end(c, held, finish, now, log_expiry).await
}

/// Ends a running execution and frees its worker; the last one of an actor that
/// is being deleted takes the actor along.
pub(super) async fn end(
    c: &mut Connection,
    held: &Held,
    finish: &Finish,
    now: Time,
    log_expiry: LogExpiry,
) -> Result<Box<Ended>, Error> {
    let Held { stored, actor } = held;
    let execution = &stored.execution;
    let expires = log_expiry.of(actor, now);
    store::executions::finish(c, &execution.id, stored.epoch, finish, now, Some(expires)).await?;
    if let Some(worker) = &execution.worker {
        store::workers::set_idle(c, worker).await?;
    }
    let status = finish.outcome.status();
    let noted = if status == ExecutionStatus::Complete {
        let outcome = finish.outcome.as_str();
        let event = Event::of_execution(&execution.id, status.as_str(), outcome, finish.exit_code);
        note(c, actor, &event, now).await?
    } else {
        Noted::default()
    };
    if actor.status == ActorStatus::ShuttingDown {
        store::actors::remove_ended(c, Some(&execution.actor)).await?;
    }
    let mut phases = execution.phases;
    for (phase, time) in finish.phases.iter() {
        if phases.at(phase).is_none() {
            phases.set(phase, time);
        }
    }
    phases.set(Phase::Stored, now);
    Ok(Box::new(Ended {
        outcome: finish.outcome,
        reason: finish.reason.clone(),
        phases,
        actor: actor.id.clone(),
        revision: actor.revision,
        rested: false,
        noted,
    }))
}
