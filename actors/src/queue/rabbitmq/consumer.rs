use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::FutureExt as _;
use lapin::options::BasicAckOptions;
use lapin::{Acker, Connection};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::warn;

use super::connection::{Lost, Suspects};
use super::publisher::Publisher;
use super::session::{Consumed, Session};
use super::{Activation, Place};
use crate::id::ActorId;
use crate::permission::Tenant;

/// How long an activation waits here for a free slot before another host may
/// have it.
const HELD: Duration = Duration::from_millis(50);
/// The most that one queue hands out before the first is settled.
const LARGEST_PREFETCH: u16 = 256;

/// An activation of the broker's, not yet settled.
pub(super) struct Received {
    pub(super) activation: Activation,
    acker: Acker,
}

impl Received {
    pub(super) fn ack(self) {
        settle(&self.acker);
    }

    pub(super) fn into_parts(self) -> (Activation, Acker) {
        (self.activation, self.acker)
    }
}

/// Acks without waiting. If the broker does not hear of it, the activation
/// comes again, and that is harmless.
pub(super) fn settle(acker: &Acker) {
    // The first poll hands the frame to the connection.
    let _ = acker.ack(BasicAckOptions::default()).now_or_never();
}

/// Takes from the queues of all tenants, while somebody waits for it.
#[derive(Default)]
pub(super) struct Consumers {
    state: Mutex<State>,
    /// Wakes the task that consumes.
    wanted: Notify,
    /// Wakes those who receive.
    arrived: Notify,
    /// Kept over connections: one that does not answer costs the connection.
    suspects: Mutex<Suspects>,
}

#[derive(Default)]
struct State {
    tenants: BTreeSet<Tenant>,
    classes: BTreeSet<String>,
    /// All tenants at all classes.
    places: Arc<BTreeSet<Place>>,
    /// Received and not yet handed out; no queue of it is empty.
    buffer: BTreeMap<Place, VecDeque<Received>>,
    turns: Turns,
    receivers: usize,
    /// How many executions more the host can run.
    room: u32,
    /// When the last receiver left; none while there is one.
    satisfied: Option<Instant>,
}

/// Who had something last.
#[derive(Default)]
struct Turns {
    turn: u64,
    of_tenant: HashMap<Tenant, u64>,
    of_place: HashMap<Place, u64>,
}

impl Turns {
    /// Whose turn it is among `places`: the tenant who has waited longest for
    /// one, and its place that has.
    fn next<'a>(&mut self, places: impl Iterator<Item = &'a Place>) -> Option<Place> {
        let last = |place: &Place| {
            let of_tenant = self.of_tenant.get(&place.tenant).copied().unwrap_or(0);
            (of_tenant, self.of_place.get(place).copied().unwrap_or(0))
        };
        let place = places.min_by_key(|place| last(place))?.clone();
        self.turn += 1;
        self.of_tenant.insert(place.tenant.clone(), self.turn);
        self.of_place.insert(place.clone(), self.turn);
        Some(place)
    }
}

impl State {
    fn take(&mut self) -> Option<Received> {
        let place = self.turns.next(self.buffer.keys())?;
        let waiting = self.buffer.get_mut(&place)?;
        let received = waiting.pop_front();
        if waiting.is_empty() {
            self.buffer.remove(&place);
        }
        received
    }

    fn set_places(&mut self) {
        let places = self.classes.iter().flat_map(|class| {
            let at = |tenant: &Tenant| Place { class: class.clone(), tenant: tenant.clone() };
            self.tenants.iter().map(at)
        });
        self.places = Arc::new(places.collect());
    }

    /// True while what arrives is taken soon.
    fn is_hungry(&self) -> bool {
        self.receivers > 0 || self.satisfied.is_some_and(|since| since.elapsed() < HELD)
    }
}

/// Somebody who waits in [`Consumers::receive`].
struct Receiver<'a>(&'a Consumers);

impl Drop for Receiver<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.receivers -= 1;
        if state.receivers == 0 {
            state.satisfied = Some(Instant::now());
            drop(state);
            self.0.wanted.notify_one();
        }
    }
}

