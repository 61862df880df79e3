//! Permissions, nonces, aliases and configs as their callers see them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod service;

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use service::{PREFIXES, Running, envelope, expect, keys_of, ok, start};

/// Status for what Abaco always calls 400, per prefix: ours first.
fn statuses(ours: StatusCode) -> [StatusCode; 3] {
    [ours, StatusCode::BAD_REQUEST, StatusCode::BAD_REQUEST]
}

async fn refused(request: RequestBuilder, status: StatusCode, part: &str) {
    let body = expect(request, status).await;
    let message = body["message"].as_str().unwrap();
    assert!(message.contains(part), "no {part:?} in {message:?}");
}

/// Something made: 201 on our own prefix, 200 on the others.
async fn made(request: RequestBuilder, prefix: &str) -> Value {
    let own = prefix == "/actors";
    let status = if own { StatusCode::CREATED } else { StatusCode::OK };
    let (headers, body) = envelope(request.send().await.unwrap(), status).await;
    assert_eq!(headers.contains_key("location"), own);
    body["result"].clone()
}

fn names(prefix: &str, snake: &str, camel: &str) -> String {
    if prefix == "/v3/actors" { snake.to_owned() } else { camel.to_owned() }
}

async fn share(running: &Running, path: &str, with: &str, level: &str) -> Value {
    let body = json!({"user": with, "level": level});
    ok(running.post(&format!("{path}/permissions")).json(&body)).await["result"].clone()
}

#[tokio::test]
async fn permissions_are_an_object_of_users_and_levels() {
    let running = start().await;
    for prefix in PREFIXES {
        let actor = format!("{prefix}/{}", running.register(json!({})).await);
        let path = format!("{actor}/permissions");
        assert_eq!(ok(running.get(&path)).await["result"], json!({"ada": "UPDATE"}));
        let form = [("user", "test_user"), ("level", "UPDATE")];
        let all = ok(running.post(&path).form(&form)).await;
        assert_eq!(all["result"], json!({"ada": "UPDATE", "test_user": "UPDATE"}));
        let all = share(&running, &actor, "test_user", "READ").await;
        assert_eq!(all, json!({"ada": "UPDATE", "test_user": "READ"}), "{prefix}");
        expect(running.put(&path), StatusCode::METHOD_NOT_ALLOWED).await;
    }
    let actor = running.register(json!({})).await;
    for (prefix, status) in PREFIXES.iter().zip(statuses(StatusCode::UNPROCESSABLE_ENTITY)) {
        let post = |body: Value| running.post(&format!("{prefix}/{actor}/permissions")).json(&body);
        refused(post(json!({"user": "u", "level": "WRITE"})), status, "level").await;
        refused(post(json!({"user": "u"})), status, "level").await;
        refused(post(json!({"level": "READ"})), status, "user").await;
    }
}

#[tokio::test]
async fn a_level_is_enough_for_what_it_says() {
    let running = start().await;
    let id = running.register(json!({})).await;
    for (prefix, forbidden) in PREFIXES.iter().zip(statuses(StatusCode::FORBIDDEN)) {
        let actor = format!("{prefix}/{id}");
        let text = "you do not have access to this actor";
        let get = || running.by("eve", Method::GET, &actor);
        let post = || {
            let path = format!("{actor}/messages");
            running.by("eve", Method::POST, &path).form(&[("message", "m")])
        };
        let put = || running.by("eve", Method::PUT, &actor).json(&json!({"image": "busybox"}));
        for (level, rights) in [("NONE", 0), ("READ", 1), ("EXECUTE", 2), ("UPDATE", 3)] {
            share(&running, &actor, "eve", level).await;
            for (needed, request) in [(1, get()), (2, post()), (3, put())] {
                if rights >= needed {
                    assert!(
                        request.send().await.unwrap().status().is_success(),
                        "{level} {needed}"
                    );
                } else if level == "NONE" && *prefix == "/actors" {
                    // Who may not know of it does not hear that it is there.
                    refused(request, StatusCode::NOT_FOUND, "No actor found").await;
                } else {
                    refused(request, forbidden, text).await;
                }
            }
        }
        share(&running, &actor, "eve", "NONE").await;
        share(&running, &actor, "ABACO_WORLD", "READ").await;
        ok(get()).await;
        refused(post(), forbidden, text).await;
        let listed = ok(running.by("bob", Method::GET, prefix)).await;
        assert_eq!(listed["result"][0]["id"], json!(id), "{prefix}");
        share(&running, &actor, "ABACO_WORLD", "NONE").await;
    }
}

