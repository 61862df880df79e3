//! What the service is told at its start.

use std::path::PathBuf;
use std::time::Duration;

use crate::permission::Tenant;

/// Settings of a [`crate::Service`]; [`Config::sqlite`] has the defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the rows are.
    pub database: DatabaseConfig,
    /// The tenant of callers that name none.
    pub default_tenant: Tenant,
    /// What `_abaco_api_server` says inside containers: the base URL at which
    /// executions reach this service.
    pub api_server: String,
    /// How often an execution is tried before it ends as lost; 3.
    pub max_attempts: u32,
    /// Bytes that a message may have, as JSON and as Python literal; 130,000,
    /// since one environment variable holds at most 128 KiB with its name.
    pub max_message_bytes: usize,
    /// Bytes of output that are kept of one execution; 1,000,000.
    pub max_log_bytes: u64,
    /// How long logs are kept when the actor does not say; 12 hours.
    pub log_expiry: Duration,
    /// The longest time for which an actor may have its logs kept; 24 hours.
    pub log_expiry_ceiling: Duration,
    /// Executions of one stateless actor that run at once, when it does not say; 6.
    pub max_workers_per_actor: u32,
    /// The queues that an actor may name; `default` and `special`.
    pub queues: Vec<String>,
    /// How long deleting an actor waits for its running executions; 20 s.
    pub delete_wait: Duration,
    /// How long an idle worker record stays; 10 minutes.
    pub worker_idle: Duration,
    /// What actors have as `token` when they do not say; false.
    pub default_token: bool,
}

/// Which database, and where.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum DatabaseConfig {
    /// A file, made when missing; its directory must exist.
    Sqlite {
        /// The database file. SQLite keeps two more beside it.
        path: PathBuf,
    },
}

impl Config {
    /// The defaults, with rows and queue in the file at `path`.
    #[must_use]
    pub fn sqlite(path: impl Into<PathBuf>) -> Self {
        Self {
            database: DatabaseConfig::Sqlite { path: path.into() },
            default_tenant: Tenant::default(),
            api_server: "http://127.0.0.1:8000".to_owned(),
            max_attempts: 3,
            max_message_bytes: 130_000,
            max_log_bytes: 1_000_000,
            log_expiry: Duration::from_secs(43_200),
            log_expiry_ceiling: Duration::from_secs(86_400),
            max_workers_per_actor: 6,
            queues: vec!["default".to_owned(), "special".to_owned()],
            delete_wait: Duration::from_secs(20),
            worker_idle: Duration::from_secs(600),
            default_token: false,
        }
    }
}
