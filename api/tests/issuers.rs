//! Tokens of others: gateways of long ago, key sets that change, services that act
//! for users, and all that must not hold.

#![allow(clippy::unwrap_used, reason = "tests fail where something is missing")]

mod issuer;
mod service;

use std::collections::BTreeSet;
use std::time::Duration;

use abax_actors::{Clock, Tenant, TenantSettings, Time};
use abax_api::{Issuer, KeySource, PublicKey, Strength, Tenants};
use issuer::{Publisher, Signer};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use service::{Running, envelope, expect, ok, start_at, start_of, start_with};

/// What a gateway was delivered with in its day: 1024 bits.
const OLD_KEY: &str = "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDGqSb6LC3LlerIYd//fGQwSQPUIDgz0joF8wwzUffMyP09y2Sxxb4iQ2HphfYHQcmJEXrMxD+q6a6jycAMrpWb9/N5RUuQMRECBRWk2yrTB+/xSiyVxn3jJeVe4ZkfIfPuWpUzMT3lEC1ps2iFYOi9pHjomdwT+b01CewKKn9iFQIDAQAB";

/// An assertion of such a gateway: plain base64, an `exp` of March 2017 in
/// milliseconds, the end user `ada@carbon.super`, the roles `Internal/everyone` and
/// `Internal/abaco-admin`.
const OLD_TOKEN: &str = "eyJ0eXAiOiAiSldUIiwgImFsZyI6ICJSUzI1NiJ9.eyJpc3MiOiAid3NvMi5vcmcvcHJvZHVjdHMvYW0iLCAiZXhwIjogMTQ4OTYwMDAwMDAwMCwgImh0dHA6Ly93c28yLm9yZy9jbGFpbXMvZW5kdXNlciI6ICJhZGFAY2FyYm9uLnN1cGVyIiwgImh0dHA6Ly93c28yLm9yZy9jbGFpbXMvcm9sZSI6ICJJbnRlcm5hbC9ldmVyeW9uZSxJbnRlcm5hbC9hYmFjby1hZG1pbiIsICJ4IjogIj9+PsO/Pz8+PiJ9.teZoG8E0vqaqy3kkRfqxlUrbQ/FWM4OHaksYVTqPoV+A8jWBNlQyZd76Vlh4K1ouhsB3nf7A452b2l2qHUd7TsXaol79mxdUppdIoCMkWX+Mz0I0APiKT1FwpwPXXuw7QN68cTaSMXLqWLjGUIX+KIzQGhlgLlRFPmt2lYjN43E=";

/// One without roles that ended in March 2017, in seconds.
const EXPIRED_OLD_TOKEN: &str = "eyJ0eXAiOiAiSldUIiwgImFsZyI6ICJSUzI1NiJ9.eyJleHAiOiAxNDg5NjAwMDAwLCAiaHR0cDovL3dzbzIub3JnL2NsYWltcy9lbmR1c2VyIjogImFkYUBjYXJib24uc3VwZXIifQ==.OTszSl83cuVZl/GBPQorrihwSE0+TNDgfFbHDCnywJrSCGVyvsyAwOFziG1mKminYb2R4kRhWu2ZUOV2aLXynG6sB+uPyPL+df/10RqFeEBOt9Ox2p14XZ4RYT0NFPDy+6VM3UbeDqppL+eE1/1UBHaLdwxucz+hahaK7GRE684=";

const START: i64 = 1_800_000_000;

fn now() -> Time {
    Time::from_micros(START * 1_000_000)
}

fn these(names: &[&str]) -> Tenants {
    Tenants::These(names.iter().map(|name| (*name).to_owned()).collect())
}

fn gateway(tenants: Tenants) -> Issuer {
    let key = PublicKey::parse(OLD_KEY, Strength::Legacy).unwrap();
    let mut issuer = Issuer::new("gateway", tenants, KeySource::Known(vec![key]));
    issuer.legacy = true;
    issuer
}

