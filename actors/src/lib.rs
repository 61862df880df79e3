//! The domain: actors, messages, executions; their rules, rows and queue.
//!
//! Knows nothing of containers or HTTP. The only crate that names a table, a
//! SQL engine or a broker; its one door is [`Service`].
//!
//! * An [`Actor`] is a registered image and its settings.
//! * A message ([`NewMessage`]) is what is sent to it; accepting one makes an
//!   [`Execution`], which one fresh container handles.
//! * A host receives a [`Delivery`], turns it into a [`Claim`], and settles
//!   that with a [`Finish`]. The claim's epoch decides who may still write.
//! * `status` is where a thing stands in its life; `state` is what a stateful
//!   actor keeps between executions.
#![doc = ""]
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod clock;
mod id;
mod json;
mod python;

mod actor;
mod cron;
mod event;
mod execution;
mod host;
mod identity;
mod message;
mod mount;
mod permission;
mod results;
mod revision;
mod tenant;
mod worker;

mod actor_config;
mod alias;
mod nonce;

mod environment;
mod search;
mod secret;

mod metrics;
mod trace;

mod config;
mod error;

mod service;

mod queue;

mod store;

pub use actor::{Actor, ActorChange, ActorStatus, ActorUpdate, NewActor, Rest, TokenSetting};
pub use actor_config::{ActorConfig, ActorConfigUpdate, NewActorConfig};
pub use alias::Alias;
pub use clock::{Clock, Machine, Time};
pub use config::{
    Config, DatabaseConfig, PostgresConfig, QueueConfig, RabbitMqConfig, SearchLimits,
};
pub use cron::Cron;
pub use error::{Chain, Error, NonceRefusal, Noun};
pub use event::{EventDelivery, EventKind, EventTarget};
pub use execution::{
    Execution, ExecutionStatus, ExecutionsPage, ExecutionsSummary, Finish, Logs, Outcome, Phase,
    Phases, Usage,
};
pub use host::{DefaultLimits, Host, HostInfo, HostStatus};
pub use id::{ActorId, DeliveryId, ExecutionId, HostId, WorkerId};
pub use identity::{Identities, IdentitiesError, Identity};
pub use json::{Json, JsonError};
pub use message::{ContentType, MessageBody, NewMessage};
pub use metrics::describe_metrics;
pub use mount::{ActorMount, HostAccess, InvalidMount, MountRule};
pub use nonce::{NewNonce, Nonce, NonceId, NonceOf, NoncePlace};
pub use permission::{Caller, Level, Permission, Role, Shareable, Tenant};
pub use queue::{Delivery, QueueState};
pub use results::ResultEntry;
pub use revision::{PinnedImage, RevisionImage};
pub use search::{Collection, FoundLog, Hits, Search, Typing, Within};
pub use secret::{OpenError, SecretKeys, SecretKeysError};
pub use service::{
    ActorReport, ActorSums, Awaited, Claim, ClaimKey, Deleted, Diagnosis, DueWebhook,
    ExecutionsReport, Health, Hosts, Interruption, Load, Preparation, Readiness, Renewal, Service,
    StateVersion, Swept, Used, Utilization, WebhookAnswer, WorkersAsked,
};
pub use store::{Broken, Overdue, Schema, Waiting};
pub use tenant::{TenantSettings, TenantsSettings};
pub use trace::TraceParent;
pub use worker::{Worker, WorkerStatus};
