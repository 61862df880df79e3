//! Nonces of actors and aliases: list, make, show, remove.

use abax_actors::{Caller, Level, NewNonce, Nonce, NonceOf, NoncePlace};
use axum::extract::{Path, Request, State};

use crate::App;
use crate::auth::Signed;
use crate::envelope::{Object, Reply};
use crate::error::{ApiError, Meaning};
use crate::routes::actors::{profile, read};

pub(super) async fn of_actor(
    Signed(caller): Signed,
    State(app): State<App>,
    Path(actor): Path<String>,
) -> Result<Reply, ApiError> {
    list(&app, &caller, NonceOf::Actor(actor)).await
}

pub(super) async fn create_for_actor(
    Signed(caller): Signed,
    State(app): State<App>,
    Path(actor): Path<String>,
    request: Request,
) -> Result<Reply, ApiError> {
    create(&app, &caller, NonceOf::Actor(actor), request).await
}

pub(super) async fn show_of_actor(
    Signed(caller): Signed,
    State(app): State<App>,
    Path((actor, nonce)): Path<(String, String)>,
) -> Result<Reply, ApiError> {
    show(&app, &caller, NonceOf::Actor(actor), &nonce).await
}

pub(super) async fn delete_of_actor(
    Signed(caller): Signed,
    State(app): State<App>,
    Path((actor, nonce)): Path<(String, String)>,
) -> Result<Reply, ApiError> {
    delete(&app, &caller, NonceOf::Actor(actor), &nonce).await
}

pub(super) async fn of_alias(
    Signed(caller): Signed,
    State(app): State<App>,
    Path(alias): Path<String>,
) -> Result<Reply, ApiError> {
    list(&app, &caller, NonceOf::Alias(alias)).await
}

pub(super) async fn create_for_alias(
    Signed(caller): Signed,
    State(app): State<App>,
    Path(alias): Path<String>,
    request: Request,
) -> Result<Reply, ApiError> {
    create(&app, &caller, NonceOf::Alias(alias), request).await
}

pub(super) async fn show_of_alias(
    Signed(caller): Signed,
    State(app): State<App>,
    Path((alias, nonce)): Path<(String, String)>,
) -> Result<Reply, ApiError> {
    show(&app, &caller, NonceOf::Alias(alias), &nonce).await
}

pub(super) async fn delete_of_alias(
    Signed(caller): Signed,
    State(app): State<App>,
    Path((alias, nonce)): Path<(String, String)>,
) -> Result<Reply, ApiError> {
    delete(&app, &caller, NonceOf::Alias(alias), &nonce).await
}

async fn list(app: &App, caller: &Caller, of: NonceOf) -> Result<Reply, ApiError> {
    let nonces = app.service().nonces(caller, &of).await?;
    let objects = nonces.iter().map(object).collect();
    Ok(Reply::many("Nonces retrieved successfully.", objects))
}

async fn create(
    app: &App,
    caller: &Caller,
    of: NonceOf,
    request: Request,
) -> Result<Reply, ApiError> {
    let parameters = read(app, request).await?;
    let mut reader = parameters.reader();
    let mut new = NewNonce::default();
    let level = reader.string("level");
    if let Some(uses) = reader.integer("max_uses") {
        new.max_uses = uses;
    }
    new.description = reader.string("description").unwrap_or_default();
    reader.finish()?;
    if let Some(level) = level {
        new.level = Level::parse(&level)?;
    }
    let nonce = app.service().create_nonce(caller, &of, new).await?;
    let reply = Reply::one("Actor nonce created successfully.", object(&nonce));
    Ok(reply.created(link(&nonce)))
}

async fn show(app: &App, caller: &Caller, of: NonceOf, id: &str) -> Result<Reply, ApiError> {
    let nonce = app.service().nonce(caller, &of, id).await?;
    Ok(Reply::one("Nonce retrieved successfully.", object(&nonce)))
}

async fn delete(app: &App, caller: &Caller, of: NonceOf, id: &str) -> Result<Reply, ApiError> {
    app.service().delete_nonce(caller, &of, id).await.map_err(|error| {
        match ApiError::from(error) {
            // Abaco fails at this; who looks for one hears something else from it.
            error if error.meaning() == Meaning::NoNonce => {
                ApiError::new(Meaning::NoActor, "Nonce not found.")
            }
            other => other,
        }
    })?;
    Ok(Reply::done("Nonce deleted successfully."))
}

/// Where the actor or alias of a nonce is, from the root.
fn place(nonce: &Nonce) -> String {
    match &nonce.place {
        NoncePlace::Actor(actor) => format!("/actors/{actor}"),
        NoncePlace::Alias(alias) => format!("/actors/aliases/{alias}"),
    }
}

fn link(nonce: &Nonce) -> String {
    format!("{}/nonces/{}", place(nonce), nonce.id.as_str())
}

/// A nonce as callers see it.
fn object(nonce: &Nonce) -> Object {
    let uses = |uses: Option<u64>| uses.and_then(|uses| i64::try_from(uses).ok()).unwrap_or(-1);
    let object = Object::default()
        .with("id", nonce.id.as_str())
        .with("level", nonce.level.as_str())
        .with("description", &nonce.description)
        .with("owner", &nonce.owner)
        .with("roles", &nonce.roles)
        .with("max_uses", uses(nonce.max_uses))
        .with("current_uses", nonce.current_uses)
        .with("remaining_uses", uses(nonce.remaining_uses))
        .with("create_time", nonce.created.iso_millis())
        .with_moment("last_use_time", nonce.last_used)
        .with_server();
    let object = match &nonce.place {
        NoncePlace::Actor(actor) => object.with("actor_id", actor),
        NoncePlace::Alias(alias) => object.with("actor_id", ()).with("alias", alias),
    };
    object.with_links([
        ("self", link(nonce)),
        ("owner", profile(&nonce.owner)),
        ("actor", place(nonce)),
    ])
}
