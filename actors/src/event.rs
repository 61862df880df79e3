//! Events: what happens to an actor and its executions, and who hears of it.
//!
//! ```text
//! ACTOR_READY, ACTOR_ERROR, EXECUTION_COMPLETE
//!    └─ noted in the transaction that makes it true, one delivery for each who hears:
//!         link     an execution of the linked actor, which gets the event as its message
//!         webhook  a POST, tried again with growing rests
//! ```

use std::fmt;

use serde_json::{Map, Value, json};

use crate::actor::Actor;
use crate::clock::Time;
use crate::id::{ActorId, DeliveryId, ExecutionId};
use crate::permission::Tenant;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A host has the actor's image, after a registration or an image update.
    ActorReady,
    /// The actor needs its owner's attention.
    ActorError,
    /// An execution's container ended, however.
    ExecutionComplete,
}

impl EventKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::ActorReady, Self::ActorError, Self::ExecutionComplete];

    /// The text in rows and events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ActorReady => "ACTOR_READY",
            Self::ActorError => "ACTOR_ERROR",
            Self::ExecutionComplete => "EXECUTION_COMPLETE",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who hears of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventTarget {
    /// The actor that [`Actor::link`] names.
    Link,
    /// The address of [`Actor::webhook`].
    Webhook,
}

impl EventTarget {
    /// The text in rows and answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Webhook => "webhook",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Link, Self::Webhook].into_iter().find(|target| target.as_str() == text)
    }
}

impl fmt::Display for EventTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An event on its way to one who hears of it, or at the end of that.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventDelivery {
    /// Its id.
    pub id: DeliveryId,
    /// The tenant of the actor.
    pub tenant: Tenant,
    /// The actor to which it happened.
    pub actor: ActorId,
    /// What happened.
    pub event: EventKind,
    /// How it is delivered.
    pub kind: EventTarget,
    /// The linked actor's id, or the webhook's address, which may hold a secret.
    pub target: String,
    /// The event: a JSON object.
    pub payload: String,
    /// When it happened.
    pub created: Time,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is tried next; none where that is over.
    pub next: Option<Time>,
    /// When it arrived.
    pub delivered: Option<Time>,
    /// The HTTP status of the last answer.
    pub last_status: Option<u16>,
    /// Why the last try came to nothing.
    pub last_error: Option<String>,
}

impl fmt::Debug for EventDelivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventDelivery")
            .field("id", &self.id)
            .field("actor", &self.actor)
            .field("event", &self.event)
            .field("kind", &self.kind)
            .field("target", &"[redacted]")
            .field("attempts", &self.attempts)
            .field("next", &self.next)
            .field("delivered", &self.delivered)
            .finish_non_exhaustive()
    }
}

/// Something that just happened to an actor.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) kind: EventKind,
    /// What the event tells beside what every event tells.
    details: Map<String, Value>,
}

impl Event {
    pub(crate) fn of_status(kind: EventKind, status_message: &str) -> Self {
        Self { kind, details: members([("status_message", json!(status_message))]) }
    }

    /// The end of an execution whose status and outcome are these texts.
    pub(crate) fn of_execution(
        id: &ExecutionId,
        status: &str,
        outcome: &str,
        exit_code: Option<i32>,
    ) -> Self {
        let details = members([
            ("execution_id", json!(id.as_str())),
            ("status", json!(status)),
            ("outcome", json!(outcome)),
            ("exit_code", json!(exit_code)),
        ]);
        Self { kind: EventKind::ExecutionComplete, details }
    }

    /// What whoever hears of it gets. `linked` is the actor that does, if any.
    pub(crate) fn payload(&self, actor: &Actor, linked: Option<&Actor>, at: Time) -> String {
        let time = at.iso_millis();
        let mut payload = members([
            ("event_type", json!(self.kind.as_str())),
            ("event_time_utc", json!(time)),
            ("event_time_display", json!(time)),
            ("tenant_id", json!(actor.tenant.as_str())),
            ("actor_id", json!(actor.id.as_str())),
            ("actor_dbid", json!(actor.dbid())),
            ("_abaco_link", json!(linked.map(Actor::dbid).unwrap_or_default())),
            ("_abaco_webhook", json!(actor.webhook)),
        ]);
        payload.extend(self.details.clone());
        Value::Object(payload).to_string()
    }
}

fn members<const N: usize>(members: [(&str, Value); N]) -> Map<String, Value> {
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