impl Consumers {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds what was received")
    }

    pub(super) fn set_tenants(&self, tenants: BTreeSet<Tenant>) {
        let mut state = self.state();
        if state.tenants != tenants {
            state.turns.of_tenant.retain(|tenant, _| tenants.contains(tenant));
            state.turns.of_place.retain(|place, _| tenants.contains(&place.tenant));
            state.tenants = tenants;
            state.set_places();
            drop(state);
            self.wanted.notify_one();
        }
    }

    pub(super) async fn receive(&self, classes: &[String], room: u32) -> Received {
        let _receiver = self.enter(classes, room);
        loop {
            let arrived = self.arrived.notified();
            {
                let mut state = self.state();
                if let Some(received) = state.take() {
                    if !state.buffer.is_empty() {
                        // There is something for another receiver too.
                        self.arrived.notify_one();
                    }
                    return received;
                }
            }
            arrived.await;
        }
    }

    fn enter(&self, classes: &[String], room: u32) -> Receiver<'_> {
        let mut state = self.state();
        state.receivers += 1;
        state.satisfied = None;
        state.room = room.max(1);
        if !(state.classes.len() == classes.len()
            && classes.iter().all(|class| state.classes.contains(class)))
        {
            state.classes = classes.iter().cloned().collect();
            state.set_places();
        }
        drop(state);
        self.wanted.notify_one();
        Receiver(self)
    }

    /// Waits until somebody receives.
    pub(super) async fn first_receiver(&self) {
        while self.state().classes.is_empty() {
            self.wanted.notified().await;
        }
        self.wanted.notify_one();
    }

    /// What came over a connection that is gone comes again over the next.
    pub(super) fn forget_received(&self) {
        self.state().buffer.clear();
    }

    /// Consumes over `connection` until that fails.
    pub(super) async fn run(
        &self,
        connection: &Connection,
        prefix: &str,
        publisher: &Publisher,
    ) -> Lost {
        match self.consume_all(connection, prefix, publisher).await {
            Ok(never) => match never {},
            Err(lost) => lost,
        }
    }

    async fn consume_all(
        &self,
        connection: &Connection,
        prefix: &str,
        publisher: &Publisher,
    ) -> Result<Infallible, Lost> {
        let mut session = Session::open(connection, prefix, &self.suspects).await?;
        loop {
            let demand = self.demand();
            if demand.hungry {
                if Instant::now() >= session.renewal() {
                    session.renew().await?;
                } else if demand.bare && session.is_narrow(demand.room) {
                    session.cancel(|_| true).await?;
                }
                session.cancel(|place| !demand.places.contains(place)).await?;
                session.consume(&demand.places, demand.room).await?;
            } else {
                session.cancel(|_| true).await?;
                let held = std::mem::take(&mut self.state().buffer);
                for received in held.into_values().flatten() {
                    publisher.give_back(received);
                }
            }
            tokio::select! {
                () = self.wanted.notified() => {}
                () = demand.rest() => {}
                () = tokio::time::sleep_until(session.renewal()), if demand.hungry => {}
                (place, event) = session.event() => match event {
                    Consumed::Delivery(delivery) => self.arrive(place, (*delivery)?),
                    Consumed::End(tag) => session.end(&place, &tag),
                },
            }
        }
    }

    fn demand(&self) -> Demand {
        let state = self.state();
        Demand {
            places: Arc::clone(&state.places),
            room: u16::try_from(state.room).unwrap_or(LARGEST_PREFETCH).min(LARGEST_PREFETCH),
            hungry: state.is_hungry(),
            until: state.satisfied.map(|since| since + HELD),
            bare: state.buffer.is_empty(),
        }
    }

    fn arrive(&self, place: Place, delivery: lapin::message::Delivery) {
        let actor = std::str::from_utf8(&delivery.data).ok().and_then(ActorId::parse);
        let Some(actor) = actor else {
            warn!(queue = %delivery.routing_key, "dropping a message that is none of ours");
            settle(&delivery.acker);
            return;
        };
        let (class, tenant) = (place.class.clone(), place.tenant.clone());
        let activation = Activation { actor, tenant, class };
        let received = Received { activation, acker: delivery.acker };
        self.state().buffer.entry(place).or_default().push_back(received);
        self.arrived.notify_one();
    }
}

/// What is to be consumed now.
struct Demand {
    places: Arc<BTreeSet<Place>>,
    room: u16,
    hungry: bool,
    /// When the hunger ends unless somebody receives; none while somebody does.
    until: Option<Instant>,
    /// Nothing is received that is not handed out.
    bare: bool,
}

impl Demand {
    async fn rest(&self) {
        match self.until {
            Some(until) if self.hungry => tokio::time::sleep_until(until).await,
            _ => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_take_turns_and_then_their_classes() {
        let place =
            |class: &str, tenant: &str| Place { class: class.into(), tenant: Tenant::new(tenant) };
        let places = [place("a", "one"), place("b", "one"), place("a", "two")];
        let mut turns = Turns::default();
        let taken: Vec<_> = (0..6).filter_map(|_| turns.next(places.iter())).collect();
        let tenants: Vec<_> = taken.iter().map(|place| place.tenant.as_str()).collect();
        assert_eq!(tenants, ["one", "two", "one", "two", "one", "two"]);
        let classes: Vec<_> = taken.iter().step_by(2).map(|place| place.class.as_str()).collect();
        assert_eq!(classes, ["a", "b", "a"]);
    }
}
