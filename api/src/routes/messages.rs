//! Messages: send, count, purge; and waiting for what a message causes.

use std::time::Duration;

use abax_actors::{
    Actor, ActorStatus, Awaited, Caller, Chain, ContentType, Execution, ExecutionStatus, Json,
    MessageBody, NewMessage, TraceParent,
};
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::info;

use crate::App;
use crate::auth::{AssertionHeader, Signed};
use crate::dialect::Dialect;
use crate::envelope::{Answer, Object, Reply};
use crate::error::{ApiError, Meaning};
use crate::parameters::{Incoming, forget};
use crate::routes::actors::{link as actor_link, profile};
use crate::routes::{executions, results};
use crate::server::Stopping;

pub(super) async fn count(
    Signed(caller): Signed,
    State(app): State<App>,
    Path(actor): Path<String>,
) -> Result<Reply, ApiError> {
    let actor = app.service().actor(&caller, &actor).await?;
    let waiting = app.service().message_count(&caller, actor.id.as_str()).await?;
    let object = Object::default().with("messages", waiting).with_links(links(&actor));
    Ok(Reply::one("Number of actor messages retrieved successfully.", object))
}

pub(super) async fn purge(
    Signed(caller): Signed,
    State(app): State<App>,
    Path(actor): Path<String>,
) -> Result<Reply, ApiError> {
    let actor = app.service().actor(&caller, &actor).await?;
    app.service().purge_messages(&caller, actor.id.as_str()).await?;
    let object = Object::default().with("msg", "Actor mailbox purged.").with_links(links(&actor));
    Ok(Reply::one("The request was successful", object))
}

fn links(actor: &Actor) -> [(&'static str, String); 2] {
    [("self", format!("{}/messages", actor_link(actor))), ("owner", profile(&actor.owner))]
}

pub(super) async fn send(
    Signed(caller): Signed,
    State(app): State<App>,
    Path(actor): Path<String>,
    stopping: Option<Extension<Stopping>>,
    request: Request,
) -> Result<Response, ApiError> {
    let config = app.config();
    let dialect = request.extensions().get::<Dialect>().copied().unwrap_or_default();
    let trace = request.extensions().get::<TraceParent>().cloned();
    let jwt_header = request.extensions().get::<AssertionHeader>().map(|header| header.0.clone());
    let is_binary = request.headers().get(CONTENT_TYPE).is_some_and(|value| value == BINARY);
    let limit_bytes = if is_binary {
        app.service().config().max_binary_bytes
    } else {
        config.message_limit_bytes
    };
    // Nothing is kept of what is for nobody.
    let actor = match app.service().actor_to_message(&caller, &actor).await {
        Ok(actor) => actor,
        Err(refused) => {
            forget(request.into_body().into_data_stream()).await;
            return Err(refused.into());
        }
    };
    let incoming = Incoming::read(&app, request, limit_bytes)
        .await
        .map_err(|error| if is_binary { of_large_binary(error, limit_bytes) } else { error })?;
    let waits = incoming
        .query
        .iter()
        .any(|(name, value)| name == "_abaco_synchronous" && value.eq_ignore_ascii_case("true"));
    // Before anything is accepted: who is refused can send the message again.
    if waits && actor.status == ActorStatus::Error {
        return Err(ApiError::new(
            Meaning::Conflict,
            format!(
                "Cannot issue synchronous execution: the actor is in ERROR and runs nothing until \
                 it is updated: {}",
                actor.status_message
            ),
        ));
    }
    let _waiting = waits.then(|| app.waits().begin(&caller)).transpose()?;
    let mut message = message(&incoming).await?;
    message.environment.clone_from(&incoming.query);
    message.jwt_header = jwt_header;
    message.trace = trace;
    let echo = echo(&message);
    let execution = app.service().send_message(&caller, actor.id.as_str(), message).await?;
    let object = executions::acknowledgement(&actor, &execution).with("msg", echo);
    let reply = Reply::one("The request was successful", object)
        .keeping_nulls()
        .accepted(executions::link(&execution));
    if !waits {
        return Ok(reply.into_response());
    }
    // It would be kept for as long as this waits.
    drop(incoming);
    // From here on the message is accepted: no error may read as if it were not.
    match wait(&app, &caller, &actor, &execution, stopping, dialect).await {
        Some(response) => Ok(response),
        None => Ok(Answer::StillRunning(reply).into_response()),
    }
}

const BINARY: &str = "application/octet-stream";

/// Abaco's clients know a message of bytes that is too large by this text.
fn of_large_binary(error: ApiError, limit_bytes: usize) -> ApiError {
    if error.meaning() != Meaning::TooLarge {
        return error;
    }
    ApiError::new(
        Meaning::MessageTooLarge,
        format!("Message exceeds max content length of: {limit_bytes}"),
    )
}

/// How often to look whether what is waited for can still come.
const GLANCE: Duration = Duration::from_secs(1);
/// How long a store that does not answer is left alone.
const AGAIN: Duration = Duration::from_millis(500);

/// The first result of the execution or what it came to; nothing where the deadline
/// or the end of the service came first, or where it cannot be looked up. One that
/// waits for an actor that has come to be in ERROR is not waited for.
async fn wait(
    app: &App,
    caller: &Caller,
    actor: &Actor,
    execution: &Execution,
    stopping: Option<Extension<Stopping>>,
    dialect: Dialect,
) -> Option<Response> {
    let stopped = async {
        match stopping {
            Some(Extension(Stopping(stop))) => stop.cancelled().await,
            None => std::future::pending().await,
        }
    };
    let deadline = Instant::now() + app.config().sync_deadline;
    let answered = async {
        loop {
            match answered(app, caller, actor, execution, deadline, dialect).await {
                Err(error) if error.is_transient() && Instant::now() < deadline => {
                    sleep(AGAIN).await;
                }
                Err(error) => {
                    let id = &execution.id;
                    info!(execution.id = %id, error = %Chain(&error), "could not wait for execution {id}");
                    return None;
                }
                Ok(response) => return response,
            }
        }
    };
    tokio::select! {
        response = timeout_at(deadline + AGAIN, answered) => response.ok().flatten(),
        () = stopped => None,
    }
}

/// As [`wait`], where nothing fails. Cancel-safe, but that a result which was just
/// taken goes with it.
async fn answered(
    app: &App,
    caller: &Caller,
    actor: &Actor,
    execution: &Execution,
    deadline: Instant,
    dialect: Dialect,
) -> Result<Option<Response>, abax_actors::Error> {
    let service = app.service();
    let (actor_id, id) = (actor.id.as_str(), execution.id.as_str());
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match service.wait_for_result(caller, actor_id, id, left.min(GLANCE)).await? {
            Awaited::Result(result) => {
                return Ok(Some(by_execution(results::bytes(result), execution)));
            }
            Awaited::Ended(ended) => {
                return Ok(Some(
                    outcome(app, caller, actor, &ended, dialect).await?.into_response(),
                ));
            }
            Awaited::Nothing if left <= GLANCE => return Ok(None),
            Awaited::Nothing => {}
        }
        let now = service.actor(caller, actor_id).await?;
        if now.status == ActorStatus::Error
            && service.execution(caller, actor_id, id).await?.status == ExecutionStatus::Submitted
        {
            let error = ApiError::new(
                Meaning::ExecutionFailed,
                format!(
                    "Execution {id} waits until its actor, which is in ERROR, is updated: {}",
                    now.status_message
                ),
            );
            return Ok(Some(error.into_response()));
        }
    }
}

