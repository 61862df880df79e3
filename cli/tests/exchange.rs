//! What executions are given as files and send back through the socket. Needs root.

#![allow(clippy::unwrap_used, reason = "tests fail where something is missing")]

mod machine;

use std::time::Duration;

use machine::{Machine, Served};

fn has_ended(execution: &serde_json::Value) -> bool {
    execution["status"] != "SUBMITTED" && execution["status"] != "RUNNING"
}

/// One request of the administrator whose answer has no envelope: status and body.
fn bytes(machine: &Machine, served: &Served<'_>, method: &str, path: &str, body: &str) -> String {
    let token = machine.ok(&["token"]);
    let answer = served.raw(&format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/octet-stream\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    ));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
    assert!(head.starts_with("HTTP/1.1 200 "), "{answer}");
    body.to_owned()
}

fn id(served: &Served<'_>, actor: &str) -> String {
    served.json(&["show", actor])["id"].as_str().unwrap().to_owned()
}

/// A script that sends each word as a result: busybox' `logger` is a sender of datagrams.
const SENDS: &str = "ln -s /_abaco_results.sock /dev/log; for word in one two three; do \
                     logger -t result $word; done";

#[test]
fn bytes_come_as_a_file_that_ends_and_text_comes_without_one() {
    let machine = Machine::new();
    let script = "echo MSG=${MSG-unset} type=$_abaco_Content_Type; f=/_abaco_binary_data; \
                  if [ -e $f ]; then [ -f $f ] && echo regular; stat -c %a $f; cat $f | md5sum; \
                  echo x 2>/dev/null >$f || echo read-only; fi";
    machine.import_script("reads", script);
    let served = machine.serve();
    served.ok(&["create", "--name", "reads", "reads"]);
    let id = id(&served, "reads");
    let body: String = ('a'..='w').cycle().take(1_000_000).collect();
    let path = format!("/v3/actors/{id}//messages");
    let answer = bytes(&machine, &served, "POST", &path, &body);
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["result"]["msg"], "binary - omitted");
    let execution = answer["result"]["execution_id"].as_str().unwrap();
    let ended = served.wait_for("reads", execution, has_ended);
    assert_eq!(ended["outcome"], "succeeded", "{ended:#}");
    let logs = served.ok(&["logs", "reads", execution]);
    let first = "MSG=unset type=application/octet-stream\nregular\n444\n";
    assert!(logs.starts_with(first), "{logs}");
    assert!(logs.contains("9fc5bffa2717cd3889d83b6fee311e5a  -"), "{logs}");
    assert!(logs.ends_with("read-only"), "{logs}");

    let execution = served.ok(&["send", "reads", "text"]);
    served.wait_for("reads", &execution, has_ended);
    assert_eq!(served.ok(&["logs", "reads", &execution]), "MSG=text type=str");
    served.stop(Duration::from_secs(20));
    machine.assert_clean();
}

#[test]
fn results_are_read_one_after_the_other_while_it_runs_and_afterwards() {
    let machine = Machine::new();
    machine.import_script("sends", &format!("{SENDS}; sleep 2; logger -t result last"));
    let served = machine.serve();
    served.ok(&["create", "--name", "sends", "sends"]);
    let id = id(&served, "sends");

    let path = format!("/actors/v2/{id}/messages?_abaco_synchronous=true&message=x");
    let answer = bytes(&machine, &served, "POST", &path, "");
    assert!(answer.ends_with("result: one"), "the first result, whatever follows: {answer}");
    let all = served.json(&["executions", "sends"]);
    let execution =
        all["executions"][0]["id"].as_str().unwrap_or_else(|| panic!("{all:#}")).to_owned();
    let running = served.wait_for("sends", &execution, |_| true);
    assert_eq!(running["status"], "RUNNING", "{running:#}");
    let ended = served.wait_for("sends", &execution, has_ended);
    assert_eq!(ended["outcome"], "succeeded", "{ended:#}");

    let path = format!("/actors/v2/{id}/executions/{execution}/results");
    for word in ["two", "three", "last"] {
        let result = bytes(&machine, &served, "GET", &path, "");
        assert!(result.ends_with(&format!("result: {word}")), "{word}: {result}");
    }
    assert_eq!(bytes(&machine, &served, "GET", &path, ""), "");
    let (status, listed) =
        served.http("GET", &format!("/actors/{id}/executions/{execution}/results"), "");
    assert_eq!((status, listed["result"].as_array().unwrap().len()), (200, 4), "{listed:#}");
    let path = format!("/actors/{id}/executions/{execution}/results/4");
    assert!(bytes(&machine, &served, "GET", &path, "").ends_with("result: last"));
    served.stop(Duration::from_secs(20));
    machine.assert_clean();
}
