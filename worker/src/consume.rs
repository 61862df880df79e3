//! The loop: a slot, then a message; and the drain at its end.

use std::sync::Arc;
use std::time::Duration;

use abax_actors::{Chain, Error, HostInfo, Service, Swept};
use abax_runtime::Runtime;
use abax_runtime::container::Launcher;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::Config;
use crate::execute::{Host, execute};
use crate::image::Images;
use crate::lease::{self, Interruption, Running};
use crate::prepare;
use crate::sandbox::Sandbox;
use crate::trouble::{self, Trouble};

/// Why a worker could not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The service does not know this host, so it gives it nothing.
    #[error("could not register as a worker")]
    Register {
        /// What the service said.
        source: Error,
    },
    /// What makes the containers is gone: only a new process can start another.
    #[error("the launcher has ended; start the worker again")]
    Launcher,
}

/// How long killed containers may take to be gone, at the end of a drain.
const AFTER_DRAIN: Duration = Duration::from_secs(10);

/// Takes messages until `stop`, then lets what runs finish for the configured
/// time, and gives the rest back to the queue.
///
/// The launcher must have been started before the process had threads.
///
/// # Errors
///
/// The worker could not register, or its launcher ended. Errors of single
/// executions end in the log, and in those executions.
pub async fn run(
    service: Service,
    runtime: Runtime,
    launcher: Launcher,
    config: Config,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let id = service
        .register_host(HostInfo {
            name: config.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            slots: u32::try_from(config.slots.get()).unwrap_or(u32::MAX),
        })
        .await
        .map_err(|source| RunError::Register { source })?;
    if config.alone {
        let swept = service.recover(&id).await.map_err(|source| RunError::Register { source })?;
        if swept != Swept::default() {
            info!("{} executions of a dead worker are tried again", swept.retried);
        }
    }
    info!(host.id = %id, slots = config.slots, "worker {id} takes messages");

    crate::metrics::describe(config.slots.get());
    let running = Arc::new(Running::default());
    // Leases are renewed while executions drain, so this stop comes later.
    let upkeep = CancellationToken::new();
    let _upkeep_ends_with_us = upkeep.clone().drop_guard();
    let upkeepers = TaskTracker::new();
    upkeepers.spawn(lease::renew(
        service.clone(),
        id.clone(),
        config.clone(),
        Arc::clone(&running),
        upkeep.clone(),
    ));
    upkeepers.spawn(lease::sweep(service.clone(), config.clone(), upkeep.clone()));

    // Of ours, so that what we stop is only this worker.
    let stop = stop.child_token();
    let watched = launcher.clone();
    upkeepers.spawn(trouble::watch_launcher(watched.clone(), stop.clone()));
    let slots = Arc::new(Semaphore::new(config.slots.get()));
    let executions = TaskTracker::new();
    let images = Images::new(&runtime, config.registries.clone());
    let host = Arc::new(Host {
        id,
        service: service.clone(),
        sandbox: Sandbox { runtime, launcher, images },
        running: Arc::clone(&running),
        trouble: Trouble::default(),
        config: config.clone(),
    });
    upkeepers.spawn(prepare::prepare(Arc::clone(&host), stop.clone()));
    upkeepers.close();

    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = host.trouble.rest() => {}
        }
        // A slot before a message: what we take, we start at once.
        let slot = tokio::select! {
            () = stop.cancelled() => break,
            slot = Arc::clone(&slots).acquire_owned() => slot.expect("the semaphore is never closed"),
        };
        let delivery = tokio::select! {
            () = stop.cancelled() => break,
            delivery = service.receive() => delivery,
        };
        let delivery = match delivery {
            Ok(delivery) => delivery,
            Err(error) => {
                warn!(error = %Chain(&error), "could not receive; trying again");
                drop(slot);
                sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let host = Arc::clone(&host);
        executions.spawn(async move {
            if let Some(thread) = execute(host, delivery).await {
                // It counts as a slot until it ends, but holds up no stop.
                tokio::spawn(async move {
                    let _ = thread.await;
                    drop(slot);
                });
            }
        });
    }

    executions.close();
    if timeout(config.drain, executions.wait()).await.is_err() {
        warn!(n = executions.len(), "giving back executions that did not end in time");
        running.interrupt_all(Interruption::Draining);
        if timeout(AFTER_DRAIN, executions.wait()).await.is_err() {
            warn!(
                n = executions.len(),
                "stopping with executions still running; their leases will end"
            );
        }
    }
    upkeep.cancel();
    upkeepers.wait().await;
    info!(host.id = %host.id, "worker {} has stopped", host.id);
    if watched.has_ended() { Err(RunError::Launcher) } else { Ok(()) }
}
