//! How executions are stopped: asked first, killed if that does not help. Needs root.

#![allow(clippy::unwrap_used, reason = "tests fail where something is missing")]

mod machine;
mod site;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use machine::{Served, eventually, processes_with};
use serde_json::{Value, json};
use site::{Queue, Site};

fn has_ended(execution: &Value) -> bool {
    execution["status"] != "SUBMITTED" && execution["status"] != "RUNNING"
}

/// Waits until the program is ready to be stopped: what it wrote is there.
fn has_begun(served: &Served<'_>, actor: &str, execution: &str) {
    eventually("the program has begun", || {
        served.ok(&["logs", actor, execution]).starts_with("begun")
    });
}

fn register(served: &Served<'_>, settings: &Value) -> String {
    let (status, answer) = served.http("POST", "/actors", &settings.to_string());
    assert_eq!(status, 201, "{answer:#}");
    answer["result"]["id"].as_str().unwrap().to_owned()
}

/// A script that does `what` when it gets the signal, and goes on if that does not end it.
fn traps(signal: &str, what: &str) -> String {
    format!("trap '{what}' {signal}; echo begun; while :; do sleep 0.05; done")
}

const TIDIES: &str = "echo tidying; sleep 1; echo tidied; exit 3";

/// Words in a command line that no other process has: so many seconds.
fn marker(queue: Queue) -> String {
    format!("{}{}", 30_000_000 + std::process::id(), u8::from(queue == Queue::RabbitMq))
}

/// What an actor is called, what its program does when it is halted, and what is then said.
struct Case {
    actor: &'static str,
    code: i32,
    log: &'static str,
    reason: &'static str,
}

const CASES: [Case; 4] = [
    Case { actor: "tidies", code: 3, log: "begun\ntidying\ntidied", reason: "halted" },
    Case { actor: "by_its_own", code: 4, log: "begun\nby its own", reason: "halted" },
    Case {
        actor: "stubborn",
        code: 137,
        log: "begun\nno",
        reason: "halted and killed; it had not ended 4 s after it was asked by SIGTERM",
    },
    Case {
        actor: "deaf",
        code: 137,
        log: "begun",
        reason: "halted and killed; its program does not catch SIGTERM",
    },
];

fn what_is_halted_is_asked_first(queue: Queue) {
    // Longer than a lease: those are renewed meanwhile.
    let site = Site::with_settings(queue, "", "stop_grace_seconds = 4");
    let marker = marker(queue);
    site.import_script("tidies", &traps("TERM", TIDIES));
    site.import_script("stubborn", &traps("TERM", "echo no"));
    site.import_script("deaf", &format!("sleep {marker} & echo begun; sleep {marker}"));
    let script = traps("USR1", "echo by its own; exit 4");
    let command = serde_json::to_string(&["/bin/sh", "-c", &script]).unwrap();
    for host in &site.hosts {
        let changes = [format!("CMD {command}"), "STOPSIGNAL SIGUSR1".to_owned()];
        host.import_busybox("by_its_own", &changes.each_ref().map(String::as_str));
    }
    let [one, two] = &site.hosts;
    let api = one.api("api.log");
    let workers = [one.worker(&[]), two.worker(&[])];
    let mut running = Vec::new();
    for case in &CASES {
        api.ok(&["create", "--name", case.actor, case.actor]);
        for _ in 0..2 {
            running.push((case, api.ok(&["send", case.actor, "x"])));
        }
    }
    for (case, execution) in &running {
        has_begun(&api, case.actor, execution);
    }
    for case in &CASES {
        let of_case = running.iter().filter(|(of, _)| of.actor == case.actor);
        let ids: Vec<&str> = of_case.map(|(_, execution)| execution.as_str()).collect();
        assert_eq!(api.ok(&["halt", case.actor, ids[0], ids[1]]), ids.join("\n"));
    }
    for (case, execution) in &running {
        let ended = api.wait_for(case.actor, execution, has_ended);
        assert_eq!(
            (&ended["status"], &ended["outcome"], &ended["exit_code"], &ended["reason"]),
            (&json!("COMPLETE"), &json!("cancelled"), &json!(case.code), &json!(case.reason)),
            "{ended:#}"
        );
        assert_eq!(ended["attempt"], 1, "{ended:#}");
        assert_eq!(ended["final_state"]["Error"], case.reason, "{ended:#}");
        assert_eq!(api.ok(&["logs", case.actor, execution]), case.log, "{ended:#}");
    }
    assert_eq!(processes_with(&marker), Vec::<String>::new());
    for worker in workers {
        worker.stop(Duration::from_secs(20));
    }
    one.assert_clean();
    two.assert_clean();
}

