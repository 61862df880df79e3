//! The child's half: from clone3 to execve, in order.
//!
//! The child is a copy of the single-threaded launcher, so it may allocate. It never returns.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use nix::sys::resource::Resource;
use nix::sys::signal::{SigSet, Signal};
use oci_spec::runtime::{LinuxNamespaceType, PosixRlimitType, Process, Spec};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, WaitOptions};

use super::handshake::{At, Channel, Failure, FromInit, Go, Launch, Role, Step};
use super::launcher::{Descriptors, IdMapping};
use super::rootfs;
use super::spec::UNPRIVILEGED_IDS;
use crate::security::capabilities::{self, CapabilitySet};
use crate::security::user;
use crate::snapshot::overlay::Overlay;
use crate::sys;
use crate::sys::process::{Cloned, SingleThreaded, clone3, exit_now};

/// `CLONE_NEW*` of the namespaces that the spec asks to be made, but for the cgroup namespace: its
/// root is where a process stands when it is made, so init enters it when it stands in its cgroups.
pub(super) fn namespaces(spec: &Spec) -> u64 {
    let wanted = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    let flags = wanted.into_iter().flatten().map(|namespace| match namespace.typ() {
        LinuxNamespaceType::Mount => libc::CLONE_NEWNS,
        LinuxNamespaceType::Uts => libc::CLONE_NEWUTS,
        LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC,
        LinuxNamespaceType::User => libc::CLONE_NEWUSER,
        LinuxNamespaceType::Pid => libc::CLONE_NEWPID,
        LinuxNamespaceType::Network => libc::CLONE_NEWNET,
        LinuxNamespaceType::Cgroup | LinuxNamespaceType::Time => 0,
    });
    flags.map(|flag| u64::from(flag.cast_unsigned())).fold(0, |all, flag| all | flag)
}

/// True where the spec asks for a namespace of this kind.
fn has_namespace(spec: &Spec, kind: LinuxNamespaceType) -> bool {
    let wanted = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    wanted.into_iter().flatten().any(|namespace| namespace.typ() == kind)
}

/// The id mapping of the spec's user namespace.
pub(super) fn id_mapping(spec: &Spec) -> Option<IdMapping> {
    if !has_namespace(spec, LinuxNamespaceType::User) {
        return None;
    }
    let map = spec.linux().as_ref()?.uid_mappings().as_ref()?.first()?;
    // One id of the host's may stand among these; layers are seen without it.
    Some(IdMapping { first: map.host_id(), count: UNPRIVILEGED_IDS })
}

/// The layers as one detached mount.
pub(super) fn overlay(launch: &Launch, lower: &[PathBuf]) -> Result<OwnedFd, Failure> {
    let root = &launch.root;
    Overlay { lower, upper: Some((&root.upper, &root.work)), volatile: root.volatile }
        .mount()
        .at(Step::Overlay)
}

/// Runs the child until it is the program, or has failed and said why.
///
/// `root` and `wait_for_maps` come with a user namespace; without one the child stacks its layers itself.
pub(super) fn run(
    launch: Launch,
    mut descriptors: Descriptors,
    root: Option<OwnedFd>,
    wait_for_maps: Option<OwnedFd>,
    single_threaded: &SingleThreaded,
    open_files: (u64, u64),
) -> ! {
    let Some(handshake) = descriptors.take(Role::Handshake).map(Channel::from_descriptor) else {
        exit_now(125)
    };
    // Unwinding would lead into the launcher's loop, in the wrong process.
    let failure = catch_unwind(AssertUnwindSafe(|| {
        let child = Child { launch, handshake: &handshake, single_threaded, open_files };
        match child.become_program(descriptors, root, wait_for_maps) {
            Ok(never) => match never {},
            Err(failure) => failure,
        }
    }));
    match failure {
        Ok(failure) => {
            let code = match &failure.step {
                Step::Execute(_) if failure.errno == libc::ENOENT => 127,
                Step::Execute(_) => 126,
                _ => 125,
            };
            let _ = handshake.send(&FromInit::Failed(failure), &[]);
            exit_now(code)
        }
        Err(_) => exit_now(125),
    }
}

/// Cannot exist.
enum Never {}

struct Child<'a> {
    launch: Launch,
    handshake: &'a Channel,
    single_threaded: &'a SingleThreaded,
    open_files: (u64, u64),
}

