//! Clears what processes left that could not clear up after themselves.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::record::{Record, now};
use super::{ContainerId, Exit, ExitStatus, Status, directory};
use crate::cgroup::{Cgroup, CgroupError};
use crate::network::{self, NetworkError};
use crate::trash::remove_tree;

/// A directory without a lock is being made right now, unless it is older than this.
const MAKING: Duration = Duration::from_secs(60);

/// Why something is left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SweepError {
    /// A directory could not be used.
    #[error("could not sweep {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A control group could not be removed.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// Addresses could not be given back.
    #[error(transparent)]
    Network(#[from] NetworkError),
}

/// Containers whose supervisor is gone lose their processes, cgroups, addresses and directories; those that
/// are to be kept keep their directory, and are stopped. Then the trash is emptied.
pub(crate) fn sweep(root: &Path) -> Result<(), SweepError> {
    let containers = root.join("containers");
    for id in names_in(&containers)? {
        let Ok(id) = id.parse::<ContainerId>() else { continue };
        sweep_container(root, &containers.join(id.as_str()), &id)?;
    }
    // Names of containers that went without giving theirs back.
    let names = root.join("names");
    for name in names_in(&names)? {
        let link = names.join(name);
        if fs::read_link(&link).is_ok_and(|id| !containers.join(id).exists()) {
            let _ = fs::remove_file(link);
        }
    }
    network::sweep(root, |id| containers.join(id).join("lock").exists())?;
    let trash = root.join("trash");
    for name in names_in(&trash)? {
        let path = trash.join(name);
        remove_tree(&path).map_err(|source| SweepError::Directory { path, source })?;
    }
    Ok(())
}

fn sweep_container(root: &Path, path: &Path, id: &ContainerId) -> Result<(), SweepError> {
    let failed = |source| SweepError::Directory { path: path.to_owned(), source };
    let lock = match File::open(path.join("lock")) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let old = fs::metadata(path).and_then(|metadata| metadata.modified());
            let is_old =
                old.is_ok_and(|made| now().duration_since(made).is_ok_and(|age| age > MAKING));
            if is_old {
                let _ = directory::discard(root, path);
            }
            return Ok(());
        }
        Err(error) => return Err(failed(error)),
    };
    if lock.try_lock().is_err() {
        return Ok(());
    }
    // Nobody supervises it, so whatever still runs of it is killed.
    remove_cgroup(id.as_str())?;
    match Record::read(path) {
        Ok(Some(mut record)) if record.keep => {
            if record.status != Status::Stopped {
                record.status = Status::Stopped;
                let killed = ExitStatus::Signaled(libc::SIGKILL);
                record.exit.get_or_insert(Exit {
                    status: killed,
                    out_of_memory: false,
                    finished: now(),
                });
                let _ = record.write(path);
            }
        }
        _ => match directory::discard(root, path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        },
    }
    Ok(())
}

pub(super) fn remove_cgroup(id: &str) -> Result<(), SweepError> {
    let cgroup = Cgroup::open(&format!("abax/{id}"))?;
    cgroup.kill()?;
    Ok(cgroup.remove()?)
}

fn names_in(directory: &Path) -> Result<Vec<String>, SweepError> {
    match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(SweepError::Directory { path: directory.to_owned(), source }),
        Ok(entries) => Ok(entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()),
    }
}
