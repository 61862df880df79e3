//! Registering, showing, updating and deleting actors.

use abax_actors::ActorId;
use serde_json::{Value, json};

use crate::scene::Scene;

/// An actor of which only the image was said, just registered by `owner` as `{id}`.
pub(crate) fn plain(id: &str, image: &str, owner: &str) -> Value {
    json!({
        "id": format!("{{{id}}}"), "name": null, "image": image, "description": "", "owner": owner,
        "stateless": true, "type": "none", "link": "", "webhook": "", "hints": [],
        "token": "false", "privileged": false, "max_workers": null, "mem_limit": null,
        "max_cpus": null, "use_container_uid": false, "run_as_executor": false,
        "default_environment": {}, "status": "SUBMITTED", "status_message": "", "state": {},
        "create_time": "@time", "last_update_time": "@time", "mounts": [], "revision": 1,
        "tasdir": null, "uid": null, "gid": null, "queue": "default", "log_ex": null,
        "max_run_time": null, "cron_on": false, "cron_schedule": null, "cron_next_ex": null,
        "_links": {
            "self": format!("{{actors}}/{{{id}}}"),
            "owner": format!("{{profiles}}/{owner}"),
            "executions": format!("{{actors}}/{{{id}}}/executions"),
        },
    })
}

/// The same with other values.
pub(crate) fn with(mut object: Value, others: Value) -> Value {
    for (name, value) in others.as_object().unwrap() {
        object[name] = value.clone();
    }
    object
}

#[tokio::test]
async fn actors_are_registered_listed_updated_and_deleted() {
    for s in Scene::each().await {
        let user = "testuser";
        s.get(user, "/actors").shows("Actors retrieved successfully.", json!([])).await;
        let registers = s.post(user, "/actors").json(json!({"image": "abaco_test"}));
        let actor = plain("actor", "abaco_test", user);
        registers.shows("Actor created successfully.", s.object(actor.clone())).await;
        for path in ["/actors/{actor}", "//actors//{actor}", "/actors/{actor}/"] {
            let shown = s.get(user, path);
            shown.shows("Actor retrieved successfully.", s.object(actor.clone())).await;
        }
        let list = json!([s.object(actor.clone())]);
        s.get(user, "/actors").shows("Actors retrieved successfully.", list).await;

        // Everything there is, with all texts for numbers and truths.
        let form = s.post(user, "/actors").form(&[
            ("image", "abaco_test"),
            ("name", "all"),
            ("description", "of it"),
            ("stateless", "False"),
            ("type", "bin"),
            ("token", "True"),
            ("webhook", "https://example.org/hook"),
            ("link", "{actor}"),
            ("hints", "sync"),
            ("hints", "other"),
            ("privileged", "1"),
            ("mem_limit", "512m"),
            ("max_cpus", "1000000000"),
            ("use_container_uid", "true"),
            ("queue", "special"),
            ("log_ex", "16000"),
            ("cron_schedule", "2078-09-6 20 + 3 months"),
            ("force", "true"),
        ]);
        let all = with(
            plain("all", "abaco_test", user),
            json!({
                "name": "all", "description": "of it", "stateless": false, "type": "bin",
                "token": true, "webhook": "https://example.org/hook", "link": "{actor}",
                "hints": ["sync", "other"], "privileged": true, "mem_limit": "512m",
                "max_cpus": 1_000_000_000, "use_container_uid": true, "queue": "special",
                "log_ex": 16000, "cron_on": true, "cron_schedule": "2078-09-6 20 + 3 months",
                "cron_next_ex": "2078-9-6 20",
            }),
        );
        form.shows("Actor created successfully.", s.object(all)).await;

        // What is not said falls back; name, state, schedule and owner stay.
        let update = json!({
            "image": "abaco_test", "stateless": false, "log_ex": "20000", "name": "other",
            "owner": "jdoe", "revision": 9,
        });
        let updated = with(
            plain("all", "abaco_test", user),
            json!({
                "name": "all", "stateless": false, "log_ex": 20000,
                "cron_schedule": "2078-09-6 20 + 3 months", "cron_next_ex": "2078-9-6 20",
            }),
        );
        let updates = s.put(user, "/actors/{all}").json(update);
        updates.shows("Actor updated successfully.", s.object(updated.clone())).await;
        let mut revision = 1;
        for (fields, is_image_update) in [
            (json!({"image": "abaco_test2"}), true),
            (json!({"image": "abaco_test2"}), false),
            (json!({"image": "abaco_test2", "force": true}), true),
            (json!({"image": "abaco_test2", "force": "false"}), false),
        ] {
            revision += u32::from(is_image_update);
            let changed = with(
                updated.clone(),
                json!({"image": "abaco_test2", "revision": revision, "log_ex": null}),
            );
            let fields = with(fields, json!({"stateless": false}));
            let updates = s.put(user, "/actors/{all}").json(fields);
            updates.shows("Actor updated successfully.", s.object(changed)).await;
        }
        s.delete(user, "/actors/{all}").shows("Actor deleted successfully.", Value::Null).await;
        let gone = s.get(user, "/actors/{all}");
        gone.says(404, "^No actor found with identifier: {all}").await;
        s.get("jdoe", "/actors/{all}").says(400, "^No actor found with identifier:").await;
        s.delete(user, "/actors/{all}").says(404, "^No actor found").await;

        // One that runs something goes when that has been stopped.
        s.post(user, "/actors/{actor}/messages").form(&[("message", "x")]).says(200, "~").await;
        s.claim().await;
        let deletes = s.delete(user, "/actors/{actor}");
        deletes.says(200, "^Actor deleted successfully, though").await;
    }
}

