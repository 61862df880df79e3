use std::collections::{HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Acker, BasicProperties, Channel, Confirmation, Connection};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::connection::{Lost, QUEUE_ANSWERS_WITHIN, Suspects, answer, declare, replace};
use super::consumer::{Received, settle};
use super::name::queue_name;
use super::{Activation, Place};
use crate::id::ActorId;
use crate::metrics;

/// Activations that are kept while the broker is away. Beyond them, the sweep
/// finds the actors when the broker is back.
const MOST: usize = 100_000;
/// Activations of one actor that are kept: enough to start many executions at
/// once, and no more than one actor's part.
const MOST_OF_ACTOR: u32 = 16;
/// Publishes that the broker has not confirmed yet, at once.
const IN_FLIGHT: usize = 1_024;

/// Publishes in the background, and has each publish confirmed.
#[derive(Default)]
pub(super) struct Publisher {
    pending: Mutex<Pending>,
    changed: Notify,
    /// Nothing is pending any more.
    emptied: Notify,
}

#[derive(Default)]
struct Pending {
    waiting: VecDeque<Publish>,
    /// How many of each actor wait or are in flight.
    of_actor: HashMap<ActorId, u32>,
    in_flight: usize,
}

struct Publish {
    activation: Activation,
    /// The delivery that this one stands for, acked when it is confirmed.
    replaces: Option<Acker>,
}

impl Publisher {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().expect("nothing panics while it holds what is pending")
    }

    pub(super) fn len(&self) -> usize {
        let pending = self.pending();
        pending.waiting.len() + pending.in_flight
    }

    /// Waits until all is confirmed.
    pub(super) async fn flushed(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.len() == 0 {
                return;
            }
            emptied.await;
        }
    }

    pub(super) fn publish(&self, activation: Activation) {
        {
            let mut pending = self.pending();
            let full = pending.waiting.len() >= MOST;
            let of_actor = pending.of_actor.entry(activation.actor.clone()).or_default();
            if *of_actor >= MOST_OF_ACTOR || full {
                if *of_actor == 0 {
                    pending.of_actor.remove(&activation.actor);
                }
                return;
            }
            *of_actor += 1;
            pending.waiting.push_back(Publish { activation, replaces: None });
        }
        self.changed.notify_one();
    }

    /// Sends what was received to the tail of its queue, and settles it when
    /// the broker has it there.
    pub(super) fn give_back(&self, received: Received) {
        let (activation, acker) = received.into_parts();
        {
            let mut pending = self.pending();
            *pending.of_actor.entry(activation.actor.clone()).or_default() += 1;
            pending.waiting.push_back(Publish { activation, replaces: Some(acker) });
        }
        self.changed.notify_one();
    }

    /// Publishes over `connection` until that fails. What was not confirmed
    /// then is published again over the next one.
    pub(super) async fn run(&self, connection: &Connection, prefix: &str) -> Lost {
        // The broker hands out again what was not acked over the last
        // connection.
        self.pending().forget_replacements();
        match self.publish_all(connection, prefix).await {
            Ok(never) => match never {},
            Err(lost) => lost,
        }
    }

    async fn publish_all(&self, connection: &Connection, prefix: &str) -> Result<Infallible, Lost> {
        let channel = answer("open a channel", connection.create_channel()).await?;
        answer("confirm", channel.confirm_select(ConfirmSelectOptions::default())).await?;
        let mut flying = Flying { publisher: self, publishes: HashMap::new(), next: 0 };
        let mut confirmations = FuturesUnordered::new();
        let mut suspects = Suspects::default();
        let mut declared = HashSet::new();
        loop {
            while confirmations.len() < IN_FLIGHT {
                let Some(number) = flying.take_off() else { break };
                let publish = &flying.publishes[&number];
                let name = queue_name(prefix, &Place::of(&publish.activation));
                if !declared.contains(&name) {
                    declare(&channel, &name).await?;
                    declared.insert(name.clone());
                }
                let sent = send(&channel, &name, &publish.activation).await?;
                let (asked, confirmed) = (Instant::now(), timeout(QUEUE_ANSWERS_WITHIN, sent));
                confirmations.push(async move { (number, name, asked, confirmed.await) });
            }
            tokio::select! {
                () = self.changed.notified() => {}
                Some((number, name, asked, confirmed)) = confirmations.next() => match confirmed {
                    Ok(confirmation) => {
                        suspects.trust(&name);
                        match confirmation? {
                            Confirmation::Ack(None) => {
                                metrics::activation_published();
                                flying.land(number);
                            }
                            // The broker keeps state of a queue with each
                            // channel, and 3.10 takes that of the one that is
                            // gone for the next one's: hence a new channel.
                            Confirmation::Ack(Some(_)) => {
                                metrics::activation_returned();
                                return Err(Lost::Gone { queue: name });
                            }
                            _ => flying.turn_back(number),
                        }
                    }
                    Err(_) => {
                        if suspects.suspect(&name, asked) {
                            replace(connection, &name).await?;
                            return Err(Lost::Stuck { queue: name });
                        }
                        flying.turn_back(number);
                    }
                },
            }
        }
    }
}

async fn send(
    channel: &Channel,
    name: &str,
    activation: &Activation,
) -> Result<lapin::PublisherConfirm, Lost> {
    let sent = channel.basic_publish(
        "".into(),
        name.into(),
        // Comes back where there is no such queue.
        BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() },
        activation.actor.as_str().as_bytes(),
        BasicProperties::default().with_delivery_mode(2),
    );
    answer("take a message", sent).await
}

impl Pending {
    fn forget(&mut self, actor: &ActorId) {
        if let Some(of_actor) = self.of_actor.get_mut(actor) {
            *of_actor -= 1;
            if *of_actor == 0 {
                self.of_actor.remove(actor);
            }
        }
    }

    fn forget_replacements(&mut self) {
        let (kept, gone) =
            std::mem::take(&mut self.waiting).into_iter().partition(|p| p.replaces.is_none());
        self.waiting = kept;
        let gone: VecDeque<Publish> = gone;
        for publish in gone {
            self.forget(&publish.activation.actor);
        }
    }
}

/// What was sent and is not confirmed. Dropped with the connection, it goes
/// back to what is pending.
struct Flying<'a> {
    publisher: &'a Publisher,
    publishes: HashMap<u64, Publish>,
    next: u64,
}

impl Flying<'_> {
    fn take_off(&mut self) -> Option<u64> {
        let mut pending = self.publisher.pending();
        let publish = pending.waiting.pop_front()?;
        pending.in_flight += 1;
        let number = self.next;
        self.next += 1;
        self.publishes.insert(number, publish);
        Some(number)
    }

    fn land(&mut self, number: u64) {
        if let Some(publish) = self.publishes.remove(&number) {
            let mut pending = self.publisher.pending();
            pending.in_flight -= 1;
            pending.forget(&publish.activation.actor);
            let empty = pending.waiting.is_empty() && pending.in_flight == 0;
            drop(pending);
            if empty {
                self.publisher.emptied.notify_waiters();
            }
            if let Some(acker) = publish.replaces {
                settle(&acker);
            }
        }
    }

    fn turn_back(&mut self, number: u64) {
        if let Some(publish) = self.publishes.remove(&number) {
            let mut pending = self.publisher.pending();
            pending.in_flight -= 1;
            pending.waiting.push_front(publish);
        }
    }
}

impl Drop for Flying<'_> {
    fn drop(&mut self) {
        let mut numbers: Vec<u64> = self.publishes.keys().copied().collect();
        // Pushed to the front one by one, so the first must be the last.
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        for number in numbers {
            self.turn_back(number);
        }
    }
}