/// One whose key set is at `publisher`, good for five minutes.
fn published(name: &str, tenants: Tenants, publisher: &Publisher) -> Issuer {
    let fresh_for = Duration::from_secs(300);
    Issuer::new(name, tenants, KeySource::Set { url: publisher.url(), fresh_for })
}

/// The claims of a user's token.
fn user(tenant: &str, name: &str) -> Value {
    json!({
        "iss": "https://dev.example.org/v3/tokens", "sub": format!("{name}@{tenant}"),
        "tapis/tenant_id": tenant, "tapis/username": name, "tapis/account_type": "user",
        "tapis/token_type": "access", "exp": START + 3600,
    })
}

fn with(mut claims: Value, name: &str, value: Value) -> Value {
    claims[name] = value;
    claims
}

/// `GET /v3/actors` with this header, and its status.
async fn list(running: &Running, header: &str, token: &str) -> StatusCode {
    let request = running.stranger(Method::GET, "/v3/actors").header(header, token);
    request.send().await.unwrap().status()
}

/// Whom the service takes the bearer for, and whether it may set what is restricted.
async fn who(running: &Running, header: &str, token: &str) -> (String, bool) {
    let register = |body: Value| {
        running.stranger(Method::POST, "/actors").header(header, token).json(&body).send()
    };
    let restricted = register(json!({"image": "busybox", "max_workers": 2})).await.unwrap();
    let may = restricted.status() == StatusCode::CREATED;
    let plain = register(json!({"image": "busybox"})).await.unwrap();
    let (_, body) = envelope(plain, StatusCode::CREATED).await;
    (body["result"]["owner"].as_str().unwrap().to_owned(), may)
}

#[tokio::test]
async fn assertions_of_gateways_of_long_ago_hold_by_legacy_keys() {
    let running = start_with(|config| {
        config.issuers = vec![gateway(these(&["DEV-DEVELOP", "TACC_PROD"]))];
    })
    .await;
    for header in ["X-JWT-Assertion-DEV-DEVELOP", "x-jwt-assertion-dev_develop"] {
        assert_eq!(who(&running, header, OLD_TOKEN).await, ("ada".to_owned(), true), "{header}");
    }
    assert_eq!(list(&running, "x-jwt-assertion-tacc-prod", OLD_TOKEN).await, StatusCode::OK);

    let expired = running
        .stranger(Method::GET, "/actors/v2")
        .header("X-JWT-Assertion-DEV-DEVELOP", EXPIRED_OLD_TOKEN);
    let body = expect(expired, StatusCode::BAD_REQUEST).await;
    assert!(body["message"].as_str().unwrap().contains("expired at 2017-03-15"), "{body}");

    let (claims, signature) = OLD_TOKEN.rsplit_once('.').unwrap();
    let forged = format!("{claims}.{}", signature.replace("teZo", "tfZo"));
    for (header, token) in [
        // Of a tenant that the gateway does not speak for.
        ("X-JWT-Assertion-OTHER", OLD_TOKEN),
        ("X-JWT-Assertion-DEV-DEVELOP", forged.as_str()),
        // In a header that does not say the tenant.
        ("X-Tapis-Token", OLD_TOKEN),
        ("Authorization", &format!("Bearer {OLD_TOKEN}")),
    ] {
        assert_eq!(list(&running, header, token).await, StatusCode::BAD_REQUEST, "{header}");
    }
}

#[tokio::test]
async fn lax_rules_are_for_legacy_keys_only() {
    let running = start_with(|config| {
        let mut issuer = gateway(these(&["DEV-DEVELOP"]));
        issuer.legacy = false;
        issuer.user_claim = Some("http://wso2.org/claims/enduser".to_owned());
        config.issuers = vec![issuer];
    })
    .await;
    for header in ["X-JWT-Assertion-DEV-DEVELOP", "X-Tapis-Token"] {
        assert_eq!(list(&running, header, OLD_TOKEN).await, StatusCode::BAD_REQUEST, "{header}");
    }
}

