//! `abax serve` from its first start to its end, and after a crash. Needs root.

mod machine;

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use machine::Machine;

#[test]
fn every_verb_has_help_with_an_example() {
    let machine = Machine::new();
    let verbs = [
        "run", "ps", "rm", "pull", "images", "build", "import", "tag", "rmi", "serve", "token",
        "actor", "config", "api", "worker", "migrate", "admin", "version",
    ];
    let of_actors = [
        "create",
        "list",
        "show",
        "update",
        "rm",
        "send",
        "executions",
        "halt",
        "logs",
        "results",
        "messages",
        "state",
        "permissions",
        "nonces",
        "aliases",
        "configs",
        "workers",
        "cron",
        "events",
        "search",
        "utilization",
        "init",
        "deploy",
        "version",
    ];
    let below = [
        ("nonces", &["list", "create", "rm"][..]),
        ("aliases", &["list", "create", "update", "rm", "permissions"][..]),
        ("configs", &["list", "create", "update", "rm", "permissions"][..]),
    ];
    let all = verbs
        .iter()
        .map(|verb| vec![*verb])
        .chain([vec!["config", "check"]])
        .chain(["hosts", "cordon", "uncordon", "doctor"].map(|verb| vec!["admin", verb]))
        .chain(of_actors.iter().map(|verb| vec!["actor", verb]))
        .chain(below.iter().flat_map(|(of, verbs)| verbs.iter().map(|v| vec!["actor", of, v])));
    for mut arguments in all {
        arguments.push("--help");
        let help = machine.ok(&arguments);
        assert!(help.contains("Example"), "{arguments:?}: {help}");
    }
    let all = machine.ok(&["--help"]);
    assert!(verbs.iter().all(|verb| all.contains(verb)), "{all}");
    assert!(machine.ok(&["version"]).starts_with("abax "));
}

