//! What becomes of executions, whatever happens to them: how they end, what they
//! are given, and what they leave. Needs root.

mod machine;

use std::io::BufRead as _;
use std::time::{Duration, Instant};

use abax_actors::{Clock, Config, Service};
use machine::{Machine, eventually, processes_with};
use serde_json::Value;

/// Words in a command line that no other process has: so many seconds.
fn marker(number: u32) -> String {
    format!("{}{number}", 10_000_000 + std::process::id())
}

/// A script with processes of every kind: a child, one of another session, one
/// that ignores what can be ignored.
fn many_processes(marker: &str) -> String {
    format!(
        "sleep {marker} & setsid sleep {marker} & \
         (trap '' TERM INT HUP; sleep {marker}; sleep {marker}) & echo begun; sleep {marker}"
    )
}

fn has_ended(execution: &Value) -> bool {
    execution["status"] != "SUBMITTED" && execution["status"] != "RUNNING"
}

fn has_started(execution: &Value) -> bool {
    execution["phases"]["started"].is_string()
}

#[track_caller]
fn assert_end(execution: &Value, status: &str, outcome: &str, words: &[&str]) {
    assert_eq!(execution["status"], status, "{execution:#}");
    assert_eq!(execution["outcome"], outcome, "{execution:#}");
    let reason = execution["reason"].as_str().unwrap_or_default();
    assert!(words.iter().all(|word| reason.contains(word)), "{words:?}: {execution:#}");
}

#[test]
fn the_time_limit_ends_every_process() {
    let machine = Machine::with_settings("", "time_limit_seconds = 2");
    let marker = marker(1);
    machine.import_script("many", &many_processes(&marker));
    machine.import_script("quick", "echo done");
    let served = machine.serve();
    for actor in ["many", "quick"] {
        served.ok(&["create", "--name", actor, actor]);
    }
    let execution = served.ok(&["send", "many", "x"]);
    served.wait_for("many", &execution, has_started);
    assert!(processes_with(&marker).len() >= 4, "{:?}", processes_with(&marker));
    let ended = served.wait_for("many", &execution, has_ended);
    assert_end(&ended, "COMPLETE", "timed_out", &["limit of 2 s"]);
    assert_eq!(processes_with(&marker), Vec::<String>::new());
    assert_eq!(served.ok(&["logs", "many", &execution]), "begun");
    let execution = served.ok(&["send", "quick", "x"]);
    let ended = served.wait_for("quick", &execution, has_ended);
    assert_end(&ended, "COMPLETE", "succeeded", &[]);
    served.stop(Duration::from_secs(20));
    machine.assert_clean();
}

#[test]
fn a_halt_ends_every_process_of_what_runs_and_what_waits_never_runs() {
    let machine = Machine::new();
    let marker = marker(2);
    machine.import_script("many", &many_processes(&marker));
    let served = machine.serve();
    served.ok(&["create", "--name", "many", "--max-workers", "1", "many"]);
    let running = served.ok(&["send", "many", "x"]);
    let waiting = served.ok(&["send", "many", "x"]);
    served.wait_for("many", &running, has_started);
    assert!(processes_with(&marker).len() >= 4, "{:?}", processes_with(&marker));

    assert_eq!(served.halt("many", &waiting).0, 200);
    let ended = served.wait_for("many", &waiting, |_| true);
    assert_eq!(ended["outcome"], "cancelled", "it has ended when the answer comes: {ended:#}");
    let asked = Instant::now();
    assert_eq!(served.halt("many", &running).0, 200);
    let ended = served.wait_for("many", &running, has_ended);
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert_end(&ended, "COMPLETE", "cancelled", &["halted"]);
    assert_eq!(processes_with(&marker), Vec::<String>::new());
    let (status, answer) = served.halt("many", &running);
    assert_eq!(status, 400, "nothing is left to halt: {answer}");
    let ended = served.wait_for("many", &waiting, |_| true);
    assert_eq!(ended["phases"]["started"], Value::Null, "{ended:#}");
    served.stop(Duration::from_secs(20));
    machine.assert_clean();
}

