//! A container's directory, ROOT/containers/ID: made, locked, named, and moved to the trash.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::handshake::Request;
use super::{ContainerId, CreateError, DeleteError, Launcher, init};
use crate::trash::remove_tree;

/// A container's directory and the lock that says that we supervise it. Moved to the trash on drop.
#[derive(Debug)]
pub(super) struct Directory {
    root: PathBuf,
    pub(super) path: PathBuf,
    name: Option<PathBuf>,
    /// Held as long as this process supervises the container.
    _lock: File,
    kept: bool,
}

impl Directory {
    pub(super) fn create(
        root: &Path,
        id: &ContainerId,
        name: Option<&str>,
    ) -> Result<Self, CreateError> {
        let path = root.join("containers").join(id.as_str());
        let failed = |source| CreateError::Directory { path: path.clone(), source };
        let lock = loop {
            match fs::DirBuilder::new().mode(0o711).create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(CreateError::Exists { id: id.clone() });
                }
                other => other.map_err(failed)?,
            }
            // A sweep may come between and take the directory for a dead one. Then it is in the
            // trash, lock and all, when the sweep lets go of the lock, and another one must be made.
            let lock =
                OpenOptions::new().create(true).truncate(false).write(true).open(path.join("lock"));
            let lock = match lock {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(failed)?,
            };
            lock.lock().map_err(failed)?;
            let ours = lock.metadata().map_err(failed)?.ino();
            if fs::metadata(path.join("lock")).is_ok_and(|metadata| metadata.ino() == ours) {
                break lock;
            }
        };
        let mut directory =
            Self { root: root.to_owned(), path, name: None, _lock: lock, kept: false };
        for part in ["upper", "work"] {
            let part = directory.path.join(part);
            // Not by the mode of mkdir(2), from which our umask would be taken: this is the
            // container's `/`, which all of its users pass through.
            fs::create_dir(&part)
                .and_then(|()| fs::set_permissions(&part, Permissions::from_mode(0o755)))
                .map_err(|source| CreateError::Directory { path: part, source })?;
        }
        if let Some(name) = name {
            directory.take_name(id, name)?;
        }
        Ok(directory)
    }

    /// ROOT/names/NAME is a symlink to the container, so that a name is taken by one only.
    fn take_name(&mut self, id: &ContainerId, name: &str) -> Result<(), CreateError> {
        let names = self.root.join("names");
        let path = names.join(name);
        let failed = |source| CreateError::Directory { path: path.clone(), source };
        if name.parse::<ContainerId>().is_err() {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "not a valid name")));
        }
        fs::create_dir_all(&names).map_err(failed)?;
        loop {
            match symlink(id.as_str(), &path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => {
                    other.map_err(failed)?;
                    self.name = Some(path);
                    return Ok(());
                }
            }
            let Ok(by) = fs::read_link(&path) else { continue };
            if self.root.join("containers").join(&by).exists() {
                let by = by.display().to_string();
                return Err(CreateError::NameTaken { name: name.to_owned(), by });
            }
            // Left by a container that is gone.
            let _ = fs::remove_file(&path);
        }
    }

    /// What the overlay shows as `/` belongs to the owner of the upper directory.
    pub(super) fn give_to_root_of(
        &self,
        spec: &oci_spec::runtime::Spec,
    ) -> Result<(), CreateError> {
        let Some(mapping) = init::id_mapping(spec) else { return Ok(()) };
        let path = self.path.join("upper");
        std::os::unix::fs::chown(&path, Some(mapping.first), Some(mapping.first))
            .map_err(|source| CreateError::Directory { path, source })?;
        Ok(())
    }

    /// Moves everything to the trash, and has the launcher delete it when there is time.
    pub(super) fn remove(mut self, launcher: &Launcher) -> Result<(), DeleteError> {
        let trash = self.discard()?;
        // A launcher that is gone leaves it to the next sweep.
        let _ = launcher.send(&Request::Remove(trash), &[]);
        Ok(())
    }

    pub(super) fn keep(mut self) {
        self.kept = true;
    }

    fn discard(&mut self) -> Result<PathBuf, DeleteError> {
        self.kept = true;
        if let Some(name) = self.name.take() {
            let _ = fs::remove_file(name);
        }
        discard(&self.root, &self.path)
            .map_err(|source| DeleteError::Directory { path: self.path.clone(), source })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !self.kept
            && let Ok(trash) = self.discard()
        {
            let _ = remove_tree(&trash);
        }
    }
}

/// Moves a container's directory to the trash; from then on there is no such container.
pub(super) fn discard(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Two containers of one id, one after the other, may meet in the trash.
    let trash = root.join("trash").join(format!("{name}.{:016x}", rand::random::<u64>()));
    fs::rename(path, &trash)?;
    Ok(trash)
}
