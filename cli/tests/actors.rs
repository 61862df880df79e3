//! The actor verbs against a service of their own. Needs root.

mod machine;

use std::process::Stdio;
use std::time::Duration;

use machine::{Machine, Ran, eventually};

const ECHO: &str = "echo \"Contents of MSG: $MSG\"; env";

#[test]
fn an_actor_is_made_called_and_removed() {
    let machine = Machine::new();
    machine.import_script("echo", ECHO);
    let served = machine.serve();
    let id = served.ok(&[
        "create",
        "--name",
        "hello",
        "-d",
        "says it back",
        "-e",
        "COLOUR=blue",
        "echo",
    ]);
    let list = served.ok(&["list"]);
    assert!(list.starts_with("ID") && list.contains(&id) && list.contains("hello"), "{list}");
    assert_eq!(served.ok(&["list", "-q"]), id);
    assert!(served.ok(&["show", "hello"]).contains("says it back"));

    let ran = served.actor(&["send", "hello", "good morning", "--wait"]);
    let log = ran.success();
    assert!(log.starts_with("Contents of MSG: good morning\n"), "{log}");
    for line in ["COLOUR=blue", "_abaco_username=admin", "_abaco_actor_name=hello"] {
        assert!(log.contains(line), "no {line} in {log}");
    }
    for word in ["succeeded", "accepted", "claimed", "started", "exited", "stored"] {
        assert!(ran.stderr.contains(word), "no {word} in {}", ran.stderr);
    }

    let execution = served.ok(&[
        "send",
        "hello",
        "--json",
        "{\"a\": [true, null], \"n\": 123456789012345678901}",
    ]);
    let ended = served.wait_for("hello", &execution, |e| e["status"] == "COMPLETE");
    assert_eq!(ended["outcome"], "succeeded");
    assert_eq!(ended["exit_code"], 0);
    let log = served.ok(&["logs", "hello", &execution]);
    assert!(
        log.starts_with("Contents of MSG: {'a': [True, None], 'n': 123456789012345678901}\n"),
        "{log}"
    );
    assert_eq!(served.ok(&["executions", "hello", "-q"]).lines().count(), 2);

    served.ok(&["update", "hello", "-d", "changed"]);
    let shown = served.json(&["show", "hello"]);
    assert_eq!(shown["description"], "changed");
    assert_eq!(shown["default_environment"]["COLOUR"], "blue", "what is not named stays");
    assert_eq!(shown["token"], "false", "the default that nobody chose");
    assert_eq!(served.ok(&["rm", "hello"]), id);
    served.actor(&["show", "hello"]).fails(1, &["hello"]);
    served.stop(Duration::from_secs(20));
    machine.assert_clean();
}

