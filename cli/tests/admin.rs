//! `abax admin` on a site of two hosts. Needs root.

#![allow(clippy::unwrap_used, reason = "tests fail where something is missing")]

mod machine;
mod site;

use std::time::Duration;

use machine::{Machine, Ran};
use serde_json::Value;
use site::{Queue, Site};

fn hosts(machine: &Machine) -> Vec<Value> {
    serde_json::from_str(&machine.ok(&["admin", "hosts", "--format", "json"])).unwrap()
}

/// The host of this name that works.
fn host(machine: &Machine, name: &str) -> Value {
    let all = hosts(machine);
    let found = all.iter().find(|host| host["name"] == name && host["status"] == "WORKING");
    found.unwrap_or_else(|| panic!("no {name} in {all:?}")).clone()
}

#[test]
fn a_cordoned_host_gets_no_new_work_until_it_is_uncordoned() {
    let site = Site::new(Queue::Database);
    let [one, two] = &site.hosts;
    site.import_script("works", "echo works; sleep 0.2");
    let api = one.api("api.log");
    let workers = [one.worker(&[]), two.worker(&[])];
    let table = one.ok(&["admin", "hosts"]);
    let headings = table.lines().next().unwrap();
    for heading in ["NAME", "STATUS", "SLOTS", "RUNNING", "CLASSES", "LAST SEEN", "VERSION"] {
        assert!(headings.contains(heading), "{table}");
    }
    assert!(table.contains("default,special") && table.contains("working"), "{table}");
    assert_eq!(two.ok(&["admin", "hosts", "--quiet"]), "one\ntwo");

    one.ok(&["admin", "cordon", "one"]);
    assert_eq!(host(one, "one")["cordoned"], true);
    // Its worker hears of it with the next renewal of its leases.
    std::thread::sleep(Duration::from_secs(2));
    api.ok(&["create", "--name", "works", "--max-workers", "8", "works"]);
    let sent: Vec<_> = (0..8).map(|_| api.ok(&["send", "works", "x"])).collect();
    one.containers();
    for execution in &sent {
        api.wait_for("works", execution, |e| e["status"] == "COMPLETE");
        assert!(one.containers().is_empty(), "a cordoned host took work");
    }
    // The next process of that name is cordoned too.
    let [first, second] = workers;
    first.stop(Duration::from_secs(20));
    let first = one.worker(&[]);
    assert_eq!(host(one, "one")["cordoned"], true);
    one.ok(&["admin", "uncordon", "one"]);
    assert_eq!(host(one, "one")["cordoned"], false);
    second.stop(Duration::from_secs(20));
    let last = api.ok(&["send", "works", "x"]);
    api.wait_for("works", &last, |e| e["status"] == "COMPLETE");
    first.stop(Duration::from_secs(20));
    one.abax(&["admin", "cordon", "three"]).fails(1, &["three"]);
}

fn doctor(machine: &Machine) -> Ran {
    machine.abax(&["admin", "doctor"])
}

#[track_caller]
fn says(ran: &Ran, code: i32, verdict: &str, words: &[&str]) {
    assert_eq!(ran.code, Some(code), "{}{}", ran.stdout, ran.stderr);
    let found = ran
        .stdout
        .lines()
        .any(|line| line.starts_with(verdict) && words.iter().all(|word| line.contains(word)));
    assert!(found, "no {verdict} with {words:?} in:\n{}", ran.stdout);
}

#[test]
fn the_doctor_finds_what_is_wrong_and_says_what_to_do() {
    let mut site = Site::unmigrated(Queue::Database);
    says(&doctor(&site.hosts[0]), 1, "fail", &["schema", "abax migrate"]);
    site.hosts[0].ok(&["migrate"]);
    {
        let [one, two] = &site.hosts;
        site.import_script("works", "sleep 1000");
        let api = one.api("api.log");
        says(&doctor(one), 1, "fail", &["hosts", "abax worker"]);
        let workers = [one.worker(&[]), two.worker(&[])];
        let well = doctor(one);
        says(&well, 0, "ok", &["database", "ms"]);
        says(&well, 0, "ok", &["hosts", "one: 0 of 4 slots"]);
        says(&well, 0, "ok", &["clock"]);
        says(&well, 0, "", &["disk", "free"]);
        says(&well, 0, "ok", &["executions"]);
        let json: Value =
            serde_json::from_str(&one.ok(&["admin", "doctor", "--format", "json"])).unwrap();
        assert!(json.as_array().unwrap().iter().all(|line| line["verdict"] != "fail"), "{json:#}");

        // What nobody can pull, and what nobody can take.
        api.ok(&["create", "--name", "broken", "localhost:1/no/such:image"]);
        api.ok(&["create", "--name", "works", "works"]);
        for host in ["one", "two"] {
            one.ok(&["admin", "cordon", host]);
        }
        api.ok(&["send", "works", "x"]);
        site.database
            .execute("update executions set queued_us = queued_us - 600000000, visible_us = 0")
            .unwrap();
        let ill = doctor(one);
        says(&ill, 0, "warn", &["hosts", "one is cordoned", "uncordon"]);
        says(&ill, 0, "warn", &["executions", "no host of class default works"]);
        drop(workers);
        // The page that an executor of the database's rules would show for a lost machine.
        site.database.execute("update hosts set seen_us = seen_us - 600000000").unwrap();
        let ill = doctor(one);
        says(&ill, 1, "warn", &["hosts", "one was last seen"]);
    }
    site.database.kill();
    says(&doctor(&site.hosts[0]), 1, "fail", &["database", "database.url"]);
}

#[test]
fn the_doctor_tells_two_hosts_of_a_name_from_one_that_was_killed() {
    let site = Site::new(Queue::Database);
    let [one, two] = &site.hosts;
    let _api = one.api("api.log");
    one.worker(&[]).kill();
    let _first = one.worker(&[]);
    let well = doctor(one);
    says(&well, 0, "ok", &["hosts", "one: 0 of 4 slots"]);
    assert_eq!(well.stdout.matches(" one: 0 of 4 slots").count(), 1, "{}", well.stdout);
    let _second = two.worker(&["--name", "one"]);
    machine::eventually("two of a name are found", || {
        doctor(one).stdout.contains("two that work are called one")
    });
}

#[test]
fn the_doctor_asks_the_broker() {
    let site = Site::new(Queue::RabbitMq);
    let [one, _] = &site.hosts;
    let api = one.api("api.log");
    let worker = one.worker(&[]);
    site.import_script("works", "true");
    api.ok(&["create", "--name", "works", "works"]);
    api.ok(&["send", "--wait", "works", "x"]);
    says(&doctor(one), 0, "ok", &["broker", "0 for class default"]);
    one.ok(&["config", "check", "--role", "worker", "--connect"]);
    worker.stop(Duration::from_secs(20));

    let nobody = "amqp://abax@127.0.0.1:1/%2f";
    let ran = one.abax(&["--log-level", "off", "admin", "--queue", nobody, "doctor"]);
    says(&ran, 1, "fail", &["broker", "queue.url"]);
    let arguments = ["--log-level", "off", "config", "check", "--connect"];
    let mut command = one.command(&arguments);
    command.env("ABAX_QUEUE_URL", nobody).env("ABAX_API_PUBLIC_URL", "https://abax.example.org");
    let output = command.output().unwrap();
    Ran::of(&arguments, output).fails(1, &["queue.url", "no connection"]);
}

#[test]
fn a_database_that_is_not_there_is_not_made() {
    let machine = Machine::new();
    machine.abax(&["admin", "hosts"]).fails(1, &["--root", "--database"]);
    assert!(!machine.root().join("service").exists());
}
