//! Sending, counting and purging messages over HTTP.

mod service;

use reqwest::StatusCode;
use serde_json::{Value, json};
use service::{PREFIXES, envelope, expect, ok, start, start_with};

#[tokio::test]
async fn a_message_is_acknowledged_with_its_execution() {
    let running = start().await;
    let id = running.register(json!({})).await;
    for (prefix, status, key) in [
        ("/actors", StatusCode::ACCEPTED, "executionId"),
        ("/actors/v2", StatusCode::OK, "executionId"),
        ("/v3/actors", StatusCode::OK, "execution_id"),
        ("/v3/actors", StatusCode::OK, "executionId"),
    ] {
        let path = format!("{prefix}/{id}/messages");
        let answer = running.post(&path).form(&[("message", "testing execution")]).send().await;
        let (headers, body) = envelope(answer.unwrap(), status).await;
        let result = &body["result"];
        assert_eq!(result["msg"], "testing execution", "{prefix}");
        let execution = result[key].as_str().unwrap_or_else(|| panic!("{prefix}: {body}"));
        let own = running.url(&format!("{prefix}/{id}/executions/{execution}"));
        assert_eq!(result["_links"]["self"], own.as_str());
        assert_eq!(result["_links"]["messages"], running.url(&path).as_str());
        assert_eq!(headers.contains_key("location"), prefix == "/actors");
    }
    assert_eq!(ok(running.get(&format!("/actors/{id}/messages"))).await["result"]["messages"], 4);
}

#[tokio::test]
async fn what_decides_the_kind_of_a_message() {
    let running = start().await;
    let id = running.register(json!({})).await;
    let path = format!("/v3/actors/{id}/messages");
    let post = |content_type: &'static str, query: &str, body: &'static str| {
        running.post(&format!("{path}{query}")).header("content-type", content_type).body(body)
    };
    for (content_type, query, body, expected) in [
        ("application/json", "", r#"{"a": 1}"#, json!({"a": 1})),
        ("application/json", "", "[1, 2]", json!([1, 2])),
        ("application/json", "", "\"text\"", json!("text")),
        ("application/json", "", r#"{"message": {"k": true}, "o": 1}"#, json!("{'k': True}")),
        ("application/json", "", r#"{"message": ""}"#, json!({"message": ""})),
        (
            "application/json",
            "",
            r#"{"queue": "x", "privileged": true}"#,
            json!({"queue": "x", "privileged": true}),
        ),
        ("application/json", "", "{}", json!({})),
        ("text/plain", "", "{\"a\": 2}", json!({"a": 2})),
        ("application/x-www-form-urlencoded", "", "message=a+b", json!("a b")),
        ("application/x-www-form-urlencoded", "?message=query", "message=form", json!("query")),
        ("text/plain", "?message=query", "anything", json!("query")),
        ("application/json", "?message=query", "{\"message\": \"\"}", json!("query")),
    ] {
        let answer = ok(post(content_type, query, body)).await;
        assert_eq!(answer["result"]["msg"], expected, "{content_type} {query} {body}");
    }
    ok(running.post(&format!("{path}?message=x"))).await;
    expect(post("application/json", "?message=x", "{\"a\":"), StatusCode::BAD_REQUEST).await;
    for (content_type, body) in [
        ("application/x-www-form-urlencoded", "other=1"),
        ("text/plain", "no JSON"),
        ("application/json", "{\"a\":"),
        ("application/json", ""),
    ] {
        expect(post(content_type, "", body), StatusCode::BAD_REQUEST).await;
    }
}

#[tokio::test]
async fn slashes_that_clients_add_do_no_harm() {
    let running = start().await;
    let id = running.register(json!({})).await;
    for path in [
        format!("//v3/actors/{id}//messages"),
        format!("/v3/actors/{id}///messages"),
        format!("/actors//v2/{id}/messages/"),
    ] {
        ok(running.post(&path).json(&json!({"message": "x"}))).await;
    }
}

#[tokio::test]
async fn query_parameters_become_environment_unless_they_could_hijack() {
    let running = start().await;
    let id = running.register(json!({})).await;
    let path = format!("/actors/v2/{id}/messages");
    let ok_query = "?key1=val&x-nonce=secret&environment=key1&_abaco_synchronous=1";
    ok(running.post(&format!("{path}{ok_query}")).json(&json!({"message": "m"}))).await;
    for name in ["PATH", "LD_PRELOAD", "MSG", "_abaco_actor_id"] {
        let request = running.post(&format!("{path}?{name}=x")).json(&json!({"message": "m"}));
        let answer = expect(request, StatusCode::BAD_REQUEST).await;
        assert!(answer["message"].as_str().unwrap().contains(name), "{answer}");
    }
}

#[tokio::test]
async fn large_messages_are_refused_when_they_are_posted() {
    let running = start().await;
    let id = running.register(json!({})).await;
    let large = "x".repeat(200_000);
    for (prefix, status) in PREFIXES.iter().zip([
        StatusCode::PAYLOAD_TOO_LARGE,
        StatusCode::BAD_REQUEST,
        StatusCode::BAD_REQUEST,
    ]) {
        let path = format!("{prefix}/{id}/messages");
        expect(running.post(&path).json(&json!({"message": large})), status).await;
    }
    let count = ok(running.get(&format!("/actors/{id}/messages"))).await;
    assert_eq!(count["result"]["messages"], 0);
}

#[tokio::test]
async fn bodies_beyond_the_limit_are_refused_in_every_dialect() {
    let running = start_with(|config| {
        config.message_limit_bytes = 10_000;
        config.body_limit_bytes = 10_000;
    })
    .await;
    let id = running.register(json!({})).await;
    let large = "x".repeat(3_000_000);
    for prefix in PREFIXES {
        for path in [prefix.to_owned(), format!("{prefix}/{id}/messages")] {
            let request = running.post(&path).json(&json!({"image": large}));
            expect(request, StatusCode::PAYLOAD_TOO_LARGE).await;
        }
    }
    let limit = running.service.config().max_binary_bytes;
    for (prefix, status) in PREFIXES.iter().zip([
        StatusCode::PAYLOAD_TOO_LARGE,
        StatusCode::BAD_REQUEST,
        StatusCode::BAD_REQUEST,
    ]) {
        let binary = running
            .post(&format!("{prefix}/{id}/messages"))
            .header("content-type", "application/octet-stream")
            .body(vec![0; limit + 1]);
        let message = expect(binary, status).await["message"].clone();
        assert_eq!(message, format!("Message exceeds max content length of: {limit}"));
    }
}

#[tokio::test]
async fn a_purge_empties_the_mailbox_and_settles_the_executions() {
    let running = start().await;
    let id = running.register(json!({})).await;
    let execution = running.send(&id, "x").await;
    let purged = ok(running.delete(&format!("/actors/v2/{id}/messages"))).await;
    assert_eq!(purged["result"]["msg"], "Actor mailbox purged.");
    let count = ok(running.get(&format!("/actors/v2/{id}/messages"))).await;
    assert_eq!(count["result"]["messages"], 0);
    let execution = ok(running.get(&format!("/actors/v2/{id}/executions/{execution}"))).await;
    assert_eq!(execution["result"]["status"], "ERROR");
    assert_eq!(execution["result"]["outcome"], "cancelled");
    assert_ne!(execution["result"]["reason"], Value::Null);
}
