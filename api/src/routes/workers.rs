//! Workers: list, show, ask for more, stop.

use abax_actors::{Actor, Collection, Within, Worker, WorkersAsked};
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};

use crate::App;
use crate::auth::Signed;
use crate::envelope::{Object, Reply};
use crate::error::ApiError;
use crate::parameters::Incoming;
use crate::routes::actors::{link as actor_link, profile};
use crate::routes::search;

pub(super) async fn list(
    Signed(caller): Signed,
    State(app): State<App>,
    Path(actor): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, _) = request.into_parts();
    if let Some(search) = search::asked(&parts, Collection::Workers, &[])? {
        return search::found(&app, &caller, Within::Actor(&actor), &search).await;
    }
    let actor = app.service().actor(&caller, &actor).await?;
    let workers = app.service().workers(&caller, actor.id.as_str()).await?;
    let objects = workers.iter().map(|worker| object(&actor, worker)).collect();
    Ok(Reply::many("Workers retrieved successfully.", objects).into_response())
}

pub(super) async fn show(
    Signed(caller): Signed,
    State(app): State<App>,
    Path((actor, worker)): Path<(String, String)>,
) -> Result<Reply, ApiError> {
    let actor = app.service().actor(&caller, &actor).await?;
    let worker = app.service().worker(&caller, actor.id.as_str(), &worker).await?;
    Ok(Reply::one("Worker retrieved successfully.", object(&actor, &worker)))
}

/// At least `num` workers; 0 and less mean one, as no number does.
pub(super) async fn ask(
    Signed(caller): Signed,
    State(app): State<App>,
    Path(actor): Path<String>,
    request: Request,
) -> Result<Reply, ApiError> {
    let incoming = Incoming::read(&app, request, app.config().body_limit_bytes).await?;
    let parameters = incoming.parameters().await?;
    let mut reader = parameters.reader();
    let wanted = reader.integer("num").unwrap_or(1);
    reader.finish()?;
    let WorkersAsked { before, added } =
        app.service().ask_for_workers(&caller, &actor, wanted).await?;
    Ok(Reply::done(match added {
        0 => format!("Actor already had {before} worker(s)."),
        _ => format!("Scheduled {added} new worker(s) to start. There were {before} before."),
    }))
}

pub(super) async fn stop(
    Signed(caller): Signed,
    State(app): State<App>,
    Path((actor, worker)): Path<(String, String)>,
) -> Result<Reply, ApiError> {
    app.service().stop_worker(&caller, &actor, &worker).await?;
    Ok(Reply::done("Worker scheduled to be stopped."))
}

/// A worker as callers see it.
pub(super) fn object(actor: &Actor, worker: &Worker) -> Object {
    let this = format!("{}/workers/{}", actor_link(actor), worker.id);
    attributes(worker).with("tenant", actor.tenant.as_str()).with_links([
        ("self", this),
        ("actor", actor_link(actor)),
        ("owner", profile(&actor.owner)),
    ])
}

/// What a worker is, without tenant and links. What Abaco says of the container of a
/// worker, we say of the slot: there is a container only while it has an execution.
pub(super) fn attributes(worker: &Worker) -> Object {
    let id = worker.id.as_str();
    let host = Some(&worker.host_name).filter(|name| !name.is_empty());
    Object::default()
        .with("id", id)
        .with("actor_id", worker.actor.as_str())
        .with("status", worker.status.as_str())
        .with("image", &worker.image)
        .with("revision", worker.revision)
        .with("ch_name", format!("worker_{id}"))
        .with("cid", id)
        .with("location", host.map(|host| format!("abax://{host}")))
        .with("host_id", &worker.host)
        .with("host_name", host)
        .with("host_ip", worker.host_address)
        .with("create_time", worker.created.iso_millis())
        .with_moment("last_execution_time", worker.last_execution)
        .with_moment("last_health_check_time", worker.last_health_check)
}
