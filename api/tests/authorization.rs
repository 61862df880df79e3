//! Who gets an answer: tokens, tenants, owners, and a case for every route.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod service;

use std::collections::BTreeSet;
use std::time::Duration;

use abax_actors::{Clock, Time};
use abax_api::{Access, Keys, route_table};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use reqwest::{Method, StatusCode};
use secrecy::ExposeSecret;
use serde_json::json;
use service::{PREFIXES, Running, envelope, expect, ok, start, start_at};

/// Status for no or bad credentials, per prefix.
const UNAUTHENTICATED: [StatusCode; 3] =
    [StatusCode::UNAUTHORIZED, StatusCode::BAD_REQUEST, StatusCode::BAD_REQUEST];

/// What a caller who has no part in an actor gets, per route and prefix: a route
/// that is not listed here fails the walk below.
fn stranger_cases() -> Vec<(Method, &'static str, [StatusCode; 3])> {
    let refused = [StatusCode::NOT_FOUND, StatusCode::BAD_REQUEST, StatusCode::BAD_REQUEST];
    // They exist for everybody, and are for admins.
    let forbidden = [StatusCode::FORBIDDEN, StatusCode::BAD_REQUEST, StatusCode::BAD_REQUEST];
    let own = [StatusCode::OK; 3];
    vec![
        (Method::GET, "/actors", own),
        (Method::POST, "/actors", [StatusCode::CREATED, StatusCode::OK, StatusCode::OK]),
        // They show what is shared with the caller, and numbers without names.
        (Method::GET, "/actors/search/{collection}", own),
        (Method::GET, "/actors/utilization", own),
        (Method::GET, "/actors/admin", forbidden),
        (Method::GET, "/actors/admin/workers", forbidden),
        (Method::GET, "/actors/admin/executions", forbidden),
        (Method::GET, "/actors/{actor}", refused),
        (Method::PUT, "/actors/{actor}", refused),
        (Method::DELETE, "/actors/{actor}", refused),
        (Method::GET, "/actors/{actor}/state", refused),
        (Method::POST, "/actors/{actor}/state", refused),
        (Method::GET, "/actors/{actor}/messages", refused),
        (Method::POST, "/actors/{actor}/messages", refused),
        (Method::DELETE, "/actors/{actor}/messages", refused),
        (Method::GET, "/actors/{actor}/executions", refused),
        (Method::GET, "/actors/{actor}/executions/{execution}", refused),
        (Method::DELETE, "/actors/{actor}/executions/{execution}", refused),
        (Method::GET, "/actors/{actor}/executions/{execution}/logs", refused),
        (Method::GET, "/actors/{actor}/workers", refused),
        (Method::POST, "/actors/{actor}/workers", refused),
        (Method::GET, "/actors/{actor}/workers/{worker}", refused),
        (Method::DELETE, "/actors/{actor}/workers/{worker}", refused),
        (Method::GET, "/actors/{actor}/deliveries", refused),
        (Method::GET, "/actors/{actor}/webhook", refused),
        (Method::GET, "/actors/{actor}/executions/{execution}/results", refused),
        (Method::GET, "/actors/{actor}/executions/{execution}/results/{number}", refused),
        (Method::GET, "/actors/{actor}/permissions", refused),
        (Method::POST, "/actors/{actor}/permissions", refused),
        (Method::GET, "/actors/{actor}/nonces", refused),
        (Method::POST, "/actors/{actor}/nonces", refused),
        (Method::GET, "/actors/{actor}/nonces/{nonce}", refused),
        (Method::DELETE, "/actors/{actor}/nonces/{nonce}", refused),
        (Method::GET, "/actors/aliases", own),
        (Method::POST, "/actors/aliases", refused),
        (Method::GET, "/actors/aliases/{alias}", refused),
        (Method::PUT, "/actors/aliases/{alias}", refused),
        (Method::DELETE, "/actors/aliases/{alias}", refused),
        (Method::GET, "/actors/aliases/{alias}/permissions", refused),
        (Method::POST, "/actors/aliases/{alias}/permissions", refused),
        (Method::GET, "/actors/aliases/{alias}/nonces", refused),
        (Method::POST, "/actors/aliases/{alias}/nonces", refused),
        (Method::GET, "/actors/aliases/{alias}/nonces/{nonce}", refused),
        (Method::DELETE, "/actors/aliases/{alias}/nonces/{nonce}", refused),
        (Method::GET, "/actors/configs", own),
        (Method::POST, "/actors/configs", refused),
        (Method::GET, "/actors/configs/{config}", refused),
        (Method::PUT, "/actors/configs/{config}", refused),
        (Method::DELETE, "/actors/configs/{config}", refused),
        (Method::GET, "/actors/configs/{config}/permissions", refused),
        (Method::POST, "/actors/configs/{config}/permissions", refused),
    ]
}

