//! What this machine has to offer, as far as this process may use it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// The memory of the machine, or of our own control group where that is less.
pub(crate) fn memory_bytes() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_of(&text));
    let groups = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    // "max", or a number beyond all memory, where there is no limit.
    let group = groups.iter().find_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok());
    match (machine, group) {
        (Some(machine), Some(group)) => Some(u64::min(machine, group)),
        (one, other) => one.or(other),
    }
}

/// Thousandths of the CPUs that this process may use.
pub(crate) fn milli_cpus() -> Option<u64> {
    let cpus = std::thread::available_parallelism().ok()?;
    Some(cpus.get() as u64 * 1_000)
}

/// The address from which this machine would speak to others; that of its loopback
/// where it has no way to them.
pub(crate) fn address() -> Option<IpAddr> {
    // Nothing is sent: ip(7), and the networks are for documents, RFC 5737 and RFC 3849.
    let others = [
        (IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv4Addr::new(192, 0, 2, 1))),
        (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()),
        (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::LOCALHOST.into()),
    ];
    others.into_iter().find_map(|(any, other)| {
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect((other, 9)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    })
}

/// `MemTotal` of proc(5), which is in kibibytes.
fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_memory_and_cpus() {
        assert!(memory_bytes().unwrap() > 64 << 20);
        assert!(milli_cpus().unwrap() >= 1_000);
        assert!(!address().unwrap().is_unspecified());
        assert_eq!(total_of("MemTotal:       16 kB\nMemFree: 3 kB\n"), Some(16 << 10));
        assert_eq!(total_of("MemFree: 3 kB\n"), None);
    }
}
