//! Control groups: where a container's processes are counted, limited, frozen and killed.
//!
//! Three machines exist, and one [`Cgroup`] covers them:
//!
//! * **v2**: one tree has all controllers;
//! * **hybrid**: a v2 tree with few or no controllers beside one v1 tree per controller;
//! * **v1**: no v2 tree at all.
//!
//! Where a v2 tree exists, every container gets a directory in it, with or without controllers:
//! it costs nothing to be cloned into (`CLONE_INTO_CGROUP`), and kill, freeze, events, CPU time
//! and device filters work without any controller. Joining a *v1* group sleeps 11–15 ms for an
//! RCU grace period, so on a hybrid machine a v1 directory exists only for a limit that was asked
//! for. With no v2 tree that price is paid anyway, and all v1 controllers are joined at once.
//!
//! Groups are named `abax/ID` from the top of each tree as this process sees it, not below the
//! group that this process is in: a container must neither count against its starter's limits nor
//! end with the starter's service unit, and whoever sweeps has one place to look.
//! (`cgroupfs` drivers of other runtimes do the same.)

mod stats;
mod v1;
mod v2;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub use stats::Usage;

/// How long [`Cgroup::remove`] and [`Cgroup::freeze`] wait for the kernel.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which control group trees this machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One v1 tree per controller and no v2 tree.
    V1,
    /// One v2 tree and no v1 controller.
    V2,
    /// A v2 tree beside v1 controllers.
    Hybrid,
}

/// The control group trees as they are mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where the v2 tree is mounted.
    unified: Option<PathBuf>,
    /// v1 controller → mount point; two controllers may share one.
    controllers: BTreeMap<String, PathBuf>,
}

impl Hierarchy {
    /// The trees of this machine, read from `/proc/self/mountinfo` once per process.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Detect`] where `/proc` cannot be read, [`CgroupError::NoHierarchy`] where
    /// nothing is mounted.
    pub fn detect() -> Result<&'static Self, CgroupError> {
        static DETECTED: OnceLock<Hierarchy> = OnceLock::new();
        if let Some(hierarchy) = DETECTED.get() {
            return Ok(hierarchy);
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo")
            .map_err(|source| CgroupError::Detect { source })?;
        let hierarchy = Self::parse(&mounts);
        if hierarchy.unified.is_none() && hierarchy.controllers.is_empty() {
            return Err(CgroupError::NoHierarchy);
        }
        Ok(DETECTED.get_or_init(|| hierarchy))
    }

    /// The trees that a mount table shows: proc_pid_mountinfo(5).
    ///
    /// The first mount of a tree counts; later ones are copies elsewhere.
    pub fn parse(mountinfo: &str) -> Self {
        let mut hierarchy = Self { unified: None, controllers: BTreeMap::new() };
        for line in mountinfo.lines() {
            let Some((mount, system)) = line.split_once(" - ") else { continue };
            let Some(point) = mount.split(' ').nth(4) else { continue };
            let point = PathBuf::from(unescape(point));
            let mut system = system.split(' ');
            match system.next() {
                Some("cgroup2") if hierarchy.unified.is_none() => hierarchy.unified = Some(point),
                Some("cgroup") => {
                    for option in system.nth(1).unwrap_or_default().split(',') {
                        if v1::CONTROLLERS.contains(&option) {
                            let controllers = &mut hierarchy.controllers;
                            controllers.entry(option.to_owned()).or_insert_with(|| point.clone());
                        }
                    }
                }
                _ => {}
            }
        }
        hierarchy
    }

