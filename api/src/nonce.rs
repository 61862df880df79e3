//! Callers without a token: the query parameter `x-nonce`, on the URLs of the actor
//! or alias that the nonce was made for.

use abax_actors::{Caller, Level, NonceOf};
use axum::extract::{FromRequestParts, MatchedPath, RawPathParams};
use axum::http::Method;
use axum::http::request::Parts;

use crate::App;
use crate::error::{ApiError, Meaning};
use crate::parameters::query_of;

/// The parameter that has the nonce.
const PARAMETER: &str = "x-nonce";

/// The caller by the request's nonce, if it has one; that counts as a use of it.
pub(crate) async fn redeem(parts: &mut Parts, app: &App) -> Result<Option<Caller>, ApiError> {
    let query = query_of(parts);
    let Some((_, nonce)) = query.iter().find(|(name, _)| name == PARAMETER) else {
        return Ok(None);
    };
    let route = parts.extensions.get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let route = route.unwrap_or_default();
    let named = match Place::of(&route) {
        Place::Actor => NonceOf::Actor(parameter(parts, app, "actor").await),
        Place::Alias => NonceOf::Alias(parameter(parts, app, "alias").await),
        Place::Search => {
            return Err(ApiError::new(
                Meaning::NoRoute,
                "Not found: a nonce does not resolve to an actor here; searching needs a token.",
            ));
        }
        Place::Elsewhere => {
            return Err(ApiError::new(
                Meaning::Unauthenticated,
                "Not authorized. Nonces work below their actor or alias only.",
            ));
        }
    };
    let caller = app.service().redeem_nonce(nonce, &named, needed(&parts.method, &route)).await?;
    Ok(Some(caller))
}

/// What a route says a nonce must be for.
enum Place {
    Actor,
    Alias,
    Search,
    Elsewhere,
}

impl Place {
    fn of(route: &str) -> Self {
        let mut segments = route.split('/').skip(1);
        match (segments.next(), segments.next(), segments.next()) {
            (Some("actors"), Some("{actor}"), _) => Self::Actor,
            (Some("actors"), Some("aliases"), Some("{alias}")) => Self::Alias,
            (Some("actors"), Some("search"), _) => Self::Search,
            _ => Self::Elsewhere,
        }
    }
}

/// What a nonce must at least be good for. The service asks for its own reasons
/// again; this decides whether the call counts as a use.
fn needed(method: &Method, route: &str) -> Level {
    match *method {
        Method::GET | Method::HEAD => Level::Read,
        Method::POST if route == "/actors/{actor}/messages" => Level::Execute,
        _ => Level::Update,
    }
}

async fn parameter(parts: &mut Parts, app: &App, name: &str) -> String {
    let parameters = RawPathParams::from_request_parts(parts, app).await;
    let found = parameters.ok().and_then(|parameters| {
        parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
    });
    // What cannot be read is no nonce's.
    found.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_needs_a_level() {
        for (method, route, level) in [
            (Method::GET, "/actors/{actor}", Level::Read),
            (Method::HEAD, "/actors/{actor}/messages", Level::Read),
            (Method::POST, "/actors/{actor}/messages", Level::Execute),
            (Method::DELETE, "/actors/{actor}/messages", Level::Update),
            (Method::POST, "/actors/{actor}/state", Level::Update),
            (Method::PUT, "/actors/aliases/{alias}", Level::Update),
        ] {
            assert_eq!(needed(&method, route), level, "{method} {route}");
        }
    }
}
