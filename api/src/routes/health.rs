//! Is it up, can it work, and what is here at all.

use axum::extract::State;
use serde_json::json;

use crate::App;
use crate::envelope::{Object, Reply};
use crate::error::ApiError;

/// `GET /`: a first page for whoever finds the port.
pub(super) async fn welcome() -> Reply {
    let prefixes = json!({
        "/actors": "Abax: camelCase, all HTTP statuses",
        "/actors/v2": "as Abaco v2",
        "/v3/actors": "as Abaco v3 (Tapis)",
    });
    let object = Object::default()
        .with("service", "abax")
        .with("about", "Runs functions as containers: register an image as an actor, send it messages, read the logs.")
        .with("prefixes", prefixes)
        .with("authentication", "Authorization: Bearer TOKEN; `abax token` prints one")
        .with_links([
            ("actors", "/actors".to_owned()),
            ("health", "/health".to_owned()),
        ]);
    Reply::one("Welcome to Abax.", object)
}

/// The process answers.
pub(super) async fn alive() -> Reply {
    Reply::one("The service is up.", Object::default().with("alive", true))
}

/// The store and the queue answer too.
pub(super) async fn ready(State(app): State<App>) -> Result<Reply, ApiError> {
    app.service().health().await?;
    Ok(Reply::one("The service is up and ready.", Object::default().with("ready", true)))
}

/// Sites and tenants as one client looks for at its start: there are none to choose from here.
pub(super) async fn nothing() -> Reply {
    Reply::many("The request was successful", Vec::new())
}
