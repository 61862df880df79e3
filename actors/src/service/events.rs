//! Rules of events: who may be linked to whom, who hears of what, and that it
//! arrives.
//!
//! An event is noted in the transaction that makes it true, so that none is lost
//! and none is told of what was never committed. Linked actors hear of it right
//! after, in the order of the events; webhooks are the business of whoever can
//! speak HTTP, see [`Service::due_webhooks`].

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::{Inner, Service, authorized};
use crate::actor::Actor;
use crate::clock::Time;
use crate::error::{Chain, Error};
use crate::event::{Event, EventDelivery, EventTarget};
use crate::execution::EVENT;
use crate::id::{ActorId, DeliveryId, ExecutionId};
use crate::json::Json;
use crate::message::NewMessage;
use crate::metrics;
use crate::permission::{Caller, Level, Role};
use crate::queue::Activation;
use crate::store::accept::Accept;
use crate::store::deliveries::Tried;
use crate::store::{self, Connection};

/// Links that are followed one after the other, at most.
const LONGEST_CHAIN: usize = 1_000;
/// Deliveries that are looked at in one go.
const AT_ONCE: i64 = 100;
/// How long the upkeep delivers before other work has its turn.
const A_WHILE: Duration = Duration::from_secs(2);
/// When an event is looked at again whose delivery failed for a fault of ours.
const PUT_OFF: Duration = Duration::from_secs(60);
/// How long whoever takes webhooks has to say what became of them.
const WEBHOOK_LEASE: Duration = Duration::from_secs(300);
/// How often a webhook is tried, within about four hours.
const WEBHOOK_ATTEMPTS: u32 = 8;
/// The rest after the first try that came to nothing; four times as long after
/// each further one.
const WEBHOOK_REST: Duration = Duration::from_secs(5);
/// The longest of those rests.
const WEBHOOK_REST_MOST: Duration = Duration::from_secs(3_600);
/// Actors of an owner whose webhooks are on their way at once, on all processes.
const ACTORS_OF_AN_OWNER: u64 = 16;
/// How long it can be looked up what became of an event.
const KEPT: Duration = Duration::from_secs(7 * 86_400);
/// Transactions in a row that remove deliveries; the rest is left for the next
/// time.
const REMOVE_BATCHES: u32 = 100;
/// Deliveries that are shown of an actor.
const SHOWN: i64 = 100;

/// An event that is to be posted to a webhook, by whoever took it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DueWebhook {
    /// What the event is, where it goes, and which try this is.
    pub delivery: EventDelivery,
    /// What is posted: a JSON object.
    pub body: String,
    /// Until when to say what became of it; afterwards another may try.
    pub until: Time,
}

/// How a try to call a webhook came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebhookAnswer {
    /// It was taken, with this status.
    Taken(u16),
    /// It was not taken now: try again later.
    NotNow {
        /// The status of the answer, if there was one.
        status: Option<u16>,
        /// Why, in words for the owner.
        error: String,
    },
    /// It never will be: the address is none that may be called.
    Never {
        /// Why, in words for the owner.
        error: String,
    },
}

