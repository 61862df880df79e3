//! Signals by their names, and what a process makes of them.

use std::fmt;
use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// A signal that containers are sent, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ContainerSignal(i32);

/// Names without `SIG`, and their numbers where we run.
const NAMES: [(&str, i32); 31] = [
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

/// Other names of some.
const ALIASES: [(&str, &str); 3] = [("IOT", "ABRT"), ("CLD", "CHLD"), ("POLL", "IO")];

/// The first that a program may use as it likes, beside those that its C library keeps: as docker
/// counts them.
const RT_MIN: i32 = 34;
/// The last signal: signal(7).
const MAX: i32 = 64;

impl ContainerSignal {
    /// SIGTERM, which asks a program to end where nothing else is said.
    pub const TERM: Self = Self(libc::SIGTERM);

    /// The signal that `text` names: `TERM`, `SIGTERM`, `15`, `SIGRTMIN+3`, whatever the case.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_uppercase();
        if let Ok(number) = text.parse::<i32>() {
            return (1..=MAX).contains(&number).then_some(Self(number));
        }
        let name = text.strip_prefix("SIG").unwrap_or(&text);
        let name = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, of)| of);
        if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
            return Some(Self(*number));
        }
        let offset = |rest: &str, sign: char| match rest {
            "" => Some(0),
            rest => rest.strip_prefix(sign)?.parse::<u8>().ok().map(i32::from),
        };
        let number = match name.strip_prefix("RTMIN") {
            Some(rest) => RT_MIN + offset(rest, '+')?,
            None => MAX - offset(name.strip_prefix("RTMAX")?, '-')?,
        };
        (RT_MIN..=MAX).contains(&number).then_some(Self(number))
    }

    /// The number.
    pub fn number(self) -> i32 {
        self.0
    }
}

impl fmt::Display for ContainerSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => write!(f, "SIG{name}"),
            None => write!(f, "signal {}", self.0),
        }
    }
}

/// Sends `signal` by `send` to the first process of a pid namespace, and says whether anything comes
/// of it. The kernel drops one that this process does not catch, whoever sends it, unless it is
/// blocked: pid_namespaces(7), signal(7).
///
/// # Errors
///
/// Those of `send`.
pub(super) fn send_to_first(
    pid: i32,
    signal: ContainerSignal,
    send: impl FnOnce() -> io::Result<()>,
) -> io::Result<bool> {
    // Where /proc does not show it, it has ended, and what was sent does no harm.
    let look = || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        match fate(&status, signal) {
            Fate::Dropped if waits_for_signals(pid) => Some(Fate::Awaited),
            other => Some(other),
        }
    };
    let before = look();
    send()?;
    match before {
        None | Some(Fate::Caught | Fate::Awaited) => return Ok(true),
        Some(Fate::Dropped) => return Ok(false),
        Some(Fate::Pending | Fate::Blocked) => {}
    }
    // C libraries block signals also for a moment, where they make a process; who looks for one
    // keeps it blocked, and takes it.
    let looked_since = Instant::now();
    while looked_since.elapsed() < PATIENCE {
        match look() {
            Some(Fate::Pending) => thread::sleep(BETWEEN_LOOKS),
            Some(Fate::Dropped) => return Ok(false),
            None | Some(Fate::Caught | Fate::Awaited | Fate::Blocked) => return Ok(true),
        }
    }
    Ok(true)
}

/// How long a signal may wait before it counts as one that will be noticed.
const PATIENCE: Duration = Duration::from_secs(1);
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// What becomes of a signal, or became of one that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Caught,
    /// Somebody waits for it.
    Awaited,
    /// It waits until it is no longer blocked, or is taken.
    Pending,
    /// It is blocked, and none is pending.
    Blocked,
    Dropped,
}

