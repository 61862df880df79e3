//! Registering, listing, showing, updating and deleting actors over HTTP.

mod service;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use service::{PREFIXES, envelope, expect, keys_of, ok, start};

#[tokio::test]
async fn an_actor_is_registered_shown_listed_updated_and_deleted() {
    let running = start().await;
    for (prefix, created) in
        PREFIXES.iter().zip([StatusCode::CREATED, StatusCode::OK, StatusCode::OK])
    {
        let list = ok(running.get(prefix)).await;
        assert_eq!(list["result"], json!([]), "{prefix}");
        assert_eq!(list["message"], "Actors retrieved successfully.");

        let body = json!({"image": "abacosamples/test", "name": "echo", "description": "d"});
        let new = expect(running.post(prefix).json(&body), created).await["result"].clone();
        let id = new["id"].as_str().unwrap();
        assert_eq!(new["owner"], "ada", "{prefix}");
        assert_eq!(new["stateless"], true, "{prefix}");
        assert_eq!(new["status"], "SUBMITTED", "{prefix}");
        assert_eq!(new["revision"], 1, "{prefix}");
        assert_eq!(new["hints"], json!([]), "{prefix}");
        for hidden in ["tenant", "db_id", "dbId", "executions", "api_server", "apiServer"] {
            assert!(!keys_of(&new).contains(&hidden), "{prefix}: {hidden}");
        }
        // The actor's own link leads to it.
        let own = new["_links"]["self"].as_str().unwrap();
        assert_eq!(own, running.url(&format!("{prefix}/{id}")));
        let own = own.strip_prefix(&running.url("")).unwrap().to_owned();
        assert_eq!(ok(running.get(&own)).await["result"]["id"], id);

        let list = ok(running.get(prefix)).await;
        assert_eq!(list["result"].as_array().unwrap().len(), 1, "{prefix}");

        let update = json!({"image": "abacosamples/test", "name": "other"});
        let updated = ok(running.put(&own).json(&update)).await["result"].clone();
        // Abaco's update replaces all settings but the name; ours changes what it names.
        let (name, description) = if *prefix == "/actors" { ("other", "d") } else { ("echo", "") };
        assert_eq!(
            (&updated["name"], &updated["description"]),
            (&json!(name), &json!(description)),
            "{prefix}"
        );
        assert_eq!((&updated["revision"], &updated["owner"]), (&json!(1), &json!("ada")));
        let forced =
            ok(running.put(&own).form(&[("image", "abacosamples/test"), ("force", "true")]));
        assert_eq!(forced.await["result"]["revision"], 2, "{prefix}");
        let unforced =
            ok(running.put(&own).form(&[("image", "abacosamples/test"), ("force", "false")]));
        assert_eq!(unforced.await["result"]["revision"], 2, "{prefix}");

        let deleted = ok(running.delete(&own)).await;
        assert_eq!(deleted["result"], Value::Null, "{prefix}");
        assert!(deleted["message"].as_str().unwrap().starts_with("Actor deleted successfully"));
        // Abaco tells only admins which ids there are not.
        let (to_user, to_admin) = match *prefix {
            "/actors" => (StatusCode::NOT_FOUND, StatusCode::NOT_FOUND),
            _ => (StatusCode::BAD_REQUEST, StatusCode::NOT_FOUND),
        };
        expect(running.get(&own), to_user).await;
        let admin = running.token("root", "ABAX", &["admin"]);
        let request = || running.stranger(Method::GET, &own).bearer_auth(&admin);
        expect(request(), to_admin).await;
    }
}

#[tokio::test]
async fn a_new_actor_says_where_it_is() {
    let running = start().await;
    let answer = running.post("/actors").json(&json!({"image": "busybox"})).send().await.unwrap();
    let (headers, body) = envelope(answer, StatusCode::CREATED).await;
    assert_eq!(headers["location"].to_str().unwrap(), body["result"]["_links"]["self"]);
}

