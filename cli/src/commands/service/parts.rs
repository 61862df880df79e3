//! The parts of a service process, each from the settings.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use abax_actors::{Claim, DefaultLimits, Service, Time};
use abax_api::{Dialect, Keys};
use abax_runtime::cgroup::Limits;
use abax_runtime::network::{BridgeConfig, Mode};
use abax_worker::AccessTokens;
use anyhow::Context as _;
use secrecy::ExposeSecret as _;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::keys;
use super::lock::Succession;
use crate::config::Settings;
use crate::output;

/// How long the access tokens of executions hold; longer where these may run longer.
const ACCESS_TOKEN_LIFETIME: Duration = Duration::from_secs(4 * 3600);

/// The domain's, with `api_server` for executions to call.
///
/// # Errors
///
/// A file that is named cannot be used, or a size is none.
pub(super) fn actors(
    settings: &Settings,
    api_server: String,
) -> anyhow::Result<abax_actors::Config> {
    let service = &settings.service;
    let mut config = abax_actors::Config::new(settings.database()?, settings.queue()?);
    config.api_server = api_server;
    config.tenants = settings.tenants()?;
    config.queues.clone_from(&service.queues);
    config.max_owned = service.owned_per_user;
    config.max_attempts = service.max_attempts;
    config.max_log_bytes = service.log_limit_bytes;
    config.default_limits = default_limits(settings)?;
    config.max_workers_per_actor = service.workers_per_actor;
    config.worker_idle = Duration::from_secs(service.worker_idle_seconds);
    config.sync_worker_idle = Duration::from_secs(service.sync_worker_idle_seconds);
    config.worker_ttl = Duration::from_secs(service.worker_ttl_seconds);
    config.max_binary_bytes = service.binary_limit_bytes;
    config.nonce_in_environment = service.nonce_in_environment == "yes";
    config.max_result_bytes = service.result_limit_bytes;
    config.max_results_bytes = service.results_limit_bytes;
    config.result_expiry = Duration::from_secs(service.result_expiry_hours * 3600);
    config.host_access = settings.host_access()?;
    config.secret_keys = keys::of_secrets(settings)?;
    config.configs_for_any_actor = service.configs_for_any_actor == "yes";
    config.execution_retention =
        service.execution_retention_days.map(|days| Duration::from_secs(days * 86_400));
    Ok(config)
}

/// What executions are limited to whose actors do not say: what hosts give them,
/// and what is counted.
fn default_limits(settings: &Settings) -> anyhow::Result<DefaultLimits> {
    let service = &settings.service;
    Ok(DefaultLimits {
        memory_bytes: service.memory.as_deref().map(output::parse_size).transpose()?,
        nano_cpus: service.cpus.map(output::nano_cpus).transpose()?,
    })
}

/// The interface's, at `listen`.
///
/// # Errors
///
/// A file that is named cannot be used.
pub(super) fn api(
    settings: &Settings,
    listen: SocketAddr,
    public_url: Option<String>,
) -> anyhow::Result<abax_api::Config> {
    let mut config =
        abax_api::Config { listen, api_server: public_url, ..abax_api::Config::default() };
    config.bare_dialect = Dialect::named(&settings.api.dialect)
        .with_context(|| format!("api.dialect: {} is none", settings.api.dialect))?;
    config.waits_per_user = settings.api.waits_per_user;
    config.webhook_networks.clone_from(&settings.api.webhook_networks);
    settings.trust(&mut config)?;
    Ok(config)
}

/// The bridge of executions, which reach these ports of this machine's loopback.
pub(super) fn bridge(settings: &Settings, host_ports: Vec<u16>) -> BridgeConfig {
    BridgeConfig {
        name: settings.service.bridge.clone(),
        subnet: settings.service.subnet,
        isolated: true,
        host_ports,
    }
}

/// Who runs executions, and for how long after a stop.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) succession: Succession,
    pub(super) slots: Option<usize>,
    pub(super) drain_seconds: u64,
}

/// The worker's.
///
/// # Errors
///
/// A size that is none.
pub(super) fn worker(
    settings: &Settings,
    host: Host,
    bridge: BridgeConfig,
    keys: Keys,
) -> anyhow::Result<abax_worker::Config> {
    let service = &settings.service;
    let slots = match host.slots {
        Some(slots) => NonZeroUsize::new(slots).context("no slots would run nothing")?,
        None => std::thread::available_parallelism()
            .unwrap_or(NonZeroUsize::MIN)
            .saturating_mul(NonZeroUsize::new(4).expect("four is not zero")),
    };
    let mut config = abax_worker::Config::new(host.name, slots, Mode::Bridge(bridge));
    Succession { id: config.id, dead: config.dead } = host.succession;
    config.memory_bytes = settings.worker.memory.as_deref().map(output::parse_size).transpose()?;
    config.milli_cpus =
        settings.worker.cpus.map(output::nano_cpus).transpose()?.map(|nano| nano / 1_000_000);
    config.address = settings.worker.address;
    config.classes = Some(settings.worker.classes.clone());
    config.prepull.clone_from(&settings.worker.prepull);
    config.registries = settings.registries.clone();
    config.drain = Duration::from_secs(host.drain_seconds);
    config.lease = Duration::from_secs(service.lease_seconds);
    config.renew = config.lease / 3;
    config.time_limit = service.time_limit_seconds.map(Duration::from_secs);
    config.stop_grace = Duration::from_secs(service.stop_grace_seconds);
    config.log_limit_bytes = service.log_limit_bytes;
    let DefaultLimits { memory_bytes, nano_cpus } = default_limits(settings)?;
    config.limits = Limits { memory_bytes, nano_cpus, pids: service.pids, ..Limits::default() };
    let lifetime = token_lifetime(config.time_limit);
    let tenants = settings.tenants()?;
    config.access_tokens = Some(AccessTokens::new(move |claim: &Claim, now: Time| {
        if !tenants.issues_tokens(&claim.actor.tenant) {
            return None;
        }
        let (owner, tenant) = (&claim.actor.owner, claim.actor.tenant.as_str());
        let token = keys.mint_for(&claim.key, owner, tenant, now, lifetime);
        Some(token.expose_secret().to_owned())
    }));
    Ok(config)
}

/// One that may run for longer keeps its token to its end; where there is no limit,
/// nobody knows when that is.
fn token_lifetime(time_limit: Option<Duration>) -> Duration {
    time_limit.unwrap_or_default().max(ACCESS_TOKEN_LIFETIME)
}

/// The jobs that one process of all does at a time, until `stop`.
pub(super) fn upkeep(service: &Service, stop: &CancellationToken) -> JoinHandle<()> {
    let (service, stop) = (service.clone(), stop.clone());
    tokio::spawn(async move { service.upkeep(stop).await })
}

/// The loop that all parts of the process run on.
///
/// # Errors
///
/// The kernel refuses threads.
pub(super) fn io_loop() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("could not start the I/O loop")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_holds_for_as_long_as_the_longest_execution_may_run() {
        const HOUR: Duration = Duration::from_secs(3600);
        for (limit, hours) in [(None, 4), (Some(HOUR), 4), (Some(HOUR * 24), 24)] {
            assert_eq!(token_lifetime(limit), HOUR * hours, "{limit:?}");
        }
    }
}
