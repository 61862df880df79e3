//! What runs here: its leases, and how it is told to stop.
//!
//! A lease ends here by this machine's own clock, a little before the service
//! may give the execution to another worker, and whether or not the service can
//! be reached. From then on nothing is written for it: whoever asks what an
//! execution shall do ([`Stop::reason`]) compares the time, so that it makes no
//! difference which of them runs first after the process stood still.

use std::collections::HashMap;
use std::io::{self, PipeReader, PipeWriter, Write as _};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use abax_actors::{Chain, ClaimKey};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::execute::Host;

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

#[derive(Debug)]
struct StopState {
    reason: Option<Interruption>,
    /// Whether its container gets no time to end by itself.
    at_once: bool,
    /// Whether there is a container to be stopped, or about to be one.
    begun: bool,
    /// When the lease is over for us, unless it is renewed before.
    lease_until: Instant,
}

impl StopState {
    fn reason(&mut self) -> Option<Interruption> {
        if Instant::now() >= self.lease_until {
            self.reason = Some(Interruption::LeaseLost);
            self.at_once = true;
        }
        self.reason
    }
}

/// When a lease that was asked for at `asked` is over for us. The service counts
/// it from a later moment; what is left besides is for killing the container,
/// and for clocks that do not run alike.
pub(crate) fn lease_until(asked: Instant, lease: Duration) -> Instant {
    asked + lease - lease / 10
}

impl Stop {
    pub(crate) fn interrupt(&self, why: Interruption) {
        let mut state = self.state();
        // The first reason holds, but nothing holds against a lost lease.
        if state.reason.is_none() || why == Interruption::LeaseLost {
            state.reason = Some(why);
        }
        // Also where it was halted before, and has a little time left.
        state.at_once |= why != Interruption::Halted;
        drop(state);
        // One byte is enough, and a pipe with a byte in it wakes all the same.
        let _ = self.waker.lock().expect("no holder of this lock panics").write(&[1]);
    }

    /// Why this execution must stop, if it must.
    pub(crate) fn reason(&self) -> Option<Interruption> {
        self.state().reason()
    }

    /// True when its container gets no time to end by itself: the lease is lost, or the
    /// time of this worker is over.
    pub(crate) fn at_once(&self) -> bool {
        let mut state = self.state();
        state.reason();
        state.at_once
    }

    /// True when nothing may be written for this execution any more.
    pub(crate) fn lost(&self) -> bool {
        self.reason() == Some(Interruption::LeaseLost)
    }

    /// How long the lease holds if nobody renews it.
    pub(crate) fn lease_left(&self) -> Duration {
        self.state().lease_until.saturating_duration_since(Instant::now())
    }

    /// The lease was renewed; one that was over is not begun again.
    fn prolong(&self, until: Instant) {
        let mut state = self.state();
        if state.reason() != Some(Interruption::LeaseLost) {
            state.lease_until = state.lease_until.max(until);
        }
    }

    /// Asked before a container is made; false when it must stop already, and then
    /// none may be made.
    pub(crate) fn begin(&self) -> bool {
        let mut state = self.state();
        state.begun = state.reason().is_none();
        state.begun
    }

