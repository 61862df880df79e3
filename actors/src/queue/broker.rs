//! The queue on a broker: it carries activations, the rows say what they are for.
//!
//! An actor has as many activations under way as executions that may run, up to
//! a small number ([`activations::spread`]):
//!
//! * *accept* publishes one while no more than that wait;
//! * *claim* uses one up, and publishes the next to the tail if as many still
//!   wait: so actors take turns, and 100,000 messages of one cost no more than
//!   100,000 activations in all, a few at a time;
//! * one that finds nothing to run goes. One that finds no room goes too, and is
//!   *owed*: noted with the actor, and published by whatever makes room next.
//!
//! Each of them decides after its own commit by what it reads then, so of two
//! that pass each other at least one sees the other. What goes wrong all the
//! same (a broker that lost a queue, a process that died between commit and
//! publish), the sweep puts right.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::{debug, warn};

use super::rabbitmq::{Handed, Place, RabbitMq};
use super::{Activation, Delivery, Hold};
use crate::clock::Clock;
use crate::config::RabbitMqConfig;
use crate::error::{Chain, Error};
use crate::id::{ActorId, ExecutionId};
use crate::permission::Tenant;
use crate::store::Store;
use crate::store::activations::{self, Work};

/// When an activation is tried again that could not be looked up.
const AGAIN: Duration = Duration::from_secs(1);
/// How often to look for new tenants, whose queues are to be consumed from.
const DISCOVER_EVERY: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub(crate) struct Broker(Arc<Inner>);

struct Inner {
    rabbit: RabbitMq,
    store: Store,
    clock: Clock,
    workers_per_actor: u32,
    tenants_changed: Arc<Notify>,
    discovery: OnceLock<AbortOnDropHandle<()>>,
    background: TaskTracker,
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Broker").field(&self.0.rabbit).finish()
    }
}

impl Broker {
    pub(crate) fn new(
        config: &RabbitMqConfig,
        store: Store,
        clock: Clock,
        workers_per_actor: u32,
    ) -> Result<Self, Error> {
        let rabbit = RabbitMq::open(config)?;
        let tenants_changed = Arc::new(Notify::new());
        Ok(Self(Arc::new(Inner {
            rabbit,
            store,
            clock,
            workers_per_actor,
            tenants_changed,
            discovery: OnceLock::new(),
            background: TaskTracker::new(),
        })))
    }

    pub(crate) fn rabbit(&self) -> &RabbitMq {
        &self.0.rabbit
    }

    pub(crate) fn activate(&self, activation: Activation) {
        self.0.rabbit.publish(activation);
    }

    /// Waits until the broker has what follows from the commits so far; for as long
    /// as it does not take it.
    pub(crate) async fn flush(&self) {
        self.0.background.close();
        self.0.background.wait().await;
        self.0.rabbit.flushed().await;
    }

    pub(crate) fn tenants_changed(&self) {
        self.0.tenants_changed.notify_one();
    }

    pub(crate) async fn receive(&self, classes: &[String], room: u32) -> Result<Delivery, Error> {
        self.0.discovery.get_or_init(|| self.discover());
        loop {
            let handed = self.0.rabbit.receive(classes, room).await;
            let actor = handed.actor().clone();
            let work = match self.work(&actor).await {
                Ok(work) => work,
                Err(error) => {
                    handed.retry_after(AGAIN);
                    return Err(error);
                }
            };
            let Some(Work { next: Some(execution), runnable: true, .. }) = &work else {
                handed.ack();
                continue;
            };
            if work.as_ref().is_some_and(|work| work.room() == 0) {
                self.owe(handed).await?;
                continue;
            }
            let execution = execution.clone();
            return Ok(Delivery { execution, actor, hold: Hold::Handed(handed) });
        }
    }

    async fn work(&self, actor: &ActorId) -> Result<Option<Work>, Error> {
        let mut c = self.0.store.read().await?;
        activations::work(&mut c, actor, self.0.clock.now(), self.0.workers_per_actor).await
    }

    /// Settles an activation for whose work there is no room.
    async fn owe(&self, handed: Handed) -> Result<(), Error> {
        let actor = handed.actor().clone();
        let workers_per_actor = self.0.workers_per_actor;
        let now = self.0.clock.now();
        let owing = actor.clone();
        let owed = self
            .0
            .store
            .write(move |c| {
                Box::pin(async move {
                    let work = activations::work(c, &owing, now, workers_per_actor).await?;
                    let Some(work) = work else { return Ok(()) };
                    activations::owe(c, &owing, activations::spread(work.capacity)).await
                })
            })
            .await;
        if let Err(error) = owed {
            handed.retry_after(AGAIN);
            return Err(error);
        }
        handed.ack();
        self.owed(&actor);
        Ok(())
    }

    /// After an activation was noted as owed: there may be room again that was
    /// made before, by somebody who saw nothing owed.
    pub(crate) fn owed(&self, actor: &ActorId) {
        let (broker, actor) = (self.clone(), actor.clone());
        self.in_background(async move {
            let work = broker.work(&actor).await?;
            if work.is_some_and(|work| work.room() > 0 && work.waiting > 0) {
                let paid = broker
                    .0
                    .store
                    .write(move |c| Box::pin(async move { activations::pay(c, &actor).await }));
                broker.activate_all(paid.await?);
            }
            Ok(())
        });
    }

    /// After an execution ended.
    pub(crate) fn made_room(&self, execution: &ExecutionId) {
        let (broker, execution) = (self.clone(), execution.clone());
        self.in_background(async move { broker.pay_beside(execution).await });
    }