#[test]
fn a_mistyped_verb_or_setting_is_a_usage_error() {
    let machine = Machine::new();
    let ran = machine.abax(&["imagess"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("images"), "{}", ran.stderr);
    std::fs::write(machine.path("abax.toml"), "rooot = \"/x\"\n").unwrap();
    let ran = machine.abax(&["images"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("rooot"), "{}", ran.stderr);
}

#[test]
fn the_first_start_makes_secrets_for_the_owner_only() {
    let machine = Machine::new();
    machine.abax(&["token"]).fails(1, &["signing key", "abax serve"]);
    let served = machine.serve();
    let data = machine.root().join("service");
    for (path, mode) in [
        (data.clone(), 0o700),
        (data.join("signing.key"), 0o600),
        (data.join("admin.token"), 0o600),
    ] {
        let found = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{path:?}");
    }
    let token = machine.ok(&["token", "--user", "ada", "--role", "user", "--lifetime", "1h"]);
    assert_eq!(token.lines().count(), 1);
    served.ok(&["--token", &token, "list"]);
    let key = std::fs::read(data.join("signing.key")).unwrap();
    served.stop(Duration::from_secs(20));
    let served = machine.serve();
    assert_eq!(std::fs::read(data.join("signing.key")).unwrap(), key);
    served.ok(&["--token", &token, "list"]);
}

#[test]
fn a_taken_port_and_a_taken_directory_are_said_in_one_line() {
    let machine = Machine::new();
    let served = machine.serve();
    let address = format!("127.0.0.1:{}", served.port());
    let other = machine.path("other").display().to_string();
    machine
        .abax(&["--log-level", "error", "serve", "--listen", &address, "--data", &other])
        .fails(1, &[&address, "--listen"]);
    assert!(!machine.path("other").exists(), "a start that fails changes nothing");
    let pid = served.pid().to_string();
    machine.abax(&["--log-level", "error", "serve"]).fails(1, &[&pid, "--data"]);
    machine.abax(&["--log-level", "error", "serve", "--slots", "0"]).fails(1, &[]);
}

#[test]
fn a_stop_gives_back_what_does_not_end_in_time() {
    let machine = Machine::new();
    machine.import_script("sleeps", "echo attempt $_abaco_attempt; sleep 1000");
    let served = machine.serve_with(&["--drain", "1"]);
    served.ok(&["create", "--name", "sleeps", "sleeps"]);
    let execution = served.ok(&["send", "sleeps", "x"]);
    served.wait_for("sleeps", &execution, |e| e["phases"]["started"].is_string());
    served.stop(Duration::from_secs(20));
    machine.assert_clean();
    let served = machine.serve();
    let state = served.wait_for("sleeps", &execution, |e| e["status"] == "RUNNING");
    assert_eq!(state["attempt"], 1, "being given back costs no attempt: {state:#}");
}

/// Invariants 1, 2, 3 and 7 of a killed service: nothing that was accepted is
/// lost, each execution ends once, and nothing is left behind.
#[test]
fn a_killed_service_loses_no_message_and_leaves_nothing() {
    const MESSAGES: usize = 50;
    let machine = Machine::new();
    machine.import_script("works", "echo got $MSG; sleep 0.3");
    let served = machine.serve_with(&["--slots", "4"]);
    let id = served.ok(&["create", "--name", "works", "--max-workers", "8", "works"]);
    let token = machine.ok(&["token"]);
    let mut accepted = Vec::new();
    for n in 0..MESSAGES {
        let body = format!("{{\"message\": \"number {n}\"}}");
        let answer = served.raw(&format!(
            "POST /v3/actors/{id}/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        ));
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        accepted.push(body["result"]["execution_id"].as_str().unwrap().to_owned());
    }
    // In the middle: some have ended, some run, some wait.
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let summary = served.json(&["executions", "works"]);
        let count = |status: &str| {
            summary["executions"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|e| e["status"] == status)
                .count()
        };
        machine.containers();
        if count("COMPLETE") >= 5 && count("RUNNING") >= 1 && count("SUBMITTED") >= 5 {
            break;
        }
        assert!(Instant::now() < deadline, "{summary:#}");
    }
    served.kill();

    // As the next start finds it: what was seen is looked for at the end.
    assert!(!machine.containers().is_empty(), "it was killed while containers ran");
    let served = machine.serve_with(&["--slots", "4"]);
    let deadline = Instant::now() + Duration::from_secs(120);
    let summary = loop {
        let summary = served.json(&["executions", "works"]);
        let list = summary["executions"].as_array().unwrap();
        if list.iter().all(|e| e["status"] == "COMPLETE") {
            break summary;
        }
        assert!(Instant::now() < deadline, "{summary:#}\n{}", served.log());
        std::thread::sleep(Duration::from_millis(200));
    };
    assert_eq!(summary["executions"].as_array().unwrap().len(), MESSAGES);
    for (n, execution) in accepted.iter().enumerate() {
        let state = served.json(&["executions", "works", execution]);
        assert_eq!(state["outcome"], "succeeded", "{state:#}");
        // One attempt's output, not two mixed.
        assert_eq!(
            served.ok(&["logs", "works", execution]),
            format!("got number {n}"),
            "{state:#}"
        );
    }
    served.stop(Duration::from_secs(20));
    machine.assert_clean();
}

#[test]
fn a_full_disk_is_said_in_one_line_and_changes_nothing() {
    let machine = Machine::with_busybox();
    let small = machine.path("small");
    std::fs::create_dir(&small).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=300k", "tmpfs"])
        .arg(&small)
        .status()
        .unwrap();
    assert!(mounted.success(), "mounting a tmpfs needs root");
    let _unmount = Unmount(small.clone());
    let tar = machine.path("rootfs.tar");
    std::fs::write(&tar, abax_testbed::busybox_rootfs_tar().unwrap()).unwrap();
    let (root, tar) = (small.display().to_string(), tar.display().to_string());
    let ran = machine.abax(&["--root", &root, "import", &tar, "tool"]);
    ran.fails(1, &["No space left"]);
    assert_eq!(machine.ok(&["--root", &root, "images", "-q"]), "");
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
