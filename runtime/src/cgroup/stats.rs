//! What a group has used, in the same units whichever version counted it.

use std::path::Path;
use std::time::Duration;

use super::{Cgroup, CgroupError};

/// What the processes of a group have used so far, those that have ended included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time, user and system. Counted everywhere.
    pub cpu: Duration,
    /// Highest memory use so far, page cache included; `None` where memory is not counted for this
    /// group: on a hybrid machine without a memory limit, or v2 before Linux 5.19.
    pub peak_memory_bytes: Option<u64>,
    /// Memory in use now, page cache included; `None` where memory is not counted for this group.
    pub memory_bytes: Option<u64>,
    /// Bytes read from block devices; 0 where no controller counts them for this group.
    pub io_read_bytes: u64,
    /// Bytes written to block devices; 0 where no controller counts them for this group.
    pub io_write_bytes: u64,
    /// Processes and threads now; `None` where they are not counted for this group.
    pub pids: Option<u64>,
}

pub(super) fn usage(group: &Cgroup) -> Usage {
    let mut usage = Usage::default();
    if let Some(group) = &group.unified {
        let number = |file: &str| number(&group.path.join(file));
        // A figure that cannot be read is missing, never a reason to fail what it describes.
        let micros = counter(&group.path.join("cpu.stat"), "usage_usec").ok().flatten();
        usage.cpu = Duration::from_micros(micros.unwrap_or(0));
        usage.peak_memory_bytes = number("memory.peak");
        usage.memory_bytes = number("memory.current");
        usage.pids = number("pids.current");
        let io = super::read(&group.path.join("io.stat")).ok().flatten().unwrap_or_default();
        (usage.io_read_bytes, usage.io_write_bytes) = v2_io(&io);
    }
    for group in &group.legacy {
        let number = |file: &str| number(&group.path.join(file));
        if group.has("cpuacct") && usage.cpu.is_zero() {
            usage.cpu = Duration::from_nanos(number("cpuacct.usage").unwrap_or(0));
        }
        if group.has("memory") {
            usage.peak_memory_bytes = number("memory.max_usage_in_bytes");
            usage.memory_bytes = number("memory.usage_in_bytes");
        }
        if group.has("pids") {
            usage.pids = number("pids.current");
        }
        if group.has("blkio") {
            let io = super::read(&group.path.join("blkio.throttle.io_service_bytes"));
            let io = io.ok().flatten().unwrap_or_default();
            (usage.io_read_bytes, usage.io_write_bytes) = v1_io(&io);
        }
    }
    usage
}

/// The number that is a file's whole content.
fn number(path: &Path) -> Option<u64> {
    super::read(path).ok().flatten()?.trim().parse().ok()
}

/// The number after `key` in a file of `key number` lines; `None` where file or key do not exist.
pub(super) fn counter(path: &Path, key: &str) -> Result<Option<u64>, CgroupError> {
    Ok(super::read(path)?.and_then(|text| {
        text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok())
    }))
}

/// Sums of `io.stat`: `8:0 rbytes=1 wbytes=2 rios=3 …` per device.
fn v2_io(text: &str) -> (u64, u64) {
    let sum = |key: &str| {
        let values =
            text.split_whitespace().filter_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        values.filter_map(|value| value.parse::<u64>().ok()).sum()
    };
    (sum("rbytes"), sum("wbytes"))
}

/// Sums of `blkio.throttle.io_service_bytes`: `8:0 Read 1`, `8:0 Write 2` per device.
fn v1_io(text: &str) -> (u64, u64) {
    let sum = |key: &str| {
        let lines = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let values = lines.filter_map(|words| match words[..] {
            [_, operation, value] if operation == key => value.parse::<u64>().ok(),
            _ => None,
        });
        values.sum()
    };
    (sum("Read"), sum("Write"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_all_devices_add_up() {
        let v2 =
            "8:0 rbytes=100 wbytes=20 rios=1 wios=1 dbytes=0 dios=0\n254:0 rbytes=1 wbytes=2\n";
        assert_eq!(v2_io(v2), (101, 22));
        let v1 = "8:0 Read 100\n8:0 Write 20\n8:0 Sync 7\n8:0 Total 120\n8:16 Read 1\nTotal 121\n";
        assert_eq!(v1_io(v1), (101, 20));
        assert_eq!((v2_io(""), v1_io("")), ((0, 0), (0, 0)));
    }
}
