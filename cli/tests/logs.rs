//! The log of the service, as programs read it.
#![allow(clippy::unwrap_used, reason = "tests fail where something is missing")]

mod machine;

use std::time::Duration;

use machine::Machine;
use serde_json::Value;

#[test]
fn each_line_is_a_json_object_with_the_ids_and_without_secrets() {
    let machine = Machine::new();
    machine.import_script("tells", "echo \"$MSG and $SECRET_OF_ACTOR\" | md5sum");
    let served = machine.serve_with(&["--log-format", "json", "--log-level", "debug"]);
    let token = machine.ok(&["token"]);
    let actor = served.ok(&["create", "--name", "tells", "-e", "SECRET_OF_ACTOR=s3cr3t", "tells"]);
    let body = "{\"message\": \"between us\"}";
    served.raw(&format!(
        "POST /actors/{actor}/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
         X-Request-Id: mine-1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    ));
    let execution = served.ok(&["send", "tells", "between us two"]);
    served.wait_for("tells", &execution, |state| state["status"] == "COMPLETE");
    let admin = std::fs::read_to_string(machine.root().join("service/admin.token")).unwrap();
    let log = served.log();
    served.stop(Duration::from_secs(20));

    // What the service says to people on standard output is no part of the log.
    let lines: Vec<Value> = log
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    for line in &lines {
        for name in ["timestamp", "level", "message", "target"] {
            assert!(line[name].is_string(), "no {name} in {line}");
        }
    }
    let with = |name: &str, value: &str| -> Vec<&Value> {
        lines.iter().filter(|line| line[name] == value).collect()
    };
    let ended = with("execution.id", &execution);
    let ended = ended.iter().find(|line| line["outcome"] == "succeeded").unwrap_or_else(|| {
        panic!("no end of {execution} in\n{log}");
    });
    assert_eq!(ended["actor.id"], actor.as_str(), "{ended}");
    assert_eq!(ended["exit_code"], 0, "{ended}");
    let answered = with("request.id", "mine-1");
    assert!(answered.iter().any(|line| line["http.status"] == 202), "{answered:?}");
    assert!(answered.iter().any(|line| line["caller.user"] == "admin"), "{answered:?}");
    for secret in [token.as_str(), admin.trim(), "s3cr3t", "between us"] {
        assert!(!log.contains(secret), "{secret} is in the log\n{log}");
    }
}
