//! Actors: register, list, show, update, delete.

use abax_actors::{Actor, ActorUpdate, Collection, Deleted, NewActor, TokenSetting, Within};
use axum::extract::{Path, Request, State};
use serde_json::json;

use crate::App;
use crate::auth::Signed;
use crate::envelope::{Object, Reply};
use crate::error::{ApiError, Meaning};
use crate::parameters::{Incoming, Parameters, Reader};
use crate::routes::search;

pub(super) async fn list(
    Signed(caller): Signed,
    State(app): State<App>,
    request: Request,
) -> Result<Reply, ApiError> {
    let (parts, _) = request.into_parts();
    if let Some(search) = search::asked(&parts, Collection::Actors, &[])? {
        return search::found(&app, &caller, Within::Readable, &search).await;
    }
    let actors = app.service().actors(&caller).await?;
    let objects = actors.iter().map(object).collect();
    Ok(Reply::many("Actors retrieved successfully.", objects))
}

pub(super) async fn register(
    Signed(caller): Signed,
    State(app): State<App>,
    request: Request,
) -> Result<Reply, ApiError> {
    let parameters = read(&app, request).await?;
    let mut reader = parameters.reader();
    let new = settings(&mut reader);
    reader.finish()?;
    refuse_run_as_executor(&parameters, &new)?;
    let actor = app.service().register_actor(&caller, new).await?;
    Ok(Reply::one("Actor created successfully.", object(&actor)).created(link(&actor)))
}

pub(super) async fn show(
    Signed(caller): Signed,
    State(app): State<App>,
    Path(actor): Path<String>,
) -> Result<Reply, ApiError> {
    let actor = app.service().actor(&caller, &actor).await?;
    Ok(Reply::one("Actor retrieved successfully.", object(&actor)))
}

pub(super) async fn update(
    Signed(caller): Signed,
    State(app): State<App>,
    Path(actor): Path<String>,
    request: Request,
) -> Result<Reply, ApiError> {
    let parameters = read(&app, request).await?;
    let mut reader = parameters.reader();
    let mut update = ActorUpdate::new("");
    update.settings = settings(&mut reader);
    update.force = reader.boolean("force").unwrap_or(false);
    reader.finish()?;
    refuse_run_as_executor(&parameters, &update.settings)?;
    let actor = app.service().update_actor(&caller, &actor, update).await?;
    Ok(Reply::one("Actor updated successfully.", object(&actor)))
}

pub(super) async fn delete(
    Signed(caller): Signed,
    State(app): State<App>,
    Path(actor): Path<String>,
) -> Result<Reply, ApiError> {
    Ok(Reply::done(match app.service().delete_actor(&caller, &actor).await? {
        Deleted::Completely => "Actor deleted successfully.",
        Deleted::Stopping => {
            "Actor deleted successfully, though some of its executions are still being stopped."
        }
    }))
}

/// The named parameters of a request.
pub(super) async fn read(app: &App, request: Request) -> Result<Parameters, ApiError> {
    let config = app.config();
    let incoming = Incoming::read(request, config.body_limit_bytes, config.body_timeout).await?;
    incoming.parameters().await
}

/// The settings that registration and update share. What is not given has its default.
fn settings(reader: &mut Reader<'_>) -> NewActor {
    let mut new = NewActor::new(reader.required("image"));
    new.name = reader.string("name");
    new.description = reader.string("description").unwrap_or_default();
    new.stateless = reader.boolean("stateless").unwrap_or(new.stateless);
    new.kind = reader.string("type").unwrap_or(new.kind);
    new.token = reader.boolean("token");
    new.webhook = reader.string("webhook").unwrap_or_default();
    new.link = reader.string("link").unwrap_or_default();
    new.hints = reader.strings("hints").unwrap_or_default();
    new.privileged = reader.boolean("privileged").unwrap_or(false);
    new.max_workers = reader.integer("max_workers");
    new.mem_limit = reader.string("mem_limit");
    new.max_cpus = reader.integer("max_cpus");
    new.use_container_uid = reader.boolean("use_container_uid").unwrap_or(false);
    if let Some(environment) = reader.object("default_environment") {
        new.default_environment = environment;
    }
    new.queue = reader.string("queue").unwrap_or(new.queue);
    new.log_ex = reader.integer("log_ex");
    new.max_run_time = reader.integer("max_run_time");
    new.cron_schedule = reader.string("cron_schedule");
    new.cron_on = reader.boolean("cron_on").unwrap_or(false);
    new
}

/// Tapis' tenants may have user ids from an identity service; ours have none.
fn refuse_run_as_executor(parameters: &Parameters, new: &NewActor) -> Result<(), ApiError> {
    let mut reader = parameters.reader();
    let asked = reader.boolean("run_as_executor") == Some(true);
    reader.finish()?;
    let (this, other) =
        (parameters.spelling("run_as_executor"), parameters.spelling("use_container_uid"));
    match (asked, new.use_container_uid) {
        (false, _) => Ok(()),
        (true, true) => Err(ApiError::new(
            Meaning::Invalid,
            format!("Cannot set both {other} and {this} as true"),
        )),
        (true, false) => {
            Err(ApiError::new(Meaning::Invalid, format!("{this} isn't supported for your tenant")))
        }
    }
}

/// Where an actor is, from the root.
pub(super) fn link(actor: &Actor) -> String {
    format!("/actors/{}", actor.id)
}

/// Where a user is, from the root.
pub(super) fn profile(user: &str) -> String {
    format!("/profiles/{user}")
}

/// An actor as callers see it.
pub(super) fn object(actor: &Actor) -> Object {
    let this = link(actor);
    attributes(actor).with_links([
        ("self", this.clone()),
        ("owner", profile(&actor.owner)),
        ("executions", format!("{this}/executions")),
    ])
}

/// What an actor is, without links.
pub(super) fn attributes(actor: &Actor) -> Object {
    // Clients tell a configured default, which is text, from the owner's choice.
    let token = match actor.token {
        TokenSetting::Chosen(wanted) => json!(wanted),
        TokenSetting::Default(wanted) => json!(wanted.to_string()),
    };
    Object::default()
        .with("id", actor.id.as_str())
        .with("name", &actor.name)
        .with("image", &actor.image)
        .with("description", &actor.description)
        .with("owner", &actor.owner)
        .with("stateless", actor.stateless)
        .with("type", &actor.kind)
        .with("link", &actor.link)
        .with("webhook", &actor.webhook)
        .with("hints", &actor.hints)
        .with("token", token)
        .with("privileged", actor.privileged)
        .with("max_workers", actor.max_workers)
        .with("mem_limit", &actor.mem_limit)
        .with("max_cpus", actor.max_cpus)
        .with("use_container_uid", actor.use_container_uid)
        .with("run_as_executor", false)
        .with("default_environment", &actor.default_environment)
        .with("status", actor.status.as_str())
        .with("status_message", &actor.status_message)
        .with("state", &actor.state)
        .with("create_time", actor.created.iso_millis())
        .with("last_update_time", actor.updated.iso_millis())
        .with("mounts", &actor.mounts)
        .with("revision", actor.revision)
        .with("tasdir", &actor.home)
        .with("uid", actor.user.map(|(uid, _)| uid))
        .with("gid", actor.user.map(|(_, gid)| gid))
        .with("queue", &actor.queue)
        .with("log_ex", actor.log_ex)
        .with("max_run_time", actor.max_run_time)
        .with("cron_on", actor.cron.on)
        .with("cron_schedule", &actor.cron.schedule)
        .with("cron_next_ex", actor.cron.next_text())
}