#[test]
fn how_an_execution_ended_is_told() {
    let machine = Machine::new();
    machine.import_script("fails", "echo bad >&2; exit 3");
    machine.import_script("eats", "echo start; x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done");
    machine.import_script("sleeps", "echo begun; sleep 1000");
    machine.import_busybox("broken", &["CMD [\"/no/such/program\"]"]);
    let served = machine.serve();
    for image in ["fails", "sleeps", "broken"] {
        served.ok(&["create", "--name", image, image]);
    }
    served.ok(&["create", "--name", "eats", "--mem-limit", "32m", "eats"]);

    let ran = served.actor(&["send", "fails", "x", "--wait"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), "bad\n"), "{}", ran.stderr);
    for (actor, status, outcome, word) in [
        ("fails", "COMPLETE", "failed", "exit code 3"),
        ("eats", "COMPLETE", "out_of_memory", "of 32 MiB; raise memLimit"),
        ("broken", "ERROR", "could_not_start", "/no/such/program"),
    ] {
        let execution = served.ok(&["send", actor, "x"]);
        let ended = served.wait_for(actor, &execution, |e| {
            e["status"] != "SUBMITTED" && e["status"] != "RUNNING"
        });
        assert_eq!(ended["status"], status, "{actor}: {ended:#}");
        assert_eq!(ended["outcome"], outcome, "{actor}: {ended:#}");
        assert!(ended["reason"].as_str().unwrap_or("").contains(word), "{actor}: {ended:#}");
    }

    served.ok(&["create", "--name", "misnamed", "NOT/an/image"]);
    let ran = served.actor(&["send", "misnamed", "x", "--wait", "--timeout", "5"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("NOT/an/image"), "{}", ran.stderr);

    let execution = served.ok(&["send", "sleeps", "x"]);
    served.wait_for("sleeps", &execution, |e| {
        e["status"] == "RUNNING" && e["phases"]["started"].is_string()
    });
    let id = served.json(&["show", "sleeps"])["id"].as_str().unwrap().to_owned();
    let token = machine.ok(&["token"]);
    let answer = served.raw(&format!(
        "DELETE /v3/actors/{id}/executions/{execution} HTTP/1.1\r\nHost: x\r\n\
         Authorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    ));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let ended = served.wait_for("sleeps", &execution, |e| e["status"] == "COMPLETE");
    assert_eq!(ended["outcome"], "cancelled");
    assert_eq!(served.ok(&["logs", "sleeps", &execution]), "begun");
    served.stop(Duration::from_secs(20));
    machine.assert_clean();
}

#[test]
fn the_log_of_a_running_execution_is_followed() {
    let machine = Machine::new();
    machine.import_script("counts", "for i in 1 2 3; do echo line $i; sleep 0.7; done");
    let served = machine.serve();
    served.ok(&["create", "--name", "counts", "counts"]);
    let execution = served.ok(&["send", "counts", "x"]);
    assert_eq!(served.ok(&["logs", "counts", &execution, "-f"]), "line 1\nline 2\nline 3");
}

#[test]
fn what_the_service_refuses_is_said_in_one_line() {
    let machine = Machine::new();
    machine.import_script("echo", ECHO);
    let served = machine.serve();
    served.ok(&["create", "--name", "hello", "echo"]);
    served.actor(&["show", "no-such"]).fails(1, &["no-such"]);
    served.actor(&["send", "no-such", "x"]).fails(1, &["no-such"]);
    served.actor(&["logs", "hello", "no-such"]).fails(1, &["no-such"]);
    served.actor(&["--token", "not-a-token", "list"]).fails(1, &["token"]);
    served.actor(&["send", "hello", "--json", "{"]).fails(2, &["not JSON"]);
    served.actor(&["create", "--mem-limit", "lots", "echo"]).fails(2, &["lots"]);
    let big = "x".repeat(131_073);
    std::fs::write(machine.path("big.json"), serde_json::to_string(&big).unwrap()).unwrap();
    // Beyond what one argument may hold, so by HTTP.
    let id = served.json(&["show", "hello"])["id"].as_str().unwrap().to_owned();
    let token = machine.ok(&["token"]);
    for (body, status, word) in [
        (format!("{{\"message\": \"{big}\"}}"), "4", "message"),
        ("{\"message\": ".to_owned(), "400", "JSON"),
    ] {
        let answer = served.raw(&format!(
            "POST /v3/actors/{id}/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        ));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(answer.contains(word), "{answer}");
    }
    assert_eq!(served.ok(&["executions", "hello", "-q"]), "", "what was refused changed nothing");
    machine
        .abax(&["actor", "--server", "http://127.0.0.1:1", "list"])
        .fails(1, &["http://127.0.0.1:1", "abax serve"]);
}

#[test]
fn an_execution_reaches_the_service_with_its_owners_token() {
    let machine = Machine::new();
    machine.import_script(
        "calls",
        "wget -q -O - --header \"Authorization: Bearer $_abaco_access_token\" \
         $_abaco_api_server/v3/actors",
    );
    let served = machine.serve();
    let id = served.ok(&["create", "--name", "calls", "--with-token", "calls"]);
    let other = served.ok(&["create", "--name", "other", "calls"]);
    let listed = |answer: &str| -> Vec<String> {
        let answer: serde_json::Value =
            serde_json::from_str(answer).unwrap_or_else(|e| panic!("{e}: {answer}"));
        let all = answer["result"].as_array().unwrap_or_else(|| panic!("{answer:#}"));
        all.iter().map(|actor| actor["id"].as_str().unwrap_or_default().to_owned()).collect()
    };
    let both = [id.clone(), other];
    let ran = served.actor(&["send", "calls", "x", "--wait", "--timeout", "30"]);
    assert_eq!(listed(ran.success()), both);
    // Whoever sends the message: what is its owner's, the execution sees.
    served.ok(&["share", "calls", "-u", "bob", "-p", "execute"]);
    let bob = machine.ok(&["token", "--user", "bob", "--role", "user"]);
    assert_eq!(served.ok(&["--token", &bob, "list", "-q"]), id);
    let ran = served.actor(&["--token", &bob, "send", &id, "x", "--wait", "--timeout", "30"]);
    assert_eq!(listed(ran.success()), both);
    // Nobody wanted one for the other.
    let ran = served.actor(&["send", "other", "x", "--wait", "--timeout", "30"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stdout.contains("400 Bad Request"), "{}", ran.stdout);
}

#[test]
fn what_has_not_ended_is_no_result_of_a_message_that_is_waited_for() {
    let machine = Machine::new();
    machine.import_script("sleeps", "sleep 1000");
    let served = machine.serve();
    served.ok(&["create", "--name", "sleeps", "sleeps"]);
    let server = format!("http://{}", served.address());
    let send = ["actor", "--server", &server, "send", "sleeps", "x", "--synchronous"];
    let mut command = machine.command(&send);
    let sent = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("it runs", || {
        served.json(&["executions", "sleeps"])["executions"][0]["status"] == "RUNNING"
    });
    // It waits no longer then, and says so.
    served.stop(Duration::from_secs(60));
    let ran = Ran::of(&send, sent.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{}", ran.stderr);
    assert!(ran.stderr.contains("has not ended yet"), "{}", ran.stderr);
}

#[test]
fn what_waits_for_an_unreachable_registry_says_so() {
    let machine = Machine::new();
    machine.import_script("fails", "echo bad; exit 3");
    let served = machine.serve();
    served.ok(&["create", "--name", "fails", "fails"]);
    served.ok(&["create", "--name", "far", "127.0.0.1:1/nosuch"]);

    let ran = served.actor(&["send", "far", "x", "--wait", "--timeout", "5"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{}", ran.stderr);
    let waiting: Vec<_> =
        ran.stderr.lines().filter(|line| line.starts_with("abax: waiting: ")).collect();
    assert_eq!(waiting.len(), 1, "{}", ran.stderr);
    for words in ["image 127.0.0.1:1/nosuch", "could not pull", "not reachable", "next try at"] {
        assert!(waiting[0].contains(words), "no {words} in {}", waiting[0]);
    }
    let actor = served.json(&["show", "far"]);
    assert_eq!(actor["status"], "SUBMITTED", "{actor:#}");
    let message = actor["status_message"].as_str().unwrap();
    assert!(message.starts_with("waiting for image 127.0.0.1:1/nosuch: "), "{message}");
    assert_eq!(served.log().matches(" rests until ").count(), 1, "{}", served.log());
    let executions = served.json(&["executions", "far"]);
    assert_eq!(executions["executions"][0]["status"], "SUBMITTED", "{executions:#}");
    assert_eq!(served.actor(&["send", "fails", "x", "--wait"]).code, Some(1));
    let ran = served.actor(&["logs", "fails"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "bad\n"), "{}", ran.stderr);
    assert!(ran.stderr.contains("exit code 3"), "{}", ran.stderr);

    served.ok(&["create", "--name", "misnamed", "an/IMAGE"]);
    eventually("it is in error", || served.json(&["show", "misnamed"])["status"] == "ERROR");
    let list = served.ok(&["list"]);
    assert!(list.contains("ERROR") && !list.contains("is no name"), "{list}");
    let ran = served.actor(&["--format", "json", "send", "misnamed", "x", "--wait"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{}", ran.stderr);
    assert!(ran.stderr.contains("its actor is in ERROR"), "{}", ran.stderr);
    served.stop(Duration::from_secs(20));
    machine.assert_clean();
}
