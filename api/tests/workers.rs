//! Workers over HTTP: list, show, ask for more, stop.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod service;

use abax_actors::{HostId, HostInfo};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use service::{PREFIXES, Running, expect, ok, start};

async fn host(running: &Running) -> HostId {
    let queues = running.service.config().queues.clone();
    let address = Some([10, 1, 0, 7].into());
    let info = HostInfo { classes: queues, address, ..HostInfo::new("node-1", "1", 4) };
    running.service.register_host(info).await.unwrap()
}

fn by_admin(running: &Running, method: Method, path: &str) -> RequestBuilder {
    running.stranger(method, path).bearer_auth(running.token("root", "ABAX", &["admin"]))
}

/// A stateful actor of ada's with one worker.
async fn ready(running: &Running) -> String {
    let id = running.register(json!({"stateless": false})).await;
    let queues = running.service.config().queues.clone();
    let preparation = running.service.receive_preparation(&queues).await.unwrap();
    assert_eq!(preparation.actor.id.as_str(), id);
    let host = host(running).await;
    assert!(running.service.actor_ready(&preparation.actor.id, 1, &host).await.unwrap());
    id
}

#[tokio::test]
async fn workers_have_what_clients_look_for() {
    let running = start().await;
    let id = ready(&running).await;
    for prefix in PREFIXES {
        let path = format!("{prefix}/{id}/workers");
        let list = ok(running.get(&path)).await;
        let workers = list["result"].as_array().unwrap();
        assert_eq!(workers.len(), 1, "{prefix}: {list}");
        let worker = &workers[0];
        let is_camel = prefix != "/v3/actors";
        let name = |snake: &'static str, camel: &'static str| if is_camel { camel } else { snake };
        assert_eq!(worker["status"], "READY", "{prefix}");
        assert_eq!(worker["image"], "busybox", "{prefix}");
        assert_eq!(worker["tenant"], "ABAX", "{prefix}");
        for truthy in [name("ch_name", "chName"), "location", "cid", name("host_id", "hostId")] {
            assert!(worker[truthy].as_str().is_some_and(|text| !text.is_empty()), "{truthy}");
        }
        // Abaco says in a word that it never was.
        let never = if prefix == "/actors" { Value::Null } else { json!("None") };
        assert_eq!(worker[name("last_execution_time", "lastExecutionTime")], never, "{prefix}");
        let seen = worker[name("last_health_check_time", "lastHealthCheckTime")].as_str().unwrap();
        assert!(seen.ends_with('Z'), "{seen}");
        assert_eq!(worker[name("host_ip", "hostIp")], "10.1.0.7", "{prefix}");
        let one = format!("{path}/{}", worker["id"].as_str().unwrap());
        assert_eq!(&ok(running.get(&one)).await["result"], worker, "{prefix}");
        let unknown = expect(running.get(&format!("{path}/nobody")), StatusCode::NOT_FOUND).await;
        assert_eq!(unknown["message"], "Worker not found.", "{prefix}");
        // A body is no search.
        ok(running.get(&path).form(&[("num", "1")])).await;
        for method in [Method::PUT, Method::PATCH] {
            expect(running.by("ada", method, &path), StatusCode::METHOD_NOT_ALLOWED).await;
        }
        expect(running.post(&one), StatusCode::METHOD_NOT_ALLOWED).await;
    }
}

#[tokio::test]
async fn admins_ask_for_workers_and_owners_stop_them() {
    let running = start().await;
    let id = ready(&running).await;
    for (prefix, refused) in PREFIXES.iter().zip([
        StatusCode::FORBIDDEN,
        StatusCode::BAD_REQUEST,
        StatusCode::BAD_REQUEST,
    ]) {
        let path = format!("{prefix}/{id}/workers");
        let answer = expect(running.post(&path).form(&[("num", "2")]), refused).await;
        let message = answer["message"].as_str().unwrap();
        assert!(message.contains("only admins are authorized to update workers"), "{message}");
    }
    let path = format!("/actors/v2/{id}/workers");
    let ask = async |request: RequestBuilder| {
        let answer = ok(request).await;
        assert_eq!(answer["result"], Value::Null);
        answer["message"].as_str().unwrap().to_owned()
    };
    let asks = || by_admin(&running, Method::POST, &path);
    let workers = async || {
        let list = ok(running.get(&path)).await;
        let ids = list["result"].as_array().unwrap().iter();
        ids.map(|worker| worker["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ask(asks()).await, "Actor already had 1 worker(s).");
    assert_eq!(ask(asks().form(&[("num", "0")])).await, "Actor already had 1 worker(s).");
    let message = ask(asks().form(&[("num", "2")])).await;
    assert_eq!(message, "Scheduled 1 new worker(s) to start. There were 1 before.");
    assert_eq!(ask(asks().json(&json!({"num": 2}))).await, "Actor already had 2 worker(s).");
    let both = workers().await;
    assert_eq!(both.len(), 2);
    expect(asks().form(&[("num", "many")]), StatusCode::BAD_REQUEST).await;
    expect(asks().form(&[("num", "1001")]), StatusCode::BAD_REQUEST).await;

    let stopped = ok(running.delete(&format!("{path}/{}", both[0]))).await;
    assert_eq!(stopped["message"], "Worker scheduled to be stopped.");
    assert_eq!(stopped["result"], Value::Null);
    assert_eq!(workers().await, both[1..]);
    expect(running.delete(&format!("{path}/{}", both[0])), StatusCode::NOT_FOUND).await;
}
