//! Rules of messages: send, count, purge.

use super::{Service, authorized};
use crate::actor::Actor;
use crate::error::Error;
use crate::execution::Execution;
use crate::id::ExecutionId;
use crate::message::NewMessage;
use crate::metrics;
use crate::permission::{Caller, Level};
use crate::queue::{Activation, Capacity};
use crate::store;
use crate::store::accept::Accept;

impl Service {
    /// The actor that a message is for, before anybody looks at what is sent; needs
    /// EXECUTE.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn actor_to_message(&self, caller: &Caller, actor: &str) -> Result<Actor, Error> {
        self.actor_for(caller, actor, Level::Execute).await
    }

    /// Sends a message to an actor; needs EXECUTE. On success the execution is
    /// committed and survives a power cut. It waits while the actor is SUBMITTED
    /// or in ERROR.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forbidden`], [`Error::Invalid`],
    /// [`Error::TooLarge`], [`Error::ShuttingDown`], [`Error::NoIdentity`].
    pub async fn send_message(
        &self,
        caller: &Caller,
        actor: &str,
        message: NewMessage,
    ) -> Result<Execution, Error> {
        let actor = self.actor_for(caller, actor, Level::Execute).await?;
        let message = message.accept(&self.0.config)?;
        let executor_user = self.executor_user(&actor, &caller.user);
        if actor.run_as_executor && executor_user.is_none() {
            return Err(Error::NoIdentity { user: caller.user.clone() });
        }
        let now = self.0.clock.now();
        let capacity = Capacity::of(&actor).at_once(self.0.config.max_workers_per_actor);
        let calls = store::activations::spread(capacity);
        let accept = Accept {
            execution: ExecutionId::generate(),
            actor: actor.id.clone(),
            executor: caller.user.clone(),
            executor_user,
            message,
            now,
            count_to: calls + 1,
        };
        let id = accept.execution.clone();
        let waiting = self
            .0
            .store
            .write_at_once(move |c| {
                Box::pin(async move { store::accept::accept(c, &accept).await })
            })
            .await?
            .ok_or_else(|| Error::ShuttingDown { actor: actor.id.to_string() })?;
        metrics::message_accepted();
        // Each claim calls a host for the next one, so a few calls are enough.
        if waiting <= calls {
            self.0.queue.activate(Activation::of(&actor));
        }
        Ok(Execution::accepted(id, &actor, caller.user.clone(), executor_user, now))
    }

    /// Who a user is on the hosts, where the actor runs as its senders.
    pub(super) fn executor_user(&self, actor: &Actor, user: &str) -> Option<(u32, u32)> {
        let identity = || self.0.config.host_access(&actor.tenant).identity_of(user);
        actor.run_as_executor.then(identity).flatten().map(|identity| identity.user)
    }

    /// How many messages of an actor wait, the ones being handled not counted;
    /// needs READ.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn message_count(&self, caller: &Caller, actor: &str) -> Result<u64, Error> {
        let mut c = self.0.store.read().await?;
        let actor = authorized(&mut c, caller, actor, Level::Read).await?;
        store::waiting::count_of_actor(&mut c, &actor.id).await
    }

    /// Cancels what waits for an actor now; needs UPDATE. What runs goes on, and so
    /// does what is claimed or sent meanwhile. Says how many messages there were.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn purge_messages(&self, caller: &Caller, actor: &str) -> Result<u64, Error> {
        let actor = self.actor_for(caller, actor, Level::Update).await?;
        let now = self.0.clock.now();
        let mut count = 0;
        let last = {
            let mut c = self.0.store.read().await?;
            store::executions::last_waiting(&mut c, &actor.id).await?
        };
        let Some(last) = last else { return Ok(count) };
        loop {
            let actor = actor.id.clone();
            let some = self
                .0
                .store
                .write(move |c| {
                    Box::pin(async move {
                        let reason = "cancelled: the actor's messages were purged";
                        store::executions::cancel_waiting_of_actor(c, &actor, last, reason, now)
                            .await
                    })
                })
                .await?;
            metrics::executions_cancelled(some);
            count += some;
            // A part of them may have been claimed since they were looked for, so that
            // few does not mean that they were all.
            if some == 0 {
                return Ok(count);
            }
        }
    }
}
