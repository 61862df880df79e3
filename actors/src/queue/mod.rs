//! What waits to be run: publish, receive, settle.
//!
//! A delivery carries ids only; the row is the truth. It is delivered at least
//! once: one that is dropped comes back, and the conditional update that claims
//! an execution makes a second delivery harmless.

pub(crate) mod broker;
pub(crate) mod embedded;
pub(crate) mod rabbitmq;
mod turns;

use std::time::Duration;

use crate::actor::Actor;
use crate::clock::Clock;
use crate::config::{Config, QueueConfig};
use crate::error::Error;
use crate::id::{ActorId, ExecutionId};
use crate::permission::Tenant;
use crate::store::Store;

/// The queue, on the rows alone or with a broker that calls for hosts.
#[derive(Clone, Debug)]
pub(crate) enum Queue {
    Embedded(embedded::Embedded),
    Broker(broker::Broker),
}

impl Queue {
    pub(crate) fn open(config: &Config, store: Store, clock: Clock) -> Result<Self, Error> {
        let default = config.max_workers_per_actor;
        Ok(match &config.queue {
            QueueConfig::Database => Self::Embedded(embedded::Embedded::new(store, clock, default)),
            QueueConfig::RabbitMq(rabbitmq) => {
                Self::Broker(broker::Broker::new(rabbitmq, store, clock, default)?)
            }
        })
    }

    /// The broker, where there is one.
    pub(crate) fn broker(&self) -> Option<&broker::Broker> {
        match self {
            Self::Embedded(_) => None,
            Self::Broker(broker) => Some(broker),
        }
    }

    /// Calls a host for an actor that has work. Called once the work is committed,
    /// never before; a call may come to nothing, since the sweep repeats it.
    pub(crate) fn activate(&self, activation: Activation) {
        match self {
            // Whoever looks finds the actor.
            Self::Embedded(_) => self.wake(),
            Self::Broker(broker) => broker.activate(activation),
        }
    }

    /// Says that an execution of an actor has ended, so that there is room for
    /// another.
    pub(crate) fn made_room(&self, ended: &ExecutionId) {
        match self {
            Self::Embedded(_) => self.wake(),
            Self::Broker(broker) => broker.made_room(ended),
        }
    }

    /// Says that an execution that ran waits again, for `delay` at least.
    pub(crate) fn waits_again(&self, execution: &ExecutionId, delay: Duration) {
        match self {
            Self::Embedded(_) => self.wake(),
            Self::Broker(broker) => broker.waits_again(execution, delay),
        }
    }

    /// Says that nothing of an actor may run for `pause`, and that it may then.
    pub(crate) fn rests(&self, actor: &ActorId, pause: Duration) {
        match self {
            // Whoever looks then finds it.
            Self::Embedded(_) => {}
            Self::Broker(broker) => broker.rests(actor, pause),
        }
    }

    /// Says that an actor changed, or its waiting list: something may run that
    /// could not.
    pub(crate) fn actor_changed(&self, actor: &ActorId) {
        match self {
            Self::Embedded(_) => self.wake(),
            Self::Broker(broker) => broker.changed(actor),
        }
    }

    /// Says that something may be deliverable that was not, to all processes.
    pub(crate) fn wake(&self) {
        if let Self::Embedded(embedded) = self {
            embedded.announce();
            embedded.wake();
        }
    }

    /// As [`Queue::wake`], for this process.
    pub(crate) fn wake_here(&self) {
        if let Self::Embedded(embedded) = self {
            embedded.wake();
        }
    }

    /// Waits until hosts were called for what is committed so far; for as long as
    /// the broker does not answer.
    pub(crate) async fn flush(&self) {
        if let Self::Broker(broker) = self {
            broker.flush().await;
        }
    }

    /// Says that there are new actors, maybe of new tenants.
    pub(crate) fn tenants_changed(&self) {
        if let Self::Broker(broker) = self {
            broker.tenants_changed();
        }
    }

    /// The next execution of an actor of `classes` that may run: tenants take
    /// turns, and each one's actors, whose executions come in the order of
    /// acceptance. Waits until there is one. `room` is how many the host could
    /// take.
    ///
    /// Cancel-safe: a future that is dropped has taken nothing.
    pub(crate) async fn receive(&self, classes: &[String], room: u32) -> Result<Delivery, Error> {
        match self {
            Self::Embedded(embedded) => embedded.receive(classes).await,
            Self::Broker(broker) => broker.receive(classes, room).await,
        }
    }
}

/// What decides how many executions of an actor may run at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capacity {
    pub(crate) stateless: bool,
    /// The actor's own limit.
    pub(crate) max_workers: Option<u32>,
    /// What an admin asked for.
    pub(crate) wanted_workers: u32,
    /// Its image could not be had the last time, so that one is enough to see
    /// whether it can be now.
    pub(crate) on_trial: bool,
}

impl Capacity {
    pub(crate) fn of(actor: &Actor) -> Self {
        let &Actor { stateless, max_workers, wanted_workers, rest, .. } = actor;
        Self { stateless, max_workers, wanted_workers, on_trial: rest.is_some() }
    }

    /// How many, where actors that do not say may run `default`.
    pub(crate) fn at_once(self, default: u32) -> u64 {
        let limit = self.max_workers.unwrap_or(default).max(self.wanted_workers).max(1);
        if self.stateless && !self.on_trial { u64::from(limit) } else { 1 }
    }
}

/// An actor that has work: something of it waits that may run. A hint, which may
/// be lost or doubled: whoever follows it looks at the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Activation {
    pub(crate) actor: ActorId,
    pub(crate) tenant: Tenant,
    /// The class of the hosts that serve the actor.
    pub(crate) class: String,
}

impl Activation {
    pub(crate) fn of(actor: &Actor) -> Self {
        Self { actor: actor.id.clone(), tenant: actor.tenant.clone(), class: actor.queue.clone() }
    }
}

/// How the broker of the queue is reached from one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueState {
    /// It is connected. While it is not, messages are accepted and delayed.
    pub connected: bool,
    /// Calls for hosts that it has not confirmed yet.
    pub unpublished: usize,
}

/// An execution that the queue hands out. Dropped, it comes back.
#[derive(Debug)]
pub struct Delivery {
    /// The execution to claim. With a broker, the claim may be of a later one of
    /// the same actor, if another host has this one by then.
    pub execution: ExecutionId,
    /// Its actor.
    pub actor: ActorId,
    hold: Hold,
}

/// What keeps a delivery from being made again.
#[derive(Debug)]
enum Hold {
    Reserved(embedded::Reservation),
    Handed(rabbitmq::Handed),
}

impl Delivery {
    /// Done with: the claim is committed, or nothing is left to do.
    pub(crate) fn ack(self) {
        match self.hold {
            Hold::Reserved(reservation) => reservation.settle(),
            Hold::Handed(handed) => handed.ack(),
        }
    }

    /// Comes back after `delay` at the earliest.
    pub fn retry_after(self, delay: Duration) {
        match self.hold {
            Hold::Reserved(reservation) => reservation.hold(delay),
            Hold::Handed(handed) => handed.retry_after(delay),
        }
    }

    /// Comes back at once, maybe to another host.
    pub fn reject(self) {
        drop(self);
    }
}
