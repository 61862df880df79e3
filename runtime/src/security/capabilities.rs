//! Capability names and sets.

use std::io;

use oci_spec::runtime::{Capabilities, Capability};
use rustix::thread::CapabilitySets;

/// What Docker gives a container: 14 capabilities.
pub const DOCKER_DEFAULT: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

/// All that there are.
pub(crate) const ALL: [Capability; 41] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

/// [`DOCKER_DEFAULT`] in the words of the seccomp profile.
pub(crate) fn docker_default() -> Vec<caps::Capability> {
    DOCKER_DEFAULT
        .iter()
        .filter_map(|capability| format!("CAP_{capability}").parse().ok())
        .collect()
}

/// A set of capabilities as the kernel counts them: capabilities(7), `linux/capability.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CapabilitySet(u64);

impl CapabilitySet {
    pub(crate) const EMPTY: Self = Self(0);

    /// From a set of the OCI runtime spec; no set is the empty one.
    pub(crate) fn from_spec(capabilities: Option<&Capabilities>) -> Self {
        Self(
            capabilities
                .into_iter()
                .flatten()
                .fold(0, |set, capability| set | 1 << number(*capability)),
        )
    }

    pub(crate) fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    fn has(self, number: u32) -> bool {
        self.0 >> number & 1 == 1
    }
}

/// Drops every capability that is not in `kept` from the bounding set: prctl(2), `PR_CAPBSET_DROP`.
///
/// What is not ours to keep is not there afterwards either: the bounding set only shrinks.
///
/// # Errors
///
/// `EPERM`: without `CAP_SETPCAP`.
pub(crate) fn limit_bounding_set(kept: CapabilitySet) -> io::Result<()> {
    for number in 0..64 {
        let capability = rustix::thread::CapabilitySet::from_bits_retain(1 << number);
        if kept.has(number) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // The kernel knows no more capabilities than this.
            Err(rustix::io::Errno::INVAL) => return Ok(()),
            other => other?,
        }
    }
    Ok(())
}

/// Makes `kept`, as far as the process has it, the effective and the permitted set; the inheritable
/// (CVE-2022-24769) and the ambient set are emptied.
///
/// # Errors
///
/// `EPERM` never: nothing is added.
pub(crate) fn set(kept: CapabilitySet) -> io::Result<()> {
    let own = rustix::thread::capabilities(None)?;
    let kept = rustix::thread::CapabilitySet::from_bits_retain(kept.0) & own.permitted;
    match rustix::thread::clear_ambient_capability_set() {
        // Before Linux 4.3 there is no such set.
        Ok(()) | Err(rustix::io::Errno::INVAL) => {}
        Err(error) => return Err(error.into()),
    }
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: rustix::thread::CapabilitySet::empty(),
    };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// The capability's number: `linux/capability.h`.
fn number(capability: Capability) -> u32 {
    match capability {
        Capability::Chown => 0,
        Capability::DacOverride => 1,
        Capability::DacReadSearch => 2,
        Capability::Fowner => 3,
        Capability::Fsetid => 4,
        Capability::Kill => 5,
        Capability::Setgid => 6,
        Capability::Setuid => 7,
        Capability::Setpcap => 8,
        Capability::LinuxImmutable => 9,
        Capability::NetBindService => 10,
        Capability::NetBroadcast => 11,
        Capability::NetAdmin => 12,
        Capability::NetRaw => 13,
        Capability::IpcLock => 14,
        Capability::IpcOwner => 15,
        Capability::SysModule => 16,
        Capability::SysRawio => 17,
        Capability::SysChroot => 18,
        Capability::SysPtrace => 19,
        Capability::SysPacct => 20,
        Capability::SysAdmin => 21,
        Capability::SysBoot => 22,
        Capability::SysNice => 23,
        Capability::SysResource => 24,
        Capability::SysTime => 25,
        Capability::SysTtyConfig => 26,
        Capability::Mknod => 27,
        Capability::Lease => 28,
        Capability::AuditWrite => 29,
        Capability::AuditControl => 30,
        Capability::Setfcap => 31,
        Capability::MacOverride => 32,
        Capability::MacAdmin => 33,
        Capability::Syslog => 34,
        Capability::WakeAlarm => 35,
        Capability::BlockSuspend => 36,
        Capability::AuditRead => 37,
        Capability::Perfmon => 38,
        Capability::Bpf => 39,
        Capability::CheckpointRestore => 40,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_s_default_set_is_the_one_that_its_containers_show() {
        let set: Capabilities = DOCKER_DEFAULT.into_iter().collect();
        assert_eq!(CapabilitySet::from_spec(Some(&set)), CapabilitySet(0xa804_25fb));
        assert_eq!(docker_default().len(), 14);
        let all: Capabilities = ALL.into_iter().collect();
        assert_eq!(CapabilitySet::from_spec(Some(&all)), CapabilitySet((1 << 41) - 1));
    }
}
