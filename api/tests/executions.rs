//! Executions over HTTP: list, show, halt, logs, and waiting for one.
#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod service;

use std::time::Duration;

use abax_actors::{Claim, Finish, HostId, HostInfo, Json, Outcome, Phase};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use service::{PREFIXES, Running, envelope, expect, keys_of, ok, start, start_with};
use tokio::time::timeout;

const LEASE: Duration = Duration::from_secs(60);
const A_WHILE: Duration = Duration::from_secs(20);

async fn host(running: &Running) -> HostId {
    let info = HostInfo::new("test", "0", 2);
    running.service.register_host(info).await.unwrap()
}

/// Takes the next execution, as a worker does.
async fn claim(running: &Running, host: &HostId) -> Claim {
    timeout(A_WHILE, async {
        loop {
            let delivery = running.service.receive(&["default".to_owned()], 1).await.unwrap();
            if let Some(claim) = running.service.claim(delivery, host, LEASE).await.unwrap() {
                return claim;
            }
        }
    })
    .await
    .expect("an execution waits")
}

/// Ends it with exit code 0 and this output.
async fn complete(running: &Running, claim: &Claim, output: &str) {
    for phase in [Phase::ImageReady, Phase::Created, Phase::Started, Phase::Exited] {
        assert!(running.service.record_phase(&claim.key, phase).await.unwrap());
    }
    let mut finish = Finish::new(Outcome::Succeeded, "");
    finish.exit_code = Some(0);
    finish.final_state = Some(
        Json::parse(r#"{"Status":"exited","Running":false,"ExitCode":0,"OOMKilled":false}"#)
            .unwrap(),
    );
    finish.usage.cpu_ns = 5_000_000;
    finish.usage.runtime = Duration::from_millis(2_900);
    finish.output = output.as_bytes().to_vec();
    assert!(running.service.finish(&claim.key, finish).await.unwrap());
}

/// The tutorial's requests, as its curl lines send them.
#[tokio::test]
async fn the_tutorials_flow_works() {
    let running = start().await;
    assert_eq!(ok(running.get("/actors/v2")).await["result"], json!([]));
    let register = json!({
        "image": "taccsciapps/abaco_classifier", "name": "classifier",
        "description": "Labels images", "default_environment": {"key": "value"},
    });
    let actor = ok(running.post("/actors/v2").json(&register)).await["result"]["id"].clone();
    let actor = actor.as_str().unwrap();
    let messages = format!("/actors/v2/{actor}/messages");
    let form = running
        .post(&messages)
        .header("content-type", "application/x-www-form-urlencoded")
        .body("message=https://example.org/dog.jpg");
    let sent = ok(form).await["result"].clone();
    assert_eq!(sent["msg"], "https://example.org/dog.jpg");
    let execution = sent["executionId"].as_str().unwrap();
    ok(running.post(&messages).json(&json!({"url": "x"}))).await;
    ok(running.post(&format!("{messages}?key1=val")).json(&json!({"message": "m"}))).await;

    let host = host(&running).await;
    let claim = claim(&running, &host).await;
    assert_eq!(claim.execution.id.as_str(), execution);
    complete(&running, &claim, "label: dog\n").await;

    let path = format!("/actors/v2/{actor}/executions/{execution}");
    let shown = ok(running.get(&path)).await["result"].clone();
    assert_eq!(shown["status"], "COMPLETE");
    let logs = ok(running.get(&format!("{path}/logs"))).await["result"].clone();
    assert_eq!(logs["logs"], "label: dog\n");
    assert_eq!(logs["_links"]["execution"], running.url(&path));
    assert_eq!(keys_of(&logs["_links"]), ["self", "owner", "execution"]);
    let list = ok(running.get(&format!("/actors/v2/{actor}/executions"))).await["result"].clone();
    assert_eq!(list["executions"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn an_execution_tells_how_it_went_in_every_dialect() {
    let running = start().await;
    let actor = running.register(json!({})).await;
    let execution = running.send(&actor, "x").await;
    let host = host(&running).await;
    let claim = claim(&running, &host).await;
    complete(&running, &claim, "").await;
    for prefix in PREFIXES {
        let snake = prefix == "/v3/actors";
        let answer = ok(running.get(&format!("{prefix}/{actor}/executions/{execution}"))).await;
        let result = &answer["result"];
        let key = |name: &'static str, other: &'static str| if snake { name } else { other };
        assert_eq!(result[key("actor_id", "actorId")], actor.as_str(), "{prefix}");
        assert_eq!(result[key("exit_code", "exitCode")], 0, "{prefix}");
        assert_eq!(result[key("final_state", "finalState")]["ExitCode"], 0, "{prefix}");
        assert_eq!(result[key("api_server", "apiServer")], running.url(""), "{prefix}");
        assert_eq!(result["executor"], "ada");
        assert_eq!(
            (&result["runtime"], &result["cpu"], &result["io"]),
            (&json!(2), &json!(5_000_000), &json!(0))
        );
        assert_eq!((&result["outcome"], &result["attempt"]), (&json!("succeeded"), &json!(1)));
        for (name, other) in [
            ("worker_id", "workerId"),
            ("start_time", "startTime"),
            ("finish_time", "finishTime"),
            ("message_received_time", "messageReceivedTime"),
        ] {
            assert!(result[key(name, other)].is_string(), "{prefix} {name}: {answer}");
        }
        let phases = &result["phases"];
        for phase in [
            "accepted",
            "queued",
            "claimed",
            "image_ready",
            "created",
            "started",
            "exited",
            "stored",
        ] {
            let time =
                phases[phase].as_str().unwrap_or_else(|| panic!("{prefix} {phase}: {phases}"));
            assert_eq!(time.len(), "2026-01-01T00:00:00.000000Z".len(), "{time}");
        }
        assert!(!keys_of(result).contains(&"tenant"));
        assert_eq!(keys_of(&result["_links"]), ["self", "owner", "logs"]);
        // Null, so it is left out where nulls are.
        assert_eq!(keys_of(result).contains(&"reason"), prefix != "/actors/v2", "{prefix}");
    }
}

#[tokio::test]
async fn the_list_of_executions_has_sums_and_keeps_nulls() {
    let running = start().await;
    let actor = running.register(json!({})).await;
    let path = format!("/actors/v2/{actor}/executions");
    let empty = ok(running.get(&path)).await["result"].clone();
    assert_eq!(empty["executions"], json!([]));
    for sum in ["totalExecutions", "totalCpu", "totalIo", "totalRuntime"] {
        assert_eq!(empty[sum], 0, "{sum}");
    }
    let first = running.send(&actor, "1").await;
    let second = running.send(&actor, "2").await;
    let host = host(&running).await;
    complete(&running, &claim(&running, &host).await, "").await;
    let list = ok(running.get(&path)).await["result"].clone();
    assert_eq!((&list["actorId"], &list["owner"]), (&json!(actor), &json!("ada")));
    assert_eq!((&list["totalExecutions"], &list["totalRuntime"]), (&json!(2), &json!(2)));
    let rows = list["executions"].as_array().unwrap();
    assert_eq!((&rows[0]["id"], &rows[1]["id"]), (&json!(first), &json!(second)));
    assert_eq!(rows[0]["status"], "COMPLETE");
    assert!(rows[0]["finishTime"].as_str().unwrap().ends_with('Z'));
    assert!(keys_of(&rows[1]).contains(&"finishTime") && rows[1]["finishTime"].is_null());
    let page = ok(running.get(&format!("/v3/actors/{actor}/executions?limit=1"))).await;
    assert_eq!(page["result"]["_metadata"]["total_count"], 2);
    assert_eq!(page["result"]["search"][0]["id"], first.as_str());
    let page = ok(running.get(&format!("/v3/actors/{actor}/executions?skip=1&limit=23"))).await;
    assert_eq!(page["result"]["_metadata"]["total_count"], 2);
    assert_eq!(page["result"]["_metadata"]["count_returned"], 1);
    assert_eq!(page["result"]["search"][0]["id"], second.as_str());
}

#[tokio::test]
async fn an_unknown_execution_is_400_for_abacos_clients_and_404_for_ours() {
    let running = start().await;
    let actor = running.register(json!({})).await;
    let other = running.register(json!({})).await;
    let execution = running.send(&other, "x").await;
    for id in ["none", execution.as_str()] {
        for (prefix, status) in PREFIXES.iter().zip([
            StatusCode::NOT_FOUND,
            StatusCode::BAD_REQUEST,
            StatusCode::BAD_REQUEST,
        ]) {
            for (method, rest) in [(Method::GET, ""), (Method::GET, "/logs"), (Method::DELETE, "")]
            {
                let path = format!("{prefix}/{actor}/executions/{id}{rest}");
                let answer = expect(running.by("ada", method, &path), status).await;
                assert!(answer["message"].as_str().unwrap().starts_with("No executions found"));
            }
        }
    }
}

#[tokio::test]
async fn a_halt_is_passed_to_the_worker_and_refused_after_the_end() {
    let running = start().await;
    let actor = running.register(json!({})).await;
    let execution = running.send(&actor, "x").await;
    let host = host(&running).await;
    let claim = claim(&running, &host).await;
    let path = format!("/actors/v2/{actor}/executions/{execution}");
    let halted = ok(running.delete(&path)).await;
    let message = halted["message"].as_str().unwrap();
    assert!(message.contains("Issued force quit command for execution"), "{message}");
    assert_eq!(halted["result"], Value::Null);
    let renewal =
        running.service.renew(&host, std::slice::from_ref(&claim.key), LEASE).await.unwrap();
    assert_eq!(renewal.halted, std::slice::from_ref(&claim.key));

    running.service.finish(&claim.key, Finish::new(Outcome::Cancelled, "halted")).await.unwrap();
    let shown = ok(running.get(&path)).await["result"].clone();
    assert_eq!((&shown["status"], &shown["outcome"]), (&json!("COMPLETE"), &json!("cancelled")));
    for (prefix, status) in PREFIXES.iter().zip([
        StatusCode::CONFLICT,
        StatusCode::BAD_REQUEST,
        StatusCode::BAD_REQUEST,
    ]) {
        let again = running.delete(&format!("{prefix}/{actor}/executions/{execution}"));
        let message = expect(again, status).await["message"].clone();
        assert!(message.as_str().unwrap().starts_with("Cannot force quit"), "{message}");
    }
}

#[tokio::test]
async fn logs_are_there_while_the_container_runs() {
    let running = start().await;
    let actor = running.register(json!({})).await;
    let execution = running.send(&actor, "x").await;
    let path = format!("/actors/{actor}/executions/{execution}/logs");
    assert_eq!(ok(running.get(&path)).await["result"]["logs"], "");
    let host = host(&running).await;
    let claim = claim(&running, &host).await;
    running.service.append_logs(&claim.key, 0, b"first \xff\n", false).await.unwrap();
    assert_eq!(ok(running.get(&path)).await["result"]["logs"], "first \u{fffd}\n");
    // Nor is what is no text in the way of the end, or of who looks for it.
    complete(&running, &claim, "").await;
    assert_eq!(ok(running.get(&path)).await["result"]["logs"], "first \u{fffd}\n");
    let shown = ok(running.get(&format!("/actors/{actor}/executions/{execution}"))).await;
    assert_eq!(shown["result"]["status"], "COMPLETE");
    let found = ok(running.get("/actors/search/logs?logs.like=first")).await;
    assert_eq!(found["result"]["search"][0]["logs"], "first \u{fffd}\n");
}

/// Reads events until one holds `text`.
async fn read_until(stream: &mut reqwest::Response, text: &str) -> String {
    let mut read = String::new();
    timeout(A_WHILE, async {
        while !read.contains(text) {
            let chunk = stream.chunk().await.unwrap();
            let chunk = chunk.unwrap_or_else(|| panic!("the stream ended before {text}: {read}"));
            read.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    })
    .await
    .unwrap_or_else(|_| panic!("no {text} in {read}"));
    read
}

#[tokio::test]
async fn logs_can_be_followed_to_the_end() {
    let running = start().await;
    let actor = running.register(json!({})).await;
    let execution = running.send(&actor, "x").await;
    let host = host(&running).await;
    let claim = claim(&running, &host).await;
    let path = format!("/v3/actors/{actor}/executions/{execution}/logs?follow=true");
    let mut stream = running.get(&path).send().await.unwrap();
    assert_eq!(stream.status(), StatusCode::OK);
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let appended = std::cell::Cell::new(0);
    let append = async |bytes: &[u8]| {
        let position = appended.replace(appended.get() + bytes.len() as u64);
        assert!(running.service.append_logs(&claim.key, position, bytes, false).await.unwrap());
    };
    append(b"one\r\n\xe2\x82").await;
    let first = read_until(&mut stream, "one").await;
    assert!(first.contains("event: log"), "{first}");
    assert!(first.contains(r#"{"text":"one\r\n"}"#), "{first}");
    assert!(first.contains("id: 1.5"), "{first}");
    // The rest of the character.
    append(b"\xac two").await;
    read_until(&mut stream, "\u{20ac} two").await;
    append(b"three").await;
    complete(&running, &claim, "").await;
    let last = read_until(&mut stream, "event: end").await;
    assert!(last.contains("three") && last.contains(r#""outcome":"succeeded""#), "{last}");
    while timeout(A_WHILE, stream.chunk()).await.expect("it ends").unwrap().is_some() {}

    let again = running.get(&path).header("Last-Event-ID", "1.5").send().await.unwrap();
    let rest = timeout(A_WHILE, again.text()).await.expect("it ends").unwrap();
    assert!(!rest.contains("one") && rest.contains("two") && rest.contains("three"), "{rest}");
}

#[tokio::test]
async fn who_follows_a_log_hears_that_it_begins_anew() {
    let running = start().await;
    let actor = running.register(json!({})).await;
    let execution = running.send(&actor, "x").await;
    let host = host(&running).await;
    let path = format!("/actors/{actor}/executions/{execution}/logs?follow=true");
    let first = claim(&running, &host).await;
    let append = async |claim: &Claim, bytes: &[u8]| {
        assert!(running.service.append_logs(&claim.key, 0, bytes, false).await.unwrap());
    };
    append(&first, b"of the first run").await;
    let mut stream = running.get(&path).send().await.unwrap();
    read_until(&mut stream, "of the first run").await;
    // As a drain does: the attempt is the same.
    assert!(running.service.release(&first.key).await.unwrap());
    let second = claim(&running, &host).await;
    append(&second, b"again").await;
    let anew = read_until(&mut stream, r#"{"text":"again"}"#).await;
    assert!(anew.contains("event: restart"), "{anew}");
    assert!(anew.contains("id: 2.5"), "{anew}");
    // Whoever lost the connection before.
    let mut again = running.get(&path).header("Last-Event-ID", "1.16").send().await.unwrap();
    let anew = read_until(&mut again, r#"{"text":"again"}"#).await;
    assert!(anew.contains("event: restart"), "{anew}");
}

#[tokio::test]
async fn one_user_cannot_have_all_places_of_those_who_wait() {
    let running = start_with(|config| config.waits_per_user = 1).await;
    let actor = running.register(json!({})).await;
    let execution = running.send(&actor, "x").await;
    let logs = format!("/actors/{actor}/executions/{execution}/logs?follow=true");
    let mut stream = running.get(&logs).send().await.unwrap();
    let synchronous = format!("/v3/actors/{actor}/messages?_abaco_synchronous=true");
    for request in [running.get(&logs), running.post(&synchronous).form(&[("message", "m")])] {
        let answer = request.send().await.unwrap();
        let (headers, _) = envelope(answer, StatusCode::TOO_MANY_REQUESTS).await;
        assert!(headers.contains_key("retry-after"));
    }
    // What was refused is not accepted, and others are not in the way.
    let messages = format!("/actors/{actor}/messages");
    assert_eq!(ok(running.get(&messages)).await["result"]["messages"], 1);
    let admin = running.token("root", "ABAX", &["admin"]);
    let other = running.stranger(Method::GET, &logs).bearer_auth(admin).send().await.unwrap();
    assert_eq!(other.status(), StatusCode::OK);
    assert_eq!(stream.status(), StatusCode::OK);
    let host = host(&running).await;
    let claim = claim(&running, &host).await;
    complete(&running, &claim, "output").await;
    while stream.chunk().await.unwrap().is_some() {}
    drop(stream);
    // The place is free when the stream is over.
    let again = running.get(&logs).send().await.unwrap();
    assert_eq!(again.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_stop_ends_streams() {
    let mut running = start_with(|config| config.drain = A_WHILE).await;
    let actor = running.register(json!({})).await;
    let execution = running.send(&actor, "x").await;
    let path = format!("/actors/{actor}/executions/{execution}/logs?follow=true");
    let mut stream = running.get(&path).send().await.unwrap();
    running.stop.cancel();
    while timeout(A_WHILE, stream.chunk()).await.expect("it ends").unwrap().is_some() {}
    timeout(A_WHILE, &mut running.server).await.expect("it stops").unwrap().unwrap();
}

#[tokio::test]
async fn a_synchronous_message_answers_with_the_output() {
    let running = start().await;
    let actor = running.register(json!({})).await;
    let host = host(&running).await;
    for (prefix, value, content_type) in [
        ("/actors/v2", "true", "text/html; charset=utf-8"),
        ("/v3/actors", "TRUE", "text/html; charset=utf-8"),
        ("/actors", "true", "text/plain; charset=utf-8"),
    ] {
        let path = format!("{prefix}/{actor}/messages?_abaco_synchronous={value}");
        let request = running.post(&path).form(&[("message", "hi")]).send();
        let work = async {
            let claim = claim(&running, &host).await;
            complete(&running, &claim, "Contents of MSG: hi\n").await;
        };
        let (answer, ()) = tokio::join!(request, work);
        let answer = answer.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{prefix}");
        assert_eq!(answer.headers()["content-type"], content_type);
        assert!(answer.headers().contains_key("x-execution-id"));
        assert_eq!(answer.text().await.unwrap(), "Contents of MSG: hi\n");
    }
}

#[tokio::test]
async fn a_synchronous_message_ends_with_an_envelope_where_there_is_no_output() {
    let running = start_with(|config| config.sync_deadline = Duration::from_millis(300)).await;
    let actor = running.register(json!({})).await;
    let path = |prefix: &str| format!("{prefix}/{actor}/messages?_abaco_synchronous=true");
    // Nobody works: 202 and where to look, for everybody.
    for prefix in PREFIXES {
        let answer = running.post(&path(prefix)).form(&[("message", "x")]).send().await.unwrap();
        let (headers, body) = envelope(answer, StatusCode::ACCEPTED).await;
        let own = body["result"]["_links"]["self"].as_str().unwrap();
        assert_eq!(headers["location"].to_str().unwrap(), own);
        assert!(own.contains("/executions/"), "{own}");
    }
    ok(running.delete(&format!("/actors/{actor}/messages"))).await;
    // It fails: an error that says why.
    let host = host(&running).await;
    for (prefix, status) in
        [("/actors", StatusCode::BAD_GATEWAY), ("/v3/actors", StatusCode::BAD_REQUEST)]
    {
        let request = running.post(&path(prefix)).form(&[("message", "x")]).send();
        let work = async {
            let claim = claim(&running, &host).await;
            let finish = Finish::new(Outcome::CouldNotStart, "no image busybox");
            running.service.finish(&claim.key, finish).await.unwrap();
        };
        let (answer, ()) = tokio::join!(request, work);
        let (_, body) = envelope(answer.unwrap(), status).await;
        assert!(body["message"].as_str().unwrap().contains("no image busybox"), "{body}");
    }
    // Another value does not wait.
    let path = format!("/actors/v2/{actor}/messages?_abaco_synchronous=1");
    ok(running.post(&path).form(&[("message", "x")])).await;
}

#[tokio::test]
async fn a_stop_answers_who_waits_with_where_to_look() {
    let mut running = start_with(|config| config.drain = A_WHILE).await;
    let actor = running.register(json!({})).await;
    let path = format!("/actors/{actor}/messages?_abaco_synchronous=true");
    let request = running.post(&path).form(&[("message", "x")]).send();
    let stop = async {
        let owner = abax_actors::Caller::new(
            abax_actors::Tenant::default(),
            "ada",
            abax_actors::Role::User,
        );
        timeout(A_WHILE, async {
            while running.service.message_count(&owner, &actor).await.unwrap() == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the message is accepted");
        running.stop.cancel();
    };
    let (answer, ()) = tokio::join!(request, stop);
    envelope(answer.unwrap(), StatusCode::ACCEPTED).await;
    timeout(A_WHILE, &mut running.server).await.expect("it stops").unwrap().unwrap();
}