#[tokio::test]
async fn one_assertion_is_of_the_tenant_that_its_header_names() {
    let running = start_with(|config| config.issuers = vec![gateway(Tenants::Any)]).await;
    let by = |tenant: &str, method: Method, path: &str| {
        let header = format!("X-JWT-Assertion-{tenant}");
        running.stranger(method, path).header(header, OLD_TOKEN)
    };
    let first = by("DEV-DEVELOP", Method::POST, "/actors/v2").json(&json!({"image": "busybox"}));
    let id = ok(first).await["result"]["id"].as_str().unwrap().to_owned();
    let path = format!("/actors/v2/{id}");
    ok(by("dev_develop", Method::GET, &path)).await;

    let list = ok(by("AGAVE-PROD", Method::GET, "/actors/v2")).await;
    assert_eq!(list["result"], json!([]));
    expect(by("AGAVE-PROD", Method::GET, &path), StatusCode::NOT_FOUND).await;
    let own = by("AGAVE-PROD", Method::POST, "/actors/v2").json(&json!({"image": "busybox"}));
    let own = ok(own).await["result"]["id"].as_str().unwrap().to_owned();
    let list = ok(by("AGAVE-PROD", Method::GET, "/actors/v2")).await;
    assert_eq!(list["result"].as_array().unwrap().len(), 1);
    ok(by("AGAVE-PROD", Method::DELETE, &format!("/actors/v2/{own}"))).await;
    ok(by("DEV-DEVELOP", Method::GET, &path)).await;
}

#[tokio::test]
async fn tokens_hold_in_each_of_the_three_headers() {
    let signer = Signer::new("k1");
    let publisher = Publisher::start(&[&signer]).await;
    let running = start_at(Clock::standing_at(now()), |config| {
        config.issuers = vec![published("tapis", these(&["dev", "lab"]), &publisher)];
    })
    .await;
    let token = signer.token(&user("dev", "ada"));
    for (header, value) in [
        ("X-Tapis-Token", token.clone()),
        ("Authorization", format!("Bearer {token}")),
        ("X-JWT-Assertion-DEV", token.clone()),
    ] {
        assert_eq!(who(&running, header, &value).await, ("ada".to_owned(), false), "{header}");
    }
    assert_eq!(publisher.asked(), 1, "keys are kept");
    // The header's own name moves a token to no other tenant.
    assert_eq!(list(&running, "X-JWT-Assertion-LAB", &token).await, StatusCode::BAD_REQUEST);
    // Our own tokens hold as before.
    let own = format!("Bearer {}", running.token("eve", "ABAX", &[]));
    assert_eq!(who(&running, "Authorization", &own).await, ("eve".to_owned(), false));
}

