//! The one door: who may, what changes together, what is sent after the commit.

mod actors;
mod executions;
mod jobs;
mod messages;
mod results;
mod schedules;
mod search;
mod state;
mod statistics;
mod workers;

mod aliases;
mod configs;
mod nonces;
mod permissions;
mod tokens;

mod claims;
mod diagnosis;
mod events;
mod health;
mod hosts;
mod preparation;
mod settlement;
mod together;
mod upkeep;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, broadcast};
use tracing::warn;

pub use actors::Deleted;
pub use claims::{Claim, ClaimKey, Interruption, Renewal};
pub use diagnosis::Diagnosis;
pub use events::{DueWebhook, WebhookAnswer};
pub use health::{Health, Hosts, Load, Readiness};
pub use preparation::Preparation;
pub use results::Awaited;
pub use state::StateVersion;
pub use statistics::{ActorReport, ActorSums, ExecutionsReport, Used, Utilization};
pub use upkeep::Swept;
pub use workers::WorkersAsked;

use crate::actor::Actor;
use crate::alias::Alias;
use crate::clock::Clock;
use crate::config::{Config, DatabaseConfig};
use crate::error::{Error, Noun};
use crate::id::{ActorId, ExecutionId};
use crate::permission::{Caller, Level};
use crate::queue::Queue;
use crate::store::actors::Named;
use crate::store::permissions::{Kind, Object};
use crate::store::{self, Announcement, Connection, Schema, Store};

/// How often to look for what another process changed.
const POLL: Duration = Duration::from_secs(1);
/// Searches that look at rows one by one at once.
const SEARCHES_AT_ONCE: usize = 4;

/// How long the end of a process may wait for the broker.
const FLUSH: Duration = Duration::from_secs(3);

/// The domain. A clone is another handle of the same.
///
/// Every function may fail with [`Error::StoreUnavailable`] (try again later),
/// [`Error::Inconsistent`] and [`Error::Store`] (bugs), beside the errors that it
/// names itself. One whose future is dropped may still take effect.
#[derive(Clone)]
pub struct Service(Arc<Inner>);

struct Inner {
    config: Config,
    clock: Clock,
    store: Store,
    queue: Queue,
    /// Executions that changed; who lags behind looks at the row.
    changes: broadcast::Sender<ExecutionId>,
    /// An actor may want its image made ready.
    actors_changed: Notify,
    /// A linked actor may want to hear of an event.
    links_noted: Arc<Notify>,
    /// A webhook may want to hear of an event.
    webhooks_noted: Notify,
    preparing: preparation::Preparing,
    sealed: claims::Sealed,
    /// Searches that look at rows one by one, of which few go on at once.
    searches: Arc<Semaphore>,
    /// What keeps it together with other processes; ends with it.
    tasks: OnceLock<together::Tasks>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("database", &self.0.config.database).finish_non_exhaustive()
    }
}

impl Service {
    /// Opens the database and starts the tasks that serve it; inside a tokio
    /// runtime, which must outlive the service. The schema of a file is brought up
    /// to date; that of a server must be, see [`Service::migrate`].
    ///
    /// # Errors
    ///
    /// [`Error::StoreUnavailable`]: the file cannot be opened or made, or the
    /// server does not answer. [`Error::Migrate`]: the schema of a file is newer
    /// than this program, or was changed. [`Error::NotMigrated`]: that of a server
    /// is older. [`Error::Invalid`]: the address of the queue is none. A broker that
    /// does not answer is no error: it may come later.
    pub async fn open(config: Config, clock: Clock) -> Result<Self, Error> {
        let store = Store::open(&config.database).await?;
        together::set_clock(&store, &clock).await?;
        let queue = Queue::open(&config, store.clone(), clock.clone())?;
        let inner = Arc::new(Inner {
            config,
            clock,
            store,
            queue,
            changes: broadcast::channel(4096).0,
            actors_changed: Notify::new(),
            links_noted: Arc::default(),
            webhooks_noted: Notify::new(),
            preparing: preparation::Preparing::default(),
            sealed: claims::Sealed::default(),
            searches: Arc::new(Semaphore::new(SEARCHES_AT_ONCE)),
            tasks: OnceLock::new(),
        });
        together::keep(&inner);
        Ok(Self(inner))
    }

    /// Brings the schema of a database up to date. Programs that were built for
    /// the schema before go on working meanwhile and afterwards.
    ///
    /// # Errors
    ///
    /// [`Error::StoreUnavailable`], [`Error::Migrate`], and [`Error::Invalid`] for
    /// a URL that is none.
    pub async fn migrate(config: &DatabaseConfig) -> Result<(), Error> {
        store::migrate(config).await
    }

    /// How far the schema of a database is, without a change on a server.
    ///
    /// # Errors
    ///
    /// As [`Service::migrate`].
    pub async fn schema(config: &DatabaseConfig) -> Result<Schema, Error> {
        store::schema(config).await
    }

    /// Waits until hosts are called for what this process accepted and gave back, a
    /// few seconds at most, and not at all while the broker is away: what is left,
    /// the upkeep of another process finds. For one that is about to end.
    pub async fn flush(&self) {
        if self.queue_state().is_some_and(|state| !state.connected) {
            return;
        }
        if tokio::time::timeout(FLUSH, self.0.queue.flush()).await.is_err() {
            warn!("the queue did not take all calls for hosts in time; they are repeated later");
        }
    }

