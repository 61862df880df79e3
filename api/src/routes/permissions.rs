//! Who may do what with an actor, an alias or a config.

use abax_actors::{Caller, Level, Permission, Shareable};
use axum::extract::{Path, Request, State};
use serde_json::{Map, Value};

use crate::App;
use crate::auth::Signed;
use crate::envelope::Reply;
use crate::error::ApiError;
use crate::routes::actors::read;

pub(super) async fn of_actor(
    Signed(caller): Signed,
    State(app): State<App>,
    Path(actor): Path<String>,
) -> Result<Reply, ApiError> {
    list(&app, &caller, Shareable::Actor(actor)).await
}

pub(super) async fn set_of_actor(
    Signed(caller): Signed,
    State(app): State<App>,
    Path(actor): Path<String>,
    request: Request,
) -> Result<Reply, ApiError> {
    set(&app, &caller, Shareable::Actor(actor), request).await
}

pub(super) async fn of_alias(
    Signed(caller): Signed,
    State(app): State<App>,
    Path(alias): Path<String>,
) -> Result<Reply, ApiError> {
    list(&app, &caller, Shareable::Alias(alias)).await
}

pub(super) async fn set_of_alias(
    Signed(caller): Signed,
    State(app): State<App>,
    Path(alias): Path<String>,
    request: Request,
) -> Result<Reply, ApiError> {
    set(&app, &caller, Shareable::Alias(alias), request).await
}

pub(super) async fn of_config(
    Signed(caller): Signed,
    State(app): State<App>,
    Path(config): Path<String>,
) -> Result<Reply, ApiError> {
    list(&app, &caller, Shareable::Config(config)).await
}

pub(super) async fn set_of_config(
    Signed(caller): Signed,
    State(app): State<App>,
    Path(config): Path<String>,
    request: Request,
) -> Result<Reply, ApiError> {
    set(&app, &caller, Shareable::Config(config), request).await
}

async fn list(app: &App, caller: &Caller, of: Shareable) -> Result<Reply, ApiError> {
    let permissions = app.service().permissions(caller, &of).await?;
    Ok(Reply::plain("Permissions retrieved successfully.", by_user(permissions)))
}

async fn set(
    app: &App,
    caller: &Caller,
    of: Shareable,
    request: Request,
) -> Result<Reply, ApiError> {
    let parameters = read(app, request).await?;
    let mut reader = parameters.reader();
    let (user, level) = (reader.required("user"), reader.required("level"));
    reader.finish()?;
    let level = Level::parse(&level)?;
    let permissions = app.service().set_permission(caller, &of, &user, level).await?;
    Ok(Reply::plain("Permission added successfully.", by_user(permissions)))
}

/// Users are names that no dialect changes.
fn by_user(permissions: Vec<Permission>) -> Map<String, Value> {
    let entry = |entry: Permission| (entry.user, Value::from(entry.level.as_str()));
    permissions.into_iter().map(entry).collect()
}
