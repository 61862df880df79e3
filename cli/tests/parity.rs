//! The requests of Abaco's own command line tool, and what it prints of the answers.
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod machine;

use machine::{Machine, Served, eventually};
use serde_json::Value;

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

/// One request as the tool makes it: a bearer token, the prefix of v2.
struct Tool<'a> {
    served: &'a Served<'a>,
    token: String,
}

impl Tool<'_> {
    /// The whole answer, head and body.
    fn ask(&self, method: &str, path: &str, kind: &str, body: &str) -> (u16, String) {
        let authorization = match self.token.as_str() {
            "" => String::new(),
            token => format!("Authorization: Bearer {token}\r\n"),
        };
        let answer = self.served.raw(&format!(
            "{method} /actors/v2{path} HTTP/1.1\r\nHost: x\r\n{authorization}\
             Content-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        ));
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// The envelope of a success.
    #[track_caller]
    fn envelope(&self, method: &str, path: &str, kind: &str, body: &str) -> Value {
        let (status, answer) = self.ask(method, path, kind, body);
        assert_eq!(status, 200, "{method} {path}: {answer}");
        serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{method} {path}: {e}: {answer}"))
    }

    #[track_caller]
    fn result(&self, method: &str, path: &str, kind: &str, body: &str) -> Value {
        self.envelope(method, path, kind, body)["result"].clone()
    }

    #[track_caller]
    fn get(&self, path: &str) -> Value {
        self.result("GET", path, FORM, "")
    }
}

/// Fields that the tool prints, all of them texts.
#[track_caller]
fn prints(value: &Value, fields: &[&str]) -> Vec<String> {
    let text = |field: &&str| match &value[*field] {
        Value::String(text) => text.clone(),
        Value::Null => panic!("no {field} in {value:#}"),
        other => other.to_string(),
    };
    fields.iter().map(text).collect()
}

#[test]
fn requests_of_the_old_tool_get_what_it_prints() {
    let machine = Machine::new();
    machine.import_script("echo", "echo \"Contents of MSG: $MSG\"; env");
    machine.import_script("sleeps", "sleep 1000");
    let served = machine.serve();
    let tool = Tool { served: &served, token: machine.ok(&["token"]) };

    // create, list, update
    let create = r#"{"image": "echo", "name": "hello", "privileged": false, "stateless": true,
        "force": false, "useContainerUid": false, "defaultEnvironment": {"A": "1"},
        "token": true, "hints": ["x"]}"#;
    let actor = tool.result("POST", "", JSON, create);
    assert_eq!(prints(&actor, &["name"]), ["hello"]);
    let id = prints(&actor, &["id"]).remove(0);
    eventually("it is ready", || tool.get(&format!("/{id}"))["status"] == "READY");
    assert_eq!(prints(&tool.get("")[0], &["name", "id", "status"]), ["hello", &id, "READY"]);
    let stateless = tool.get(&format!("/{id}"))["stateless"].as_bool().unwrap();
    let update = format!(r#"{{"image": "echo", "stateless": {stateless}, "force": false}}"#);
    let updated = tool.result("PUT", &format!("/{id}"), JSON, &update);
    assert_eq!(prints(&updated, &["name", "id"]), ["hello", &id]);

    // submit, executions, logs, messages
    let messages = format!("/{id}/messages");
    let sent = tool.result("POST", &messages, FORM, "message=execute%20yourself");
    let execution = prints(&sent, &["executionId"]).remove(0);
    assert_eq!(sent["msg"], "execute yourself");
    let sent = tool.result("POST", &format!("{messages}?B=2"), JSON, r#"{"n": 1}"#);
    assert_eq!(sent["msg"]["n"], 1);
    let query = format!("{messages}?_abaco_synchronous=true");
    let (status, body) = tool.ask("POST", &query, FORM, "message=at%20once");
    assert!(status == 200 && body.contains("Contents of MSG: at once\n"), "{status} {body}");
    let executions = format!("/{id}/executions");
    eventually("they have ended", || {
        let listed = tool.get(&executions);
        let all = listed["executions"].as_array().unwrap();
        all.len() == 3 && all.iter().all(|one| prints(one, &["id", "status"])[1] == "COMPLETE")
    });
    let one = tool.get(&format!("{executions}/{execution}"));
    assert_eq!(prints(&one, &["workerId", "status"])[1], "COMPLETE");
    let logs = tool.get(&format!("{executions}/{execution}/logs"));
    assert!(prints(&logs, &["logs"])[0].starts_with("Contents of MSG: execute yourself\n"));
    assert_eq!(prints(&tool.get(&messages), &["messages"]), ["0"]);
    let purged = tool.result("DELETE", &messages, FORM, "");
    assert_eq!(prints(&purged, &["msg"]), ["Actor mailbox purged."]);

    // permissions, workers
    let permissions = format!("/{id}/permissions");
    let shared = tool.result("POST", &permissions, FORM, "user=jdoe&level=READ");
    assert_eq!((&shared["admin"], &shared["jdoe"]), (&"UPDATE".into(), &"READ".into()));
    assert_eq!(tool.get(&permissions), shared);
    let stateful = r#"{"image": "sleeps", "name": "counter", "stateless": false}"#;
    let counter = prints(&tool.result("POST", "", JSON, stateful), &["id"]).remove(0);
    let workers = format!("/{counter}/workers");
    eventually("it has a worker", || {
        tool.get(&workers).as_array().is_some_and(|all| !all.is_empty())
    });
    let worker = prints(&tool.get(&workers)[0], &["id", "status"]).remove(0);
    tool.get(&format!("{workers}/{worker}"));
    assert!(!prints(&tool.envelope("POST", &workers, FORM, "num=1"), &["message"])[0].is_empty());

    // aliases, nonces
    let alias = format!(r#"{{"actorId": "{id}", "alias": "jane.doe"}}"#);
    let made = tool.result("POST", "/aliases", JSON, &alias);
    assert_eq!(prints(&made, &["alias", "actorId", "owner"]), ["jane.doe", &id, "admin"]);
    assert_eq!(prints(&tool.get("/aliases")[0], &["alias", "actorId", "owner"])[1], id);
    tool.get("/aliases/jane.doe");
    let gone = tool.envelope("DELETE", "/aliases/jane.doe", FORM, "");
    assert!(prints(&gone, &["message"])[0].contains("jane.doe"), "{gone}");
    let nonces = format!("/{id}/nonces");
    // As text, which is how the tool sends numbers.
    let new = r#"{"maxUses": "3", "level": "EXECUTE", "description": "for a friend"}"#;
    let nonce = tool.result("POST", &nonces, JSON, new);
    assert_eq!(prints(&nonce, &["maxUses", "remainingUses", "level"]), ["3", "3", "EXECUTE"]);
    let secret = prints(&nonce, &["id"]).remove(0);
    let fields = ["id", "actorId", "owner", "description"];
    assert_eq!(prints(&tool.get(&nonces)[0], &fields), [&secret, &id, "admin", "for a friend"]);
    prints(&tool.get(&format!("{nonces}/{secret}")), &["level", "lastUseTime"]);
    // Without a token.
    let stranger = Tool { served: &served, token: String::new() };
    let by_nonce = format!("{messages}?x-nonce={secret}");
    let (status, body) = stranger.ask("POST", &by_nonce, FORM, "message=by%20a%20nonce");
    assert_eq!(status, 200, "{body}");
    tool.envelope("DELETE", &format!("{nonces}/{secret}"), FORM, "");

    // version, delete
    assert!(!prints(&tool.envelope("GET", "?limit=1", FORM, ""), &["version"])[0].is_empty());
    for id in [id, counter] {
        let gone = tool.envelope("DELETE", &format!("/{id}"), FORM, "");
        assert!(prints(&gone, &["message"])[0].starts_with("Actor deleted successfully"), "{gone}");
    }
}
