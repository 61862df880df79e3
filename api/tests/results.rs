//! What executions send back, over HTTP; and waiting for it.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod service;

use std::sync::Arc;
use std::time::Duration;

use abax_actors::{Claim, Finish, HostId, HostInfo, Outcome};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use service::{Running, envelope, expect, ok, start, start_with};

const LEASE: Duration = Duration::from_secs(30);

async fn host(running: &Running) -> HostId {
    let mut info = HostInfo::new("host", "1", 4);
    info.classes = running.service.config().queues.clone();
    running.service.register_host(info).await.unwrap()
}

async fn claim(running: &Running, host: &HostId) -> Claim {
    let classes = running.service.config().queues.clone();
    let delivery = running.service.receive(&classes, 1).await.unwrap();
    running.service.claim(delivery, host, LEASE).await.unwrap().unwrap()
}

async fn append(running: &Running, claim: &Claim, first: u64, results: &[&[u8]]) {
    let results: Vec<Arc<[u8]>> = results.iter().map(|result| Arc::from(*result)).collect();
    assert!(running.service.append_results(&claim.key, first, results).await.unwrap());
}

async fn finish(running: &Running, claim: &Claim, outcome: Outcome, output: &str) {
    let mut finish = Finish::new(outcome, "for a test");
    finish.output = output.into();
    assert!(running.service.finish(&claim.key, finish).await.unwrap());
}

/// Body of a raw answer, checked to be one.
async fn bytes(request: reqwest::RequestBuilder) -> Vec<u8> {
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "{}", answer.url());
    assert_eq!(answer.headers()["content-type"], "application/octet-stream");
    answer.bytes().await.unwrap().to_vec()
}

#[tokio::test]
async fn abacos_clients_read_results_until_there_is_none() {
    let running = start().await;
    let id = running.register(json!({})).await;
    let host = host(&running).await;
    for prefix in ["/actors/v2", "/v3/actors"] {
        let execution = running.send(&id, "x").await;
        let path = format!("{prefix}/{id}/executions/{execution}/results");
        assert_eq!(bytes(running.get(&path)).await, b"", "before there is one");
        let claim = claim(&running, &host).await;
        let large = vec![0x80; 131_072];
        append(&running, &claim, 1, &[b"one", &large, b"\0three\xff"]).await;
        finish(&running, &claim, Outcome::Succeeded, "").await;
        let head = running.by("ada", Method::HEAD, &path).send().await.unwrap();
        assert_eq!(head.status(), StatusCode::OK);
        for result in [&b"one"[..], &large, b"\0three\xff", b"", b""] {
            assert_eq!(bytes(running.get(&path)).await, result, "{prefix}");
        }
        let unknown = format!("{prefix}/{id}/executions/{id}/results");
        assert_eq!(bytes(running.get(&unknown)).await, b"");
        let stranger = running.by("eve", Method::GET, &path);
        expect(stranger, StatusCode::BAD_REQUEST).await;
    }
}

#[tokio::test]
async fn our_clients_list_results_and_read_them_by_number() {
    let running = start().await;
    let id = running.register(json!({})).await;
    let host = host(&running).await;
    let execution = running.send(&id, "x").await;
    let path = format!("/actors/{id}/executions/{execution}/results");
    assert_eq!(ok(running.get(&path)).await["result"], json!([]));
    let claim = claim(&running, &host).await;
    append(&running, &claim, 1, &[b"one", b"second"]).await;
    let listed = ok(running.get(&path)).await["result"].clone();
    assert_eq!(listed.as_array().unwrap().len(), 2);
    let second = &listed[1];
    assert_eq!((&second["number"], &second["size"]), (&json!(2), &json!(6)));
    assert_eq!(second["taken"], false);
    assert_eq!(second["_links"]["self"], running.url(&format!("{path}/2")).as_str());
    for prefix in ["/actors", "/actors/v2", "/v3/actors"] {
        let path = format!("{prefix}/{id}/executions/{execution}/results/2");
        assert_eq!(bytes(running.get(&path)).await, b"second", "{prefix}");
    }
    for number in ["0", "3", "-1", "x"] {
        let answer = expect(running.get(&format!("{path}/{number}")), StatusCode::NOT_FOUND).await;
        assert!(answer["message"].as_str().unwrap().contains(&execution), "{answer}");
    }
    // A client tells by it that there are no more, whatever prefix it uses.
    for prefix in ["/actors/v2", "/v3/actors"] {
        let path = format!("{prefix}/{id}/executions/{execution}/results/3");
        expect(running.get(&path), StatusCode::NOT_FOUND).await;
    }
    let unknown = format!("/actors/{id}/executions/{id}/results");
    expect(running.get(&unknown), StatusCode::NOT_FOUND).await;
}

