//! Is it up, can it work, how much does it do, and what is here at all.

use axum::extract::State;
use axum::response::Response;
use serde_json::json;

use crate::App;
use crate::envelope::{Object, Reply};
use crate::error::{ApiError, Meaning};
use crate::operations::sentence;

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

/// Whether requests shall come here: the store takes writes. A queue that is away
/// delays what is accepted, so the answer says so and stays a success: a load
/// balancer that took every process away would turn a delay into an outage.
pub(super) async fn ready(State(app): State<App>) -> Result<Reply, ApiError> {
    let readiness = app.operations().readiness().await;
    let sentence = format!("The service is {}.", sentence(&readiness));
    if !readiness.is_ready() {
        return Err(ApiError::new(Meaning::Unavailable, sentence));
    }
    let object = Object::default().with("ready", true).with("degraded", &readiness.degraded);
    Ok(Reply::one(sentence, object))
}

/// The numbers of this process and of the store, for Prometheus; no envelope.
pub(super) async fn metrics(State(app): State<App>) -> Response {
    app.operations().all_metrics().await
}