impl Service {
    /// The events of an actor and what became of them, the latest first; needs
    /// UPDATE, since the address of a webhook may hold a secret.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn event_deliveries(
        &self,
        caller: &Caller,
        actor: &str,
    ) -> Result<Vec<EventDelivery>, Error> {
        let mut c = self.0.store.read().await?;
        let actor = authorized(&mut c, caller, actor, Level::Update).await?;
        store::deliveries::of_actor(&mut c, &actor.id, SHOWN).await
    }

    /// An actor, for who asks how its webhook is signed; needs UPDATE.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn actor_of_webhook(&self, caller: &Caller, actor: &str) -> Result<Actor, Error> {
        self.actor_for(caller, actor, Level::Update).await
    }

    /// Gives linked actors the events that they are to hear of. It is done by
    /// itself after each event; this finds what a crash left. Says how many.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn deliver_to_links(&self) -> Result<u64, Error> {
        let mut delivered = 0;
        loop {
            let some = self.deliver_some_to_links().await?;
            delivered += some.delivered;
            if !some.more {
                return Ok(delivered);
            }
        }
    }

    /// As [`Service::deliver_to_links`], for a while: other work waits meanwhile.
    pub(super) async fn deliver_to_links_for_a_while(&self) -> Result<u64, Error> {
        let deadline = Instant::now() + A_WHILE;
        let mut delivered = 0;
        loop {
            let some = self.deliver_some_to_links().await?;
            delivered += some.delivered;
            if !some.more || Instant::now() >= deadline {
                return Ok(delivered);
            }
        }
    }

    /// One that cannot be delivered for a fault of its own is put off, and holds up
    /// no other.
    async fn deliver_some_to_links(&self) -> Result<Delivered, Error> {
        let now = self.0.clock.now();
        let due = {
            let mut c = self.0.store.read().await?;
            store::deliveries::due_links(&mut c, now, AT_ONCE).await?
        };
        let mut some = Delivered { delivered: 0, more: !due.is_empty() };
        for (id, delivery) in due {
            let told = match delivery {
                Ok(delivery) => self.deliver_to_link(delivery).await,
                Err(error) => Err(error),
            };
            match told {
                Ok(told) => some.delivered += u64::from(told),
                Err(error) if error.is_transient() => return Err(error),
                Err(error) => {
                    warn!(delivery.id = id, error = %Chain(&error), "could not deliver event {id}");
                    let next = now.after(PUT_OFF);
                    self.0
                        .store
                        .write(move |c| {
                            Box::pin(
                                async move { store::deliveries::put_off_link(c, &id, next).await },
                            )
                        })
                        .await?;
                }
            }
        }
        Ok(some)
    }

    /// The execution and the end of the delivery are one transaction; whoever else
    /// is at the same delivery waits for it, and so for the order of the events.
    async fn deliver_to_link(&self, delivery: EventDelivery) -> Result<bool, Error> {
        let now = self.0.clock.now();
        let execution = ExecutionId::generate();
        let service = self.clone();
        let accepted = self
            .0
            .store
            .write(move |c| {
                Box::pin(async move {
                    if !store::deliveries::take_link(c, &delivery.id).await? {
                        return Ok(Told::Before);
                    }
                    let linked = match ActorId::parse(&delivery.target) {
                        Some(id) => store::actors::find(c, &id).await?,
                        None => None,
                    };
                    let mut tried =
                        Tried { delivered: None, next: None, status: None, error: None };
                    let told = match linked {
                        Some(linked) => {
                            // By the will of whoever linked to it, but as its owner.
                            let user = service.executor_user(&linked, &linked.owner);
                            let id = linked.id.clone();
                            let accept = accept(execution, id, user, &delivery, now);
                            let accepted = store::accept::accept(c, &accept).await?;
                            accepted.map_or(Told::Gone, |_| Told::Yes(Box::new(linked)))
                        }
                        None => Told::Gone,
                    };
                    match &told {
                        Told::Yes(_) => tried.delivered = Some(now),
                        _ => tried.error = Some("the linked actor has gone".to_owned()),
                    }
                    store::deliveries::tried(c, &delivery.id, &tried).await?;
                    Ok(told)
                })
            })
            .await?;
        let linked = match accepted {
            Told::Before => return Ok(false),
            Told::Gone => {
                metrics::event_delivered(EventTarget::Link, false);
                return Ok(false);
            }
            Told::Yes(linked) => linked,
        };
        metrics::event_delivered(EventTarget::Link, true);
        metrics::message_accepted();
        self.0.queue.activate(Activation::of(&linked));
        Ok(true)
    }

    /// Events that webhooks are to hear of now, up to `limit`, each the caller's
    /// to post until [`DueWebhook::until`]; those of one actor in their order, and no
    /// more of it before it is said what became of these. Owners take turns, and each
    /// has those of a few actors on their way at once. Say what became of each with
    /// [`Service::webhook_answered`], or of all of an actor with
    /// [`Service::webhook_is_silent`].
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn due_webhooks(&self, limit: u32) -> Result<Vec<DueWebhook>, Error> {
        let now = self.0.clock.now();
        let until = now.after(WEBHOOK_LEASE);
        let due = {
            let mut c = self.0.store.read().await?;
            store::deliveries::has_due_webhooks(&mut c, now).await?
        };
        if !due {
            return Ok(Vec::new());
        }
        let taken = self
            .0
            .store
            .write(move |c| Box::pin(async move { take_webhooks(c, now, until, limit).await }))
            .await?;
        let config = &self.0.config;
        Ok(taken
            .into_iter()
            .map(|delivery| {
                let server = config.tenants.api_server(&delivery.tenant, &config.api_server);
                let body = body(&delivery.payload, server);
                DueWebhook { delivery, body, until }
            })
            .collect())
    }

    /// Waits until there may be more for [`Service::due_webhooks`], or for a second.
    ///
    /// Cancel-safe.
    pub async fn may_have_webhooks(&self) {
        let _ = tokio::time::timeout(super::POLL, self.0.webhooks_noted.notified()).await;
    }

    /// Says what became of a webhook that was taken. What was not taken now is due
    /// again after a rest, each time longer, until it has been tried often enough.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn webhook_answered(
        &self,
        delivery: &EventDelivery,
        answer: WebhookAnswer,
    ) -> Result<(), Error> {
        let now = self.0.clock.now();
        let tried = match answer {
            WebhookAnswer::Taken(status) => {
                Tried { delivered: Some(now), next: None, status: Some(status), error: None }
            }
            WebhookAnswer::NotNow { status, error } => {
                let next = rest_after(delivery.attempts).map(|rest| now.after(rest));
                Tried { delivered: None, next, status, error: Some(error) }
            }
            WebhookAnswer::Never { error } => {
                Tried { delivered: None, next: None, status: None, error: Some(error) }
            }
        };
        if tried.next.is_none() {
            metrics::event_delivered(EventTarget::Webhook, tried.delivered.is_some());
        }
        let id = delivery.id.clone();
        self.0
            .store
            .write(move |c| Box::pin(async move { store::deliveries::tried(c, &id, &tried).await }))
            .await?;
        Ok(())
    }

    /// Says that the webhook of an actor does not answer at all: `taken`, which were
    /// not tried, and what else is due of it count as tried too, so that one call in
    /// vain puts all of them off.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn webhook_is_silent(
        &self,
        actor: &ActorId,
        taken: &[EventDelivery],
    ) -> Result<(), Error> {
        let now = self.0.clock.now();
        let (actor, taken) = (actor.clone(), taken.to_vec());
        let tried = move |attempts| Tried {
            delivered: None,
            next: rest_after(attempts).map(|rest| now.after(rest)),
            status: None,
            error: Some("not tried: the one before it had no answer".to_owned()),
        };
        let given_up = self
            .0
            .store
            .write(move |c| {
                Box::pin(async move {
                    let mut given_up = 0;
                    for delivery in &taken {
                        let tried = tried(delivery.attempts);
                        given_up += u64::from(tried.next.is_none());
                        store::deliveries::tried(c, &delivery.id, &tried).await?;
                    }
                    for attempts in 1..=WEBHOOK_ATTEMPTS {
                        let tried = tried(attempts);
                        let count =
                            store::deliveries::put_off_webhooks(c, &actor, now, attempts, &tried)
                                .await?;
                        given_up += if tried.next.is_none() { count } else { 0 };
                    }
                    Ok(given_up)
                })
            })
            .await?;
        for _ in 0..given_up {
            metrics::event_delivered(EventTarget::Webhook, false);
        }
        Ok(())
    }

    /// Removes deliveries that ended more than a week ago; says how many.
    pub(super) async fn remove_old_deliveries(&self) -> Result<u64, Error> {
        let before = self.0.clock.now().before(KEPT);
        let mut removed = 0;
        for _ in 0..REMOVE_BATCHES {
            let batch = self
                .0
                .store
                .write(move |c| {
                    Box::pin(async move { store::deliveries::remove_ended(c, before).await })
                })
                .await?;
            removed += batch;
            if batch < store::deliveries::REMOVED_AT_ONCE {
                break;
            }
        }
        Ok(removed)
    }

    /// After a transaction that noted events was committed.
    pub(super) fn tell(&self, noted: Noted) {
        if noted.webhook {
            self.0.webhooks_noted.notify_one();
        }
        if noted.link {
            self.0.links_noted.notify_one();
        }
    }
}

