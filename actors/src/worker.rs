//! Logical workers: what Abaco shows as the workers of an actor. One row is one
//! slot of an actor on a host; it is BUSY while an execution has it.

use std::fmt;

use crate::clock::Time;
use crate::id::{ActorId, WorkerId};

/// One slot of an actor on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Worker {
    /// Its id.
    pub id: WorkerId,
    /// The actor it serves.
    pub actor: ActorId,
    /// The name of the host it is on.
    pub host: String,
    /// Whether it has an execution.
    pub status: WorkerStatus,
    /// When it was made.
    pub created: Time,
    /// When it took its last execution.
    pub last_execution: Option<Time>,
}

/// Where a worker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WorkerStatus {
    /// Waits for an execution.
    Ready,
    /// Has one.
    Busy,
}

impl WorkerStatus {
    /// The text in rows and answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "READY",
            Self::Busy => "BUSY",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Ready, Self::Busy].into_iter().find(|s| s.as_str() == text)
    }
}

impl fmt::Display for WorkerStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
