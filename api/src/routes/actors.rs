//! Actors: register, list, show, update, delete.

use abax_actors::{
    Actor, ActorChange, ActorUpdate, Caller, Collection, Deleted, Hits, NewActor, TokenSetting,
    Within,
};
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
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
) -> Result<Response, ApiError> {
    let (parts, _) = request.into_parts();
    if let Some(search) = search::asked(&parts, Collection::Actors, &[])? {
        return search::found(&app, &caller, Within::Readable, &search).await;
    }
    let turn = app.turn(&caller).await?;
    let actors = app.service().actors(&caller).await?;
    let message = retrieved("Actors", &actors, "search for the others, page by page");
    let objects = actors.page.iter().map(object).collect();
    Ok((turn, Reply::many(message, objects)).into_response())
}

/// What is said of a list, which is not always all that there is.
pub(super) fn retrieved<T>(what: &str, list: &Hits<T>, otherwise: &str) -> String {
    let shown = list.page.len();
    match shown as u64 == list.total {
        true => format!("{what} retrieved successfully."),
        false => format!(
            "{what} retrieved successfully: {shown} of {}, since all are too large for one answer; \
             {otherwise}.",
            list.total
        ),
    }
}

pub(super) async fn register(
    Signed(caller): Signed,
    State(app): State<App>,
    request: Request,
) -> Result<Reply, ApiError> {
    let parameters = read(&app, request).await?;
    let mut reader = parameters.reader();
    let mut new = NewActor::new(reader.required("image"));
    fill(&mut reader, &mut new);
    reader.finish()?;
    check_run_as_executor(&app, &caller, &parameters, &new)?;
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
    let force = reader.boolean("force").unwrap_or(false);
    // Abaco's clients replace all settings; ours change those that they name.
    let replaces = parameters.dialect().is_abaco();
    let image = match replaces || parameters.has("image") {
        true => reader.required("image"),
        false => String::new(),
    };
    let mut settings = NewActor::new(image);
    fill(&mut reader, &mut settings);
    reader.finish()?;
    check_run_as_executor(&app, &caller, &parameters, &settings)?;
    let service = app.service();
    let updated = if replaces {
        service.update_actor(&caller, &actor, ActorUpdate { settings, force }).await?
    } else {
        let change = ActorChange::new(move |settings| {
            let mut reader = parameters.reader();
            reader.put("image", &mut settings.image, String::new(), Reader::string);
            fill(&mut reader, settings);
        });
        service.change_actor(&caller, &actor, change.forced(force)).await?
    };
    Ok(Reply::one("Actor updated successfully.", object(&updated)))
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
    let incoming = Incoming::read(app, request, app.config().body_limit_bytes).await?;
    incoming.parameters().await
}

/// The settings that registration and update share, but for the image. What is not
/// given stays as it is.
fn fill(reader: &mut Reader<'_>, new: &mut NewActor) {
    let default = NewActor::new(String::new());
    reader.put_if_any("name", &mut new.name, Reader::string);
    reader.put("description", &mut new.description, default.description, Reader::string);
    reader.put("stateless", &mut new.stateless, default.stateless, Reader::boolean);
    reader.put("type", &mut new.kind, default.kind, Reader::string);
    reader.put_if_any("token", &mut new.token, Reader::boolean);
    reader.put("webhook", &mut new.webhook, default.webhook, Reader::string);
    reader.put("link", &mut new.link, default.link, Reader::string);
    reader.put("hints", &mut new.hints, default.hints, Reader::strings);
    reader.put("privileged", &mut new.privileged, false, Reader::boolean);
    reader.put_if_any("max_workers", &mut new.max_workers, Reader::integer);
    reader.put_if_any("mem_limit", &mut new.mem_limit, Reader::string);
    reader.put_if_any("max_cpus", &mut new.max_cpus, Reader::integer);
    reader.put("use_container_uid", &mut new.use_container_uid, false, Reader::boolean);
    reader.put("run_as_executor", &mut new.run_as_executor, false, Reader::boolean);
    let environment = default.default_environment;
    reader.put("default_environment", &mut new.default_environment, environment, Reader::object);
    reader.put("queue", &mut new.queue, default.queue, Reader::string);
    reader.put_if_any("log_ex", &mut new.log_ex, Reader::integer);
    reader.put_if_any("max_run_time", &mut new.max_run_time, Reader::integer);
    let text = |reader: &mut Reader<'_>, name: &str| reader.string(name).map(Some);
    // None keeps the one that there is, and no text takes it away.
    reader.put("cron_schedule", &mut new.cron_schedule, Some(String::new()), text);
    reader.put("cron_on", &mut new.cron_on, false, Reader::boolean);
}

/// Refuses by the texts of Tapis what the service would refuse by its own.
fn check_run_as_executor(
    app: &App,
    caller: &Caller,
    parameters: &Parameters,
    new: &NewActor,
) -> Result<(), ApiError> {
    let (this, other) =
        (parameters.spelling("run_as_executor"), parameters.spelling("use_container_uid"));
    if new.run_as_executor && new.use_container_uid {
        let text = format!("Cannot set both {other} and {this} as true");
        return Err(ApiError::new(Meaning::Invalid, text));
    }
    if new.run_as_executor && !app.service().config().knows_identities(&caller.tenant) {
        let text = format!("{this} isn't supported for your tenant");
        return Err(ApiError::new(Meaning::Invalid, text));
    }
    Ok(())
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
        .with_since_v3("run_as_executor", actor.run_as_executor)
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
