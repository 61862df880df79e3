//! Making processes, and what they inherit.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::process::Pid;

/// Put the child into the given cgroup v2 directory: clone3(2), Linux 5.7. (`libc`'s constant of
/// this name is an `int` and overflows to 0.)
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Proof that this process has one thread, so that a forked child may allocate and take locks.
#[derive(Debug)]
pub(crate) struct SingleThreaded {
    /// Not `Send`: the proof stays with the one thread.
    _stays: PhantomData<*const ()>,
}

impl SingleThreaded {
    /// Counts the threads of this process. Whoever holds the proof starts no thread.
    ///
    /// # Errors
    ///
    /// When there is more than one thread, or /proc cannot be read.
    pub(crate) fn verify() -> io::Result<Self> {
        match std::fs::read_dir("/proc/self/task")?.count() {
            1 => Ok(Self { _stays: PhantomData }),
            threads => Err(io::Error::other(format!("the launcher has {threads} threads"))),
        }
    }
}

/// Sends a signal of any number, those for programs' own use among them: pidfd_send_signal(2),
/// Linux 5.1.
///
/// # Errors
///
/// `ESRCH`: the process has ended. `EINVAL`: no such signal.
pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let (fd, no_information, no_flags) =
        (pidfd.as_raw_fd(), std::ptr::null::<libc::siginfo_t>(), 0);
    // SAFETY: pidfd_send_signal(2) reads no memory of ours where there is no siginfo.
    let sent =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, no_information, no_flags) };
    if sent == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Where clone3(2) returned.
#[derive(Debug)]
pub(crate) enum Cloned {
    /// In the new process.
    Child,
    /// In the calling process.
    Parent {
        /// The child, as seen from the caller's pid namespace.
        pid: Pid,
        /// A descriptor of the child.
        pidfd: OwnedFd,
    },
}

/// Forks into the new namespaces of `namespaces` (`CLONE_NEW*`), directly in the cgroup v2
/// directory `cgroup`: clone3(2) with `CLONE_PIDFD` and `CLONE_INTO_CGROUP`, Linux 5.7.
///
/// # Errors
///
/// `EPERM`: namespaces need `CAP_SYS_ADMIN`. `EAGAIN`: a limit on processes. `ENOSPC`: a limit on
/// nested namespaces. `EBUSY`: the cgroup has its controllers enabled for children.
pub(crate) fn clone3(
    _single_threaded: &SingleThreaded,
    namespaces: u64,
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<Cloned> {
    let mut pidfd: RawFd = -1;
    let mut flags = namespaces | u64::try_from(libc::CLONE_PIDFD).expect("a positive flag");
    let mut cgroup_fd = 0;
    if let Some(fd) = cgroup {
        flags |= CLONE_INTO_CGROUP;
        cgroup_fd = u64::try_from(fd.as_raw_fd()).expect("descriptors are not negative");
    }
    let arguments = libc::clone_args {
        flags,
        pidfd: (&raw mut pidfd).expose_provenance() as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: u64::try_from(libc::SIGCHLD).expect("signals are positive"),
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: cgroup_fd,
    };
    // SAFETY: no CLONE_VM, so the child has a copy of our memory and stack, as after fork(2); the
    // proof says that no other thread could have held a lock or the allocator at this moment.
    // `arguments` and `pidfd` live until the call returns.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            std::ptr::from_ref(&arguments),
            size_of::<libc::clone_args>(),
        )
    };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    let pid = i32::try_from(pid).expect("pids are ints");
    match Pid::from_raw(pid) {
        None => Ok(Cloned::Child),
        Some(pid) => {
            // SAFETY: CLONE_PIDFD had the kernel open `pidfd` for us, and nothing else owns it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned::Parent { pid, pidfd })
        }
    }
}

/// Ends this process at once, without destructors and exit handlers: _exit(2). What a forked child
/// inherited of them belongs to its parent.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) takes an integer and does not return.
    unsafe { libc::_exit(code) }
}

/// Gives every signal its default action, also those that our parent had ignored: signal(2).
pub(crate) fn default_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL is a valid disposition and runs no code of ours. Signals that cannot be
        // changed (SIGKILL, SIGSTOP, the two of glibc) fail with EINVAL, which is what we want.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}
