//! Containers: create, start, wait, kill, delete.
//!
//! A caller has one [`Launcher`] and makes containers through it, from any number of threads:
//!
//! ```no_run
//! # use abax_runtime::{Runtime, container::{Container, Launcher, Options, Stdio}};
//! # fn run(runtime: &Runtime, launcher: &Launcher, image: &abax_runtime::image::Image)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! let options = Options { args: vec!["true".to_owned()], ..Options::default() };
//! let container = Container::create(runtime, launcher, image, options, Stdio::Inherit)?;
//! container.start()?;
//! let exit = container.wait()?;
//! container.delete()?;
//! assert_eq!(exit.exit_code(), 0);
//! # Ok(())
//! # }
//! ```

mod devices;
mod directory;
mod record;
mod signal;
mod spec;
mod status;

mod handshake;
mod init;
mod launch;
mod launcher;
mod provisions;
pub(crate) mod rootfs;

mod remove;
mod sweep;

use std::fmt;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

pub use handshake::Step;
pub use launch::{Container, CreateError, DeleteError, StartError, WaitError};
pub use launcher::{Launcher, LauncherError, run_launcher_if_asked};
pub use record::{Record, RecordError};
pub use remove::{RemoveError, Running, remove};
pub use signal::ContainerSignal;
pub use status::Status;
pub use sweep::SweepError;
pub(crate) use sweep::sweep;

use crate::cgroup::Limits;
use crate::network::Mode;

/// How a container is to run. The default is `docker run`'s, without a network.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Its id; a random one by default.
    pub id: Option<ContainerId>,
    /// A name that people use instead of the id.
    pub name: Option<String>,
    /// In place of the image's entrypoint; the image's command is then not used.
    pub entrypoint: Option<Vec<String>>,
    /// In place of the image's command.
    pub args: Vec<String>,
    /// Environment over the image's.
    pub env: Vec<(String, String)>,
    /// In place of the image's; made where it is missing.
    pub working_directory: Option<String>,
    /// In place of the image's: name, uid, or either with `:group`.
    pub user: Option<String>,
    /// The one user and group whose ids mean in an unprivileged container what they mean on the
    /// host, so that it may use what belongs to them in mounts.
    pub host_user: Option<HostUser>,
    /// The first 12 characters of the id by default.
    pub hostname: Option<String>,
    /// What it sees of the network.
    pub network: Mode,
    /// In this order, after our own.
    pub mounts: Vec<Mount>,
    /// What lies in the container's own directory and goes with it; mounted after the rest.
    pub provisions: Vec<Provision>,
    /// True: standard input, output and error are a terminal.
    pub terminal: bool,
    /// What it may use.
    pub limits: Limits,
    /// How it is kept apart from the host.
    pub isolation: Isolation,
    /// True: nothing can be written but in mounts.
    pub read_only: bool,
    /// True: pid 1 is a reaper of ours, and the program its child.
    pub init: bool,
    /// True: the record and the writable layer stay until they are deleted. False is `--rm`.
    pub keep: bool,
    /// The host's CA bundle, shown to the container and named in the variables that programs look at.
    pub ca_bundle: Option<PathBuf>,
    /// What asks it to stop: the image's or SIGTERM by default.
    pub stop_signal: Option<String>,
}

/// How a container is kept apart from the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// Docker's default: 14 capabilities, seccomp, masked paths; root is root.
    #[default]
    Docker,
    /// For strangers' code: a user namespace mapped to ids that are nobody's on the host, no
    /// capabilities, no new privileges, seccomp, and a bound on processes.
    Unprivileged,
    /// Docker's `--privileged`: every capability and device of the host, no filter of system
    /// calls, nothing hidden or read-only. Whoever is root in it is root of the host.
    Privileged,
}

/// Ids of the host that an unprivileged container has as its own, beside those that are nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostUser {
    /// The user; never 0, nor one of the ids that are nobody's.
    pub uid: u32,
    /// The group; as the user.
    pub gid: u32,
}

