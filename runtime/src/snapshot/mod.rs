//! A stack of unpacked layers, made mountable.
//!
//! Each layer is a directory of the store already, so a snapshot costs nothing
//! but the mount: see [`overlay`].

pub mod overlay;

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use crate::image::{Image, Store};

/// Directories that every container has something mounted on.
const DIRECTORIES: [&str; 4] = ["dev", "proc", "sys", "etc"];
/// Files of `/etc` that are the container's own.
const FILES: [&str; 3] = ["etc/hosts", "etc/hostname", "etc/resolv.conf"];

/// The lower directories of an image's overlay, the top first.
///
/// The topmost is `layers/init`: empty mount points, so that mounting on them
/// writes nothing into a container's upper directory.
#[must_use]
pub fn lower_directories(store: &Store, image: &Image) -> Vec<PathBuf> {
    let layers = image.diff_ids().iter().rev().map(|diff_id| store.layer_directory(diff_id));
    std::iter::once(store.init_layer()).chain(layers).collect()
}

/// Makes the layer of mount points at `path`, which does not exist yet, by way of `temporary`.
pub(crate) fn make_init_layer(path: &Path, temporary: &Path) -> io::Result<()> {
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    fs::create_dir_all(temporary)?;
    mode(temporary, 0o755)?;
    for name in DIRECTORIES {
        fs::create_dir_all(temporary.join(name))?;
        mode(&temporary.join(name), 0o755)?;
    }
    for name in FILES {
        fs::write(temporary.join(name), b"")?;
        mode(&temporary.join(name), 0o644)?;
    }
    // As Docker has it: what asks for the mounts sees those of its own namespace.
    symlink("/proc/mounts", temporary.join("etc/mtab"))?;
    fs::rename(temporary, path)
}
