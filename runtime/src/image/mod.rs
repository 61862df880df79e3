//! Images: a resolved manifest and its config, kept in an OCI layout.
//!
//! A manifest names a config and a stack of layers. The config's digest is the
//! image's id; the config's diff_ids name the unpacked layers. Everything is
//! addressed by content, so an [`Image`] that is loaded never changes.

mod manifest;
mod resolved;

mod archive;
mod blob;
mod diff;
mod layer;
mod lock;
mod prune;
mod store;

mod tar;
mod unpack;

pub use archive::{ImportError, import};
pub use blob::{BlobLock, BlobWriter};
pub use diff::DiffError;
pub use manifest::{Compression, MANIFEST_LIMIT_BYTES, is_config, is_index, is_layer, is_manifest};
pub use prune::Pruned;
pub use resolved::{Image, Layer};
pub use store::{ListedImage, Store, StoreError};
pub use tar::TarError;
pub use unpack::{LayerError, UnpackError, UnpackLimits};