    /// Which of the three kinds of machine this is.
    pub fn layout(&self) -> Layout {
        match (&self.unified, self.controllers.is_empty()) {
            (None, _) => Layout::V1,
            (Some(_), true) => Layout::V2,
            (Some(_), false) => Layout::Hybrid,
        }
    }
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(field.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// What a container may use. The default asks for no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Memory *plus* swap in bytes, -1 for any amount of swap. Needs `memory_bytes`; without it
    /// a container with a memory limit may swap as much again, as with Docker.
    pub memory_swap_bytes: Option<i64>,
    /// Processor time, in billionths of one processor.
    pub nano_cpus: Option<u64>,
    /// Share of the processors against other containers when all are busy: 2 to 262144, 1024 is par.
    pub cpu_shares: Option<u64>,
    /// Number of processes and threads.
    pub pids: Option<u64>,
}

impl Limits {
    /// The controllers that these limits need, as both versions name them.
    fn controllers(&self) -> impl Iterator<Item = &'static str> {
        [
            ("memory", self.memory_bytes.is_some()),
            ("cpu", self.nano_cpus.is_some() || self.cpu_shares.is_some()),
            ("pids", self.pids.is_some()),
        ]
        .into_iter()
        .filter_map(|(controller, asked)| asked.then_some(controller))
    }

    /// What swap may add to memory: `None` is any amount.
    fn swap_bytes(&self, memory_bytes: u64) -> Option<u64> {
        match self.memory_swap_bytes {
            None => Some(memory_bytes),
            Some(total) => {
                u64::try_from(total).ok().map(|total| total.saturating_sub(memory_bytes))
            }
        }
    }

    /// Time slice per [`PERIOD_MICROS`], in microseconds; the kernel takes no less than 1 ms.
    fn quota_micros(&self) -> Option<u64> {
        self.nano_cpus.map(|nano| (nano / (1_000_000_000 / PERIOD_MICROS)).max(1_000))
    }

    fn check(&self) -> Result<(), CgroupError> {
        let invalid = |limit, reason| Err(CgroupError::InvalidLimit { limit, reason });
        match (self.memory_bytes, self.memory_swap_bytes) {
            (Some(0), _) => return invalid("memory", "it must be more than 0"),
            (None, Some(_)) => {
                return invalid("memory and swap", "it needs a memory limit as well");
            }
            (Some(memory), Some(total))
                if u64::try_from(total).is_ok_and(|total| total < memory) =>
            {
                return invalid(
                    "memory and swap",
                    "it is the sum, so it cannot be less than memory",
                );
            }
            (Some(_), Some(total)) if total < -1 => {
                return invalid("memory and swap", "the only negative value is -1, for any amount");
            }
            _ => {}
        }
        if self.nano_cpus == Some(0) {
            return invalid("processor", "it must be more than 0");
        }
        if self.cpu_shares.is_some_and(|shares| !(2..=262_144).contains(&shares)) {
            return invalid("processor share", "it must be between 2 and 262144");
        }
        if self.pids == Some(0) {
            return invalid("process", "it must be more than 0");
        }
        Ok(())
    }
}

/// The period in which a processor quota is used up and filled again, in microseconds.
const PERIOD_MICROS: u64 = 100_000;

/// What could not be done with a control group.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum CgroupError {
    #[error("could not read which control groups are mounted")]
    Detect { source: io::Error },
    #[error("no control groups are mounted under /sys/fs/cgroup")]
    NoHierarchy,
    #[error("{name:?} is no name for a control group")]
    Name { name: String },
    #[error("the {limit} limit is not valid: {reason}")]
    InvalidLimit { limit: &'static str, reason: &'static str },
    #[error("this machine has no {controller} controller, so a limit on it cannot be kept")]
    NoController { controller: &'static str },
    #[error(
        "could not turn on the {controller} controller in {}; where processes sit in that group, move them to a group below it", path.display()
    )]
    Enable { controller: &'static str, path: PathBuf, source: io::Error },
    #[error("could not create control group {}", path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error("could not write {value:?} to {}", path.display())]
    Write { path: PathBuf, value: String, source: io::Error },
    #[error("could not read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("could not restrict devices in {}", path.display())]
    Devices { path: PathBuf, source: io::Error },
    #[error("processes in {} did not freeze in time", path.display())]
    NotFrozen { path: PathBuf },
    #[error("could not remove control group {}", path.display())]
    Remove { path: PathBuf, source: io::Error },
}

/// One container's control groups, in all trees that it is in.
///
/// Dropping it leaves them where they are: a container outlives the process that made it.
/// [`Cgroup::remove`] ends them.
#[derive(Debug)]
pub struct Cgroup {
    name: String,
    unified: Option<v2::Group>,
    /// One per v1 tree, each mount point once.
    legacy: Vec<v1::Group>,
}

