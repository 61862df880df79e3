//! Executions: one message handled by one container.
//!
//! ```text
//! SUBMITTED ──claim──► RUNNING ──finish──► COMPLETE   a container ended, however
//!     ▲  │                │  └──finish──► ERROR      no container ran to its end
//!     │  └─halt, purge────│───────────────► ERROR      (cancelled before it ran)
//!     └──lease ran out────┘  (with the next attempt; after the last: ERROR, lost)
//! ```

use std::fmt;
use std::time::Duration;

use crate::actor::Actor;
use crate::clock::Time;
use crate::id::{ActorId, ExecutionId, WorkerId};
use crate::json::Json;

/// The executor of what a schedule executes.
pub(crate) const CRON: &str = "cron";
/// The executor of what an event of another actor causes.
pub(crate) const EVENT: &str = "Abaco Event";

/// One message handled by one container.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Execution {
    /// Its id.
    pub id: ExecutionId,
    /// The actor that handles the message.
    pub actor: ActorId,
    /// The user who sent the message; `cron` where a schedule did, and `Abaco Event`
    /// where another actor is linked to this one.
    pub executor: String,
    /// Its user and group of the hosts, where the actor runs as its senders.
    pub executor_user: Option<(u32, u32)>,
    /// Where it stands.
    pub status: ExecutionStatus,
    /// How it ended; with a final status.
    pub outcome: Option<Outcome>,
    /// A sentence that a person can act on; with an outcome other than succeeded.
    pub reason: Option<String>,
    /// Which try this is, from 1; 0 before the first.
    pub attempt: u32,
    /// The actor's revision when the message was accepted.
    pub actor_revision: i64,
    /// The worker that handles or handled it.
    pub worker: Option<WorkerId>,
    /// When it got where.
    pub phases: Phases,
    /// The exit code of the container; 128+n when a signal n ended it.
    pub exit_code: Option<i32>,
    /// The container's last state, in the words of the runtime.
    pub final_state: Option<Json>,
    /// What it used.
    pub usage: Usage,
    /// Whether it is asked to stop.
    pub halt_requested: bool,
}

impl Execution {
    /// One whose message was just accepted.
    pub(crate) fn accepted(
        id: ExecutionId,
        actor: &Actor,
        executor: String,
        executor_user: Option<(u32, u32)>,
        now: Time,
    ) -> Self {
        let mut phases = Phases::default();
        phases.set(Phase::Accepted, now);
        phases.set(Phase::Queued, now);
        Self {
            id,
            actor: actor.id.clone(),
            executor,
            executor_user,
            status: ExecutionStatus::Submitted,
            outcome: None,
            reason: None,
            attempt: 0,
            actor_revision: actor.revision,
            worker: None,
            phases,
            exit_code: None,
            final_state: None,
            usage: Usage::default(),
            halt_requested: false,
        }
    }
}

/// Where an execution stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExecutionStatus {
    /// Accepted, and waiting.
    Submitted,
    /// Claimed by a host.
    Running,
    /// Its container ended, for whatever reason.
    Complete,
    /// It ended without a container that ended by itself.
    Error,
}

impl ExecutionStatus {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Submitted, Self::Running, Self::Complete, Self::Error];

    /// Statuses that may follow this one; none follow a final status.
    #[must_use]
    pub fn next(self) -> &'static [Self] {
        match self {
            // Straight to `Error`: cancelled before it ran.
            Self::Submitted => &[Self::Running, Self::Error],
            // Back to `Submitted`: the worker's lease ran out.
            Self::Running => &[Self::Complete, Self::Error, Self::Submitted],
            Self::Complete | Self::Error => &[],
        }
    }

    /// True for a status that nothing follows.
    #[must_use]
    pub fn is_final(self) -> bool {
        self.next().is_empty()
    }

    /// The text in rows and answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Submitted => "SUBMITTED",
            Self::Running => "RUNNING",
            Self::Complete => "COMPLETE",
            Self::Error => "ERROR",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }
}

impl fmt::Display for ExecutionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How an execution ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Exit code 0.
    Succeeded,
    /// Another exit code, or a signal.
    Failed,
    /// Killed for its memory limit.
    OutOfMemory,
    /// Stopped at the run-time limit.
    TimedOut,
    /// Halted, purged, or its actor deleted.
    Cancelled,
    /// No container could be started.
    CouldNotStart,
    /// Its workers died, as often as it was tried.
    Lost,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Succeeded,
        Self::Failed,
        Self::OutOfMemory,
        Self::TimedOut,
        Self::Cancelled,
        Self::CouldNotStart,
        Self::Lost,
    ];

    /// The text in rows and answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::OutOfMemory => "out_of_memory",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::CouldNotStart => "could_not_start",
            Self::Lost => "lost",
        }
    }

    /// The final status of a *claimed* execution that ended so.
    #[must_use]
    pub fn status(self) -> ExecutionStatus {
        match self {
            Self::Succeeded
            | Self::Failed
            | Self::OutOfMemory
            | Self::TimedOut
            | Self::Cancelled => ExecutionStatus::Complete,
            Self::CouldNotStart | Self::Lost => ExecutionStatus::Error,
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|o| o.as_str() == text)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The stations of an execution, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The row was committed.
    Accepted,
    /// The queue had it.
    Queued,
    /// A host took it.
    Claimed,
    /// The image was on the host.
    ImageReady,
    /// The container was made.
    Created,
    /// The program was started.
    Started,
    /// The first byte of output came.
    FirstOutput,
    /// The program ended.
    Exited,
    /// Outcome and logs were stored.
    Stored,
}

