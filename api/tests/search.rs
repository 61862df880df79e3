//! Searches over HTTP, and what operators see of the whole.
#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod service;

use std::time::Duration;

use abax_actors::{Finish, HostInfo, Outcome};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use service::{PREFIXES, Running, expect, keys_of, ok, start};

/// Runs what waits, to its end, with this output.
async fn run(running: &Running, output: &str) {
    let host = running.service.register_host(HostInfo::new("test", "0", 2)).await.unwrap();
    let delivery = running.service.receive(&["default".to_owned()], 1).await.unwrap();
    let lease = Duration::from_secs(60);
    let claim = running.service.claim(delivery, &host, lease).await.unwrap().unwrap();
    let mut finish = Finish::new(Outcome::Succeeded, "");
    finish.output = output.as_bytes().to_vec();
    finish.usage.runtime = Duration::from_secs(2);
    assert!(running.service.finish(&claim.key, finish).await.unwrap());
}

fn admin(running: &Running, path: &str) -> RequestBuilder {
    let token = running.token("root", "ABAX", &["admin"]);
    running.stranger(Method::GET, path).bearer_auth(token)
}

fn counters(result: &Value, snake: bool) -> [u64; 4] {
    let names = match snake {
        true => ["total_count", "count_returned", "record_limit", "records_skipped"],
        false => ["totalCount", "countReturned", "recordLimit", "recordsSkipped"],
    };
    names.map(|name| result["_metadata"][name].as_u64().unwrap_or_else(|| panic!("{result}")))
}

#[tokio::test]
async fn every_collection_is_searched_in_every_dialect() {
    let running = start().await;
    let actor = running.register(json!({"name": "n"})).await;
    let execution = running.send(&actor, "x").await;
    run(&running, "Contents of MSG: x").await;
    for prefix in PREFIXES {
        let snake = prefix == "/v3/actors";
        for collection in ["actors", "executions", "workers", "logs", "LOGS"] {
            let path = format!("{prefix}/search/{collection}");
            let answer = ok(running.get(&path)).await;
            let result = &answer["result"];
            assert_eq!(counters(result, snake), [1, 1, 100, 0], "{path}");
            assert_eq!(keys_of(result), ["_metadata", "search"], "{path}");
            let hit = &result["search"][0];
            for hidden in ["_id", "permissions", "tenant", "exp", "api_server", "apiServer", "dbId"]
            {
                assert!(!keys_of(hit).contains(&hidden), "{path}: {hit}");
            }
            if snake {
                assert_eq!(answer["metadata"], json!({}));
            }
        }
        let logs = ok(running.get(&format!("{prefix}/search/logs"))).await["result"].clone();
        let hit = &logs["search"][0];
        assert_eq!(hit["logs"], "Contents of MSG: x");
        let link = running.url(&format!("{prefix}/{actor}/executions/{execution}"));
        assert_eq!(hit["_links"]["execution"], link);
        assert_eq!(hit["_links"]["self"], format!("{link}/logs"));
        let found = running.get(&format!("{prefix}/search/executions"));
        let hit = ok(found).await["result"]["search"][0].clone();
        assert_eq!(hit["_links"]["logs"], format!("{link}/logs"));
        // Nulls stay, also where objects leave them out.
        assert!(keys_of(&hit).contains(&"reason"), "{prefix}: {hit}");
        let unknown = running.get(&format!("{prefix}/search/nonces"));
        expect(unknown, StatusCode::NOT_FOUND).await;
    }
}