#[test]
fn memory_and_exit_code_are_told() {
    let machine = Machine::new();
    machine.import_script("eats", "echo start; x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done");
    machine.import_script("fails", "echo oops >&2; exit 41");
    let served = machine.serve();
    served.ok(&["create", "--name", "eats", "--mem-limit", "24m", "eats"]);
    served.ok(&["create", "--name", "fails", "fails"]);
    for (actor, outcome, code, words) in [
        ("eats", "out_of_memory", 137, &["killed: used", "of 24 MiB", "memLimit"][..]),
        ("fails", "failed", 41, &["exit code 41"][..]),
    ] {
        let execution = served.ok(&["send", actor, "x"]);
        let ended = served.wait_for(actor, &execution, has_ended);
        assert_end(&ended, "COMPLETE", outcome, words);
        assert_eq!(ended["exit_code"], code, "{ended:#}");
        assert_eq!(ended["final_state"]["ExitCode"], code, "{ended:#}");
        assert_eq!(ended["final_state"]["OOMKilled"], outcome == "out_of_memory", "{ended:#}");
        assert_eq!(ended["final_state"]["Running"], false, "{ended:#}");
        for moment in ["StartedAt", "FinishedAt"] {
            let moment = ended["final_state"][moment].as_str().unwrap_or_default();
            assert!(moment.len() == 24 && moment.ends_with('Z'), "{ended:#}");
        }
    }
    served.stop(Duration::from_secs(20));
    machine.assert_clean();
}

#[test]
fn an_image_that_does_not_exist_is_named_wherever_somebody_looks() {
    let registry = abax_testbed::Registry::start().unwrap();
    let missing = format!("{}/no/image:v9", registry.address());
    let gone = format!("{}/was/here:v1", registry.address());
    let machine = Machine::new();
    machine.import_script(&gone, "echo here");
    let served = machine.serve();
    served.ok(&["create", "--name", "missing", &missing]);
    served.ok(&["create", "--name", "gone", &gone]);

    eventually("the actor is in error", || served.json(&["show", "missing"])["status"] == "ERROR");
    let actor = served.json(&["show", "missing"]);
    assert!(actor["status_message"].as_str().unwrap().contains("/no/image"), "{actor:#}");

    eventually("the actor is ready", || served.json(&["show", "gone"])["status"] == "READY");
    machine.ok(&["rmi", &gone]);
    // As long as its parts are there, it comes back by its digest.
    for blob in std::fs::read_dir(machine.root().join("images/blobs/sha256")).unwrap() {
        std::fs::remove_file(blob.unwrap().path()).unwrap();
    }
    let execution = served.ok(&["send", "gone", "x"]);
    let ended = served.wait_for("gone", &execution, has_ended);
    assert_end(&ended, "ERROR", "could_not_start", &["/was/here"]);
    served.stop(Duration::from_secs(20));
    machine.assert_clean();
}

#[test]
fn what_waits_for_its_image_can_be_halted_and_does_not_hold_up_a_stop() {
    // Connections are made, and never answered.
    let registry = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let image = format!("{}/no/image:v1", registry.local_addr().unwrap());
    let machine = Machine::new();
    let served = machine.serve_with(&["--drain", "1"]);
    served.ok(&["create", "--name", "waits", &image]);
    let execution = served.ok(&["send", "waits", "x"]);
    served.wait_for("waits", &execution, |e| e["status"] == "RUNNING");
    let asked = Instant::now();
    assert_eq!(served.halt("waits", &execution).0, 200);
    let ended = served.wait_for("waits", &execution, has_ended);
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert_end(&ended, "COMPLETE", "cancelled", &["halted before"]);

    let execution = served.ok(&["send", "waits", "x"]);
    served.wait_for("waits", &execution, |e| e["status"] == "RUNNING");
    served.stop(Duration::from_secs(6));
    let served = machine.serve_with(&["--drain", "1"]);
    let again = served.wait_for("waits", &execution, |e| e["status"] == "RUNNING");
    assert_eq!(again["attempt"], 1, "it was given back: {again:#}");
}

