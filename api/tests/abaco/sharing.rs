//! Permissions, nonces, aliases, and configs.

use reqwest::Method;
use serde_json::{Value, json};

use crate::actors::plain;
use crate::scene::Scene;

const USER: &str = "testuser";
const NO_ACTOR: &str = "~you do not have access to this actor";
const NO_ALIAS: &str = "~you do not have access to this alias";
const NO_NONCES: &str = "~you do not have access to this alias and actor";

/// Registers an actor as `{name}`.
async fn register(s: &Scene, name: &str, user: &str) {
    let registers = s.post(user, "/actors").json(json!({"image": "abaco_test"}));
    registers.shows("~", s.object(plain(name, "abaco_test", user))).await;
}

#[tokio::test]
async fn permissions_are_users_and_their_levels() {
    for s in Scene::each().await {
        register(&s, "actor", USER).await;
        let (path, listed) = ("/actors/{actor}/permissions", "Permissions retrieved successfully.");
        s.get(USER, path).shows(listed, json!({"testuser": "UPDATE"})).await;
        let added = "Permission added successfully.";
        for (user, level) in [("snake_case_user", "UPDATE"), ("snake_case_user", "READ")] {
            let all = json!({"testuser": "UPDATE", user: level});
            let form = [("user", user), ("level", level)];
            s.post(USER, path).form(&form).shows(added, all.clone()).await;
            s.get(USER, path).shows(listed, all).await;
        }
        for (fields, field) in [
            (json!({"user": "u", "level": "WRITE"}), "level"),
            (json!({"user": "u"}), "level"),
            (json!({"level": "READ"}), "user"),
        ] {
            s.post(USER, path).json(fields).says(400, &format!("~{field}")).await;
        }
        let share = async |level: &str| {
            let share = s.post(USER, path).json(json!({"user": "jdoe", "level": level}));
            share.says(200, added).await;
        };
        let send = || s.post("jdoe", "/actors/{actor}/messages").form(&[("message", "m")]);
        let update = || s.put("jdoe", "/actors/{actor}").json(json!({"image": "abaco_test"}));
        share("READ").await;
        s.get("jdoe", "/actors/{actor}").says(200, "~").await;
        send().says(400, NO_ACTOR).await;
        share("EXECUTE").await;
        send().says(200, "~").await;
        update().says(400, NO_ACTOR).await;
        share("UPDATE").await;
        let updated = update().says(200, "Actor updated successfully.").await;
        assert_eq!(updated["owner"], USER);
        share("NONE").await;
        s.get("jdoe", "/actors/{actor}").says(400, NO_ACTOR).await;
        s.get("jdoe", path).says(400, NO_ACTOR).await;
    }
}

/// A nonce of `{name}`, as it is made.
fn nonce(s: &Scene, name: &str, level: &str, uses: i64, of: &str) -> Value {
    let mut nonce = json!({
        "id": format!("{{{name}}}"), "level": level, "description": "", "owner": USER,
        "roles": "@any", "max_uses": uses, "current_uses": 0, "remaining_uses": uses,
        "create_time": "@time", "last_use_time": "None", "api_server": "{server}",
        "actor_id": "{actor}",
        "_links": {
            "self": format!("{{actors}}/{of}/nonces/{{{name}}}"), "owner": "{profiles}/testuser",
            "actor": format!("{{actors}}/{of}"),
        },
    });
    if of.starts_with("aliases") {
        nonce["actor_id"] = Value::Null;
        nonce["alias"] = json!("jane");
    }
    s.object(nonce)
}

