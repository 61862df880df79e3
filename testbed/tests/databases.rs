//! What the database and broker servers promise to the tests that use them.

use std::net::TcpStream;

use abax_testbed::{Broker, Database, Postgres, PostgresOptions, RabbitMq, RabbitMqOptions};

fn none_is_alive(pids: &[u32]) -> bool {
    // Orphans that ended stay for a moment until init has looked at them.
    !pids.iter().any(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    })
}

#[test]
fn a_database_is_empty_and_a_tests_own() {
    let (one, other) = (Database::create().unwrap(), Database::create().unwrap());
    one.execute("create table t (a int); insert into t values (7)").unwrap();
    assert_eq!(one.execute("select a from t").unwrap(), "7\n");
    other.execute("select a from t").unwrap_err();
    let copy = Database::create_from(one.name()).unwrap();
    assert_eq!(copy.execute("select a from t").unwrap(), "7\n");
}

#[test]
fn a_killed_postgres_comes_back_with_its_data() {
    let mut server = Postgres::start().unwrap();
    server.execute("create table t (a int); insert into t values (7)").unwrap();
    let pids = server.process_ids();
    assert!(pids.len() > 2, "{pids:?}");
    server.kill();
    assert!(none_is_alive(&pids));
    server.execute("select 1").unwrap_err();
    server.restart().unwrap();
    assert_eq!(server.execute("select a from t").unwrap(), "7\n");
    let (pids, address) = (server.process_ids(), server.address());
    drop(server);
    assert!(none_is_alive(&pids));
    TcpStream::connect(address).unwrap_err();
}

#[test]
fn a_postgres_with_tls_takes_nothing_else() {
    let options = PostgresOptions { tls: true, ..PostgresOptions::default() };
    let server = Postgres::start_with(&options).unwrap();
    assert_eq!(server.execute("select 1").unwrap(), "1\n");
    let plain = std::process::Command::new("psql")
        .args([&format!("{}?sslmode=disable", server.url()), "-c", "select 1"])
        .env("PGPASSWORD", abax_testbed::PASSWORD)
        .output()
        .unwrap();
    assert!(!plain.status.success());
}

#[test]
fn a_suspended_server_answers_when_it_is_resumed() {
    let server = Postgres::start().unwrap();
    server.suspend();
    for pid in server.process_ids() {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // What had just ended stays until its parent may look again.
        assert!(stat.contains(") T ") || stat.contains(") Z "), "{stat}");
    }
    server.resume();
    assert_eq!(server.execute("select 1").unwrap(), "1\n");
}

#[test]
fn a_killed_rabbitmq_comes_back_on_its_port() {
    let mut server = RabbitMq::start().unwrap();
    let add = "rabbit_vhost:add(<<\"kept\">>, <<\"testbed\">>).";
    assert_eq!(server.evaluate(add).unwrap(), "ok");
    let pids = server.process_ids();
    assert!(pids.len() > 2, "{pids:?}");
    server.kill();
    assert!(none_is_alive(&pids));
    TcpStream::connect(server.address()).unwrap_err();
    server.restart().unwrap();
    TcpStream::connect(server.address()).unwrap();
    let names = server.evaluate("[binary_to_list(N) || N <- rabbit_vhost:list_names()].").unwrap();
    assert!(names.contains("kept"), "{names}");
    let pids = server.process_ids();
    drop(server);
    assert!(none_is_alive(&pids));
}

#[test]
fn a_rabbitmq_with_tls_shows_its_certificate() {
    let options = RabbitMqOptions { tls: true, ..RabbitMqOptions::default() };
    let server = RabbitMq::start_with(&options).unwrap();
    let seen = std::process::Command::new("openssl")
        .args(["s_client", "-verify_return_error", "-connect", &server.address(), "-CAfile"])
        .arg(server.authority().unwrap())
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let seen = String::from_utf8_lossy(&seen.stdout).into_owned();
    assert!(seen.contains("Verify return code: 0"), "{seen}");
    assert!(server.url().starts_with("amqps://"), "{}", server.url());
}

#[test]
fn a_broker_is_shared_under_names_of_ones_own() {
    let (one, other) = (Broker::share().unwrap(), Broker::share().unwrap());
    assert_eq!(one.url(), other.url());
    assert_ne!(one.prefix(), other.prefix());
    assert!(one.evaluate("rabbit:is_running().").unwrap().contains("true"));
}