impl Cgroup {
    /// Makes group `name` (such as `abax/ID`) with all limits in place before anybody joins.
    ///
    /// What is left when this fails is removed again.
    ///
    /// # Errors
    ///
    /// [`CgroupError::NoController`] where a limit cannot be kept here, [`CgroupError::InvalidLimit`]
    /// where it makes no sense, and what the kernel refused.
    pub fn create(name: &str, limits: &Limits) -> Result<Self, CgroupError> {
        Self::create_in(Hierarchy::detect()?, name, limits)
    }

    /// [`Cgroup::create`] in the given trees.
    ///
    /// # Errors
    ///
    /// As [`Cgroup::create`].
    pub fn create_in(
        hierarchy: &Hierarchy,
        name: &str,
        limits: &Limits,
    ) -> Result<Self, CgroupError> {
        check_name(name)?;
        limits.check()?;
        let mut group = Self { name: name.to_owned(), unified: None, legacy: Vec::new() };
        match group.fill(hierarchy, limits) {
            Ok(()) => Ok(group),
            Err(error) => {
                // The first failure is the one to tell; nobody has joined, so nothing holds the directories.
                let _ = group.remove();
                Err(error)
            }
        }
    }

    fn fill(&mut self, hierarchy: &Hierarchy, limits: &Limits) -> Result<(), CgroupError> {
        let mut unified = Vec::new();
        let mut legacy = BTreeSet::new();
        for controller in limits.controllers() {
            match hierarchy.controllers.get(controller) {
                Some(mount) => _ = legacy.insert(mount),
                None if hierarchy.unified.is_some() => unified.push(controller),
                None => return Err(CgroupError::NoController { controller }),
            }
        }
        if hierarchy.unified.is_none() {
            legacy.extend(hierarchy.controllers.values());
        }
        if let Some(mount) = &hierarchy.unified {
            let group = self.unified.insert(v2::Group::create(mount, &self.name, &unified)?);
            group.limit(limits, &unified)?;
        }
        for mount in legacy {
            let controllers = controllers_of(hierarchy, mount);
            self.legacy.push(v1::Group::create(mount, &self.name, controllers)?);
            self.legacy.last().expect("pushed just now").limit(limits)?;
        }
        Ok(())
    }

    /// Finds what exists of group `name`, such as after the process that made it was killed.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Name`], or the trees cannot be told. A group that is gone is no error: it
    /// is empty, unused and [removed](Cgroup::remove) without effect.
    pub fn open(name: &str) -> Result<Self, CgroupError> {
        Self::open_in(Hierarchy::detect()?, name)
    }

    /// [`Cgroup::open`] in the given trees.
    ///
    /// # Errors
    ///
    /// As [`Cgroup::open`].
    pub fn open_in(hierarchy: &Hierarchy, name: &str) -> Result<Self, CgroupError> {
        check_name(name)?;
        let unified = match &hierarchy.unified {
            Some(mount) => v2::Group::open(mount, name)?,
            None => None,
        };
        let mounts: BTreeSet<_> = hierarchy.controllers.values().collect();
        let legacy = mounts
            .into_iter()
            .filter_map(|mount| v1::Group::open(mount, name, controllers_of(hierarchy, mount)))
            .collect();
        Ok(Self { name: name.to_owned(), unified, legacy })
    }

    /// Groups right below `prefix` in any tree, as names for [`Cgroup::open`], sorted.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Read`]: a directory cannot be listed.
    pub fn list(prefix: &str) -> Result<Vec<String>, CgroupError> {
        check_name(prefix)?;
        let hierarchy = Hierarchy::detect()?;
        let mut names = BTreeSet::new();
        for mount in hierarchy.unified.iter().chain(hierarchy.controllers.values()) {
            let directory = mount.join(prefix);
            for child in children(&directory)? {
                let name = child.file_name().expect("a listed directory has a name");
                names.insert(format!("{prefix}/{}", name.to_string_lossy()));
            }
        }
        Ok(names.into_iter().collect())
    }

    /// The name that it was made with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The v2 directory, for `CLONE_INTO_CGROUP`; `None` on a machine without a v2 tree.
    pub fn unified_fd(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(|group| group.directory())
    }