/// Routes that anybody may ask.
const OPEN: [&str; 7] =
    ["/", "/health", "/healthz", "/readyz", "/metrics", "/v3/sites", "/v3/tenants"];

/// Something of ada's behind every name of the route table.
struct Things {
    actor: String,
    execution: String,
    nonce: String,
}

impl Things {
    async fn of(running: &Running) -> Self {
        let actor = running.register(json!({"stateless": false})).await;
        let execution = running.send(&actor, "x").await;
        let nonces = format!("/actors/{actor}/nonces");
        let nonce = expect(running.post(&nonces), StatusCode::CREATED).await;
        let alias = json!({"alias": "adas", "actorId": actor});
        expect(running.post("/actors/aliases").json(&alias), StatusCode::CREATED).await;
        let config = json!({"name": "adas", "value": "v", "isSecret": false, "actors": actor});
        expect(running.post("/actors/configs").json(&config), StatusCode::CREATED).await;
        let nonce = nonce["result"]["id"].as_str().unwrap().to_owned();
        Self { actor, execution, nonce }
    }

    fn path(&self, prefix: &str, path: &str) -> String {
        let path = path
            .replace("{actor}", &self.actor)
            .replace("{execution}", &self.execution)
            .replace("{nonce}", &self.nonce)
            .replace("{collection}", "executions")
            .replace("{alias}", "adas")
            .replace("{config}", "adas");
        match path.strip_prefix("/actors") {
            Some(rest) => format!("{prefix}{rest}"),
            None => path,
        }
    }

    /// What every POST and PUT understands.
    fn body(&self, path: &str) -> serde_json::Value {
        let mut body = json!({
            "image": "busybox", "message": "m", "user": "eve", "level": "READ", "name": "taken",
            "value": "v", "is_secret": false, "actors": self.actor, "actor_id": self.actor,
        });
        if path == "/actors/aliases" {
            body["alias"] = json!("taken");
        }
        body
    }
}

#[tokio::test]
async fn every_route_has_an_authorization_case() {
    let cases: BTreeSet<String> =
        stranger_cases().iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    for route in route_table() {
        let name = format!("{} {}", route.method, route.path);
        match route.access {
            Access::Signed => assert!(cases.contains(&name), "{name} has no authorization case"),
            Access::Open => assert!(OPEN.contains(&route.path), "{name} is open to everybody"),
        }
    }
}

#[tokio::test]
async fn every_route_but_the_open_ones_wants_a_token() {
    let running = start().await;
    let things = Things::of(&running).await;
    for route in route_table() {
        for (prefix, status) in PREFIXES.iter().zip(UNAUTHENTICATED) {
            let path = things.path(prefix, route.path);
            let request =
                running.stranger(route.method.clone(), &path).json(&json!({"image": "x"}));
            if route.access == Access::Open {
                // The one that has no envelope.
                if route.path == "/metrics" {
                    assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
                } else {
                    ok(request).await;
                }
                continue;
            }
            let (headers, body) = envelope(request.send().await.unwrap(), status).await;
            let message = body["message"].as_str().unwrap();
            assert!(message.starts_with("No JWT or nonce provided."), "{path}: {message}");
            assert_eq!(headers.contains_key("www-authenticate"), *prefix == "/actors", "{path}");
        }
    }
}

