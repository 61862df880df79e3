//! What a stateful actor keeps between executions.

use abax_actors::{Json, StateVersion};
use axum::extract::{Path, Request, State};
use axum::http::HeaderMap;
use axum::http::header::IF_MATCH;

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
    let (state, version) = app.service().versioned_actor_state(&caller, &actor).await?;
    let object = Object::default().with("state", &state);
    Ok(Reply::one("Actor state retrieved successfully.", object)
        .keeping_nulls()
        .of_version(version.as_str()))
}

/// The whole body is the new state. With `If-Match`, only in the place of one of
/// those versions.
pub(super) async fn set(
    Signed(caller): Signed,
    State(app): State<App>,
    Path(actor): Path<String>,
    request: Request,
) -> Result<Reply, ApiError> {
    let dialect = request.extensions().get::<Dialect>().copied().unwrap_or_default();
    let read = versions(request.headers())?;
    let incoming = Incoming::read(&app, request, app.config().body_limit_bytes).await?;
    let state = match incoming.json() {
        Ok(state) => state,
        // One of Abaco's clients sends text without quotes and says that it is JSON.
        Err(error) if dialect.is_abaco() && incoming.is_json() => plain_text(&incoming, error)?,
        Err(error) => return Err(error),
    };
    let set = app.service().set_actor_state_if(&caller, &actor, state, read);
    let (actor, version) = set.await?;
    Ok(Reply::one("State updated successfully.", actors::object(&actor))
        .of_version(version.as_str()))
}

/// The versions that `If-Match` names, RFC 9110 §13.1.1; none where any will do.
fn versions(headers: &HeaderMap) -> Result<Option<Vec<StateVersion>>, ApiError> {
    let mut versions = Vec::new();
    let mut asked = false;
    for value in headers.get_all(IF_MATCH) {
        let text = value.to_str().unwrap_or_default().trim();
        if text == "*" {
            return Ok(None);
        }
        asked = true;
        for tag in text.split(',').map(str::trim).filter(|tag| !tag.is_empty()) {
            let quoted = tag.strip_prefix("W/").unwrap_or(tag);
            let version = quoted.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
            let version = version.ok_or_else(|| {
                ApiError::new(
                    Meaning::Malformed,
                    "The header If-Match holds no version: send the ETag of the state as it came, \
                     in double quotes.",
                )
            })?;
            // A weak one is never the same.
            if quoted == tag {
                versions.push(StateVersion::new(version));
            }
        }
    }
    Ok(asked.then_some(versions))
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
