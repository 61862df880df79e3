//! What an execution wrote: so far, or as it comes.

use std::convert::Infallible;
use std::time::Duration;

use abax_actors::{Actor, Caller, Chain, Collection, Execution, Logs, Service, Within};
use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::App;
use crate::auth::Signed;
use crate::envelope::{Object, Reply};
use crate::error::ApiError;
use crate::parameters::query_of;
use crate::routes::actors::profile;
use crate::routes::executions::link;
use crate::routes::search;
use crate::server::Stopping;
use crate::waits::Waiting;

/// How often a silent stream shows that it lives.
const HEARTBEAT: Duration = Duration::from_secs(15);

pub(super) async fn show(
    Signed(caller): Signed,
    State(app): State<App>,
    Path((actor, execution)): Path<(String, String)>,
    stopping: Option<Extension<Stopping>>,
    request: Request,
) -> Result<Response, ApiError> {
    let service = app.service();
    let (parts, _) = request.into_parts();
    if let Some(search) = search::asked(&parts, Collection::Logs, &["follow"])? {
        let within = Within::Execution { actor: &actor, execution: &execution };
        return search::found(&app, &caller, within, &search).await;
    }
    let actor = service.actor(&caller, &actor).await?;
    let execution = service.execution(&caller, actor.id.as_str(), &execution).await?;
    let follows = query_of(&parts)
        .iter()
        .any(|(name, value)| name == "follow" && value.eq_ignore_ascii_case("true"));
    if follows {
        let waiting = app.waits().begin(&caller)?;
        let (epoch, position) = last_seen(&parts.headers).unzip();
        let stop = stopping.map(|Extension(Stopping(stop))| stop).unwrap_or_default();
        let follower = Follower {
            service: service.clone(),
            caller,
            actor,
            execution,
            epoch,
            position: position.unwrap_or(0),
            stop,
            ended: false,
            _waiting: waiting,
        };
        return Ok(Sse::new(follower.events()).into_response());
    }
    let logs = service.logs(&caller, actor.id.as_str(), execution.id.as_str()).await?;
    let object = object(link(&execution), &actor.owner, &logs);
    Ok(Reply::one("Logs retrieved successfully.", object).into_response())
}

/// The log of the execution at `link`.
pub(super) fn object(link: String, owner: &str, logs: &Logs) -> Object {
    Object::default().with("logs", logs.text()).with_links([
        ("self", format!("{link}/logs")),
        ("owner", profile(owner)),
        ("execution", link),
    ])
}

/// Epoch and position after the last event that a reconnecting client had.
fn last_seen(headers: &HeaderMap) -> Option<(i64, u64)> {
    let (epoch, position) = headers.get("last-event-id")?.to_str().ok()?.split_once('.')?;
    Some((epoch.parse().ok()?, position.parse().ok()?))
}

/// Reads on in the output of one execution and tells it as server-sent events:
/// `log` with `text`; `restart` when it begins anew on another host; `end` with
/// `status`, `outcome` and `exit_code`.
struct Follower {
    service: Service,
    caller: Caller,
    actor: Actor,
    execution: Execution,
    /// Whose output it has told; none before the first.
    epoch: Option<i64>,
    position: u64,
    stop: CancellationToken,
    ended: bool,
    _waiting: Waiting,
}

impl Follower {
    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, async |mut follower| {
            if follower.ended {
                return None;
            }
            let stop = follower.stop.clone();
            let event = tokio::select! {
                // The client reads on elsewhere, from the last id it had.
                () = stop.cancelled() => return None,
                event = follower.next() => event,
            };
            match event {
                Ok(event) => Some((Ok(event), follower)),
                Err(error) => {
                    // The status was sent long ago: all that is left is to hang up.
                    error!(error = %Chain(&error), "could not follow the logs of an execution");
                    None
                }
            }
        })
    }

    async fn next(&mut self) -> Result<Event, abax_actors::Error> {
        loop {
            let logs = self.follow(self.position).await?;
            if self.epoch != Some(logs.epoch) {
                let began = self.epoch.is_some() && self.position > 0;
                self.epoch = Some(logs.epoch);
                if began {
                    self.position = 0;
                    return Ok(self.event("restart", &json!({ "attempt": logs.attempt })));
                }
            }
            if logs.bytes.is_empty() && logs.ended {
                return self.end(&logs).await;
            }
            if logs.bytes.is_empty() {
                return Ok(Event::default().comment("waiting"));
            }
            let whole = whole_characters(&logs);
            if whole == 0 {
                // A character has come in part.
                let more = self.follow(self.position + logs.bytes.len() as u64).await?;
                if more.bytes.is_empty() && !more.ended && more.epoch == logs.epoch {
                    return Ok(Event::default().comment("waiting"));
                }
                continue;
            }
            self.position += whole as u64;
            let text = String::from_utf8_lossy(&logs.bytes[..whole]);
            return Ok(self.event("log", &json!({ "text": text })));
        }
    }

    async fn follow(&self, position: u64) -> Result<Logs, abax_actors::Error> {
        let (actor, id) = (self.actor.id.as_str(), self.execution.id.as_str());
        self.service.follow_logs(&self.caller, actor, id, self.epoch, position, HEARTBEAT).await
    }

    async fn end(&mut self, logs: &Logs) -> Result<Event, abax_actors::Error> {
        self.ended = true;
        let (actor, id) = (self.actor.id.as_str(), self.execution.id.as_str());
        let execution = self.service.execution(&self.caller, actor, id).await?;
        let data = json!({
            "status": execution.status.as_str(),
            "outcome": execution.outcome.map(|outcome| outcome.as_str()),
            "reason": execution.reason,
            "exit_code": execution.exit_code,
            "truncated": logs.truncated,
        });
        Ok(self.event("end", &data))
    }

    fn event(&self, name: &str, data: &serde_json::Value) -> Event {
        let id = format!("{}.{}", self.epoch.unwrap_or(0), self.position);
        Event::default().event(name).id(id).data(data.to_string())
    }
}

/// How many of the bytes can be shown now: a character may have come in part.
fn whole_characters(logs: &Logs) -> usize {
    let mut shown = 0;
    loop {
        match std::str::from_utf8(&logs.bytes[shown..]) {
            Ok(_) => return logs.bytes.len(),
            Err(error) => match error.error_len() {
                Some(broken) => shown += error.valid_up_to() + broken,
                None if logs.ended => return logs.bytes.len(),
                None => return shown + error.valid_up_to(),
            },
        }
    }
}