/// What the program wrote, as it is: no envelope.
async fn outcome(
    app: &App,
    caller: &Caller,
    actor: &Actor,
    execution: &Execution,
    dialect: Dialect,
) -> Result<Result<Response, ApiError>, abax_actors::Error> {
    if execution.status == ExecutionStatus::Error {
        let reason = execution.reason.as_deref().unwrap_or("no container ran to its end");
        return Ok(Err(ApiError::new(
            Meaning::ExecutionFailed,
            format!("Execution {} failed: {reason}", execution.id),
        )));
    }
    let logs = app.service().logs(caller, actor.id.as_str(), execution.id.as_str()).await?;
    let mut response = Response::new(Body::from(logs.text()));
    let headers = response.headers_mut();
    // Abaco calls it HTML, whatever it is; no browser shall believe that.
    let content_type =
        if dialect.is_abaco() { "text/html; charset=utf-8" } else { "text/plain; charset=utf-8" };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert("content-security-policy", HeaderValue::from_static("sandbox"));
    Ok(Ok(by_execution(response, execution)))
}

/// Says in a header which execution a body without an envelope is of.
fn by_execution(mut response: Response, execution: &Execution) -> Response {
    if let Ok(id) = HeaderValue::try_from(execution.id.as_str()) {
        response.headers_mut().insert("x-execution-id", id);
    }
    response
}

/// What kind of message a request is: the first that fits, of
/// the parameter `message`, bytes, a JSON body, and a body that is JSON whatever it says.
async fn message(incoming: &Incoming) -> Result<NewMessage, ApiError> {
    if let Some(text) = message_parameter(incoming).await? {
        return Ok(NewMessage::text(text));
    }
    if incoming.media_type.as_deref() == Some(BINARY) {
        return Ok(NewMessage::binary(&*incoming.body));
    }
    let json = match incoming.json() {
        Ok(json) => json,
        Err(error) if incoming.is_json() && !incoming.body.is_empty() => return Err(error),
        Err(_) => {
            return Err(ApiError::new(
                Meaning::Malformed,
                "There is no message: send the form field message (curl -d 'message=…'), or JSON \
                 with the header Content-Type: application/json.",
            ));
        }
    };
    let mut message = NewMessage::json(json);
    // As with Abaco, only JSON that says so and that Python calls true.
    if !incoming.is_json() || is_falsy(&message) {
        message.content_type = ContentType::Str;
    }
    Ok(message)
}

/// The non-empty parameter `message`, wherever it is.
async fn message_parameter(incoming: &Incoming) -> Result<Option<String>, ApiError> {
    match incoming.parameters().await {
        Ok(parameters) => Ok(parameters.text("message")),
        Err(error) if incoming.is_json() && incoming.json().is_err() => Err(error),
        // The body is a message of its own and has no parameters; the query may.
        Err(_) => Ok(incoming
            .query
            .iter()
            .find(|(name, value)| name == "message" && !value.is_empty())
            .map(|(_, value)| value.clone())),
    }
}

fn is_falsy(message: &NewMessage) -> bool {
    let MessageBody::Json(json) = &message.body else { return false };
    matches!(json.as_str(), "null" | "false" | "0" | "0.0" | "-0" | "\"\"" | "[]" | "{}")
}

/// The message as it was received, for the acknowledgement.
fn echo(message: &NewMessage) -> Json {
    match &message.body {
        MessageBody::Text(text) => Json::from(Value::from(text.as_str())),
        MessageBody::Json(json) => json.clone(),
        _ => Json::from(json!("binary - omitted")),
    }
}
