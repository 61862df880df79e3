//! Version 1: one tree per controller, each with its own files. Kernel documentation, cgroup-v1.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{CgroupError, Limits, PATIENCE, PERIOD_MICROS};

/// The controllers that we read or write; others are left alone.
pub(super) const CONTROLLERS: [&str; 7] =
    ["memory", "cpu", "cpuacct", "pids", "blkio", "freezer", "devices"];

/// Docker's default devices, in the words of `devices.allow`; making a node of any device is allowed.
const DEVICES: [&str; 11] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:1 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

/// A group in one v1 tree.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) path: PathBuf,
    /// What is counted and limited in this tree; `cpu,cpuacct` often share one.
    controllers: Vec<String>,
}

impl Group {
    pub(super) fn create(
        mount: &Path,
        name: &str,
        controllers: Vec<String>,
    ) -> Result<Self, CgroupError> {
        Ok(Self { path: super::create_directory(mount, name)?, controllers })
    }

    pub(super) fn open(mount: &Path, name: &str, controllers: Vec<String>) -> Option<Self> {
        let path = mount.join(name);
        path.is_dir().then_some(Self { path, controllers })
    }

    pub(super) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|own| own == controller)
    }

    /// Writes the limits that this tree's controllers keep.
    pub(super) fn limit(&self, limits: &Limits) -> Result<(), CgroupError> {
        let write = |file: &str, value: &str| super::write(&self.path.join(file), value);
        if self.has("memory")
            && let Some(memory) = limits.memory_bytes
        {
            // The sum with swap is checked against memory at every write: memory goes first.
            write("memory.limit_in_bytes", &memory.to_string())?;
            let sum = self.path.join("memory.memsw.limit_in_bytes");
            if sum.exists() {
                let total = match limits.swap_bytes(memory) {
                    Some(swap) => memory.saturating_add(swap).to_string(),
                    None => "-1".to_owned(),
                };
                super::write(&sum, &total)?;
            } else if limits.memory_swap_bytes.is_some() {
                tracing::warn!("this kernel does not count swap: memory is limited without it");
            }
        }
        if self.has("cpu") {
            if let Some(shares) = limits.cpu_shares {
                write("cpu.shares", &shares.to_string())?;
            }
            if let Some(quota) = limits.quota_micros() {
                write("cpu.cfs_period_us", &PERIOD_MICROS.to_string())?;
                write("cpu.cfs_quota_us", &quota.to_string())?;
            }
        }
        if self.has("pids")
            && let Some(pids) = limits.pids
        {
            write("pids.max", &pids.to_string())?;
        }
        Ok(())
    }

    pub(super) fn restrict_devices(&self) -> Result<(), CgroupError> {
        super::write(&self.path.join("devices.deny"), "a")?;
        for device in DEVICES {
            super::write(&self.path.join("devices.allow"), device)?;
        }
        Ok(())
    }

    /// Frozen, so that no process forks between being listed and being killed; then thawed, since
    /// a v1 freezer holds back even SIGKILL.
    pub(super) fn kill(&self) -> Result<(), CgroupError> {
        let frozen = self.has("freezer") && self.freeze().is_ok();
        let mut pids = Vec::new();
        // Without a freezer a fork bomb can outrun one pass; a few passes with nobody new end it.
        for _ in 0..if frozen { 1 } else { 16 } {
            pids.clear();
            super::collect_processes(&self.path, &mut pids)?;
            if pids.is_empty() {
                break;
            }
            super::kill_processes(&pids);
        }
        if frozen && self.path.exists() { self.thaw() } else { Ok(()) }
    }

    pub(super) fn freeze(&self) -> Result<(), CgroupError> {
        let path = self.path.join("freezer.state");
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Written again each time: a process that forks meanwhile is only caught by the next write.
            super::write(&path, "FROZEN")?;
            match super::read(&path)? {
                Some(state) if state.trim_end() == "FROZEN" => return Ok(()),
                Some(_) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                _ => {
                    let _ = self.thaw();
                    return Err(CgroupError::NotFrozen { path: self.path.clone() });
                }
            }
        }
    }

    pub(super) fn thaw(&self) -> Result<(), CgroupError> {
        super::write(&self.path.join("freezer.state"), "THAWED")
    }
}