#[tokio::test]
async fn what_is_refused_is_400_and_names_the_field() {
    for s in Scene::each().await {
        let actor = json!({"image": "abaco_test"});
        s.post("testuser", "/actors")
            .json(actor.clone())
            .shows("~", s.object(plain("actor", "abaco_test", "testuser")))
            .await;
        let stateful = s.post("testuser", "/actors").json(with(actor, json!({"stateless": false})));
        let made = with(plain("stateful", "abaco_test", "testuser"), json!({"stateless": false}));
        stateful.shows("~", s.object(made)).await;
        let names = |field: &str| format!("~'{}'", s.key(field));
        for (fields, message) in [
            (json!({"stateless": "abcd"}), names("stateless")),
            (json!({"stateless": ""}), names("stateless")),
            (json!({"stateless": 1}), names("stateless")),
            (json!({"use_container_uid": "abcd"}), names("use_container_uid")),
            (json!({"default_environment": "abcd"}), names("default_environment")),
            (json!({"log_ex": "soon"}), names("log_ex")),
            (json!({"max_workers": "many"}), names("max_workers")),
            (json!({"image": ""}), names("image")),
            (json!({"image": null}), names("image")),
            (json!({"hints": ["it's"]}), names("hints")),
            (json!({"hints": ["{a}"]}), names("hints")),
            (json!({"queue": "nowhere"}), "~Invalid queue name.".to_owned()),
            (
                json!({"stateless": false, "max_workers": 3}),
                "~stateful actors can only have 1 worker".to_owned(),
            ),
            (json!({"link": "nobody"}), "^Invalid link parameter".to_owned()),
            (
                json!({"cron_schedule": "2020-06-21 14 + 6 hours"}),
                "^The starting datetime is old".to_owned(),
            ),
            (
                json!({"cron_schedule": "2020-06-21 14 + 6 flimflams"}),
                "~not in the correct format".to_owned(),
            ),
            (
                json!({"cron_schedule": "2078-06-21 14 + 6 flimflams"}),
                "~not in the correct format".to_owned(),
            ),
            (
                json!({"cron_schedule": "2078-02-30 14 + x hours"}),
                "~not in the correct format".to_owned(),
            ),
        ] {
            let fields = with(json!({"image": "abaco_test"}), fields);
            s.post("testuser", "/actors").json(fields.clone()).says(400, &message).await;
            s.put("testuser", "/actors/{actor}").json(fields).says(400, &message).await;
        }
        for user in ["testuser", "jdoe"] {
            s.post(user, "/actors").says(400, &names("image")).await;
            for body in ["{", "[1]", "\"text\""] {
                s.post(user, "/actors").body("application/json", body).says(400, "~JSON").await;
            }
        }
        s.put("testuser", "/actors/{actor}").says(400, &names("image")).await;
        for stateless in [json!({"stateless": true}), json!({})] {
            let fields = with(json!({"image": "abaco_test"}), stateless);
            let update = s.put("testuser", "/actors/{stateful}").json(fields);
            update.says(400, &names("stateless")).await;
        }
        let link = |to: &str| json!({"image": "abaco_test", "stateless": false, "link": to});
        let update = s.put("testuser", "/actors/{stateful}").json(link("{stateful}"));
        update.says(400, "~itself").await;
        s.put("testuser", "/actors/{stateful}").json(link("{actor}")).says(200, "~").await;
        let closes = s.put("testuser", "/actors/{actor}").json(link("{stateful}"));
        closes.says(400, "~this update would result in a cycle of linked actors").await;

        let executor = |fields: Value| {
            s.post("testuser", "/actors")
                .json(with(json!({"image": "abaco_test", "run_as_executor": true}), fields))
        };
        let (this, other) = (s.key("run_as_executor"), s.key("use_container_uid"));
        let both = format!("Cannot set both {other} and {this} as true");
        executor(json!({"use_container_uid": true})).says(400, &both).await;
        let alone = format!("{this} isn't supported for your tenant");
        executor(json!({})).says(400, &alone).await;
    }
}