#[tokio::test]
async fn names_and_nulls_are_those_of_the_dialect() {
    let running = start().await;
    let id = running.register(json!({"defaultEnvironment": {"snake_key": null, "n": 1}})).await;
    let bare = ok(running.get(&format!("/actors/{id}"))).await;
    let v2 = ok(running.get(&format!("/actors/v2/{id}"))).await;
    let v3 = ok(running.get(&format!("/v3/actors/{id}"))).await;

    assert_eq!(bare["result"]["maxWorkers"], Value::Null);
    assert!(keys_of(&bare["result"]).contains(&"maxWorkers"));
    assert!(!keys_of(&v2["result"]).contains(&"maxWorkers"));
    assert!(keys_of(&v2["result"]).contains(&"createTime"));
    assert!(keys_of(&v3["result"]).contains(&"max_workers"));
    assert_eq!(v3["metadata"], json!({}));
    assert!(!keys_of(&v2).contains(&"metadata"));
    // What the user wrote is nobody's to rename.
    for body in [&bare["result"]["defaultEnvironment"], &v3["result"]["default_environment"]] {
        assert_eq!(*body, json!({"snake_key": null, "n": 1}));
    }
    for time in [&bare["result"]["createTime"], &v3["result"]["last_update_time"]] {
        let time = time.as_str().unwrap();
        assert!(time.len() == 24 && time.ends_with('Z') && &time[19..20] == ".", "{time}");
    }
    // The text means that the service's default applies.
    assert_eq!(v3["result"]["token"], "false");
    let links = &v3["result"]["_links"];
    assert_eq!(links["owner"], running.url("/v3/oauth2/profiles/ada"));
    assert_eq!(v2["result"]["_links"]["owner"], running.url("/profiles/v2/ada"));
}

#[tokio::test]
async fn parameters_come_as_json_form_multipart_or_query_in_either_case() {
    let running = start().await;
    let created = StatusCode::CREATED;
    let form = expect(
        running.post("/actors").form(&[
            ("image", "busybox"),
            ("stateless", "False"),
            ("log_ex", "16000"),
            ("hints", "a"),
            ("hints", "b"),
            ("force", "true"),
        ]),
        created,
    )
    .await["result"]
        .clone();
    assert_eq!(form["stateless"], false);
    assert_eq!(form["logEx"], 16000);
    assert_eq!(form["hints"], json!(["a", "b"]));

    let query = expect(running.post("/actors?image=busybox&description=from+query"), created).await;
    assert_eq!(query["result"]["description"], "from query");

    let both = running
        .post("/actors?description=query")
        .json(&json!({"image": "busybox", "description": "json"}));
    assert_eq!(expect(both, created).await["result"]["description"], "json");

    let multipart = "--x\r\nContent-Disposition: form-data; name=\"image\"\r\n\r\nbusybox\r\n\
                     --x\r\nContent-Disposition: form-data; name=\"hints\"\r\n\r\none\r\n--x--\r\n";
    let multipart = running
        .post("/actors")
        .header("content-type", "multipart/form-data; boundary=x")
        .body(multipart);
    let multipart = expect(multipart, created).await["result"].clone();
    assert_eq!((&multipart["image"], &multipart["hints"]), (&json!("busybox"), &json!(["one"])));

    let v3 = ok(running.post("/v3/actors").json(&json!({"image": "busybox", "logEx": "5"}))).await;
    assert_eq!(v3["result"]["log_ex"], 5);
}

