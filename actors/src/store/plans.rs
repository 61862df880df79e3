//! How PostgreSQL finds the rows of the hottest statements: by their indexes,
//! whatever the number of executions of the past.

use std::cell::RefCell;
use std::time::Duration;

use sqlx::{AssertSqlSafe, PgConnection, Row as _, SqliteConnection};

use super::sql::{Connection, Value};
use super::{
    Store, accept, actors, configs, executions, logs, messages, nonces, results, revisions, state,
    workers,
};
use crate::clock::Time;
use crate::config::{DatabaseConfig, PostgresConfig};
use crate::execution::{Finish, Outcome, Phase};
use crate::id::{ActorId, ExecutionId, HostId, WorkerId};
use crate::json::Json;
use crate::message::NewMessage;
use crate::nonce::NonceId;
use crate::permission::Tenant;
use crate::revision::PinnedImage;
use crate::search::{Collection, Search, Typing};
use crate::store;

tokio::task_local! {
    /// Statement and plan of everything that is run while it is set.
    static PLANS: RefCell<Vec<(String, String)>>;
}

/// Keeps the plans of a statement, if this task asked for them: the one for these
/// values, and the one that a prepared statement gets for any.
pub(super) async fn note(c: &mut PgConnection, text: &str, values: &[Value<'_>]) {
    if PLANS.try_with(|_| ()).is_err() {
        return;
    }
    let values: Vec<_> = values.iter().map(literal).collect();
    let types = |value: &String| value.rsplit("::").next().unwrap_or_default().to_owned();
    let types: Vec<_> = values.iter().map(types).collect();
    for mode in ["force_custom_plan", "force_generic_plan"] {
        let prepare = match types.len() {
            0 => format!("set plan_cache_mode = {mode}; prepare noted as {text}"),
            _ => format!(
                "set plan_cache_mode = {mode}; prepare noted ({}) as {text}",
                types.join(", ")
            ),
        };
        sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut *c).await.unwrap();
        let explain = match values.len() {
            0 => "explain execute noted".to_owned(),
            _ => format!("explain execute noted ({})", values.join(", ")),
        };
        let plan: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(explain)).fetch_all(&mut *c).await.unwrap();
        let end = "deallocate noted; reset plan_cache_mode";
        sqlx::raw_sql(end).execute(&mut *c).await.unwrap();
        PLANS.with(|plans| {
            plans.borrow_mut().push((text.to_owned(), format!("{mode}\n{}", plan.join("\n"))));
        });
    }
}

/// As [`note`], on SQLite, which has one plan for all values.
pub(super) async fn note_on_sqlite(c: &mut SqliteConnection, text: &str) {
    if PLANS.try_with(|_| ()).is_err() {
        return;
    }
    let explain = AssertSqlSafe(format!("explain query plan {text}"));
    let plan = sqlx::query(explain).fetch_all(&mut *c).await.unwrap();
    let plan: Vec<String> = plan.iter().map(|row| row.get("detail")).collect();
    PLANS.with(|plans| plans.borrow_mut().push((text.to_owned(), plan.join("\n"))));
}

fn literal(value: &Value<'_>) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    match value {
        Value::Text(text) => {
            format!("{}::text", text.as_ref().map_or("null".to_owned(), |text| quoted(text)))
        }
        Value::Whole(number) => {
            format!("{}::bigint", number.map_or("null".to_owned(), |n| format!("({n})")))
        }
        Value::Truth(truth) => {
            format!("{}::boolean", truth.map_or("null".to_owned(), |t| t.to_string()))
        }
        Value::Bytes(bytes) => match bytes {
            None => "null::bytea".to_owned(),
            Some(bytes) => {
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("'\\x{hex}'::bytea")
            }
        },
    }
}

