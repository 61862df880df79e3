//! What is kept of a container on disk; written by rename.
//!
//! ROOT/containers/ID holds `lock`, flock'ed by the process that supervises the container for as
//! long as it lives, and `record.json`. Whoever gets the lock knows that the supervisor is gone,
//! whatever the record says.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{ContainerId, Exit, Status};

/// What is kept of a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Its id.
    pub id: ContainerId,
    /// Its name, if it was given one.
    pub name: Option<String>,
    /// The digest of its image's config.
    pub image: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Where it stands.
    pub status: Status,
    /// Init's process id; 0 before there is one.
    pub pid: i32,
    /// When init started, in clock ticks since the machine did (proc_pid_stat(5), field 22): tells
    /// init from another process that later got its number.
    pub pid_start: u64,
    /// The supervisor's process id.
    pub supervisor: u32,
    /// True: the record stays when the container ends.
    pub keep: bool,
    /// True: it has a terminal.
    pub terminal: bool,
    /// What asks it to stop.
    pub stop_signal: Option<String>,
    /// When it was created.
    pub created: SystemTime,
    /// When its program was executed.
    pub started: Option<SystemTime>,
    /// How it ended.
    pub exit: Option<Exit>,
}

/// Why a record could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// A file could not be used.
    #[error("could not use {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// No container is called that.
    #[error("no container {name}")]
    NotFound {
        /// What was asked for.
        name: String,
    },
    /// More than one container's id begins with that.
    #[error("more than one container's id begins with {name}")]
    Ambiguous {
        /// What was asked for.
        name: String,
    },
}

/// The present, for records only: no rule of this crate depends on it.
#[expect(clippy::disallowed_methods, reason = "times in records are for people")]
pub(super) fn now() -> SystemTime {
    SystemTime::now()
}

impl Record {
    /// Writes the record. Not synced: after a power loss there is no container that it could tell of.
    pub(super) fn write(&self, directory: &Path) -> Result<(), RecordError> {
        let path = directory.join("record.json");
        let temporary = directory.join("record.json.tmp");
        let bytes = serde_json::to_vec(self).expect("a record is always JSON");
        fs::write(&temporary, bytes)
            .and_then(|()| fs::rename(&temporary, &path))
            .map_err(|source| RecordError::Io { path, source })
    }

    /// Reads the record of a container's directory; `None` where there is none (yet), or none that
    /// can be understood.
    pub fn read(directory: &Path) -> Result<Option<Self>, RecordError> {
        let path = directory.join("record.json");
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(RecordError::Io { path, source }),
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        }
    }

    /// Records of all containers beneath a state root, the newest first.
    ///
    /// # Errors
    ///
    /// When the directory cannot be read.
    pub fn list(root: &Path) -> Result<Vec<Self>, RecordError> {
        let path = root.join("containers");
        let entries = match fs::read_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(|source| RecordError::Io { path: path.clone(), source })?,
        };
        let mut records = Vec::new();
        for entry in entries.flatten() {
            // One that vanishes meanwhile was not there.
            let Ok(Some(mut record)) = Self::read(&entry.path()) else { continue };
            if record.status != Status::Stopped && !is_supervised(&entry.path()) {
                record.status = Status::Stopped;
            }
            records.push(record);
        }
        records.sort_by_key(|record| std::cmp::Reverse(record.created));
        Ok(records)
    }

    /// The container of this id, unique beginning of an id, or name.
    ///
    /// # Errors
    ///
    /// [`RecordError::NotFound`], [`RecordError::Ambiguous`].
    pub fn find(root: &Path, name: &str) -> Result<Self, RecordError> {
        let records = Self::list(root)?;
        let exact =
            |record: &&Self| record.name.as_deref() == Some(name) || record.id.as_str() == name;
        if let Some(record) = records.iter().find(exact) {
            return Ok(record.clone());
        }
        let mut matching =
            records.into_iter().filter(|record| record.id.as_str().starts_with(name));
        match (matching.next(), matching.next()) {
            _ if name.is_empty() => Err(RecordError::NotFound { name: name.to_owned() }),
            (Some(record), None) => Ok(record),
            (Some(_), Some(_)) => Err(RecordError::Ambiguous { name: name.to_owned() }),
            (None, _) => Err(RecordError::NotFound { name: name.to_owned() }),
        }
    }

    /// A descriptor of init, if it still is the process that the record means.
    pub fn pidfd(&self) -> Option<OwnedFd> {
        let pid = rustix::process::Pid::from_raw(self.pid)?;
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()?;
        (start_of(self.pid) == Some(self.pid_start)).then_some(pidfd)
    }

    /// Sends a signal to init. False: it has ended.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the signal.
    pub fn signal(&self, signal: rustix::process::Signal) -> io::Result<bool> {
        let Some(pidfd) = self.pidfd() else { return Ok(false) };
        match rustix::process::pidfd_send_signal(pidfd, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// When a process started, in clock ticks since the machine did: proc_pid_stat(5), field 22.
pub(super) fn start_of(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses, which may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// True while some process holds the container's lock.
pub(super) fn is_supervised(directory: &Path) -> bool {
    match File::open(directory.join("lock")) {
        // A shared lock: many may look at once without taking one another for the supervisor.
        Ok(lock) => matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)),
        Err(_) => false,
    }
}
