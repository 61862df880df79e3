//! What the service is told at its start.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use crate::host::DefaultLimits;
use crate::mount::HostAccess;
use crate::permission::Tenant;
use crate::secret::SecretKeys;
use crate::tenant::TenantsSettings;

/// Settings of a [`crate::Service`]; [`Config::sqlite`] has the defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the rows are.
    pub database: DatabaseConfig,
    /// How hosts hear of work.
    pub queue: QueueConfig,
    /// The tenant of callers that name none.
    pub default_tenant: Tenant,
    /// What single tenants have otherwise.
    pub tenants: TenantsSettings,
    /// What `_abaco_api_server` says inside containers: the base URL at which
    /// executions reach this service.
    pub api_server: String,
    /// How often an execution is tried before it ends as lost; 3.
    pub max_attempts: u32,
    /// Actors that one user may have, and as many aliases, configs, and nonces of one
    /// actor or alias; 1,000. Admins may have more.
    pub max_owned: u64,
    /// Bytes that a message may have, as JSON and as Python literal; 130,000,
    /// since one environment variable holds at most 128 KiB with its name.
    pub max_message_bytes: usize,
    /// Bytes that a message of bytes may have; 16 MiB.
    pub max_binary_bytes: usize,
    /// Whether the nonce that a message was sent with is in the environment of its
    /// execution, as with Abaco; false, since it is a secret.
    pub nonce_in_environment: bool,
    /// Bytes of output that are kept of one execution; 1,000,000.
    pub max_log_bytes: u64,
    /// Bytes that one result of an execution may have; 1 MiB.
    pub max_result_bytes: u64,
    /// Bytes that all results of one execution may have; 64 MiB.
    pub max_results_bytes: u64,
    /// How long results are kept; 24 hours.
    pub result_expiry: Duration,
    /// How long logs are kept when the actor does not say; 12 hours.
    pub log_expiry: Duration,
    /// The longest time for which an actor may have its logs kept; 24 hours.
    pub log_expiry_ceiling: Duration,
    /// Executions of one stateless actor that run at once, when it does not say; 6.
    pub max_workers_per_actor: u32,
    /// What executions are limited to whose actors do not say, so that it counts
    /// against what a host has; nothing. The same as what hosts give them.
    pub default_limits: DefaultLimits,
    /// The queues that an actor may name; `default` and `special`.
    pub queues: Vec<String>,
    /// What containers have of their hosts; nothing.
    pub host_access: HostAccess,
    /// How long deleting an actor waits for its running executions; 20 s.
    pub delete_wait: Duration,
    /// How long a stateless actor's worker stays that has nothing to do; 30 s.
    pub worker_idle: Duration,
    /// How long one worker of a stateless actor with the hint `sync` stays; 10 minutes.
    pub sync_worker_idle: Duration,
    /// How long any worker stays that has nothing to do; 24 hours.
    pub worker_ttl: Duration,
    /// What actors have as `token` when they do not say; false.
    pub default_token: bool,
    /// What secret configs are sealed under; without a key there are no secrets.
    pub secret_keys: SecretKeys,
    /// Whether anybody may have the executions of any actor of the tenant get a
    /// config, as with Abaco; false: only who has UPDATE on the actor.
    pub configs_for_any_actor: bool,
    /// What one search may look at row by row.
    pub search_limits: SearchLimits,
    /// How often ended leases, expired logs and the like are looked for; 5 s.
    pub sweep_every: Duration,
    /// How long executions stay after their end; for ever when not given.
    pub execution_retention: Option<Duration>,
}

/// What a search may look at row by row before it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchLimits {
    /// Rows; 200,000.
    pub rows: u64,
    /// Bytes of text in those rows; 256 MiB.
    pub bytes: usize,
    /// How long it may take; 10 s.
    pub time: Duration,
}

impl Default for SearchLimits {
    fn default() -> Self {
        Self { rows: 200_000, bytes: 256 << 20, time: Duration::from_secs(10) }
    }
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
    /// A server, which any number of processes share.
    Postgres(PostgresConfig),
}

/// How to reach a PostgreSQL server.
#[derive(Clone)]
pub struct PostgresConfig {
    /// `postgres://user@host:port/database?sslmode=…`; without `sslmode`, TLS is
    /// used where the server has it, and its certificate is not checked.
    pub url: String,
    /// Stands before one in the URL.
    pub password: Option<SecretString>,
    /// Certificates that are trusted beside the system's, in PEM.
    pub ca_pem: Option<Vec<u8>>,
    /// Connections of this process at most; 16.
    pub connections: u32,
}