#[tokio::test]
async fn conditions_of_abacos_clients_are_understood() {
    let running = start().await;
    for (name, image) in [("a", "one/test"), ("b", "one/test2"), ("c", "busybox")] {
        running.register(json!({"name": name, "image": image})).await;
    }
    for (query, expected) in [
        ("image=busybox", "c"),
        ("image.neq=busybox", "ab"),
        ("image.like=one/", "ab"),
        ("image.nlike=test$", "bc"),
        (r#"status.in=["SUBMITTED","READY"]"#, "abc"),
        ("status.nin=['SUBMITTED','READY']", ""),
        ("create_time.between=2000-01-01,2999", "abc"),
        ("createTime.lt=2000-05:00", ""),
        ("exactsearch=one/test", "ab"),
        ("search=test2", "bac"),
        ("skip=1&limit=1", "b"),
        ("offset=2", "c"),
        ("image=busybox&image=one/test", "c"),
        ("q=x", ""),
        ("pretty=true", ""),
        ("token=false", ""),
        ("x-nonce=n&image=busybox", "c"),
    ] {
        for prefix in &PREFIXES[1..] {
            for path in [format!("{prefix}/search/actors?{query}"), format!("{prefix}?{query}")] {
                let result = ok(running.get(&path)).await["result"].clone();
                let hits =
                    result["search"].as_array().unwrap_or_else(|| panic!("{path}: {result}"));
                let names: Vec<_> = hits.iter().map(|hit| hit["name"].as_str().unwrap()).collect();
                assert_eq!(names.concat(), expected, "{path}");
            }
        }
    }
    let shown = ok(running.get("/v3/actors/search/actors?limit=1")).await["result"].clone();
    assert_eq!(shown["search"][0]["token"], "false");
}

#[tokio::test]
async fn what_cannot_be_searched_is_a_bad_request_that_names_it() {
    let running = start().await;
    for (query, name) in [
        ("limit=-1", "limit"),
        ("limit=x", "limit"),
        ("skip=-1", "skip"),
        ("create_time.gt=soon", "create_time.gt"),
        ("status.in=READY", "status.in"),
        ("max_workers.between=1", "max_workers.between"),
        ("image.like=(", "image.like"),
    ] {
        for prefix in &PREFIXES[1..] {
            let path = format!("{prefix}/search/actors?{query}");
            let answer = expect(running.get(&path), StatusCode::BAD_REQUEST).await;
            let message = answer["message"].as_str().unwrap();
            assert!(message.contains(name) || message.contains(&camel(name)), "{message}");
        }
        let path = format!("/actors/search/actors?{query}");
        let answer = expect(running.get(&path), StatusCode::UNPROCESSABLE_ENTITY).await;
        assert_eq!(answer["errors"].as_array().unwrap().len(), 1, "{answer}");
    }
    // Ours has no fields that there are not, and types values by their fields.
    for query in ["q=x&revision=x", "nowhere.gt=1&stateless=maybe"] {
        let path = format!("/actors?{query}");
        let answer = expect(running.get(&path), StatusCode::UNPROCESSABLE_ENTITY).await;
        assert_eq!(answer["errors"].as_array().unwrap().len(), 2, "{answer}");
    }
}

fn camel(name: &str) -> String {
    name.replace("_t", "T").replace("_w", "W")
}

#[tokio::test]
async fn lists_below_an_actor_are_searched_too() {
    let running = start().await;
    let (actor, other) = (running.register(json!({})).await, running.register(json!({})).await);
    let execution = running.send(&actor, "x").await;
    run(&running, "alpha").await;
    running.send(&other, "y").await;
    for prefix in &PREFIXES[1..] {
        let snake = *prefix == "/v3/actors";
        for (path, total) in [
            (format!("{actor}/executions?status=COMPLETE"), 1),
            (format!("{actor}/executions?status=SUBMITTED"), 0),
            (format!("{other}/executions?status=SUBMITTED"), 1),
            (format!("{actor}/executions?limit=1"), 1),
            (format!("{actor}/executions/{execution}/logs?exactsearch=ALPHA"), 1),
            (format!("{actor}/executions/{execution}/logs?exactsearch=beta"), 0),
        ] {
            let result = ok(running.get(&format!("{prefix}/{path}"))).await["result"].clone();
            assert_eq!(counters(&result, snake)[0], total, "{prefix}/{path}");
        }
        let stranger =
            running.by("eve", Method::GET, &format!("{prefix}/{actor}/executions?status=COMPLETE"));
        expect(stranger, StatusCode::BAD_REQUEST).await;
    }
    let whole = format!("/actors/{actor}/executions/{execution}/logs?follow=false");
    assert_eq!(ok(running.get(&whole)).await["result"]["logs"], "alpha");
}

#[tokio::test]
async fn our_list_of_executions_has_pages() {
    let running = start().await;
    let actor = running.register(json!({})).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(running.send(&actor, "x").await);
    }
    let path = format!("/actors/{actor}/executions");
    for (query, expected, limit) in [
        ("", vec![0, 1, 2], 1_000),
        ("?limit=2", vec![0, 1], 2),
        ("?limit=2&skip=2", vec![2], 2),
        ("?order=newest&limit=1", vec![2], 1),
        ("?limit=0", vec![], 0),
    ] {
        let result = ok(running.get(&format!("{path}{query}"))).await["result"].clone();
        let rows = result["executions"].as_array().unwrap();
        let shown: Vec<_> = rows.iter().map(|row| row["id"].as_str().unwrap()).collect();
        let expected: Vec<_> = expected.into_iter().map(|n: usize| ids[n].as_str()).collect();
        assert_eq!(shown, expected, "{query}");
        assert_eq!(result["totalExecutions"], 3);
        let counted = counters(&result, false);
        assert_eq!((counted[0], counted[1], counted[2]), (3, shown.len() as u64, limit), "{query}");
    }
    for query in ["limit=x", "skip=-1", "order=best"] {
        let path = format!("{path}?{query}");
        expect(running.get(&path), StatusCode::UNPROCESSABLE_ENTITY).await;
    }
    let search = ok(running.get(&format!("{path}?status=SUBMITTED"))).await["result"].clone();
    assert_eq!(search["search"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn anybody_sees_how_much_there_is_and_admins_whose_it_is() {
    let running = start().await;
    let actor = running.register(json!({"name": "n"})).await;
    running.send(&actor, "x").await;
    run(&running, "").await;
    running.send(&actor, "waits").await;
    for prefix in PREFIXES {
        let snake = prefix == "/v3/actors";
        let key = |snake_name: &'static str, camel: &'static str| match snake {
            true => snake_name,
            false => camel,
        };
        let result = ok(running.get(&format!("{prefix}/utilization"))).await["result"].clone();
        assert_eq!(keys_of(&result), ["currentActors", "totalActors", "workers", "commandQueue"]);
        assert_eq!((&result["currentActors"], &result["commandQueue"]), (&json!(1), &json!(1)));

        let actors = ok(admin(&running, &format!("{prefix}/admin"))).await["result"].clone();
        let row = &actors[0];
        assert_eq!(row[key("db_id", "dbId")], format!("ABAX_{actor}"));
        assert_eq!((&row["tenant"], &row["messages"]), (&json!("ABAX"), &json!(1)));
        assert_eq!((&row["executions"], &row["runtime"]), (&json!(2), &json!(2)));
        assert!(!keys_of(row).contains(&"_links") && row["workers"].is_array());
        assert!(keys_of(row).contains(&key("max_workers", "maxWorkers")), "nulls stay: {row}");

        let workers = ok(admin(&running, &format!("{prefix}/admin/workers"))).await;
        let summary = &workers["result"]["summary"];
        assert_eq!(summary[key("total_workers", "totalWorkers")], 1, "{summary}");
        let worker = &workers["result"]["workers"][0];
        assert_eq!(worker[key("actor_dbid", "actorDbid")], format!("ABAX_{actor}"));

        let executions = ok(admin(&running, &format!("{prefix}/admin/executions"))).await;
        let summary = &executions["result"]["summary"];
        assert_eq!(summary.as_object().unwrap().len(), 12, "{summary}");
        assert_eq!(summary[key("total_executions_all", "totalExecutionsAll")], 2);
        assert_eq!(
            executions["result"]["actors"][0]
                [key("total_execution_runtime", "totalExecutionRuntime")],
            2
        );
        for path in ["admin", "admin/workers", "admin/executions"] {
            let status = match prefix {
                "/actors" => StatusCode::FORBIDDEN,
                _ => StatusCode::BAD_REQUEST,
            };
            let refused = expect(running.get(&format!("{prefix}/{path}")), status).await;
            let message = refused["message"].as_str().unwrap();
            assert!(message.contains("Abaco Admin role required."), "{message}");
            let foreign = running.token("root", "OTHER", &["admin"]);
            let request = running.stranger(Method::GET, &format!("{prefix}/{path}"));
            let seen = ok(request.bearer_auth(foreign)).await["result"].to_string();
            assert!(!seen.contains(&actor), "another tenant's: {seen}");
        }
    }
}