/// 20,000 actors with 100,000 executions, of which 1 in 20 waits and 1 in 200 runs.
const MANY: &str = "
    insert into actors (id, tenant, owner, name, description, image, stateless, kind, token,
            token_chosen, webhook, link, hints, privileged, use_container_uid,
            default_environment, status, status_message, state, created_us, updated_us,
            revision, queue)
        select 'actor' || a, 'tenant' || a % 20, 'owner' || a % 200, null, '', 'busybox', a % 4 > 0,
               'none', false, false, '', '', '[]', false, false, '{}', 'READY', ' ', '{}', a, a, 1,
               'default'
        from generate_series(1, 20000) a;
    insert into executions (id, actor_id, executor, status, outcome, worker_id, host_id, epoch,
            attempt, actor_revision, claimed_revision, lease_until_us, accepted_us, queued_us,
            visible_us, claimed_us, stored_us, log_expires_us, log_bytes)
        select 'execution' || e, 'actor' || 1 + e % 20000, 'u',
               case when e % 20 = 0 then 'SUBMITTED' when e % 200 = 1 then 'RUNNING'
                    else 'COMPLETE' end,
               case when e % 20 = 0 or e % 200 = 1 then null else 'succeeded' end,
               'worker' || e % 4000, 'host' || e % 50, 1, 1, 1, 1,
               case when e % 200 = 1 then 1800000000000000 + e end,
               e, e, e, e,
               case when e % 20 = 0 or e % 200 = 1 then null else 1000000 + e end,
               case when e % 20 = 0 or e % 200 = 1 then null else 2000000 + e end, 6
        from generate_series(1, 100000) e;
    insert into messages select id, 'text', 'x', 'str', '[]' from executions;
    insert into results (execution_id, number, epoch, bytes, created_us)
        select id, 1, 1, 'result', stored_us from executions where stored_us is not null;
    insert into revisions (actor_id, revision, image, digest, created_us)
        select id, 1, image, 'sha256:0', 1 from actors;
    insert into log_chunks select id, 0, 'output' from executions where status <> 'SUBMITTED';
    insert into workers select 'worker' || w, 'actor' || 1 + w % 2000, 'host' || w % 50, 'name',
            case when w % 3 = 0 then 'BUSY' else 'READY' end, w, w
        from generate_series(0, 3999) w;
    insert into deliveries (id, tenant, actor_id, event_type, kind, target, payload, created_us)
        select 'delivery' || d, 'tenant', 'actor' || 1 + d % 2000, 'ACTOR_READY', 'webhook', '',
            '{}', d
        from generate_series(1, 20000) d;
    insert into aliases (tenant, alias, actor_id, owner, created_us)
        select 'tenant' || a % 20, 'alias' || a, 'actor' || a, 'owner' || a % 200, a
        from generate_series(1, 20000) a;
    insert into nonces (id, tenant, actor_id, owner, roles, level, description, max_uses,
            remaining_uses, created_us)
        select 'nonce' || a, 'tenant' || a % 20, 'actor' || a, 'owner' || a % 200, '[]',
               'EXECUTE', '', -1, -1, a
        from generate_series(1, 20000) a;
    insert into configs (tenant, name, owner, value, is_secret, actors, created_us, updated_us)
        select 'tenant' || a % 20, 'config' || a, 'owner' || a % 200, 'v', false, '', a, a
        from generate_series(1, 10000) a;
    insert into config_actors select 'tenant' || a % 20, 'config' || a, 'actor' || a
        from generate_series(1, 10000) a";

#[tokio::test]
async fn the_hottest_statements_find_their_rows_by_index() {
    let database = abax_testbed::Database::create().unwrap();
    let mut config = PostgresConfig::new(database.url());
    config.password = Some(abax_testbed::PASSWORD.into());
    let config = DatabaseConfig::Postgres(config);
    super::migrate(&config).await.unwrap();
    database.execute(MANY).unwrap();
    let own = Own {
        actor: ActorId::generate(),
        waiting: ExecutionId::generate(),
        running: ExecutionId::generate(),
        worker: WorkerId::generate(),
        host: HostId::generate(),
    };
    database.execute(&own.rows()).unwrap();
    let store = Store::open(&config).await.unwrap();
    let mut c = store.read().await.unwrap();
    let plans = PLANS.scope(RefCell::default(), run_the_hottest(&mut c, &own)).await;

    let slow: Vec<_> = plans
        .iter()
        .filter(|(_, plan)| reads_a_whole_table(plan))
        .map(|(text, plan)| format!("{text}\n{plan}"))
        .collect();
    assert!(slow.is_empty(), "these read whole tables:\n\n{}", slow.join("\n\n"));
    assert!(plans.len() >= 2 * 30, "only {} plans were kept", plans.len());
}