impl Child<'_> {
    fn become_program(
        &self,
        mut descriptors: Descriptors,
        root: Option<OwnedFd>,
        wait_for_maps: Option<OwnedFd>,
    ) -> Result<Never, Failure> {
        let spec = &self.launch.spec;
        let none = || io::Error::from_raw_os_error(libc::EINVAL);
        let process = spec.process().as_ref().ok_or_else(none).at(Step::Request)?;
        let in_user_namespace = wait_for_maps.is_some();

        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .at(Step::Session)?;
        let mount_point = rustix::fs::open(
            &self.launch.root.mount_point,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .at(Step::Pivot)?;
        if let Some(maps) = wait_for_maps {
            // One byte when the maps are written; the end of the pipe when the launcher could not.
            match rustix::io::read(&maps, &mut [0; 1]).at(Step::MapIds)? {
                1 => {
                    become_root().at(Step::Session)?;
                    // Changing the user cleared it: prctl(2).
                    rustix::process::set_parent_process_death_signal(Some(
                        rustix::process::Signal::KILL,
                    ))
                    .at(Step::Session)?;
                }
                _ => return Err(Failure::new(Step::MapIds, &io::ErrorKind::UnexpectedEof.into())),
            }
        }
        rustix::process::setsid().at(Step::Session)?;
        if has_namespace(spec, LinuxNamespaceType::Network) {
            open_to_everybody(in_user_namespace);
        }

        let root = match root {
            Some(root) => root,
            None => overlay(&self.launch, &self.launch.root.lower)?,
        };
        let prepared = rootfs::prepare(spec, &mut descriptors, in_user_namespace)?;
        rootfs::pivot(root.as_fd(), mount_point.as_fd())?;
        drop((root, mount_point));
        rootfs::attach(prepared, spec)?;

        if let Some(hostname) = spec.hostname() {
            rustix::system::sethostname(hostname.as_bytes()).at(Step::Hostname)?;
        }
        if has_namespace(spec, LinuxNamespaceType::Network) {
            sys::net::loopback_up().at(Step::Loopback)?;
        }
        self.limit_resources(process)?;
        let user = user::find(&self.launch.user).map_err(|error| Failure {
            step: Step::User(self.launch.user.clone()),
            errno: 0,
            detail: Some(error.to_string()),
        })?;
        let stdio = self.standard_streams(process, &mut descriptors, (user.uid, user.gid))?;

        // Everything that is ours is ready. The caller still joins cgroups and attaches the network.
        match self.handshake.receive::<Go>().at(Step::Wait)? {
            Some(_) => {}
            // The caller changed its mind, or died.
            None => exit_now(125),
        }

        if has_namespace(spec, LinuxNamespaceType::Cgroup) {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWCGROUP)
                .at(Step::CgroupNamespace)?;
            rootfs::attach_cgroup(spec)?;
        }
        let directory = process.cwd();
        rootfs::enter_directory(directory, in_user_namespace.then_some((0, 0)))
            .at(Step::WorkingDirectory(directory.clone()))?;
        if spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly) == Some(true) {
            rootfs::protect_root()?;
        }
        stdio.put_in_place().at(Step::Stdio)?;
        rustix::process::umask(Mode::from_raw_mode(0o022));

        if self.launch.init {
            self.reap_for_program(process, &user)?;
        }
        self.drop_privileges(process, &user)?;
        let environment = environment(process, &user.home);
        sys::fd::close_on_exec_from(3).at(Step::Stdio)?;
        SigSet::empty().thread_set_mask().at(Step::Session)?;
        execute(process.args().as_deref().unwrap_or_default(), &environment)
    }

    /// Lowers limits; none is ever raised, which would need a right that we may not have.
    fn limit_resources(&self, process: &Process) -> Result<(), Failure> {
        let (soft, hard) = self.open_files;
        nix::sys::resource::setrlimit(Resource::RLIMIT_NOFILE, soft, hard)
            .at(Step::ResourceLimit("RLIMIT_NOFILE".to_owned()))?;
        for limit in process.rlimits().iter().flatten() {
            let step = || Step::ResourceLimit(limit.typ().to_string());
            let Some(resource) = resource(limit.typ()) else { continue };
            let (_, hard) = nix::sys::resource::getrlimit(resource).at(step())?;
            let hard = hard.min(limit.hard());
            nix::sys::resource::setrlimit(resource, limit.soft().min(hard), hard).at(step())?;
        }
        Ok(())
    }

    /// What becomes descriptors 0 to 2; with a terminal, its other end goes to the caller.
    fn standard_streams(
        &self,
        process: &Process,
        descriptors: &mut Descriptors,
        owner: (u32, u32),
    ) -> Result<Stdio, Failure> {
        if process.terminal() != Some(true) {
            let mut take = |role| {
                descriptors
                    .take(role)
                    .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
                    .at(Step::Stdio)
            };
            return Ok(Stdio::Streams(
                take(Role::Stdin)?,
                take(Role::Stdout)?,
                take(Role::Stderr)?,
            ));
        }
        let (master, terminal) = rootfs::terminal().at(Step::Terminal)?;
        if let Some(size) = process.console_size() {
            let clip = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
            let size = rustix::termios::Winsize {
                ws_row: clip(size.height()),
                ws_col: clip(size.width()),
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            rustix::termios::tcsetwinsize(&master, size).at(Step::Terminal)?;
        }
        let (uid, gid) = (rustix::fs::Uid::from_raw(owner.0), rustix::fs::Gid::from_raw(owner.1));
        rustix::fs::fchown(&terminal, Some(uid), (owner.1 != 0).then_some(gid))
            .at(Step::Terminal)?;
        rustix::process::ioctl_tiocsctty(&terminal).at(Step::Terminal)?;
        self.handshake.send(&FromInit::Terminal, &[master.as_fd()]).at(Step::Terminal)?;
        Ok(Stdio::Terminal(terminal))
    }

    /// Capabilities, user, no_new_privs and seccomp, in the one order that works: without
    /// no_new_privs the filter needs CAP_SYS_ADMIN and so comes before that is gone; with it the
    /// filter comes last, and need not let our own calls pass.
    fn drop_privileges(&self, process: &Process, user: &user::User) -> Result<(), Failure> {
        let no_new_privileges = process.no_new_privileges() == Some(true);
        let wanted = process.capabilities().as_ref();
        let bounding = CapabilitySet::from_spec(wanted.and_then(|sets| sets.bounding().as_ref()));
        let effective = CapabilitySet::from_spec(wanted.and_then(|sets| sets.effective().as_ref()));
        capabilities::limit_bounding_set(bounding).at(Step::Capabilities)?;
        if !no_new_privileges {
            self.install_seccomp()?;
        }
        change_user(user).at(Step::Credentials)?;
        // The kernel clears the sets of a process that leaves uid 0; a root keeps what is bounding.
        let kept =
            if user.uid == 0 { effective.intersection(bounding) } else { CapabilitySet::EMPTY };
        capabilities::set(kept).at(Step::Capabilities)?;
        // Changing the user clears it: prctl(2).
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .at(Step::Session)?;
        if no_new_privileges {
            rustix::thread::set_no_new_privs(true).at(Step::NoNewPrivileges)?;
            self.install_seccomp()?;
        }
        Ok(())
    }

    fn install_seccomp(&self) -> Result<(), Failure> {
        self.launch
            .seccomp
            .iter()
            .try_for_each(|program| sys::install_seccomp(program))
            .at(Step::Seccomp)
    }

    /// Forks: the program goes on in the child, and this process stays pid 1, with the same rights,
    /// passes signals on, reaps whatever is left to it, and ends as the program ends.
    fn reap_for_program(&self, process: &Process, user: &user::User) -> Result<(), Failure> {
        match clone3(self.single_threaded, 0, None).at(Step::Reaper)? {
            Cloned::Child => {
                if process.terminal() == Some(true) {
                    // What is typed interrupts the program's group, and not the reaper, which
                    // would pass it on a second time. SIGTTOU is blocked, as all are.
                    rustix::process::setpgid(None, None).at(Step::Reaper)?;
                    rustix::termios::tcsetpgrp(io::stdin(), rustix::process::getpid())
                        .at(Step::Reaper)?;
                }
                Ok(())
            }
            Cloned::Parent { pid, .. } => {
                self.drop_privileges(process, user)?;
                // Its memory is a copy of the launcher's, and holds other containers' requests.
                rustix::process::set_dumpable_behavior(
                    rustix::process::DumpableBehavior::NotDumpable,
                )
                .at(Step::Reaper)?;
                reap(pid)
            }
        }
    }
}

