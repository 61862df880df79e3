//! Executions that nobody sends a message for: schedules.

use std::collections::HashSet;

use tracing::warn;

use super::Service;
use crate::actor::{Actor, ActorStatus};
use crate::clock::Time;
use crate::environment::TIME_QUEUED;
use crate::error::{Chain, Error};
use crate::execution::CRON;
use crate::id::{ActorId, ExecutionId};
use crate::message::NewMessage;
use crate::metrics;
use crate::queue::Activation;
use crate::store;
use crate::store::accept::Accept;

/// Actors that are looked at in one go.
const AT_ONCE: i64 = 200;
/// The message that Abaco gives such an execution.
const MESSAGE: &str = "This is your cron execution";

impl Service {
    /// Executes the actors whose next time has come and whose schedule is on, each
    /// once however many of its times have passed. Says how many.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn run_schedules(&self) -> Result<u64, Error> {
        let mut executed = 0;
        // One that fails is tried again the next time, and holds up no other.
        let mut failed = HashSet::new();
        loop {
            let now = self.0.clock.now();
            let mut due = {
                let mut c = self.0.store.read().await?;
                let limit = AT_ONCE + i64::try_from(failed.len()).unwrap_or(i64::MAX - AT_ONCE);
                store::cron::due(&mut c, now, limit).await?
            };
            due.retain(|actor| !failed.contains(actor));
            if due.is_empty() {
                return Ok(executed);
            }
            for actor in due {
                match self.run_schedule(actor.clone(), now).await {
                    Ok(run) => executed += u64::from(run),
                    Err(error) if error.is_transient() => return Err(error),
                    Err(error) => {
                        warn!(actor.id = %actor, error = %Chain(&error), "could not execute actor {actor} by its schedule");
                        failed.insert(actor);
                    }
                }
            }
        }
    }

    /// The time passes on and the execution is accepted together, so that no other
    /// process does it too, and no crash makes it none or two.
    async fn run_schedule(&self, id: ActorId, now: Time) -> Result<bool, Error> {
        let execution = ExecutionId::generate();
        let service = self.clone();
        let executed = self
            .0
            .store
            .write(move |c| {
                Box::pin(async move {
                    let Some(actor) = store::actors::lock(c, &id).await? else { return Ok(None) };
                    if actor.cron.next.is_none_or(|next| next > now) {
                        return Ok(None);
                    }
                    let mut cron = actor.cron.clone();
                    cron.next = cron.first_after(now);
                    store::cron::set(c, &id, &cron).await?;
                    if !cron.on || actor.status == ActorStatus::ShuttingDown {
                        return Ok(None);
                    }
                    // By the actor's own will, so as its owner.
                    let user = service.executor_user(&actor, &actor.owner);
                    let accept = accept(execution, id, user, now);
                    let accepted = store::accept::accept(c, &accept).await?;
                    Ok::<Option<Actor>, Error>(accepted.map(|_| actor))
                })
            })
            .await?;
        let Some(actor) = executed else { return Ok(false) };
        metrics::message_accepted();
        self.0.queue.activate(Activation::of(&actor));
        Ok(true)
    }
}

fn accept(
    execution: ExecutionId,
    actor: ActorId,
    executor_user: Option<(u32, u32)>,
    now: Time,
) -> Accept {
    let mut message = NewMessage::text(MESSAGE);
    message.environment.push((TIME_QUEUED.to_owned(), now.iso_millis()));
    let executor = CRON.to_owned();
    Accept { execution, actor, executor, executor_user, message, now, count_to: 1 }
}