#[tokio::test]
async fn a_nonce_has_the_fields_that_clients_look_for() {
    let running = start().await;
    let id = running.register(json!({})).await;
    for prefix in PREFIXES {
        let nonces = format!("{prefix}/{id}/nonces");
        let known = ok(running.get(&nonces)).await["result"].as_array().unwrap().len();
        let nonce = made(running.post(&nonces), prefix).await;
        let n = |snake: &str, camel: &str| &nonce[names(prefix, snake, camel)];
        assert_eq!(nonce["level"], "EXECUTE");
        assert_eq!(
            (nonce["owner"].as_str(), nonce["description"].as_str()),
            (Some("ada"), Some(""))
        );
        assert!(!nonce["roles"].as_array().unwrap().is_empty());
        assert!(nonce["id"].as_str().unwrap().starts_with("ABAX_"));
        assert_eq!(n("max_uses", "maxUses"), -1);
        assert_eq!(n("current_uses", "currentUses"), 0);
        assert_eq!(n("remaining_uses", "remainingUses"), -1);
        assert_eq!(n("actor_id", "actorId"), &json!(id));
        assert!(n("create_time", "createTime").as_str().unwrap().ends_with('Z'));
        assert!(n("api_server", "apiServer").is_string());
        // Abaco's tests want something there.
        let never = if prefix == "/actors" { Value::Null } else { json!("None") };
        assert_eq!(n("last_use_time", "lastUseTime"), &never);
        for link in ["self", "owner", "actor"] {
            assert!(nonce["_links"][link].is_string(), "{nonce}");
        }
        let path = nonce["_links"]["self"].as_str().unwrap().split_once("//").unwrap().1;
        let path = &path[path.find('/').unwrap()..];
        assert_eq!(ok(running.get(path)).await["result"], nonce);

        // Abaco's client sends numbers as texts.
        let body = json!({"maxUses": "3", "level": "READ", "description": "for you"});
        let limited = made(running.post(&nonces).json(&body), prefix).await;
        assert_eq!(
            (&limited["level"], &limited["description"]),
            (&json!("READ"), &json!("for you"))
        );
        assert_eq!(limited[names(prefix, "max_uses", "maxUses")], 3);
        assert_eq!(limited[names(prefix, "remaining_uses", "remainingUses")], 3);
        let all = ok(running.get(&nonces)).await;
        assert_eq!(all["result"].as_array().unwrap().len(), known + 2);
        expect(running.put(&nonces), StatusCode::METHOD_NOT_ALLOWED).await;
        let one = format!("{nonces}/{}", nonce["id"].as_str().unwrap());
        expect(running.post(&one), StatusCode::METHOD_NOT_ALLOWED).await;
    }
    for (prefix, status) in PREFIXES.iter().zip(statuses(StatusCode::UNPROCESSABLE_ENTITY)) {
        let nonces = format!("{prefix}/{id}/nonces");
        for (body, field) in [
            (json!({"max_uses": 0}), "Uses"),
            (json!({"max_uses": -2}), "Uses"),
            (json!({"level": "WRITE"}), "level"),
        ] {
            let field = if *prefix == "/v3/actors" {
                field.replace("Uses", "_uses")
            } else {
                field.to_owned()
            };
            refused(running.post(&nonces).json(&body), status, &field).await;
        }
    }
    for (prefix, status) in PREFIXES.iter().zip(statuses(StatusCode::NOT_FOUND)) {
        let unknown = format!("{prefix}/{id}/nonces/ABAX_nothing");
        refused(running.get(&unknown), status, "Nonce not found.").await;
        refused(running.delete(&unknown), StatusCode::NOT_FOUND, "Nonce not found.").await;
    }
}

