//! Whether the service can work, and how much there is to do.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::timeout;
use tracing::warn;

use super::Service;
use crate::clock::Time;
use crate::error::{Chain, Error};
use crate::execution::ExecutionStatus;
use crate::metrics;
use crate::queue::QueueState;
use crate::store;

/// A host that renewed within this time counts as alive.
pub(super) const HOST_ALIVE: Duration = Duration::from_secs(60);
/// How long the database may take to answer one who asks whether it is there.
const PATIENCE: Duration = Duration::from_secs(3);

/// How much there is to do, and who is there to do it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// The open executions of each class that has some.
    pub classes: BTreeMap<String, Load>,
    /// Hosts that renewed their leases within the last minute.
    pub hosts: Hosts,
}

/// Hosts that are alive, each in one state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    /// Those that take executions.
    pub working: u64,
    /// Those that somebody keeps from taking more.
    pub cordoned: u64,
    /// Those that end what they have, and then themselves.
    pub draining: u64,
    /// Executions that all of them together run at once.
    pub slots: u64,
}

/// The open executions of a class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Those that wait.
    pub waiting: u64,
    /// Those that are claimed.
    pub running: u64,
    /// For how long the first of those that wait has done so.
    pub oldest_waiting: Option<Duration>,
}

/// Whether requests shall come here, in words for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Why none shall.
    pub problems: Vec<String>,
    /// What works less well than it should; messages are accepted all the same.
    pub degraded: Vec<String>,
}

impl Readiness {
    /// True where nothing keeps the service from answering.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.problems.is_empty()
    }
}

impl Service {
    /// Asks the database for numbers that an operator wants to see. The cost grows
    /// with the open executions: ask every few seconds at most.
    ///
    /// # Errors
    ///
    /// [`Error::StoreUnavailable`]: the service is not healthy.
    pub async fn health(&self) -> Result<Health, Error> {
        let now = self.0.clock.now();
        let alive = i64::try_from(HOST_ALIVE.as_micros()).expect("a minute is short");
        let seen_since = Time::from_micros(now.micros().saturating_sub(alive));
        let mut c = self.0.store.read().await?;
        let mut health = Health::default();
        for open in store::health::open_executions(&mut c).await? {
            let load = health.classes.entry(open.class).or_default();
            if open.status == ExecutionStatus::Running {
                load.running = open.count;
                continue;
            }
            load.waiting = open.count;
            load.oldest_waiting = open.since.map(|since| {
                let micros = now.micros().saturating_sub(since.micros());
                Duration::from_micros(u64::try_from(micros).unwrap_or(0))
            });
        }
        health.hosts = store::health::hosts_seen(&mut c, seen_since).await?;
        Ok(health)
    }

    /// Brings what the metrics say of the queue up to date, for who is about to show
    /// them.
    pub fn show_queue(&self) {
        let (connected, unpublished) = match self.queue_state() {
            Some(state) => (state.connected, state.unpublished),
            // The database is the queue.
            None => (true, 0),
        };
        metrics::queue_connected(connected);
        metrics::activations_pending(unpublished);
    }

    /// Whether the database takes writes and the queue messages. Cheap, though not
    /// free: it writes to the disk.
    pub async fn readiness(&self) -> Readiness {
        let mut readiness = Readiness::default();
        match timeout(PATIENCE, store::health::probe(&self.0.store)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                warn!(error = %Chain(&error), "not ready: the database does not take writes");
                readiness.problems.push(words(&error));
            }
            Err(_) => {
                let patience = PATIENCE.as_secs();
                warn!("not ready: the database did not answer within {patience} s");
                let problem = format!("the database did not answer within {patience} seconds");
                readiness.problems.push(problem);
            }
        }
        if self.queue_state().is_some_and(|state| !state.connected) {
            let degraded = "the queue is unavailable: messages are accepted and delayed";
            readiness.degraded.push(degraded.to_owned());
        }
        readiness
    }

    /// How the broker of the queue is reached from here; none where the database
    /// is the queue.
    #[must_use]
    pub fn queue_state(&self) -> Option<QueueState> {
        self.0.queue.broker().map(|broker| broker.rabbit().state())
    }

    /// How many activations wait at the broker for hosts of each class; nothing
    /// where the database is the queue.
    ///
    /// # Errors
    ///
    /// [`Error::QueueUnavailable`], beside those of every function.
    pub async fn waiting_activations(&self) -> Result<BTreeMap<String, u64>, Error> {
        match self.0.queue.broker() {
            Some(broker) => broker.depths(&self.0.config.queues).await,
            None => Ok(BTreeMap::new()),
        }
    }
}

/// What is wrong with the database, without names of users and addresses: these
/// words are for everybody.
fn words(error: &Error) -> String {
    let Some(source) = error.of_database() else {
        return "the service has a fault; its log knows more".to_owned();
    };
    match &**source {
        sqlx::Error::Io(_) => "the database cannot be reached".to_owned(),
        sqlx::Error::PoolTimedOut => "the database gives no connection".to_owned(),
        sqlx::Error::Database(source) => {
            let code = source.code().unwrap_or_default();
            // SQLite's are short numbers with the kind in the low byte, PostgreSQL's have
            // five characters.
            let of_sqlite = (code.len() < 5).then(|| code.parse::<u16>().ok()).flatten();
            match (code.as_ref(), of_sqlite.map(|code| code & 0xff)) {
                ("53100", _) | (_, Some(13)) => "the disk of the database is full".to_owned(),
                ("57P01" | "57P02" | "57P03", _) => {
                    "the database is starting or stopping".to_owned()
                }
                ("25006", _) | (_, Some(8)) => "the database cannot be written to".to_owned(),
                (_, Some(10)) => "the disk of the database fails".to_owned(),
                _ => format!("the database refuses (code {code})"),
            }
        }
        _ => "the database is not available".to_owned(),
    }
}