#[test]
fn what_is_halted_is_asked_first_with_the_database_as_queue() {
    what_is_halted_is_asked_first(Queue::Database);
}

#[test]
fn what_is_halted_is_asked_first_with_rabbitmq() {
    what_is_halted_is_asked_first(Queue::RabbitMq);
}

fn time_limit_and_deletion_ask_first_and_who_waits_is_answered(queue: Queue) {
    let shared = tempfile::tempdir().unwrap();
    std::fs::set_permissions(shared.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let settings = format!("mounts = [\"{}:/shared:rw\"]", shared.path().display());
    let site = Site::with_settings(queue, "", &settings);
    site.import_script("tidies", &traps("TERM", TIDIES));
    site.import_script("tells", &traps("TERM", "sleep 0.5; echo asked >/shared/asked; exit 0"));
    let [one, two] = &site.hosts;
    let (api, worker) = (one.api("api.log"), two.worker(&[]));

    register(&api, &json!({ "image": "tidies", "name": "limited", "maxRunTime": 1 }));
    let execution = api.ok(&["send", "limited", "x"]);
    let ended = api.wait_for("limited", &execution, has_ended);
    assert_eq!(
        (&ended["status"], &ended["outcome"], &ended["exit_code"], &ended["reason"]),
        (
            &json!("COMPLETE"),
            &json!("timed_out"),
            &json!(3),
            &json!("stopped: ran longer than the limit of 1 s")
        ),
        "{ended:#}"
    );
    assert_eq!(api.ok(&["logs", "limited", &execution]), "begun\ntidying\ntidied");

    // Whoever waits for the end hears of it, with all that was written until then.
    let waited = register(&api, &json!({ "image": "tidies", "name": "waited" }));
    thread::scope(|scope| {
        let answer = scope.spawn(|| {
            let path = format!("/actors/v2/{waited}/messages?_abaco_synchronous=true&message=x");
            let token = one.token.as_ref().unwrap();
            api.raw(&format!(
                "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
                 Content-Length: 0\r\nConnection: close\r\n\r\n"
            ))
        });
        let executions = || api.json(&["executions", "waited"])["executions"].clone();
        eventually("it is accepted", || executions()[0]["id"].is_string());
        let execution = executions()[0]["id"].as_str().unwrap().to_owned();
        has_begun(&api, "waited", &execution);
        api.ok(&["halt", "waited", &execution]);
        let answer = answer.join().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.ends_with("begun\ntidying\ntidied\n"), "{answer}");
    });

    register(&api, &json!({ "image": "tells", "name": "deleted" }));
    let execution = api.ok(&["send", "deleted", "x"]);
    has_begun(&api, "deleted", &execution);
    api.ok(&["rm", "deleted"]);
    let said = std::fs::read_to_string(Path::new(shared.path()).join("asked")).unwrap();
    assert_eq!(said, "asked\n");
    assert_eq!(api.actor(&["show", "deleted"]).code, Some(1));
    worker.stop(Duration::from_secs(20));
    one.assert_clean();
    two.assert_clean();
}

#[test]
fn time_limit_and_deletion_ask_first_and_who_waits_is_answered_with_the_database_as_queue() {
    time_limit_and_deletion_ask_first_and_who_waits_is_answered(Queue::Database);
}

#[test]
fn time_limit_and_deletion_ask_first_and_who_waits_is_answered_with_rabbitmq() {
    time_limit_and_deletion_ask_first_and_who_waits_is_answered(Queue::RabbitMq);
}
