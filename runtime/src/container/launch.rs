//! The caller's half: request, cgroup, waiting.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::Signal;

use super::directory::Directory;
use super::handshake::{
    self, Channel, Failure, FromInit, Go, Launch, Request, Role, RootFileSystem, Step,
};
use super::provisions;
use super::record::{self, Record, RecordError, now};
use super::rootfs::{Links, bind_source};
use super::signal::{self, ContainerSignal};
use super::spec::{self, Place};
use super::{
    ContainerId, Exit, ExitStatus, Isolation, Launcher, MountSource, Options, Status, Stdio,
};
use crate::Runtime;
use crate::cgroup::{Cgroup, CgroupError, Hierarchy, Usage};
use crate::image::Image;
use crate::network::{self, Attachment, Bridge, Mode, NetworkError};
use crate::security::{capabilities, seccomp};
use crate::sys::process::pidfd_send_signal;

/// Why a container was not created. Nothing is left of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum CreateError {
    #[error("no command: neither the image nor the options name one")]
    NoCommand,
    #[error("the name {name} is taken by container {by}")]
    NameTaken { name: String, by: String },
    #[error("container {id} exists")]
    Exists { id: ContainerId },
    #[error("could not use {}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("could not mount {} into the container", path.display())]
    BindSource { path: PathBuf, source: io::Error },
    #[error("could not describe the container")]
    Spec(#[from] oci_spec::OciSpecError),
    #[error("could not prepare the system call filter")]
    Seccomp { source: seccomp::CompileError },
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error("could not write the container's record")]
    Record { source: RecordError },
    #[error("the launcher does not answer")]
    Launcher { source: io::Error },
    #[error("could not {step}")]
    Step { step: Step, source: io::Error },
}

/// Why a container's program was not started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum StartError {
    #[error("{program}: not found in the container")]
    NotFound { program: String, source: io::Error },
    #[error("{program}: cannot be executed")]
    NotExecutable { program: String, source: io::Error },
    #[error("could not {step}")]
    Step { step: Step, source: io::Error },
    #[error("the container ended before its program was started")]
    Ended,
    #[error("the container was started already")]
    Started,
    #[error("could not write the container's record")]
    Record { source: RecordError },
}

impl StartError {
    /// The exit code that stands for this error: 127 not found, 126 not executable, 125 ours.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotFound { .. } => 127,
            Self::NotExecutable { .. } => 126,
            _ => 125,
        }
    }
}

/// Why waiting for a container failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum WaitError {
    #[error("could not wait for the container")]
    Wait { source: io::Error },
    #[error("could not write the container's record")]
    Record { source: RecordError },
}

/// Why something is left of a container. The next sweep tries again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum DeleteError {
    #[error("could not end the container")]
    End(#[from] WaitError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error("could not remove {}", path.display())]
    Directory { path: PathBuf, source: io::Error },
}

/// A container that this process supervises. Dropping it ends the container, and deletes it unless
/// [`Options::keep`] was set.
#[derive(Debug)]
pub struct Container {
    id: ContainerId,
    pid: i32,
    pidfd: OwnedFd,
    terminal: Option<OwnedFd>,
    launcher: Launcher,
    /// The way to init until it is started.
    handshake: Mutex<Option<Channel>>,
    ending: Mutex<Ending>,
    record: Mutex<Record>,
    /// Taken when they are removed.
    cgroup: Option<Cgroup>,
    directory: Option<Directory>,
    /// Taken when its address is given back.
    bridge: Option<Arc<Bridge>>,
    attachment: Option<Attachment>,
    counts_memory: bool,
    /// True: a cgroup or an address could not be given back. The directory then stays, since that
    /// is where a sweep looks for what to try again.
    is_swept_later: bool,
}

/// The launcher's word on the container's end.
#[derive(Debug)]
struct Ending {
    status: Channel,
    exit: Option<Exit>,
    /// Whether the launcher was gone before it could tell the exit.
    abandoned: bool,
}

