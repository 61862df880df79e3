//! The single-threaded process that makes containers: requests with descriptors in, pidfds out.
//!
//! A threaded process cannot fork and go on safely, so whoever makes containers first re-executes
//! its own binary as the launcher. The launcher
//!
//! * runs from a read-only mount of its binary, so that a container whose program is
//!   `/proc/self/exe` cannot write to the binary on the host (CVE-2019-5736);
//! * has a mount namespace of its own, so that no mount ever shows on the host, and all vanish with it;
//! * is the parent of every init: it reaps them, and no exit is lost;
//! * ends when its caller's socket closes, and takes every container with it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use oci_spec::runtime::LinuxIdMapping;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
};
use rustix::process::{Pid, WaitOptions};

use super::handshake::{At, Channel, Failure, Launch, Request, Role, Status, Step};
use super::init;
use crate::sys;
use crate::sys::mount::{self, Reach};
use crate::sys::process::{Cloned, SingleThreaded, clone3, default_signals, exit_now};
use crate::trash::Trash;

/// The private first argument that makes a process the launcher.
const ARGUMENT: &str = "__abax_launcher";

/// Containers whose directories may wait to be deleted until there is nothing else to do.
const MOST_TRASH: usize = 64;

/// Why there is no launcher.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LauncherError {
    /// The program to re-execute could not be sealed.
    #[error("could not seal {}", program.display())]
    Seal {
        /// The program.
        program: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The sealed program did not start.
    #[error("could not start {} as the launcher", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// A handle of the launcher. Clones are the same launcher; many threads may use it at once. With
/// the last one the launcher ends, and every container that it made.
#[derive(Clone, Debug)]
pub struct Launcher {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Taken on drop, so that the launcher sees its end before it is waited for.
    requests: Option<Channel>,
    process: Mutex<Child>,
}

impl Launcher {
    /// Starts the launcher from this process's own binary, whose `main` calls
    /// [`run_launcher_if_asked`] first.
    ///
    /// # Errors
    ///
    /// Without the right to mount (not root), or when the binary cannot be executed.
    pub fn start() -> Result<Self, LauncherError> {
        Self::start_with(Path::new("/proc/self/exe"))
    }

    /// Starts the launcher from another binary whose `main` calls [`run_launcher_if_asked`] first,
    /// for programs that have no `main` of their own, such as tests.
    ///
    /// # Errors
    ///
    /// As [`Launcher::start`].
    pub fn start_with(program: &Path) -> Result<Self, LauncherError> {
        let sealed = seal(program)
            .map_err(|source| LauncherError::Seal { program: program.to_owned(), source })?;
        let failed = |source| LauncherError::Start { program: program.to_owned(), source };
        let (ours, theirs) = Channel::pair().map_err(failed)?;
        let process = Command::new(format!("/proc/self/fd/{}", sealed.as_raw_fd()))
            .arg(ARGUMENT)
            .env_clear()
            .current_dir("/")
            .stdin(theirs.into_descriptor())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        Ok(Self { inner: Arc::new(Inner { requests: Some(ours), process: Mutex::new(process) }) })
    }

    /// The process id of the launcher.
    pub fn pid(&self) -> u32 {
        self.inner.process.lock().unwrap_or_else(PoisonError::into_inner).id()
    }

    /// Whether the process has ended, and its containers with it: it makes no more of them.
    pub fn has_ended(&self) -> bool {
        let mut process = self.inner.process.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(process.try_wait(), Ok(Some(_)))
    }

    /// Sends a request. What comes of it comes over the sockets that go with it.
    pub(super) fn send(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.inner.requests.as_ref().expect("taken on drop only").send(request, descriptors)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        drop(self.requests.take());
        // Not waited for: it may still be deleting what its containers left, and a process that
        // ends leaves it to init. One that goes on has at most this one zombie until then.
        if let Ok(process) = self.process.get_mut() {
            let _ = process.try_wait();
        }
    }
}

/// The binary as seen through a detached, read-only overlay of its directory: nobody can open that
/// file for writing, whatever `/proc/PID/exe` leads them to. Costs a tenth of a millisecond, where a
/// sealed memory file costs a copy of the whole binary.
fn seal(program: &Path) -> io::Result<OwnedFd> {
    let program = fs::canonicalize(program)?;
    let (Some(directory), Some(name)) = (program.parent(), program.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    // An overlay without an upper directory wants two lower ones, neither within the other; procfs
    // cannot be one.
    let lower = lower_directories(directory, "/sys")?;
    rustix::mount::fsconfig_set_string(context.as_fd(), "lowerdir", lower)?;
    rustix::mount::fsconfig_create(context.as_fd())?;
    let mount = rustix::mount::fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOSUID,
    )?;
    Ok(rustix::fs::openat(
        mount,
        name,
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?)
}

/// `lowerdir=` of overlayfs, in which a colon separates and a backslash escapes.
fn lower_directories(first: &Path, second: &str) -> io::Result<String> {
    let first = first.to_str().ok_or(io::ErrorKind::InvalidInput)?;
    Ok(format!("{}:{second}", first.replace('\\', "\\\\").replace(':', "\\:")))
}

/// Runs the launcher when this process was started as one, and then does not return. To be called
/// first in `main`, before any thread.
pub fn run_launcher_if_asked() {
    if std::env::args_os().nth(1).as_deref() != Some(OsStr::new(ARGUMENT)) {
        return;
    }
    let code = match serve() {
        Ok(()) => 0,
        Err(error) => {
            // Standard error is /dev/null here, unless somebody looks into it.
            tracing::error!(error = %error, "the launcher ends");
            1
        }
    };
    exit_now(code)
}

/// A container of this launcher.
#[derive(Debug)]
struct Running {
    status: Channel,
    pidfd: OwnedFd,
}

/// The launcher's state: everything that it has and a child must not use.
#[derive(Debug)]
struct State {
    single_threaded: SingleThreaded,
    running: HashMap<Pid, Running>,
    trash: Trash,
    /// Mapped views of the layers, by the first id of the mapping.
    mapped_layers: HashMap<(PathBuf, u32), PathBuf>,
    /// The limit on open files that containers get; ours is raised.
    open_files: (u64, u64),
}

fn serve() -> io::Result<()> {
    let single_threaded = SingleThreaded::verify()?;
    // A caller's descriptors that were not close-on-exec: whoever waits for their end must not wait
    // for ours.
    sys::fd::close_from(3)?;
    let requests = Channel::from_descriptor(io::stdin().as_fd().try_clone_to_owned()?);
    // Signals of the caller's terminal and process group are not for us: only the end of the socket
    // ends the launcher.
    default_signals();
    SigSet::all().thread_block()?;
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    let signals = SignalFd::with_flags(&children, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    rustix::process::setsid()?;
    rustix::process::umask(rustix::fs::Mode::empty());
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    // Not to be traced, and its /proc entries not to be read, by any container.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    let open_files = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)?;
    nix::sys::resource::setrlimit(
        nix::sys::resource::Resource::RLIMIT_NOFILE,
        open_files.1,
        open_files.1,
    )?;
    let mut state = State {
        single_threaded,
        running: HashMap::new(),
        trash: Trash::default(),
        mapped_layers: HashMap::new(),
        open_files,
    };

    loop {
        let mut polled =
            [PollFd::new(&requests, PollFlags::IN), PollFd::new(&signals, PollFlags::IN)];
        let idle = Timespec { tv_sec: 0, tv_nsec: 0 };
        let ready = rustix::event::poll(&mut polled, (!state.trash.is_empty()).then_some(&idle));
        let [asked, signalled] = [!polled[0].revents().is_empty(), !polled[1].revents().is_empty()];
        match ready {
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
            // What cannot be deleted is left to the next sweep.
            Ok(0) => drop(state.trash.step()),
            Ok(_) => {}
        }
        if signalled {
            while signals.read_signal()?.is_some() {}
            state.reap();
        }
        if asked && !state.answer(&requests)? {
            break;
        }
        // Never idle is no reason to fill the disk.
        if state.trash.len() > MOST_TRASH {
            let _ = state.trash.step();
        }
    }
    state.end();
    Ok(())
}

impl State {
    /// Takes one request. False: the caller is gone.
    fn answer(&mut self, requests: &Channel) -> io::Result<bool> {
        let (request, descriptors) = match requests.receive::<Request>() {
            Ok(Some(received)) => received,
            Ok(None) => return Ok(false),
            // What cannot be read is refused by closing its sockets; the next request may be fine.
            Err(error) if error.raw_os_error().is_none() => return Ok(true),
            Err(error) => return Err(error),
        };
        match request {
            Request::Remove(path) => self.trash.push(path),
            Request::Launch(launch) => self.launch(*launch, descriptors, requests),
        }
        Ok(true)
    }

    /// Makes one container and tells its caller.
    fn launch(&mut self, launch: Launch, descriptors: Vec<OwnedFd>, requests: &Channel) {
        let mut descriptors = Descriptors::new(&launch.descriptors, descriptors);
        let Some(status) = descriptors.take(Role::Status).map(Channel::from_descriptor) else {
            return;
        };
        match self.make(launch, descriptors, requests) {
            Ok((pid, pidfd)) => {
                // A caller that is gone closes its request socket too, and that ends the container.
                let _ = status
                    .send(&Status::Launched { pid: pid.as_raw_nonzero().get() }, &[pidfd.as_fd()]);
                self.running.insert(pid, Running { status, pidfd });
            }
            Err(failure) => {
                let _ = status.send(&Status::Failed(failure), &[]);
            }
        }
    }

    fn make(
        &mut self,
        launch: Launch,
        mut descriptors: Descriptors,
        _requests: &Channel,
    ) -> Result<(Pid, OwnedFd), Failure> {
        let namespaces = init::namespaces(&launch.spec);
        let cgroup = descriptors.take(Role::Cgroup);
        let Some(mapping) = init::id_mapping(&launch.spec) else {
            let cloned =
                clone3(&self.single_threaded, namespaces, cgroup.as_ref().map(OwnedFd::as_fd));
            return match cloned.at(Step::Clone)? {
                Cloned::Child => init::run(
                    launch,
                    descriptors,
                    None,
                    None,
                    &self.single_threaded,
                    self.open_files,
                ),
                Cloned::Parent { pid, pidfd } => Ok((pid, pidfd)),
            };
        };

        // The kernel wants these two from someone who has rights over the host: the layers seen
        // through the container's id mapping, and the overlay of them.
        let mapped = self.mapped_layers(&launch, mapping)?;
        let lower =
            launch.root.lower.iter().map(|path| match path.strip_prefix(&launch.root.layers) {
                Ok(layer) => mapped.join(layer),
                Err(_) => path.clone(),
            });
        let lower: Vec<_> = lower.collect();
        let root = init::overlay(&launch, &lower)?;
        // Nodes that an image brings along are nobody's to open there.
        mount::set_attributes(root.as_fd(), Reach::Mount, mount::NO_DEVICES).at(Step::Overlay)?;
        let (maps_written, wait_for_maps) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
                .map(|(read, write)| (write, read))
                .at(Step::Clone)?;
        let linux = launch.spec.linux().as_ref();
        let users = lines(linux.and_then(|linux| linux.uid_mappings().as_ref()));
        let groups = lines(linux.and_then(|linux| linux.gid_mappings().as_ref()));
        let cloned = clone3(&self.single_threaded, namespaces, cgroup.as_ref().map(OwnedFd::as_fd));
        match cloned.at(Step::Clone)? {
            Cloned::Child => {
                drop(maps_written);
                init::run(
                    launch,
                    descriptors,
                    Some(root),
                    Some(wait_for_maps),
                    &self.single_threaded,
                    self.open_files,
                )
            }
            Cloned::Parent { pid, pidfd } => {
                if let Err(error) = write_maps(pid, &users, &groups) {
                    let _ =
                        rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
                    let _ = rustix::process::waitpid(Some(pid), WaitOptions::empty());
                    return Err(Failure::new(Step::MapIds, &error));
                }
                // The child may have died; then its status says so.
                let _ = rustix::io::write(&maps_written, &[1]);
                Ok((pid, pidfd))
            }
        }
    }

    /// All layers through an id mapping, made at the first use of that mapping.
    fn mapped_layers(&mut self, launch: &Launch, mapping: IdMapping) -> Result<PathBuf, Failure> {
        let key = (launch.root.layers.clone(), mapping.first);
        if let Some(path) = self.mapped_layers.get(&key) {
            return Ok(path.clone());
        }
        let path =
            map_layers(&self.single_threaded, &launch.root.layers, &launch.root.private, mapping)
                .at(Step::MapLayers)?;
        self.mapped_layers.insert(key, path.clone());
        Ok(path)
    }

    /// Collects every child that has ended. Only SIGCHLD leads here, and it stays pending while
    /// blocked, so none is missed.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let Some(running) = self.running.remove(&pid) else { continue };
            let ended =
                Status::Ended { code: status.exit_status(), signal: status.terminating_signal() };
            // The caller may be gone, and then nobody asks.
            let _ = running.status.send(&ended, &[]);
        }
    }

    /// The caller is gone: end every container, then delete what was given to us to delete, unless
    /// that is more than its end may wait for; the next sweep has the rest.
    fn end(&mut self) {
        for running in self.running.values() {
            let _ =
                rustix::process::pidfd_send_signal(&running.pidfd, rustix::process::Signal::KILL);
        }
        while !self.running.is_empty() {
            match rustix::process::wait(WaitOptions::empty()) {
                Ok(Some((pid, _))) => drop(self.running.remove(&pid)),
                Err(rustix::io::Errno::INTR) => {}
                Ok(None) | Err(_) => break,
            }
        }
        for _ in 0..MOST_TRASH {
            let _ = self.trash.step();
        }
    }
}

/// The descriptors of a request, by what they are for.
#[derive(Debug)]
pub(super) struct Descriptors {
    descriptors: Vec<(Role, OwnedFd)>,
}

impl Descriptors {
    fn new(roles: &[Role], descriptors: Vec<OwnedFd>) -> Self {
        Self { descriptors: roles.iter().copied().zip(descriptors).collect() }
    }

    pub(super) fn take(&mut self, role: Role) -> Option<OwnedFd> {
        let index = self.descriptors.iter().position(|(r, _)| *r == role)?;
        Some(self.descriptors.swap_remove(index).1)
    }
}

/// Ids 0 to `count` of a user namespace are `first` and up outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IdMapping {
    pub(super) first: u32,
    pub(super) count: u32,
}

