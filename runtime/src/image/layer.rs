//! A layer's directory from its making to its name.

use std::fs::{self, File};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::store::{Store, StoreError, file_error};
use crate::digest::DiffId;

/// A directory that is being filled; removed when dropped, swept when its process died.
#[derive(Debug)]
pub(super) struct LayerInProgress {
    path: PathBuf,
    /// Locked as long as it lives, which is how `Store::sweep` knows.
    directory: File,
    kept: bool,
}

impl LayerInProgress {
    pub(super) fn create(store: &Store) -> Result<Self, StoreError> {
        // A sweep between the making and the locking would find it abandoned.
        let _lock = store.lock_sweep()?;
        let tmp = store.temporary_path("");
        let path = tempfile::Builder::new()
            .prefix("layer.")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in(&tmp)
            .map_err(file_error("create a directory in", &tmp))?
            .keep();
        let directory = File::open(&path).map_err(file_error("open", &path))?;
        let layer = Self { path, directory, kept: false };
        layer.directory.lock().map_err(file_error("lock", &layer.path))?;
        fs::set_permissions(&layer.path, fs::Permissions::from_mode(0o755))
            .map_err(file_error("change the mode of", &layer.path))?;
        Ok(layer)
    }

    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Gives the layer its name. Where another process was first, its layer stays and this one goes.
    pub(super) fn keep(mut self, store: &Store, diff_id: &DiffId) -> Result<(), StoreError> {
        sync(self.directory(), &self.path)?;
        self.kept = place(store, &self.path, diff_id)?;
        Ok(())
    }
}

/// Writes the whole file system that `directory` is on to the disk, before a layer gets its name:
/// a layer is never looked into again, so one that a power cut has damaged would stay.
///
/// One call for all files: a fraction of a second where thousands of fsync(2) would take many.
pub(super) fn sync(directory: BorrowedFd<'_>, path: &Path) -> Result<(), StoreError> {
    rustix::fs::syncfs(directory).map_err(|errno| file_error("sync", path)(errno.into()))
}

/// Renames a complete directory to the name of a layer; false where the layer is there already.
pub(super) fn place(store: &Store, path: &Path, diff_id: &DiffId) -> Result<bool, StoreError> {
    let target = store.layer_directory(diff_id);
    match fs::rename(path, &target) {
        Ok(()) => Ok(true),
        // A layer is never removed while it is complete and wanted, so it is the same.
        Err(_) if target.exists() => Ok(false),
        Err(source) => Err(StoreError::File { action: "rename", path: path.to_owned(), source }),
    }
}

impl Drop for LayerInProgress {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