#[test]
fn a_log_beyond_the_limit_is_cut_and_blocks_nobody() {
    let machine = Machine::with_settings("", "log_limit_bytes = 1000");
    machine.import_script(
        "talks",
        "yes abcdefghi | head -c 5000000; yes ABCDEFGHI | head -c 5000000 >&2; exit 7",
    );
    machine.import_script("fits", "yes abcdefghi | head -c 1000");
    let served = machine.serve();
    served.ok(&["create", "--name", "talks", "talks"]);
    served.ok(&["create", "--name", "fits", "fits"]);
    let execution = served.ok(&["send", "talks", "x"]);
    let ended = served.wait_for("talks", &execution, has_ended);
    assert_end(&ended, "COMPLETE", "failed", &["exit code 7"]);
    let log = served.ok(&["logs", "talks", &execution]);
    let (kept, mark) = log.split_at(1000);
    assert_eq!(kept, "abcdefghi\n".repeat(100), "the head is kept");
    assert!(mark.contains("LOG LIMIT EXCEEDED") && mark.contains("TRUNCATED"), "{mark}");
    assert!(mark.len() < 100, "{mark}");

    let execution = served.ok(&["send", "fits", "x"]);
    served.wait_for("fits", &execution, has_ended);
    let log = served.ok(&["logs", "fits", &execution]);
    assert_eq!(log, "abcdefghi\n".repeat(100).trim_end(), "what fits is not marked");
}

#[test]
fn a_stateful_actor_runs_in_order_and_sees_the_state_of_the_last() {
    const MESSAGES: usize = 5;
    let machine = Machine::new();
    machine.import_script(
        "counts",
        "echo \"state $_abaco_actor_state\"; sleep 0.2; \
         wget -q -O /dev/null --header \"Authorization: Bearer $_abaco_access_token\" \
           --header 'Content-Type: application/json' \
           --post-data \"{\\\"last\\\": \\\"$MSG\\\", \\\"ok\\\": true}\" \
           $_abaco_api_server/v3/actors/$_abaco_actor_id/state",
    );
    let served = machine.serve_with(&["--slots", "4"]);
    let id = served.ok(&["create", "--name", "counts", "--stateful", "--with-token", "counts"]);
    let sent: Vec<String> =
        (0..MESSAGES).map(|n| served.ok(&["send", "counts", &format!("n{n}")])).collect();
    let mut before = "{}".to_owned();
    let mut exited = String::new();
    for (n, execution) in sent.iter().enumerate() {
        let ended = served.wait_for("counts", execution, has_ended);
        assert_end(&ended, "COMPLETE", "succeeded", &[]);
        assert_eq!(served.ok(&["logs", "counts", execution]), format!("state {before}"));
        before = format!("{{'last': 'n{n}', 'ok': True}}");
        let claimed = ended["phases"]["claimed"].as_str().unwrap().to_owned();
        assert!(claimed >= exited, "one at a time: {claimed} after {exited}");
        exited = ended["phases"]["exited"].as_str().unwrap().to_owned();
    }
    let (status, state) = served.http("GET", &format!("/v3/actors/{id}/state"), "");
    assert_eq!((status, &state["result"]["state"]["last"]), (200, &Value::from("n4")), "{state}");
    served.stop(Duration::from_secs(20));
    machine.assert_clean();
}

#[test]
fn an_execution_has_the_environment_of_the_contract() {
    let machine = Machine::new();
    // Not by a shell, which drops names with a hyphen.
    machine.import_busybox("env", &["CMD [\"env\"]"]);
    let served = machine.serve();
    let id = served.ok(&[
        "create",
        "--name",
        "env",
        "-e",
        "COLOUR=blue",
        "-e",
        "SHAPE=round",
        "-e",
        "_abaco_username=mallory",
        "env",
    ]);
    let message = r#"{"z": [true, null, 1.0, 123456789012345678901234567890], "a": "it's"}"#;
    let path = format!("/v3/actors/{id}/messages?SHAPE=square&SIZE=9");
    let (status, sent) = served.http("POST", &path, message);
    assert_eq!(status, 200, "{sent}");
    let execution = sent["result"]["execution_id"].as_str().unwrap().to_owned();
    let ended = served.wait_for("env", &execution, has_ended);
    assert_end(&ended, "COMPLETE", "succeeded", &[]);
    let log = served.ok(&["logs", "env", &execution]);
    let worker = ended["worker_id"].as_str().unwrap();
    for line in [
        r#"MSG={'z': [True, None, 1.0, 123456789012345678901234567890], 'a': "it's"}"#,
        "_abaco_Content_Type=application/json",
        "_abaco_Content-Type=application/json",
        &format!("_abaco_execution_id={execution}"),
        "_abaco_attempt=1",
        "_abaco_username=admin",
        "_abaco_actor_revision=1",
        "_abaco_access_token=",
        &format!("_abaco_actor_id={id}"),
        &format!("_abaco_actor_dbid=ABAX_{id}"),
        "_abaco_actor_name=env",
        "_abaco_actor_state={}",
        &format!("_abaco_worker_id={worker}"),
        "_abaco_container_repo=env",
        "_actor_configs={}",
        "COLOUR=blue",
        "SHAPE=square",
        "SIZE=9",
    ] {
        assert_eq!(log.lines().filter(|l| *l == line).count(), 1, "{line} in {log}");
    }
    for name in ["PATH=/", "_abaco_api_server=http://"] {
        assert!(log.lines().any(|l| l.starts_with(name)), "{name} in {log}");
    }
    let json = log.lines().find_map(|l| l.strip_prefix("MSG_JSON=")).unwrap();
    assert_eq!(
        json.replace(' ', ""),
        message.replace(' ', ""),
        "the same document, with its order and its digits"
    );
    for (n, name) in log.lines().filter_map(|l| l.split_once('=')).map(|(n, _)| n).enumerate() {
        let first = log.lines().position(|l| l.split_once('=').is_some_and(|(n, _)| n == name));
        assert_eq!(first, Some(n), "{name} stands there twice: {log}");
    }
}

