//! Searches, utilization, and what admins see.

use abax_actors::{Finish, Outcome};
use serde_json::{Value, json};

use crate::actors::plain;
use crate::scene::Scene;

const USER: &str = "testuser";

/// An actor of `USER` that ran once.
async fn ran(s: &Scene) {
    let registers = s.post(USER, "/actors").json(json!({"image": "abaco_test"}));
    registers.shows("~", s.object(plain("actor", "abaco_test", USER))).await;
    let sends = s.post(USER, "/actors/{actor}/messages").form(&[("message", "m")]);
    let sent = sends.says(200, "~").await;
    s.know("e", sent["executionId"].as_str().unwrap());
    let claim = s.claim().await;
    let mut finish = Finish::new(Outcome::Succeeded, "");
    finish.output = b"words that are found".to_vec();
    finish.exit_code = Some(0);
    finish.usage.cpu_ns = 3;
    assert!(s.running.service.finish(&claim.key, finish).await.unwrap());
}

#[tokio::test]
async fn searches_have_four_counters_and_hits() {
    for s in Scene::each().await {
        let done = "Search completed successfully.";
        for collection in ["actors", "executions", "workers", "logs", "LOGS"] {
            let path = format!("/actors/search/{collection}");
            s.get(USER, &path).shows(done, s.found(vec![])).await;
        }
        ran(&s).await;
        let actor = s.get(USER, "/actors/{actor}").says(200, "~").await;
        assert_eq!(actor["status"], "READY");
        let actor = || {
            let mut actor = plain("actor", "abaco_test", USER);
            (actor["status"], actor["status_message"]) = (json!("READY"), json!(" "));
            s.row(actor)
        };
        let execution = || {
            s.row(json!({
                "id": "{e}", "actor_id": "{actor}", "executor": USER, "executor_uid": null,
                "executor_gid": null, "status": "COMPLETE", "outcome": "succeeded",
                "reason": null, "attempt": 1, "worker_id": "{worker}",
                "message_received_time": "@time", "start_time": "@time", "finish_time": "@time",
                "runtime": 0, "cpu": 3, "io": 0, "peak_memory": null, "exit_code": 0,
                "final_state": null, "phases": "@any",
                "_links": {
                    "self": "{actors}/{actor}/executions/{e}", "owner": "{profiles}/testuser",
                    "logs": "{actors}/{actor}/executions/{e}/logs",
                },
            }))
        };
        let worker = || {
            s.row(json!({
                "id": "{worker}", "actor_id": "{actor}", "status": "READY", "image": "abaco_test",
                "revision": 1, "ch_name": "worker_{worker}", "cid": "{worker}",
                "location": "abax://node-1", "host_id": "@text", "host_name": "node-1",
                "host_ip": null, "create_time": "@time", "last_execution_time": "@time",
                "last_health_check_time": "@time",
            }))
        };
        let log = || {
            json!({"logs": "words that are found", "_links": {
                "self": "{actors}/{actor}/executions/{e}/logs", "owner": "{profiles}/testuser",
                "execution": "{actors}/{actor}/executions/{e}",
            }})
        };
        for (path, hit) in [
            ("search/actors", actor()),
            ("search/executions", execution()),
            ("search/workers", worker()),
            ("search/logs", log()),
            ("search/actors?image=abaco_test", actor()),
            ("search/actors?image.neq=other&image.like=test&image.nlike=other", actor()),
            (r#"search/actors?status.in=["READY","SUBMITTED"]"#, actor()),
            ("search/actors?status.nin=['ERROR']", actor()),
            ("search/actors?create_time.between=2000-01-01,2999-01-01", actor()),
            ("search/actors?createTime.gt=2000-05:00", actor()),
            ("search/actors?exactsearch=abaco_test", actor()),
            ("search/actors?search=test", actor()),
            ("search/executions?message_received_time.between=2000,2999-01-01T01:00", execution()),
            ("search/executions?finish_time.gt=2000-01-01T01:00:00", execution()),
            ("search/executions?exit_code=0&status=COMPLETE", execution()),
            ("search/logs?exactsearch=words%20that", log()),
            ("?image=abaco_test", actor()),
            ("{actor}/executions?status=COMPLETE", execution()),
            ("{actor}/workers?status=READY", worker()),
            ("{actor}/executions/{e}/logs?exactsearch=words", log()),
        ] {
            let path = format!("/actors/{path}").replace("/?", "?");
            s.get(USER, &path).shows(done, s.found(vec![hit])).await;
        }
        for path in [
            "search/actors?image=other",
            "search/actors?exactsearch=other",
            "search/actors?name=1",
            "search/actors?token=false",
            "search/actors?createTime.lt=2000-01-01T01:00",
            "{actor}/workers?status=BUSY",
            "{actor}/executions?status=SUBMITTED",
            "{actor}/executions/{e}/logs?exactsearch=other",
        ] {
            s.get(USER, &format!("/actors/{path}")).shows(done, s.found(vec![])).await;
        }
        for query in [
            "limit=-1",
            "limit=x",
            "skip=-1",
            "skip=1.5",
            "createTime.gt=soon",
            "status.in=READY",
            "image.like=(",
            "max_workers.between=1",
            "create_time.between=2000",
        ] {
            let name = query.split(['=', '.']).next().unwrap();
            for path in [format!("search/actors?{query}"), format!("?{query}")] {
                let path = format!("/actors/{path}").replace("/?", "?");
                let message = s.get(USER, &path).says(400, "^Invalid request").await;
                assert_eq!(message, Value::Null, "{name}");
            }
        }
        s.get(USER, "/actors/search/nonces").says(404, "~nonces").await;
        // Others find what is shared with them, by whatever way.
        for path in ["search/actors", "search/executions", "search/workers", "search/logs"] {
            let path = format!("/actors/{path}");
            s.get("jdoe", &path).shows(done, s.found(vec![])).await;
        }
        let share = s.post(USER, "/actors/{actor}/permissions");
        share.json(json!({"user": "jdoe", "level": "READ"})).says(200, "~").await;
        s.get("jdoe", "/actors/search/logs").shows(done, s.found(vec![log()])).await;
        s.get("jdoe", "/actors/search/workers").shows(done, s.found(vec![worker()])).await;
    }
}

#[tokio::test]
async fn pages_of_ten_are_counted() {
    for s in Scene::each().await {
        for _ in 0..10 {
            s.post(USER, "/actors").json(json!({"image": "abaco_test"})).says(200, "~").await;
        }
        for path in ["/actors/search/actors?skip=4&limit=23", "/actors?limit=23&offset=4"] {
            let found = s.get(USER, path).says(200, "Search completed successfully.").await;
            let counters = s.row(json!({
                "total_count": 10, "records_skipped": 4, "record_limit": 23, "count_returned": 6,
            }));
            assert_eq!(found["_metadata"], counters);
            assert_eq!(found["search"].as_array().unwrap().len(), 6);
        }
        let page = s.get(USER, "/actors?limit=1").says(200, "~").await;
        assert_eq!(page["search"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn numbers_of_the_whole_are_everybodys_and_lists_are_admins() {
    for s in Scene::each().await {
        ran(&s).await;
        let numbers =
            json!({"currentActors": 1, "totalActors": 1, "workers": 1, "commandQueue": 0});
        let utilization = s.get("jdoe", "/actors/utilization");
        utilization.shows("Abaco utilization returned successfully.", numbers).await;

        let actors = s.get(USER, "/actors/admin").says(200, "~").await;
        let row = &actors[0];
        for (name, value) in [
            ("db_id", s.filled("DEV-DEVELOP_{actor}")),
            ("tenant", "DEV-DEVELOP".to_owned()),
            ("api_server", s.filled("{server}")),
        ] {
            assert_eq!(row[s.key(name)], value);
        }
        let counted = (&row["messages"], &row["executions"], &row["runtime"]);
        assert_eq!(counted, (&json!(0), &json!(1), &json!(0)));
        assert!(row["workers"].is_array() && row.get("_links").is_none(), "{row}");
        assert!(row.as_object().unwrap().contains_key(&s.key("max_workers")), "nulls stay");

        let workers = s.get(USER, "/actors/admin/workers").says(200, "~").await;
        let summary = json!({
            "total_workers": 1, "ready_workers": 1, "requested_workers": 0, "error_workers": 0,
            "busy_workers": 0, "actors_no_workers": 0,
        });
        assert_eq!(workers["summary"], s.row(summary));
        let worker = &workers["workers"][0];
        assert_eq!(worker[s.key("actor_id")], s.filled("{actor}"));
        assert_eq!(worker[s.key("actor_dbid")], s.filled("DEV-DEVELOP_{actor}"));

        let executions = s.get(USER, "/actors/admin/executions").says(200, "~").await;
        let summary = json!({
            "total_actors_all": 1, "total_actors_all_with_executions": 1,
            "total_executions_all": 1, "total_execution_runtime_all": 0,
            "total_execution_cpu_all": 3, "total_execution_io_all": 0,
            "total_actors_existing": 1, "total_actors_existing_with_executions": 1,
            "total_executions_existing": 1, "total_execution_runtime_existing": 0,
            "total_execution_cpu_existing": 3, "total_execution_io_existing": 0,
        });
        assert_eq!(executions["summary"], s.row(summary));
        let row = json!({
            "actor_id": s.filled("{actor}"), "owner": USER, "image": "abaco_test",
            "total_executions": 1, "total_execution_cpu": 3, "total_execution_io": 0,
            "total_execution_runtime": 0,
        });
        assert_eq!(executions["actors"], json!([s.row(row)]));
    }
}