/// How hosts hear that there is work.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum QueueConfig {
    /// By the database: no broker needed.
    Database,
    /// By RabbitMQ.
    RabbitMq(RabbitMqConfig),
}

/// How to reach a RabbitMQ server.
#[derive(Clone)]
pub struct RabbitMqConfig {
    /// `amqp://user@host:port/vhost`, or `amqps:` for TLS.
    pub url: String,
    /// Stands before one in the URL.
    pub password: Option<SecretString>,
    /// Certificates that are trusted beside the system's, in PEM.
    pub ca_pem: Option<Vec<u8>>,
    /// What the names of all its queues begin with; `abax`.
    pub prefix: String,
}

impl PostgresConfig {
    /// The server at `url`, with the defaults.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), password: None, ca_pem: None, connections: 16 }
    }
}

impl RabbitMqConfig {
    /// The server at `url`, with the defaults.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), password: None, ca_pem: None, prefix: "abax".to_owned() }
    }
}

impl fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConfig")
            .field("url", &without_secrets(&self.url))
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for RabbitMqConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMqConfig")
            .field("url", &without_secrets(&self.url))
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// A URL without password and parameters, which may hold one too.
fn without_secrets(url: &str) -> String {
    let url = url.split('?').next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else {
        return "[not a URL]".to_owned();
    };
    // A password that was not encoded may hold what ends a host.
    match rest.rsplit_once('@') {
        None => url.to_owned(),
        Some((who, place)) => {
            let user = who.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}@{place}")
        }
    }
}

impl Config {
    /// What executions of a tenant have of their hosts.
    pub(crate) fn host_access(&self, tenant: &Tenant) -> HostAccess {
        self.tenants.of(tenant, |own| own.host_access.clone(), self.host_access.clone())
    }

    /// Whether the operator says who the users of a tenant are on the hosts.
    #[must_use]
    pub fn knows_identities(&self, tenant: &Tenant) -> bool {
        self.host_access(tenant).identities.is_some()
    }

    /// The defaults, with rows and queue in the file at `path`.
    #[must_use]
    pub fn sqlite(path: impl Into<PathBuf>) -> Self {
        Self::new(DatabaseConfig::Sqlite { path: path.into() }, QueueConfig::Database)
    }

    /// The defaults, with rows in `database` and hosts called by `queue`.
    #[must_use]
    pub fn new(database: DatabaseConfig, queue: QueueConfig) -> Self {
        Self {
            database,
            queue,
            default_tenant: Tenant::default(),
            tenants: TenantsSettings::default(),
            api_server: "http://127.0.0.1:8000".to_owned(),
            max_attempts: 3,
            max_owned: 1_000,
            max_message_bytes: 130_000,
            max_binary_bytes: 16 << 20,
            nonce_in_environment: false,
            max_log_bytes: 1_000_000,
            max_result_bytes: 1 << 20,
            max_results_bytes: 64 << 20,
            result_expiry: Duration::from_secs(86_400),
            log_expiry: Duration::from_secs(43_200),
            log_expiry_ceiling: Duration::from_secs(86_400),
            max_workers_per_actor: 6,
            default_limits: DefaultLimits::default(),
            queues: vec!["default".to_owned(), "special".to_owned()],
            host_access: HostAccess::default(),
            delete_wait: Duration::from_secs(20),
            worker_idle: Duration::from_secs(30),
            sync_worker_idle: Duration::from_secs(600),
            worker_ttl: Duration::from_secs(86_400),
            default_token: false,
            secret_keys: SecretKeys::default(),
            configs_for_any_actor: false,
            search_limits: SearchLimits::default(),
            sweep_every: Duration::from_secs(5),
            execution_retention: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_printed() {
        for (url, printed) in [
            ("postgres://u:pw@h:5/db", "postgres://u@h:5/db"),
            ("postgres://u:p@w/pw@h:5/db", "postgres://u@h:5/db"),
            ("postgres://u@h/db?password=pw", "postgres://u@h/db"),
            ("amqps://h/%2f", "amqps://h/%2f"),
            ("pw", "[not a URL]"),
        ] {
            let mut postgres = PostgresConfig::new(url);
            postgres.password = Some("pw".into());
            let text = format!("{postgres:?}");
            assert!(text.contains(&format!("{printed:?}")) && !text.contains("pw"), "{text}");
            let mut rabbit = RabbitMqConfig::new(url);
            rabbit.password = Some("pw".into());
            let text = format!("{rabbit:?}");
            assert!(text.contains(&format!("{printed:?}")) && !text.contains("pw"), "{text}");
        }
    }
}