impl Phase {
    /// All of them, in order.
    pub const ALL: [Self; 9] = [
        Self::Accepted,
        Self::Queued,
        Self::Claimed,
        Self::ImageReady,
        Self::Created,
        Self::Started,
        Self::FirstOutput,
        Self::Exited,
        Self::Stored,
    ];

    /// The key in answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Queued => "queued",
            Self::Claimed => "claimed",
            Self::ImageReady => "image_ready",
            Self::Created => "created",
            Self::Started => "started",
            Self::FirstOutput => "first_output",
            Self::Exited => "exited",
            Self::Stored => "stored",
        }
    }
}

/// When an execution's last attempt got where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases([Option<Time>; 9]);

impl Phases {
    /// When `phase` was reached, if it was.
    #[must_use]
    pub fn at(&self, phase: Phase) -> Option<Time> {
        self.0[phase as usize]
    }

    /// Notes that `phase` was reached at `time`.
    pub fn set(&mut self, phase: Phase, time: Time) {
        self.0[phase as usize] = Some(time);
    }

    /// The phases reached, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (Phase, Time)> + '_ {
        Phase::ALL.into_iter().filter_map(|phase| Some((phase, self.at(phase)?)))
    }
}

/// What an execution used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time in nanoseconds.
    pub cpu_ns: u64,
    /// Bytes read and written.
    pub io_bytes: u64,
    /// From start to exit.
    pub runtime: Duration,
    /// The most memory it had, if known.
    pub peak_memory_bytes: Option<u64>,
}

/// How a claimed execution ended, as its host tells it.
#[derive(Clone, Debug)]
pub struct Finish {
    /// How it ended; decides the status.
    pub outcome: Outcome,
    /// A sentence that a person can act on; empty for none.
    pub reason: String,
    /// See [`Execution::exit_code`].
    pub exit_code: Option<i32>,
    /// See [`Execution::final_state`].
    pub final_state: Option<Json>,
    /// What it used.
    pub usage: Usage,
    /// Phases that were not recorded before.
    pub phases: Phases,
    /// Output that was not appended before.
    pub output: Vec<u8>,
    /// How many bytes of output came before that.
    pub output_position: u64,
    /// Whether output was cut before it came here.
    pub output_truncated: bool,
}

impl Finish {
    /// An end with `outcome`, and nothing else to tell.
    #[must_use]
    pub fn new(outcome: Outcome, reason: impl Into<String>) -> Self {
        Self {
            outcome,
            reason: reason.into(),
            exit_code: None,
            final_state: None,
            usage: Usage::default(),
            phases: Phases::default(),
            output: Vec::new(),
            output_position: 0,
            output_truncated: false,
        }
    }
}

/// Which of an actor's executions are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExecutionsPage {
    /// Not the first of them.
    pub skip: u64,
    /// At most so many; 10,000 at most.
    pub limit: u32,
    /// The newest first, and not the oldest.
    pub newest_first: bool,
}

/// The executions of an actor, and what all of them used together.
#[derive(Clone, Debug, PartialEq)]
pub struct ExecutionsSummary {
    /// In the order that was asked for.
    pub executions: Vec<Execution>,
    /// How many there are.
    pub total_executions: u64,
    /// Sum of [`Usage::cpu_ns`].
    pub total_cpu_ns: u64,
    /// Sum of [`Usage::io_bytes`].
    pub total_io_bytes: u64,
    /// Sum of the whole seconds of each [`Usage::runtime`].
    pub total_runtime_seconds: u64,
}

/// The output of an execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logs {
    /// stdout and stderr as they came, from the position that was asked for on.
    pub bytes: Vec<u8>,
    /// Where the next output will stand: ask for it from here on.
    pub position: u64,
    /// The attempt that wrote it.
    pub attempt: u32,
    /// Which claim of the execution wrote it. Where it differs from the last
    /// answer's, the output begins anew at position 0: a host died, or gave the
    /// execution back, which is the same attempt again.
    pub epoch: i64,
    /// Whether it was cut.
    pub truncated: bool,
    /// Whether nothing will follow.
    pub ended: bool,
}

impl Logs {
    /// The bytes as text; what is not UTF-8 becomes U+FFFD. Where the log was cut,
    /// a last line says so.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::from_utf8_lossy(&self.bytes).into_owned();
        if self.truncated {
            text.push_str("\n\n*** LOG LIMIT EXCEEDED; LOG TRUNCATED ***\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_follows_a_final_status() {
        for status in ExecutionStatus::ALL {
            assert_eq!(ExecutionStatus::parse(status.as_str()), Some(status));
            assert_eq!(
                status.is_final(),
                matches!(status, ExecutionStatus::Complete | ExecutionStatus::Error)
            );
        }
    }

    #[test]
    fn outcomes_end_running_executions() {
        for outcome in Outcome::ALL {
            assert_eq!(Outcome::parse(outcome.as_str()), Some(outcome));
            assert!(ExecutionStatus::Running.next().contains(&outcome.status()), "{outcome}");
            assert!(outcome.status().is_final(), "{outcome}");
        }
    }

    #[test]
    fn phases_come_in_order() {
        let mut phases = Phases::default();
        phases.set(Phase::Exited, Time::from_micros(2));
        phases.set(Phase::Accepted, Time::from_micros(1));
        let names: Vec<_> = phases.iter().map(|(p, _)| p.as_str()).collect();
        assert_eq!(names, ["accepted", "exited"]);
    }
}