/// Takes webhooks that are due, up to `limit`, from as many owners as there are.
async fn take_webhooks(
    c: &mut Connection,
    now: Time,
    until: Time,
    limit: u32,
) -> Result<Vec<EventDelivery>, Error> {
    store::deliveries::lock_webhooks(c).await?;
    let busy = store::deliveries::webhooks_on_their_way(c, now).await?;
    let mut taken = Vec::new();
    for due in store::deliveries::due_webhooks(c, now).await? {
        if taken.len() >= limit as usize {
            break;
        }
        let before_it = busy.get(&due.party).copied().unwrap_or(0);
        if before_it + due.turn <= ACTORS_OF_AN_OWNER {
            taken.extend(store::deliveries::take_webhook(c, &due.id, until).await?);
        }
    }
    taken.sort_by_key(|delivery| delivery.created);
    Ok(taken)
}

/// Gives linked actors the events that this process notes, for as long as the
/// service lives. What fails, the upkeep does.
pub(super) async fn tell_links(noted: Arc<Notify>, service: Weak<Inner>) {
    loop {
        noted.notified().await;
        let Some(service) = service.upgrade() else { return };
        if let Err(error) = Service(service).deliver_to_links().await {
            debug!(error = %Chain(&error), "could not tell linked actors now");
        }
    }
}

