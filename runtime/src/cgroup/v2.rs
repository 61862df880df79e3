//! Version 2: one tree, controllers handed down by `cgroup.subtree_control`. cgroups(7); kernel
//! documentation, cgroup-v2.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{CgroupError, Limits, PATIENCE, PERIOD_MICROS};
use crate::sys;

/// Controllers that every group gets where the tree has them: being counted costs nothing here.
const WANTED: [&str; 4] = ["memory", "cpu", "pids", "io"];

/// A group in the v2 tree.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) path: PathBuf,
    directory: OwnedFd,
}

impl Group {
    /// Makes the group, with the controllers in `required` and any other wanted one on.
    pub(super) fn create(
        mount: &Path,
        name: &str,
        required: &[&'static str],
    ) -> Result<Self, CgroupError> {
        let path = super::create_directory(mount, name)?;
        let created = enable_controllers(mount, name, required).and_then(|()| {
            super::open_directory(&path)
                .map_err(|source| CgroupError::Create { path: path.clone(), source })
        });
        match created {
            Ok(directory) => Ok(Self { path, directory }),
            Err(error) => {
                // Nobody is in it; the failure above is the one to tell.
                let _ = fs::remove_dir(&path);
                Err(error)
            }
        }
    }

    pub(super) fn open(mount: &Path, name: &str) -> Result<Option<Self>, CgroupError> {
        let path = mount.join(name);
        match super::open_directory(&path) {
            Ok(directory) => Ok(Some(Self { path, directory })),
            Err(error) if super::is_gone(&error) => Ok(None),
            Err(source) => Err(CgroupError::Read { path, source }),
        }
    }

    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        super::borrowed(&self.directory)
    }

    /// Writes the limits of those controllers that this tree keeps.
    pub(super) fn limit(&self, limits: &Limits, controllers: &[&str]) -> Result<(), CgroupError> {
        for (controller, file, value) in settings(limits) {
            if !controllers.contains(&controller) {
                continue;
            }
            let path = self.path.join(file);
            if file == "memory.swap.max" && !path.exists() {
                if limits.memory_swap_bytes.is_some() {
                    tracing::warn!("this kernel does not count swap: memory is limited without it");
                }
                continue;
            }
            super::write(&path, &value)?;
        }
        Ok(())
    }

    pub(super) fn restrict_devices(&self) -> Result<(), CgroupError> {
        let failed = |source| CgroupError::Devices { path: self.path.clone(), source };
        sys::bpf_attach_device_program(self.directory(), device_program().map_err(failed)?)
            .map_err(failed)
    }

    pub(super) fn kill(&self) -> Result<(), CgroupError> {
        match super::write(&self.path.join("cgroup.kill"), "1") {
            Ok(()) => Ok(()),
            // No such file: the group is gone, or the kernel is older than 5.14.
            Err(CgroupError::Write { source, .. }) if super::is_gone(&source) => {
                self.kill_one_by_one()
            }
            Err(error) => Err(error),
        }
    }

    /// As `cgroup.kill`, for kernels without it: stopped first, so that none forks while being listed.
    fn kill_one_by_one(&self) -> Result<(), CgroupError> {
        if !self.path.exists() {
            return Ok(());
        }
        let _ = self.freeze();
        let mut pids = Vec::new();
        super::collect_processes(&self.path, &mut pids)?;
        super::kill_processes(&pids);
        match self.thaw() {
            Err(CgroupError::Write { source, .. }) if super::is_gone(&source) => Ok(()),
            result => result,
        }
    }

    pub(super) fn freeze(&self) -> Result<(), CgroupError> {
        super::write(&self.path.join("cgroup.freeze"), "1")?;
        if wait_for_event(&self.path, "frozen 1", Instant::now() + PATIENCE) {
            return Ok(());
        }
        let _ = self.thaw();
        Err(CgroupError::NotFrozen { path: self.path.clone() })
    }

    pub(super) fn thaw(&self) -> Result<(), CgroupError> {
        super::write(&self.path.join("cgroup.freeze"), "0")
    }
}