    async fn pay_beside(&self, execution: ExecutionId) -> Result<(), Error> {
        let paid = self
            .0
            .store
            .write(move |c| Box::pin(async move { activations::pay_beside(c, &execution).await }));
        self.activate_all(paid.await?);
        Ok(())
    }

    /// After an execution that ran waits again, for `delay` at least.
    pub(crate) fn waits_again(&self, execution: &ExecutionId, delay: Duration) {
        let (broker, execution) = (self.clone(), execution.clone());
        self.in_background(async move {
            broker.pay_beside(execution.clone()).await?;
            if delay.is_zero() {
                return broker.activate_beside(&execution).await;
            }
            // No flush waits for this.
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                told(broker.activate_beside(&execution).await);
            });
            Ok(())
        });
    }

    /// After an actor began to rest, for `pause`: calls for hosts again then.
    pub(crate) fn rests(&self, actor: &ActorId, pause: Duration) {
        let (broker, actor) = (self.clone(), actor.clone());
        // No flush waits for this.
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            broker.changed(&actor);
        });
    }

    async fn activate_beside(&self, execution: &ExecutionId) -> Result<(), Error> {
        let (now, default) = (self.0.clock.now(), self.0.workers_per_actor);
        let mut c = self.0.store.read().await?;
        let work = activations::work_beside(&mut c, execution, now, default).await?;
        if let Some(work) = work.filter(|work| work.runnable && work.waiting > 0) {
            self.activate(work.activation);
        }
        Ok(())
    }

    /// After something of an actor changed that its executions wait for.
    pub(crate) fn changed(&self, actor: &ActorId) {
        let (broker, actor) = (self.clone(), actor.clone());
        self.in_background(async move {
            if let Some(work) = broker.work(&actor).await? {
                let times = work.waiting.min(work.room());
                broker.activate_all((0..times).map(|_| work.activation.clone()));
            }
            Ok(())
        });
    }

    /// Puts an execution off whose claim failed, so that others of its actor come
    /// before it.
    pub(crate) async fn put_off(&self, execution: &ExecutionId, delay: Duration) {
        let (execution, until) = (execution.clone(), self.0.clock.now().after(delay));
        let put_off = self.0.store.write(move |c| {
            Box::pin(async move { activations::put_off(c, &execution, until).await })
        });
        if let Err(error) = put_off.await {
            debug!(error = %Chain(&error), "could not put an execution off");
        }
    }

    /// Publishes those activations that the sweep found missing, unless their
    /// queue already holds more than its actors can need.
    pub(crate) async fn repeat(&self, missing: Vec<(Activation, u64)>) -> Result<(), Error> {
        let waiting = {
            let mut c = self.0.store.read().await?;
            activations::waiting_actors(&mut c).await?
        };
        let (places, actors): (Vec<Place>, Vec<u64>) =
            waiting.into_iter().map(|(class, tenant, n)| (Place { class, tenant }, n)).unzip();
        let depths = self.0.rabbit.depths(&places).await?;
        let full: Vec<&Place> = places
            .iter()
            .zip(actors.iter().zip(&depths))
            .filter(|(_, (actors, depth))| **depth >= **actors * 2)
            .map(|(place, _)| place)
            .collect();
        for (activation, times) in missing {
            if !full.contains(&&Place::of(&activation)) {
                self.activate_all((0..times).map(|_| activation.clone()));
            }
        }
        Ok(())
    }

    /// How many activations wait for hosts of each of `classes`.
    pub(crate) async fn depths(&self, classes: &[String]) -> Result<BTreeMap<String, u64>, Error> {
        let tenants = tenants(&self.0.store).await?;
        let places = classes.iter().flat_map(|class| {
            tenants.iter().map(|tenant| Place { class: class.clone(), tenant: tenant.clone() })
        });
        let places: Vec<Place> = places.collect();
        let mut depths: BTreeMap<String, u64> =
            classes.iter().map(|class| (class.clone(), 0)).collect();
        for (place, depth) in places.iter().zip(self.0.rabbit.depths(&places).await?) {
            *depths.entry(place.class.clone()).or_default() += depth;
        }
        Ok(depths)
    }

    fn activate_all(&self, activations: impl IntoIterator<Item = Activation>) {
        for activation in activations {
            self.activate(activation);
        }
    }

    /// Does what follows a commit, for which nobody waits.
    fn in_background(&self, work: impl Future<Output = Result<(), Error>> + Send + 'static) {
        self.0.background.spawn(async move { told(work.await) });
    }

    /// Keeps the broker's half informed of the tenants.
    fn discover(&self) -> AbortOnDropHandle<()> {
        let Inner { rabbit, store, tenants_changed, .. } = &*self.0;
        // Not of all of it: it ends with the last handle.
        let (rabbit, store, changed) = (rabbit.clone(), store.clone(), Arc::clone(tenants_changed));
        AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                match tenants(&store).await {
                    Ok(tenants) => rabbit.set_tenants(tenants),
                    Err(error) => {
                        warn!(error = %Chain(&error), "could not look for tenants");
                        tokio::time::sleep(AGAIN).await;
                        continue;
                    }
                }
                let _ = tokio::time::timeout(DISCOVER_EVERY, changed.notified()).await;
            }
        }))
    }
}

async fn tenants(store: &Store) -> Result<Vec<Tenant>, Error> {
    activations::tenants(&mut store.read().await?).await
}

/// Where what follows a commit fails, the sweep does it.
fn told(done: Result<(), Error>) {
    if let Err(error) = done {
        debug!(error = %Chain(&error), "could not publish an activation");
    }
}
