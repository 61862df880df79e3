//! Executions: list, show, halt.

use std::collections::BTreeMap;

use abax_actors::{Actor, Execution, Phase};
use axum::extract::{Path, Request, State};

use crate::App;
use crate::auth::Signed;
use crate::envelope::{Object, Reply};
use crate::error::ApiError;
use crate::routes::actors::{link as actor_link, profile};
use crate::routes::search::Page;

pub(super) async fn list(
    Signed(caller): Signed,
    State(app): State<App>,
    Path(actor): Path<String>,
    request: Request,
) -> Result<Reply, ApiError> {
    let (parts, _) = request.into_parts();
    let page = Page::of(&parts)?;
    let actor = app.service().actor(&caller, &actor).await?;
    if let Some(page) = page {
        let (skip, limit) = (page.skip() as u64, page.limit() as u64);
        let (executions, total) =
            app.service().executions_page(&caller, actor.id.as_str(), skip, limit).await?;
        return Ok(page.reply_with(executions.iter().map(object).collect(), total));
    }
    let summary = app.service().executions(&caller, actor.id.as_str()).await?;
    let rows = summary.executions.iter().map(row).collect();
    let this = format!("{}/executions", actor_link(&actor));
    let object = Object::default()
        .with("actor_id", actor.id.as_str())
        .with_server()
        .with("owner", &actor.owner)
        .with_rows("executions", rows)
        .with("total_executions", summary.total_executions)
        .with("total_cpu", summary.total_cpu_ns)
        .with("total_io", summary.total_io_bytes)
        .with("total_runtime", summary.total_runtime_seconds)
        .with_links([("self", this), ("owner", profile(&actor.owner))]);
    Ok(Reply::one("Actor executions retrieved successfully.", object))
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
    let [received, started, finished] = times(execution);
    let phases: BTreeMap<&str, String> =
        execution.phases.iter().map(|(phase, at)| (phase.as_str(), at.iso_micros())).collect();
    let this = link(execution);
    Object::default()
        .with("id", execution.id.as_str())
        .with("actor_id", execution.actor.as_str())
        .with_server()
        .with("executor", &execution.executor)
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