#[test]
fn a_stop_lets_what_runs_finish_and_keeps_what_waits() {
    let machine = Machine::new();
    machine.import_script("works", "echo begun $MSG; sleep 2; echo ended $MSG");
    let served = machine.serve_with(&["--slots", "1", "--drain", "30"]);
    served.ok(&["create", "--name", "works", "works"]);
    let sent: Vec<String> = (0..3).map(|n| served.ok(&["send", "works", &n.to_string()])).collect();
    served.wait_for("works", &sent[0], has_started);
    served.stop(Duration::from_secs(20));
    machine.assert_clean();

    let served = machine.serve();
    let first = served.wait_for("works", &sent[0], |_| true);
    assert_end(&first, "COMPLETE", "succeeded", &[]);
    for (n, execution) in sent.iter().enumerate() {
        let ended = served.wait_for("works", execution, has_ended);
        assert_end(&ended, "COMPLETE", "succeeded", &[]);
        assert_eq!(ended["attempt"], 1, "{ended:#}");
        let log = served.ok(&["logs", "works", execution]);
        assert_eq!(log, format!("begun {n}\nended {n}"));
    }
    served.stop(Duration::from_secs(20));
    machine.assert_clean();
}

/// Invariants 2 and 3: another process of this host takes its executions away, as
/// it does when the lease has ended; the worker that had them is alive and well.
#[test]
fn a_worker_that_lost_a_lease_kills_the_container_and_its_result_is_dropped() {
    let machine = Machine::new();
    let marker = marker(3);
    machine.import_script(
        "works",
        &format!("echo attempt $_abaco_attempt; test $_abaco_attempt != 1 || sleep {marker}"),
    );
    let served = machine.serve_with(&["--slots", "1"]);
    served.ok(&["create", "--name", "works", "works"]);
    let execution = served.ok(&["send", "works", "x"]);
    served.wait_for("works", &execution, has_started);
    eventually("the first attempt runs", || !processes_with(&marker).is_empty());

    let mut follows = vec!["actor", "--server", &served.url];
    follows.extend(["logs", "works", &execution, "-f"]);
    let mut follows = machine.command(&follows);
    let mut follows = follows.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut followed = std::io::BufReader::new(follows.stdout.take().unwrap()).lines();
    assert_eq!(followed.next().unwrap().unwrap(), "attempt 1");

    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let swept = tokio.block_on(async {
        let database = machine.root().join("service/abax.db");
        let other = Service::open(Config::sqlite(database), Clock::system()).await.unwrap();
        let hosts = other.hosts().await.unwrap();
        other.recover(&[hosts[0].id.clone()]).await.unwrap()
    });
    assert_eq!(swept.retried, 1, "{swept:?}");

    let ended = served.wait_for("works", &execution, has_ended);
    assert_end(&ended, "COMPLETE", "succeeded", &[]);
    assert_eq!(ended["attempt"], 2, "{ended:#}");
    assert_eq!(processes_with(&marker), Vec::<String>::new(), "with one slot, it ended first");
    assert_eq!(served.ok(&["logs", "works", &execution]), "attempt 2");
    let followed: Vec<String> = followed.map(Result::unwrap).collect();
    assert_eq!(followed, ["attempt 2"], "who follows sees it begin anew");
    assert!(follows.wait().unwrap().success());
    served.stop(Duration::from_secs(20));
    machine.assert_clean();
}