impl HostUser {
    /// A user and a group that containers may have.
    ///
    /// # Errors
    ///
    /// An id is root's, or one of those that unprivileged containers have in any case.
    pub fn new(uid: u32, gid: u32) -> Result<Self, InvalidHostUser> {
        match [uid, gid].into_iter().find(|id| !spec::may_be_of_host(*id)) {
            Some(id) => Err(InvalidHostUser(id)),
            None => Ok(Self { uid, gid }),
        }
    }
}

/// An id of the host that no container may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no container may run as user or group {0}: it must be neither root's, nor between 1000000 \
     and 1065535, nor above 2147483647"
)]
pub struct InvalidHostUser(u32);

/// Something mounted into a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// What.
    pub source: MountSource,
    /// Where; symlinks are followed inside the container, and missing directories made.
    pub target: PathBuf,
    /// True: with everything mounted below it.
    pub read_only: bool,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountSource {
    /// A path of the host.
    Bind(PathBuf),
    /// A path of the host on which no part may be a symbolic link: whoever may write
    /// on the way there would say what is mounted.
    BindWithoutLinks(PathBuf),
    /// A new file system in memory.
    Tmpfs {
        /// Its bound; half of the memory by default.
        size_bytes: Option<u64>,
    },
}

/// Something of the caller's that a container finds at a path, read-only and open to all of its
/// users.
#[derive(Clone, Debug)]
pub struct Provision {
    /// Where; as [`Mount::target`].
    pub target: PathBuf,
    /// What.
    pub content: Content,
}

/// What a provision is.
#[derive(Clone, Debug)]
pub enum Content {
    /// A regular file with these bytes.
    File(Arc<[u8]>),
    /// A socket that was not bound yet: what the container sends to the path arrives there.
    Datagrams(Arc<UnixDatagram>),
}

/// What becomes standard input, output and error.
#[derive(Debug)]
pub enum Stdio {
    /// Ours.
    Inherit,
    /// /dev/null.
    Null,
    /// These.
    Fds {
        /// Standard input.
        stdin: OwnedFd,
        /// Standard output.
        stdout: OwnedFd,
        /// Standard error.
        stderr: OwnedFd,
    },
    /// A terminal of the container's own; its other end is [`Container::terminal`].
    Terminal(WindowSize),
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// A container's id: also the name of its directory, cgroup and leases.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

impl ContainerId {
    /// 64 random hexadecimal digits.
    pub fn random() -> Self {
        let mut bytes = [0; 32];
        rand::fill(&mut bytes);
        Self(hex::encode(bytes))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 12 characters, as people see it.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

/// A text that is no container id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no container id: 1 to 64 letters, digits, `_`, `.` and `-`, the first a letter or digit"
)]
pub struct InvalidId(String);

impl FromStr for ContainerId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if starts_well && text.len() <= 64 && text.chars().all(valid) {
            return Ok(Self(text.to_owned()));
        }
        Err(InvalidId(text.to_owned()))
    }
}

impl TryFrom<String> for ContainerId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> Self {
        id.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// By itself or by a signal.
    pub status: ExitStatus,
    /// True: the kernel killed a process of it because its memory limit was reached.
    pub out_of_memory: bool,
    /// When that was noticed.
    pub finished: SystemTime,
}

/// How init ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExitStatus {
    /// With this code.
    Exited(u8),
    /// By this signal.
    Signaled(i32),
}

impl Exit {
    /// As a shell has it: the code, or 128 + the signal.
    pub fn exit_code(&self) -> i32 {
        match self.status {
            ExitStatus::Exited(code) => i32::from(code),
            ExitStatus::Signaled(signal) => 128 + signal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_names_of_directories_and_nothing_else() {
        assert!(ContainerId::random().as_str().parse::<ContainerId>().is_ok());
        for text in ["", ".", "..", "a/b", "-rf", "é", "a b", &"a".repeat(65)] {
            assert!(text.parse::<ContainerId>().is_err(), "{text}");
        }
    }
}