    /// True where [`Cgroup::join`] has work to do for a process that was cloned into
    /// [`Cgroup::unified_fd`]: it then sleeps 11–15 ms when nothing joined a v1 group shortly before.
    pub fn has_legacy(&self) -> bool {
        !self.legacy.is_empty()
    }

    /// Moves process `pid` (0: the caller) into every tree that it is not in yet.
    ///
    /// All writes follow one another at once: only the first one waits for the kernel.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Write`]; `ESRCH` below it: the process has ended.
    pub fn join(&self, pid: libc::pid_t) -> Result<(), CgroupError> {
        let pid_text = pid.to_string();
        for group in &self.legacy {
            write(&group.path.join("cgroup.procs"), &pid_text)?;
        }
        match &self.unified {
            // A move to where the process is already would still wait for the grace period.
            Some(group) if !is_in_unified(pid, &self.name) => {
                write(&group.path.join("cgroup.procs"), &pid_text)
            }
            _ => Ok(()),
        }
    }

    /// Lets processes of this group open no device but Docker's default ones; they may make nodes of any.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Devices`]: the kernel refused the filter, or there is neither a v2 tree nor
    /// a v1 `devices` controller.
    pub fn restrict_devices(&self) -> Result<(), CgroupError> {
        if let Some(group) = &self.unified {
            return group.restrict_devices();
        }
        match self.legacy.iter().find(|group| group.has("devices")) {
            Some(group) => group.restrict_devices(),
            None => Err(CgroupError::NoController { controller: "devices" }),
        }
    }

    /// Sends SIGKILL to every process in the group and below; returns before they are gone.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Write`] or [`CgroupError::Read`]. Nobody there, or no group any more, is fine.
    pub fn kill(&self) -> Result<(), CgroupError> {
        if let Some(group) = &self.unified {
            return group.kill();
        }
        match self.legacy.iter().find(|group| group.has("freezer")).or(self.legacy.first()) {
            Some(group) => group.kill(),
            None => Ok(()),
        }
    }

    /// Stops every process in the group where it is; returns when all have stopped.
    ///
    /// # Errors
    ///
    /// [`CgroupError::NotFrozen`]: a process sits in an uninterruptible call for longer than ten seconds.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        match (&self.unified, self.legacy.iter().find(|group| group.has("freezer"))) {
            (Some(group), _) => group.freeze(),
            (None, Some(group)) => group.freeze(),
            (None, None) => Err(CgroupError::NoController { controller: "freezer" }),
        }
    }

    /// Lets frozen processes go on.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Write`]: the group is gone.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        match (&self.unified, self.legacy.iter().find(|group| group.has("freezer"))) {
            (Some(group), _) => group.thaw(),
            (None, Some(group)) => group.thaw(),
            (None, None) => Err(CgroupError::NoController { controller: "freezer" }),
        }
    }

    /// Processes in the group, those of groups below included.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Read`]. A group that is gone has none.
    pub fn processes(&self) -> Result<Vec<libc::pid_t>, CgroupError> {
        let path = match (&self.unified, self.legacy.first()) {
            (Some(group), _) => &group.path,
            (None, Some(group)) => &group.path,
            (None, None) => return Ok(Vec::new()),
        };
        let mut pids = Vec::new();
        collect_processes(path, &mut pids)?;
        Ok(pids)
    }

    /// True once the kernel has killed a process of this group because its memory limit was reached.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Read`]. Where memory is not counted for this group, nothing was killed for it.
    pub fn oom_killed(&self) -> Result<bool, CgroupError> {
        if let Some(group) = self.legacy.iter().find(|group| group.has("memory")) {
            return stats::counter(&group.path.join("memory.oom_control"), "oom_kill")
                .map(|n| n > Some(0));
        }
        match &self.unified {
            Some(group) => {
                stats::counter(&group.path.join("memory.events"), "oom_kill").map(|n| n > Some(0))
            }
            None => Ok(false),
        }
    }

    /// What the group has used so far; [`Usage`] says what is missing where nothing counts it.
    pub fn usage(&self) -> Usage {
        stats::usage(self)
    }

    /// Removes the group and those below it once they are empty, waiting for that up to ten seconds.
    /// Call [`Cgroup::kill`] before. What is gone already is fine.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Remove`] with `EBUSY`: processes are still in it.
    pub fn remove(self) -> Result<(), CgroupError> {
        let deadline = Instant::now() + PATIENCE;
        for group in &self.legacy {
            remove_tree(&group.path, deadline)?;
        }
        match &self.unified {
            Some(group) => remove_tree(&group.path, deadline),
            None => Ok(()),
        }
    }
}

