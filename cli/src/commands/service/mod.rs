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

use crate::config::{Role, Settings};

/// Says what a process of `role` lacks: all of it, since each start costs a try.
fn needed(settings: &Settings, role: Role) -> anyhow::Result<()> {
    let missing = settings.missing(role);
    if missing.is_empty() { Ok(()) } else { Err(anyhow!("{}", missing.join("; "))) }
}
