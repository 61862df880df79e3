//! State, messages, executions, logs, results, and workers.

use std::sync::Arc;

use abax_actors::{Claim, Finish, Json, Outcome, Phase};
use serde_json::{Value, json};

use crate::actors::{plain, with};
use crate::scene::Scene;

const USER: &str = "testuser";

/// Registers an actor as `{name}`.
async fn register(s: &Scene, name: &str, settings: Value) {
    let actor = with(plain(name, "abaco_test", USER), settings.clone());
    let registers = s.post(USER, "/actors").json(with(json!({"image": "abaco_test"}), settings));
    registers.shows("Actor created successfully.", s.object(actor)).await;
}

/// The acknowledgement of a message to `{actor}`, whose execution is `{execution}` from
/// now on.
fn acknowledged(s: &Scene, execution: &str, msg: Value) -> Value {
    let mut expected = s.row(json!({
        "execution_id": format!("{{{execution}}}"), "msg": msg,
        "_links": {
            "self": format!("{{actors}}/{{actor}}/executions/{{{execution}}}"),
            "owner": "{profiles}/testuser", "messages": "{actors}/{actor}/messages",
        },
    }));
    // One client looks for this name in every dialect.
    expected["executionId"] = json!(format!("{{{execution}}}"));
    expected
}