impl IdMapping {
    fn line(self) -> String {
        format!("0 {} {}\n", self.first, self.count)
    }
}

/// A line for each range of ids, as the kernel wants them.
fn lines(mappings: Option<&Vec<LinuxIdMapping>>) -> String {
    let line =
        |map: &LinuxIdMapping| format!("{} {} {}\n", map.container_id(), map.host_id(), map.size());
    mappings.into_iter().flatten().map(line).collect()
}

/// user_namespaces(7): written once and at once, by somebody with rights outside.
fn write_maps(pid: Pid, users: &str, groups: &str) -> io::Result<()> {
    fs::write(format!("/proc/{}/uid_map", pid.as_raw_nonzero()), users)?;
    fs::write(format!("/proc/{}/gid_map", pid.as_raw_nonzero()), groups)
}

/// Attaches a view of `layers` through `mapping` in the launcher's own mount namespace, beneath `private`.
fn map_layers(
    single_threaded: &SingleThreaded,
    layers: &Path,
    private: &Path,
    mapping: IdMapping,
) -> io::Result<PathBuf> {
    let user_namespace = user_namespace(single_threaded, mapping)?;
    let view = rustix::mount::open_tree(
        rustix::fs::CWD,
        layers,
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )?;
    mount::make_private(view.as_fd(), Reach::Mount)?;
    mount::map_ids(view.as_fd(), user_namespace.as_fd())?;

    // A tmpfs over the empty directory: the mount points in it are nobody else's.
    let place = private.join(mapping.first.to_string());
    if !place.exists() {
        let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_set_string(context.as_fd(), "mode", "711")?;
        rustix::mount::fsconfig_create(context.as_fd())?;
        let tmpfs = rustix::mount::fsmount(
            context.as_fd(),
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::MOUNT_ATTR_NODEV
                | MountAttrFlags::MOUNT_ATTR_NOSUID
                | MountAttrFlags::MOUNT_ATTR_NOEXEC,
        )?;
        rustix::mount::move_mount(
            tmpfs.as_fd(),
            "",
            rustix::fs::CWD,
            private,
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )?;
        fs::create_dir(&place)?;
    }
    rustix::mount::move_mount(
        view.as_fd(),
        "",
        rustix::fs::CWD,
        &place,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?;
    Ok(place)
}

/// A user namespace that has `mapping` and nobody in it: what an id-mapped mount is made with.
fn user_namespace(single_threaded: &SingleThreaded, mapping: IdMapping) -> io::Result<OwnedFd> {
    let flags = u64::try_from(libc::CLONE_NEWUSER).expect("a positive flag");
    match clone3(single_threaded, flags, None)? {
        Cloned::Child => loop {
            // Until the parent has what it wants.
            rustix::event::pause();
        },
        Cloned::Parent { pid, pidfd } => {
            let line = mapping.line();
            let opened = write_maps(pid, &line, &line)
                .and_then(|()| fs::File::open(format!("/proc/{}/ns/user", pid.as_raw_nonzero())));
            rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL)?;
            rustix::process::waitpid(Some(pid), WaitOptions::empty())?;
            Ok(opened?.into())
        }
    }
}
