//! Every setting there is: its names, its form, its default. `docs/configuration.md`
//! shows the same table, and a test compares the two.

use super::kind::Kind;

/// One setting.
#[derive(Debug)]
pub(crate) struct Setting {
    /// `section.name` of the file.
    pub(crate) key: &'static str,
    /// The environment variable.
    pub(crate) env: &'static str,
    /// The flags, each behind its verb.
    pub(crate) flags: &'static [&'static str],
    pub(crate) kind: Kind,
    pub(crate) default: Preset,
    /// One sentence for the documentation.
    pub(crate) meaning: &'static str,
}

/// What holds where nothing is said.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Preset {
    /// This value, as the environment would give it.
    Value(&'static str),
    /// The value of another setting.
    Of(&'static str),
    /// No value; these words say what that means.
    Words(&'static str),
}

use Kind::{
    Address, Filter, Mirrors, Names, Networks, Number, OneOf, Path, Ports, Size, Subnet, Tables,
    Text, Texts, Url, Whole,
};
use Preset::{Of, Value, Words};

const DAY: i64 = 86_400;
const MAX: i64 = i64::MAX;

macro_rules! settings {
    ($($key:literal $env:literal [$($flag:literal),*] $kind:expr, $default:expr, $meaning:literal;)*) => {
        &[$(Setting {
            key: $key,
            env: $env,
            flags: &[$($flag),*],
            kind: $kind,
            default: $default,
            meaning: $meaning,
        }),*]
    };
}

/// All settings, in the order of the documentation.
#[rustfmt::skip]
pub(crate) const SETTINGS: &[Setting] = settings! {
    "root" "ABAX_ROOT" ["--root"] Path, Value("/var/lib/abax"),
        "Where images, containers and the data of `abax serve` are kept.";
    "ca_bundle" "ABAX_CA_BUNDLE" ["--ca-bundle"] Path, Words("the system's"),
        "Certificates (PEM) to trust beside the system's, in pulls, builds and containers.";

    "log.level" "ABAX_LOG" ["--log-level"] Filter, Words("`info` for services, else `warn`"),
        "What goes to the log on standard error: a level, or a filter of tracing.";
    "log.format" "ABAX_LOG_FORMAT" ["--log-format"] OneOf(&["text", "json"]), Value("text"),
        "How the log is written; `json` is one object per line.";

    "traces.otlp_endpoint" "ABAX_TRACES_OTLP_ENDPOINT" [] Url(&["http", "https"]), Words("no traces"),
        "Where spans go by OTLP over HTTP, as `http://HOST:4318`; `OTEL_EXPORTER_OTLP_ENDPOINT` stands above it.";

    "database.url" "ABAX_DATABASE_URL" ["serve --database", "api --database", "worker --database", "migrate --database", "admin --database"] Url(&["postgres", "postgresql"]), Words("SQLite in `service.data`"),
        "The PostgreSQL server, as `postgres://USER@HOST:PORT/DATABASE?sslmode=verify-full`.";
    "database.password_file" "ABAX_DATABASE_PASSWORD_FILE" [] Path, Words("no password"),
        "A file with the password and nothing else.";
    "database.ca_file" "ABAX_DATABASE_CA_FILE" [] Path, Words("the system's"),
        "Certificates (PEM) that the server's own is checked against, beside the system's.";
    "database.connections" "ABAX_DATABASE_CONNECTIONS" [] Whole(2, 1000), Value("16"),
        "Connections of one process to PostgreSQL, at most.";

    "queue.url" "ABAX_QUEUE_URL" ["serve --queue", "api --queue", "worker --queue", "admin --queue"] Url(&["amqp", "amqps"]), Words("the database"),
        "The RabbitMQ server, as `amqps://USER@HOST:PORT/VHOST`; needs `database.url`.";
    "queue.password_file" "ABAX_QUEUE_PASSWORD_FILE" [] Path, Words("no password"),
        "A file with the password and nothing else.";
    "queue.ca_file" "ABAX_QUEUE_CA_FILE" [] Path, Words("the system's"),
        "Certificates (PEM) that the server's own is checked against, beside the system's.";
    "queue.prefix" "ABAX_QUEUE_PREFIX" [] Text, Value("abax"),
        "What the names of all queues begin with; the same in all processes of a site.";

    "service.listen" "ABAX_LISTEN" ["serve --listen"] Address, Value("127.0.0.1:8000"),
        "Where `abax serve` listens; port 0 takes a free one.";
    "service.public_url" "ABAX_PUBLIC_URL" ["serve --public-url"] Url(&["http", "https"]), Words("what a request calls it; for executions, the gateway of `service.bridge`"),
        "The address at which users and executions reach the service: not the loopback, which executions have of their own.";
    "service.data" "ABAX_DATA" ["serve --data", "token --data", "actor --data"] Path, Words("`root`/service"),
        "Where `abax serve` keeps its database, its keys and its admin token.";
    "service.slots" "ABAX_SLOTS" ["serve --slots"] Whole(1, 400), Words("4 per CPU"),
        "Executions that run at once.";
    "service.drain_seconds" "ABAX_SERVICE_DRAIN_SECONDS" ["serve --drain"] Whole(0, DAY), Value("30"),
        "How long a stop waits for running executions, before it gives them back.";
    "service.lease_seconds" "ABAX_SERVICE_LEASE_SECONDS" [] Whole(3, DAY), Value("30"),
        "How long an execution stays with a host that is not heard of any more.";
    "service.queues" "ABAX_SERVICE_QUEUES" [] Names, Value("default,special"),
        "The queues (classes of hosts) that an actor may name; `default`, which the others have, must be one.";
    "service.owned_per_user" "ABAX_SERVICE_OWNED_PER_USER" [] Whole(1, 1_000_000), Value("1000"),
        "Actors that one user may have; as many aliases and configs, and nonces of one actor or alias. Admins may have more of the first three.";
    "service.max_attempts" "ABAX_SERVICE_MAX_ATTEMPTS" [] Whole(1, 100), Value("3"),
        "How often an execution is tried when its host dies.";
    "service.time_limit_seconds" "ABAX_SERVICE_TIME_LIMIT_SECONDS" ["serve --time-limit", "worker --time-limit"] Whole(1, MAX), Words("no limit"),
        "The longest that an execution may run.";
    "service.stop_grace_seconds" "ABAX_SERVICE_STOP_GRACE_SECONDS" [] Whole(0, DAY), Value("10"),
        "How long an execution that is halted, or has run for too long, may take to end by itself before it is killed.";
    "service.memory" "ABAX_SERVICE_MEMORY" ["serve --memory"] Size, Words("no limit"),
        "Memory of an execution whose actor sets none.";
    "service.cpus" "ABAX_SERVICE_CPUS" [] Number, Words("no limit"),
        "CPUs of an execution whose actor sets none.";
    "service.pids" "ABAX_SERVICE_PIDS" [] Whole(1, MAX), Words("no limit of its own"),
        "Processes and threads of an execution, beside the bound that all share.";
    "service.log_limit_bytes" "ABAX_SERVICE_LOG_LIMIT_BYTES" [] Whole(1, 1 << 32), Value("1000000"),
        "What is kept of an execution's output.";
    "service.binary_limit_bytes" "ABAX_SERVICE_BINARY_LIMIT_BYTES" [] Whole(1, 1 << 29), Value("16777216"),
        "The largest message of bytes.";
    "service.nonce_in_environment" "ABAX_SERVICE_NONCE_IN_ENVIRONMENT" [] OneOf(&["no", "yes"]), Value("no"),
        "Whether containers see the nonce that a message was sent with, as Abaco's do.";
    "service.result_limit_bytes" "ABAX_SERVICE_RESULT_LIMIT_BYTES" [] Whole(1, 1 << 26), Value("1048576"),
        "The largest result that an execution sends back; the kernel's limit on datagrams may be lower.";
    "service.results_limit_bytes" "ABAX_SERVICE_RESULTS_LIMIT_BYTES" [] Whole(1, 1 << 32), Value("67108864"),
        "What the results of one execution may have together.";
    "service.result_expiry_hours" "ABAX_SERVICE_RESULT_EXPIRY_HOURS" [] Whole(1, 876_000), Value("24"),
        "How long results are kept.";
    "service.mounts" "ABAX_SERVICE_MOUNTS" [] Texts, Value(""),
        "What all executions see of their hosts, each as `HOST:CONTAINER:ro` or `HOST:CONTAINER:rw`; paths may name `{username}`, `{tenant_id}` and `{tasdir}`.";
    "service.privileged_mounts" "ABAX_SERVICE_PRIVILEGED_MOUNTS" [] Texts, Value(""),
        "What executions of privileged actors see besides.";
    "service.home" "ABAX_SERVICE_HOME" [] Text, Words("none"),
        "The home directory of an actor's owner on the hosts, which mounts name as `{tasdir}`: `/home/{username}`.";
    "service.uid" "ABAX_SERVICE_UID" [] Whole(1, 2_147_483_647), Words("the image's"),
        "The user of the hosts as which executions run; needs `service.gid`.";
    "service.gid" "ABAX_SERVICE_GID" [] Whole(1, 2_147_483_647), Words("the image's"),
        "The group of the hosts as which executions run; needs `service.uid`.";
    "service.identities_file" "ABAX_SERVICE_IDENTITIES_FILE" [] Path, Words("none"),
        "Users of the hosts, in the form of passwd(5): executions of their actors run as they, others as `service.uid`. The same file in all processes.";
    "service.execution_retention_days" "ABAX_SERVICE_EXECUTION_RETENTION_DAYS" [] Whole(1, 36_500), Words("for ever"),
        "How long executions that have ended are kept.";
    "service.workers_per_actor" "ABAX_SERVICE_WORKERS_PER_ACTOR" [] Whole(1, 10_000), Value("6"),
        "Executions of one stateless actor that run at once, when it does not say.";
    "service.worker_idle_seconds" "ABAX_SERVICE_WORKER_IDLE_SECONDS" [] Whole(1, MAX), Value("30"),
        "How long a stateless actor's worker is listed that has nothing to do.";
    "service.sync_worker_idle_seconds" "ABAX_SERVICE_SYNC_WORKER_IDLE_SECONDS" [] Whole(1, MAX), Value("600"),
        "The same for the one that an actor with the hint `sync` keeps.";
    "service.worker_ttl_seconds" "ABAX_SERVICE_WORKER_TTL_SECONDS" [] Whole(1, MAX), Value("86400"),
        "The same for any worker, also of a stateful actor.";
    "service.secret_keys_file" "ABAX_SERVICE_SECRET_KEYS_FILE" [] Path, Words("`service.data`/secret.keys, for `abax serve`"),
        "Keys of secret configs, 32 random bytes in base64 on each line; the first one seals. The same file in all processes.";
    "service.configs_for_any_actor" "ABAX_SERVICE_CONFIGS_FOR_ANY_ACTOR" [] OneOf(&["yes", "no"]), Value("no"),
        "Whether any user may give a config to any actor of the tenant, as with Abaco, and not only who may update the actor.";
    "service.tenants" "ABAX_SERVICE_TENANTS" [] Tables, Value("{}"),
        "By tenant, what it has otherwise than the rest; see below.";
    "service.host_ports" "ABAX_SERVICE_HOST_PORTS" ["serve --host-port", "worker --host-port"] Ports, Value(""),
        "Ports of the host's loopback that executions reach, at `host.abax.internal`.";
    "service.bridge" "ABAX_SERVICE_BRIDGE" [] Text, Value("abax1"),
        "The bridge of executions; they cannot see each other there.";
    "service.subnet" "ABAX_SERVICE_SUBNET" [] Subnet, Value("172.30.0.0/16"),
        "Its addresses.";

    "api.listen" "ABAX_API_LISTEN" ["api --listen"] Address, Of("service.listen"),
        "Where `abax api` listens.";
    "api.public_url" "ABAX_API_PUBLIC_URL" ["api --public-url"] Url(&["http", "https"]), Of("service.public_url"),
        "As `service.public_url`; `abax api` and `abax worker` need one of the two.";
    "api.signing_key_file" "ABAX_API_SIGNING_KEY_FILE" ["api --signing-key", "worker --signing-key", "token --signing-key"] Path, Words("`service.data`/signing.key, for `abax serve`"),
        "The key of access tokens, at least 32 random bytes; the same file in all api and worker processes.";
    "api.dialect" "ABAX_API_DIALECT" [] OneOf(&["abax", "v2-camel", "v2-snake", "v3"]), Value("abax"),
        "What is spoken under `/actors` without a version: ours, or that of an Abaco.";
    "api.issuers" "ABAX_API_ISSUERS" [] Tables, Value("{}"),
        "By name, those whose tokens are taken beside the service's own; see below.";
    "api.waits_per_user" "ABAX_API_WAITS_PER_USER" [] Whole(1, 100_000), Value("100"),
        "Calls of one user that may wait at once in a process: synchronous messages, and logs that are followed.";
    "api.drain_seconds" "ABAX_API_DRAIN_SECONDS" ["api --drain"] Whole(0, DAY), Value("20"),
        "How long a stop waits for open requests.";
    "api.webhook_networks" "ABAX_API_WEBHOOK_NETWORKS" [] Networks, Value(""),
        "Networks that webhooks may reach beside the public internet and the service itself, like `10.1.0.0/16`.";

    "worker.name" "ABAX_WORKER_NAME" ["worker --name"] Text, Words("the host's name"),
        "What the host is called; no two hosts of a site may have the same.";
    "worker.address" "ABAX_WORKER_ADDRESS" [] Text, Words("the one that it has towards others"),
        "The address of the host that its workers show as `host_ip`; nobody calls it.";
    "worker.slots" "ABAX_WORKER_SLOTS" ["worker --slots"] Whole(1, 400), Of("service.slots"),
        "Executions that `abax worker` runs at once.";
    "worker.classes" "ABAX_WORKER_CLASSES" ["worker --class"] Names, Of("service.queues"),
        "The queues that the host takes work from.";
    "worker.memory" "ABAX_WORKER_MEMORY" ["worker --memory"] Size, Words("the machine's"),
        "Memory of the host that executions may have together, by their limits.";
    "worker.cpus" "ABAX_WORKER_CPUS" ["worker --cpus"] Number, Words("the machine's"),
        "CPUs of the host that executions may have together, by their limits.";
    "worker.prepull" "ABAX_WORKER_PREPULL" ["worker --prepull"] Texts, Value(""),
        "Images that are made ready in the background at the start.";
    "worker.drain_seconds" "ABAX_WORKER_DRAIN_SECONDS" ["worker --drain"] Whole(0, DAY), Of("service.drain_seconds"),
        "As `service.drain_seconds`, for `abax worker`.";
    "worker.metrics_listen" "ABAX_WORKER_METRICS_LISTEN" ["worker --metrics-listen"] Address, Words("nowhere"),
        "Where `abax worker` answers `/metrics`, `/healthz` and `/readyz`.";

    "network.bridge" "ABAX_NETWORK_BRIDGE" [] Text, Value("abax0"),
        "The bridge of `abax run` and `abax build`.";
    "network.subnet" "ABAX_NETWORK_SUBNET" [] Subnet, Value("172.29.0.0/16"),
        "Its addresses.";

    "registries.mirrors" "ABAX_REGISTRIES_MIRRORS" [] Mirrors, Value("{}"),
        "By registry, what to ask before it, in order; a TOML table of lists, in the environment too.";
    "registries.plain_http" "ABAX_REGISTRIES_PLAIN_HTTP" [] Texts, Value(""),
        "Registries that speak HTTP without TLS; those on loopback need not be named.";
    "registries.local" "ABAX_REGISTRIES_LOCAL" [] Texts, Value(""),
        "Registries at addresses of the host itself, like `localhost:5000`, that images of actors may come from; those of `registries.plain_http` and mirrors may be anywhere.";
    "registries.ca_bundle" "ABAX_REGISTRIES_CA_BUNDLE" [] Path, Of("ca_bundle"),
        "Certificates (PEM) to trust beside the system's, in pulls only.";
    "registries.docker_config" "ABAX_REGISTRIES_DOCKER_CONFIG" [] Path, Words("`~/.docker/config.json`"),
        "Docker's file with credentials of registries and credential helpers.";
    "registries.parallel_downloads" "ABAX_REGISTRIES_PARALLEL_DOWNLOADS" [] Whole(1, 100), Value("3"),
        "Layers that are downloaded at the same time.";
    "registries.attempts" "ABAX_REGISTRIES_ATTEMPTS" [] Whole(1, 100), Value("6"),
        "How often a request is tried that fails for a reason that may pass.";
    "registries.retry_delay_milliseconds" "ABAX_REGISTRIES_RETRY_DELAY_MILLISECONDS" [] Whole(0, 3_600_000), Value("500"),
        "The wait before the second attempt; it doubles from one to the next.";
    "registries.timeout_seconds" "ABAX_REGISTRIES_TIMEOUT_SECONDS" [] Whole(1, DAY), Value("30"),
        "How long to wait for a connection to a registry, and for the next bytes on it.";
};

/// The setting of this key.
pub(crate) fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_has_this_table() {
        let mut table = String::from(
            "| key | environment | flag | default | meaning |\n| --- | --- | --- | --- | --- |\n",
        );
        for setting in SETTINGS {
            let flags: Vec<_> = setting.flags.iter().map(|flag| format!("`{flag}`")).collect();
            let default = match setting.default {
                Preset::Value("") => "none".to_owned(),
                Preset::Value(text) => format!("`{text}`"),
                Preset::Of(key) => format!("that of `{key}`"),
                Preset::Words(words) => words.to_owned(),
            };
            table.push_str(&format!(
                "| `{}` | `{}` | {} | {default} | {} |\n",
                setting.key,
                setting.env,
                flags.join("<br>"),
                setting.meaning
            ));
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
        let page = std::fs::read_to_string(path).unwrap();
        assert!(page.contains(&table), "the table of docs/configuration.md must be:\n\n{table}");
        let rows = page.lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(rows, SETTINGS.len(), "settings stand in one table only");
    }

    #[test]
    fn names_are_not_given_twice_and_defaults_are_values() {
        for (n, setting) in SETTINGS.iter().enumerate() {
            for other in &SETTINGS[..n] {
                assert!(setting.key != other.key && setting.env != other.env, "{}", setting.key);
            }
            match setting.default {
                Preset::Value(text) => {
                    assert!(setting.kind.read(text).is_some(), "{}", setting.key)
                }
                Preset::Of(key) => assert!(find(key).is_some(), "{}", setting.key),
                Preset::Words(_) => {}
            }
        }
    }
}
