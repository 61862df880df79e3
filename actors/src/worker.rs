//! Logical workers: what Abaco shows as the workers of an actor. One row is one
//! slot of an actor on a host.
//!
//! ```text
//! REQUESTED ─► PULLING IMAGE ─► READY ⇄ BUSY ─► SHUTDOWN_REQUESTED ─► (gone)
//!     └────────────── execution ───────►┘         until its execution has ended
//! any that has no execution ─► (gone)
//! ```
//!
//! A worker costs nothing while nothing runs: an execution that finds none makes
//! one, and one that has had nothing to do for a while goes. So an actor has
//! workers by need, from none to its limit.

use std::fmt;
use std::net::IpAddr;

use crate::clock::Time;
use crate::id::{ActorId, HostId, WorkerId};

/// One slot of an actor on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Worker {
    /// Its id.
    pub id: WorkerId,
    /// The actor it serves.
    pub actor: ActorId,
    /// The host it is on, once it is on one.
    pub host: Option<HostId>,
    /// The name of that host; empty before.
    pub host_name: String,
    /// Where that host is on the network, if it said so and is still known.
    pub host_address: Option<IpAddr>,
    /// Where it stands.
    pub status: WorkerStatus,
    /// The image it is for, once a host has it.
    pub image: Option<String>,
    /// The actor's revision that it is for.
    pub revision: Option<i64>,
    /// When it was made.
    pub created: Time,
    /// When it took its last execution.
    pub last_execution: Option<Time>,
    /// When its host was heard of.
    pub last_health_check: Option<Time>,
}

/// Where a worker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WorkerStatus {
    /// Asked for; no host has begun.
    Requested,
    /// A host makes the image ready.
    PullingImage,
    /// Waits for an execution.
    Ready,
    /// Has one.
    Busy,
    /// Has one, and goes when that has ended.
    ShutdownRequested,
}

impl WorkerStatus {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Requested, Self::PullingImage, Self::Ready, Self::Busy, Self::ShutdownRequested];

    /// The text in rows and answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "REQUESTED",
            Self::PullingImage => "PULLING IMAGE",
            Self::Ready => "READY",
            Self::Busy => "BUSY",
            Self::ShutdownRequested => "SHUTDOWN_REQUESTED",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }
}

impl fmt::Display for WorkerStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
