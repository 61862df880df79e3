//! A running container: its output and results, and how it is stopped.
//!
//! ```text
//! runs ──halt, time limit──► asked, by its stop signal ──grace is over──► killed
//!  │                            ├──ends by itself                           ▲
//!  │                            └──lease lost, worker's drain is over───────┤
//!  └──lease lost, drain is over, nobody would notice the signal─────────────┘
//! ```

use std::io::{PipeReader, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use abax_actors::Outcome;
use abax_runtime::container::Container;
use rustix::event::{PollFd, PollFlags, poll};

use crate::lease::Stop;
use crate::sandbox::{Live, read};

/// Why we ended a container ourselves, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stopped {
    why: Why,
    how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// It ran for longer than this.
    Time(Duration),
    Told,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// It was asked, and may end by itself until then.
    Asked(Instant),
    /// It was asked, and had not ended after this.
    KilledAfter(Duration),
    /// Without being asked, or before its time was over.
    KilledAtOnce,
    /// Its program makes nothing of the signal that it would be asked by.
    KilledUnnoticing,
}

impl Stopped {
    pub(crate) fn outcome(self) -> Outcome {
        match self.why {
            Why::Time(_) => Outcome::TimedOut,
            Why::Told => Outcome::Cancelled,
        }
    }

    /// The sentence that says so.
    pub(crate) fn reason(self, container: &Container) -> String {
        let signal = container.stop_signal();
        let by_itself = matches!(self.how, How::Asked(_));
        let mut reason = match self.why {
            Why::Time(limit) => {
                let verb = if by_itself { "stopped" } else { "killed" };
                format!("{verb}: ran longer than the limit of {} s", limit.as_secs_f64())
            }
            Why::Told if by_itself => "halted".to_owned(),
            Why::Told => "halted and killed".to_owned(),
        };
        match self.how {
            How::Asked(_) | How::KilledAtOnce => {}
            How::KilledAfter(grace) => {
                let seconds = grace.as_secs_f64();
                reason += &format!("; it had not ended {seconds} s after it was asked by {signal}");
            }
            How::KilledUnnoticing => reason += &format!("; its program does not catch {signal}"),
        }
        reason
    }
}

/// A running container, with all that may happen to it.
#[derive(Debug)]
pub(crate) struct Watched<'a> {
    pub(crate) live: &'a Live,
    pub(crate) container: &'a Container,
    pub(crate) stop: &'a Stop,
    /// Readable when there is something new in `stop`.
    pub(crate) wake: &'a PipeReader,
    pub(crate) results: &'a UnixDatagram,
    /// How long it may take to end by itself.
    pub(crate) grace: Duration,
}

/// What there is no room for is looked at again after this.
const NO_ROOM: Duration = Duration::from_millis(50);

impl Watched<'_> {
    /// Reads output and results until the first process ends; stops it when the time is
    /// over or it is told to.
    pub(crate) fn attend(
        &self,
        time_limit: Option<Duration>,
        output: &mut PipeReader,
        begun: Instant,
    ) -> Option<Stopped> {
        let Self { live, container, wake, results, .. } = *self;
        let mut stopped = None;
        let mut open = true;
        loop {
            stopped = self.stop_if_it_must(stopped, time_limit, begun);
            let mut left = self.until_next_look(stopped, time_limit, begun);
            let mut fds = vec![
                PollFd::from_borrowed_fd(container.pidfd(), PollFlags::IN),
                PollFd::from_borrowed_fd(wake.as_fd(), PollFlags::IN),
            ];
            let at_output = open.then(|| {
                fds.push(PollFd::from_borrowed_fd(output.as_fd(), PollFlags::IN));
                fds.len() - 1
            });
            let at_results = live.results.has_room().then(|| {
                fds.push(PollFd::from_borrowed_fd(results.as_fd(), PollFlags::IN));
                fds.len() - 1
            });
            if at_results.is_none() {
                left = Some(left.map_or(NO_ROOM, |left| left.min(NO_ROOM)));
            }
            // Rounded up by the type: seconds and nanoseconds.
            let timeout = left.and_then(|left| left.try_into().ok());
            match poll(&mut fds, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => {
                    // Out of memory, at worst: waiting for the process still works.
                    return stopped;
                }
            }
            let happened = |at: Option<usize>| at.is_some_and(|at| !fds[at].revents().is_empty());
            let (written, sent) = (happened(at_output), happened(at_results));
            let (ended, woken) = (happened(Some(0)), happened(Some(1)));
            if woken {
                // It would ring for ever.
                let _ = { wake }.read(&mut [0; 16]);
            }
            if written {
                open = read(live, output);
            }
            if sent {
                live.results.read(results, &live.output, false);
            }
            if ended {
                return stopped;
            }
        }
    }

    /// Asks it to end, or kills it, where that is due; says how it was stopped so far.
    fn stop_if_it_must(
        &self,
        stopped: Option<Stopped>,
        time_limit: Option<Duration>,
        begun: Instant,
    ) -> Option<Stopped> {
        let how = match stopped {
            None => {
                let over = time_limit.filter(|limit| begun.elapsed() >= *limit);
                let why = match self.stop.reason() {
                    Some(_) => Why::Told,
                    None => Why::Time(over?),
                };
                return Some(Stopped { why, how: self.ask_or_kill() });
            }
            Some(Stopped { how: How::Asked(_), .. }) if self.stop.at_once() => How::KilledAtOnce,
            Some(Stopped { how: How::Asked(until), .. }) if Instant::now() >= until => {
                How::KilledAfter(self.grace)
            }
            Some(_) => return stopped,
        };
        self.container.kill_all();
        stopped.map(|stopped| Stopped { how, ..stopped })
    }

    fn ask_or_kill(&self) -> How {
        let how = match self.stop.at_once() || self.grace.is_zero() {
            true => How::KilledAtOnce,
            false => match self.container.ask_to_stop() {
                Ok(true) => return How::Asked(Instant::now() + self.grace),
                Ok(false) => How::KilledUnnoticing,
                Err(_) => How::KilledAtOnce,
            },
        };
        self.container.kill_all();
        how
    }

    /// How long nothing is due unless something happens. The lease may be longer by then.
    fn until_next_look(
        &self,
        stopped: Option<Stopped>,
        time_limit: Option<Duration>,
        begun: Instant,
    ) -> Option<Duration> {
        let due = match stopped {
            None => time_limit.map(|limit| limit.saturating_sub(begun.elapsed())),
            Some(Stopped { how: How::Asked(until), .. }) => {
                Some(until.saturating_duration_since(Instant::now()))
            }
            // Nothing but its end.
            Some(_) => return None,
        };
        let lease = self.stop.lease_left();
        Some(due.map_or(lease, |due| due.min(lease)))
    }
}
