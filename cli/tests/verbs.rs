//! What `abax actor` does beyond sending messages, against a service. Needs root.

mod machine;

use std::time::Duration;

use machine::{Machine, Served, eventually};
use serde_json::json;

const ECHO: &str = "echo \"Contents of MSG: $MSG\"; env";

/// What the verb prints of `field`, for each row.
fn column(served: &Served<'_>, arguments: &[&str], field: &str) -> Vec<String> {
    let rows = served.json(arguments);
    let rows = rows.as_array().unwrap_or_else(|| panic!("{arguments:?}: {rows:#}"));
    rows.iter().map(|row| row[field].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn an_actor_is_shared_by_permissions_nonces_and_aliases() {
    let machine = Machine::new();
    machine.import_script("echo", ECHO);
    let served = machine.serve();
    let id = served.ok(&["create", "--name", "hello", "echo"]);

    assert_eq!(served.json(&["permissions", "hello"]), json!({"admin": "UPDATE"}));
    let table = served.ok(&["share", "hello", "-u", "alice", "-p", "execute"]);
    assert!(table.contains("alice") && table.contains("EXECUTE"), "{table}");
    served.actor(&["permissions", "hello", "--user", "alice"]);
    assert_eq!(served.actor(&["permissions", "hello", "--user", "alice"]).code, Some(2));

    let nonce = served.ok(&["nonces", "create", "hello", "--max-uses", "2", "--level", "execute"]);
    let read = served.ok(&["nonces", "create", "hello", "-l", "READ", "-d", "to look"]);
    assert_eq!(column(&served, &["nonces", "ls", "hello"], "id").len(), 2);
    assert!(served.ok(&["nonces", "list", "hello", &read]).contains("to look"));
    // By nobody's token: that of the machine would do everything.
    let execution = served.ok(&["send", "-Z", &nonce, &id, "by a nonce"]);
    served.wait_for("hello", &execution, |e| e["status"] == "COMPLETE");
    assert!(served.ok(&["logs", "hello", &execution]).starts_with("Contents of MSG: by a nonce"));
    let log = served.ok(&["logs", "hello", &execution]);
    assert!(!log.contains(&nonce), "{log}");
    served.actor(&["send", "-Z", &read, &id, "x"]).fails(1, &["level"]);
    served.ok(&["nonces", "rm", "hello", &nonce, &read]);
    assert_eq!(served.json(&["nonces", "list", "hello"]), json!([]));

    served.ok(&["aliases", "create", "hello", "greeter.v1"]);
    assert_eq!(served.ok(&["aliases", "list", "-q"]), "greeter.v1");
    assert_eq!(served.json(&["show", "greeter.v1"])["id"], id.as_str());
    let by_alias = served.ok(&["nonces", "create", "--alias", "greeter.v1"]);
    served.ok(&["send", "-Z", &by_alias, "greeter.v1", "through the alias"]);
    let other = served.ok(&["create", "--name", "other", "echo"]);
    served.ok(&["alias", "update", "greeter.v1", "other"]);
    assert_eq!(served.json(&["aliases", "list", "greeter.v1"])["actor_id"], other.as_str());
    served.ok(&["aliases", "share", "greeter.v1", "-u", "alice", "-p", "read"]);
    assert_eq!(
        served.json(&["aliases", "permissions", "greeter.v1"]),
        json!({"admin": "UPDATE", "alice": "READ"})
    );
    assert_eq!(served.ok(&["aliases", "rm", "greeter.v1"]), "greeter.v1");
    served.actor(&["aliases", "list", "greeter.v1"]).fails(1, &["greeter.v1"]);
}

#[test]
fn configs_reach_executions_and_secrets_nobody_else() {
    let machine = Machine::new();
    machine.import_script("echo", ECHO);
    std::fs::write(machine.path("key"), "open sesame\n").unwrap();
    let served = machine.serve();
    let id = served.ok(&["create", "--name", "hello", "echo"]);
    served.ok(&["configs", "create", "THRESHOLD", "0.7", "--actor", &id]);
    let key = machine.path("key");
    served.ok(&["configs", "create", "KEY", "--secret", "-f", key.to_str().unwrap(), "-a", &id]);
    let log = served.actor(&["send", "hello", "x", "--wait"]);
    for line in ["THRESHOLD=0.7\n", "KEY=open sesame\n"] {
        assert!(log.success().contains(line), "no {line} in {}", log.stdout);
    }
    let listed = served.ok(&["configs", "list"]);
    assert!(listed.contains("THRESHOLD") && listed.contains("0.7"), "{listed}");
    assert!(listed.contains("KEY") && !listed.contains("sesame"), "{listed}");

    served.ok(&["configs", "update", "THRESHOLD", "0.8"]);
    let changed = served.json(&["configs", "list", "THRESHOLD"]);
    assert_eq!((&changed["value"], &changed["actors"]), (&json!("0.8"), &json!(id)));
    // What is shown in its place does not become the secret.
    served.ok(&["configs", "update", "KEY", "--actor", &id]);
    let log = served.actor(&["send", "hello", "x", "--wait"]);
    assert!(log.success().contains("KEY=open sesame\n"), "{}", log.stdout);
    served.ok(&["configs", "rm", "KEY", "THRESHOLD"]);
    assert_eq!(served.json(&["configs", "list"]), json!([]));
}

#[test]
fn state_messages_and_executions_are_seen_and_changed() {
    let machine = Machine::new();
    machine.import_script("sleeps", "echo begun; sleep 1000");
    let served = machine.serve();
    served.ok(&["create", "--name", "counter", "-S", "sleeps"]);
    assert_eq!(served.ok(&["state", "counter"]), "{}");
    served.ok(&["state", "counter", "{\"count\": 1}"]);
    let shown = served.json(&["state", "counter"]);
    assert_eq!(shown["state"], json!({"count": 1}));
    let version = shown["version"].as_str().unwrap();
    served.ok(&["state", "counter", "{\"count\": 2}", "--if-version", version]);
    served.actor(&["state", "counter", "3", "--if-version", version]).fails(1, &["state"]);
    served.actor(&["state", "counter", "{"]).fails(2, &["not JSON"]);

    let first = served.ok(&["submit", "-m", "text", "counter"]);
    let second = served.ok(&["run", "-m", "{\"n\": 1}", "counter"]);
    served.wait_for("counter", &first, |e| e["phases"]["started"].is_string());
    assert_eq!(served.ok(&["messages", "counter"]), "1");
    served.ok(&["halt", "counter", &first]);
    served.wait_for("counter", &first, |e| e["status"] == "COMPLETE");
    served.wait_for("counter", &second, |e| e["phases"]["started"].is_string());
    served.ok(&["send", "counter", "x"]);
    assert_eq!(served.ok(&["mailbox", "-X", "counter"]), "Actor mailbox purged.");
    assert_eq!(served.ok(&["messages", "counter"]), "0");
    served.ok(&["halt", "counter", &second]);
}

#[test]
fn results_come_out_as_they_went_in() {
    let machine = Machine::new();
    machine.import_script("echo", ECHO);
    let served = machine.serve();
    served.ok(&["create", "--name", "hello", "echo"]);
    let ran = served.actor(&["send", "-x", "-m", "at once", "hello"]);
    assert!(ran.success().starts_with("Contents of MSG: at once\n"), "{}", ran.stdout);
    assert_eq!(served.ok(&["results", "hello"]), "");
    assert_eq!(served.json(&["results", "hello"]), json!([]));
    served.actor(&["results", "hello", "no-such"]).fails(1, &["no-such"]);
}

#[test]
fn workers_schedules_events_and_searches_are_shown() {
    let machine = Machine::new();
    machine.import_script("echo", ECHO);
    let served = machine.serve();
    let id = served.ok(&["create", "--name", "hello", "-S", "echo"]);
    eventually("it has a worker", || {
        served.json(&["workers", "hello"]).as_array().is_some_and(|all| !all.is_empty())
    });
    let worker = served.ok(&["workers", "-q", "hello"]);
    assert!(served.ok(&["workers", "hello", "-w", &worker]).contains(&worker));
    assert!(served.ok(&["workers", "hello", "-n", "2"]).contains("worker"));

    served.ok(&["cron", "hello", "2078-09-06 20 + 3 months"]);
    let cron = served.json(&["cron", "hello"]);
    assert_eq!(cron["cron_schedule"], "2078-09-06 20 + 3 months");
    assert_eq!(cron["cron_on"], true);
    served.ok(&["cron", "hello", "--off"]);
    let cron = served.json(&["cron", "hello"]);
    assert_eq!(cron["cron_schedule"], "2078-09-06 20 + 3 months", "it stays");
    assert_eq!(cron["cron_on"], false);
    served.actor(&["cron", "hello", "now + 1 flimflam"]).fails(1, &["cron_schedule"]);

    assert_eq!(served.json(&["events", "hello"]), json!([]));
    let execution = served.ok(&["send", "hello", "find me"]);
    served.wait_for("hello", &execution, |e| e["status"] == "COMPLETE");
    let found = served.ok(&["search", "executions", "status=COMPLETE", "-q"]);
    assert_eq!(found, execution);
    assert_eq!(served.ok(&["search", "actors", "image.like=ech", "-q"]), id);
    assert_eq!(served.ok(&["search", "actors", "image.like=nothing", "-q"]), "");
    let logs = served.ok(&["search", "logs", "--phrase", "find me"]);
    assert!(logs.contains(&execution) && logs.contains("Contents of MSG: find me"), "{logs}");
    served.actor(&["search", "actors", "image"]).fails(2, &["image"]);
    assert!(served.ok(&["utilization"]).contains("actors"));
    let version = served.ok(&["version"]);
    assert!(version.starts_with("cli: ") && version.contains("service: "), "{version}");
}

#[test]
fn a_project_is_made_deployed_and_deployed_again() {
    let machine = Machine::with_busybox();
    let served = machine.serve();
    let project = machine.path("counter");
    let within = |arguments: &[&str]| {
        let mut all = vec!["actor", "--server", &served.url];
        all.extend(arguments);
        let output = machine.command(&all).current_dir(&project).output().unwrap();
        machine::Ran::of(&all, output)
    };
    let directory = project.to_str().unwrap();
    served.ok(&["init", "-n", "Counter", "-l", "sh", "-d", "it's mine", "-B", directory]);
    served
        .actor(&["init", "-n", "Counter", "-l", "sh", "-B", directory])
        .fails(1, &["there already"]);
    std::fs::write(project.join("secrets.json"), "{\"COLOUR\": \"blue\"}").unwrap();
    within(&["deploy", "-p"]).success();
    let id = std::fs::read_to_string(project.join(".ACTOR_ID")).unwrap().trim().to_owned();
    let actor = served.json(&["show", &id]);
    assert_eq!(actor["name"], "Counter");
    assert_eq!(actor["description"], "it's mine");
    assert_eq!(actor["default_environment"], json!({"COLOUR": "blue"}));
    let ran = served.actor(&["send", "--wait", &id, "one"]);
    assert!(ran.success().starts_with("got: one\n"), "{}", ran.stdout);

    std::fs::write(project.join("reactor.sh"), "echo now: $MSG\n").unwrap();
    within(&["deploy", "-p", "-U"]).success();
    assert_eq!(served.json(&["show", &id])["revision"], 2);
    let ran = served.actor(&["send", "--wait", &id, "two"]);
    assert!(ran.success().starts_with("now: two\n"), "{}", ran.stdout);
    std::fs::remove_file(project.join(".ACTOR_ID")).unwrap();
    within(&["deploy", "-K", "-U"]).fails(1, &[".ACTOR_ID"]);
    served.stop(Duration::from_secs(20));
    machine.assert_clean();
}

#[test]
fn verbs_have_the_names_of_the_old_tool() {
    let machine = Machine::new();
    machine.import_script("echo", ECHO);
    std::fs::write(machine.path("env.json"), "{\"A\": \"1\", \"B\": \"2\"}").unwrap();
    let environment = machine.path("env.json");
    let environment = environment.to_str().unwrap();
    let served = machine.serve();
    let id = served.ok(&[
        "register",
        "-n",
        "hello",
        "-s",
        "-f",
        "-A",
        "-e",
        "B=3",
        "-E",
        environment,
        "-H",
        "[\"x\", \"y\"]",
        "echo",
    ]);
    let actor = served.json(&["ls", "hello"]);
    assert_eq!(actor["default_environment"], json!({"A": "1", "B": "3"}));
    assert_eq!(actor["hints"], json!(["x", "y"]));
    assert_eq!(actor["token"], false);
    for list in ["list", "ls", "actors", "images"] {
        assert_eq!(served.ok(&[list, "-q"]), id, "{list}");
    }
    served.ok(&["change", "hello", "echo", "-d", "again"]);
    let changed = served.json(&["show", "hello"]);
    assert_eq!((&changed["description"], &changed["token"]), (&json!("again"), &json!(false)));
    let ran = served.actor(&["submit", "-x", "-q", "C=4&B=5", "-m", "[1, null]", "hello"]);
    let log = ran.success();
    for line in ["Contents of MSG: [1, None]\n", "A=1\n", "B=5\n", "C=4\n"] {
        assert!(log.contains(line), "no {line} in {log}");
    }
    served.ok(&["alias", "make", "hello", "other.name"]);
    assert_eq!(served.ok(&["alias", "remove", "other.name"]), "other.name");
    served.ok(&["share", "hello"]);
    served.ok(&["worker", "hello"]);
    assert_eq!(served.ok(&["remove", "hello"]), id);
}
