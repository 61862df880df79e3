//! Every route on one screen.

mod actors;
mod admin;
mod aliases;
mod configs;
mod events;
mod executions;
mod health;
mod logs;
mod messages;
mod nonces;
mod permissions;
mod results;
mod search;
mod state;
mod tenants;
mod workers;

use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{MethodFilter, MethodRouter, on};

use crate::App;

/// Who gets an answer at a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody: it tells nothing of anybody.
    Open,
    /// Callers with a token; what they may see and do, the service decides.
    Signed,
}

/// One route, as the router knows it: without prefix, with `{names}` for what varies.
#[derive(Debug, Clone)]
pub struct RouteInfo {
    /// The method.
    pub method: Method,
    /// The path.
    pub path: &'static str,
    /// Who gets an answer.
    pub access: Access,
}

struct Route {
    info: RouteInfo,
    handler: MethodRouter<App>,
}

fn routes() -> Vec<Route> {
    use Access::{Open, Signed};
    const ACTORS: &str = "/actors";
    const SEARCH: &str = "/actors/search/{collection}";
    const UTILIZATION: &str = "/actors/utilization";
    const ADMIN: &str = "/actors/admin";
    const ADMIN_WORKERS: &str = "/actors/admin/workers";
    const ADMIN_EXECUTIONS: &str = "/actors/admin/executions";
    const ACTOR: &str = "/actors/{actor}";
    const STATE: &str = "/actors/{actor}/state";
    const MESSAGES: &str = "/actors/{actor}/messages";
    const EXECUTIONS: &str = "/actors/{actor}/executions";
    const EXECUTION: &str = "/actors/{actor}/executions/{execution}";
    const WORKERS: &str = "/actors/{actor}/workers";
    const WORKER: &str = "/actors/{actor}/workers/{worker}";
    const DELIVERIES: &str = "/actors/{actor}/deliveries";
    const WEBHOOK: &str = "/actors/{actor}/webhook";
    const LOGS: &str = "/actors/{actor}/executions/{execution}/logs";
    const RESULTS: &str = "/actors/{actor}/executions/{execution}/results";
    const RESULT: &str = "/actors/{actor}/executions/{execution}/results/{number}";
    const PERMISSIONS: &str = "/actors/{actor}/permissions";
    const NONCES: &str = "/actors/{actor}/nonces";
    const NONCE: &str = "/actors/{actor}/nonces/{nonce}";
    const ALIASES: &str = "/actors/aliases";
    const ALIAS: &str = "/actors/aliases/{alias}";
    const ALIAS_PERMISSIONS: &str = "/actors/aliases/{alias}/permissions";
    const ALIAS_NONCES: &str = "/actors/aliases/{alias}/nonces";
    const ALIAS_NONCE: &str = "/actors/aliases/{alias}/nonces/{nonce}";
    const CONFIGS: &str = "/actors/configs";
    const CONFIG: &str = "/actors/configs/{config}";
    const CONFIG_PERMISSIONS: &str = "/actors/configs/{config}/permissions";

    vec![
        route(Method::GET, "/", Open, health::welcome),
        route(Method::GET, "/health", Open, health::ready),
        route(Method::GET, "/healthz", Open, health::alive),
        route(Method::GET, "/readyz", Open, health::ready),
        route(Method::GET, "/metrics", Open, health::metrics),
        route(Method::GET, "/v3/sites", Open, tenants::sites),
        route(Method::GET, "/v3/tenants", Open, tenants::tenants),
        route(Method::GET, ACTORS, Signed, actors::list),
        route(Method::POST, ACTORS, Signed, actors::register),
        route(Method::GET, SEARCH, Signed, search::show),
        route(Method::GET, UTILIZATION, Signed, admin::utilization),
        route(Method::GET, ADMIN, Signed, admin::actors),
        route(Method::GET, ADMIN_WORKERS, Signed, admin::workers),
        route(Method::GET, ADMIN_EXECUTIONS, Signed, admin::executions),
        route(Method::GET, ACTOR, Signed, actors::show),
        route(Method::PUT, ACTOR, Signed, actors::update),
        route(Method::DELETE, ACTOR, Signed, actors::delete),
        route(Method::GET, STATE, Signed, state::show),
        route(Method::POST, STATE, Signed, state::set),
        route(Method::GET, MESSAGES, Signed, messages::count),
        route(Method::POST, MESSAGES, Signed, messages::send),
        route(Method::DELETE, MESSAGES, Signed, messages::purge),
        route(Method::GET, EXECUTIONS, Signed, executions::list),
        route(Method::GET, EXECUTION, Signed, executions::show),
        route(Method::DELETE, EXECUTION, Signed, executions::halt),
        route(Method::GET, LOGS, Signed, logs::show),
        route(Method::GET, WORKERS, Signed, workers::list),
        route(Method::POST, WORKERS, Signed, workers::ask),
        route(Method::GET, WORKER, Signed, workers::show),
        route(Method::DELETE, WORKER, Signed, workers::stop),
        route(Method::GET, DELIVERIES, Signed, events::deliveries),
        route(Method::GET, WEBHOOK, Signed, events::webhook),
        route(Method::GET, RESULTS, Signed, results::list),
        route(Method::GET, RESULT, Signed, results::show),
        route(Method::GET, PERMISSIONS, Signed, permissions::of_actor),
        route(Method::POST, PERMISSIONS, Signed, permissions::set_of_actor),
        route(Method::GET, NONCES, Signed, nonces::of_actor),
        route(Method::POST, NONCES, Signed, nonces::create_for_actor),
        route(Method::GET, NONCE, Signed, nonces::show_of_actor),
        route(Method::DELETE, NONCE, Signed, nonces::delete_of_actor),
        route(Method::GET, ALIASES, Signed, aliases::list),
        route(Method::POST, ALIASES, Signed, aliases::create),
        route(Method::GET, ALIAS, Signed, aliases::show),
        route(Method::PUT, ALIAS, Signed, aliases::update),
        route(Method::DELETE, ALIAS, Signed, aliases::delete),
        route(Method::GET, ALIAS_PERMISSIONS, Signed, permissions::of_alias),
        route(Method::POST, ALIAS_PERMISSIONS, Signed, permissions::set_of_alias),
        route(Method::GET, ALIAS_NONCES, Signed, nonces::of_alias),
        route(Method::POST, ALIAS_NONCES, Signed, nonces::create_for_alias),
        route(Method::GET, ALIAS_NONCE, Signed, nonces::show_of_alias),
        route(Method::DELETE, ALIAS_NONCE, Signed, nonces::delete_of_alias),
        route(Method::GET, CONFIGS, Signed, configs::list),
        route(Method::POST, CONFIGS, Signed, configs::create),
        route(Method::GET, CONFIG, Signed, configs::show),
        route(Method::PUT, CONFIG, Signed, configs::update),
        route(Method::DELETE, CONFIG, Signed, configs::delete),
        route(Method::GET, CONFIG_PERMISSIONS, Signed, permissions::of_config),
        route(Method::POST, CONFIG_PERMISSIONS, Signed, permissions::set_of_config),
    ]
}

fn route<H, T>(method: Method, path: &'static str, access: Access, handler: H) -> Route
where
    H: Handler<T, App>,
    T: 'static,
{
    let filter = MethodFilter::try_from(method.clone()).expect("the table has standard methods");
    Route { info: RouteInfo { method, path, access }, handler: on(filter, handler) }
}

pub(crate) fn router() -> Router<App> {
    routes()
        .into_iter()
        .fold(Router::new(), |router, route| router.route(route.info.path, route.handler))
}

/// The table that the router is built from.
pub fn route_table() -> Vec<RouteInfo> {
    routes().into_iter().map(|route| route.info).collect()
}