#[tokio::test]
async fn keys_come_and_go_with_the_issuers_key_set() {
    let (old, new, forger) = (Signer::new("k1"), Signer::new("k2"), Signer::new("k3"));
    let publisher = Publisher::start(&[&old]).await;
    let clock = Clock::standing_at(now());
    let running = start_at(clock.clone(), |config| {
        config.issuers = vec![published("tapis", these(&["dev"]), &publisher)];
    })
    .await;
    let by = async |signer: &Signer| {
        let claims = with(user("dev", "ada"), "exp", json!(START + 1_000_000));
        list(&running, "X-Tapis-Token", &signer.token(&claims)).await
    };
    assert_eq!((by(&old).await, publisher.asked()), (StatusCode::OK, 1));

    // Whoever names keys that there are not costs the issuer one request in a while.
    clock.advance(Duration::from_secs(60));
    for _ in 0..5 {
        assert_eq!(by(&forger).await, StatusCode::BAD_REQUEST);
    }
    assert_eq!(publisher.asked(), 2);

    // A key that is added is known as soon as a token names it.
    publisher.publish(&[&old, &new]);
    clock.advance(Duration::from_secs(60));
    assert_eq!((by(&new).await, by(&old).await), (StatusCode::OK, StatusCode::OK));
    assert_eq!(publisher.asked(), 3);

    // One that is taken away holds as long as the set is fresh.
    publisher.publish(&[&new]);
    assert_eq!(by(&old).await, StatusCode::OK);
    clock.advance(Duration::from_secs(301));
    assert_eq!((by(&old).await, by(&new).await), (StatusCode::BAD_REQUEST, StatusCode::OK));

    // An issuer that is away keeps nobody out for a day.
    publisher.set_broken(true);
    let asked = publisher.asked();
    clock.advance(Duration::from_secs(3600));
    for _ in 0..3 {
        assert_eq!(by(&new).await, StatusCode::OK);
    }
    assert_eq!(publisher.asked(), asked + 1);
    clock.advance(Duration::from_secs(24 * 3600));
    let token = new.token(&with(user("dev", "ada"), "exp", json!(START + 1_000_000)));
    let late = running.stranger(Method::GET, "/v3/actors").header("X-Tapis-Token", &token);
    let (headers, body) =
        envelope(late.send().await.unwrap(), StatusCode::SERVICE_UNAVAILABLE).await;
    assert!(headers.contains_key("retry-after"));
    assert!(body["message"].as_str().unwrap().contains("the keys of tapis"), "{body}");
    publisher.set_broken(false);
    clock.advance(Duration::from_secs(11));
    assert_eq!(by(&new).await, StatusCode::OK);
}

#[tokio::test]
async fn a_role_may_be_somebodys_in_one_tenant_only() {
    let signer = Signer::new("k1");
    let publisher = Publisher::start(&[&signer]).await;
    let running = start_at(Clock::standing_at(now()), |config| {
        let mut issuer = published("tapis", these(&["lab", "dev"]), &publisher);
        issuer.privileged = BTreeSet::from(["dev/root".to_owned(), "grace".to_owned()]);
        config.issuers = vec![issuer];
    })
    .await;
    for (tenant, name, may) in [
        ("dev", "root", true),
        ("lab", "root", false),
        ("lab", "dev/root", false),
        ("dev", "grace", true),
        ("lab", "grace", true),
    ] {
        let token = signer.token(&user(tenant, name));
        let restricted = json!({"image": "busybox", "max_workers": 2});
        let request = running.stranger(Method::POST, "/actors").header("X-Tapis-Token", token);
        let answer = request.json(&restricted).send().await.unwrap().status();
        let expected = if may { StatusCode::CREATED } else { StatusCode::FORBIDDEN };
        assert_eq!(answer, expected, "{name} of {tenant}");
    }
}

