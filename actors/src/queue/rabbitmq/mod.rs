//! The queue on RabbitMQ: activations in one durable quorum queue per class of
//! hosts and tenant.
//!
//! ```text
//! publish ─► pending, in memory ─► confirmed by the broker ─► consumer ─► buffer ─► receive
//!               ▲                                                │
//!               └───────── given back: to the tail, then acked ──┘
//! ```
//!
//! An activation says "this actor has work" and no more: which execution that
//! is, and whether it may run, the database decides at the claim. So one that
//! is lost costs time, until a sweep publishes another; one that comes twice
//! costs a look at the database.
//!
//! Nothing here waits for the broker but [`RabbitMq::receive`]. One task keeps
//! the connection up, for ever; while it is down, what is to be published stays
//! in memory, up to a bound.

mod connection;
mod consumer;
mod name;
mod publisher;
mod session;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Activation, QueueState};
use crate::config::RabbitMqConfig;
use crate::error::Error;
use crate::id::ActorId;
use crate::permission::Tenant;
use connection::{Broker, Role};
use consumer::{Consumers, Received};
use name::queue_name;
use publisher::Publisher;

/// Where an activation waits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    /// The class of the hosts that may take it.
    pub(crate) class: String,
    /// The tenant of its actor.
    pub(crate) tenant: Tenant,
}

impl Place {
    pub(crate) fn of(activation: &Activation) -> Self {
        Self { class: activation.class.clone(), tenant: activation.tenant.clone() }
    }
}

/// A connection to RabbitMQ that mends itself.
#[derive(Clone)]
pub(crate) struct RabbitMq {
    shared: Arc<Shared>,
    // The connection ends with the last handle.
    _stop: Arc<DropGuard>,
}

/// What the handles and the task of the connection have in common.
struct Shared {
    prefix: String,
    broker: Broker,
    publisher: Publisher,
    consumers: Consumers,
}

impl fmt::Debug for RabbitMq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMq")
            .field("prefix", &self.shared.prefix)
            .field("state", &self.state())
            .finish()
    }
}

impl RabbitMq {
    /// Starts to connect; the broker may come later.
    pub(crate) fn open(config: &RabbitMqConfig) -> Result<Self, Error> {
        let shared = Arc::new(Shared {
            prefix: config.prefix.clone(),
            broker: Broker::new(config)?,
            publisher: Publisher::default(),
            consumers: Consumers::default(),
        });
        let stop = CancellationToken::new();
        for role in [Role::Publish, Role::Consume] {
            let keeping = connection::keep(Arc::clone(&shared), role);
            tokio::spawn(stop.clone().run_until_cancelled_owned(keeping));
        }
        Ok(Self { shared, _stop: Arc::new(stop.drop_guard()) })
    }

    /// Publishes an activation when the broker can take it. When too many wait
    /// for that already, it is dropped.
    pub(crate) fn publish(&self, activation: Activation) {
        self.shared.publisher.publish(activation);
    }

    /// Waits until the broker has confirmed all that was published; for as long as
    /// it does not.
    pub(crate) async fn flushed(&self) {
        self.shared.publisher.flushed().await;
    }

    /// Names all tenants that may have work: their queues are the ones that
    /// [`RabbitMq::receive`] takes from.
    pub(crate) fn set_tenants(&self, tenants: impl IntoIterator<Item = Tenant>) {
        self.shared.consumers.set_tenants(tenants.into_iter().collect());
    }

    /// The next activation of these classes, for a host that can run `room`
    /// executions more. Tenants take turns; within one, it is first come, first
    /// served. Waits until there is one.
    ///
    /// Cancel-safe: a future that is dropped has taken nothing.
    pub(crate) async fn receive(&self, classes: &[String], room: u32) -> Handed {
        let received = self.shared.consumers.receive(classes, room).await;
        Handed { received: Some(received), shared: Arc::clone(&self.shared) }
    }

    pub(crate) fn state(&self) -> QueueState {
        QueueState {
            connected: self.shared.broker.publishing.borrow().is_some(),
            unpublished: self.shared.publisher.len(),
        }
    }

    /// How many activations wait at each place; none where there is no queue yet.
    pub(crate) async fn depths(&self, places: &[Place]) -> Result<Vec<u64>, Error> {
        let names: Vec<_> =
            places.iter().map(|place| queue_name(&self.shared.prefix, place)).collect();
        self.shared.broker.depths(&names).await
    }
}

/// An activation that a host has. Dropped, it goes back to the tail of its
/// queue, for whichever host is next.
pub(crate) struct Handed {
    received: Option<Received>,
    shared: Arc<Shared>,
}

impl fmt::Debug for Handed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handed")
            .field("activation", &self.received.as_ref().map(|r| &r.activation))
            .finish_non_exhaustive()
    }
}

impl Handed {
    /// Whose work it is.
    pub(crate) fn actor(&self) -> &ActorId {
        &self.received.as_ref().expect("settling it consumes it").activation.actor
    }

    /// It has done what it was for.
    pub(crate) fn ack(mut self) {
        if let Some(received) = self.received.take() {
            received.ack();
        }
    }

    /// Publishes it anew after `delay`. It holds nothing up meanwhile; if this
    /// process ends before, the sweep finds what it was for.
    pub(crate) fn retry_after(mut self, delay: Duration) {
        if let Some(received) = self.received.take() {
            let activation = received.activation.clone();
            received.ack();
            let shared = Arc::clone(&self.shared);
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                shared.publisher.publish(activation);
            });
        }
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        if let Some(received) = self.received.take() {
            self.shared.publisher.give_back(received);
        }
    }
}
