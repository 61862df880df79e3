//! Aliases: list, make, show, point elsewhere, remove.

use abax_actors::Alias;
use axum::extract::{Path, Request, State};

use crate::App;
use crate::auth::Signed;
use crate::envelope::{Object, Reply};
use crate::error::{ApiError, FieldError};
use crate::parameters::Incoming;
use crate::routes::actors::{profile, read};

pub(super) async fn list(
    Signed(caller): Signed,
    State(app): State<App>,
) -> Result<Reply, ApiError> {
    let aliases = app.service().aliases(&caller).await?;
    Ok(Reply::many("Aliases retrieved successfully.", aliases.iter().map(object).collect()))
}

pub(super) async fn create(
    Signed(caller): Signed,
    State(app): State<App>,
    request: Request,
) -> Result<Reply, ApiError> {
    let parameters = read(&app, request).await?;
    let mut reader = parameters.reader();
    let (alias, actor) = (reader.required("alias"), reader.required("actor_id"));
    reader.finish()?;
    let alias = app.service().create_alias(&caller, &alias, &actor).await;
    let alias = alias.map_err(ApiError::of_body)?;
    Ok(Reply::one("Actor alias created successfully.", object(&alias)).created(link(&alias)))
}

pub(super) async fn show(
    Signed(caller): Signed,
    State(app): State<App>,
    Path(alias): Path<String>,
) -> Result<Reply, ApiError> {
    let alias = app.service().alias(&caller, &alias).await?;
    Ok(Reply::one("Actor alias retrieved successfully.", object(&alias)))
}

pub(super) async fn update(
    Signed(caller): Signed,
    State(app): State<App>,
    Path(alias): Path<String>,
    request: Request,
) -> Result<Reply, ApiError> {
    let incoming = Incoming::read(&app, request, app.config().body_limit_bytes).await?;
    let parameters = incoming.parameters().await?;
    let mut reader = parameters.reader();
    if reader.string("alias").is_some() {
        let problem = "an alias keeps its name; make another one instead";
        return Err(ApiError::invalid(vec![FieldError::new("alias", problem)]));
    }
    let actor = reader.required("actor_id");
    reader.finish()?;
    let alias = app.service().update_alias(&caller, &alias, &actor).await;
    let alias = alias.map_err(ApiError::of_body)?;
    Ok(Reply::one("Actor alias updated successfully.", object(&alias)))
}

pub(super) async fn delete(
    Signed(caller): Signed,
    State(app): State<App>,
    Path(alias): Path<String>,
) -> Result<Reply, ApiError> {
    app.service().delete_alias(&caller, &alias).await?;
    Ok(Reply::done(format!("Alias {alias} deleted successfully.")))
}

fn link(alias: &Alias) -> String {
    format!("/actors/aliases/{}", alias.alias)
}

/// An alias as callers see it.
fn object(alias: &Alias) -> Object {
    Object::default()
        .with("alias", &alias.alias)
        .with("actor_id", alias.actor.as_str())
        .with("owner", &alias.owner)
        .with_links([
            ("self", link(alias)),
            ("owner", profile(&alias.owner)),
            ("actor", format!("/actors/{}", alias.actor)),
        ])
}