#[tokio::test]
async fn no_route_serves_a_user_who_has_no_part_in_the_actor() {
    let running = start().await;
    let things = Things::of(&running).await;
    for (method, path, statuses) in stranger_cases() {
        for (prefix, status) in PREFIXES.iter().zip(statuses) {
            let mut request = running.by("eve", method.clone(), &things.path(prefix, path));
            if method == Method::POST || method == Method::PUT {
                request = request.json(&things.body(path));
            }
            expect(request, status).await;
        }
    }
    let actor = &things.actor;
    // Nothing happened to it, and eve's list has only what she made herself.
    let kept = ok(running.get(&format!("/actors/{actor}"))).await;
    assert_eq!(
        (&kept["result"]["image"], &kept["result"]["state"]),
        (&json!("busybox"), &json!({}))
    );
    let executions = ok(running.get(&format!("/actors/{actor}/executions"))).await;
    assert_eq!(executions["result"]["totalExecutions"], 1);
    let hers = ok(running.by("eve", Method::GET, "/actors")).await;
    assert!(hers["result"].as_array().unwrap().iter().all(|actor| actor["owner"] == "eve"));
    for list in ["/actors/aliases", "/actors/configs"] {
        assert_eq!(ok(running.by("eve", Method::GET, list)).await["result"], json!([]), "{list}");
        assert_eq!(ok(running.get(list)).await["result"].as_array().unwrap().len(), 1, "{list}");
    }
}

#[tokio::test]
async fn tenants_do_not_see_each_other() {
    let running = start().await;
    let things = Things::of(&running).await;
    let other = running.token("ada", "OTHER", &["admin"]);
    for list in ["/actors", "/actors/aliases", "/actors/configs"] {
        let list = ok(running.stranger(Method::GET, list).bearer_auth(&other)).await;
        assert_eq!(list["result"], json!([]));
    }
    for collection in ["actors", "executions", "workers", "logs"] {
        let search = format!("/actors/search/{collection}");
        let found = ok(running.stranger(Method::GET, &search).bearer_auth(&other)).await;
        assert_eq!(found["result"]["search"], json!([]), "{collection}");
    }
    for (method, path, _) in stranger_cases() {
        let names_a_thing = (path.contains('{') && !path.contains("{collection}"))
            || (method == Method::POST && ["/actors/aliases", "/actors/configs"].contains(&path));
        if !names_a_thing {
            continue;
        }
        for prefix in PREFIXES {
            let request = running
                .stranger(method.clone(), &things.path(prefix, path))
                .bearer_auth(&other)
                .json(&things.body(path));
            expect(request, StatusCode::NOT_FOUND).await;
        }
    }
}

#[tokio::test]
async fn admins_reach_every_actor_of_their_tenant() {
    let running = start().await;
    let actor = Things::of(&running).await.actor;
    let admin = running.token("root", "ABAX", &["Internal/abaco-admin"]);
    let path = format!("/actors/{actor}");
    ok(running.stranger(Method::GET, &path).bearer_auth(&admin)).await;
    ok(running.stranger(Method::DELETE, &path).bearer_auth(&admin)).await;
}

