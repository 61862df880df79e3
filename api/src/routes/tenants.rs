//! Sites and tenants, as clients of Abaco's third version look for them at their start:
//! one site, and of its tenants what an operator has said of any.

use std::collections::BTreeSet;

use axum::extract::State;

use crate::App;
use crate::envelope::{Object, Reply};

/// What the only site is called.
const SITE: &str = "abax";

pub(super) async fn sites(State(app): State<App>) -> Reply {
    let site = Object::default()
        .with("site_id", SITE)
        .with("primary", true)
        .with_link("base_url", "/")
        .with("site_admin_tenant_id", app.service().config().default_tenant.as_str())
        .with("services", ["actors"]);
    Reply::many("Sites retrieved successfully.", vec![site])
}

pub(super) async fn tenants(State(app): State<App>) -> Reply {
    let config = app.service().config();
    let mut names: BTreeSet<&str> = config.tenants.iter().map(|(name, _)| name.as_str()).collect();
    names.extend(app.issuers().tenants());
    names.insert(config.default_tenant.as_str());
    let tenants = names.into_iter().map(|name| {
        let tenant = Object::default()
            .with("tenant_id", name)
            .with("site_id", SITE)
            .with("status", "active")
            .with("public_key", app.issuers().public_key_of(name));
        let own = config.tenants.iter().find(|(known, _)| known.as_str() == name);
        match own.and_then(|(_, settings)| settings.api_server.as_deref()) {
            Some(server) => tenant.with("base_url", server),
            None => tenant.with_link("base_url", "/"),
        }
    });
    Reply::many("Tenants retrieved successfully.", tenants.collect())
}