impl Container {
    /// Makes a container: everything but the execution of its program.
    ///
    /// # Errors
    ///
    /// What could not be made. A step inside the container may also fail later, and is then an
    /// error of [`Container::start`].
    pub fn create(
        runtime: &Runtime,
        launcher: &Launcher,
        image: &Image,
        options: Options,
        stdio: Stdio,
    ) -> Result<Self, CreateError> {
        let command = spec::arguments(image, &options);
        if command.is_empty() {
            return Err(CreateError::NoCommand);
        }
        let id = options.id.clone().unwrap_or_else(ContainerId::random);
        let host_name = matches!(options.network, Mode::Host).then(host_name).flatten();
        let hostname =
            options.hostname.clone().or(host_name).unwrap_or_else(|| id.short().to_owned());
        let layout = Hierarchy::detect()?.layout();

        let directory = Directory::create(runtime.root(), &id, options.name.as_deref())?;
        let bridge = match &options.network {
            Mode::Bridge(config) => Some(runtime.bridge(config)?),
            Mode::None | Mode::Host => None,
        };
        write_etc(&directory.path, &hostname, &options.network)?;
        provisions::make(&directory.path, &options.provisions)?;
        let window = match &stdio {
            Stdio::Terminal(size) => Some(*size),
            _ => options.terminal.then(Default::default),
        };
        let place =
            Place { id: &id, directory: &directory.path, hostname: &hostname, layout, window };
        let spec = spec::spec(image, &options, &place)?;
        if options.isolation == Isolation::Unprivileged {
            directory.give_to_root_of(&spec)?;
        }
        let seccomp = seccomp_programs(options.isolation)?;

        let cgroup = CgroupGuard(Some(Cgroup::create(&format!("abax/{id}"), &options.limits)?));
        if options.isolation != Isolation::Privileged {
            cgroup.get().restrict_devices()?;
        }

        let mut roles = Vec::new();
        let mut sent: Vec<OwnedFd> = Vec::new();
        for (index, mount) in spec.mounts().iter().flatten().enumerate() {
            if mount.typ().as_deref() != Some("bind") {
                continue;
            }
            let path = mount.source().clone().unwrap_or_default();
            let read_only = mount.options().iter().flatten().any(|option| option == "ro");
            let refuses_links = options.mounts.iter().any(|mount| {
                matches!(&mount.source, MountSource::BindWithoutLinks(source) if *source == path)
            });
            let links = if refuses_links { Links::Refused } else { Links::Followed };
            let source = bind_source(&path, read_only, links)
                .map_err(|source| CreateError::BindSource { path, source })?;
            roles.push(Role::Mount(index));
            sent.push(source);
        }
        let launch = Launch {
            root: RootFileSystem {
                mount_point: directory.path.clone(),
                lower: crate::snapshot::lower_directories(runtime.images(), image),
                upper: directory.path.join("upper"),
                work: directory.path.join("work"),
                volatile: !options.keep,
                layers: runtime.root().join("layers"),
                private: runtime.root().join("private"),
            },
            user: spec::user(image, &options),
            seccomp,
            init: options.init,
            descriptors: roles,
            spec,
        };
        let launched = request(launcher, launch, sent, stdio, cgroup.get())
            .map_err(|source| CreateError::Launcher { source })?;
        let Launched { status, handshake, pid, pidfd } = match launched {
            Ok(launched) => launched,
            Err(failure) => {
                let source = failure.cause();
                return Err(CreateError::Step { step: failure.step, source });
            }
        };

        let stop_signal =
            image.config().config().as_ref().and_then(|config| config.stop_signal().clone());
        let mut container = Self {
            record: Mutex::new(Record {
                id: id.clone(),
                name: options.name.clone(),
                image: image.id().to_string(),
                command,
                status: Status::Creating,
                pid,
                pid_start: record::start_of(pid).unwrap_or(0),
                supervisor: std::process::id(),
                keep: options.keep,
                terminal: window.is_some(),
                stop_signal: options.stop_signal.clone().or(stop_signal),
                created: now(),
                started: None,
                exit: None,
            }),
            id,
            pid,
            pidfd,
            terminal: None,
            launcher: launcher.clone(),
            handshake: Mutex::new(None),
            ending: Mutex::new(Ending { status, exit: None, abandoned: false }),
            cgroup: cgroup.disarm(),
            directory: Some(directory),
            bridge: None,
            attachment: None,
            counts_memory: options.limits.memory_bytes.is_some(),
            is_swept_later: false,
        };
        // From here on, dropping `container` undoes everything. All of this happens while init mounts.
        if let Some(cgroup) = &container.cgroup {
            // ESRCH: init has failed already, and its own words for that come with start().
            match cgroup.join(pid) {
                Err(CgroupError::Write { source, .. })
                    if source.raw_os_error() == Some(libc::ESRCH) => {}
                other => other?,
            }
        }
        if let Some(bridge) = bridge {
            container.attach(bridge, &hostname)?;
        }
        if window.is_some() {
            container.terminal = Some(receive_terminal(&handshake)?);
        }
        *lock(&container.handshake) = Some(handshake);
        if options.keep {
            container.advance(Status::Created).map_err(|source| CreateError::Record { source })?;
        } else {
            lock(&container.record).status = Status::Created;
        }
        Ok(container)
    }