#[tokio::test]
async fn refused_fields_are_named_in_the_callers_case() {
    let running = start().await;
    for (body, camel, snake) in [
        (json!({}), "image", "image"),
        (json!({"image": "busybox", "stateless": "abcd"}), "stateless", "stateless"),
        (
            json!({"image": "busybox", "use_container_uid": "abcd"}),
            "useContainerUid",
            "use_container_uid",
        ),
        (
            json!({"image": "busybox", "defaultEnvironment": "abcd"}),
            "defaultEnvironment",
            "default_environment",
        ),
        (json!({"image": "busybox", "log_ex": "soon"}), "logEx", "log_ex"),
        (json!({"image": "busybox", "hints": ["it's"]}), "hints", "hints"),
    ] {
        let bare = running.post("/actors").json(&body);
        let bare = expect(bare, StatusCode::UNPROCESSABLE_ENTITY).await;
        assert_eq!(bare["errors"][0]["field"], camel, "{bare}");
        for (prefix, name) in [("/actors/v2", camel), ("/v3/actors", snake)] {
            let answer = expect(running.post(prefix).json(&body), StatusCode::BAD_REQUEST).await;
            let message = answer["message"].as_str().unwrap();
            assert!(message.contains(&format!("'{name}'")), "{prefix}: {message}");
        }
    }
    // Every field at once.
    let two = running.post("/actors").json(&json!({"stateless": "x", "logEx": "y"}));
    let two = expect(two, StatusCode::UNPROCESSABLE_ENTITY).await;
    assert_eq!(two["errors"].as_array().unwrap().len(), 3, "{two}");
}

#[tokio::test]
async fn json_without_its_content_type_is_explained() {
    let running = start().await;
    let curl = running
        .post("/actors")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(r#"{"image": "busybox"}"#);
    let answer = expect(curl, StatusCode::UNPROCESSABLE_ENTITY).await;
    assert!(answer["message"].as_str().unwrap().contains("Content-Type: application/json"));
}

#[tokio::test]
async fn restricted_attributes_are_for_the_privileged() {
    let running = start().await;
    for attribute in [
        json!({"max_workers": 2}),
        json!({"mem_limit": "1g"}),
        json!({"max_cpus": 1}),
        json!({"queue": "special"}),
        json!({"privileged": true}),
    ] {
        let mut body = attribute.clone();
        body["image"] = json!("busybox");
        let refused = expect(running.post("/v3/actors").json(&body), StatusCode::BAD_REQUEST).await;
        let message = refused["message"].as_str().unwrap();
        assert!(message.starts_with("Not authorized --"), "{attribute}: {message}");
        expect(running.post("/actors").json(&body), StatusCode::FORBIDDEN).await;
        let token = running.token("root", "ABAX", &["admin"]);
        let admin = running.stranger(Method::POST, "/v3/actors").bearer_auth(token).json(&body);
        let (name, value) = attribute.as_object().unwrap().iter().next().unwrap();
        assert_eq!(ok(admin).await["result"][name], *value);
    }
    let stateful = json!({"image": "busybox", "stateless": false, "max_workers": 2});
    let token = running.token("root", "ABAX", &["abaco_privileged"]);
    let request = running.stranger(Method::POST, "/v3/actors").bearer_auth(token).json(&stateful);
    let message = expect(request, StatusCode::BAD_REQUEST).await["message"].clone();
    assert!(message.as_str().unwrap().contains("stateful actors can only have 1 worker"));
}

#[tokio::test]
async fn running_as_the_executor_is_refused_with_the_known_texts() {
    let running = start().await;
    let request =
        running.post("/v3/actors").json(&json!({"image": "busybox", "run_as_executor": true}));
    let answer = expect(request, StatusCode::BAD_REQUEST).await;
    assert_eq!(answer["message"], "run_as_executor isn't supported for your tenant");
    let both = json!({"image": "busybox", "run_as_executor": true, "use_container_uid": true});
    let answer = expect(running.post("/v3/actors").json(&both), StatusCode::BAD_REQUEST).await;
    assert_eq!(answer["message"], "Cannot set both use_container_uid and run_as_executor as true");
}

#[tokio::test]
async fn running_as_the_executor_is_shown_where_the_users_are_known() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("users");
    std::fs::write(&path, "ada:x:1001:100::/home/ada:/bin/sh\n").unwrap();
    let change = |config: &mut abax_actors::Config| {
        let identities = abax_actors::Identities::of_file(path, |_, _| true).unwrap();
        config.host_access.identities = Some(identities);
    };
    let running = service::start_of(abax_actors::Clock::system(), change, |_| {}).await;
    for prefix in PREFIXES {
        let is_camel = prefix != "/v3/actors";
        let name = |snake: &'static str, camel: &'static str| if is_camel { camel } else { snake };
        let (this, other) = (
            name("run_as_executor", "runAsExecutor"),
            name("use_container_uid", "useContainerUid"),
        );
        let both = json!({"image": "busybox", this: true, other: true});
        let answer = running.post(prefix).json(&both).send().await.unwrap();
        let answer: serde_json::Value = answer.json().await.unwrap();
        let message = answer["message"].as_str().unwrap();
        assert_eq!(message, format!("Cannot set both {other} and {this} as true"));
        let settings = json!({"image": "busybox", this: true});
        let actor: serde_json::Value =
            running.post(prefix).json(&settings).send().await.unwrap().json().await.unwrap();
        let actor = &actor["result"];
        let shows = prefix != "/actors/v2";
        assert_eq!(actor[this] == true, shows, "{actor}");
        assert_eq!((&actor["uid"], &actor["tasdir"]), (&json!(1001), &json!("/home/ada")));
        let path = format!("{prefix}/{}", actor["id"].as_str().unwrap());
        let request = running.post(&format!("{path}/messages")).form(&[("message", "x")]);
        let sent: serde_json::Value = request.send().await.unwrap().json().await.unwrap();
        let execution = sent["result"]["executionId"].as_str().unwrap();
        let execution = ok(running.get(&format!("{path}/executions/{execution}"))).await;
        let shown = &execution["result"];
        let executor = [name("executor_uid", "executorUid"), name("executor_gid", "executorGid")];
        let expected = if shows { [json!(1001), json!(100)] } else { [json!(null), json!(null)] };
        assert_eq!(executor.map(|name| shown[name].clone()), expected, "{shown}");
    }
}