/// Uses that a nonce has had and has left.
async fn uses(running: &Running, actor: &str, nonce: &str) -> (i64, i64) {
    let path = format!("/actors/{actor}/nonces/{nonce}");
    let nonce = ok(running.get(&path)).await["result"].clone();
    (nonce["currentUses"].as_i64().unwrap(), nonce["remainingUses"].as_i64().unwrap())
}

async fn nonce(running: &Running, of: &str, body: Value) -> String {
    let path = format!("/actors/{of}/nonces");
    let nonce = made(running.post(&path).json(&body), "/actors").await;
    nonce["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn nonces_are_used_as_often_as_they_may_be() {
    let running = start().await;
    let id = running.register(json!({})).await;
    for ((prefix, forbidden), spent) in
        PREFIXES.iter().zip(statuses(StatusCode::FORBIDDEN)).zip(statuses(StatusCode::UNAUTHORIZED))
    {
        let at = |method: Method, path: &str, nonce: &str| {
            running.stranger(method, &format!("{prefix}/{id}{path}?x-nonce={nonce}"))
        };
        let unlimited = nonce(&running, &id, json!({})).await;
        for path in ["", "/executions", "/messages"] {
            ok(at(Method::GET, path, &unlimited)).await;
        }
        assert_eq!(uses(&running, &id, &unlimited).await, (3, -1));
        let message = at(Method::POST, "/messages", &unlimited).form(&[("message", "m")]);
        let sent = message.send().await.unwrap();
        assert!(sent.status().is_success());
        assert_eq!(uses(&running, &id, &unlimited).await, (4, -1));
        let low = "Nonce does not have sufficient permissions level.";
        refused(at(Method::DELETE, "", &unlimited), forbidden, low).await;

        let limited = nonce(&running, &id, json!({"maxUses": 3, "level": "READ"})).await;
        ok(at(Method::GET, "", &limited)).await;
        assert_eq!(uses(&running, &id, &limited).await, (1, 2));
        let message = at(Method::POST, "/messages", &limited).form(&[("message", "m")]);
        refused(message, forbidden, low).await;
        ok(at(Method::GET, "", &limited)).await;
        let head = at(Method::HEAD, "", &limited).send().await.unwrap();
        assert!(head.status().is_success());
        refused(at(Method::GET, "", &limited), spent, "No remaining uses left for this nonce.")
            .await;
        assert_eq!(uses(&running, &id, &limited).await, (3, 0));

        let path = format!("{prefix}/{id}/nonces/{unlimited}");
        ok(running.delete(&path)).await;
        refused(at(Method::GET, "", &unlimited), spent, "Nonce does not exist.").await;
    }
}

#[tokio::test]
async fn a_nonce_opens_its_own_urls_and_a_token_comes_first() {
    let running = start().await;
    let [id, other] = [running.register(json!({})).await, running.register(json!({})).await];
    let alias = json!({"alias": "jane", "actorId": id});
    made(running.post("/actors/aliases").json(&alias), "/actors").await;
    let of_actor = nonce(&running, &id, json!({"level": "UPDATE"})).await;
    let of_alias = nonce(&running, "aliases/jane", json!({})).await;
    for (prefix, unknown) in PREFIXES.iter().zip(statuses(StatusCode::UNAUTHORIZED)) {
        let at = |path: &str, nonce: &str| {
            running.stranger(Method::GET, &format!("{prefix}{path}?x-nonce={nonce}"))
        };
        for (path, nonce, good) in [
            (format!("/{id}"), &of_actor, true),
            (format!("/{id}/nonces"), &of_actor, true),
            (format!("/{other}"), &of_actor, false),
            ("/jane".to_owned(), &of_actor, false),
            ("/aliases/jane".to_owned(), &of_actor, false),
            ("/jane".to_owned(), &of_alias, true),
            ("/jane/messages".to_owned(), &of_alias, true),
            ("/jane/executions".to_owned(), &of_alias, true),
            ("/aliases/jane".to_owned(), &of_alias, true),
            (format!("/{id}"), &of_alias, false),
        ] {
            match good {
                true => _ = ok(at(&path, nonce)).await,
                false => refused(at(&path, nonce), unknown, "Nonce does not exist.").await,
            }
        }
        for path in ["", "/aliases", "/configs", "/configs/c"] {
            refused(at(path, &of_actor), unknown, "Not authorized.").await;
        }
        // An unknown nonce says nothing of who else is there.
        refused(at(&format!("/{id}"), "ABAX_nothing"), unknown, "Nonce does not exist.").await;

        let before = uses(&running, &id, &of_actor).await;
        let both = running.get(&format!("{prefix}/{id}?x-nonce={of_actor}"));
        ok(both).await;
        assert_eq!(uses(&running, &id, &of_actor).await, before, "the token was enough");
        ok(at(&format!("/{id}"), &of_actor).bearer_auth("no token")).await;
        assert_eq!(uses(&running, &id, &of_actor).await.0, before.0 + 1);
    }
    // One sequence of characters more in a list is no list with conditions.
    let list = ok(running.get("/actors?x-nonce=anything")).await;
    assert!(list["result"].is_array());
}

#[tokio::test]
async fn aliases_are_made_moved_and_removed() {
    let running = start().await;
    for (prefix, conflict) in PREFIXES.iter().zip(statuses(StatusCode::CONFLICT)) {
        let [id, other] = [running.register(json!({})).await, running.register(json!({})).await];
        let aliases = format!("{prefix}/aliases");
        let actor_id = names(prefix, "actor_id", "actorId");
        let post = |alias: &str, actor: &str| {
            running.post(&aliases).json(&json!({"alias": alias, &actor_id: actor}))
        };
        let alias = made(post("jane.doe", &id), prefix).await;
        assert_eq!((&alias["alias"], &alias["owner"]), (&json!("jane.doe"), &json!("ada")));
        assert_eq!(alias[&actor_id], json!(id));
        let link = alias["_links"]["actor"].as_str().unwrap();
        assert!(link.ends_with(&format!("{prefix}/{id}")), "{link}");
        made(post("second", &id), prefix).await;
        refused(post("second", &other), conflict, "already exists").await;
        let nothing = abax_actors::ActorId::generate();
        refused(post("third", nothing.as_str()), StatusCode::NOT_FOUND, "No actor found with id")
            .await;
        let bad = if *prefix == "/actors" { StatusCode::UNPROCESSABLE_ENTITY } else { conflict };
        for name in ["nonces", "utilization", "a b", "a/b", id.as_str()] {
            refused(post(name, &id), bad, "alias").await;
        }
        let list = ok(running.get(&aliases)).await;
        assert_eq!(list["result"].as_array().unwrap().len(), 2);
        let one = format!("{aliases}/jane.doe");
        assert_eq!(ok(running.get(&one)).await["result"], alias);
        let by_alias = ok(running.get(&format!("{prefix}/jane.doe"))).await;
        assert_eq!(by_alias["result"]["id"], json!(id));
        let permissions = ok(running.get(&format!("{one}/permissions"))).await;
        assert_eq!(permissions["result"], json!({"ada": "UPDATE"}));

        let put = |body: Value| running.put(&one).json(&body);
        let moved = ok(put(json!({&actor_id: other}))).await;
        assert_eq!(moved["result"][&actor_id], json!(other));
        refused(put(json!({&actor_id: id, "alias": "x"})), bad, "alias").await;
        refused(put(json!({})), bad, &actor_id).await;

        let deleted = ok(running.delete(&one)).await;
        assert!(deleted["message"].as_str().unwrap().contains("jane.doe"));
        expect(running.get(&one), StatusCode::NOT_FOUND).await;
        expect(running.get(&format!("{prefix}/jane.doe")), StatusCode::NOT_FOUND).await;
        ok(running.delete(&format!("{aliases}/second"))).await;
    }
}

#[tokio::test]
async fn the_words_of_refusals_are_those_that_clients_look_for() {
    let running = start().await;
    let id = running.register(json!({})).await;
    let alias = json!({"alias": "jane", "actorId": id});
    made(running.post("/actors/aliases").json(&alias), "/actors").await;
    for prefix in ["/actors/v2", "/v3/actors"] {
        let forbidden = StatusCode::BAD_REQUEST;
        let jane = format!("{prefix}/aliases/jane");
        let eve = |method: Method, path: &str| running.by("eve", method, path);
        share(&running, "/actors/aliases/jane", "eve", "NONE").await;
        let text = "you do not have access to this alias";
        refused(eve(Method::GET, &jane), forbidden, text).await;
        share(&running, "/actors/aliases/jane", "eve", "UPDATE").await;
        ok(eve(Method::GET, &jane)).await;
        let through = format!("{prefix}/jane");
        let text = "you do not have access to this actor";
        refused(eve(Method::GET, &through), forbidden, text).await;
        let put = eve(Method::PUT, &jane).json(&json!({"actor_id": id}));
        let text =
            "ou do not have UPDATE access to the actor you want to associate with this alias";
        refused(put, forbidden, text).await;
        let nonces = format!("{jane}/nonces");
        let text = "you do not have access to this alias and actor";
        refused(eve(Method::GET, &nonces), forbidden, text).await;
        refused(eve(Method::POST, &nonces), forbidden, text).await;
    }
    // Under our own prefix, one that she may not know of is as one that is not there.
    for name in [id.as_str(), "jane", "nobody"] {
        let put = running.by("eve", Method::PUT, "/actors/aliases/jane");
        let text = format!("No actor found with identifier: {name}.");
        refused(put.json(&json!({"actorId": name})), StatusCode::NOT_FOUND, &text).await;
    }
    ok(running.by("eve", Method::DELETE, "/actors/v2/aliases/jane")).await;
}

#[tokio::test]
async fn the_nonce_of_an_alias_names_the_alias() {
    let running = start().await;
    let id = running.register(json!({})).await;
    let alias = json!({"alias": "jane", "actorId": id});
    made(running.post("/actors/aliases").json(&alias), "/actors").await;
    for (prefix, status) in PREFIXES.iter().zip(statuses(StatusCode::UNPROCESSABLE_ENTITY)) {
        let nonces = format!("{prefix}/aliases/jane/nonces");
        let nonce = made(running.post(&nonces), prefix).await;
        assert_eq!(nonce["alias"], "jane");
        assert_eq!(nonce["level"], "EXECUTE");
        let fields = keys_of(&nonce);
        assert_eq!(fields.contains(&"actorId"), *prefix == "/actors", "left out where nulls are");
        for link in ["self", "actor"] {
            let link = nonce["_links"][link].as_str().unwrap();
            assert!(link.contains(&format!("{prefix}/aliases/jane")), "{link}");
        }
        let update = running.post(&nonces).json(&json!({"level": "UPDATE"}));
        refused(update, status, "level").await;
        ok(running.delete(&format!("{nonces}/{}", nonce["id"].as_str().unwrap()))).await;
        assert_eq!(ok(running.get(&nonces)).await["result"], json!([]));
    }
}

#[tokio::test]
async fn configs_are_made_changed_and_removed() {
    let running = start().await;
    let [id, other] = [running.register(json!({})).await, running.register(json!({})).await];
    let nothing = abax_actors::ActorId::generate();
    for (prefix, conflict) in PREFIXES.iter().zip(statuses(StatusCode::CONFLICT)) {
        let configs = format!("{prefix}/configs");
        let is_secret = names(prefix, "is_secret", "isSecret");
        let body = |name: &str, value: &str, secret: bool, actors: &str| json!({"name": name, "value": value, &is_secret: secret, "actors": actors});
        let post = |body: Value| running.post(&configs).json(&body);
        let both = format!("{id},{other}");
        for actors in [&id, &both] {
            let made = made(post(body("shared", "v", false, actors)), prefix).await;
            for (name, expected) in
                [("name", json!("shared")), ("value", json!("v")), ("actors", json!(actors))]
            {
                assert_eq!(made[name], expected);
            }
            assert_eq!(made[&is_secret], json!(false));
            ok(running.delete(&format!("{configs}/shared"))).await;
        }
        let made = made(post(body("c", "hunter2", true, &id)), prefix).await;
        assert_eq!(made[&is_secret], json!(true));
        refused(post(body("c", "v", false, &id)), conflict, "already exists").await;
        let missing = post(body("c", "v", false, &format!("{id},{nothing}")));
        expect(missing, StatusCode::NOT_FOUND).await;
        let bad = if *prefix == "/actors" { StatusCode::UNPROCESSABLE_ENTITY } else { conflict };
        for (field, name) in
            [("value", "value"), (is_secret.as_str(), is_secret.as_str()), ("actors", "actors")]
        {
            let mut less = body("d", "v", false, &id);
            less.as_object_mut().unwrap().remove(field);
            refused(post(less), bad, name).await;
        }
        let mut odd = body("d", "v", false, &id);
        odd[&is_secret] = json!("perhaps");
        refused(post(odd), bad, &is_secret).await;

        let one = format!("{configs}/c");
        for answer in [
            ok(running.get(&one)).await,
            ok(running.get(&configs)).await,
            ok(running.put(&one).json(&body("c", "[secret]", true, &both))).await,
        ] {
            let text = answer.to_string();
            assert!(!text.contains("hunter2") && text.contains("[secret]"), "{text}");
        }
        // Nobody gets to see it by calling it no secret.
        let show = running.put(&one).json(&body("c", "[secret]", false, &both));
        refused(show, bad, "value").await;
        let changed = ok(running.put(&one).json(&body("c", "plain", false, &other))).await;
        let changed = &changed["result"];
        assert_eq!((&changed["value"], &changed["actors"]), (&json!("plain"), &json!(other)));
        assert_eq!(changed[&is_secret], json!(false));
        let hidden = if *prefix == "/actors" { StatusCode::NOT_FOUND } else { conflict };
        let put = running.by("eve", Method::PUT, &one).json(&body("c", "x", false, &other));
        expect(put, hidden).await;
        share(&running, &one, "eve", "READ").await;
        ok(running.by("eve", Method::GET, &one)).await;
        ok(running.delete(&one)).await;
        expect(running.get(&one), StatusCode::NOT_FOUND).await;
    }
    // On our own prefix what is not given stays.
    let config = json!({"name": "c", "value": "v", "isSecret": false, "actors": [id, other]});
    let config = made(running.post("/actors/configs").json(&config), "/actors").await;
    assert_eq!(config["actors"], json!(format!("{id},{other}")));
    let changed = ok(running.put("/actors/configs/c").json(&json!({"value": "w"}))).await;
    assert_eq!(
        (&changed["result"]["value"], &changed["result"]["actors"]),
        (&json!("w"), &config["actors"])
    );
    let less = running.put("/actors/v2/configs/c").json(&json!({"value": "x"}));
    refused(less, StatusCode::BAD_REQUEST, "isSecret").await;
}