#[tokio::test]
async fn a_services_token_acts_for_the_user_that_it_names() {
    let signer = Signer::new("k1");
    let publisher = Publisher::start(&[&signer]).await;
    let running = start_at(Clock::standing_at(now()), |config| {
        let mut issuer = published("tapis", these(&["admin", "dev"]), &publisher);
        issuer.service_tenants = Some(these(&["dev"]));
        issuer.admins = BTreeSet::from(["root".to_owned()]);
        config.issuers = vec![issuer];
    })
    .await;
    let mut service = with(user("admin", "jobs"), "tapis/account_type", json!("service"));
    // What the service is does not go over to whom it acts for.
    service["roles"] = json!(["abaco_admin"]);
    let service = signer.token(&service);
    let person = signer.token(&user("dev", "ada"));
    let ask = |token: &str, headers: &[(&str, &str)]| {
        let mut request = running.stranger(Method::POST, "/actors").header("X-Tapis-Token", token);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request
    };
    let body = json!({"image": "busybox"});
    let for_ada = [("X-Tapis-User", "ada"), ("X-Tapis-Tenant", "dev")];
    let made = expect(ask(&service, &for_ada).json(&body), StatusCode::CREATED).await;
    assert_eq!(made["result"]["owner"], "ada");
    let path = format!("/v3/actors/{}", made["result"]["id"].as_str().unwrap());
    ok(running.stranger(Method::GET, &path).header("X-Tapis-Token", &person)).await;
    let restricted = json!({"image": "busybox", "max_workers": 2});
    expect(ask(&service, &for_ada).json(&restricted), StatusCode::FORBIDDEN).await;
    let for_root = [("X-Tapis-User", "root"), ("X-Tapis-Tenant", "dev")];
    expect(ask(&service, &for_root).json(&restricted), StatusCode::CREATED).await;

    for (token, headers, reason) in [
        (&service, &[][..], "must come with"),
        (&service, &for_ada[..1], "come together"),
        (&service, &[("X-Tapis-User", "ada"), ("X-Tapis-Tenant", "admin")], "users of that tenant"),
        (&service, &[("X-Tapis-User", "ada"), ("X-Tapis-Tenant", "else")], "users of that tenant"),
        (&service, &[("X-Tapis-User", "ABACO_WORLD"), ("X-Tapis-Tenant", "dev")], "nobody may be"),
        (&service, &[("X-Tapis-User", ""), ("X-Tapis-Tenant", "dev")], "names no user"),
        (&person, &for_ada, "for service tokens"),
        (&running.token("ada", "ABAX", &["admin"]), &for_ada, "for service tokens"),
    ] {
        let refused = ask(token, headers).json(&body);
        let refused = expect(refused, StatusCode::UNAUTHORIZED).await;
        assert!(refused["message"].as_str().unwrap().contains(reason), "{reason}: {refused}");
    }
}

#[tokio::test]
async fn what_an_issuer_did_not_sign_for_a_tenant_of_its_own_does_not_hold() {
    let (ours, theirs) = (Signer::new("k1"), Signer::new("k1"));
    let (at_ours, at_theirs) =
        (Publisher::start(&[&ours]).await, Publisher::start(&[&theirs]).await);
    let running = start_at(Clock::standing_at(now()), |config| {
        let mut first = published("first", these(&["dev"]), &at_ours);
        first.iss = Some("https://dev.example.org/v3/tokens".to_owned());
        let mut second = published("second", these(&["lab"]), &at_theirs);
        second.audience = Some("abax".to_owned());
        config.issuers = vec![first, second];
    })
    .await;
    let good = user("dev", "ada");
    let in_lab = with(user("lab", "ada"), "aud", json!(["abax", "other"]));
    let hs256 = json!({"typ": "JWT", "alg": "HS256"});
    let none = json!({"typ": "JWT", "alg": "none"});
    let rs512 = json!({"typ": "JWT", "alg": "RS512", "kid": "k1"});
    for (what, token, status) in [
        ("good", ours.token(&good), StatusCode::OK),
        ("of the other", theirs.token(&in_lab), StatusCode::OK),
        ("no key named", ours.token_with(&json!({"alg": "RS256"}), &good), StatusCode::OK),
        ("foreign key", theirs.token(&good), StatusCode::BAD_REQUEST),
        ("foreign tenant", ours.token(&in_lab), StatusCode::BAD_REQUEST),
        ("its own key, foreign tenant", theirs.token(&good), StatusCode::BAD_REQUEST),
        ("unknown tenant", ours.token(&user("else", "ada")), StatusCode::BAD_REQUEST),
        ("issuer", ours.token(&with(good.clone(), "iss", json!("e"))), StatusCode::BAD_REQUEST),
        ("no audience", theirs.token(&user("lab", "ada")), StatusCode::BAD_REQUEST),
        ("audience", ours.token(&with(good.clone(), "aud", json!("x"))), StatusCode::BAD_REQUEST),
        ("algorithm", ours.token_with(&hs256, &good), StatusCode::BAD_REQUEST),
        ("no algorithm", ours.token_with(&none, &good), StatusCode::BAD_REQUEST),
        ("other algorithm", ours.token_with(&rs512, &good), StatusCode::BAD_REQUEST),
        ("no end", ours.token(&with(good.clone(), "exp", json!(null))), StatusCode::BAD_REQUEST),
        (
            "ended",
            ours.token(&with(good.clone(), "exp", json!(START - 31))),
            StatusCode::BAD_REQUEST,
        ),
        (
            "milliseconds",
            ours.token(&with(good.clone(), "exp", json!(START * 1000))),
            StatusCode::BAD_REQUEST,
        ),
        (
            "later",
            ours.token(&with(good.clone(), "nbf", json!(START + 60))),
            StatusCode::BAD_REQUEST,
        ),
        (
            "to renew others",
            ours.token(&with(good.clone(), "tapis/token_type", json!("refresh"))),
            StatusCode::BAD_REQUEST,
        ),
        (
            "no user",
            ours.token(&with(with(good.clone(), "sub", json!("")), "tapis/username", json!(""))),
            StatusCode::BAD_REQUEST,
        ),
    ] {
        assert_eq!(list(&running, "X-Tapis-Token", &token).await, status, "{what}");
    }
}