    /// What it was opened with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The clock it was opened with.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Tells who waits for `execution` that it changed, here and elsewhere.
    fn changed(&self, execution: &ExecutionId) {
        self.0.store.announce(Announcement::Execution(execution.clone()));
        // Nobody listening is fine.
        let _ = self.0.changes.send(execution.clone());
    }

    /// Tells who makes images ready that there may be one, here and elsewhere.
    fn actors_changed(&self) {
        self.0.store.announce(Announcement::Actors);
        self.0.actors_changed.notify_one();
        self.0.queue.tenants_changed();
    }

    /// Waits until `execution` may have changed, by a change of this process or
    /// after a while.
    async fn may_have_changed(
        changes: &mut broadcast::Receiver<ExecutionId>,
        execution: &ExecutionId,
        patience: Duration,
    ) {
        let _ = tokio::time::timeout(patience, async {
            loop {
                match changes.recv().await {
                    Ok(changed) if changed != *execution => {}
                    // Ours, or too many to tell.
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => return,
                    // The sender lives as long as the service that we are in.
                    Err(broadcast::error::RecvError::Closed) => {
                        std::future::pending::<()>().await;
                    }
                }
            }
        })
        .await;
    }
}

/// Fails where somebody has `most` of a thing already.
fn must_be_fewer(what: &'static str, count: u64, most: u64) -> Result<(), Error> {
    if count < most { Ok(()) } else { Err(Error::TooMany { what, most }) }
}

/// The actor that `text` names, by its id or by an alias, and the caller's level on
/// it. That of another tenant is none.
async fn actor_named(
    c: &mut Connection,
    caller: &Caller,
    text: &str,
) -> Result<(Actor, Level), Error> {
    let id = ActorId::parse(text);
    let (named, noun) = match &id {
        Some(id) => (Named::Id(id), Noun::Actor),
        None => (Named::Alias(text), Noun::NamedActor),
    };
    let missing = || Error::NotFound { noun, id: text.to_owned() };
    if text.contains('\0') {
        return Err(missing());
    }
    let found = store::actors::find_for(c, &caller.tenant, named, &caller.user).await?;
    let (actor, entries) = found.ok_or_else(missing)?;
    let level = caller.level_on_actor(&actor.id, entries);
    Ok((actor, level))
}

/// The actor that `text` names, if `caller` has `needed` on it.
async fn authorized(
    c: &mut Connection,
    caller: &Caller,
    text: &str,
    needed: Level,
) -> Result<Actor, Error> {
    let (actor, level) = actor_named(c, caller, text).await?;
    if level < needed {
        let (noun, id) = (Noun::Actor, text.to_owned());
        return Err(Error::Forbidden { noun, id, needed, has: level });
    }
    Ok(actor)
}

/// As [`authorized`], and nobody else changes the actor until this transaction ends.
async fn authorized_and_locked(
    c: &mut Connection,
    caller: &Caller,
    text: &str,
    needed: Level,
) -> Result<Actor, Error> {
    let actor = authorized(c, caller, text, needed).await?;
    let gone = || Error::NotFound { noun: Noun::Actor, id: text.to_owned() };
    store::actors::lock(c, &actor.id).await?.ok_or_else(gone)
}

/// The alias `name`, and the caller's level on it.
async fn alias_named(
    c: &mut Connection,
    caller: &Caller,
    name: &str,
) -> Result<(Alias, Level), Error> {
    let missing = || Error::NotFound { noun: Noun::Alias, id: name.to_owned() };
    if name.contains('\0') {
        return Err(missing());
    }
    let alias = store::aliases::find(c, &caller.tenant, name).await?.ok_or_else(missing)?;
    let object = Object { tenant: &caller.tenant, kind: Kind::Alias, name };
    let entries = store::permissions::level(c, object, &caller.user).await?;
    let level = caller.level_on_alias(name, entries);
    Ok((alias, level))
}

/// The alias `name`, if `caller` has `needed` on it.
async fn authorized_alias(
    c: &mut Connection,
    caller: &Caller,
    name: &str,
    needed: Level,
) -> Result<Alias, Error> {
    let (alias, level) = alias_named(c, caller, name).await?;
    if level < needed {
        let (noun, id) = (Noun::Alias, name.to_owned());
        return Err(Error::Forbidden { noun, id, needed, has: level });
    }
    Ok(alias)
}

/// The config `name`, if `caller` has `needed` on it.
async fn authorized_config(
    c: &mut Connection,
    caller: &Caller,
    name: &str,
    needed: Level,
) -> Result<store::configs::Stored, Error> {
    let missing = || Error::NotFound { noun: Noun::Config, id: name.to_owned() };
    if name.contains('\0') {
        return Err(missing());
    }
    let stored = store::configs::find(c, &caller.tenant, name).await?.ok_or_else(missing)?;
    let object = Object { tenant: &caller.tenant, kind: Kind::Config, name };
    let entries = store::permissions::level(c, object, &caller.user).await?;
    let level = caller.level_on_config(entries);
    if level < needed {
        let (noun, id) = (Noun::Config, name.to_owned());
        return Err(Error::Forbidden { noun, id, needed, has: level });
    }
    Ok(stored)
}

/// The execution of `actor` that `text` names.
async fn execution_of(
    c: &mut Connection,
    actor: &Actor,
    text: &str,
) -> Result<store::executions::Stored, Error> {
    let missing = || Error::NotFound { noun: Noun::Execution, id: text.to_owned() };
    let id = ExecutionId::parse(text).ok_or_else(missing)?;
    let stored = store::executions::find(c, &id).await?.ok_or_else(missing)?;
    if stored.execution.actor != actor.id {
        return Err(missing());
    }
    Ok(stored)
}