/// The files that hold `limits`, each with its controller and value.
fn settings(limits: &Limits) -> Vec<(&'static str, &'static str, String)> {
    let mut settings = Vec::new();
    if let Some(memory) = limits.memory_bytes {
        let swap = limits.swap_bytes(memory);
        settings.push(("memory", "memory.max", memory.to_string()));
        settings.push((
            "memory",
            "memory.swap.max",
            swap.map_or_else(|| "max".to_owned(), |swap| swap.to_string()),
        ));
    }
    if let Some(shares) = limits.cpu_shares {
        settings.push(("cpu", "cpu.weight", weight(shares).to_string()));
    }
    if let Some(quota) = limits.quota_micros() {
        settings.push(("cpu", "cpu.max", format!("{quota} {PERIOD_MICROS}")));
    }
    if let Some(pids) = limits.pids {
        settings.push(("pids", "pids.max", pids.to_string()));
    }
    settings
}

/// v1 shares (2 to 262144) on the scale of v2 weights (1 to 10000), as the OCI runtimes map them.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

/// Turns controllers on in every group above `mount/name`, top down.
///
/// A group other than the root of all cannot hand controllers down while processes sit in it
/// ("no internal processes"): the kernel then says EBUSY, and so do we, with the group's path.
/// Our own parent group never has processes.
fn enable_controllers(
    mount: &Path,
    name: &str,
    required: &[&'static str],
) -> Result<(), CgroupError> {
    let available = super::read(&mount.join("cgroup.controllers"))?.unwrap_or_default();
    let has = |list: &str, controller: &str| list.split_whitespace().any(|word| word == controller);
    if let Some(controller) = required.iter().find(|controller| !has(&available, controller)) {
        return Err(CgroupError::NoController { controller });
    }
    let wanted: Vec<_> =
        WANTED.into_iter().filter(|controller| has(&available, controller)).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let mut parent = mount.to_owned();
    let mut words = name.split('/');
    loop {
        let file = parent.join("cgroup.subtree_control");
        let on = super::read(&file)?.unwrap_or_default();
        for controller in wanted.iter().copied().filter(|controller| !has(&on, controller)) {
            match super::write(&file, &format!("+{controller}")) {
                Err(CgroupError::Write { source, .. }) if required.contains(&controller) => {
                    return Err(CgroupError::Enable { controller, path: parent, source });
                }
                // One that no limit needs is only for counting.
                _ => {}
            }
        }
        match words.next() {
            Some(word) => parent.push(word),
            None => break,
        }
        if parent == mount.join(name) {
            break;
        }
    }
    Ok(())
}

/// Waits until `cgroup.events` of the group at `path` has this line; false when it does not in
/// time or when there is no such file. The kernel raises POLLPRI whenever a line changes.
pub(super) fn wait_for_event(path: &Path, line: &str, deadline: Instant) -> bool {
    use std::io::{Read as _, Seek as _};
    let Ok(mut events) = fs::File::open(path.join("cgroup.events")) else { return false };
    loop {
        let mut text = String::new();
        if events.rewind().is_err() || events.read_to_string(&mut text).is_err() {
            return false;
        }
        if text.lines().any(|found| found == line) {
            return true;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        // A signal ends the wait early, and the loop looks again.
        let _ = poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)], timeout);
    }
}

/// The device filter, loaded once per process: attaching is all that a container costs.
fn device_program() -> std::io::Result<BorrowedFd<'static>> {
    static PROGRAM: OnceLock<OwnedFd> = OnceLock::new();
    if let Some(program) = PROGRAM.get() {
        return Ok(program.as_fd());
    }
    let loaded = sys::bpf_load_device_program(&device_instructions())?;
    Ok(PROGRAM.get_or_init(|| loaded).as_fd())
}

/// Docker's default character devices, all with read, write and mknod; `None` is any minor number.
const DEVICES: [(i32, Option<i32>); 9] = [
    (1, Some(3)), // null
    (1, Some(5)), // zero
    (1, Some(7)), // full
    (1, Some(8)), // random
    (1, Some(9)), // urandom
    (5, Some(0)), // tty
    (5, Some(1)), // console
    (5, Some(2)), // ptmx
    (136, None),  // pts
];