/// What became of the deliveries that were looked at.
struct Delivered {
    delivered: u64,
    /// There may be more.
    more: bool,
}

/// What became of a delivery to a linked actor.
enum Told {
    Yes(Box<Actor>),
    /// By somebody else.
    Before,
    /// There is no such actor any more.
    Gone,
}

/// What was noted in a transaction, to be told after its commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Noted {
    link: bool,
    webhook: bool,
}

/// Notes an event of an actor for those who hear of it, in the transaction in
/// which it happens.
pub(super) async fn note(
    c: &mut Connection,
    actor: &Actor,
    event: &Event,
    now: Time,
) -> Result<Noted, Error> {
    let (link, webhook) = (!actor.link.is_empty(), !actor.webhook.is_empty());
    if !link && !webhook {
        return Ok(Noted::default());
    }
    let created = store::deliveries::time_of_next(c, &actor.id, now).await?;
    let linked = if link { Some(linked(c, actor).await?) } else { None };
    let found = linked.as_ref().and_then(|linked| linked.as_ref().ok());
    let payload = event.payload(actor, found, now);
    let delivery = |kind, target: &str| EventDelivery {
        id: DeliveryId::generate(),
        tenant: actor.tenant.clone(),
        actor: actor.id.clone(),
        event: event.kind,
        kind,
        target: target.to_owned(),
        payload: payload.clone(),
        created,
        attempts: 0,
        next: Some(now),
        delivered: None,
        last_status: None,
        last_error: None,
    };
    match &linked {
        None => {}
        Some(Ok(linked)) => {
            let delivery = delivery(EventTarget::Link, linked.id.as_str());
            store::deliveries::insert(c, &delivery).await?;
        }
        Some(Err(why)) => {
            let mut delivery = delivery(EventTarget::Link, &actor.link);
            (delivery.next, delivery.last_error) = (None, Some(why.clone()));
            store::deliveries::insert(c, &delivery).await?;
        }
    }
    if webhook {
        let delivery = delivery(EventTarget::Webhook, &actor.webhook);
        store::deliveries::insert(c, &delivery).await?;
    }
    Ok(Noted { link: found.is_some(), webhook })
}

/// The actor that hears of an actor's events, or why none does. The right is the
/// owner's, now: who lost it is not heard any more. An alias that was pointed
/// elsewhere may have closed a circle, in which events would go round for ever.
async fn linked(c: &mut Connection, actor: &Actor) -> Result<Result<Actor, String>, Error> {
    let owner = Caller::new(actor.tenant.clone(), actor.owner.clone(), Role::User);
    let linked = match authorized(c, &owner, &actor.link, Level::Execute).await {
        Ok(linked) => linked,
        Err(error @ (Error::NotFound { .. } | Error::Forbidden { .. })) => {
            return Ok(Err(format!("{}: {error}", actor.owner)));
        }
        Err(error) => return Err(error),
    };
    if let Some(problem) = circle(c, actor, &linked).await? {
        warn!(actor.id = %actor.id, "the links of actor {} have come to form a circle", actor.id);
        return Ok(Err(problem));
    }
    Ok(Ok(linked))
}

