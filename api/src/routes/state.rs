//! What a stateful actor keeps between executions.

use abax_actors::Json;
use axum::extract::{Path, Request, State};

use crate::App;
use crate::auth::Signed;
use crate::dialect::Dialect;
use crate::envelope::{Object, Reply};
use crate::error::{ApiError, Meaning};
use crate::parameters::Incoming;
use crate::routes::actors;

pub(super) async fn show(
    Signed(caller): Signed,
    State(app): State<App>,
    Path(actor): Path<String>,
) -> Result<Reply, ApiError> {
    let state = app.service().actor_state(&caller, &actor).await?;
    let object = Object::default().with("state", &state);
    Ok(Reply::one("Actor state retrieved successfully.", object).keeping_nulls())
}

/// The whole body is the new state.
pub(super) async fn set(
    Signed(caller): Signed,
    State(app): State<App>,
    Path(actor): Path<String>,
    request: Request,
) -> Result<Reply, ApiError> {
    let config = app.config();
    let dialect = request.extensions().get::<Dialect>().copied().unwrap_or_default();
    let incoming = Incoming::read(request, config.body_limit_bytes, config.body_timeout).await?;
    let state = match incoming.json() {
        Ok(state) => state,
        // One of Abaco's clients sends text without quotes and says that it is JSON.
        Err(error) if dialect.is_abaco() && incoming.is_json() => plain_text(&incoming, error)?,
        Err(error) => return Err(error),
    };
    let actor = app.service().set_actor_state(&caller, &actor, state).await?;
    Ok(Reply::one("State updated successfully.", actors::object(&actor)))
}

/// A body that is neither JSON nor anything that was meant to be, as a JSON string.
fn plain_text(incoming: &Incoming, error: ApiError) -> Result<Json, ApiError> {
    match std::str::from_utf8(&incoming.body).map(str::trim) {
        Ok(text) if !text.is_empty() && !text.starts_with(['{', '[', '"']) => {
            let quoted = serde_json::Value::from(text).to_string();
            Json::parse(&quoted)
                .map_err(|error| ApiError::new(Meaning::Malformed, error.to_string()))
        }
        _ => Err(error),
    }
}