fn controllers_of(hierarchy: &Hierarchy, mount: &Path) -> Vec<String> {
    hierarchy
        .controllers
        .iter()
        .filter(|(_, point)| *point == mount)
        .map(|(controller, _)| controller.clone())
        .collect()
}

/// A name is a relative path of plain words, so that it cannot leave the tree.
fn check_name(name: &str) -> Result<(), CgroupError> {
    let plain = |word: &str| {
        !word.is_empty()
            && !word.starts_with('.')
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    if name.split('/').all(plain) && name.len() <= 1024 {
        Ok(())
    } else {
        Err(CgroupError::Name { name: name.to_owned() })
    }
}

/// Whether `pid` is in v2 group `name` already: cgroups(7), /proc/PID/cgroup.
fn is_in_unified(pid: libc::pid_t, name: &str) -> bool {
    let path =
        if pid == 0 { "/proc/self/cgroup".to_owned() } else { format!("/proc/{pid}/cgroup") };
    fs::read_to_string(path).is_ok_and(|groups| {
        groups.lines().any(|line| line.strip_prefix("0::/").is_some_and(|path| path == name))
    })
}

/// Makes `mount/name`, with what is above it where that is missing.
fn create_directory(mount: &Path, name: &str) -> Result<PathBuf, CgroupError> {
    let path = mount.join(name);
    let created = fs::create_dir(&path).or_else(|error| match (error.kind(), path.parent()) {
        (io::ErrorKind::NotFound, Some(parent)) => {
            fs::create_dir_all(parent)?;
            fs::create_dir(&path)
        }
        _ => Err(error),
    });
    match created {
        Ok(()) => Ok(path),
        Err(source) => Err(CgroupError::Create { path, source }),
    }
}

/// Writes one value in one write(2), as control files want it.
fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    use std::io::Write as _;
    fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(|source| CgroupError::Write {
            path: path.to_owned(),
            value: value.to_owned(),
            source,
        })
}

/// The file's text, `None` where the file or its group is gone.
fn read(path: &Path) -> Result<Option<String>, CgroupError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(source) => Err(CgroupError::Read { path: path.to_owned(), source }),
    }
}

/// A group removed under an open file answers ENODEV.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

fn children(path: &Path) -> Result<Vec<PathBuf>, CgroupError> {
    let failed = |source| CgroupError::Read { path: path.to_owned(), source };
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        Err(source) => return Err(failed(source)),
    };
    let mut directories = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            directories.push(entry.path());
        }
    }
    Ok(directories)
}

fn collect_processes(path: &Path, pids: &mut Vec<libc::pid_t>) -> Result<(), CgroupError> {
    if let Some(text) = read(&path.join("cgroup.procs"))? {
        pids.extend(text.lines().filter_map(|line| line.parse::<libc::pid_t>().ok()));
    }
    for child in children(path)? {
        collect_processes(&child, pids)?;
    }
    Ok(())
}

/// Removes a group and what is below it. The kernel says EBUSY while a process is in it (a killed
/// one leaves shortly after), and while a group below exists (a container may have made some).
fn remove_tree(path: &Path, deadline: Instant) -> Result<(), CgroupError> {
    let mut pause = Duration::from_micros(200);
    let mut retried = false;
    loop {
        let error = match fs::remove_dir(path) {
            Ok(()) => return Ok(()),
            Err(error) if is_gone(&error) => return Ok(()),
            Err(error) => error,
        };
        if error.raw_os_error() != Some(libc::EBUSY) || Instant::now() >= deadline {
            return Err(CgroupError::Remove { path: path.to_owned(), source: error });
        }
        for child in children(path)? {
            remove_tree(&child, deadline)?;
        }
        // v1 has no event for this, and v2 may stay busy for a moment after the last process left.
        if !v2::wait_for_event(path, "populated 0", deadline) || retried {
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
        retried = true;
    }
}

/// Opens a directory for use as a descriptor of the group.
fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    fs::File::open(path).map(OwnedFd::from)
}

