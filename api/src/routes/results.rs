//! What executions sent back: one after the other for Abaco's clients, a list and
//! single ones by number for ours.

use abax_actors::{Error, Noun};
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, Method};
use axum::response::{IntoResponse, Response};

use crate::App;
use crate::auth::Signed;
use crate::dialect::Dialect;
use crate::envelope::{Object, Reply};
use crate::error::{ApiError, Meaning};
use crate::routes::executions::link;

/// Under Abaco's prefixes the next result, which is then gone from there, and
/// nothing when there is none; under ours the list.
pub(super) async fn list(
    Signed(caller): Signed,
    State(app): State<App>,
    Path((actor, execution)): Path<(String, String)>,
    request: Request,
) -> Result<Response, ApiError> {
    let service = app.service();
    let dialect = request.extensions().get::<Dialect>().copied().unwrap_or_default();
    let actor = service.actor(&caller, &actor).await?;
    if dialect.is_abaco() {
        // A look at the headers takes nothing.
        let taken = if request.method() == Method::HEAD {
            Ok(None)
        } else {
            service.take_result(&caller, actor.id.as_str(), &execution).await
        };
        return match taken {
            Ok(result) => Ok(bytes(result.unwrap_or_default())),
            // Abaco's queue of results is empty, whether there was one or not.
            Err(Error::NotFound { noun: Noun::Execution, .. }) => Ok(bytes(Vec::new())),
            Err(error) => Err(error.into()),
        };
    }
    let execution = service.execution(&caller, actor.id.as_str(), &execution).await?;
    let results = service.results(&caller, actor.id.as_str(), execution.id.as_str()).await?;
    let this = link(&execution);
    let objects = results
        .iter()
        .map(|result| {
            Object::default()
                .with("number", result.number)
                .with("size", result.size_bytes)
                .with("create_time", result.created.iso_millis())
                .with("taken", result.taken)
                .with_links([
                    ("self", format!("{this}/results/{}", result.number)),
                    ("execution", this.clone()),
                ])
        })
        .collect();
    Ok(Reply::many("Results retrieved successfully.", objects).into_response())
}

/// One result, as often as anybody asks.
pub(super) async fn show(
    Signed(caller): Signed,
    State(app): State<App>,
    Path((actor, execution, number)): Path<(String, String, String)>,
) -> Result<Response, ApiError> {
    let service = app.service();
    let actor = service.actor(&caller, &actor).await?;
    let missing = || {
        ApiError::new(
            Meaning::NoResult,
            format!(
                "Execution {execution} has no result {number}; results have numbers from 1 on."
            ),
        )
    };
    let parsed = number.parse().map_err(|_| missing())?;
    match service.result(&caller, actor.id.as_str(), &execution, parsed).await {
        Ok(result) => Ok(bytes(result)),
        Err(Error::NotFound { noun: Noun::Result, .. }) => Err(missing()),
        Err(error) => Err(error.into()),
    }
}

/// Bytes as they are: no envelope.
pub(super) fn bytes(bytes: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Body::from(bytes.into()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