#[tokio::test]
async fn who_watches_reads_no_executions_of_the_past() {
    let database = abax_testbed::Database::create().unwrap();
    let mut config = PostgresConfig::new(database.url());
    config.password = Some(abax_testbed::PASSWORD.into());
    let config = DatabaseConfig::Postgres(config);
    super::migrate(&config).await.unwrap();
    database.execute(MANY).unwrap();
    database.execute("analyze").unwrap();
    let store = Store::open(&config).await.unwrap();
    let mut c = store.read().await.unwrap();
    let plans = PLANS.scope(RefCell::default(), watch(&mut c)).await;
    let slow: Vec<_> = plans
        .iter()
        .filter(|(_, plan)| plan.contains("Seq Scan on executions"))
        .map(|(text, plan)| format!("{text}\n{plan}"))
        .collect();
    assert!(slow.is_empty(), "these read all executions:\n\n{}", slow.join("\n\n"));
    assert!(plans.len() >= 2 * 6, "only {} plans were kept", plans.len());
}

#[tokio::test]
async fn who_watches_a_file_reads_no_executions_of_the_past() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("abax.db");
    let store = Store::open(&DatabaseConfig::Sqlite { path }).await.unwrap();
    let mut c = store.read().await.unwrap();
    let plans = PLANS.scope(RefCell::default(), watch(&mut c)).await;
    let slow: Vec<_> = plans
        .iter()
        .filter(|(_, plan)| {
            let reads = |line: &str| line == "SCAN e" || line == "SCAN executions";
            plan.lines().any(reads)
        })
        .map(|(text, plan)| format!("{text}\n{plan}"))
        .collect();
    assert!(slow.is_empty(), "these read all executions:\n\n{}", slow.join("\n\n"));
    assert!(plans.len() >= 6, "only {} plans were kept", plans.len());
}

/// What metrics, `doctor` and the lists of admins ask for again and again.
async fn watch(c: &mut Connection) -> Vec<(String, String)> {
    let now = Time::from_micros(1_800_000_000_000_000);
    // The ids of the many are none, so that reading them fails after the statement.
    let _ = store::health::open_executions(c).await;
    store::health::hosts_seen(c, now).await.unwrap();
    store::statistics::counts(c, "default").await.unwrap();
    let _ = store::diagnosis::overdue(c, now, 10).await;
    let _ = store::diagnosis::waiting(c, now, 10).await;
    let _ = store::diagnosis::broken(c, 10).await;
    let _ = store::hosts::running(c).await;
    PLANS.with(RefCell::take)
}

/// That of the hosts has few rows.
fn reads_a_whole_table(plan: &str) -> bool {
    plan.lines().any(|step| step.contains("Seq Scan on") && !step.contains("Seq Scan on hosts"))
}

#[tokio::test]
async fn searches_find_the_rows_of_the_caller_by_index() {
    let database = abax_testbed::Database::create().unwrap();
    let mut config = PostgresConfig::new(database.url());
    config.password = Some(abax_testbed::PASSWORD.into());
    let config = DatabaseConfig::Postgres(config);
    super::migrate(&config).await.unwrap();
    database.execute(MANY).unwrap();
    database.execute("analyze").unwrap();
    let store = Store::open(&config).await.unwrap();
    let mut c = store.read().await.unwrap();
    let plans = PLANS.scope(RefCell::default(), run_searches(&mut c)).await;

    // What is put together anew each time is planned for its values.
    let slow: Vec<_> = plans
        .iter()
        .filter(|(_, plan)| plan.starts_with("force_custom_plan") && reads_a_whole_table(plan))
        .map(|(text, plan)| format!("{text}\n{plan}"))
        .collect();
    assert!(slow.is_empty(), "these read whole tables:\n\n{}", slow.join("\n\n"));
    assert!(plans.len() >= 2 * 12, "only {} plans were kept", plans.len());
}

