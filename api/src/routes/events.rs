//! Events: what became of them, and how the receiver of a webhook knows them.

use abax_actors::EventDelivery;
use axum::extract::{Path, State};
use secrecy::ExposeSecret as _;
use serde_json::value::RawValue;

use crate::App;
use crate::auth::Signed;
use crate::envelope::{Object, Reply};
use crate::error::ApiError;
use crate::routes::actors::{link as actor_link, profile};

/// The latest events of an actor that has a link or a webhook.
pub(super) async fn deliveries(
    Signed(caller): Signed,
    State(app): State<App>,
    Path(actor): Path<String>,
) -> Result<Reply, ApiError> {
    let deliveries = app.service().event_deliveries(&caller, &actor).await?;
    let objects = deliveries.iter().map(object).collect();
    Ok(Reply::many("Event deliveries retrieved successfully.", objects))
}

/// Where events of an actor are posted, and the key that signs them.
pub(super) async fn webhook(
    Signed(caller): Signed,
    State(app): State<App>,
    Path(actor): Path<String>,
) -> Result<Reply, ApiError> {
    let actor = app.service().actor_of_webhook(&caller, &actor).await?;
    let secret = app.keys().webhook_secret(actor.tenant.as_str(), actor.id.as_str());
    let this = actor_link(&actor);
    let object = Object::default()
        .with("url", &actor.webhook)
        .with("signing_secret", secret.encoded().expose_secret())
        .with_links([
            ("self", format!("{this}/webhook")),
            ("owner", profile(&actor.owner)),
            ("deliveries", format!("{this}/deliveries")),
        ]);
    Ok(Reply::one("Webhook retrieved successfully.", object))
}

fn object(delivery: &EventDelivery) -> Object {
    let status = match (delivery.delivered, delivery.next) {
        (Some(_), _) => "delivered",
        (None, Some(_)) => "waiting",
        (None, None) => "given_up",
    };
    // It was written by us; what cannot be read is shown as nothing.
    let payload = RawValue::from_string(delivery.payload.clone()).ok();
    Object::default()
        .with("id", delivery.id.as_str())
        .with("event_type", delivery.event.as_str())
        .with("kind", delivery.kind.as_str())
        .with("target", &delivery.target)
        .with("status", status)
        .with("attempts", delivery.attempts)
        .with("event_time", delivery.created.iso_millis())
        .with("delivered_time", delivery.delivered.map(|time| time.iso_millis()))
        .with("next_attempt_time", delivery.next.map(|time| time.iso_millis()))
        .with("last_status", delivery.last_status)
        .with("last_error", &delivery.last_error)
        .with("payload", payload)
}