/// Sends SIGKILL to all `pids`; one that has ended meanwhile is fine.
fn kill_processes(pids: &[libc::pid_t]) {
    for pid in pids {
        // EPERM cannot happen to root, ESRCH means that it is gone.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), nix::sys::signal::SIGKILL);
    }
}

/// A borrowed view of an owned descriptor, so that groups can keep theirs private.
fn borrowed(fd: &OwnedFd) -> BorrowedFd<'_> {
    fd.as_fd()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_tables_tell_the_kind_of_machine() {
        let v2 = "31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate";
        let v1 = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                  33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                  40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd";
        let hybrid = format!("{v1}\n41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw");
        for (table, layout) in [(v2, Layout::V2), (v1, Layout::V1), (&hybrid, Layout::Hybrid)] {
            assert_eq!(Hierarchy::parse(table).layout(), layout, "{table}");
        }
        let parsed = Hierarchy::parse(v1);
        assert_eq!(parsed.controllers["cpu"], parsed.controllers["cpuacct"], "both share a mount");
        assert_eq!(
            controllers_of(&parsed, Path::new("/sys/fs/cgroup/cpu,cpuacct")),
            ["cpu", "cpuacct"]
        );
        assert!(!parsed.controllers.contains_key("name=systemd"), "named trees control nothing");
    }

    #[test]
    fn escaped_mount_points_are_read_back() {
        let table = "41 31 0:38 / /odd\\040place rw shared:9 - cgroup2 cgroup2 rw";
        assert_eq!(Hierarchy::parse(table).unified.as_deref(), Some(Path::new("/odd place")));
    }

    #[test]
    fn names_cannot_leave_the_tree() {
        for (name, valid) in [
            ("abax/0123abc", true),
            ("abax", true),
            ("abax-test.1/x_y", true),
            ("", false),
            ("/abax", false),
            ("abax/", false),
            ("abax/../other", false),
            ("abax/.hidden", false),
            ("a b", false),
        ] {
            assert_eq!(check_name(name).is_ok(), valid, "{name:?}");
        }
    }

    #[test]
    fn limits_that_make_no_sense_are_refused() {
        let none = Limits::default();
        for (limits, valid) in [
            (none, true),
            (Limits { memory_bytes: Some(1 << 20), ..none }, true),
            (Limits { memory_bytes: Some(0), ..none }, false),
            (Limits { memory_swap_bytes: Some(1 << 20), ..none }, false),
            (Limits { memory_bytes: Some(2), memory_swap_bytes: Some(1), ..none }, false),
            (Limits { memory_bytes: Some(2), memory_swap_bytes: Some(-1), ..none }, true),
            (Limits { memory_bytes: Some(2), memory_swap_bytes: Some(-2), ..none }, false),
            (Limits { nano_cpus: Some(0), ..none }, false),
            (Limits { cpu_shares: Some(1), ..none }, false),
            (Limits { pids: Some(0), ..none }, false),
        ] {
            assert_eq!(limits.check().is_ok(), valid, "{limits:?}");
        }
    }

    #[test]
    fn processor_limits_become_microseconds_of_a_period() {
        for (nano, quota) in [(1_500_000_000, 150_000), (250_000_000, 25_000), (1, 1_000)] {
            assert_eq!(
                Limits { nano_cpus: Some(nano), ..Limits::default() }.quota_micros(),
                Some(quota)
            );
        }
    }

    #[test]
    fn swap_is_what_the_sum_leaves() {
        for (total, swap) in
            [(None, Some(100)), (Some(100), Some(0)), (Some(150), Some(50)), (Some(-1), None)]
        {
            let limits =
                Limits { memory_bytes: Some(100), memory_swap_bytes: total, ..Limits::default() };
            assert_eq!(limits.swap_bytes(100), swap, "{total:?}");
        }
    }
}
