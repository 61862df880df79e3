//! Schedules, links and webhooks over HTTP; and webhooks as their receivers see them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod service;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use abax_actors::{Finish, HostInfo, Outcome};
use axum::Router;
use axum::http::{HeaderMap, StatusCode as Status};
use axum::routing::post;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::StatusCode;
use serde_json::{Value, json};
use service::{PREFIXES, Running, expect, ok, start, start_with};

const REFUSED: [StatusCode; 3] =
    [StatusCode::UNPROCESSABLE_ENTITY, StatusCode::BAD_REQUEST, StatusCode::BAD_REQUEST];

/// Whoever receives webhooks, and what came.
#[derive(Clone, Default)]
struct Receiver(Arc<Mutex<Received>>);

#[derive(Default)]
struct Received {
    came: Vec<(HeaderMap, String)>,
    /// What is answered first; 204 afterwards.
    answers: Vec<Status>,
}

impl Receiver {
    async fn start(answers: &[Status]) -> (Self, String) {
        let receiver = Self::default();
        receiver.0.lock().unwrap().answers = answers.to_vec();
        let takes = receiver.clone();
        let app = Router::new().route(
            "/hook",
            post(move |headers: HeaderMap, body: String| async move {
                let mut received = takes.0.lock().unwrap();
                received.came.push((headers, body));
                let moved = [("location", "http://127.0.0.1:1/")];
                match received.answers.is_empty() {
                    true => (Status::NO_CONTENT, moved),
                    false => (received.answers.remove(0), moved),
                }
            }),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        (receiver, format!("http://{address}/hook"))
    }

    async fn came(&self, count: usize) -> Vec<(HeaderMap, String)> {
        let began = Instant::now();
        loop {
            let came = self.0.lock().unwrap().came.clone();
            if came.len() >= count {
                return came;
            }
            assert!(began.elapsed() < Duration::from_secs(30), "{} came", came.len());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn make_ready(running: &Running, id: &str) {
    let queues = running.service.config().queues.clone();
    let info = HostInfo { classes: queues.clone(), ..HostInfo::new("node-1", "1", 4) };
    let host = running.service.register_host(info).await.unwrap();
    loop {
        let preparation = running.service.receive_preparation(&queues).await.unwrap();
        let actor = preparation.actor.clone();
        running.service.actor_ready(&actor.id, actor.revision, &host).await.unwrap();
        if actor.id.as_str() == id {
            return;
        }
    }
}

/// The deliveries of ada's actor, when none is under way any more.
async fn deliveries(running: &Running, id: &str) -> Vec<Value> {
    let began = Instant::now();
    loop {
        let list = ok(running.get(&format!("/actors/{id}/deliveries"))).await;
        let list = list["result"].as_array().unwrap().clone();
        let tried = |d: &Value| d["status"] != "waiting" || d["lastError"] != Value::Null;
        if !list.is_empty() && list.iter().all(tried) {
            return list;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{list:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn schedules_are_echoed_and_bad_ones_refused() {
    let running = start().await;
    for (prefix, refused) in PREFIXES.iter().zip(REFUSED) {
        let is_snake = *prefix == "/v3/actors";
        let (schedule, on, next) = match is_snake {
            true => ("cron_schedule", "cron_on", "cron_next_ex"),
            false => ("cronSchedule", "cronOn", "cronNextEx"),
        };
        let form = [("image", "busybox"), (schedule, "2078-10-1 23 + 6 hours")];
        let answer = running.post(prefix).form(&form).send().await.unwrap();
        assert!(answer.status().is_success());
        let actor = answer.json::<Value>().await.unwrap()["result"].clone();
        assert_eq!(actor[schedule], "2078-10-1 23 + 6 hours", "{prefix}");
        assert_eq!((&actor[on], &actor[next]), (&json!(true), &json!("2078-10-1 23")));
        let path = format!("{prefix}/{}", actor["id"].as_str().unwrap());
        let body = json!({"image": "busybox", schedule: "2078-09-6 20 + 3 months", on: true});
        let updated = ok(running.put(&path).json(&body)).await["result"].clone();
        assert_eq!(updated[schedule], "2078-09-6 20 + 3 months", "{prefix}");
        let body = json!({"image": "busybox", on: false});
        let updated = ok(running.put(&path).json(&body)).await["result"].clone();
        assert_eq!(updated[on], false, "{prefix}");
        for (bad, begins) in [
            ("2020-06-21 14 + 6 hours", "The starting datetime is old"),
            ("2020-06-21 14 + 6 flimflams", "The cron schedule is not in the correct format"),
            ("2078-02-30 14 + 6 hours", "The cron schedule is not in the correct format"),
        ] {
            let body = json!({"image": "busybox", schedule: bad});
            for request in [running.post(prefix), running.put(&path)] {
                let answer = expect(request.json(&body), refused).await;
                let message = answer["message"].as_str().unwrap();
                assert!(message.starts_with(begins), "{prefix}: {message}");
                assert!(message.contains(schedule), "{prefix}: {message}");
            }
        }
    }
}

#[tokio::test]
async fn links_that_cannot_be_are_refused() {
    let running = start().await;
    let target = running.register(json!({})).await;
    let actor = running.register(json!({"link": target})).await;
    for (prefix, refused) in PREFIXES.iter().zip(REFUSED) {
        for (id, link, text) in [
            (&target, actor.as_str(), "this update would result in a cycle of linked actors"),
            (&target, target.as_str(), "itself"),
            (&actor, "nobody", "nobody"),
        ] {
            let body = json!({"image": "busybox", "link": link});
            let request = running.put(&format!("{prefix}/{id}")).json(&body);
            let answer = expect(request, refused).await;
            let message = answer["message"].as_str().unwrap();
            assert!(message.starts_with("Invalid link parameter"), "{message}");
            assert!(message.contains(text), "{message}");
        }
    }
}

#[tokio::test]
async fn a_webhook_gets_signed_events_and_is_tried_again() {
    let running =
        start_with(|config| config.webhook_networks = vec!["127.0.0.0/8".parse().unwrap()]).await;
    let (receiver, url) = Receiver::start(&[Status::SERVICE_UNAVAILABLE]).await;
    let id = running.register(json!({"webhook": format!("{url}?key=1")})).await;
    make_ready(&running, &id).await;
    let first = receiver.came(1).await.remove(0);
    // The second try comes five seconds after the first.
    let (headers, body) = receiver.came(2).await.remove(1);
    assert_eq!(first.1, body);
    assert_eq!(first.0["webhook-id"], headers["webhook-id"], "so that it can be told apart");
    assert_eq!(headers["content-type"], "application/json");
    let event: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(event["event_type"], "ACTOR_READY");
    assert_eq!(event["actor_id"], id);
    assert_eq!(event["_abaco_username"], "Abaco Event");

    let webhook = ok(running.get(&format!("/actors/{id}/webhook"))).await["result"].clone();
    assert_eq!(webhook["url"], format!("{url}?key=1"));
    let secret = webhook["signingSecret"].as_str().unwrap();
    let secret = BASE64_STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let text = |name: &str| headers[name].to_str().unwrap();
    let signed = format!("{}.{}.{body}", text("webhook-id"), text("webhook-timestamp"));
    let key = jsonwebtoken::EncodingKey::from_secret(&secret);
    let algorithm = jsonwebtoken::Algorithm::HS256;
    let hash = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, algorithm).unwrap();
    let hash = base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(hash).unwrap();
    assert_eq!(text("webhook-signature"), format!("v1,{}", BASE64_STANDARD.encode(hash)));

    let began = Instant::now();
    let delivered = loop {
        let last = deliveries(&running, &id).await.remove(0);
        if last["status"] == "delivered" {
            break last;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{last}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!((&delivered["attempts"], &delivered["lastStatus"]), (&json!(2), &json!(204)));
    assert_eq!(delivered["payload"]["event_type"], "ACTOR_READY");
}

#[tokio::test]
async fn private_addresses_are_not_called_however_they_are_written() {
    let running = start().await;
    let (receiver, url) = Receiver::start(&[]).await;
    let port = url.rsplit(':').next().unwrap().to_owned();
    for host in ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0x7f.1", "2130706433"] {
        let id = running.register(json!({"webhook": format!("http://{host}:{port}")})).await;
        make_ready(&running, &id).await;
        let refused = deliveries(&running, &id).await.remove(0);
        assert_eq!(refused["status"], "given_up", "{host}: {refused}");
        let error = refused["lastError"].as_str().unwrap();
        assert!(error.contains("no public address"), "{host}: {error}");
    }
    assert!(receiver.0.lock().unwrap().came.is_empty());
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let running =
        start_with(|config| config.webhook_networks = vec!["127.0.0.1/32".parse().unwrap()]).await;
    let (_receiver, url) = Receiver::start(&[Status::TEMPORARY_REDIRECT]).await;
    let id = running.register(json!({"webhook": url})).await;
    make_ready(&running, &id).await;
    let tried = deliveries(&running, &id).await.remove(0);
    assert_eq!((&tried["status"], &tried["lastStatus"]), (&json!("waiting"), &json!(307)));
}

#[tokio::test]
async fn the_service_itself_may_be_called() {
    // As an actor's messages are, with a nonce in the address.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let running = start_with(|config| config.api_server = Some(format!("http://{address}"))).await;
    let (receiver, app) = (Receiver::default(), address);
    let takes = receiver.clone();
    let routes = Router::new().route(
        "/actors/x/messages",
        post(move |headers: HeaderMap, body: String| async move {
            takes.0.lock().unwrap().came.push((headers, body));
        }),
    );
    let listener = tokio::net::TcpListener::bind(app).await.unwrap();
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    let url = format!("http://{address}/actors/x/messages?x-nonce=ABAX_1");
    let id = running.register(json!({"webhook": url})).await;
    make_ready(&running, &id).await;
    let (_, body) = receiver.came(1).await.remove(0);
    assert!(body.contains(r#""event_type":"ACTOR_READY""#), "{body}");
}

#[tokio::test]
async fn a_receiver_that_is_silent_is_not_called_for_each_event() {
    let running =
        start_with(|config| config.webhook_networks = vec!["127.0.0.1/32".parse().unwrap()]).await;
    let receiver = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", receiver.local_addr().unwrap());
    let id = running.register(json!({"webhook": url})).await;
    make_ready(&running, &id).await;
    let (called, _) = receiver.accept().await.unwrap();
    // It says nothing, and more happens meanwhile.
    let queues = running.service.config().queues.clone();
    let info = HostInfo { classes: queues.clone(), ..HostInfo::new("node-2", "1", 4) };
    let host = running.service.register_host(info).await.unwrap();
    for _ in 0..2 {
        running.send(&id, "x").await;
        let delivery = running.service.receive(&queues, 1).await.unwrap();
        let lease = Duration::from_secs(30);
        let claim = running.service.claim(delivery, &host, lease).await.unwrap().unwrap();
        let finish = Finish::new(Outcome::Succeeded, "");
        assert!(running.service.finish(&claim.key, finish).await.unwrap());
    }
    drop(called);
    let tried = deliveries(&running, &id).await;
    assert_eq!(tried.len(), 3);
    let spared = |delivery: &&Value| {
        delivery["lastError"].as_str().unwrap().contains("the one before it had no answer")
    };
    assert_eq!(tried.iter().filter(spared).count(), 2, "{tried:?}");
}
