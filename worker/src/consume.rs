//! The loop: a slot, then a message; and the drain at its end.

use std::sync::Arc;
use std::time::Duration;

use abax_actors::{Chain, Error, HostId, HostInfo, Service, Swept};
use abax_runtime::Runtime;
use abax_runtime::container::Launcher;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::Config;
use crate::execute::{Host, execute};
use crate::image::Images;
use crate::lease::{self, Interruption, Running};
use crate::machine;
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

/// How long to say that this worker has stopped.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// How long after a failure the next message is asked for.
const RECEIVE_AGAIN: Duration = Duration::from_secs(1);
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
    let info = HostInfo {
        name: config.name.clone(),
        address: config.address.or_else(machine::address),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        slots: u32::try_from(config.slots.get()).unwrap_or(u32::MAX),
        memory_bytes: config.memory_bytes.or_else(machine::memory_bytes),
        milli_cpus: config.milli_cpus.or_else(machine::milli_cpus),
        classes: config.classes.clone().unwrap_or_else(|| service.config().queues.clone()),
    };
    let id = config.id.clone();
    let registered = until_it_passes(|| register(&service, &id, &info, &config.dead));
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        registered = registered => registered.map_err(|source| RunError::Register { source })?,
    }
    info!(
        host.id = %id, slots = config.slots, classes = info.classes.join(","),
        "worker {id} takes messages"
    );

    crate::metrics::describe(config.slots.get());
    let running = Arc::new(Running::default());
    let (cordon, mut cordoned) = watch::channel(false);
    // Leases are renewed while executions drain, so this stop comes later.
    let upkeep = CancellationToken::new();
    let _upkeep_ends_with_us = upkeep.clone().drop_guard();
    let upkeepers = TaskTracker::new();
    // Of ours, so that what we stop is only this worker.
    let stop = stop.child_token();
    let watched = launcher.clone();
    upkeepers.spawn(trouble::watch_launcher(watched.clone(), stop.clone()));
    let slots = Arc::new(Semaphore::new(config.slots.get()));
    let executions = TaskTracker::new();
    let images = Images::new(&runtime, config.registries.clone());
    let host = Arc::new(Host {
        id,
        info,
        service: service.clone(),
        sandbox: Sandbox { runtime, launcher, images },
        running: Arc::clone(&running),
        trouble: Trouble::default(),
        config: config.clone(),
    });
    upkeepers.spawn(lease::renew(Arc::clone(&host), cordon, upkeep.clone()));
    upkeepers.spawn(prepare::prepare(Arc::clone(&host), stop.clone()));
    upkeepers.spawn(prepare::prepull(Arc::clone(&host), stop.clone()));
    upkeepers.close();

    let mut failures = 0_u32;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = host.trouble.rest() => {}
        }
        if *cordoned.borrow_and_update() {
            info!("cordoned: takes no more executions for now");
            tokio::select! {
                () = stop.cancelled() => break,
                _ = cordoned.wait_for(|cordoned| !cordoned) => {}
            }
            info!("takes executions again");
        }
        // A slot before a message: what we take, we start at once.
        let slot = tokio::select! {
            () = stop.cancelled() => break,
            slot = Arc::clone(&slots).acquire_owned() => slot.expect("the semaphore is never closed"),
        };
        let room = u32::try_from(slots.available_permits() + 1).unwrap_or(u32::MAX);
        let delivery = tokio::select! {
            () = stop.cancelled() => break,
            Ok(()) = cordoned.changed() => continue,
            delivery = service.receive(&host.info.classes, room) => delivery,
        };
        let delivery = match delivery {
            Ok(delivery) => delivery,
            Err(error) => {
                // Once, however long it lasts.
                if failures == 0 {
                    warn!(error = %Chain(&error), "could not receive; trying again");
                }
                failures += 1;
                drop(slot);
                sleep(RECEIVE_AGAIN).await;
                continue;
            }
        };
        if failures > 0 {
            info!("receives again, after {failures} failures");
            failures = 0;
        }
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

    // A database that is away holds up no stop.
    let tells = Arc::clone(&host);
    tokio::spawn(async move {
        if let Err(error) = tells.service.drain_host(&tells.id).await {
            warn!(error = %Chain(&error), "could not say that this worker is stopping");
        }
    });
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
    match timeout(LAST_WORDS, service.stop_host(&host.id)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            warn!(error = %Chain(&error), "could not say that this worker has stopped");
        }
        Err(_) => warn!("could not say that this worker has stopped: no answer"),
    }
    info!(host.id = %host.id, "worker {} has stopped", host.id);
    if watched.has_ended() { Err(RunError::Launcher) } else { Ok(()) }
}

/// Makes this process known, and gives back what those before it had.
async fn register(
    service: &Service,
    id: &HostId,
    info: &HostInfo,
    dead: &[HostId],
) -> Result<(), Error> {
    service.register_host_as(id, info.clone()).await?;
    let swept = service.recover(dead).await?;
    if swept != Swept::default() {
        info!("{} executions of a dead worker are tried again", swept.retried);
    }
    Ok(())
}

/// Tries for as long as the failure may pass: a database that is away.
async fn until_it_passes<T, F: Future<Output = Result<T, Error>>>(
    mut attempt: impl FnMut() -> F,
) -> Result<T, Error> {
    loop {
        match attempt().await {
            Err(error) if error.is_transient() => {
                warn!(error = %Chain(&error), "could not register as a worker; trying again");
                sleep(RECEIVE_AGAIN).await;
            }
            ended => return ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_database_that_is_away_is_waited_for_and_a_refusal_is_not() {
        let refusal = || Error::ShuttingDown { actor: "x".to_owned() };
        let mut answers = vec![Err(refusal()), Ok(7), Err(Error::QueueUnavailable)];
        let mut next = || std::future::ready(answers.pop().unwrap());
        assert_eq!(until_it_passes(&mut next).await.unwrap(), 7);
        assert!(matches!(until_it_passes(next).await, Err(Error::ShuttingDown { .. })));
    }
}
