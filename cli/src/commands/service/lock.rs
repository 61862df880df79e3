//! One process per directory: the lock goes when the process does.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// A locked file. It holds the locker's process id, and a note for its successor.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    path: PathBuf,
    /// What the process before had noted.
    pub(super) note: String,
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
        lock.leave("")?;
        Ok(lock)
    }

    /// Notes our process id, for who finds the lock taken, and `note`.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub(super) fn leave(&mut self, note: &str) -> anyhow::Result<()> {
        let mut write = || -> io::Result<()> {
            self.file.set_len(0)?;
            self.file.rewind()?;
            writeln!(self.file, "{}\n{note}", std::process::id())
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
