//! Signals by their names, and what a process makes of them.

use std::fmt;
use std::fs;
use std::io;
use std::thread;
use std::time::Duration;

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

/// Whether anything comes of `signal` in the first process of a pid namespace. The kernel drops one
/// that it does not catch, whoever sends it, unless it is blocked, and then waited for:
/// pid_namespaces(7), signal(7).
///
/// # Errors
///
/// The process has ended, or /proc does not show it.
pub(super) fn is_noticed(pid: i32, signal: ContainerSignal) -> io::Result<bool> {
    // C libraries block all signals for a moment where they make a process or a thread.
    for look in 0..LOOKS {
        if look > 0 {
            thread::sleep(BETWEEN_LOOKS);
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        match fate(&status, signal) {
            Fate::Caught => return Ok(true),
            Fate::Blocked => {}
            Fate::Dropped => return Ok(false),
        }
    }
    Ok(true)
}

/// So often is looked whether a signal is blocked for longer than a moment.
const LOOKS: u32 = 3;
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// What becomes of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Caught,
    Blocked,
    Dropped,
}

/// What the text of /proc/PID/status says of it: proc_pid_status(5).
fn fate(status: &str, signal: ContainerSignal) -> Fate {
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(line.trim_start_matches(':').trim(), 16).ok()
    };
    let bit = u32::try_from(signal.0 - 1).ok().and_then(|shift| 1_u64.checked_shl(shift));
    match (mask("SigCgt"), mask("SigBlk"), bit) {
        (Some(caught), _, Some(bit)) if caught & bit != 0 => Fate::Caught,
        (Some(_), Some(blocked), Some(bit)) if blocked & bit == 0 => Fate::Dropped,
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
        let status = |blocked: &str, caught: &str| {
            format!("Name:\tx\nSigBlk:\t{blocked}\nSigIgn:\t0000000000004000\nSigCgt:\t{caught}\n")
        };
        let none = "0000000000000000";
        let term = "0000000000004000";
        let of_term = |blocked, caught| fate(&status(blocked, caught), ContainerSignal::TERM);
        assert_eq!(of_term(none, none), Fate::Dropped, "it is ignored");
        assert_eq!(of_term(none, term), Fate::Caught);
        assert_eq!(of_term(term, term), Fate::Caught);
        assert_eq!(of_term(term, none), Fate::Blocked);
        let (int, last) = (ContainerSignal(libc::SIGINT), ContainerSignal(64));
        assert_eq!(fate(&status(term, term), int), Fate::Dropped);
        assert_eq!(fate(&status(none, "8000000000000000"), last), Fate::Caught);
        assert_eq!(fate("Name:\tx\n", int), Fate::Blocked);
    }
}