#[tokio::test]
async fn nonces_are_made_used_up_and_removed() {
    for s in Scene::each().await {
        register(&s, "actor", USER).await;
        register(&s, "other", USER).await;
        let (all, listed, made) = (
            "/actors/{actor}/nonces",
            "Nonces retrieved successfully.",
            "Actor nonce created successfully.",
        );
        s.get(USER, all).shows(listed, json!([])).await;
        let unlimited = nonce(&s, "unlimited", "EXECUTE", -1, "{actor}");
        s.post(USER, all).shows(made, unlimited.clone()).await;
        let limited = nonce(&s, "limited", "READ", 3, "{actor}");
        let asks = s.post(USER, all).json(json!({"level": "READ", "max_uses": 3}));
        asks.shows(made, limited.clone()).await;
        s.get(USER, all).shows(listed, json!([unlimited.clone(), limited])).await;
        let one = "/actors/{actor}/nonces/{unlimited}";
        s.get(USER, one).shows("Nonce retrieved successfully.", unlimited).await;
        for (fields, field) in [
            (json!({"max_uses": 0}), s.key("max_uses")),
            (json!({"max_uses": -2}), s.key("max_uses")),
            (json!({"max_uses": "few"}), s.key("max_uses")),
            (json!({"level": "WRITE"}), "level".to_owned()),
        ] {
            s.post(USER, all).json(fields).says(400, &format!("~{field}")).await;
        }
        let by = |nonce: &str, method: Method, path: &str| {
            s.nobody(method, &format!("/actors/{path}?x-nonce={{{nonce}}}"))
        };
        let uses = async |nonce: &str| {
            let path = format!("/actors/{{actor}}/nonces/{{{nonce}}}");
            let nonce = s.get(USER, &path).says(200, "~").await;
            let used = nonce[s.key("last_use_time")].as_str().unwrap().ends_with('Z');
            let number = |name: &str| nonce[s.key(name)].as_i64().unwrap();
            assert_eq!(used, number("current_uses") > 0);
            (number("current_uses"), number("remaining_uses"))
        };
        for path in ["{actor}", "{actor}/executions", "{actor}/messages"] {
            by("unlimited", Method::GET, path).says(200, "~").await;
        }
        let send = by("unlimited", Method::POST, "{actor}/messages").form(&[("message", "m")]);
        send.says(200, "~").await;
        assert_eq!(uses("unlimited").await, (4, -1));
        by("limited", Method::GET, "{actor}").says(200, "~").await;
        assert_eq!(uses("limited").await, (1, 2));
        let send = by("limited", Method::POST, "{actor}/messages").form(&[("message", "m")]);
        send.says(400, "Nonce does not have sufficient permissions level.").await;
        for _ in 0..2 {
            by("limited", Method::GET, "{actor}").says(200, "~").await;
        }
        let spent = "^No remaining uses left for this nonce.";
        by("limited", Method::GET, "{actor}").says(400, spent).await;
        assert_eq!(uses("limited").await, (3, 0));

        let unknown = "Nonce does not exist.";
        by("unlimited", Method::GET, "{other}").says(400, unknown).await;
        let search = s.nobody(Method::GET, "/actors/search/actors?x-nonce={unlimited}");
        search.says(404, "~does not resolve").await;
        let list = s.nobody(Method::GET, "/actors?x-nonce={unlimited}");
        list.says(400, "^Not authorized.").await;
        s.delete(USER, one).shows("Nonce deleted successfully.", Value::Null).await;
        by("unlimited", Method::GET, "{actor}").says(400, unknown).await;
        s.get(USER, one).says(400, "Nonce not found.").await;
        s.delete(USER, one).says(404, "Nonce not found.").await;
        s.get("jdoe", all).says(400, NO_ACTOR).await;
    }
}

