//! The states of the OCI runtime spec, and which may follow which.
//!
//! ```text
//! creating ──► created ──► running ──► stopped
//!     │           │                       ▲
//!     └───────────┴───────────────────────┘
//! ```

use serde::{Deserialize, Serialize};

/// OCI runtime-spec, Runtime and Lifecycle, State.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is being made.
    Creating,
    /// Everything is in place; the program has not been executed.
    Created,
    /// The program runs.
    Running,
    /// Init has ended.
    Stopped,
}

impl Status {
    /// Statuses that may follow this one; none follow the final one.
    pub fn next(self) -> &'static [Self] {
        match self {
            Self::Creating => &[Self::Created, Self::Stopped],
            Self::Created => &[Self::Running, Self::Stopped],
            Self::Running => &[Self::Stopped],
            Self::Stopped => &[],
        }
    }

    /// True where `self` may become `next`.
    pub fn may_become(self, next: Self) -> bool {
        self.next().contains(&next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_container_stays_stopped_and_every_other_can_stop() {
        use Status::{Created, Creating, Running, Stopped};
        assert!(Stopped.next().is_empty());
        for status in [Creating, Created, Running] {
            assert!(status.may_become(Stopped), "{status:?}");
            assert!(!status.may_become(status), "{status:?}");
        }
        assert!(!Creating.may_become(Running), "nothing runs that was not created");
    }
}
