//! The HTTP interface of the service: routes, dialects, authentication.
//!
//! A request passes `edge` (path, dialect, request id, CORS), the route table
//! in `routes`, `auth` and `parameters`, and comes back as an answer without a
//! dialect, which `envelope` writes.
//!
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod config;
mod dialect;

mod auth;
mod bodies;
mod nonce;
mod parameters;

mod envelope;
mod error;

mod metrics;
mod operations;

mod edge;
mod routes;
mod server;
mod turns;
mod waiting;
mod waits;
mod webhooks;

use std::sync::Arc;

use abax_actors::{Caller, Service};
use auth::Issuers;
use axum::{Extension, Router, middleware};
use bodies::Bodies;
use error::ApiError;
use operations::Operations;
use tower_http::catch_panic::CatchPanicLayer;
use turns::{Turn, Turns};
use waits::Waits;

pub use auth::{
    Issuer, KeySource, KeyTooShort, Keys, NotAKey, PublicKey, Strength, Tenants, TokenError,
};
pub use config::{Config, ConfigError};
pub use dialect::Dialect;
pub use envelope::VERSION;
pub use metrics::Metrics;
pub use operations::serve_operations;
pub use routes::{Access, RouteInfo, route_table};
pub use server::serve;
pub use waiting::serve_waiting;

/// What handlers work with: the service, its keys, the settings. Clones share it.
#[derive(Debug, Clone)]
pub struct App(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    service: Service,
    keys: Keys,
    issuers: Issuers,
    waits: Waits,
    turns: Turns,
    bodies: Bodies,
    config: Config,
    operations: Operations,
}

impl App {
    /// An interface to `service`.
    ///
    /// # Errors
    ///
    /// A setting that cannot work, see [`Config::check`].
    pub fn new(service: Service, keys: Keys, config: Config) -> Result<Self, ConfigError> {
        let config = config.check()?;
        let issuers = Issuers::new(&config.issuers, config.ca_pem.as_deref())?;
        let waits = Waits::new(config.waits_per_user);
        let operations = Operations::new(service.clone());
        let turns = Turns::default();
        let largest = config.message_limit_bytes.max(config.body_limit_bytes);
        let bodies = Bodies::new(largest.max(service.config().max_binary_bytes));
        Ok(Self(Arc::new(Parts {
            service,
            keys,
            issuers,
            waits,
            turns,
            bodies,
            config,
            operations,
        })))
    }

    pub(crate) fn service(&self) -> &Service {
        &self.0.service
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.0.keys
    }

    pub(crate) fn issuers(&self) -> &Issuers {
        &self.0.issuers
    }

    pub(crate) fn waits(&self) -> &Waits {
        &self.0.waits
    }

    pub(crate) fn bodies(&self) -> &Bodies {
        &self.0.bodies
    }

    /// The turn of `caller` for an answer that is read from much, to be put among the
    /// extensions of that answer.
    ///
    /// # Errors
    ///
    /// `TooMany`: it has too many calls that wait already.
    pub(crate) async fn turn(&self, caller: &Caller) -> Result<Extension<Turn>, ApiError> {
        let _waiting = self.waits().begin(caller)?;
        Ok(Extension(self.0.turns.take(caller).await))
    }

    pub(crate) fn config(&self) -> &Config {
        &self.0.config
    }

    pub(crate) fn operations(&self) -> &Operations {
        &self.0.operations
    }
}

/// The whole interface as one service; [`serve`] puts it on a socket.
pub fn router(app: App) -> Router {
    behind_the_edge(routes::router(), app)
}

fn behind_the_edge(routes: Router<App>, app: App) -> Router {
    let inner = routes
        .layer(CatchPanicLayer::custom(error::of_panic))
        .layer(middleware::from_fn(metrics::mark_route))
        .with_state(app.clone());
    // The path must have its final form before the inner router sees it, so
    // the edge stands in front of a router, not within one.
    Router::new().fallback_service(inner).layer(middleware::from_fn_with_state(app, edge::edge))
}

#[cfg(test)]
mod tests {
    use abax_actors::Clock;
    use axum::body::{Body, to_bytes};
    use axum::http::{Request, StatusCode};
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_500_with_the_request_id_and_no_detail() {
        let directory = tempfile::tempdir().unwrap();
        let settings = abax_actors::Config::sqlite(directory.path().join("abax.db"));
        let service = Service::open(settings, Clock::system()).await.unwrap();
        let keys = Keys::new(&[7; 32]).unwrap();
        let app = App::new(service, keys, Config::default()).unwrap();
        let broken: fn() -> std::future::Ready<()> = || panic!("a secret of ours");
        let router = behind_the_edge(Router::new().route("/actors", get(broken)), app);
        let request = Request::get("/v3/actors").header("x-request-id", "r-1").body(Body::empty());
        let answer = router.oneshot(request.unwrap()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(answer.headers()["content-type"], "application/json");
        let body = to_bytes(answer.into_body(), 10_000).await.unwrap();
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert!(body.contains("request r-1") && !body.contains("secret"), "{body}");
    }
}