#[tokio::test]
async fn aliases_stand_for_actors_and_have_rights_of_their_own() {
    for s in Scene::each().await {
        register(&s, "actor", USER).await;
        register(&s, "other", USER).await;
        let alias = |name: &str, actor: &str| {
            s.object(json!({
                "alias": name, "actor_id": actor, "owner": USER,
                "_links": {
                    "self": format!("{{actors}}/aliases/{name}"),
                    "owner": "{profiles}/testuser", "actor": format!("{{actors}}/{actor}"),
                },
            }))
        };
        let makes = |name: &str, actor: &str| {
            s.post(USER, "/actors/aliases").json(json!({"alias": name, "actor_id": actor}))
        };
        let (listed, made) =
            ("Aliases retrieved successfully.", "Actor alias created successfully.");
        s.get(USER, "/actors/aliases").shows(listed, json!([])).await;
        for name in ["jane", "v1.0.doe", "myadmin", "aliases2"] {
            makes(name, "{actor}").shows(made, alias(name, "{actor}")).await;
            let shown = s.get(USER, &format!("/actors/{name}")).says(200, "~").await;
            assert_eq!(shown["id"], s.filled("{actor}"));
            let one = s.get(USER, &format!("/actors/aliases/{name}"));
            one.shows("Actor alias retrieved successfully.", alias(name, "{actor}")).await;
        }
        let all = ["jane", "v1.0.doe", "myadmin", "aliases2"].map(|name| alias(name, "{actor}"));
        let found = s.get(USER, "/actors/aliases").says(200, listed).await;
        assert_eq!(found.as_array().unwrap().len(), all.len());
        makes("jane", "{other}").says(400, "~already exists").await;
        s.know("nothing", abax_actors::ActorId::generate().as_str());
        makes("new", "{nothing}").says(404, "^No actor found with id").await;
        for name in [
            "executions",
            "nonces",
            "logs",
            "messages",
            "adapters",
            "admin",
            "aliases",
            "configs",
            "search",
            "utilization",
            "a b",
            "a/b",
            "a:b",
            "a?b",
            "a#b",
            "{actor}",
        ] {
            makes(name, "{actor}").says(400, "~alias").await;
        }
        s.post(USER, "/actors/aliases")
            .json(json!({"alias": "x"}))
            .says(400, &format!("~{}", s.key("actor_id")))
            .await;
        s.post(USER, "/actors/aliases")
            .json(json!({"actor_id": "{actor}"}))
            .says(400, "~alias")
            .await;
        let moves = |user: &str, to: &str| {
            s.put(user, "/actors/aliases/jane").json(json!({"actor_id": to}))
        };
        let moved = moves(USER, "{other}");
        moved.shows("Actor alias updated successfully.", alias("jane", "{other}")).await;
        let named = s.put(USER, "/actors/aliases/jane");
        named.json(json!({"alias": "x", "actor_id": "{actor}"})).says(400, "~alias").await;
        moves(USER, "{nothing}").says(404, "~").await;
        moves(USER, "{actor}").says(200, "~").await;

        let permissions = "/actors/aliases/jane/permissions";
        s.get(USER, permissions).shows("~", json!({"testuser": "UPDATE"})).await;
        let jdoe = "jdoe";
        s.get(jdoe, "/actors/aliases/jane").says(400, NO_ALIAS).await;
        let share = s.post(USER, permissions).json(json!({"user": jdoe, "level": "UPDATE"}));
        share.shows("~", json!({"testuser": "UPDATE", jdoe: "UPDATE"})).await;
        s.get(jdoe, "/actors/aliases/jane").says(200, "~").await;
        s.get(jdoe, "/actors/jane").says(400, NO_ACTOR).await;
        let text =
            "~ou do not have UPDATE access to the actor you want to associate with this alias";
        moves(jdoe, "{other}").says(400, text).await;
        let nonces = "/actors/aliases/jane/nonces";
        s.get(jdoe, nonces).says(400, NO_NONCES).await;
        s.post(jdoe, nonces).says(400, NO_NONCES).await;
        let new =
            s.post(jdoe, "/actors/aliases").json(json!({"alias": "his", "actor_id": "{actor}"}));
        new.says(400, NO_ACTOR).await;

        let of_alias = nonce(&s, "nonce", "EXECUTE", -1, "aliases/jane");
        s.post(USER, nonces).shows("Actor nonce created successfully.", of_alias.clone()).await;
        s.get(USER, nonces).shows("~", json!([of_alias])).await;
        s.post(USER, nonces).json(json!({"level": "UPDATE"})).says(400, "~level").await;
        for path in ["jane", "jane/messages", "jane/executions", "aliases/jane"] {
            let by_nonce = s.nobody(Method::GET, &format!("/actors/{path}?x-nonce={{nonce}}"));
            by_nonce.says(200, "~").await;
        }
        let by_id = s.nobody(Method::GET, "/actors/{actor}?x-nonce={nonce}");
        by_id.says(400, "Nonce does not exist.").await;

        // Who has UPDATE on it may remove it, and the actor stays.
        let gone = s.delete(jdoe, "/actors/aliases/jane");
        gone.shows("~jane", Value::Null).await;
        s.get(USER, "/actors/aliases/jane").says(404, "~").await;
        s.get(USER, "/actors/jane").says(404, "^Actor with identifier 'jane' not found").await;
        s.delete(USER, "/actors/aliases/jane").says(404, "~").await;
        s.delete(USER, "/actors/{actor}").says(200, "~").await;
        s.get(USER, "/actors/aliases").shows(listed, json!([])).await;
    }
}