#[tokio::test]
async fn roles_are_those_of_abaco_or_of_the_settings() {
    let signer = Signer::new("k1");
    let publisher = Publisher::start(&[&signer]).await;
    let running = start_at(Clock::standing_at(now()), |config| {
        let mut issuer = published("idp", these(&["dev"]), &publisher);
        issuer.required_role = Some("staff".to_owned());
        issuer.user_claim = Some("login".to_owned());
        issuer.privileged = BTreeSet::from(["grace".to_owned()]);
        config.issuers = vec![issuer];
    })
    .await;
    let token = |name: &str, roles: Value| {
        signer.token(&with(with(user("dev", "x"), "login", json!(name)), "roles", roles))
    };
    for (name, roles, may_set_restricted) in [
        ("ada", json!("staff"), false),
        // Admin of something else.
        ("ada", json!(["staff", "admin"]), false),
        ("ada", json!("staff,abaco_privileged"), true),
        ("ada", json!(["Internal/abaco-admin"]), true),
        ("ada", json!(["Internal/abaco-limited"]), false),
        ("grace", json!("staff"), true),
    ] {
        let found = who(&running, "X-Tapis-Token", &token(name, roles.clone())).await;
        assert_eq!(found, (name.to_owned(), may_set_restricted), "{roles}");
    }
    for (prefix, status) in
        [("/actors", StatusCode::FORBIDDEN), ("/actors/v2", StatusCode::BAD_REQUEST)]
    {
        for roles in [json!(null), json!(""), json!(["guest"])] {
            let token = token("ada", roles);
            let request = running.stranger(Method::GET, prefix).header("X-Tapis-Token", token);
            let body = expect(request, status).await;
            assert_eq!(body["message"], "Not authorized -- missing required role.");
        }
    }
}

/// A service where two tenants have hosts of their own.
async fn with_hosts(signer: &Signer, publisher: &Publisher) -> Running {
    let _ = signer;
    start_of(
        Clock::standing_at(now()),
        |config| {
            let at = |host: &str| TenantSettings {
                api_server: Some(format!("https://{host}")),
                ..TenantSettings::default()
            };
            config.tenants = [
                (Tenant::new("dev"), at("dev.example.org")),
                (Tenant::new("lab"), at("lab.example.org")),
            ]
            .into_iter()
            .collect();
        },
        |config| {
            config.api_server = Some("https://abax.example.org".to_owned());
            config.issuers = vec![published("tapis", these(&["dev", "lab", "bio"]), publisher)];
        },
    )
    .await
}

