//! What becomes of messages in the environment of their executions.

#![allow(clippy::unwrap_used, reason = "tests fail where something is missing")]

#[macro_use]
mod fixture;

use std::time::Duration;

use abax_actors::{Claim, ContentType, Json, MessageBody, NewMessage};
use fixture::{Engine, Fixture, LEASE};

on_each_engine!(
    bytes_arrive_as_they_were_sent_in_every_attempt,
    each_kind_of_message_has_its_variables,
    the_environment_is_complete,
);

async fn claimed(f: &Fixture, actor: &str, message: NewMessage) -> Claim {
    let host = f.host().await;
    f.service.send_message(&f.owner, actor, message).await.unwrap();
    f.claim(&host).await
}

fn variable<'a>(claim: &'a Claim, name: &str) -> Option<&'a str> {
    let mut found = claim.environment.iter().filter(|(known, _)| known == name);
    let value = found.next().map(|(_, value)| value.as_str());
    assert_eq!(found.next(), None, "{name} is there twice");
    value
}

async fn bytes_arrive_as_they_were_sent_in_every_attempt(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = f.actor().await;
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[0] ^ 0x5a).collect();
    let claim = claimed(&f, actor.id.as_str(), NewMessage::binary(bytes.clone())).await;
    assert_eq!(claim.message.body, MessageBody::Binary(bytes.clone().into()));
    assert_eq!(claim.message.content_type, ContentType::OctetStream);
    f.clock.advance(LEASE + Duration::from_secs(1));
    f.service.sweep().await.unwrap();
    let host = f.host().await;
    let again = f.claim(&host).await;
    assert_eq!((again.attempt, again.message), (2, NewMessage::binary(bytes)));

    let empty = claimed(&f, actor.id.as_str(), NewMessage::binary(Vec::new())).await;
    assert_eq!(empty.message.body, MessageBody::Binary(Vec::new().into()));
}

async fn each_kind_of_message_has_its_variables(engine: Engine) {
    let f = Fixture::new(engine).await;
    // What an actor sets under the names of the service is not seen.
    let environment = r#"{"MSG": "default", "MSG_JSON": "default", "own": 1.50}"#;
    let actor = f.register(|new| new.default_environment = Json::parse(environment).unwrap()).await;
    let json = r#"{"a": true, "b": null, "c": "x'y"}"#;
    let list = NewMessage::json(Json::parse("[1, [2.0], \"é\"]").unwrap());
    for (message, content_type, msg, msg_json) in [
        (NewMessage::text("it's {text}"), "str", Some("it's {text}"), None),
        (
            NewMessage::json(Json::parse(json).unwrap()),
            "application/json",
            Some(r#"{'a': True, 'b': None, 'c': "x'y"}"#),
            Some(json),
        ),
        (list, "application/json", Some("[1, [2.0], 'é']"), Some("[1, [2.0], \"é\"]")),
        (NewMessage::binary(*b"\0\xff"), "application/octet-stream", None, None),
    ] {
        let claim = claimed(&f, actor.id.as_str(), message).await;
        assert_eq!(variable(&claim, "MSG"), msg, "{content_type}");
        assert_eq!(variable(&claim, "MSG_JSON"), msg_json, "{content_type}");
        for name in ["_abaco_Content_Type", "_abaco_Content-Type"] {
            assert_eq!(variable(&claim, name), Some(content_type));
        }
        assert_eq!(variable(&claim, "own"), Some("1.5"));
    }
}

async fn the_environment_is_complete(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = f
        .register(|new| {
            new.stateless = false;
            new.default_environment =
                Json::parse(r#"{"k": "default", "_abaco_actor_id": "forged"}"#).unwrap();
        })
        .await;
    let state = Json::parse(r#"{"n": 1, "t": "x"}"#).unwrap();
    f.service.set_actor_state(&f.owner, actor.id.as_str(), state).await.unwrap();
    let mut message = NewMessage::text("m");
    message.environment = [("k", "query"), ("k", "again"), ("_abaco_synchronous", "true")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
    message.jwt_header = Some("X-Jwt-Assertion-Dev".to_owned());
    let claim = claimed(&f, actor.id.as_str(), message).await;
    for (name, value) in [
        ("MSG", "m"),
        ("k", "query"),
        ("_abaco_synchronous", "true"),
        ("_abaco_execution_id", claim.execution.id.as_str()),
        ("_abaco_username", "owner"),
        ("_abaco_api_server", "http://127.0.0.1:8000"),
        ("_abaco_jwt_header_name", "X-Jwt-Assertion-Dev"),
        ("_abaco_actor_revision", "1"),
        ("_abaco_access_token", ""),
        ("_abaco_actor_id", actor.id.as_str()),
        ("_abaco_actor_dbid", &actor.dbid()),
        ("_abaco_actor_name", "None"),
        ("_abaco_actor_state", "{'n': 1, 't': 'x'}"),
        ("_abaco_worker_id", claim.worker.as_str()),
        ("_abaco_container_repo", "busybox"),
        ("_actor_configs", "{}"),
    ] {
        assert_eq!(variable(&claim, name), Some(value), "{name}");
    }

    let stateless = f.actor().await;
    let claim = claimed(&f, stateless.id.as_str(), NewMessage::text("m")).await;
    assert_eq!(variable(&claim, "_abaco_actor_state"), Some("{}"));
    assert_eq!(variable(&claim, "_abaco_jwt_header_name"), None);
}