#[tokio::test]
async fn users_of_each_role_have_actors_of_their_own() {
    for s in Scene::each().await {
        for user in ["testuser", "testshareuser", "testotheruser", "jdoe"] {
            s.get(user, "/actors").shows("~", json!([])).await;
            let registers = s.post(user, "/actors").json(json!({
                "image": "abaco_test",
                // Nobody chooses any of these.
                "uid": 0, "gid": 0, "tasdir": "/root", "status": "READY", "status_message": "x",
                "state": {"a": 1}, "executions": {}, "id": "x", "tenant": "x", "owner": "root",
                "mounts": [{"host_path": "/", "container_path": "/host", "mode": "rw"}],
                "unknown": 1,
            }));
            let actor = s.object(plain(user, "abaco_test", user));
            registers.shows("~", actor.clone()).await;
            s.get(user, "/actors").shows("~", json!([actor.clone()])).await;
            s.get(user, &format!("/actors/{{{user}}}")).shows("~", actor).await;
        }
        for user in ["testotheruser", "jdoe"] {
            for (name, value, words) in [
                ("privileged", json!(true), "privileged actors"),
                ("max_workers", json!(3), "max workers"),
                ("max_cpus", json!(1_000_000_000), "max CPUs"),
                ("mem_limit", json!("512m"), "mem limit"),
                ("queue", json!("special"), "queue"),
                ("use_container_uid", json!(true), "container uid"),
            ] {
                let fields = json!({"image": "abaco_test", name: value});
                let own = format!("/actors/{{{user}}}");
                s.put(user, &own).json(fields.clone()).says(400, "^Not authorized --").await;
                let registers = || s.post(user, "/actors").json(fields.clone());
                registers().says(400, "^Not authorized --").await;
                registers().says(400, &format!("~{words}")).await;
            }
        }
        for user in ["testuser", "testshareuser"] {
            let registers = s.post(user, "/actors").json(json!({
                "image": "abaco_test", "privileged": true, "max_workers": 3, "queue": "special",
                "max_cpus": 1_000_000_000, "mem_limit": "512m", "use_container_uid": true,
            }));
            let name = format!("restricted {user}");
            let actor = with(
                plain(&name, "abaco_test", user),
                json!({
                    "privileged": true, "max_workers": 3, "queue": "special",
                    "max_cpus": 1_000_000_000, "mem_limit": "512m", "use_container_uid": true,
                }),
            );
            registers.shows("~", s.object(actor)).await;
            s.delete(user, &format!("/actors/{{{name}}}")).says(200, "~deleted").await;
        }
        // Another's is there for admins, and not in their lists.
        s.get("testuser", "/actors/{jdoe}").says(200, "~").await;
        let text = "~you do not have access to this actor";
        s.get("testshareuser", "/actors/{jdoe}").says(400, text).await;
        let others = s.get("testuser", "/actors").says(200, "~").await;
        assert_eq!(others.as_array().unwrap().len(), 1);
        for user in ["testuser", "testshareuser", "testotheruser", "jdoe"] {
            s.delete(user, &format!("/actors/{{{user}}}")).says(200, "~deleted").await;
            s.get(user, "/actors").shows("~", json!([])).await;
        }
    }
}

#[tokio::test]
async fn who_is_nobody_and_what_is_nowhere_hears_it_in_an_envelope() {
    for s in Scene::each().await {
        use reqwest::Method;
        let nothing = ActorId::generate().to_string();
        s.know("nothing", &nothing);
        for path in ["/actors", "/actors/{nothing}", "/actors/aliases", "/actors/admin"] {
            s.nobody(Method::GET, path).says(400, "^No JWT or nonce provided.").await;
        }
        for (user, status) in [("testuser", 404), ("jdoe", 400)] {
            for path in ["", "/state", "/messages", "/executions", "/workers", "/nonces"] {
                let path = format!("/actors/{{nothing}}{path}");
                s.get(user, &path).says(status, "^No actor found with identifier:").await;
            }
            let missing = s.get(user, "/actors/bad_actor_id");
            missing.says(404, "^Actor with identifier 'bad_actor_id' not found").await;
            s.get(user, "/nowhere").says(404, "~").await;
        }
        for (method, path) in [
            (Method::PUT, "/actors"),
            (Method::POST, "/actors/{nothing}"),
            (Method::PUT, "/actors/{nothing}/messages"),
            (Method::PUT, "/actors/{nothing}/executions"),
            (Method::POST, "/actors/{nothing}/executions/x"),
            (Method::POST, "/actors/{nothing}/executions/x/logs"),
            (Method::PUT, "/actors/{nothing}/nonces"),
            (Method::POST, "/actors/{nothing}/nonces/x"),
            (Method::PUT, "/actors/{nothing}/workers"),
            (Method::PUT, "/actors/{nothing}/permissions"),
        ] {
            s.nobody(method.clone(), path).says(405, "~method").await;
            s.ask("jdoe", method, path).says(405, "~method").await;
        }
        for path in ["/actors/admin", "/actors/admin/workers", "/actors/admin/executions"] {
            s.get("jdoe", path).says(400, "~Abaco Admin role required.").await;
        }
    }
}
