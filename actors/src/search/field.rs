//! The fields that can be searched: their names as shown, where they are, and
//! what they hold.

use super::Collection;

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Whole,
    Truth,
    /// Microseconds in the row; shown, and compared, in milliseconds.
    Time,
    /// JSON as text, with fields of its own.
    Json,
    /// A truth that Abaco shows as text where nobody chose it.
    Token,
}

/// A field of a collection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    /// The expression that reads it; `a` is the actor, `e` the execution, `w` the
    /// worker.
    pub(super) column: &'static str,
    pub(super) kind: Kind,
}

macro_rules! fields {
    ($($name:literal $kind:ident $column:literal),* $(,)?) => {
        &[$(Field { name: $name, column: $column, kind: Kind::$kind }),*]
    };
}

const ACTORS: &[Field] = fields![
    "id" Text "a.id",
    "name" Text "a.name",
    "image" Text "a.image",
    "description" Text "a.description",
    "owner" Text "a.owner",
    "stateless" Truth "a.stateless",
    "type" Text "a.kind",
    "link" Text "a.link",
    "webhook" Text "a.webhook",
    "hints" Json "a.hints",
    "token" Token "a.token",
    "privileged" Truth "a.privileged",
    "max_workers" Whole "a.max_workers",
    "mem_limit" Text "a.mem_limit",
    "max_cpus" Whole "a.max_cpus",
    "use_container_uid" Truth "a.use_container_uid",
    "run_as_executor" Truth "a.run_as_executor",
    "default_environment" Json "a.default_environment",
    "status" Text "a.status",
    "status_message" Text "a.status_message",
    "state" Json "a.state",
    "create_time" Time "a.created_us",
    "last_update_time" Time "a.updated_us",
    "mounts" Json "a.mounts",
    "revision" Whole "a.revision",
    "tasdir" Text "a.tasdir",
    "uid" Whole "a.uid",
    "gid" Whole "a.gid",
    "queue" Text "a.queue",
    "log_ex" Whole "a.log_ex",
    "max_run_time" Whole "a.max_run_time",
    "cron_on" Truth "a.cron_on",
    "cron_schedule" Text "a.cron_schedule",
    "cron_next_ex" Time "a.cron_next_us",
];

const EXECUTIONS: &[Field] = fields![
    "id" Text "e.id",
    "actor_id" Text "e.actor_id",
    "executor" Text "e.executor",
    "executor_uid" Whole "e.executor_uid",
    "executor_gid" Whole "e.executor_gid",
    "status" Text "e.status",
    "outcome" Text "e.outcome",
    "reason" Text "e.reason",
    "attempt" Whole "e.attempt",
    "worker_id" Text "e.worker_id",
    "message_received_time" Time "e.accepted_us",
    "start_time" Time "e.started_us",
    "finish_time" Time "coalesce(e.exited_us, e.stored_us)",
    "runtime" Whole "(e.runtime_us / 1000000)",
    "cpu" Whole "e.cpu_ns",
    "io" Whole "e.io_bytes",
    "peak_memory" Whole "e.peak_memory_bytes",
    "exit_code" Whole "e.exit_code",
    "final_state" Json "e.final_state",
    // The same moments as the phases', which a database can compare.
    "final_state.StartedAt" Time "case when e.final_state is not null then e.started_us end",
    "final_state.FinishedAt" Time "case when e.final_state is not null then e.exited_us end",
    "phases.accepted" Time "e.accepted_us",
    "phases.queued" Time "e.queued_us",
    "phases.claimed" Time "e.claimed_us",
    "phases.image_ready" Time "e.image_ready_us",
    "phases.created" Time "e.created_us",
    "phases.started" Time "e.started_us",
    "phases.first_output" Time "e.first_output_us",
    "phases.exited" Time "e.exited_us",
    "phases.stored" Time "e.stored_us",
];

const WORKERS: &[Field] = fields![
    "id" Text "w.id",
    "actor_id" Text "w.actor_id",
    "status" Text "w.status",
    "image" Text "w.image",
    "ch_name" Text "('worker_' || w.id)",
    "host_id" Text "w.host_id",
    "host_name" Text "w.host_name",
    "host_ip" Text "(select h.address from hosts h where h.id = w.host_id)",
    "cid" Text "w.id",
    "location" Text "('abax://' || w.host_name)",
    "revision" Whole "w.revision",
    "create_time" Time "w.created_us",
    "last_execution_time" Time "w.last_execution_us",
    "last_health_check_time" Time "(select h.seen_us from hosts h where h.id = w.host_id)",
];

/// Stands for the text of a log, which is in rows of its own.
pub(crate) const LOG: &str = "log";

const LOGS: &[Field] = fields![
    "logs" Text "log",
    "actor_id" Text "e.actor_id",
    "execution_id" Text "e.id",
    // Abaco's name for it.
    "exec_id" Text "e.id",
];

pub(super) fn all(collection: Collection) -> &'static [Field] {
    match collection {
        Collection::Actors => ACTORS,
        Collection::Executions => EXECUTIONS,
        Collection::Workers => WORKERS,
        Collection::Logs => LOGS,
    }
}

/// The field of that name.
pub(super) fn find(collection: Collection, name: &str) -> Option<Field> {
    all(collection).iter().find(|field| field.name == name).copied()
}

/// The columns whose texts words and phrases are looked for in.
pub(super) fn texts(collection: Collection) -> impl Iterator<Item = &'static str> {
    all(collection)
        .iter()
        .filter(|field| matches!(field.kind, Kind::Text | Kind::Json))
        .map(|field| field.column)
}

/// True where a column holds JSON, whose texts count.
pub(crate) fn is_json(collection: Collection, column: &str) -> bool {
    all(collection).iter().any(|field| field.column == column && field.kind == Kind::Json)
}
