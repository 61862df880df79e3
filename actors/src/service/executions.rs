//! Rules of executions: look, wait, halt, logs.

use std::time::Duration;

use tokio::time::Instant;

use super::{POLL, Service, authorized, execution_of};
use crate::error::{Error, Noun};
use crate::execution::{
    Execution, ExecutionStatus, ExecutionsPage, ExecutionsSummary, Logs, Outcome,
};
use crate::message::NewMessage;
use crate::permission::{Caller, Level};
use crate::store;

/// Executions in one answer. An actor may have millions.
const MOST_LISTED: u32 = 10_000;

impl Service {
    /// The executions of an actor, oldest first; needs READ. Of more than 10,000 the
    /// last ones: the others are found by [`Service::executions_page`].
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn executions(
        &self,
        caller: &Caller,
        actor: &str,
    ) -> Result<ExecutionsSummary, Error> {
        let latest = ExecutionsPage { skip: 0, limit: MOST_LISTED, newest_first: true };
        let mut summary = self.executions_page(caller, actor, latest).await?;
        summary.executions.reverse();
        Ok(summary)
    }

    /// Some of the executions of an actor, and what all of them used; needs READ.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn executions_page(
        &self,
        caller: &Caller,
        actor: &str,
        page: ExecutionsPage,
    ) -> Result<ExecutionsSummary, Error> {
        let mut c = self.0.store.read().await?;
        let actor = authorized(&mut c, caller, actor, Level::Read).await?;
        let page = ExecutionsPage { limit: page.limit.min(MOST_LISTED), ..page };
        let totals = store::executions::totals_of_actor(&mut c, &actor.id).await?;
        Ok(ExecutionsSummary {
            executions: store::executions::of_actor(&mut c, &actor.id, page).await?,
            total_executions: totals.executions,
            total_cpu_ns: totals.cpu_ns,
            total_io_bytes: totals.io_bytes,
            total_runtime_seconds: totals.runtime_seconds,
        })
    }

    /// One execution; needs READ on its actor.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn execution(
        &self,
        caller: &Caller,
        actor: &str,
        execution: &str,
    ) -> Result<Execution, Error> {
        let mut c = self.0.store.read().await?;
        let actor = authorized(&mut c, caller, actor, Level::Read).await?;
        Ok(execution_of(&mut c, &actor, execution).await?.execution)
    }

    /// The message that an execution handles; needs READ on its actor.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn message(
        &self,
        caller: &Caller,
        actor: &str,
        execution: &str,
    ) -> Result<NewMessage, Error> {
        let mut c = self.0.store.read().await?;
        let actor = authorized(&mut c, caller, actor, Level::Read).await?;
        let stored = execution_of(&mut c, &actor, execution).await?;
        store::messages::of_execution(&mut c, &stored.execution.id).await
    }

    /// The execution when it has a final status, or as it is after `patience`;
    /// needs READ on its actor.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn wait_for_execution(
        &self,
        caller: &Caller,
        actor: &str,
        execution: &str,
        patience: Duration,
    ) -> Result<Execution, Error> {
        let deadline = Instant::now() + patience;
        loop {
            let mut changes = self.0.changes.subscribe();
            let now = self.execution(caller, actor, execution).await?;
            let left = deadline.saturating_duration_since(Instant::now());
            if now.status.is_final() || left.is_zero() {
                return Ok(now);
            }
            Self::may_have_changed(&mut changes, &now.id, left.min(POLL)).await;
        }
    }

    /// Stops an execution; needs UPDATE on its actor. One that waits has ended
    /// when this returns; one that runs ends as soon as its host has stopped it.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forbidden`], [`Error::NotHaltable`].
    pub async fn halt_execution(
        &self,
        caller: &Caller,
        actor: &str,
        execution: &str,
    ) -> Result<(), Error> {
        let now = self.0.clock.now();
        let (caller, actor, execution) = (caller.clone(), actor.to_owned(), execution.to_owned());
        let (id, actor, cancelled) = self
            .0
            .store
            .write(move |c| {
                Box::pin(async move {
                    let actor = authorized(c, &caller, &actor, Level::Update).await?;
                    let id = execution_of(c, &actor, &execution).await?.execution.id;
                    // One that is claimed or given back meanwhile is to be halted too.
                    let gone = || Error::NotFound { noun: Noun::Execution, id: execution.clone() };
                    let locked = store::executions::lock(c, &id).await?;
                    let execution = locked.ok_or_else(gone)?.execution;
                    let cancelled = match execution.status {
                        ExecutionStatus::Submitted => {
                            store::executions::cancel_waiting(
                                c,
                                &execution.id,
                                Outcome::Cancelled,
                                "cancelled: it was halted before it ran",
                                now,
                            )
                            .await?
                        }
                        ExecutionStatus::Running => {
                            store::executions::request_halt(c, &execution.id, now).await?;
                            false
                        }
                        ExecutionStatus::Complete | ExecutionStatus::Error => {
                            return Err(Error::NotHaltable {
                                execution: execution.id.to_string(),
                                status: execution.status,
                            });
                        }
                    };
                    Ok((execution.id, actor.id, cancelled))
                })
            })
            .await?;
        crate::metrics::executions_cancelled(cancelled.into());
        self.changed(&id);
        // A stateful actor's next execution may run.
        self.0.queue.actor_changed(&actor);
        Ok(())
    }

    /// The output of an execution so far, all of it; needs READ on its actor.
    /// Empty when it expired.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn logs(&self, caller: &Caller, actor: &str, execution: &str) -> Result<Logs, Error> {
        self.logs_from(caller, actor, execution, 0).await
    }

    /// The output of an execution from `position` (bytes) on; needs READ on its actor.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn logs_from(
        &self,
        caller: &Caller,
        actor: &str,
        execution: &str,
        position: u64,
    ) -> Result<Logs, Error> {
        let mut c = self.0.store.read().await?;
        let actor = authorized(&mut c, caller, actor, Level::Read).await?;
        let stored = execution_of(&mut c, &actor, execution).await?;
        let expired = stored.log_expires.is_some_and(|at| at <= self.0.clock.now());
        let bytes = if expired {
            Vec::new()
        } else {
            store::logs::from(&mut c, &stored.execution.id, position).await?
        };
        Ok(Logs {
            position: position + bytes.len() as u64,
            bytes,
            attempt: stored.execution.attempt,
            epoch: stored.epoch,
            truncated: stored.log_truncated && !expired,
            ended: stored.execution.status.is_final(),
        })
    }

    /// As [`Service::logs_from`], but when there is nothing new, waits for it, for
    /// the end, or for another claim than `epoch`, up to `patience`. What another
    /// claim wrote is answered from its beginning.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn follow_logs(
        &self,
        caller: &Caller,
        actor: &str,
        execution: &str,
        epoch: Option<i64>,
        position: u64,
        patience: Duration,
    ) -> Result<Logs, Error> {
        let deadline = Instant::now() + patience;
        let id = self.execution(caller, actor, execution).await?.id;
        loop {
            let mut changes = self.0.changes.subscribe();
            let logs = self.logs_from(caller, actor, execution, position).await?;
            if epoch.is_some_and(|epoch| epoch != logs.epoch) {
                return self.logs(caller, actor, execution).await;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if !logs.bytes.is_empty() || logs.ended || left.is_zero() {
                return Ok(logs);
            }
            Self::may_have_changed(&mut changes, &id, left.min(POLL)).await;
        }
    }
}
