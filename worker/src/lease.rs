//! What runs here: its leases, and how it is told to stop.

use std::collections::HashMap;
use std::io::{self, PipeReader, PipeWriter, Write as _};
use std::sync::{Arc, Mutex, MutexGuard};

use abax_actors::{Chain, ClaimKey, HostId, Service, Swept};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::Config;

/// Why an execution is stopped from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interruption {
    /// A user asked for its end.
    Halted,
    /// The lease ran out: another worker has it, or will.
    LeaseLost,
    /// This worker is stopping, and the time to finish is over.
    Draining,
}

impl From<abax_actors::Interruption> for Interruption {
    fn from(interruption: abax_actors::Interruption) -> Self {
        match interruption {
            abax_actors::Interruption::Halted => Self::Halted,
            abax_actors::Interruption::Lost => Self::LeaseLost,
        }
    }
}

/// The executions that run here.
#[derive(Debug, Default)]
pub(crate) struct Running(Mutex<HashMap<ClaimKey, Arc<Stop>>>);

/// How one execution is told to stop: a reason, and a pipe that wakes the
/// thread which waits for the container.
#[derive(Debug)]
pub(crate) struct Stop {
    state: Mutex<StopState>,
    waker: Mutex<PipeWriter>,
}

#[derive(Debug, Default)]
struct StopState {
    reason: Option<Interruption>,
    /// Whether there is a container to be stopped, or about to be one.
    begun: bool,
}

impl Stop {
    pub(crate) fn interrupt(&self, why: Interruption) {
        let mut state = self.state();
        // The first reason holds, but nothing holds against a lost lease.
        if state.reason.is_none() || why == Interruption::LeaseLost {
            state.reason = Some(why);
        }
        drop(state);
        // One byte is enough, and a pipe with a byte in it wakes all the same.
        let _ = self.waker.lock().expect("no holder of this lock panics").write(&[1]);
    }

    /// Why this execution must stop, if it must.
    pub(crate) fn reason(&self) -> Option<Interruption> {
        self.state().reason
    }

    /// Asked before a container is made; false when it must stop already, and then
    /// none may be made.
    pub(crate) fn begin(&self) -> bool {
        let mut state = self.state();
        state.begun = state.reason.is_none();
        state.begun
    }

    /// True when it was stopped before it began, so that no container will ever be.
    pub(crate) fn never_begins(&self) -> bool {
        let state = self.state();
        state.reason.is_some() && !state.begun
    }

    fn state(&self) -> MutexGuard<'_, StopState> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

/// An execution in the list of those that run here; leaves it when dropped.
#[derive(Debug)]
pub(crate) struct Entry {
    running: Arc<Running>,
    key: ClaimKey,
    pub(crate) stop: Arc<Stop>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut running = self.running.0.lock().expect("no holder of this lock panics");
        running.remove(&self.key);
    }
}

impl Running {
    /// Lists an execution; the reader becomes readable when it must stop.
    ///
    /// # Errors
    ///
    /// Out of descriptors.
    pub(crate) fn enter(self: &Arc<Self>, key: ClaimKey) -> io::Result<(Entry, PipeReader)> {
        let (reader, writer) = io::pipe()?;
        let stop = Arc::new(Stop { state: Mutex::default(), waker: Mutex::new(writer) });
        let mut running = self.0.lock().expect("no holder of this lock panics");
        running.insert(key.clone(), Arc::clone(&stop));
        drop(running);
        Ok((Entry { running: Arc::clone(self), key, stop }, reader))
    }

    fn keys(&self) -> Vec<ClaimKey> {
        self.0.lock().expect("no holder of this lock panics").keys().cloned().collect()
    }

    fn interrupt(&self, key: &ClaimKey, why: Interruption) {
        let stop = self.0.lock().expect("no holder of this lock panics").get(key).cloned();
        if let Some(stop) = stop {
            stop.interrupt(why);
        }
    }

    /// Stops everything that still runs.
    pub(crate) fn interrupt_all(&self, why: Interruption) {
        for key in self.keys() {
            self.interrupt(&key, why);
        }
    }
}

/// Renews the leases of what runs here, until `stop`; ends what was halted or
/// is not ours any more.
pub(crate) async fn renew(
    service: Service,
    host: HostId,
    config: Config,
    running: Arc<Running>,
    stop: CancellationToken,
) {
    let mut ticks = interval(config.renew);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let keys = running.keys();
        match service.renew(&host, &keys, config.lease).await {
            Ok(renewal) => {
                for key in &renewal.lost {
                    warn!(execution.id = %key.execution, "lost the lease of execution {}", key.execution);
                    running.interrupt(key, Interruption::LeaseLost);
                }
                for key in &renewal.halted {
                    info!(execution.id = %key.execution, "halting execution {}", key.execution);
                    running.interrupt(key, Interruption::Halted);
                }
            }
            Err(error) => warn!(error = %Chain(&error), "could not renew leases"),
        }
    }
}

/// Gives the executions of dead workers back to the queue, until `stop`.
pub(crate) async fn sweep(service: Service, config: Config, stop: CancellationToken) {
    let mut ticks = interval(config.sweep);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        match service.sweep().await {
            Ok(swept) if swept == Swept::default() => {}
            Ok(swept) => info!(
                retried = swept.retried,
                ended = swept.ended,
                queued = swept.queued,
                "swept: {} to try again, {} ended, {} queued",
                swept.retried,
                swept.ended,
                swept.queued
            ),
            Err(error) => warn!(error = %Chain(&error), "could not sweep"),
        }
    }
}