/// The life of the reaper.
fn reap(program: Pid) -> ! {
    let _ = sys::fd::close_from(3);
    let all = SigSet::all();
    loop {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if pid == program {
                let signal = status.terminating_signal().map(|signal| 128 + signal);
                exit_now(status.exit_status().or(signal).unwrap_or(125));
            }
        }
        match all.wait() {
            Ok(Signal::SIGCHLD) | Err(_) => {}
            Ok(signal) => {
                if let Some(signal) = rustix::process::Signal::from_named_raw(signal as i32) {
                    let _ = rustix::process::kill_process(program, signal);
                }
            }
        }
    }
}

/// As Docker has it, a container's own network lets any of its users listen on ports below 1024
/// and send ICMP echoes: ip(7), `ip_unprivileged_port_start`; icmp(7), `ping_group_range`.
///
/// Written while the host's /proc is there, which the container cannot have changed; below
/// /proc/sys/net it shows the network namespace of whoever looks. Not worth a container: a kernel
/// may lack the settings, or /proc be read-only where we run in a container ourselves.
fn open_to_everybody(in_user_namespace: bool) {
    // The range ends with the last group that the user namespace has.
    let groups = if in_user_namespace { "0 65535" } else { "0 2147483647" };
    let _ = std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
    let _ = std::fs::write("/proc/sys/net/ipv4/ping_group_range", groups);
}

