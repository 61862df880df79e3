//! One process per directory: the lock goes when the process does.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use abax_actors::HostId;
use anyhow::{Context as _, bail};

/// Hosts of the past that a lock remembers: more than one, since a process may end
/// before it could tell the database of the one before it.
const REMEMBERED: usize = 8;

/// A locked file. It holds the locker's process id, and the ids of the hosts that
/// the processes were that have had the lock.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    path: PathBuf,
    note: String,
}

/// Who follows whom as a host.
#[derive(Debug, Clone)]
pub(super) struct Succession {
    /// This process.
    pub(super) id: HostId,
    /// Those that had the lock before it, so that they are known to be dead.
    pub(super) dead: Vec<HostId>,
}

impl Lock {
    /// Locks the file `path`.
    ///
    /// # Errors
    ///
    /// Another process has it: `taken` makes the message from its process id.
    pub(super) fn take(path: &Path, taken: impl Fn(&str) -> String) -> anyhow::Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .with_context(|| format!("could not open {}", path.display()))?;
        let locked = file.try_lock();
        let mut text = String::new();
        let _ = file.read_to_string(&mut text);
        let (process, note) = text.split_once('\n').unwrap_or((&text, ""));
        match locked {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => bail!("{}", taken(process.trim())),
            Err(fs::TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("could not lock {}", path.display()));
            }
        }
        let note = note.trim().to_owned();
        let mut lock = Self { file, path: path.to_owned(), note };
        lock.write()?;
        Ok(lock)
    }

    /// Makes this process a host, and notes that for its successor.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub(super) fn succeed(&mut self) -> anyhow::Result<Succession> {
        let id = HostId::generate();
        // Earlier versions noted a name, which is no id.
        let dead: Vec<HostId> = self.note.split_whitespace().filter_map(HostId::parse).collect();
        let hosts = std::iter::once(&id).chain(&dead).take(REMEMBERED);
        self.note = hosts.map(HostId::as_str).collect::<Vec<_>>().join(" ");
        self.write()?;
        Ok(Succession { id, dead })
    }

    /// Notes our process id, for who finds the lock taken, and the hosts.
    fn write(&mut self) -> anyhow::Result<()> {
        let mut write = || -> io::Result<()> {
            self.file.set_len(0)?;
            self.file.rewind()?;
            writeln!(self.file, "{}\n{}", std::process::id(), self.note)
        };
        write().with_context(|| format!("could not write {}", self.path.display()))
    }
}

/// Makes a directory for the owner only.
///
/// # Errors
///
/// It cannot be made or protected.
pub(super) fn private_directory(path: &Path) -> anyhow::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)
            .with_context(|| format!("could not create {}", parent.display()))?;
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("could not create {}", path.display()));
        }
        _ => {}
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
        .with_context(|| format!("could not protect {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_the_lock_knows_who_had_it_before() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        // As earlier versions left it.
        fs::write(&path, "17\nworker-1\n").unwrap();
        let mut hosts = Vec::new();
        for _ in 0..REMEMBERED + 2 {
            let mut lock = Lock::take(&path, str::to_owned).unwrap();
            let taken = Lock::take(&path, str::to_owned).unwrap_err();
            assert_eq!(taken.to_string(), std::process::id().to_string());
            let Succession { id, dead } = lock.succeed().unwrap();
            hosts.truncate(REMEMBERED);
            assert_eq!(dead, hosts, "the latest first");
            hosts.insert(0, id);
            drop(lock);
            // One that ended before it was a host.
            drop(Lock::take(&path, str::to_owned).unwrap());
        }
    }
}