/// Whether a thread of a process waits for signals, as the first process of many an image does
/// that looks after others: sigtimedwait(2). What it waits for is not blocked meanwhile.
fn waits_for_signals(pid: i32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().any(|thread| {
        match fs::read_to_string(thread.path().join("syscall")) {
            Ok(text) => is_wait_for_signals(&text),
            // Where nobody may look, it may.
            Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
        }
    })
}

/// What /proc/PID/syscall says: the number of the call, and its arguments; proc_pid_syscall(5).
fn is_wait_for_signals(text: &str) -> bool {
    let number = text.split(' ').next().and_then(|number| number.trim().parse().ok());
    number == Some(libc::SYS_rt_sigtimedwait)
}

/// What the text of /proc/PID/status says of it: proc_pid_status(5).
fn fate(status: &str, signal: ContainerSignal) -> Fate {
    let bit = u32::try_from(signal.0 - 1).ok().and_then(|shift| 1_u64.checked_shl(shift));
    let has = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let mask = u64::from_str_radix(line.trim_start_matches(':').trim(), 16).ok()?;
        Some(mask & bit? != 0)
    };
    match (has("SigCgt"), has("SigBlk"), has("ShdPnd")) {
        (Some(true), ..) => Fate::Caught,
        (Some(false), Some(false), _) => Fate::Dropped,
        (Some(false), Some(true), Some(true)) => Fate::Pending,
        // Nor is it known to be dropped where this cannot be read.
        _ => Fate::Blocked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers_as_with_docker() {
        for (text, number) in [
            ("TERM", Some(15)),
            ("SIGTERM", Some(15)),
            ("sigint", Some(2)),
            (" SIGQUIT ", Some(3)),
            ("9", Some(9)),
            ("SIGRTMIN", Some(34)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("SIGRTMAX", Some(64)),
            ("SIGPOLL", Some(libc::SIGIO)),
            ("SIGRTMIN+31", None),
            ("SIGRTMAX-31", None),
            ("RTMIN-1", None),
            ("0", None),
            ("65", None),
            ("-1", None),
            ("SIG", None),
            ("", None),
            ("NOPE", None),
        ] {
            assert_eq!(ContainerSignal::parse(text).map(ContainerSignal::number), number, "{text}");
        }
        assert_eq!(ContainerSignal::TERM.to_string(), "SIGTERM");
        assert_eq!(ContainerSignal(37).to_string(), "signal 37");
    }

    #[test]
    fn a_signal_is_dropped_that_is_neither_caught_nor_blocked() {
        let status = |pending: &str, blocked: &str, caught: &str| {
            format!(
                "Name:\tx\nSigPnd:\t{NONE}\nShdPnd:\t{pending}\nSigBlk:\t{blocked}\n\
                 SigIgn:\t{TERM}\nSigCgt:\t{caught}\n"
            )
        };
        const NONE: &str = "0000000000000000";
        const TERM: &str = "0000000000004000";
        for (pending, blocked, caught, expected) in [
            (NONE, NONE, NONE, Fate::Dropped),
            (NONE, NONE, TERM, Fate::Caught),
            (TERM, TERM, TERM, Fate::Caught),
            (TERM, TERM, NONE, Fate::Pending),
            (NONE, TERM, NONE, Fate::Blocked),
        ] {
            let text = status(pending, blocked, caught);
            assert_eq!(fate(&text, ContainerSignal::TERM), expected, "{text}");
        }
        let (int, last) = (ContainerSignal(libc::SIGINT), ContainerSignal(64));
        assert_eq!(fate(&status(TERM, TERM, TERM), int), Fate::Dropped);
        assert_eq!(fate(&status(NONE, NONE, "8000000000000000"), last), Fate::Caught);
        assert_eq!(fate("Name:\tx\n", int), Fate::Blocked);
        assert!(is_wait_for_signals(&format!("{} 0x7ffe 0x0\n", libc::SYS_rt_sigtimedwait)));
        for text in ["running\n", "0 0x3 0x7f\n", "-1 0x7f 0x0\n", ""] {
            assert!(!is_wait_for_signals(text), "{text}");
        }
    }
}
