//! Removes what a kept container left, from any process.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::record::{Record, RecordError};
use super::{ContainerId, SweepError, directory, sweep};
use crate::Runtime;
use crate::trash::remove_tree;

/// How long the supervisor of a killed container may take to be done with it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a container is still there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum RemoveError {
    #[error(transparent)]
    Find(#[from] RecordError),
    #[error("container {id} is running; stop it, or remove it by force")]
    Running { id: ContainerId },
    #[error("could not kill container {id}")]
    Kill { id: ContainerId, source: io::Error },
    #[error("the process {supervisor} that supervises container {id} does not let go of it")]
    Held { id: ContainerId, supervisor: u32 },
    #[error(transparent)]
    Sweep(#[from] SweepError),
    #[error("could not remove {}", path.display())]
    Directory { path: PathBuf, source: io::Error },
}

/// Whether a container that runs is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Running {
    /// It is not.
    Refuse,
    /// It is killed first.
    Kill,
}

/// Removes the container called `name` (by id, unique beginning of one, or name) with its record
/// and its writable layer.
///
/// # Errors
///
/// [`RemoveError::Running`] for one that runs, unless it is to be killed.
pub fn remove(runtime: &Runtime, name: &str, running: Running) -> Result<(), RemoveError> {
    let record = Record::find(runtime.root(), name)?;
    let id = record.id.clone();
    let path = runtime.root().join("containers").join(id.as_str());
    let lock = match File::open(path.join("lock")) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(RemoveError::Directory { path, source }),
    };
    if lock.try_lock().is_err() {
        if running == Running::Refuse {
            return Err(RemoveError::Running { id });
        }
        record
            .signal(Signal::KILL)
            .map_err(|source| RemoveError::Kill { id: id.clone(), source })?;
        let deadline = Instant::now() + PATIENCE;
        while lock.try_lock().is_err() {
            if Instant::now() > deadline {
                return Err(RemoveError::Held { id, supervisor: record.supervisor });
            }
            // No kernel call waits for a lock and a deadline at once.
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    sweep::remove_cgroup(id.as_str())?;
    // Its name, if it has one, is free as soon as the directory is gone.
    let removed = directory::discard(runtime.root(), &path).and_then(|trash| remove_tree(&trash));
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(RemoveError::Directory { path, source: error })
        }
        _ => Ok(()),
    }
}