/// The filter over `struct bpf_cgroup_dev_ctx { access << 16 | type, major, minor }`: 1 allows.
///
/// Making a node of any device is allowed: the node is of no use where opening it is not.
fn device_instructions() -> Vec<sys::Instruction> {
    const LOAD_WORD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
    const MOVE_REGISTER: u8 = 0xbf; // BPF_ALU64 | BPF_MOV | BPF_X
    const MOVE: u8 = 0xb7; // BPF_ALU64 | BPF_MOV | BPF_K
    const AND: u8 = 0x57; // BPF_ALU64 | BPF_AND | BPF_K
    const SHIFT_RIGHT: u8 = 0x77; // BPF_ALU64 | BPF_RSH | BPF_K
    const JUMP_UNLESS: u8 = 0x55; // BPF_JMP | BPF_JNE | BPF_K
    const EXIT: u8 = 0x95; // BPF_JMP | BPF_EXIT
    const MKNOD: i32 = 1; // BPF_DEVCG_ACC_MKNOD
    const CHARACTER: i32 = 2; // BPF_DEVCG_DEV_CHAR
    let (result, context, kind, access, major, minor) = (0u8, 1u8, 2u8, 3u8, 4u8, 5u8);

    let instruction = |code: u8, to: u8, from: u8, offset: i16, value: i32| {
        let registers =
            if cfg!(target_endian = "little") { from << 4 | to } else { to << 4 | from };
        let mut bytes = [code, registers, 0, 0, 0, 0, 0, 0];
        bytes[2..4].copy_from_slice(&offset.to_ne_bytes());
        bytes[4..8].copy_from_slice(&value.to_ne_bytes());
        bytes
    };
    let answer = |value| [instruction(MOVE, result, 0, 0, value), instruction(EXIT, 0, 0, 0, 0)];

    let mut program = vec![
        instruction(LOAD_WORD, kind, context, 0, 0),
        instruction(LOAD_WORD, major, context, 4, 0),
        instruction(LOAD_WORD, minor, context, 8, 0),
        instruction(MOVE_REGISTER, access, kind, 0, 0),
        instruction(SHIFT_RIGHT, access, 0, 0, 16),
        instruction(AND, kind, 0, 0, 0xffff),
        // Only mknod, without reading or writing.
        instruction(JUMP_UNLESS, access, 0, 2, MKNOD),
    ];
    program.extend(answer(1));
    for (device_major, device_minor) in DEVICES {
        // Each rule answers by itself; a jump leads to the rule after it.
        let rest = if device_minor.is_some() { 3 } else { 2 };
        program.push(instruction(JUMP_UNLESS, kind, 0, rest + 1, CHARACTER));
        program.push(instruction(JUMP_UNLESS, major, 0, rest, device_major));
        if let Some(device_minor) = device_minor {
            program.push(instruction(JUMP_UNLESS, minor, 0, 2, device_minor));
        }
        program.extend(answer(1));
    }
    program.extend(answer(0));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights() {
        for (shares, expected) in
            [(2, 1), (1024, 39), (262_144, 10_000), (0, 1), (u64::MAX, 10_000)]
        {
            assert_eq!(weight(shares), expected, "{shares}");
        }
    }

    #[test]
    fn limits_become_control_files() {
        let limits = Limits {
            memory_bytes: Some(64 << 20),
            memory_swap_bytes: Some(-1),
            nano_cpus: Some(500_000_000),
            cpu_shares: Some(512),
            pids: Some(10),
        };
        let files: Vec<_> = settings(&limits)
            .into_iter()
            .map(|(_, file, value)| format!("{file} = {value}"))
            .collect();
        assert_eq!(
            files,
            [
                "memory.max = 67108864",
                "memory.swap.max = max",
                "cpu.weight = 20",
                "cpu.max = 50000 100000",
                "pids.max = 10"
            ]
        );
        assert_eq!(settings(&Limits::default()), []);
    }
}