async fn finish(s: &Scene, claim: &Claim, output: &str) {
    s.running.service.record_phase(&claim.key, Phase::Exited).await.unwrap();
    let mut finish = Finish::new(Outcome::Succeeded, "");
    finish.exit_code = Some(0);
    finish.final_state =
        Some(Json::parse(r#"{"Status": "exited", "ExitCode": 0, "OOMKilled": false}"#).unwrap());
    finish.usage.cpu_ns = 5_000_000;
    finish.usage.io_bytes = 7;
    finish.usage.runtime = std::time::Duration::from_millis(2_900);
    finish.output = output.as_bytes().to_vec();
    assert!(s.running.service.finish(&claim.key, finish).await.unwrap());
}

#[tokio::test]
async fn a_state_is_whatever_json_was_posted() {
    for s in Scene::each().await {
        register(&s, "actor", json!({"stateless": false})).await;
        let state = "/actors/{actor}/state";
        let message = "Actor state retrieved successfully.";
        s.get(USER, state).shows(message, json!({"state": {}})).await;
        for value in [
            json!("abc"),
            json!({"foo": "abc", "bar": 1, "baz": true, "snake_key": null}),
            json!([1, {"a": null}]),
            json!(1.5),
            json!(true),
            // What Python takes for nothing.
            json!({}),
            json!([]),
            json!(""),
            json!(0),
            json!(false),
            Value::Null,
        ] {
            let posts = s.post(USER, state).body("application/json", value.to_string());
            let actor = plain("actor", "abaco_test", USER);
            let mut actor = s.object(with(actor, json!({"stateless": false})));
            // Of an actor, a null is left out where nulls are.
            match value.is_null() && !s.spoken.keeps_nulls {
                true => drop(actor.as_object_mut().unwrap().remove("state")),
                false => actor["state"] = value.clone(),
            }
            posts.shows("State updated successfully.", actor).await;
            s.get(USER, state).shows(message, json!({ "state": value })).await;
        }
        let text = s.post(USER, state).body("application/json", "plain text");
        text.says(200, "State updated successfully.").await;
        s.get(USER, state).shows(message, json!({"state": "plain text"})).await;
        s.post(USER, state).body("application/json", "{\"a\":").says(400, "~JSON").await;
        register(&s, "stateless", json!({})).await;
        s.get(USER, "/actors/{stateless}/state").shows(message, json!({"state": {}})).await;
        let posts = s.post(USER, "/actors/{stateless}/state").body("application/json", "1");
        posts.says(404, "actor is stateless.").await;
    }
}

#[tokio::test]
async fn messages_are_acknowledged_counted_and_purged() {
    for s in Scene::each().await {
        register(&s, "actor", json!({})).await;
        let messages = "/actors/{actor}/messages";
        let links = json!({"self": "{actors}/{actor}/messages", "owner": "{profiles}/testuser"});
        let count = |n: u32| json!({"messages": n, "_links": links});
        let counted = "Number of actor messages retrieved successfully.";
        s.get(USER, messages).shows(counted, count(0)).await;
        let done = "The request was successful";
        let form = s.post(USER, messages).form(&[("message", "testing execution")]);
        form.shows(done, acknowledged(&s, "e1", json!("testing execution"))).await;
        let mut sent = 1;
        for (n, (content_type, query, body, msg)) in [
            (
                "application/json",
                "",
                r#"{"key1": "value1", "n": [1, null]}"#,
                json!({"key1": "value1", "n": [1, null]}),
            ),
            ("application/json", "", r#"{"message": {"k": true}}"#, json!("{'k': True}")),
            (
                "application/json",
                "",
                r#"{"queue": "x", "privileged": true}"#,
                json!({"queue": "x", "privileged": true}),
            ),
            ("application/json", "", "[1, 2]", json!([1, 2])),
            ("application/json", "", "\"text\"", json!("text")),
            ("application/json", "", "5", json!(5)),
            ("text/plain", "?message=x", "", json!("x")),
            ("application/octet-stream", "", "bytes", json!("binary - omitted")),
        ]
        .into_iter()
        .enumerate()
        {
            let posts = s.post(USER, &format!("{messages}{query}")).body(content_type, body);
            posts.shows(done, acknowledged(&s, &format!("more{n}"), msg)).await;
            sent += 1;
        }
        s.get(USER, messages).shows(counted, count(sent)).await;
        for (content_type, body) in [
            ("application/x-www-form-urlencoded", "other=1"),
            ("text/plain", "no JSON"),
            ("application/json", "{\"a\":"),
        ] {
            s.post(USER, messages).body(content_type, body).says(400, "~").await;
        }
        let large = json!({"message": "x".repeat(200_000)}).to_string();
        s.post(USER, messages).body("application/json", large).says(400, "~Too large").await;
        let limit = s.running.service.config().max_binary_bytes;
        let large = s.post(USER, messages).body("application/octet-stream", vec![0; limit + 1]);
        large.says(400, &format!("^Message exceeds max content length of: {limit}")).await;
        s.get(USER, messages).shows(counted, count(sent)).await;
        let purged = json!({"msg": "Actor mailbox purged.", "_links": links});
        s.delete(USER, messages).shows(done, purged).await;
        s.get(USER, messages).shows(counted, count(0)).await;
        let ended = s.get(USER, "/actors/{actor}/executions/{e1}").says(200, "~").await;
        assert_eq!(ended["status"], "ERROR");
        s.post("jdoe", messages)
            .form(&[("message", "m")])
            .says(400, "~you do not have access to this actor")
            .await;
    }
}

#[tokio::test]
async fn an_execution_is_shown_from_its_message_to_its_log() {
    for s in Scene::each().await {
        register(&s, "actor", json!({"name": "test"})).await;
        let summary = |rows: Vec<Value>, [n, cpu, io, runtime]: [u64; 4]| {
            s.row(json!({
                "actor_id": "{actor}", "api_server": "{server}", "owner": USER, "executions": rows,
                "total_executions": n, "total_cpu": cpu, "total_io": io, "total_runtime": runtime,
                "_links": {"self": "{actors}/{actor}/executions", "owner": "{profiles}/testuser"},
            }))
        };
        let (all, listed) =
            ("/actors/{actor}/executions", "Actor executions retrieved successfully.");
        s.get(USER, all).shows(listed, summary(vec![], [0; 4])).await;
        let form =
            s.post(USER, "/actors/{actor}/messages").form(&[("message", "testing execution")]);
        form.shows("~", acknowledged(&s, "e", json!("testing execution"))).await;
        let row = |status: &str, outcome: Value, started: &Value| {
            s.row(json!({
                "id": "{e}", "status": status, "outcome": outcome, "start_time": started,
                "finish_time": started, "message_received_time": "@time",
            }))
        };
        let waits = row("SUBMITTED", Value::Null, &Value::Null);
        s.get(USER, all).shows(listed, summary(vec![waits], [1, 0, 0, 0])).await;
        let (one, shown) =
            ("/actors/{actor}/executions/{e}", "Actor execution retrieved successfully.");
        let execution = json!({
            "id": "{e}", "actor_id": "{actor}", "api_server": "{server}", "executor": USER,
            "executor_uid": null, "executor_gid": null, "status": "SUBMITTED", "outcome": null,
            "reason": null, "attempt": 0, "worker_id": null, "message_received_time": "@time",
            "start_time": null, "finish_time": null, "runtime": 0, "cpu": 0, "io": 0,
            "peak_memory": null, "exit_code": null, "final_state": null, "phases": "@any",
            "_links": {
                "self": "{actors}/{actor}/executions/{e}", "owner": "{profiles}/testuser",
                "logs": "{actors}/{actor}/executions/{e}/logs",
            },
        });
        s.get(USER, one).shows(shown, s.object(execution.clone())).await;
        let logs = |text: &str| {
            json!({"logs": text, "_links": {
                "self": "{actors}/{actor}/executions/{e}/logs", "owner": "{profiles}/testuser",
                "execution": "{actors}/{actor}/executions/{e}",
            }})
        };
        let (log, logged) = (format!("{one}/logs"), "Logs retrieved successfully.");
        s.get(USER, &log).shows(logged, logs("")).await;

        let claim = s.claim().await;
        let runs = with(
            execution,
            json!({
                "status": "RUNNING", "attempt": 1, "worker_id": "{worker}", "start_time": "@time",
            }),
        );
        s.get(USER, one).shows(shown, s.object(runs.clone())).await;
        let results = [Arc::from(&b"one"[..]), Arc::from(&b"\0two\xff"[..])];
        s.running.service.append_results(&claim.key, 1, results.to_vec()).await.unwrap();
        finish(&s, &claim, "Contents of MSG: testing execution\n").await;
        let ended = with(
            runs,
            json!({
                "status": "COMPLETE", "outcome": "succeeded", "finish_time": "@time", "runtime": 2,
                "cpu": 5_000_000, "io": 7, "exit_code": 0,
                "final_state": {"Status": "exited", "ExitCode": 0, "OOMKilled": false},
            }),
        );
        s.get(USER, one).shows(shown, s.object(ended)).await;
        s.get(USER, &log).shows(logged, logs("Contents of MSG: testing execution\n")).await;
        let ran = row("COMPLETE", json!("succeeded"), &json!("@time"));
        s.get(USER, all).shows(listed, summary(vec![ran], [1, 5_000_000, 7, 2])).await;

        let results = format!("{one}/results");
        for bytes in [&b"one"[..], b"\0two\xff", b"", b""] {
            let (kind, body) = s.get(USER, &results).raw().await;
            assert_eq!((kind.as_str(), body.as_slice()), ("application/octet-stream", bytes));
        }
        assert_eq!(s.get(USER, "/actors/{actor}/executions/none/results").raw().await.1, b"");
        s.delete(USER, one)
            .says(400, "^Cannot force quit an execution not in RUNNING status")
            .await;
        for path in ["/actors/{actor}/executions/none", "/actors/{actor}/executions/none/logs"] {
            s.get(USER, path).says(400, "^No executions found").await;
        }
        s.delete(USER, "/actors/{actor}/executions/none").says(400, "^No executions found").await;

        // One that is stopped.
        let form = s.post(USER, "/actors/{actor}/messages").form(&[("message", "m")]);
        form.shows("~", acknowledged(&s, "halted", json!("m"))).await;
        let claim = s.claim().await;
        let halts = s.delete(USER, "/actors/{actor}/executions/{halted}");
        halts.shows("^Issued force quit command for execution {halted}", Value::Null).await;
        let halted = Finish::new(Outcome::Cancelled, "halted");
        assert!(s.running.service.finish(&claim.key, halted).await.unwrap());
        let ended = s.get(USER, "/actors/{actor}/executions/{halted}").says(200, "~").await;
        assert_eq!(ended["status"], "COMPLETE");
    }
}

#[tokio::test]
async fn who_waits_gets_what_came_of_it_in_bounded_time() {
    for s in Scene::each().await {
        register(&s, "actor", json!({})).await;
        let path = "/actors/{actor}/messages?_abaco_synchronous=TRUE";
        let sends = || s.post(USER, path).form(&[("message", "hi")]);
        let (answer, ()) = tokio::join!(sends().raw(), async {
            finish(&s, &s.claim().await, "Contents of MSG: hi\n").await;
        });
        let output = b"Contents of MSG: hi\n".to_vec();
        assert_eq!(answer, ("text/html; charset=utf-8".to_owned(), output));
        // The execution fails, or the actor does while it waits, or has before.
        let (_, ()) = tokio::join!(sends().says(400, "~no such program"), async {
            let claim = s.claim().await;
            let failed = Finish::new(Outcome::CouldNotStart, "no such program");
            assert!(s.running.service.finish(&claim.key, failed).await.unwrap());
        });
        let id = abax_actors::ActorId::parse(&s.filled("{actor}")).unwrap();
        let (_, ()) = tokio::join!(sends().says(400, "~no image abaco_test"), async {
            let waits = async || {
                let health = s.running.service.health().await.unwrap();
                health.classes.get("default").is_some_and(|load| load.waiting > 0)
            };
            while !waits().await {
                tokio::task::yield_now().await;
            }
            s.running.service.actor_failed(&id, 1, "no image abaco_test").await.unwrap();
        });
        let waiting = s.get(USER, "/actors/{actor}/messages").says(200, "~").await;
        assert_eq!(waiting["messages"], 1);
        let refused = sends();
        refused.says(400, "^Cannot issue synchronous execution").await;
        let waiting = s.get(USER, "/actors/{actor}/messages").says(200, "~").await;
        assert_eq!(waiting["messages"], 1, "what is refused is not accepted");
        s.post(USER, "/actors/{actor}/messages").form(&[("message", "m")]).says(200, "~").await;
    }
}

#[tokio::test]
async fn who_waits_in_vain_hears_that_it_is_accepted() {
    for s in Scene::each_with(std::time::Duration::from_millis(50)).await {
        register(&s, "actor", json!({})).await;
        let sends = s.post(USER, "/actors/{actor}/messages?_abaco_synchronous=true");
        let sent = sends.form(&[("message", "hi")]).says(202, "The request was successful").await;
        s.know("e", sent["executionId"].as_str().unwrap());
        let waits = s.get(USER, "/actors/{actor}/executions/{e}").says(200, "~").await;
        assert_eq!(waits["status"], "SUBMITTED");
    }
}

#[tokio::test]
async fn workers_are_listed_asked_for_and_stopped() {
    for s in Scene::each().await {
        register(&s, "actor", json!({"stateless": false})).await;
        let workers = "/actors/{actor}/workers";
        let retrieved = "Workers retrieved successfully.";
        let worker = |name: &str| {
            s.object(json!({
                "id": format!("{{{name}}}"), "actor_id": "{actor}", "status": "READY",
                "image": "abaco_test", "revision": 1, "ch_name": format!("worker_{{{name}}}"),
                "cid": format!("{{{name}}}"), "location": "abax://node-1", "host_id": "@text",
                "host_name": "node-1", "host_ip": null, "create_time": "@time",
                "last_execution_time": "None", "last_health_check_time": "@time",
                "tenant": "DEV-DEVELOP",
                "_links": {
                    "self": format!("{{actors}}/{{actor}}/workers/{{{name}}}"),
                    "actor": "{actors}/{actor}", "owner": "{profiles}/testuser",
                },
            }))
        };
        let service = &s.running.service;
        let ready = async || {
            let queues = service.config().queues.clone();
            let preparation = service.receive_preparation(&queues).await.unwrap();
            let info = abax_actors::HostInfo {
                classes: queues,
                ..abax_actors::HostInfo::new("node-1", "1", 4)
            };
            let host = service.register_host(info).await.unwrap();
            let (id, revision) = (&preparation.actor.id, preparation.actor.revision);
            service.actor_ready(id, revision, &host).await.unwrap();
        };
        ready().await;
        let actor = s.get(USER, "/actors/{actor}").says(200, "~").await;
        assert_eq!(
            (&actor["status"], &actor[s.key("status_message")]),
            (&json!("READY"), &json!(" "))
        );
        s.get(USER, workers).shows(retrieved, json!([worker("w")])).await;
        let one = "/actors/{actor}/workers/{w}";
        s.get(USER, one).shows("Worker retrieved successfully.", worker("w")).await;
        s.get(USER, "/actors/{actor}/workers/none").says(404, "Worker not found.").await;
        s.delete(USER, "/actors/{actor}/workers/none").says(404, "Worker not found.").await;
        let had = "Actor already had 1 worker(s).";
        s.post(USER, workers).shows(had, Value::Null).await;
        let added = "Scheduled 1 new worker(s) to start. There were 1 before.";
        s.post(USER, workers).form(&[("num", "2")]).shows(added, Value::Null).await;
        ready().await;
        s.get(USER, workers).shows(retrieved, json!([worker("w"), worker("other")])).await;
        s.delete(USER, one).shows("Worker scheduled to be stopped.", Value::Null).await;
        s.get(USER, workers).shows(retrieved, json!([worker("other")])).await;
        // Who may update an actor may not have it given more.
        let share = s.post(USER, "/actors/{actor}/permissions");
        share.json(json!({"user": "jdoe", "level": "UPDATE"})).says(200, "~").await;
        let asks = s.post("jdoe", workers).json(json!({"num": 2}));
        asks.says(400, "~only admins are authorized to update workers").await;
    }
}