#[tokio::test]
async fn users_of_a_tenant_are_served_at_its_own_address() {
    let signer = Signer::new("k1");
    let publisher = Publisher::start(&[&signer]).await;
    let running = with_hosts(&signer, &publisher).await;
    let ask = |tenant: &str, host: &str| {
        let token = signer.token(&user(tenant, "ada"));
        let request = running.stranger(Method::POST, "/v3/actors").header("X-Tapis-Token", token);
        request.header("Host", host.to_owned()).json(&json!({"image": "busybox"}))
    };
    for (tenant, host, link) in [
        ("dev", "dev.example.org", "https://dev.example.org/v3/actors/"),
        // Behind a proxy, or by a name that is no tenant's.
        ("dev", "10.0.0.1:8000", "https://dev.example.org/v3/actors/"),
        ("bio", "10.0.0.1:8000", "https://abax.example.org/v3/actors/"),
    ] {
        let made = ok(ask(tenant, host)).await;
        let own = made["result"]["_links"]["self"].as_str().unwrap();
        assert!(own.starts_with(link), "{tenant} at {host}: {own}");
    }
    let body = expect(ask("dev", "lab.example.org"), StatusCode::BAD_REQUEST).await;
    assert!(body["message"].as_str().unwrap().contains("not the one of lab.example"), "{body}");
}

#[tokio::test]
async fn sites_and_tenants_are_told_to_anybody() {
    let signer = Signer::new("k1");
    let publisher = Publisher::start(&[&signer]).await;
    let running = with_hosts(&signer, &publisher).await;
    let sites = ok(running.stranger(Method::GET, "/v3/sites")).await;
    let site = &sites["result"][0];
    assert_eq!(site["site_id"], "abax");
    assert_eq!(site["primary"], true);
    assert_eq!(site["base_url"], "https://abax.example.org");
    // The keys are known with the first token.
    assert_eq!(list(&running, "X-Tapis-Token", &signer.token(&user("dev", "ada"))).await, 200);
    let tenants = ok(running.stranger(Method::GET, "/v3/tenants")).await;
    assert!(tenants["metadata"].is_object(), "{tenants}");
    let found: Vec<(&str, &str)> = tenants["result"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tenant| {
            assert_eq!(tenant["site_id"], "abax");
            let key = tenant["public_key"].as_str();
            let expected = (tenant["tenant_id"] != "ABAX").then_some("-----BEGIN PUBLIC KEY-----");
            assert_eq!(key.map(|pem| pem.lines().next().unwrap()), expected, "{tenant}");
            (tenant["tenant_id"].as_str().unwrap(), tenant["base_url"].as_str().unwrap())
        })
        .collect();
    assert_eq!(
        found,
        [
            ("ABAX", "https://abax.example.org"),
            ("bio", "https://abax.example.org"),
            ("dev", "https://dev.example.org"),
            ("lab", "https://lab.example.org"),
        ]
    );
}

#[tokio::test]
async fn an_issuer_that_cannot_work_is_refused_at_the_start() {
    let publisher = Publisher::start(&[]).await;
    let mut slow = published("p", these(&["T"]), &publisher);
    slow.keys = KeySource::Set { url: publisher.url(), fresh_for: Duration::ZERO };
    let mut legacy = published("p", these(&["T"]), &publisher);
    legacy.legacy = true;
    let ftp = KeySource::Set { url: "ftp://x".to_owned(), fresh_for: Duration::from_secs(1) };
    for (issuer, part) in [
        (gateway(these(&[])), "no tenants"),
        (Issuer::new("g", Tenants::Any, KeySource::Known(Vec::new())), "no keys"),
        (slow, "each request"),
        (legacy, "come from a file"),
        (Issuer::new("g", Tenants::Any, ftp), "no http"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let settings = abax_actors::Config::sqlite(directory.path().join("abax.db"));
        let service = abax_actors::Service::open(settings, Clock::system()).await.unwrap();
        let keys = abax_api::Keys::new(service::SECRET).unwrap();
        let config = abax_api::Config { issuers: vec![issuer], ..abax_api::Config::default() };
        let error = abax_api::App::new(service, keys, config).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}