#[tokio::test]
async fn state_is_any_json_to_the_last_digit() {
    let running = start().await;
    let id = running.register(json!({"stateless": false})).await;
    let path = format!("/v3/actors/{id}/state");
    assert_eq!(ok(running.get(&path)).await["result"], json!({"state": {}}));
    for state in [
        "\"abc\"",
        "{\"b\":1,\"a\":[true,null]}",
        "[1,2]",
        "{}",
        "0",
        "null",
        "12345678901234567890123",
    ] {
        let set = running.post(&path).header("content-type", "application/json").body(state);
        assert_eq!(ok(set).await["result"]["id"], id.as_str(), "{state}");
        let answer = running.get(&path).send().await.unwrap().text().await.unwrap();
        assert!(answer.contains(&format!("\"state\":{state}}}")), "{state}: {answer}");
    }
    // Unquoted text from a client that says it is JSON.
    let plain = || {
        running
            .post(&format!("/actors/v2/{id}/state"))
            .header("content-type", "application/json")
            .body("hello there")
    };
    ok(plain()).await;
    assert_eq!(ok(running.get(&path)).await["result"]["state"], "hello there");
    let broken = running.post(&path).header("content-type", "application/json").body("{\"a\":");
    expect(broken, StatusCode::BAD_REQUEST).await;

    let stateless = running.register(json!({})).await;
    let empty = ok(running.get(&format!("/actors/{stateless}/state"))).await;
    assert_eq!(empty["result"]["state"], json!({}));
    for (prefix, status) in
        PREFIXES.iter().zip([StatusCode::CONFLICT, StatusCode::NOT_FOUND, StatusCode::NOT_FOUND])
    {
        let set = running.post(&format!("{prefix}/{stateless}/state")).json(&json!({"a": 1}));
        assert_eq!(expect(set, status).await["message"], "actor is stateless.");
    }
}