#[tokio::test]
async fn who_waits_gets_the_first_result_while_the_execution_runs() {
    let running = start().await;
    let id = running.register(json!({})).await;
    let host = host(&running).await;
    for prefix in ["/actors", "/actors/v2", "/v3/actors"] {
        let path = format!("{prefix}/{id}/messages?_abaco_synchronous=TRUE");
        let request = running.post(&path).form(&[("message", "x")]);
        let (answer, claim) = tokio::join!(bytes(request), async {
            let claim = claim(&running, &host).await;
            append(&running, &claim, 1, &[b"first\xff", b"second"]).await;
            claim
        });
        assert_eq!(answer, b"first\xff", "{prefix}");
        finish(&running, &claim, Outcome::Succeeded, "").await;
        let execution = claim.key.execution.to_string();
        let path = format!("/v3/actors/{id}/executions/{execution}/results");
        assert_eq!(bytes(running.get(&path)).await, b"second");
    }
}

#[tokio::test]
async fn who_can_wait_no_longer_hears_that_the_message_was_accepted() {
    let running = start().await;
    let id = running.register(json!({})).await;
    let share = async |level: &str| {
        let entry = json!({ "user": "bob", "level": level });
        ok(running.post(&format!("/actors/{id}/permissions")).json(&entry)).await;
    };
    share("EXECUTE").await;
    let host = host(&running).await;
    let path = format!("/actors/{id}/messages?_abaco_synchronous=true");
    let request = running.by("bob", Method::POST, &path).form(&[("message", "x")]);
    let (answer, claim) = tokio::join!(request.send(), async {
        let claim = claim(&running, &host).await;
        share("NONE").await;
        claim
    });
    let (headers, body) = envelope(answer.unwrap(), StatusCode::ACCEPTED).await;
    assert_eq!(body["result"]["executionId"], claim.key.execution.as_str());
    assert!(headers.contains_key("location"));
}

#[tokio::test]
async fn who_waits_gets_the_output_where_there_is_no_result() {
    let running = start().await;
    let id = running.register(json!({})).await;
    let host = host(&running).await;
    let path = format!("/actors/v2/{id}/messages?_abaco_synchronous=true");
    let send = || running.post(&path).form(&[("message", "x")]);
    let (answer, ()) = tokio::join!(send().send(), async {
        let claim = claim(&running, &host).await;
        finish(&running, &claim, Outcome::Failed, "Contents of MSG: x").await;
    });
    let answer = answer.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["content-type"], "text/html; charset=utf-8");
    assert_eq!(answer.text().await.unwrap(), "Contents of MSG: x");

    let (answer, ()) = tokio::join!(send().send(), async {
        let claim = claim(&running, &host).await;
        finish(&running, &claim, Outcome::CouldNotStart, "").await;
    });
    let (_, body) = envelope(answer.unwrap(), StatusCode::BAD_REQUEST).await;
    assert!(body["message"].as_str().unwrap().contains("for a test"), "{body}");
}

#[tokio::test]
async fn who_waits_in_vain_hears_where_to_look() {
    let running = start_with(|config| config.sync_deadline = Duration::from_millis(200)).await;
    let id = running.register(json!({})).await;
    let path = format!("/v3/actors/{id}/messages?_abaco_synchronous=true");
    let body = expect(running.post(&path).form(&[("message", "x")]), StatusCode::ACCEPTED).await;
    assert_ne!(body["result"]["execution_id"], Value::Null);
    // Any other value does not wait.
    let path = format!("/v3/actors/{id}/messages?_abaco_synchronous=1");
    ok(running.post(&path).form(&[("message", "x")])).await;
}

#[tokio::test]
async fn bytes_are_a_message_of_their_own() {
    let running = start().await;
    let id = running.register(json!({})).await;
    let host = host(&running).await;
    for prefix in ["/actors/v2", "/v3/actors"] {
        let body: Vec<u8> = (0..=255).cycle().take(1_000_000).collect();
        let request = running
            .post(&format!("{prefix}/{id}//messages?k=v"))
            .header("content-type", "application/octet-stream")
            .body(body.clone());
        assert_eq!(ok(request).await["result"]["msg"], "binary - omitted");
        let claim = claim(&running, &host).await;
        assert_eq!(claim.message.body, abax_actors::MessageBody::Binary(body.into()));
        assert!(claim.environment.contains(&("k".to_owned(), "v".to_owned())));
        finish(&running, &claim, Outcome::Succeeded, "").await;
    }
}

#[tokio::test]
async fn the_header_of_a_gateways_assertion_is_told_to_the_container() {
    let running = start().await;
    let id = running.register(json!({})).await;
    let host = host(&running).await;
    let path = format!("/actors/v2/{id}/messages?message=x");
    let token = running.token("ada", "ABAX", &[]);
    ok(running.stranger(Method::POST, &path).header("x-jwt-assertion-abax", token)).await;
    let claimed = claim(&running, &host).await;
    let header = ("_abaco_jwt_header_name".to_owned(), "X-Jwt-Assertion-Abax".to_owned());
    assert!(claimed.environment.contains(&header));
    finish(&running, &claimed, Outcome::Succeeded, "").await;

    running.send(&id, "x").await;
    let claimed = claim(&running, &host).await;
    assert!(claimed.environment.iter().all(|(name, _)| name != "_abaco_jwt_header_name"));
}
