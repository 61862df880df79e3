//! Hosts: processes that take executions, and what each of them offers.

use std::fmt;
use std::net::IpAddr;

use crate::clock::Time;
use crate::id::HostId;

/// What a process offers that takes executions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostInfo {
    /// The same each time this machine and state root register; what cordons it.
    pub name: String,
    /// Where it is on the network; not known.
    pub address: Option<IpAddr>,
    /// Version of the program.
    pub version: String,
    /// Executions it runs at once.
    pub slots: u32,
    /// What the memory limits of the executions that it runs may add up to; no bound.
    pub memory_bytes: Option<u64>,
    /// What their CPU limits may add up to, in thousandths of a CPU; no bound.
    pub milli_cpus: Option<u64>,
    /// The classes whose actors it serves ([`crate::Actor::queue`]).
    pub classes: Vec<String>,
}

impl HostInfo {
    /// A host of class `default` with `slots`, and no other bound.
    #[must_use]
    pub fn new(name: impl Into<String>, version: impl Into<String>, slots: u32) -> Self {
        Self {
            name: name.into(),
            address: None,
            version: version.into(),
            slots,
            memory_bytes: None,
            milli_cpus: None,
            classes: vec!["default".to_owned()],
        }
    }

    /// Whether it serves actors of `class`.
    #[must_use]
    pub fn serves(&self, class: &str) -> bool {
        self.classes.iter().any(|served| served == class)
    }
}

/// A host as the service knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Host {
    /// The id of its process.
    pub id: HostId,
    /// What it offers.
    pub info: HostInfo,
    /// Where it stands.
    pub status: HostStatus,
    /// Whether somebody keeps it from taking more; also the next process of its name.
    pub cordoned: bool,
    /// Executions that it runs.
    pub running: u64,
    /// How far its clock is ahead of the database's, in microseconds, if it said so.
    pub clock_offset_us: Option<i64>,
    /// When it began.
    pub registered: Time,
    /// When it was heard of.
    pub seen: Time,
}

/// Where a host stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HostStatus {
    /// Takes executions, unless it is cordoned.
    Working,
    /// Ends what it has, and then itself.
    Draining,
    /// Has ended.
    Stopped,
    /// Was not heard of for a while.
    Missing,
}

impl HostStatus {
    /// The text in answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Working => "WORKING",
            Self::Draining => "DRAINING",
            Self::Stopped => "STOPPED",
            Self::Missing => "MISSING",
        }
    }
}

impl fmt::Display for HostStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Limits of executions whose actors name none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DefaultLimits {
    /// Memory; no limit.
    pub memory_bytes: Option<u64>,
    /// Billionths of a CPU; no limit.
    pub nano_cpus: Option<u64>,
}

/// What its limits reserve on a host while one execution of an actor runs. What
/// has none reserves nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    pub(crate) memory_bytes: u64,
    pub(crate) milli_cpus: u64,
}

impl Needs {
    /// Those of an actor with these limits.
    pub(crate) fn of(
        memory_bytes: Option<u64>,
        nano_cpus: Option<u64>,
        default: DefaultLimits,
    ) -> Self {
        let nano_cpus = nano_cpus.or(default.nano_cpus).unwrap_or(0);
        Self {
            memory_bytes: memory_bytes.or(default.memory_bytes).unwrap_or(0),
            milli_cpus: nano_cpus.div_ceil(1_000_000),
        }
    }

    pub(crate) fn is_nothing(self) -> bool {
        self == Self::default()
    }

    pub(crate) fn and(self, other: Self, times: u64) -> Self {
        let add = |a: u64, b: u64| a.saturating_add(b.saturating_mul(times));
        Self {
            memory_bytes: add(self.memory_bytes, other.memory_bytes),
            milli_cpus: add(self.milli_cpus, other.milli_cpus),
        }
    }

    /// Whether a host could hold this.
    pub(crate) fn fit(self, host: &HostInfo) -> bool {
        host.memory_bytes.is_none_or(|all| self.memory_bytes <= all)
            && host.milli_cpus.is_none_or(|all| self.milli_cpus <= all)
    }

    /// Why no host of a class can run this, given those that there are.
    pub(crate) fn too_large_for<'h>(
        self,
        class: &str,
        hosts: impl Iterator<Item = &'h HostInfo> + Clone,
    ) -> String {
        let memory = hosts.clone().filter_map(|host| host.memory_bytes).max().unwrap_or(0);
        let cpus = hosts.filter_map(|host| host.milli_cpus).max().unwrap_or(0);
        let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
        let of_cpus = |milli: u64| format!("{}.{:03}", milli / 1_000, milli % 1_000);
        format!(
            "its limits need {} MiB of memory and {} CPUs, and no host of class {class} has both: \
             the most is {} MiB and {} CPUs; lower memLimit or maxCpus, or add a larger host",
            mebibytes(self.memory_bytes),
            of_cpus(self.milli_cpus),
            mebibytes(memory),
            of_cpus(cpus)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(memory_bytes: Option<u64>, nano_cpus: Option<u64>) -> Needs {
        Needs::of(memory_bytes, nano_cpus, DefaultLimits::default())
    }

    #[test]
    fn limits_that_are_not_set_reserve_nothing_and_bound_nothing() {
        let small = HostInfo { memory_bytes: Some(100), ..HostInfo::new("a", "1", 1) };
        assert!(needs(None, None).is_nothing());
        assert!(needs(Some(100), Some(1_000_000_000)).fit(&small));
        assert!(!needs(Some(60), None).and(needs(Some(21), None), 2).fit(&small));
        assert_eq!(needs(None, Some(1_500_000_001)).milli_cpus, 1_501);
    }

    #[test]
    fn an_actor_has_the_default_of_each_limit_that_it_does_not_name() {
        let default = DefaultLimits { memory_bytes: Some(50), nano_cpus: Some(2_000_000) };
        for (memory, cpus, reserved) in [
            (None, None, (50, 2)),
            (Some(60), None, (60, 2)),
            (None, Some(1_000_000), (50, 1)),
            (Some(10), Some(7_000_000), (10, 7)),
        ] {
            let Needs { memory_bytes, milli_cpus } = Needs::of(memory, cpus, default);
            assert_eq!((memory_bytes, milli_cpus), reserved, "{memory:?} {cpus:?}");
        }
    }

    #[test]
    fn what_fits_nowhere_names_the_need_and_the_largest_host() {
        let host = |memory: u64| HostInfo {
            memory_bytes: Some(memory << 20),
            milli_cpus: Some(2_000),
            ..HostInfo::new("a", "1", 1)
        };
        let hosts = [host(512), host(1024)];
        let reason = needs(Some(4 << 30), None).too_large_for("default", hosts.iter());
        for words in ["4096 MiB", "class default", "1024 MiB", "2.000 CPUs", "memLimit"] {
            assert!(reason.contains(words), "{words}: {reason}");
        }
    }
}
