//! What waits to be run: publish, receive, settle.
//!
//! A delivery carries ids only; the row is the truth. It is delivered at least
//! once: one that is dropped comes back, and the conditional update that claims
//! an execution makes a second delivery harmless.

pub(crate) mod embedded;

use std::time::Duration;

use crate::actor::Actor;
use crate::clock::Clock;
use crate::error::Error;
use crate::id::{ActorId, ExecutionId};
use crate::permission::Tenant;
use crate::store::Store;

/// The queue; a broker comes as a second variant.
#[derive(Clone, Debug)]
pub(crate) enum Queue {
    Embedded(embedded::Embedded),
}

impl Queue {
    /// The queue that is a table of the store.
    pub(crate) fn embedded(store: Store, clock: Clock, workers_per_actor: u32) -> Self {
        Self::Embedded(embedded::Embedded::new(store, clock, workers_per_actor))
    }

    /// Calls a host for an actor that has work. Called once the work is committed,
    /// never before; a call may come to nothing, since the sweep repeats it.
    pub(crate) fn activate(&self, _activation: Activation) {
        // Whoever looks finds the actor.
        self.wake();
    }

    /// Says that something may be deliverable that was not, to all processes.
    pub(crate) fn wake(&self) {
        let Self::Embedded(embedded) = self;
        embedded.announce();
        embedded.wake();
    }

    /// As [`Queue::wake`], for this process.
    pub(crate) fn wake_here(&self) {
        let Self::Embedded(embedded) = self;
        embedded.wake();
    }

    /// The next execution that may run on hosts of `classes`: tenants take turns,
    /// and each one's actors, whose executions come in the order of acceptance.
    /// Waits until there is one.
    ///
    /// Cancel-safe: a future that is dropped has taken nothing.
    pub(crate) async fn receive(&self, classes: &[String]) -> Result<Delivery, Error> {
        let Self::Embedded(embedded) = self;
        embedded.receive(classes).await
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

/// An execution that the queue hands out. Dropped, it comes back.
#[derive(Debug)]
pub struct Delivery {
    /// The execution to claim.
    pub execution: ExecutionId,
    /// Its actor.
    pub actor: ActorId,
    reservation: embedded::Reservation,
}

impl Delivery {
    /// Done with: the claim is committed, or nothing is left to do.
    pub(crate) fn ack(self) {
        self.reservation.settle();
    }

    /// Comes back after `delay` at the earliest.
    pub fn retry_after(self, delay: Duration) {
        self.reservation.hold(delay);
    }

    /// Comes back at once, maybe to another host.
    pub fn reject(self) {
        drop(self);
    }
}
