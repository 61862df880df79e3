//! `abax worker`: runs executions on this machine, one host of many.

use std::time::Duration;

use abax_runtime::container::Launcher;
use anyhow::Context as _;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::lock::{Lock, Succession};
use super::wait::OldSchema;
use super::{check, keys, listen, notify, parts, signals, wait};
use crate::config::{Role, Settings};
use crate::telemetry;

/// Below the state root.
const LOCK: &str = "worker.lock";

/// Takes the state root for the host that the settings name; it is that one's
/// alone for as long as the lock lives.
///
/// # Errors
///
/// Another worker uses it.
pub(super) fn own_root(settings: &Settings) -> anyhow::Result<(String, Succession, Lock)> {
    let name = match &settings.worker.name {
        Some(name) => name.clone(),
        None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
    };
    let root = &settings.root;
    std::fs::create_dir_all(root)
        .with_context(|| format!("could not create {}", root.display()))?;
    let mut lock = Lock::take(&root.join(LOCK), |process| {
        format!(
            "another worker (process {process}) uses {}; stop it, or name another directory with \
             --root",
            root.display()
        )
    })?;
    let succession = lock.succeed()?;
    Ok((name, succession, lock))
}

/// Takes executions until SIGINT or SIGTERM, and lets those that run end.
///
/// # Errors
///
/// The worker could not start, or not register.
pub(crate) fn run(settings: &Settings) -> anyhow::Result<()> {
    check(settings, Role::Worker)?;
    let metrics = settings.worker.metrics_listen;
    let metrics = metrics.map(|address| listen::bind(address, "--metrics-listen")).transpose()?;
    let keys = keys::shared(settings)?;
    let public_url = settings.api.public_url.clone().unwrap_or_default();
    let of_actors = parts::actors(settings, public_url)?;
    let (name, succession, _lock) = own_root(settings)?;

    // The launcher while this process still has one thread.
    let launcher = Launcher::start().context("could not start the launcher")?;
    let bridge = parts::bridge(settings, settings.service.host_ports.clone());
    let runtime = settings.open_swept_runtime()?;
    // Now, so that what is wrong with it is said here, and no message waits for it.
    runtime.bridge(&bridge).context("could not prepare the network")?;
    let host = parts::Host {
        name: name.clone(),
        succession,
        slots: settings.worker.slots,
        drain_seconds: settings.worker.drain_seconds,
    };
    let of_worker = parts::worker(settings, host, bridge, keys)?;

    let tokio = parts::io_loop()?;
    let ended = tokio.block_on(async {
        let traces = telemetry::export_traces();
        let stop = signals::stop_on_signals()?;
        // A database that is not there yet is no reason to be started again.
        notify::ready("starting");
        let metrics = metrics.map(listen::of_tokio).transpose()?;
        let (why, told) = wait::why();
        let waiting = async {
            match &metrics {
                Some(listener) => abax_api::serve_waiting(listener, &told).await,
                None => std::future::pending().await,
            }
        };
        let service = tokio::select! {
            opened = wait::open(of_actors, OldSchema::Wait, &why) => opened?,
            never = waiting => match never {},
            () = stop.cancelled() => return Ok(()),
        };
        // Until the end, and not only until the drain begins: it lives, and counts.
        let ended = CancellationToken::new();
        let _ends_with_us = ended.clone().drop_guard();
        if let Some(listener) = metrics {
            tokio::spawn(abax_api::serve_operations(listener, service.clone(), ended));
        }
        notify::status(&format!("host {name} takes messages"));
        let ended = abax_worker::run(service.clone(), runtime, launcher, of_worker, stop).await;
        service.flush().await;
        info!("stopped");
        traces.finish().await;
        Ok(ended?)
    });
    // As in `abax serve`.
    tokio.shutdown_timeout(Duration::from_secs(1));
    ended
}
