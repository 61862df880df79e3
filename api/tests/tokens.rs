//! Tokens of executions, with which they act for the owner of their actor.
#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod service;

use std::time::Duration;

use abax_actors::{Claim, Clock, Finish, HostInfo, Outcome, Time};
use reqwest::{Method, StatusCode};
use secrecy::ExposeSecret;
use serde_json::json;
use service::{Running, expect, ok, start_at};
use tokio::time::timeout;

const A_WHILE: Duration = Duration::from_secs(30);

/// The next execution, as a worker takes it, and the token that its container gets.
async fn claim(running: &Running) -> (Claim, String) {
    let service = &running.service;
    let host = service.register_host(HostInfo::new("test", "0", 8)).await.unwrap();
    let claim = timeout(A_WHILE, async {
        loop {
            let delivery = service.receive(&["default".to_owned()], 1).await.unwrap();
            if let Some(claim) = service.claim(delivery, &host, A_WHILE).await.unwrap() {
                return claim;
            }
        }
    });
    let claim = claim.await.expect("an execution waits");
    let (now, hours) = (service.clock().now(), Duration::from_secs(4 * 3600));
    let token = running.keys.mint_for(&claim.key, "ada", "ABAX", now, hours);
    (claim, token.expose_secret().to_owned())
}

#[tokio::test]
async fn a_token_of_an_execution_ends_with_it() {
    let clock = Clock::standing_at(Time::from_micros(1_800_000_000_000_000));
    let running = start_at(clock.clone(), |_| {}).await;
    let list = |token: &str| running.stranger(Method::GET, "/actors").bearer_auth(token);
    for end in ["finished", "halted", "deleted"] {
        let actor = running.register(json!({})).await;
        let execution = running.send(&actor, "x").await;
        let (claim, token) = claim(&running).await;
        ok(list(&token)).await;
        match end {
            "deleted" => {
                ok(running.delete(&format!("/actors/{actor}"))).await;
            }
            "halted" => {
                let path = format!("/actors/{actor}/executions/{execution}");
                ok(running.delete(&path)).await;
            }
            _ => {}
        }
        let outcome = if end == "finished" { Outcome::Succeeded } else { Outcome::Cancelled };
        running.service.finish(&claim.key, Finish::new(outcome, "")).await.unwrap();
        if end == "deleted" {
            running.service.sweep().await.unwrap();
        } else {
            // What it asked for before its end may still be on its way.
            ok(list(&token)).await;
        }
        clock.advance(Duration::from_secs(61));
        let refused = expect(list(&token), StatusCode::UNAUTHORIZED).await;
        let said = refused["message"].as_str().unwrap();
        assert!(said.contains("ended"), "{end}: {said}");
    }
}
