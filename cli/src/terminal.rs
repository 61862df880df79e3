//! This process's side of a running container: its terminal, its signals.
//!
//! One thread and one poll(2) loop: nothing here needs a lock, and the mode of
//! the user's terminal is restored by a guard on every way out, a panic
//! included.

use std::io::{self, IsTerminal as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use abax_runtime::container::{Container, WindowSize};
use anyhow::Context as _;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::process::Signal as ToContainer;
use rustix::termios::{self, OptionalActions, Termios};

/// The user's terminal in raw mode, until this is dropped.
#[derive(Debug)]
struct Raw {
    before: Termios,
}

impl Raw {
    /// # Errors
    ///
    /// Standard input is no terminal.
    fn enter() -> io::Result<Self> {
        let before = termios::tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(io::stdin(), OptionalActions::Drain, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nobody is left to tell, and the terminal may be gone.
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Drain, &self.before);
    }
}

/// Signals that belong to the container, held back from this process.
#[derive(Debug)]
pub(crate) struct Signals {
    fd: SignalFd,
    /// How often the user asked for the end.
    asked_to_end: u32,
}

impl Signals {
    /// Takes the signals over. Before this they end the process as usual.
    ///
    /// # Errors
    ///
    /// sigprocmask(2) or signalfd(2) failed.
    pub(crate) fn take() -> io::Result<Self> {
        let mut set = SigSet::empty();
        for signal in [
            Signal::SIGINT,
            Signal::SIGTERM,
            Signal::SIGHUP,
            Signal::SIGQUIT,
            Signal::SIGUSR1,
            Signal::SIGUSR2,
            Signal::SIGWINCH,
        ] {
            set.add(signal);
        }
        set.thread_block()?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self { fd, asked_to_end: 0 })
    }

    /// Hands what has arrived to the container; SIGWINCH becomes the new size
    /// of its terminal.
    fn forward(&mut self, container: &Container) {
        while let Ok(Some(info)) = self.fd.read_signal() {
            let Ok(signal) = Signal::try_from(i32::try_from(info.ssi_signo).unwrap_or(0)) else {
                continue;
            };
            if signal == Signal::SIGWINCH {
                if let Some(master) = container.terminal() {
                    copy_size(master);
                }
                continue;
            }
            if matches!(signal, Signal::SIGINT | Signal::SIGTERM) {
                self.asked_to_end += 1;
            }
            // Process 1 ignores what it has no handler for; whoever asks for
            // the third time means it.
            if self.asked_to_end >= 3 {
                container.kill_all();
            } else {
                // It may have ended meanwhile; the pidfd tells.
                if let Some(signal) = ToContainer::from_named_raw(signal as i32) {
                    let _ = container.kill(signal);
                }
            }
        }
    }
}

/// The size of our terminal; nothing known where there is none.
pub(crate) fn size() -> WindowSize {
    for ours in [io::stdout().as_fd(), io::stdin().as_fd()] {
        if let Ok(size) = termios::tcgetwinsize(ours) {
            return WindowSize { rows: size.ws_row, columns: size.ws_col };
        }
    }
    WindowSize::default()
}

/// Gives the container's terminal the size of ours.
fn copy_size(master: BorrowedFd<'_>) {
    for ours in [io::stdout().as_fd(), io::stdin().as_fd()] {
        if let Ok(size) = termios::tcgetwinsize(ours) {
            let _ = termios::tcsetwinsize(master, size);
            return;
        }
    }
}

/// Passes input, output and signals until the container's first process ends.
///
/// # Errors
///
/// poll(2) failed, or the terminal could not be set up.
pub(crate) fn accompany(
    container: &Container,
    signals: &mut Signals,
    interactive: bool,
) -> anyhow::Result<()> {
    let master: Option<OwnedFd> = container
        .terminal()
        .map(|fd| fd.try_clone_to_owned())
        .transpose()
        .context("could not open the container's terminal")?;
    let Some(master) = master else { return without_terminal(container, signals) };
    copy_size(master.as_fd());
    let flags = rustix::fs::fcntl_getfl(&master)?;
    rustix::fs::fcntl_setfl(&master, flags | rustix::fs::OFlags::NONBLOCK)?;

    let stdin = io::stdin();
    let _raw = if interactive && stdin.is_terminal() {
        Some(Raw::enter().context("could not switch the terminal to raw mode")?)
    } else {
        None
    };
    let mut reading = interactive;
    let mut hung_up = false;
    // What the user typed and the container has not taken yet.
    let mut pending: Vec<u8> = Vec::new();
    let mut buffer = vec![0_u8; 64 * 1024];
    loop {
        let mut of_master = PollFlags::POLLIN;
        if !pending.is_empty() {
            of_master |= PollFlags::POLLOUT;
        }
        let mut fds = vec![
            PollFd::new(signals.fd.as_fd(), PollFlags::POLLIN),
            PollFd::new(container.pidfd(), PollFlags::POLLIN),
        ];
        let at_master = (!hung_up).then(|| {
            fds.push(PollFd::new(master.as_fd(), of_master));
            fds.len() - 1
        });
        let at_stdin = (reading && pending.is_empty()).then(|| {
            fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
            fds.len() - 1
        });
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => continue,
            Err(error) => return Err(error).context("could not wait for the container"),
        }
        let ready = |at: usize| fds[at].any().unwrap_or(true);
        let (signalled, ended) = (ready(0), ready(1));
        let master_ready = at_master.is_some_and(ready);
        let stdin_ready = at_stdin.is_some_and(ready);

        if signalled {
            signals.forward(container);
        }
        if stdin_ready {
            match rustix::io::read(&stdin, &mut buffer[..]) {
                Ok(0) => {
                    reading = false;
                    // What a person types for "no more": a terminal has no end.
                    pending.push(4);
                }
                Ok(n) => pending.extend_from_slice(&buffer[..n]),
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                Err(_) => reading = false,
            }
        }
        if !pending.is_empty() {
            match rustix::io::write(&master, &pending) {
                Ok(n) => drop(pending.drain(..n)),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(_) => pending.clear(),
            }
        }
        if master_ready || ended {
            // Until it would block: the last words of a container that has
            // ended are still in here.
            loop {
                match rustix::io::read(&master, &mut buffer[..]) {
                    Ok(0) | Err(rustix::io::Errno::IO) => {
                        hung_up = true;
                        break;
                    }
                    Ok(n) => write_out(&buffer[..n]),
                    Err(rustix::io::Errno::INTR) => {}
                    Err(_) => break,
                }
            }
        }
        if ended {
            return Ok(());
        }
    }
}

/// The container has our own descriptors; only signals pass through here.
fn without_terminal(container: &Container, signals: &mut Signals) -> anyhow::Result<()> {
    loop {
        let mut fds = [
            PollFd::new(signals.fd.as_fd(), PollFlags::POLLIN),
            PollFd::new(container.pidfd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => continue,
            Err(error) => return Err(error).context("could not wait for the container"),
        }
        let (signalled, ended) = (fds[0].any().unwrap_or(true), fds[1].any().unwrap_or(true));
        if signalled {
            signals.forward(container);
        }
        if ended {
            return Ok(());
        }
    }
}

/// A reader that has gone does not stop the container.
fn write_out(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match rustix::io::write(io::stdout(), bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}
