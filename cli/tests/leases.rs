//! Leases: what a worker does whose database went away, or that stood still for
//! too long. Needs root.

#![allow(clippy::unwrap_used, reason = "tests fail where something is missing")]

mod machine;

use std::process::Command;
use std::time::{Duration, Instant};

use abax_actors::{Claim, Clock, Config, Finish, HostInfo, Outcome, Service};
use machine::{Machine, Served, eventually, processes_with};
use serde_json::Value;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, SqliteConnection};
use tokio::runtime::Runtime;

/// Words in a command line that no other process has: so many seconds.
fn marker(number: u32) -> String {
    format!("{}{number}", 20_000_000 + std::process::id())
}

fn has_ended(execution: &Value) -> bool {
    execution["status"] != "SUBMITTED" && execution["status"] != "RUNNING"
}

fn has_started(execution: &Value) -> bool {
    execution["phases"]["started"].is_string()
}

fn tokio() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn database(machine: &Machine) -> std::path::PathBuf {
    machine.root().join("service/abax.db")
}

/// Keeps everybody else from writing until it is dropped.
struct Locked {
    tokio: Runtime,
    connection: Option<SqliteConnection>,
}

impl Locked {
    fn new(machine: &Machine) -> Self {
        let tokio = tokio();
        let url = format!("sqlite://{}", database(machine).display());
        let connection = tokio.block_on(async {
            let mut connection = SqliteConnection::connect(&url).await.unwrap();
            connection.execute("begin immediate").await.unwrap();
            connection
        });
        Self { tokio, connection: Some(connection) }
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        let connection = self.connection.take().unwrap();
        let _ = self.tokio.block_on(connection.close());
    }
}

/// Stops a process between two of its writes: one that stands still in the middle
/// of a transaction keeps the file locked for everybody.
fn stop_between_writes(machine: &Machine, served: &Served<'_>) {
    let options =
        SqliteConnectOptions::new().filename(database(machine)).busy_timeout(Duration::ZERO);
    let may_write = || {
        tokio().block_on(async {
            let mut connection = options.connect().await.unwrap();
            let began = connection.execute("begin immediate").await;
            connection.close().await.unwrap();
            began.is_ok()
        })
    };
    eventually("it stands still without a lock", || {
        signal(served, "-STOP");
        let stopped = may_write();
        if !stopped {
            signal(served, "-CONT");
        }
        stopped
    });
}

fn signal(served: &Served<'_>, signal: &str) {
    let sent = Command::new("kill").args([signal, &served.pid().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn a_worker_whose_database_went_away_kills_its_containers_when_the_lease_is_over() {
    let machine = Machine::with_settings("", "lease_seconds = 3");
    let marker = marker(1);
    machine.import_script(
        "works",
        &format!("echo attempt $_abaco_attempt; test $_abaco_attempt != 1 || sleep {marker}"),
    );
    let served = machine.serve_with(&["--slots", "1"]);
    served.ok(&["create", "--name", "works", "works"]);
    let execution = served.ok(&["send", "works", "x"]);
    served.wait_for("works", &execution, has_started);
    eventually("the first attempt runs", || !processes_with(&marker).is_empty());
    std::thread::sleep(Duration::from_secs(4));
    assert!(!processes_with(&marker).is_empty(), "its lease is renewed\n{}", served.log());

    let locked = Locked::new(&machine);
    let since = Instant::now();
    eventually("the container is killed", || processes_with(&marker).is_empty());
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    let row = served.json(&["executions", "works", &execution]);
    assert_eq!(row["status"], "RUNNING", "nobody could say so to the database: {row:#}");
    drop(locked);

    let ended = served.wait_for("works", &execution, has_ended);
    assert_eq!(ended["outcome"], "succeeded", "{ended:#}");
    assert_eq!(ended["attempt"], 2, "{ended:#}");
    assert_eq!(served.ok(&["logs", "works", &execution]), "attempt 2");
    served.stop(Duration::from_secs(20));
    machine.assert_clean();
}

#[test]
fn a_result_waits_for_a_database_that_comes_back_within_the_lease() {
    let machine = Machine::with_settings("", "lease_seconds = 15");
    machine.import_script("works", "sleep 1; echo done; exit 3");
    let served = machine.serve();
    served.ok(&["create", "--name", "works", "works"]);
    let execution = served.ok(&["send", "works", "x"]);
    served.wait_for("works", &execution, has_started);
    let locked = Locked::new(&machine);
    // Longer than a statement waits for its turn.
    std::thread::sleep(Duration::from_secs(8));
    drop(locked);
    let ended = served.wait_for("works", &execution, has_ended);
    assert_eq!((&ended["exit_code"], &ended["attempt"]), (&3.into(), &1.into()), "{ended:#}");
    assert_eq!(served.ok(&["logs", "works", &execution]), "done");
    served.stop(Duration::from_secs(20));
    machine.assert_clean();
}

/// Takes everything over whose lease is over, as another host.
async fn take_over(service: &Service, count: usize) -> Vec<Claim> {
    let classes = ["default".to_owned()];
    let host = service.register_host(HostInfo::new("other", "test", 9)).await.unwrap();
    let mut claims = Vec::new();
    while claims.len() < count {
        service.sweep().await.unwrap();
        let receive = service.receive(&classes, 1);
        let received = tokio::time::timeout(Duration::from_secs(1), receive).await;
        let Ok(delivery) = received else { continue };
        let lease = Duration::from_secs(60);
        claims.extend(service.claim(delivery.unwrap(), &host, lease).await.unwrap());
    }
    claims
}

#[test]
fn a_worker_that_stood_still_kills_what_it_lost_and_writes_nothing() {
    let machine = Machine::with_settings("", "lease_seconds = 3");
    let marker = marker(2);
    machine.import_script("lasts", &format!("echo mine; sleep {marker}"));
    machine.import_script("ends", "echo mine; sleep 3; echo mine again; exit 7");
    let served = machine.serve_with(&["--slots", "2"]);
    let mut sent = Vec::new();
    for actor in ["lasts", "ends"] {
        served.ok(&["create", "--name", actor, actor]);
        let execution = served.ok(&["send", actor, "x"]);
        served.wait_for(actor, &execution, has_started);
        sent.push((actor, execution));
    }
    stop_between_writes(&machine, &served);

    let tokio = tokio();
    tokio.block_on(async {
        let config = Config::sqlite(database(&machine));
        let service = Service::open(config, Clock::system()).await.unwrap();
        for claim in take_over(&service, 2).await {
            assert_eq!(claim.attempt, 2);
            let mut finish = Finish::new(Outcome::Failed, "by the other");
            finish.exit_code = Some(9);
            finish.output = b"theirs\n".to_vec();
            assert!(service.finish(&claim.key, finish).await.unwrap());
        }
    });
    assert!(!processes_with(&marker).is_empty(), "nobody was there to kill it");
    // Nobody can tell it that it lost anything.
    let locked = Locked::new(&machine);
    signal(&served, "-CONT");
    let since = Instant::now();
    eventually("the container is killed", || processes_with(&marker).is_empty());
    assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
    eventually("both are dropped", || served.log().matches("is dropped").count() == 2);
    drop(locked);

    for (actor, execution) in &sent {
        let ended = served.wait_for(actor, execution, has_ended);
        assert_eq!((&ended["exit_code"], &ended["attempt"]), (&9.into(), &2.into()), "{ended:#}");
        assert_eq!(ended["reason"], "by the other", "{ended:#}");
        assert_eq!(served.ok(&["logs", actor, execution]), "theirs");
    }
    served.stop(Duration::from_secs(20));
    machine.assert_clean();
}