/// Checks the link that `caller` gives `actor`: it names an actor on which the
/// caller has EXECUTE, and closes no circle.
pub(super) async fn check_link(
    c: &mut Connection,
    caller: &Caller,
    actor: &Actor,
) -> Result<(), Error> {
    if actor.link.is_empty() {
        return Ok(());
    }
    // Of two updates that would close a circle together, one sees the other.
    store::actors::lock_links(c, &actor.tenant).await?;
    let linked = match authorized(c, caller, &actor.link, Level::Execute).await {
        Ok(linked) => linked,
        // What somebody may not know of is as if it were not there.
        Err(Error::Forbidden { noun, id, has: Level::None, .. }) => {
            let missing = Error::NotFound { noun, id };
            return Err(Error::invalid("link", missing.to_string()));
        }
        Err(error @ (Error::NotFound { .. } | Error::Forbidden { .. })) => {
            return Err(Error::invalid("link", error.to_string()));
        }
        Err(error) => return Err(error),
    };
    if linked.id == actor.id {
        return Err(Error::invalid("link", "an actor cannot be linked to itself"));
    }
    match circle(c, actor, &linked).await? {
        Some(problem) => Err(Error::invalid("link", problem)),
        None => Ok(()),
    }
}

/// What is wrong with a link from `actor` to `linked`, if following the links
/// from there comes to some actor twice.
async fn circle(
    c: &mut Connection,
    actor: &Actor,
    linked: &Actor,
) -> Result<Option<String>, Error> {
    let mut met = HashSet::from([actor.id.clone()]);
    let mut next = Some(linked.clone());
    while let Some(actor) = next {
        if !met.insert(actor.id) || met.len() > LONGEST_CHAIN {
            let problem = "this update would result in a cycle of linked actors";
            return Ok(Some(problem.to_owned()));
        }
        if actor.link.is_empty() {
            return Ok(None);
        }
        // Whoever may do what: only where it leads counts.
        let admin = Caller::new(actor.tenant.clone(), actor.owner.clone(), Role::Admin);
        next = match authorized(c, &admin, &actor.link, Level::None).await {
            Ok(linked) => Some(linked),
            Err(Error::NotFound { .. } | Error::Forbidden { .. }) => None,
            Err(error) => return Err(error),
        };
    }
    Ok(None)
}

fn accept(
    execution: ExecutionId,
    actor: ActorId,
    executor_user: Option<(u32, u32)>,
    delivery: &EventDelivery,
    now: Time,
) -> Accept {
    let event = Json::parse(&delivery.payload).unwrap_or_else(|_| Json::empty_object());
    let message = NewMessage::json(event);
    let executor = EVENT.to_owned();
    Accept { execution, actor, executor, executor_user, message, now, count_to: 1 }
}

/// What a webhook gets: the event, and what a container would find around it.
fn body(payload: &str, api_server: &str) -> String {
    let mut body: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(payload).unwrap_or_default();
    for (name, value) in [
        ("_abaco_Content_Type", "application/json"),
        ("_abaco_username", EVENT),
        ("_abaco_api_server", api_server),
    ] {
        body.insert(name.to_owned(), value.into());
    }
    serde_json::Value::Object(body).to_string()
}

/// How long a webhook rests that has been tried so often; none when that was the
/// last time.
fn rest_after(attempts: u32) -> Option<Duration> {
    let rest = WEBHOOK_REST.saturating_mul(4_u32.saturating_pow(attempts.saturating_sub(1)));
    (attempts < WEBHOOK_ATTEMPTS).then_some(rest.min(WEBHOOK_REST_MOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn webhooks_rest_longer_each_time_and_then_for_ever() {
        let rests: Vec<_> = (1..=9).map(|n| rest_after(n).map(|rest| rest.as_secs())).collect();
        let seconds = [5, 20, 80, 320, 1_280, 3_600, 3_600].map(Some);
        assert_eq!(rests[..7], seconds);
        assert_eq!(rests[7..], [None, None]);
    }
}