    /// Puts the container on its bridge, and its address in its /etc/hosts.
    fn attach(&mut self, bridge: Arc<Bridge>, hostname: &str) -> Result<(), CreateError> {
        let path = PathBuf::from(format!("/proc/{}/ns/net", self.pid));
        let namespace = match File::open(&path) {
            // Init has failed already, and its own words for that come with start().
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|source| CreateError::Directory { path, source })?,
        };
        let attachment = bridge.attach(self.id.as_str(), namespace.as_fd())?;
        self.bridge = Some(bridge);
        if let Some(directory) = &self.directory {
            // In place: the file is mounted already. Nobody reads it before start().
            let path = directory.path.join("hosts");
            fs::write(&path, network::hosts(hostname, Some(&attachment)))
                .map_err(|source| CreateError::Directory { path, source })?;
        }
        self.attachment = Some(attachment);
        Ok(())
    }

    /// Executes the program.
    ///
    /// # Errors
    ///
    /// [`StartError::NotFound`] and [`StartError::NotExecutable`] for a program that cannot be
    /// executed; [`StartError::Step`] for what failed on the way. The container has then ended.
    pub fn start(&self) -> Result<(), StartError> {
        let handshake = lock(&self.handshake).take().ok_or(StartError::Started)?;
        // A failure means that init is gone; then it has left word.
        let _ = handshake.send(&Go, &[]);
        match handshake.receive::<FromInit>() {
            // The socket was closed by a successful execve, or by a death without words.
            Ok(None) => {}
            Ok(Some((FromInit::Failed(failure), _))) => return Err(start_error(failure)),
            Ok(Some((FromInit::Terminal, _))) | Err(_) => return Err(StartError::Ended),
        }
        lock(&self.record).started = Some(now());
        self.advance(Status::Running).map_err(|source| StartError::Record { source })
    }

    /// The id.
    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    /// The process id of init, as the host sees it.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// A descriptor of init: readable when it has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The caller's end of the container's terminal.
    pub fn terminal(&self) -> Option<BorrowedFd<'_>> {
        self.terminal.as_ref().map(AsFd::as_fd)
    }

    /// Its place on a bridge.
    pub fn attachment(&self) -> Option<&Attachment> {
        self.attachment.as_ref()
    }

    /// What is known of the container, as its record on disk has it.
    pub fn record(&self) -> Record {
        lock(&self.record).clone()
    }

    /// Waits until the container has ended: every process of it, not only the first.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, or the record of a kept container cannot be written.
    pub fn wait(&self) -> Result<Exit, WaitError> {
        let exit = self.wait_until(None)?;
        Ok(exit.expect("without a bound there is an exit"))
    }

    /// As [`Container::wait`], but no longer than `bound`; `None` when it still runs then.
    ///
    /// # Errors
    ///
    /// As [`Container::wait`].
    pub fn wait_timeout(&self, bound: Duration) -> Result<Option<Exit>, WaitError> {
        self.wait_until(Some(bound))
    }

    fn wait_until(&self, bound: Option<Duration>) -> Result<Option<Exit>, WaitError> {
        let mut ending = lock(&self.ending);
        if let Some(exit) = ending.exit {
            return Ok(Some(exit));
        }
        if let Some(bound) = bound
            && !readable(ending.status.as_fd(), Some(bound))
                .map_err(|source| WaitError::Wait { source })?
        {
            return Ok(None);
        }
        let ended = ending.status.receive::<handshake::Status>();
        let status = match ended.map_err(|source| WaitError::Wait { source })? {
            Some((handshake::Status::Ended { code: Some(code), .. }, _)) => {
                ExitStatus::Exited(u8::try_from(code & 0xff).unwrap_or(u8::MAX))
            }
            Some((handshake::Status::Ended { signal: Some(signal), .. }, _)) => {
                ExitStatus::Signaled(signal)
            }
            // The launcher died, and its containers with it; make sure.
            _ => {
                self.kill_all();
                readable(self.pidfd.as_fd(), None).map_err(|source| WaitError::Wait { source })?;
                ending.abandoned = true;
                ExitStatus::Signaled(libc::SIGKILL)
            }
        };
        let out_of_memory = self.counts_memory
            && self.cgroup.as_ref().is_some_and(|cgroup| cgroup.oom_killed().unwrap_or(false));
        let exit = Exit { status, out_of_memory, finished: now() };
        ending.exit = Some(exit);
        let keep = {
            let mut record = lock(&self.record);
            record.exit = Some(exit);
            record.keep
        };
        if keep {
            self.advance(Status::Stopped).map_err(|source| WaitError::Record { source })?;
        } else {
            lock(&self.record).status = Status::Stopped;
        }
        Ok(Some(exit))
    }

    /// Whether it ended because its launcher did, and not by itself or by anybody's wish; known
    /// once it was waited for.
    pub fn is_abandoned(&self) -> bool {
        lock(&self.ending).abandoned
    }

    /// Sends a signal to init. A container that has ended is fine.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the signal.
    pub fn kill(&self, signal: Signal) -> io::Result<()> {
        match rustix::process::pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// What asks it to stop: the image's word for it or its caller's, or else SIGTERM.
    pub fn stop_signal(&self) -> ContainerSignal {
        let named = lock(&self.record).stop_signal.as_deref().and_then(ContainerSignal::parse);
        named.unwrap_or(ContainerSignal::TERM)
    }

    /// Asks it to stop, by its stop signal to init. False: init makes nothing of that signal, and
    /// will not end by it, so that there is nothing to wait for.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the signal.
    pub fn ask_to_stop(&self) -> io::Result<bool> {
        let signal = self.stop_signal();
        signal::send_to_first(self.pid, signal, || {
            match pidfd_send_signal(self.pidfd.as_fd(), signal.number()) {
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
                sent => sent,
            }
        })
    }

    /// Kills every process of the container, at once.
    pub fn kill_all(&self) {
        // Init alone would do: its pid namespace goes with it. The group also has what was put beside it.
        let _ = self.kill(Signal::KILL);
        if let Some(cgroup) = &self.cgroup {
            let _ = cgroup.kill();
        }
    }

    /// What the container has used so far; still there after its end, until it is deleted.
    pub fn usage(&self) -> Usage {
        self.cgroup.as_ref().map(Cgroup::usage).unwrap_or_default()
    }

    /// Ends the container if it still runs, and removes all of it, its record too.
    ///
    /// # Errors
    ///
    /// When something is left.
    pub fn delete(mut self) -> Result<(), DeleteError> {
        self.release()?;
        match self.directory.take() {
            Some(directory) => directory.remove(&self.launcher),
            None => Ok(()),
        }
    }

    /// Ends the container and gives back what it used of the machine, but for its directory.
    fn release(&mut self) -> Result<(), DeleteError> {
        let released = self.release_all();
        self.is_swept_later |= released.is_err();
        released
    }

    fn release_all(&mut self) -> Result<(), DeleteError> {
        let ended = lock(&self.ending).exit.is_some();
        if !ended {
            // Without its handshake an init that waits for it ends by itself.
            drop(lock(&self.handshake).take());
            self.kill_all();
            self.wait()?;
        }
        let cgroup = self.cgroup.take().map_or(Ok(()), Cgroup::remove);
        // Also where the group resists: the container has ended, and its address is free.
        let address = self.bridge.take().map_or(Ok(()), |bridge| bridge.release(self.id.as_str()));
        cgroup?;
        Ok(address?)
    }

    fn advance(&self, next: Status) -> Result<(), RecordError> {
        let mut record = lock(&self.record);
        debug_assert!(record.status.may_become(next), "{:?} to {next:?}", record.status);
        record.status = next;
        match &self.directory {
            Some(directory) => record.write(&directory.path),
            None => Ok(()),
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // What fails here is left to the next sweep.
        let _ = self.release();
        let keep = lock(&self.record).keep;
        if let Some(directory) = self.directory.take() {
            if keep || self.is_swept_later {
                directory.keep();
            } else {
                let _ = directory.remove(&self.launcher);
            }
        }
    }
}

/// The short critical sections here leave nothing half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until `fd` can be read. False: the bound passed.
fn readable(fd: BorrowedFd<'_>, bound: Option<Duration>) -> io::Result<bool> {
    let deadline = bound.map(|bound| std::time::Instant::now() + bound);
    loop {
        let left =
            deadline.map(|deadline| deadline.saturating_duration_since(std::time::Instant::now()));
        let left = left.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        });
        match rustix::event::poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], left.as_ref())
        {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(ready) => return Ok(ready > 0),
        }
    }
}