    /// True when it was stopped before it began, so that no container will ever be.
    pub(crate) fn never_begins(&self) -> bool {
        let mut state = self.state();
        state.reason().is_some() && !state.begun
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
    /// Lists an execution whose lease is over at `lease_until`; the reader becomes
    /// readable when it is told to stop before.
    ///
    /// # Errors
    ///
    /// Out of descriptors.
    pub(crate) fn enter(
        self: &Arc<Self>,
        key: ClaimKey,
        lease_until: Instant,
    ) -> io::Result<(Entry, PipeReader)> {
        let (reader, writer) = io::pipe()?;
        let state = StopState { reason: None, at_once: false, begun: false, lease_until };
        let stop = Arc::new(Stop { state: Mutex::new(state), waker: Mutex::new(writer) });
        let mut running = self.0.lock().expect("no holder of this lock panics");
        running.insert(key.clone(), Arc::clone(&stop));
        drop(running);
        Ok((Entry { running: Arc::clone(self), key, stop }, reader))
    }

    /// What is ours to renew.
    fn held(&self) -> HashMap<ClaimKey, Arc<Stop>> {
        let running = self.0.lock().expect("no holder of this lock panics");
        let held = running.iter().filter(|(_, stop)| !stop.lost());
        held.map(|(key, stop)| (key.clone(), Arc::clone(stop))).collect()
    }

    /// Stops everything that still runs.
    pub(crate) fn interrupt_all(&self, why: Interruption) {
        let running = self.0.lock().expect("no holder of this lock panics");
        for stop in running.values() {
            stop.interrupt(why);
        }
    }
}

/// Says that this worker lives, and renews the leases of what runs here, until
/// `stop`; ends what was halted or is not ours any more, and tells whether the
/// worker is cordoned. Where the service does not answer, it asks more often, for
/// as long as it takes.
pub(crate) async fn renew(host: Arc<Host>, cordon: watch::Sender<bool>, stop: CancellationToken) {
    let Host { id, info, service, running, config, .. } = &*host;
    let mut failures = 0_u32;
    let mut pause = Duration::ZERO;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(pause) => {}
        }
        pause = config.renew;
        let asked = Instant::now();
        let mut held = running.held();
        let keys: Vec<ClaimKey> = held.keys().cloned().collect();
        let answer = timeout(config.renew, service.renew(id, &keys, config.lease)).await;
        let renewal = match answer {
            Ok(Ok(renewal)) => renewal,
            failed => {
                failures += 1;
                pause = config.renew / 5;
                let error = match &failed {
                    Ok(Err(error)) => Chain(error).to_string(),
                    _ => format!("no answer within {} s", config.renew.as_secs_f64()),
                };
                // Once, however long it lasts.
                if failures == 1 {
                    warn!(error, "could not renew leases; trying again");
                }
                continue;
            }
        };
        if failures > 0 {
            info!("leases are renewed again, after {failures} failures");
            failures = 0;
        }
        if renewal.forgotten
            && let Err(error) = service.register_host_as(id, info.clone()).await
        {
            warn!(error = %Chain(&error), "could not register again");
        }
        cordon.send_if_modified(|cordoned| {
            std::mem::replace(cordoned, renewal.cordoned) != renewal.cordoned
        });
        // Who executes it says what becomes of it.
        for key in &renewal.lost {
            if let Some(stop) = held.remove(key) {
                stop.interrupt(Interruption::LeaseLost);
            }
        }
        for key in &renewal.halted {
            if let Some(stop) = held.get(key) {
                info!(execution.id = %key.execution, "halting execution {}", key.execution);
                stop.interrupt(Interruption::Halted);
            }
        }
        for stop in held.values() {
            stop.prolong(lease_until(asked, config.lease));
        }
    }
}

#[cfg(test)]
mod tests {
    use abax_actors::ExecutionId;

    use super::*;

    fn entered(lease: Duration) -> (Entry, PipeReader) {
        let key = ClaimKey { execution: ExecutionId::generate(), epoch: 1 };
        Arc::new(Running::default()).enter(key, lease_until(Instant::now(), lease)).unwrap()
    }

    #[test]
    fn a_lease_that_nobody_renewed_is_lost_at_our_own_clock() {
        let (entry, _reader) = entered(Duration::ZERO);
        assert!(entry.stop.lost());
        assert!(!entry.stop.begin(), "and nothing begins");
        assert!(entry.running.held().is_empty(), "nor is it renewed");
        entry.stop.prolong(Instant::now() + Duration::from_secs(60));
        assert!(entry.stop.lost(), "nor does a late answer bring it back");
    }

    #[test]
    fn a_renewed_lease_holds_and_never_gets_shorter() {
        let (entry, _reader) = entered(Duration::from_secs(100));
        assert!(entry.stop.lease_left() <= Duration::from_secs(90), "a little is kept back");
        entry.stop.prolong(Instant::now() + Duration::from_secs(1_000));
        entry.stop.prolong(Instant::now() + Duration::from_secs(10));
        assert!(entry.stop.lease_left() > Duration::from_secs(990));
        assert_eq!(entry.stop.reason(), None);
        assert!(entry.stop.begin());
    }

    #[test]
    fn nothing_holds_against_a_lost_lease() {
        let (entry, _reader) = entered(Duration::from_secs(100));
        entry.stop.interrupt(Interruption::Halted);
        assert!(!entry.stop.at_once(), "it has time to end by itself");
        entry.stop.interrupt(Interruption::Draining);
        assert!(entry.stop.at_once(), "which is over with this worker's");
        assert_eq!(entry.stop.reason(), Some(Interruption::Halted));
        entry.stop.interrupt(Interruption::LeaseLost);
        assert!(entry.stop.lost());
    }
}
