//! What is reachable from a name; remove the rest.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use super::store::{Store, StoreError, file_error};
use crate::digest::{DiffId, Digest};

/// A pull or a build brings blobs and layers before the image that refers to them.
const GRACE: Duration = Duration::from_hours(1);

/// What [`Store::prune`] has removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Blobs.
    pub blobs: u64,
    /// Bytes of those blobs.
    pub blob_bytes: u64,
    /// Unpacked layers.
    pub layers: u64,
}

impl Store {
    /// Removes blobs and unpacked layers that no listed image refers to.
    ///
    /// `in_use` are the layers that containers are stacked on: they stay, and
    /// so does what is younger than `grace` (an hour where it is none), since
    /// whoever brought it may not have named its image yet.
    ///
    /// # Errors
    ///
    /// An image cannot be read, and so neither what it refers to; nothing is removed then.
    pub fn prune(
        &self,
        in_use: &HashSet<DiffId>,
        grace: Option<Duration>,
    ) -> Result<Pruned, StoreError> {
        let grace = grace.unwrap_or(GRACE);
        let pruned = self.with_index_locked(|manifests| {
            let mut blobs: HashSet<Digest> = HashSet::new();
            let mut layers = in_use.clone();
            for manifest in manifests {
                let image = self.image(&manifest)?;
                blobs.extend([manifest, *image.id()]);
                blobs.extend(image.layers().iter().map(|layer| layer.digest));
                layers.extend(image.diff_ids());
            }
            let mut pruned = Pruned::default();
            let directory = self.path("images/blobs/sha256");
            for (digest, path) in named_by_digest(&directory)? {
                if blobs.contains(&digest) {
                    continue;
                }
                let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
                if is_older(&metadata, grace) {
                    fs::remove_file(&path).map_err(file_error("remove", &path))?;
                    pruned.blobs += 1;
                    pruned.blob_bytes += metadata.len();
                }
            }
            for (digest, path) in named_by_digest(&self.path("layers"))? {
                if layers.contains(&DiffId(digest)) {
                    continue;
                }
                let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
                if is_older(&metadata, grace) {
                    // Out of sight at once; deleting takes its time, without the lock.
                    let trash = self.path(format!("trash/layer.{}", rand::random::<u64>()));
                    fs::rename(&path, &trash).map_err(file_error("rename", &path))?;
                    pruned.layers += 1;
                }
            }
            Ok(pruned)
        })?;
        self.empty_trash()?;
        Ok(pruned)
    }
}

/// The entries of a directory whose names are digests.
fn named_by_digest(directory: &Path) -> Result<Vec<(Digest, std::path::PathBuf)>, StoreError> {
    let entries = fs::read_dir(directory).map_err(file_error("read", directory))?;
    let digest = |entry: fs::DirEntry| {
        let digest = Digest::from_hex(entry.file_name().to_str()?).ok()?;
        Some((digest, entry.path()))
    };
    Ok(entries.flatten().filter_map(digest).collect())
}

/// By the change of the inode, which is the renaming into place: a layer's own time is its archive's.
fn is_older(metadata: &fs::Metadata, age: Duration) -> bool {
    let changed = Duration::new(
        u64::try_from(metadata.ctime()).unwrap_or(0),
        u32::try_from(metadata.ctime_nsec()).unwrap_or(0),
    );
    let changed = std::time::UNIX_EPOCH + changed;
    changed.elapsed().is_ok_and(|elapsed| elapsed >= age)
}