#[tokio::test]
async fn a_token_may_come_in_three_headers() {
    let running = start().await;
    let actor = running.register(json!({})).await;
    let token = running.token("ada", "ABAX", &[]);
    let path = format!("/actors/v2/{actor}");
    for (name, value) in [
        ("Authorization", format!("Bearer {token}")),
        ("authorization", format!("bearer {token}")),
        ("X-Tapis-Token", token.clone()),
        ("X-JWT-Assertion-ABAX", token.clone()),
        ("x-jwt-assertion-abax", token.clone()),
    ] {
        let answer = running.stranger(Method::GET, &path).header(name, value).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{name}");
    }
    // The header's own name cannot move a token to another tenant.
    let moved = running.stranger(Method::GET, &path).header("X-JWT-Assertion-OTHER", &token);
    let message = expect(moved, StatusCode::BAD_REQUEST).await["message"].clone();
    assert!(message.as_str().unwrap().contains("the token is for tenant ABAX"), "{message}");
    // Nor can a user's token act for somebody else.
    let other = running
        .stranger(Method::GET, &path)
        .header("X-Tapis-Token", &token)
        .header("X-Tapis-User", "eve");
    expect(other, StatusCode::BAD_REQUEST).await;
}

#[tokio::test]
async fn tokens_that_do_not_hold_are_refused_with_the_reason() {
    let running = start().await;
    let hour = Duration::from_secs(3600);
    let past = Time::from_micros(1_700_000_000_000_000);
    let expired = running.keys.mint::<&str>("ada", "ABAX", &[], past, hour);
    let foreign = Keys::new(b"another key of thirty-two bytes!").unwrap();
    let foreign = foreign.mint("ada", "ABAX", &["admin"], Clock::system().now(), hour);
    let good = running.token("ada", "ABAX", &[]);
    let parts: Vec<&str> = good.split('.').collect();
    let encode = |json: serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
    let admin = json!({"sub": "ada", "tenant": "ABAX", "roles": ["admin"], "iat": 1, "exp": 9_999_999_999_i64});
    let none = encode(json!({"alg": "none", "typ": "JWT"}));
    let rs256 = encode(json!({"alg": "RS256", "typ": "JWT"}));
    for (token, reason) in [
        (expired.expose_secret().to_owned(), "the token expired at 2023-11-14T23:13:20.000Z"),
        (foreign.expose_secret().to_owned(), "its signature does not fit"),
        (format!("{none}.{}.", encode(admin.clone())), "is not one of this service's"),
        (format!("{none}.{}.{}", parts[1], parts[2]), "is not one of this service's"),
        (format!("{rs256}.{}.{}", parts[1], parts[2]), "not signed with HS256"),
        (format!("{}.{}.{}", parts[0], encode(admin), parts[2]), "its signature does not fit"),
        ("garbage".to_owned(), "it is no JWT"),
        ("a.b.c".to_owned(), "is not one of this service's"),
        ("x".repeat(9_000), "too long"),
    ] {
        for (prefix, status) in PREFIXES.iter().zip(UNAUTHENTICATED) {
            let request = running.stranger(Method::GET, prefix).bearer_auth(&token);
            let body = expect(request, status).await;
            let message = body["message"].as_str().unwrap();
            assert!(message.contains(reason), "{message}");
            assert!(message.contains("abax token"), "{message}");
            assert!(!message.contains(&token), "{message}");
        }
    }
    for scheme in ["Basic YTpi", "Bearer", ""] {
        let request = running.stranger(Method::GET, "/actors").header("Authorization", scheme);
        expect(request, StatusCode::UNAUTHORIZED).await;
    }
}

#[tokio::test]
async fn tokens_hold_by_the_services_clock_and_not_by_the_machines() {
    let clock = Clock::standing_at(Time::from_micros(1_700_000_000_000_000));
    let running = start_at(clock.clone(), |_| {}).await;
    let token = running.token("ada", "ABAX", &[]);
    let ask = || running.stranger(Method::GET, "/actors").bearer_auth(&token);
    ok(ask()).await;
    clock.advance(Duration::from_secs(3600 + 30));
    let refused = expect(ask(), StatusCode::UNAUTHORIZED).await;
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("expired at 2023-11-14T23:13:20.000Z"), "{message}");
    assert!(message.contains("it is 2023-11-14T23:13:50.000Z"), "{message}");
}