/// Ids 0 of the user namespace that we are in.
fn become_root() -> io::Result<()> {
    use rustix::process::{Gid, Uid};
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?;
    Ok(())
}

fn change_user(user: &user::User) -> io::Result<()> {
    use rustix::process::{Gid, Uid};
    let groups: Vec<_> = user.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    rustix::thread::set_thread_groups(&groups)?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

/// Standard input, output and error of the program.
enum Stdio {
    Streams(OwnedFd, OwnedFd, OwnedFd),
    Terminal(OwnedFd),
}

impl Stdio {
    fn put_in_place(&self) -> io::Result<()> {
        let [stdin, stdout, stderr]: [BorrowedFd<'_>; 3] = match self {
            Self::Streams(stdin, stdout, stderr) => [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
            Self::Terminal(terminal) => [terminal.as_fd(); 3],
        };
        nix::unistd::dup2_stdin(stdin)?;
        nix::unistd::dup2_stdout(stdout)?;
        nix::unistd::dup2_stderr(stderr)?;
        Ok(())
    }
}

fn resource(kind: PosixRlimitType) -> Option<Resource> {
    Some(match kind {
        PosixRlimitType::RlimitAs => Resource::RLIMIT_AS,
        PosixRlimitType::RlimitCore => Resource::RLIMIT_CORE,
        PosixRlimitType::RlimitCpu => Resource::RLIMIT_CPU,
        PosixRlimitType::RlimitData => Resource::RLIMIT_DATA,
        PosixRlimitType::RlimitFsize => Resource::RLIMIT_FSIZE,
        PosixRlimitType::RlimitLocks => Resource::RLIMIT_LOCKS,
        PosixRlimitType::RlimitMemlock => Resource::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitMsgqueue => Resource::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => Resource::RLIMIT_NICE,
        PosixRlimitType::RlimitNofile => Resource::RLIMIT_NOFILE,
        PosixRlimitType::RlimitNproc => Resource::RLIMIT_NPROC,
        PosixRlimitType::RlimitRss => Resource::RLIMIT_RSS,
        PosixRlimitType::RlimitRtprio => Resource::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => Resource::RLIMIT_RTTIME,
        PosixRlimitType::RlimitSigpending => Resource::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitStack => Resource::RLIMIT_STACK,
    })
}

/// The program's environment: the spec's, and HOME by the user's passwd line unless it is there.
fn environment(process: &Process, home: &str) -> Vec<String> {
    let mut environment = process.env().clone().unwrap_or_default();
    if !environment.iter().any(|line| line.starts_with("HOME=")) {
        environment.push(format!("HOME={home}"));
    }
    environment
}

/// execve(2) with the search of execvp(3), in the container's own PATH.
fn execute(arguments: &[String], environment: &[String]) -> Result<Never, Failure> {
    let program = arguments.first().cloned().unwrap_or_default();
    let step = || Step::Execute(program.clone());
    let text = |s: &str| CString::new(s).map_err(io::Error::from);
    let argv: Vec<_> = arguments.iter().map(|s| text(s)).collect::<Result<_, _>>().at(step())?;
    let envp: Vec<_> = environment.iter().map(|s| text(s)).collect::<Result<_, _>>().at(step())?;
    if program.is_empty() {
        return Err(Failure::new(step(), &io::Error::from_raw_os_error(libc::ENOENT)));
    }

    // Not found unless some candidate fails in another way, which then says more.
    let mut error = io::Error::from_raw_os_error(libc::ENOENT);
    for candidate in candidates(&program, environment) {
        let path =
            CString::new(candidate.as_os_str().as_bytes()).map_err(io::Error::from).at(step())?;
        let Err(errno) = nix::unistd::execve(&path, &argv, &envp);
        match errno {
            nix::Error::ENOENT | nix::Error::ENOTDIR => {
                // A file that is there and yet "not found" lacks its interpreter.
                if candidate.exists() {
                    error = io::Error::other(format!(
                        "{} is there, but what it needs to run is not: its `#!` interpreter, or its dynamic loader",
                        candidate.display()
                    ));
                }
            }
            other => error = other.into(),
        }
    }
    let mut failure = Failure::new(step(), &error);
    if failure.detail.is_some() {
        failure.errno = libc::ENOENT;
    }
    Err(failure)
}

fn candidates(program: &str, environment: &[String]) -> Vec<PathBuf> {
    if program.contains('/') {
        return vec![PathBuf::from(program)];
    }
    let path = environment.iter().find_map(|line| line.strip_prefix("PATH=")).unwrap_or_default();
    path.split(':')
        .map(|directory| if directory.is_empty() { "." } else { directory })
        .map(|directory| Path::new(OsStr::new(directory)).join(program))
        .collect()
}