/// Each collection, with a condition on a column, counted, paged and looked through.
async fn run_searches(c: &mut Connection) -> Vec<(String, String)> {
    let scope = store::search::Scope {
        tenant: Tenant::new("tenant3"),
        reader: Some("owner3".to_owned()),
        actor: None,
        execution: None,
        now: Time::from_micros(1),
    };
    for (collection, key, value) in [
        (Collection::Actors, "status", "READY"),
        (Collection::Executions, "message_received_time.gt", "1970"),
        (Collection::Workers, "status", "BUSY"),
        (Collection::Logs, "execution_id.neq", "x"),
    ] {
        let mut search = Search::new(collection);
        search.require(key, value, Typing::ByField).unwrap();
        assert!(store::search::count(c, &search, &scope).await.unwrap() > 0, "{collection:?}");
        store::search::page(c, &search, &scope).await.unwrap();
        search.rank_by("word").unwrap();
        store::search::rows(c, &search, &scope, Some(&(0, String::new())), 200).await.unwrap();
    }
    PLANS.with(RefCell::take)
}

/// The rows that the statements are about, beside the many.
struct Own {
    actor: ActorId,
    waiting: ExecutionId,
    running: ExecutionId,
    worker: WorkerId,
    host: HostId,
}

impl Own {
    fn rows(&self) -> String {
        let Self { actor, waiting, running, worker, host } = self;
        format!(
            "create temporary table own as select * from actors where id = 'actor1';
             update own set id = '{actor}'; insert into actors select * from own;
             insert into workers values ('{worker}', '{actor}', '{host}', 'name', 'BUSY', 1, 1);
             insert into executions (id, actor_id, executor, status, epoch, attempt,
                     actor_revision, claimed_revision, worker_id, host_id, lease_until_us,
                     accepted_us, visible_us)
                 values ('{running}', '{actor}', 'u', 'RUNNING', 1, 1, 1, 1, '{worker}', '{host}',
                         1800000000000000, 1, 1),
                        ('{waiting}', '{actor}', 'u', 'SUBMITTED', 1, 1, 1, null, null, null, null,
                         2, 2);
             insert into messages values ('{waiting}', 'text', 'x', 'str', '[]');
             analyze"
        )
    }
}