#[tokio::test]
async fn configs_are_shown_without_their_secrets() {
    for s in Scene::each().await {
        register(&s, "actor", USER).await;
        register(&s, "other", USER).await;
        register(&s, "limited", "testotheruser").await;
        let config = |name: &str, value: &str, is_secret: bool, actors: &str, owner: &str| {
            s.object(json!({
                "name": name, "value": value, "is_secret": is_secret, "actors": actors,
                "owner": owner, "create_time": "@time", "last_update_time": "@time",
                "_links": {
                    "self": format!("{{actors}}/configs/{name}"),
                    "owner": format!("{{profiles}}/{owner}"),
                },
            }))
        };
        let fields = |name: &str, value: &str, is_secret: bool, actors: &str| json!({"name": name, "value": value, "is_secret": is_secret, "actors": actors});
        let (all, listed, made, updated) = (
            "/actors/configs",
            "Configs retrieved successfully.",
            "Config created successfully.",
            "Config updated successfully.",
        );
        s.get(USER, all).shows(listed, json!([])).await;
        let plain = config("plain", "v", false, "{actor}", USER);
        s.post(USER, all)
            .json(fields("plain", "v", false, "{actor}"))
            .shows(made, plain.clone())
            .await;
        let both = "{actor},{other}";
        // The brackets of what is filled in twice.
        let secret = config("secret", "[secret]", true, &s.filled(both), USER);
        let makes = s.post(USER, all).json(fields("secret", "hunter2", true, both));
        makes.shows(made, secret.clone()).await;
        s.get(USER, all).shows(listed, json!([plain, secret.clone()])).await;
        let one = "/actors/configs/secret";
        s.get(USER, one).shows("Config retrieved successfully.", secret).await;
        let taken = s.post(USER, all).json(fields("plain", "v", false, "{actor}"));
        taken.says(400, "~already exists").await;
        s.know("nothing", abax_actors::ActorId::generate().as_str());
        for name in ["plain", "new"] {
            for actors in ["{nothing}", "{actor},{nothing}", "nobody"] {
                let makes = s.post(USER, all).json(fields(name, "v", false, actors));
                makes.says(404, "~").await;
            }
        }
        for name in ["utilization", "nonces", "a b"] {
            s.post(USER, all).json(fields(name, "v", false, "{actor}")).says(400, "~name").await;
        }
        for field in ["name", "value", "is_secret", "actors"] {
            let mut less = fields("new", "v", false, "{actor}");
            less.as_object_mut().unwrap().remove(field);
            s.post(USER, all).json(less).says(400, &format!("~'{}'", s.key(field))).await;
        }
        let changed = config("secret", "public", false, "{other}", USER);
        let update = s.put(USER, one).json(fields("ignored", "public", false, "{other}"));
        update.shows(updated, changed).await;

        let limited = "testotheruser";
        let his = config("his", "v", false, "{limited}", limited);
        let makes = s.post(limited, all).json(fields("his", "v", false, "{limited}"));
        makes.shows(made, his.clone()).await;
        s.get(limited, all).shows(listed, json!([his])).await;
        s.put(limited, one).json(fields("secret", "x", false, "{limited}")).says(400, "~").await;
        s.get(limited, one).says(400, "~").await;
        s.delete(limited, one).says(400, "~").await;
        let update =
            s.put(limited, "/actors/configs/his").json(fields("his", "w", true, "{limited}"));
        update.says(200, updated).await;
        let permissions = "/actors/configs/his/permissions";
        s.get(limited, permissions).shows("~", json!({limited: "UPDATE"})).await;
        let share = s.post(limited, permissions).json(json!({"user": "jdoe", "level": "READ"}));
        share.says(200, "~").await;
        s.get("jdoe", "/actors/configs/his").says(200, "~").await;
        s.delete(limited, "/actors/configs/his").shows("~his", Value::Null).await;
        s.get(USER, "/actors/configs/his").says(404, "~").await;
    }
}
