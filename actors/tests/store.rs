//! What the rows promise: what was accepted stays, what cannot be read is said.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

#[macro_use]
mod fixture;

use std::path::Path;
use std::process::Command;

use abax_actors::{
    Caller, Clock, Config, Error, ExecutionId, ExecutionStatus, ExecutionsPage, Finish, Json,
    NewActor, NewMessage, Outcome, QueueConfig, Role, Service, Tenant,
};
use fixture::{Engine, Fixture, Rows, succeeded};

on_each_engine![
    a_nul_character_is_refused_or_replaced,
    an_actor_reads_back_as_it_was_registered,
    a_restart_loses_nothing,
    a_row_that_cannot_be_read_is_named,
    a_write_that_fails_takes_none_of_its_group_along,
    a_list_of_executions_is_bounded_and_counts_all,
];

async fn an_actor_reads_back_as_it_was_registered(engine: Engine) {
    let f = Fixture::new(engine).await;
    let mut new = NewActor::new("localhost:5000/team/app:v2");
    new.name = Some("classifier".into());
    new.description = "says what is in a picture".into();
    new.stateless = true;
    new.token = Some(true);
    new.webhook = "https://example.org/hook".into();
    let other = f.actor().await;
    new.link = other.id.to_string();
    new.hints = vec!["sync".into(), "gpu".into()];
    new.privileged = true;
    new.max_workers = Some(3);
    new.mem_limit = Some("512m".into());
    new.max_cpus = Some(1_500_000_000);
    new.use_container_uid = true;
    new.default_environment = Json::parse(r#"{"b": 1, "a": [true, null]}"#).unwrap();
    new.queue = "special".into();
    new.log_ex = Some(16_000);
    let registered = f.service.register_actor(&f.admin, new).await.unwrap();
    let read = f.again().await.actor(&f.admin, registered.id.as_str()).await.unwrap();
    assert_eq!(read, registered);
    assert_eq!(read.memory_limit_bytes(), Some(512 << 20));
    assert_eq!(f.service.actors(&f.admin).await.unwrap().page, [read]);
}

async fn a_nul_character_is_refused_or_replaced(engine: Engine) {
    let f = Fixture::new(engine).await;
    let nul = Caller::new(Tenant::default(), "o\0wner", Role::User);
    let registered = f.service.register_actor(&nul, NewActor::new("busybox")).await;
    assert!(matches!(registered, Err(Error::Invalid { .. })), "{registered:?}");
    let (host, actor) = (f.host().await, f.actor().await);
    let sent = f.send(&actor, "x").await;
    let claim = f.claim(&host).await;
    let finish = Finish::new(Outcome::Failed, "it said \0");
    assert!(f.service.finish(&claim.key, finish).await.unwrap());
    assert_eq!(f.execution(&sent).await.reason.as_deref(), Some("it said \u{fffd}"));
    // What comes after it is not harmed.
    assert_eq!(f.service.actors(&f.owner).await.unwrap().page.len(), 1);
}

async fn a_restart_loses_nothing(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let actor = f.actor().await;
    let done = f.send(&actor, "done").await;
    let claim = f.claim(&host).await;
    f.service.append_logs(&claim.key, 0, b"output", false).await.unwrap();
    f.service.finish(&claim.key, succeeded()).await.unwrap();
    let running = f.send(&actor, "running").await;
    let claim = f.claim(&host).await;
    let waiting = f.send(&actor, "waiting").await;
    let Fixture { rows, clock, service, owner, .. } = f;
    let config = service.config().clone();
    drop(service);

    let service = Service::open(config, clock.clone()).await.unwrap();
    let all = service.executions(&owner, actor.id.as_str()).await.unwrap().executions;
    let statuses: Vec<_> = all.iter().map(|e| (e.id.clone(), e.status)).collect();
    assert_eq!(
        statuses,
        [
            (done.id.clone(), ExecutionStatus::Complete),
            (running.id.clone(), ExecutionStatus::Running),
            (waiting.id.clone(), ExecutionStatus::Submitted),
        ]
    );
    let logs = service.logs(&owner, actor.id.as_str(), done.id.as_str()).await.unwrap();
    assert_eq!(logs.text(), "output");

    // The lease of the one before has not ended, but its process has.
    let swept = service.recover(&[host]).await.unwrap();
    let host = fixture::host(&service, "host").await;
    assert_eq!(swept.retried, 1);
    assert!(!service.finish(&claim.key, succeeded()).await.unwrap(), "of the process before");
    let mut again = Vec::new();
    for _ in 0..2 {
        let claim = fixture::claim(&service, &host).await;
        again.push((claim.key.execution, claim.attempt));
    }
    assert_eq!(again, [(running.id, 2), (waiting.id, 1)]);
    drop(rows);
}

async fn a_row_that_cannot_be_read_is_named(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = f.actor().await;
    let sent = f.send(&actor, "x").await;
    f.rows.execute("update executions set status = 'WAITING'").await;
    match f.service.execution(&f.owner, actor.id.as_str(), sent.id.as_str()).await {
        Err(Error::Inconsistent { table: "executions", column, row }) => {
            assert_eq!((column.as_str(), row.as_str()), ("status", sent.id.as_str()));
        }
        other => panic!("{other:?}"),
    }
    f.rows.execute("update actors set hints = '{'").await;
    match f.service.actor(&f.owner, actor.id.as_str()).await {
        Err(Error::Inconsistent { table: "actors", column, .. }) => assert_eq!(column, "hints"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_may_open_a_fresh_file_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config::sqlite(directory.path().join("abax.db"));
    let opened = (0..8).map(|_| tokio::spawn(Service::open(config.clone(), Clock::system())));
    for service in futures_util::future::join_all(opened).await {
        service.unwrap().unwrap().health().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_may_migrate_an_empty_database_at_once() {
    let rows = Rows::new(Engine::Postgres);
    let config = Config::new(rows.config(), QueueConfig::Database);
    match Service::open(config.clone(), Clock::system()).await {
        Err(error @ Error::NotMigrated { found: None, needed: 1.. }) => {
            assert!(error.to_string().contains("abax migrate"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    let migrated = (0..8).map(|_| {
        let database = config.database.clone();
        tokio::spawn(async move { Service::migrate(&database).await })
    });
    for done in futures_util::future::join_all(migrated).await {
        done.unwrap().unwrap();
    }
    Service::open(config.clone(), Clock::system()).await.unwrap().health().await.unwrap();

    // A newer program took a further step; this one goes on.
    rows.execute(
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time) \
         values (9999, 'later', true, '', 0)",
    )
    .await;
    Service::migrate(&config.database).await.unwrap();
    Service::open(config, Clock::system()).await.unwrap();
}

/// Names the file in the process that is killed.
const DATABASE: &str = "ABAX_TEST_DATABASE";

#[tokio::test]
#[ignore = "the process that the next test kills"]
async fn accepts_until_killed() {
    let Some(path) = std::env::var_os(DATABASE) else { return };
    let service = Service::open(Config::sqlite(path), Clock::system()).await.unwrap();
    let caller = Caller::new(Tenant::default(), "u", Role::User);
    let actor = service.register_actor(&caller, NewActor::new("busybox")).await.unwrap().id;
    // The test runner has begun a line of its own.
    println!("\nactor {actor}");
    let sends = (0..8).map(|_| async {
        // Far more than it lives to send.
        for _ in 0..1_000_000 {
            let message = NewMessage::text("x");
            let sent = service.send_message(&caller, actor.as_str(), message).await.unwrap();
            println!("accepted {}", sent.id);
        }
    });
    futures_util::future::join_all(sends).await;
}

#[tokio::test]
async fn what_was_accepted_survives_a_kill() {
    use std::io::BufRead as _;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("abax.db");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "accepts_until_killed", "--ignored", "--nocapture"])
        .env(DATABASE, &path)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let (mut actor, mut accepted) = (String::new(), Vec::new());
    let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    for line in lines {
        let line = line.unwrap();
        if let Some(id) = line.strip_prefix("actor ") {
            id.clone_into(&mut actor);
        } else if let Some(id) = line.strip_prefix("accepted ") {
            accepted.push(id.to_owned());
            if accepted.len() == 300 {
                child.kill().unwrap();
            }
        }
    }
    child.wait().unwrap();
    assert!(accepted.len() >= 300, "only {} were accepted", accepted.len());
    let service = Service::open(Config::sqlite(path), Clock::system()).await.unwrap();
    let caller = Caller::new(Tenant::default(), "u", Role::User);
    let kept: std::collections::HashSet<_> = service
        .executions(&caller, &actor)
        .await
        .unwrap()
        .executions
        .into_iter()
        .map(|e| e.id.to_string())
        .collect();
    for id in accepted {
        assert!(kept.contains(&id), "{id} was accepted and is gone");
    }
    assert_eq!(service.message_count(&caller, &actor).await.unwrap(), kept.len() as u64);
}

/// A file system of `size`, gone when dropped. Needs root.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(at: &'a Path, size: &str) -> Self {
        let options = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "abax-test"])
            .arg(at)
            .status()
            .expect("mount(8) is there");
        assert!(mounted.success(), "this test mounts a tmpfs, which needs root");
        Self(at)
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_accepts_nothing_and_keeps_what_it_has() {
    let directory = tempfile::tempdir().unwrap();
    let _disk = SmallDisk::mount(directory.path(), "2m");
    let config = Config::sqlite(directory.path().join("abax.db"));
    let caller = Caller::new(Tenant::default(), "u", Role::User);
    let service = Service::open(config.clone(), Clock::system()).await.unwrap();
    let actor = service.register_actor(&caller, NewActor::new("busybox")).await.unwrap();
    let mut accepted = Vec::new();
    let error = loop {
        let message = NewMessage::text("x".repeat(50_000));
        match service.send_message(&caller, actor.id.as_str(), message).await {
            Ok(execution) => accepted.push(execution.id),
            Err(error) => break error,
        }
        assert!(accepted.len() < 1_000, "2 MiB hold fewer");
    };
    assert!(matches!(error, Error::StoreUnavailable { .. }), "{error:?}");
    assert!(error.is_transient());
    assert!(!accepted.is_empty());
    drop(service);
    let service = Service::open(config, Clock::system()).await.unwrap();
    let all = service.executions(&caller, actor.id.as_str()).await.unwrap().executions;
    assert_eq!(all.into_iter().map(|e| e.id).collect::<Vec<_>>(), accepted);
}

/// Also for those that share a transaction with the one that found the disk full.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_disk_is_told_to_many_as_what_may_pass() {
    let directory = tempfile::tempdir().unwrap();
    let _disk = SmallDisk::mount(directory.path(), "4m");
    let config = Config::sqlite(directory.path().join("abax.db"));
    let caller = Caller::new(Tenant::default(), "u", Role::User);
    let service = Service::open(config.clone(), Clock::system()).await.unwrap();
    let actor = service.register_actor(&caller, NewActor::new("busybox")).await.unwrap();
    let sends = (0..400).map(|i| {
        let (service, caller, actor) = (service.clone(), caller.clone(), actor.id.clone());
        tokio::spawn(async move {
            let message = NewMessage::text("x".repeat(if i % 2 == 0 { 50_000 } else { 10 }));
            service.send_message(&caller, actor.as_str(), message).await
        })
    });
    let mut accepted = std::collections::HashSet::new();
    let mut refused = 0;
    for sent in futures_util::future::join_all(sends).await {
        match sent.unwrap() {
            Ok(execution) => _ = accepted.insert(execution.id),
            Err(error) => {
                assert!(error.is_transient(), "{error:?}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0, "20 MB do not fit in 4");
    drop(service);
    let service = Service::open(config, Clock::system()).await.unwrap();
    let all = service.executions(&caller, actor.id.as_str()).await.unwrap().executions;
    assert_eq!(all.into_iter().map(|e| e.id).collect::<std::collections::HashSet<_>>(), accepted);
}

async fn a_list_of_executions_is_bounded_and_counts_all(engine: Engine) {
    let f = Fixture::new(engine).await;
    let (actor, other) = (f.actor().await, f.actor().await);
    f.send(&other, "x").await;
    let all: Vec<_> = (0..10_020).map(|_| ExecutionId::generate()).collect();
    for ids in all.chunks(1_000) {
        let rows: Vec<_> = ids
            .iter()
            .map(|id| format!("('{id}', '{}', 'u', 'COMPLETE', 1, 1, 10, 2, 1999999)", actor.id))
            .collect();
        let insert = "insert into executions (id, actor_id, executor, status, actor_revision, \
                      accepted_us, cpu_ns, io_bytes, runtime_us)";
        f.rows.execute(&format!("{insert} values {}", rows.join(", "))).await;
    }
    let id = actor.id.as_str();
    let list = f.service.executions(&f.owner, id).await.unwrap();
    let totals = (list.total_executions, list.total_cpu_ns, list.total_io_bytes);
    assert_eq!(totals, (10_020, 100_200, 20_040));
    assert_eq!(list.total_runtime_seconds, 10_020, "of whole seconds");
    let ids: Vec<_> = list.executions.into_iter().map(|e| e.id).collect();
    assert_eq!(ids, all[20..], "the last ones, the oldest of them first");
    for (skip, limit, found) in [
        (0, 3, &all[..3]),
        (10_015, 100, &all[10_015..]),
        (10, u32::MAX, &all[10..10_010]),
        (u64::MAX, 5, &all[..0]),
        (5, 0, &all[..0]),
    ] {
        let page = ExecutionsPage { skip, limit, newest_first: false };
        let page = f.service.executions_page(&f.owner, id, page).await.unwrap();
        let ids: Vec<_> = page.executions.into_iter().map(|e| e.id).collect();
        assert_eq!((ids.as_slice(), page.total_executions), (found, 10_020), "{skip} {limit}");
    }
}

async fn a_write_that_fails_takes_none_of_its_group_along(engine: Engine) {
    let f = Fixture::new(engine).await;
    let stateless = f.actor().await;
    let stateful = f.register(|new| new.stateless = false).await;
    let writes = (0..200).map(|i| {
        let (service, owner) = (f.service.clone(), f.owner.clone());
        let actor = if i % 3 == 0 { &stateless } else { &stateful }.id.clone();
        tokio::spawn(async move {
            let state = Json::from(serde_json::json!(i));
            (i, service.set_actor_state(&owner, actor.as_str(), state).await)
        })
    });
    for done in futures_util::future::join_all(writes).await {
        let (i, result) = done.unwrap();
        assert_eq!(result.is_ok(), i % 3 != 0, "{i}: {result:?}");
    }
}
