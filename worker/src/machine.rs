//! What this machine has to offer, as far as this process may use it.

use std::fs;

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
        assert_eq!(total_of("MemTotal:       16 kB\nMemFree: 3 kB\n"), Some(16 << 10));
        assert_eq!(total_of("MemFree: 3 kB\n"), None);
    }
}
