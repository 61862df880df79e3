//! The device nodes of the host, for containers that may have all of them.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use oci_spec::runtime::{LinuxDevice, LinuxDeviceBuilder, LinuxDeviceType};

/// What every container has of its own below /dev.
const OWN: [&str; 11] =
    ["console", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "urandom", "zero"];
/// How many are shown at most: a machine with many terminals has hundreds.
const MOST: usize = 4_096;

/// All nodes below /dev, but for those that every container has.
pub(super) fn of_host() -> Vec<LinuxDevice> {
    let mut found = Vec::new();
    collect(Path::new("/dev"), 0, &mut found);
    found
}

fn collect(directory: &Path, depth: usize, found: &mut Vec<LinuxDevice>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let is_own = name == "tty" || OWN.iter().any(|own| name == *own);
        let Ok(metadata) = entry.metadata() else { continue };
        if depth == 0 && is_own || found.len() >= MOST {
            continue;
        }
        let kind = match metadata.file_type() {
            kind if kind.is_dir() => {
                // Devices lie two or three directories deep; what is deeper is another file system.
                if depth < 4 {
                    collect(&path, depth + 1, found);
                }
                continue;
            }
            kind if kind.is_char_device() => LinuxDeviceType::C,
            kind if kind.is_block_device() => LinuxDeviceType::B,
            _ => continue,
        };
        let device = LinuxDeviceBuilder::default()
            .path(path)
            .typ(kind)
            .major(i64::from(rustix::fs::major(metadata.rdev())))
            .minor(i64::from(rustix::fs::minor(metadata.rdev())))
            .file_mode(metadata.mode() & 0o777)
            .uid(metadata.uid())
            .gid(metadata.gid())
            .build();
        found.extend(device);
    }
}
