//! The roles of the service, from configuration to a clean stop.

pub(crate) mod api;
pub(crate) mod migrate;
pub(crate) mod serve;
pub(crate) mod worker;

mod parts;

pub(crate) mod keys;

mod listen;
mod lock;
mod notify;
mod signals;
mod wait;

use anyhow::anyhow;
use tracing::warn;

use crate::config::{Role, Settings};

/// Looks at the settings of a process of `role`: what it cannot work with ends it,
/// all of it at once, since each start costs a try; the rest is said in the log.
fn check(settings: &Settings, role: Role) -> anyhow::Result<()> {
    let (problems, warnings) = match role {
        // It needs the database alone, and may run where the rest is not.
        Role::Migrate => (settings.missing(role), Vec::new()),
        Role::Serve | Role::Api | Role::Worker => {
            let found = settings.check(Some(role));
            (found.problems, found.warnings)
        }
    };
    if !problems.is_empty() {
        return Err(anyhow!("{}", problems.join("; ")));
    }
    for warning in warnings {
        warn!("{warning}");
    }
    Ok(())
}
