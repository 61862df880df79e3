//! What executions get of configs, and how nonces let others in. Needs root.

#![allow(clippy::unwrap_used, reason = "tests fail where something is missing")]

mod machine;
mod site;

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use machine::Machine;
use serde_json::{Value, json};
use site::{Queue, Site};

fn has_ended(execution: &Value) -> bool {
    execution["status"] != "SUBMITTED" && execution["status"] != "RUNNING"
}

const PRINTS: &str = "echo \"all: $_actor_configs\"; echo \"own: $DB_TOKEN\"";

fn config(actor: &str) -> String {
    let value = "it's \"hunter2\"";
    json!({"name": "DB_TOKEN", "value": value, "is_secret": true, "actors": actor}).to_string()
}

const GIVEN: &str = "all: {'DB_TOKEN': 'it\\'s \"hunter2\"'}\nown: it's \"hunter2\"";

#[test]
fn a_secret_reaches_the_containers_of_its_actor_and_no_other() {
    let machine = Machine::new();
    machine.import_script("prints", PRINTS);
    let served = machine.serve();
    for name in ["has", "has-not"] {
        served.ok(&["create", "--name", name, "prints"]);
    }
    let id = served.json(&["show", "has"])["id"].as_str().unwrap().to_owned();
    let (status, made) = served.http("POST", "/v3/actors/configs", &config(&id));
    assert_eq!(status, 200, "{made}");
    assert_eq!(made["result"]["value"], "[secret]");
    for (actor, output) in [("has", GIVEN), ("has-not", "all: {}\nown:")] {
        let execution = served.ok(&["send", actor, "x"]);
        served.wait_for(actor, &execution, has_ended);
        assert_eq!(served.ok(&["logs", actor, &execution]), output);
    }
    served.stop(Duration::from_secs(20));
    let keys = machine.root().join("service/secret.keys");
    assert_eq!(std::fs::metadata(keys).unwrap().permissions().mode() & 0o777, 0o600);
    machine.assert_clean();
}

#[test]
fn a_nonce_lets_a_stranger_send_a_message() {
    let machine = Machine::new();
    machine.import_script("echo", "echo \"$_abaco_username: $MSG\"; env | grep -c nonce");
    let served = machine.serve();
    served.ok(&["create", "--name", "echo", "echo"]);
    let id = served.json(&["show", "echo"])["id"].as_str().unwrap().to_owned();
    let (status, nonce) =
        served.http("POST", &format!("/v3/actors/{id}/nonces"), "{\"max_uses\": 1}");
    assert_eq!(status, 200, "{nonce}");
    let nonce = nonce["result"]["id"].as_str().unwrap();
    let request = format!(
        "POST /v3/actors/{id}/messages?x-nonce={nonce} HTTP/1.1\r\nHost: localhost\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 10\r\n\
         Connection: close\r\n\r\nmessage=hi"
    );
    let answer = served.raw(&request);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let again = served.raw(&request);
    assert!(again.contains("No remaining uses left for this nonce."), "{again}");
    let body: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    let execution = body["result"]["execution_id"].as_str().unwrap().to_owned();
    served.wait_for("echo", &execution, has_ended);
    assert_eq!(served.ok(&["logs", "echo", &execution]), "admin: hi\n0");
    served.stop(Duration::from_secs(20));
    machine.assert_clean();
}

#[test]
fn a_secret_that_one_process_sealed_is_opened_by_the_worker_of_another() {
    let site = Site::new(Queue::RabbitMq);
    site.import_script("prints", PRINTS);
    let [one, two] = &site.hosts;
    let api = one.api("api.log");
    let worker = two.worker(&[]);
    api.ok(&["create", "--name", "has", "prints"]);
    let id = api.json(&["show", "has"])["id"].as_str().unwrap().to_owned();
    let (status, made) = api.http("POST", "/v3/actors/configs", &config(&id));
    assert_eq!(status, 200, "{made}");
    let execution = api.ok(&["send", "has", "x"]);
    api.wait_for("has", &execution, has_ended);
    assert_eq!(api.ok(&["logs", "has", &execution]), GIVEN);
    worker.stop(Duration::from_secs(20));
    api.stop(Duration::from_secs(20));
}
