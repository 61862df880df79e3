//! Clears what processes left that could not clear up after themselves.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::record::{Record, is_supervised, now};
use super::{ContainerId, Exit, ExitStatus, Status, directory};
use crate::cgroup::{Cgroup, CgroupError};
use crate::network::{self, NetworkError};

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
/// are to be kept keep their directory, and are stopped.
pub(crate) fn sweep(root: &Path) -> Result<(), SweepError> {
    // One that resists does not keep the others from being swept: the first failure is told last.
    let mut swept = Ok(());
    let containers = root.join("containers");
    for id in names_in(&containers)? {
        let Ok(id) = id.parse::<ContainerId>() else { continue };
        swept = swept.and(sweep_container(root, &containers.join(id.as_str()), &id));
    }
    // Names of containers that went without giving theirs back.
    let names = root.join("names");
    for name in names_in(&names)? {
        let link = names.join(name);
        if fs::read_link(&link).is_ok_and(|id| !containers.join(id).exists()) {
            let _ = fs::remove_file(link);
        }
    }
    // A kept container has its lock's file for as long as its record; its address it has while
    // somebody supervises it.
    network::sweep(root, |id| is_supervised(&containers.join(id)))?;
    swept
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A container whose supervisor is gone, with an address.
    fn abandoned(root: &Path, id: &str, address: &str, keep: bool) -> PathBuf {
        let path = root.join("containers").join(id);
        let leases = root.join("network/bridge/leases");
        for directory in [&path, &leases, &root.join("trash")] {
            fs::create_dir_all(directory).unwrap();
        }
        fs::write(path.join("lock"), "").unwrap();
        symlink(id, leases.join(address)).unwrap();
        let record = Record {
            id: id.parse().unwrap(),
            name: None,
            image: String::new(),
            command: Vec::new(),
            status: Status::Running,
            pid: 0,
            pid_start: 0,
            supervisor: 0,
            keep,
            terminal: false,
            stop_signal: None,
            created: now(),
            started: None,
            exit: None,
        };
        record.write(&path).unwrap();
        path
    }

    fn leases(root: &Path) -> usize {
        let entries = fs::read_dir(root.join("network/bridge/leases")).unwrap().flatten();
        entries.filter(|entry| entry.path().is_symlink()).count()
    }

    #[test]
    fn a_container_that_is_kept_keeps_its_record_and_not_its_address() {
        let root = tempfile::tempdir().unwrap();
        let kept = abandoned(root.path(), "sweep-test-kept", "10.9.0.2", true);
        sweep(root.path()).unwrap();
        assert_eq!(Record::read(&kept).unwrap().unwrap().status, Status::Stopped);
        assert_eq!(leases(root.path()), 0);
    }

    #[test]
    fn one_that_resists_does_not_keep_the_others() {
        let root = tempfile::tempdir().unwrap();
        let ids = ["sweep-test-a", "sweep-test-b", "sweep-test-c", "sweep-test-d"];
        let make = |(n, id)| abandoned(root.path(), id, &format!("10.9.0.{n}"), false);
        let paths: Vec<_> = (2..).zip(ids).map(make).collect();
        // Whichever of them is listed first.
        let first = names_in(&root.path().join("containers")).unwrap().remove(0);
        let lock = root.path().join("containers").join(&first).join("lock");
        fs::remove_file(&lock).unwrap();
        symlink("lock", &lock).unwrap();
        sweep(root.path()).unwrap_err();
        let left = paths.iter().filter(|path| path.exists()).count();
        assert_eq!((left, leases(root.path())), (1, 0));
    }
}