#[tokio::test]
async fn our_update_leaves_what_it_does_not_name() {
    let running = start().await;
    let settings = json!({
        "name": "n", "description": "d", "stateless": false, "hints": ["sync"], "logEx": 60,
        "token": true, "defaultEnvironment": {"a": "b"},
    });
    let id = running.register(settings).await;
    let path = format!("/actors/{id}");
    let before = ok(running.get(&path)).await["result"].clone();
    let put = running.put(&path).json(&json!({"description": "other", "log_ex": null}));
    let after = ok(put).await["result"].clone();
    for (name, value) in before.as_object().unwrap() {
        match name.as_str() {
            "description" => assert_eq!(after[name], "other"),
            "logEx" => assert_eq!(after[name], Value::Null),
            "lastUpdateTime" => assert_ne!(after[name], *value),
            _ => assert_eq!(after[name], *value, "{name}"),
        }
    }
    // An image may be left out, and may not be empty.
    let put = running.put(&path).json(&json!({"image": ""}));
    expect(put, StatusCode::UNPROCESSABLE_ENTITY).await;
    for prefix in &PREFIXES[1..] {
        let put = running.put(&format!("{prefix}/{id}")).json(&json!({"description": "x"}));
        let refused = expect(put, StatusCode::BAD_REQUEST).await;
        assert!(refused["message"].as_str().unwrap().contains("image"), "{refused}");
        let put = running
            .put(&format!("{prefix}/{id}"))
            .json(&json!({"image": "busybox", "stateless": false}));
        let after = ok(put).await["result"].clone();
        assert_eq!((&after["name"], &after["description"]), (&json!("n"), &json!("")), "{prefix}");
        assert_eq!(after["hints"], json!([]), "{prefix}");
    }
}

#[tokio::test]
async fn a_state_is_set_only_in_the_place_of_the_one_that_was_read() {
    let running = start().await;
    let id = running.register(json!({"stateless": false})).await;
    for (round, prefix) in PREFIXES.iter().enumerate() {
        let path = format!("{prefix}/{id}/state");
        let (headers, _) = envelope(running.get(&path).send().await.unwrap(), StatusCode::OK).await;
        let read = headers["etag"].clone();
        let set = |version: &str| {
            running.post(&path).header("if-match", version).json(&json!({"round": round}))
        };
        let answer = set(read.to_str().unwrap()).send().await.unwrap();
        let (headers, _) = envelope(answer, StatusCode::OK).await;
        assert_ne!(headers["etag"], read, "{prefix}");
        for stale in [read.to_str().unwrap(), "\"\"", "W/\"1\""] {
            let refused = expect(set(stale), StatusCode::PRECONDITION_FAILED).await;
            assert!(refused["message"].as_str().unwrap().contains("changed meanwhile"));
        }
        expect(set("no quotes"), StatusCode::BAD_REQUEST).await;
        let either = format!("\"none\", {}", headers["etag"].to_str().unwrap());
        ok(set(&either)).await;
        ok(set("*")).await;
        ok(running.post(&path).json(&json!(round))).await;
        assert_eq!(ok(running.get(&path)).await["result"]["state"], json!(round));
    }
}

#[tokio::test]
async fn lists_have_pages_in_the_shape_of_search() {
    let running = start().await;
    for _ in 0..5 {
        running.register(json!({})).await;
    }
    let page = ok(running.get("/actors/v2?limit=2&skip=1")).await["result"].clone();
    assert_eq!(
        page["_metadata"],
        json!({"totalCount": 5, "recordsSkipped": 1, "recordLimit": 2, "countReturned": 2})
    );
    assert_eq!(page["search"].as_array().unwrap().len(), 2);
    let page = ok(running.get("/v3/actors?limit=23&offset=4")).await["result"].clone();
    assert_eq!(page["_metadata"]["total_count"], 5);
    assert_eq!(page["search"].as_array().unwrap().len(), 1);
    assert!(ok(running.get("/actors?x-nonce=n")).await["result"].is_array());
    for query in ["limit=-1", "limit=x", "image.like=(", "image.nin=x", "skip=1.5"] {
        let answer = expect(running.get(&format!("/actors/v2?{query}")), StatusCode::BAD_REQUEST);
        let name = query.split('=').next().unwrap();
        assert!(answer.await["message"].as_str().unwrap().contains(name), "{query}");
    }
}
