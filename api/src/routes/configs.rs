//! Configs: list, make, show, change, remove.

use abax_actors::{ActorConfig, ActorConfigUpdate, NewActorConfig};
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};

use crate::App;
use crate::auth::Signed;
use crate::dialect::Dialect;
use crate::envelope::{Object, Reply};
use crate::error::ApiError;
use crate::parameters::Reader;
use crate::routes::actors::{profile, read, retrieved};

/// What is shown in the place of a secret. Sent back, it leaves the secret as it is.
const SECRET: &str = "[secret]";

pub(super) async fn list(
    Signed(caller): Signed,
    State(app): State<App>,
) -> Result<Response, ApiError> {
    let turn = app.turn(&caller).await?;
    let configs = app.service().actor_configs(&caller).await?;
    let message = retrieved("Configs", &configs, "ask for the others by their names");
    let objects = configs.page.iter().map(object).collect();
    Ok((turn, Reply::many(message, objects)).into_response())
}

pub(super) async fn create(
    Signed(caller): Signed,
    State(app): State<App>,
    request: Request,
) -> Result<Reply, ApiError> {
    let parameters = read(&app, request).await?;
    let mut reader = parameters.reader();
    let name = reader.required("name");
    let given = given(&mut reader);
    let (value, is_secret, actors) = all(&mut reader, given);
    reader.finish()?;
    let new = NewActorConfig { name, value, is_secret, actors };
    let config = app.service().create_actor_config(&caller, new).await;
    let config = config.map_err(ApiError::of_body)?;
    Ok(Reply::one("Config created successfully.", object(&config)).created(link(&config)))
}

pub(super) async fn show(
    Signed(caller): Signed,
    State(app): State<App>,
    Path(config): Path<String>,
) -> Result<Reply, ApiError> {
    let config = app.service().actor_config(&caller, &config).await?;
    Ok(Reply::one("Config retrieved successfully.", object(&config)))
}

pub(super) async fn update(
    Signed(caller): Signed,
    State(app): State<App>,
    Path(config): Path<String>,
    request: Request,
) -> Result<Reply, ApiError> {
    let dialect = request.extensions().get::<Dialect>().copied().unwrap_or_default();
    let parameters = read(&app, request).await?;
    let mut reader = parameters.reader();
    let mut update = given(&mut reader);
    if dialect.is_abaco() {
        // There, what replaces a config says all of it. The name is the URL's.
        reader.required("name");
        let (value, is_secret, actors) = all(&mut reader, update);
        update = ActorConfigUpdate {
            value: Some(value),
            is_secret: Some(is_secret),
            actors: Some(actors),
        };
    }
    reader.finish()?;
    update.value = update.value.filter(|value| value != SECRET);
    let config = app.service().update_actor_config(&caller, &config, update).await;
    let config = config.map_err(ApiError::of_body)?;
    Ok(Reply::one("Config updated successfully.", object(&config)))
}

pub(super) async fn delete(
    Signed(caller): Signed,
    State(app): State<App>,
    Path(config): Path<String>,
) -> Result<Reply, ApiError> {
    app.service().delete_actor_config(&caller, &config).await?;
    Ok(Reply::done(format!("Config {config} deleted successfully.")))
}

/// What a request says of a config.
fn given(reader: &mut Reader<'_>) -> ActorConfigUpdate {
    ActorConfigUpdate {
        value: reader.string("value"),
        is_secret: reader.boolean("is_secret"),
        // One text with commas, or a list of them.
        actors: reader.strings("actors").map(|actors| actors.join(",")),
    }
}

/// What a request must say of a config.
fn all(reader: &mut Reader<'_>, given: ActorConfigUpdate) -> (String, bool, String) {
    let ActorConfigUpdate { value, is_secret, actors } = given;
    for (name, missing) in [
        ("value", value.is_none()),
        // What is there and no boolean is refused already.
        ("is_secret", is_secret.is_none() && reader.string("is_secret").is_none()),
        ("actors", actors.is_none()),
    ] {
        if missing {
            let _: Option<()> = reader.refuse(name, "is required");
        }
    }
    (value.unwrap_or_default(), is_secret.unwrap_or_default(), actors.unwrap_or_default())
}

fn link(config: &ActorConfig) -> String {
    format!("/actors/configs/{}", config.name)
}

/// A config as callers see it: a secret stays one.
fn object(config: &ActorConfig) -> Object {
    Object::default()
        .with("name", &config.name)
        .with("value", config.value.as_deref().unwrap_or(SECRET))
        .with("is_secret", config.is_secret())
        .with("actors", &config.actors)
        .with("owner", &config.owner)
        .with("create_time", config.created.iso_millis())
        .with("last_update_time", config.updated.iso_millis())
        .with_links([("self", link(config)), ("owner", profile(&config.owner))])
}