/// What the launcher answered to a launch.
struct Launched {
    status: Channel,
    handshake: Channel,
    pid: i32,
    pidfd: OwnedFd,
}

/// Sends the request and its descriptors, and waits for the process.
fn request(
    launcher: &Launcher,
    mut launch: Launch,
    mut sent: Vec<OwnedFd>,
    stdio: Stdio,
    cgroup: &Cgroup,
) -> io::Result<Result<Launched, Failure>> {
    let (status, launchers_status) = Channel::pair()?;
    let (handshake, inits_handshake) = Channel::pair()?;
    let roles = &mut launch.descriptors;
    let mut pass = |role, fd: OwnedFd| {
        roles.push(role);
        sent.push(fd);
    };
    pass(Role::Status, launchers_status.into_descriptor());
    pass(Role::Handshake, inits_handshake.into_descriptor());
    if let Some(directory) = cgroup.unified_fd() {
        pass(Role::Cgroup, directory.try_clone_to_owned()?);
    }
    let streams = match stdio {
        Stdio::Terminal(_) => None,
        Stdio::Fds { stdin, stdout, stderr } => Some([stdin, stdout, stderr]),
        Stdio::Inherit => Some([
            io::stdin().as_fd().try_clone_to_owned()?,
            io::stdout().as_fd().try_clone_to_owned()?,
            io::stderr().as_fd().try_clone_to_owned()?,
        ]),
        Stdio::Null => {
            let null = OwnedFd::from(OpenOptions::new().read(true).write(true).open("/dev/null")?);
            Some([null.try_clone()?, null.try_clone()?, null])
        }
    };
    for (role, stream) in
        [Role::Stdin, Role::Stdout, Role::Stderr].into_iter().zip(streams.into_iter().flatten())
    {
        pass(role, stream);
    }
    let borrowed: Vec<_> = sent.iter().map(AsFd::as_fd).collect();
    launcher.send(&Request::Launch(Box::new(launch)), &borrowed)?;
    // Ours are copies; only the ends of init and launcher may hold the sockets open.
    drop(sent);
    match status.receive::<handshake::Status>()? {
        Some((handshake::Status::Launched { pid }, mut descriptors)) => {
            let pidfd = descriptors.pop().ok_or(io::ErrorKind::InvalidData)?;
            Ok(Ok(Launched { status, handshake, pid, pidfd }))
        }
        Some((handshake::Status::Failed(failure), _)) => Ok(Err(failure)),
        Some((handshake::Status::Ended { .. }, _)) => Err(io::ErrorKind::InvalidData.into()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Init's terminal, or why there is none.
fn receive_terminal(handshake: &Channel) -> Result<OwnedFd, CreateError> {
    let received =
        handshake.receive::<FromInit>().map_err(|source| CreateError::Launcher { source })?;
    match received {
        Some((FromInit::Terminal, mut descriptors)) if !descriptors.is_empty() => {
            Ok(descriptors.remove(0))
        }
        Some((FromInit::Failed(failure), _)) => {
            let source = failure.cause();
            Err(CreateError::Step { step: failure.step, source })
        }
        _ => Err(CreateError::Step {
            step: Step::Terminal,
            source: io::ErrorKind::UnexpectedEof.into(),
        }),
    }
}

fn start_error(failure: Failure) -> StartError {
    let source = failure.cause();
    match failure.step {
        Step::Execute(program) if failure.errno == libc::ENOENT => {
            StartError::NotFound { program, source }
        }
        Step::Execute(program) => StartError::NotExecutable { program, source },
        step => StartError::Step { step, source },
    }
}

/// Docker's profile for the capabilities that the container has.
fn seccomp_programs(isolation: Isolation) -> Result<Vec<seccomp::Program>, CreateError> {
    // Where we know no system call numbers there is no filter, as with Docker on such machines.
    let Some(architecture) = seccomp::Architecture::host() else { return Ok(Vec::new()) };
    let capabilities = match isolation {
        Isolation::Docker => capabilities::docker_default(),
        Isolation::Unprivileged => Vec::new(),
        Isolation::Privileged => return Ok(Vec::new()),
    };
    seccomp::compile(seccomp::Profile::docker_default(), &capabilities, architecture)
        .map_err(|source| CreateError::Seccomp { source })
}

fn host_name() -> Option<String> {
    Some(fs::read_to_string("/proc/sys/kernel/hostname").ok()?.trim_end().to_owned())
}

/// The files that are shown in the container's /etc.
fn write_etc(directory: &Path, hostname: &str, mode: &Mode) -> Result<(), CreateError> {
    let of_host = |name| fs::read_to_string(Path::new("/etc").join(name)).unwrap_or_default();
    let (hosts, resolvers) = match mode {
        Mode::Host => (of_host("hosts"), of_host("resolv.conf")),
        // On a bridge, hosts are written when the address is known.
        Mode::Bridge(_) => (String::new(), network::resolv_conf()),
        Mode::None => (network::hosts(hostname, None), String::new()),
    };
    for (file, text) in spec::ETC_FILES.iter().zip([hosts, format!("{hostname}\n"), resolvers]) {
        let path = directory.join(file);
        // For all users of the container, whatever our umask is.
        fs::write(&path, text)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o644)))
            .map_err(|source| CreateError::Directory { path, source })?;
    }
    Ok(())
}

/// A cgroup that nobody is in yet, removed unless disarmed.
struct CgroupGuard(Option<Cgroup>);

impl CgroupGuard {
    fn get(&self) -> &Cgroup {
        self.0.as_ref().expect("taken by disarm only")
    }

    fn disarm(mut self) -> Option<Cgroup> {
        self.0.take()
    }
}

impl Drop for CgroupGuard {
    fn drop(&mut self) {
        if let Some(cgroup) = self.0.take() {
            let _ = cgroup.kill();
            let _ = cgroup.remove();
        }
    }
}