/// What the way of a message runs, from its acceptance to its end, and what looks
/// for work every few seconds.
async fn run_the_hottest(c: &mut Connection, own: &Own) -> Vec<(String, String)> {
    let Own { actor, waiting, running, worker, host } = own;
    let now = Time::from_micros(1_800_000_000_000_000);

    // Let in.
    let tenant = Tenant::new("tenant1");
    let named = actors::Named::Id(actor);
    assert!(actors::find_for(c, &tenant, named, "owner1").await.unwrap().is_some());
    let named = actors::Named::Alias("alias1");
    // The ids of the many are none.
    assert!(actors::find_for(c, &tenant, named, "owner1").await.is_err());
    let _ = nonces::find(c, "nonce1").await;
    let id = NonceId::stored("nonce1".to_owned());
    assert!(nonces::use_up(c, &id, now).await.unwrap());
    // Accept.
    actors::find(c, actor).await.unwrap();
    let message = accept::Accept {
        execution: ExecutionId::generate(),
        actor: actor.clone(),
        executor: "u".into(),
        executor_user: Some((1_000, 1_000)),
        message: NewMessage::text("x"),
        now,
        count_to: 7,
    };
    assert_eq!(accept::accept(c, &message).await.unwrap(), Some(2));
    // Look for work, and claim it. The ids of the many are none, so that reading
    // all of them fails after the statement.
    let _ = store::waiting::candidates(c, now, 6).await;
    assert_eq!(store::waiting::head(c, actor, Some(now), 10).await.unwrap().len(), 2);
    executions::find(c, waiting).await.unwrap();
    actors::lock(c, actor).await.unwrap();
    executions::count_running(c, actor).await.unwrap();
    executions::has_earlier_open(c, actor, 1_000_000).await.unwrap();
    configs::of_actor(c, &tenant, actor).await.unwrap();
    let of = actors::find(c, actor).await.unwrap().unwrap();
    workers::take(c, &of, host, 6, now).await.unwrap();
    let lease = executions::Lease { lasts: Duration::from_secs(30), from: now, standing: None };
    let claim = executions::NewClaim { epoch: 1, host, worker, revision: 1, now, lease };
    assert!(executions::claim(c, waiting, &claim).await.unwrap());
    logs::remove(c, waiting).await.unwrap();
    results::remove(c, waiting).await.unwrap();
    messages::of_execution(c, waiting).await.unwrap();
    let of_actor = actors::find(c, actor).await.unwrap().unwrap();
    let image = revisions::of_actor(c, &of_actor).await.unwrap();
    let found = PinnedImage { digest: "sha256:0".into(), made: false };
    revisions::pin(c, actor, &image, &found, now).await.unwrap();
    // Run it.
    assert_eq!(executions::renew(c, running, 1, host, lease).await.unwrap(), Some(false));
    assert!(executions::record_phase(c, running, 1, Phase::Started, now).await.unwrap());
    actors::set_ready_by(c, running).await.unwrap();
    assert!(actors::end_rest_by(c, running, 1).await.unwrap().is_none());
    assert!(!actors::end_rest(c, actor, 1).await.unwrap());
    let piece = logs::Piece { position: 0, bytes: b"output", truncated: false };
    assert!(logs::append(c, running, 1, piece, 1_000).await.unwrap());
    let batch = results::Batch { first: 1, results: vec![b"result"[..].into()] };
    assert!(results::append(c, running, 1, &batch, now).await.unwrap());
    assert!(state::stage(c, running, 1, &Json::empty_object()).await.unwrap());
    // Finish it.
    executions::lock(c, running).await.unwrap();
    actors::of_execution(c, running).await.unwrap();
    state::apply(c, running).await.unwrap();
    let finish = Finish::new(Outcome::Succeeded, "");
    assert!(executions::finish(c, running, 1, &finish, now, Some(now)).await.unwrap());
    workers::set_idle(c, worker).await.unwrap();
    // Ask for it.
    assert_eq!(logs::from(c, running, 0).await.unwrap(), b"output");
    assert!(results::has_untaken(c, running).await.unwrap());
    assert_eq!(results::take(c, running, now).await.unwrap().unwrap(), b"result");
    assert_eq!(results::of_execution(c, running).await.unwrap().len(), 1);
    assert_eq!(results::find(c, running, 1).await.unwrap().unwrap(), b"result");
    assert_eq!(store::waiting::count_of_actor(c, actor).await.unwrap(), 1);
    workers::of_actor(c, actor).await.unwrap();
    // Look after all of them.
    store::cron::due(c, now, 100).await.unwrap();
    store::deliveries::due_links(c, now, 100).await.unwrap();
    store::deliveries::has_due_webhooks(c, now).await.unwrap();
    assert!(store::deliveries::due_webhooks(c, now).await.unwrap().is_empty());
    store::deliveries::webhooks_on_their_way(c, now).await.unwrap();
    store::deliveries::time_of_next(c, actor, now).await.unwrap();
    let _ = actors::to_prepare(c, now).await;
    executions::with_expired_lease(c, Time::from_micros(1), None).await.unwrap();
    let overdue = store::waiting::Overdue {
        now,
        since: now,
        called_before: now,
        default_capacity: 6,
        limit: 10,
    };
    let _ = store::waiting::call_for_overdue(c, overdue).await;
    results::remove_expired(c, Time::from_micros(1_000)).await.unwrap();
    logs::remove_expired(c, Time::from_micros(2_000_100)).await.unwrap();
    executions::remove_ended(c, Time::from_micros(1_000_200)).await.unwrap();
    actors::remove_ended(c, Some(actor)).await.unwrap();
    actors::remove_ended(c, None).await.unwrap();
    PLANS.with(RefCell::take)
}

#[tokio::test]
async fn what_every_host_asks_all_the_time_reads_no_row_of_a_file() {
    use sqlx::sqlite::SqliteConnectOptions;
    use sqlx::{ConnectOptions as _, Row as _};

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("abax.db");
    drop(Store::open(&DatabaseConfig::Sqlite { path: path.clone() }).await.unwrap());
    let mut c = SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
    for (text, index) in [
        (actors::TO_PREPARE, "COVERING INDEX actors_to_prepare"),
        (actors::TOLD_NOTHING, "COVERING INDEX actors_told_nothing"),
    ] {
        let explained = AssertSqlSafe(format!("explain query plan {text}"));
        let rows = sqlx::query(explained).fetch_all(&mut c).await.unwrap();
        let steps: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        assert!(steps.iter().any(|step| step.contains(index)), "{text}: {steps:?}");
    }
}
