//! What is wrong with this host itself: others take the work meanwhile.

use std::error::Error;
use std::io;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use abax_runtime::container::{CreateError, Launcher};
use rustix::io::Errno;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::error;

/// The rest after a failure of the host's own; twice as long after each further
/// one until a container is started.
const REST: Duration = Duration::from_secs(1);
/// The longest rest.
const REST_MOST: Duration = Duration::from_secs(16);
/// How often the launcher is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Whether a failure is the host's and neither the image's nor the message's:
/// the same may work elsewhere, or here when there is space again.
pub(crate) fn is_of_host(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(CreateError::Launcher { .. } | CreateError::Network(_)) = error.downcast_ref() {
            return true;
        }
        if error.downcast_ref().is_some_and(exhausted) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Whether the machine has no more of something.
fn exhausted(error: &io::Error) -> bool {
    // Not memory: that may be the limit of the container.
    let exhausted = [Errno::NOSPC, Errno::DQUOT, Errno::IO, Errno::MFILE, Errno::NFILE];
    Errno::from_io_error(error).is_some_and(|errno| exhausted.contains(&errno))
}

/// How this host fares. Without a rest, one that can start nothing would be the
/// quickest of all to take messages, and to use up their attempts.
#[derive(Debug, Default)]
pub(crate) struct Trouble(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Since the last container that was started.
    failures: u32,
    until: Option<Instant>,
}

impl Trouble {
    /// Notes a failure of the host's own at `now`.
    pub(crate) fn failed(&self, now: Instant) {
        let mut state = self.0.lock().expect("no holder of this lock panics");
        if state.until.is_some_and(|until| until > now) {
            // One of those that were under way already.
            return;
        }
        let rest = REST.saturating_mul(2_u32.saturating_pow(state.failures)).min(REST_MOST);
        state.failures += 1;
        state.until = Some(now + rest);
    }

    /// Notes that a container was started.
    pub(crate) fn started(&self) {
        *self.0.lock().expect("no holder of this lock panics") = State::default();
    }

    /// How long the host is still to rest at `now`.
    fn rests_for(&self, now: Instant) -> Option<Duration> {
        let state = self.0.lock().expect("no holder of this lock panics");
        state.until?.checked_duration_since(now).filter(|rest| !rest.is_zero())
    }

    /// Waits until the host may take a message.
    pub(crate) async fn rest(&self) {
        while let Some(rest) = self.rests_for(Instant::now()) {
            sleep(rest).await;
        }
    }
}

/// Stops the worker when its launcher ends: it can start nothing any more, and a
/// new launcher takes a new process.
pub(crate) async fn watch_launcher(launcher: Launcher, stop: CancellationToken) {
    while !stop.is_cancelled() {
        if launcher.has_ended() {
            error!("the launcher has ended, and all containers with it; this worker stops");
            stop.cancel();
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = sleep(LOOK) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("could not")]
    struct Outer(#[source] io::Error);

    #[test]
    fn a_full_disk_is_the_host_s_and_a_missing_file_is_not() {
        for (errno, of_host) in [(Errno::NOSPC, true), (Errno::MFILE, true), (Errno::NOENT, false)]
        {
            assert_eq!(is_of_host(&Outer(errno.into())), of_host, "{errno}");
        }
        let launcher = CreateError::Launcher { source: Errno::PIPE.into() };
        assert!(is_of_host(&launcher));
        assert!(!is_of_host(&CreateError::NoCommand));
    }

    #[test]
    fn rests_grow_until_a_container_is_started() {
        let trouble = Trouble::default();
        let mut now = Instant::now();
        assert_eq!(trouble.rests_for(now), None);
        for seconds in [1, 2, 4, 8, 16, 16] {
            trouble.failed(now);
            trouble.failed(now);
            assert_eq!(trouble.rests_for(now), Some(Duration::from_secs(seconds)));
            now += Duration::from_secs(seconds);
            assert_eq!(trouble.rests_for(now), None);
        }
        trouble.started();
        trouble.failed(now);
        assert_eq!(trouble.rests_for(now), Some(REST));
    }
}
