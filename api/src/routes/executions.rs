//! Executions: list, show, halt.

use std::collections::BTreeMap;

use abax_actors::{Actor, Collection, Execution, ExecutionsPage, Phase, Search, Within};
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};

use crate::App;
use crate::auth::Signed;
use crate::dialect::Dialect;
use crate::envelope::{Object, Reply};
use crate::error::{ApiError, FieldError};
use crate::parameters::query_of;
use crate::routes::actors::{link as actor_link, profile};
use crate::routes::search::{self, metadata};

/// Executions of one page where our own form of the list does not say otherwise.
const PAGE: u32 = 1_000;

pub(super) async fn list(
    Signed(caller): Signed,
    State(app): State<App>,
    Path(actor): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, _) = request.into_parts();
    let page = page(&parts)?;
    if page.is_none()
        && let Some(search) = search::asked(&parts, Collection::Executions, &[])?
    {
        return search::found(&app, &caller, Within::Actor(&actor), &search).await;
    }
    let turn = app.turn(&caller).await?;
    let actor = app.service().actor(&caller, &actor).await?;
    let summary = match page {
        Some(page) => app.service().executions_page(&caller, actor.id.as_str(), page).await?,
        None => app.service().executions(&caller, actor.id.as_str()).await?,
    };
    let rows: Vec<_> = summary.executions.iter().map(row).collect();
    let this = format!("{}/executions", actor_link(&actor));
    let mut object = Object::default()
        .with("actor_id", actor.id.as_str())
        .with_server()
        .with("owner", &actor.owner);
    if let Some(ExecutionsPage { skip, limit, .. }) = page {
        let metadata = metadata(summary.total_executions, skip, limit, &rows);
        object = object.with_part("_metadata", metadata);
    }
    let object = object
        .with_rows("executions", rows)
        .with("total_executions", summary.total_executions)
        .with("total_cpu", summary.total_cpu_ns)
        .with("total_io", summary.total_io_bytes)
        .with("total_runtime", summary.total_runtime_seconds)
        .with_links([("self", this), ("owner", profile(&actor.owner))]);
    Ok((turn, Reply::one("Actor executions retrieved successfully.", object)).into_response())
}

/// The part of the summary that is asked for in our own form, which has pages; none
/// where all of it is, or a search.
fn page(parts: &Parts) -> Result<Option<ExecutionsPage>, ApiError> {
    if parts.extensions.get::<Dialect>().is_some_and(|dialect| dialect.is_abaco()) {
        return Ok(None);
    }
    let mut page = ExecutionsPage { skip: 0, limit: PAGE, newest_first: false };
    let mut search = Search::new(Collection::Executions);
    let mut errors = Vec::new();
    for (name, value) in query_of(parts) {
        let read = match name.as_str() {
            "x-nonce" => Ok(()),
            "limit" => search.set_limit(&value).map(|()| page.limit = search.limit()),
            "skip" | "offset" => search.set_skip(&value).map(|()| page.skip = search.skip()),
            "order" if matches!(value.as_str(), "oldest" | "newest") => {
                page.newest_first = value == "newest";
                Ok(())
            }
            "order" => Err("must be oldest or newest".to_owned()),
            _ => return Ok(None),
        };
        if let Err(problem) = read {
            errors.push(FieldError::new(name, problem));
        }
    }
    if errors.is_empty() { Ok(Some(page)) } else { Err(ApiError::invalid(errors)) }
}

pub(super) async fn show(
    Signed(caller): Signed,
    State(app): State<App>,
    Path((actor, execution)): Path<(String, String)>,
) -> Result<Reply, ApiError> {
    let execution = app.service().execution(&caller, &actor, &execution).await?;
    Ok(Reply::one("Actor execution retrieved successfully.", object(&execution)))
}

pub(super) async fn halt(
    Signed(caller): Signed,
    State(app): State<App>,
    Path((actor, execution)): Path<(String, String)>,
) -> Result<Reply, ApiError> {
    app.service().halt_execution(&caller, &actor, &execution).await?;
    Ok(Reply::done(format!("Issued force quit command for execution {execution}.")))
}

/// Where an execution is, from the root.
pub(super) fn link(execution: &Execution) -> String {
    format!("/actors/{}/executions/{}", execution.actor, execution.id)
}

/// The message that says where to look for an execution that goes on.
pub(super) fn acknowledgement(actor: &Actor, execution: &Execution) -> Object {
    Object::default()
        .with("execution_id", execution.id.as_str())
        // One client looks for this name whatever the case of the others.
        .with("executionId", execution.id.as_str())
        .with_links([
            ("self", link(execution)),
            ("owner", profile(&actor.owner)),
            ("messages", format!("{}/messages", actor_link(actor))),
        ])
}

/// An execution as its list shows it.
fn row(execution: &Execution) -> Object {
    let [received, started, finished] = times(execution);
    Object::default()
        .with("id", execution.id.as_str())
        .with("status", execution.status.as_str())
        .with("outcome", execution.outcome.map(|outcome| outcome.as_str()))
        .with("start_time", started)
        .with("finish_time", finished)
        .with("message_received_time", received)
}

/// An execution as callers see it.
fn object(execution: &Execution) -> Object {
    hit(execution).with_server()
}

/// An execution as searches show it.
pub(super) fn hit(execution: &Execution) -> Object {
    let [received, started, finished] = times(execution);
    let phases: BTreeMap<&str, String> =
        execution.phases.iter().map(|(phase, at)| (phase.as_str(), at.iso_micros())).collect();
    let this = link(execution);
    Object::default()
        .with("id", execution.id.as_str())
        .with("actor_id", execution.actor.as_str())
        .with("executor", &execution.executor)
        .with_since_v3("executor_uid", execution.executor_user.map(|(uid, _)| uid))
        .with_since_v3("executor_gid", execution.executor_user.map(|(_, gid)| gid))
        .with("status", execution.status.as_str())
        .with("outcome", execution.outcome.map(|outcome| outcome.as_str()))
        .with("reason", &execution.reason)
        .with("attempt", execution.attempt)
        .with("worker_id", &execution.worker)
        .with("message_received_time", received)
        .with("start_time", started)
        .with("finish_time", finished)
        .with("runtime", execution.usage.runtime.as_secs())
        .with("cpu", execution.usage.cpu_ns)
        .with("io", execution.usage.io_bytes)
        .with("peak_memory", execution.usage.peak_memory_bytes)
        .with("exit_code", execution.exit_code)
        .with("final_state", &execution.final_state)
        .with("phases", phases)
        .with_links([
            ("self", this.clone()),
            ("owner", profile(&execution.executor)),
            ("logs", format!("{this}/logs")),
        ])
}

/// When the message was received, the program started, the execution finished.
fn times(execution: &Execution) -> [Option<String>; 3] {
    let at = |phase| execution.phases.at(phase);
    let finished = at(Phase::Exited)
        .or_else(|| execution.status.is_final().then(|| at(Phase::Stored)).flatten());
    [at(Phase::Accepted), at(Phase::Started), finished].map(|time| Some(time?.iso_millis()))
}
