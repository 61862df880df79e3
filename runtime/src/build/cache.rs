//! The build cache: what a step made the last time, by everything it depends on.
//!
//! A key is made of the layers and the config that the step starts from, and
//! of the step as the image's history tells it: expanded, with the build
//! arguments that it sees, and with the hash of the files that it copies. So
//! nothing ever has to be thrown away because it became wrong.

use std::io::Write as _;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::digest::{DiffId, Digest};
use crate::image::{Layer, Store};

/// The records of one store, in `ROOT/build`.
#[derive(Debug)]
pub(super) struct Cache {
    directory: PathBuf,
    store: Store,
}

/// What a step made.
#[derive(Debug, Clone)]
pub(super) struct Record {
    /// When, as RFC 3339: a cached build gives the same image, to the bit.
    pub(super) created: String,
    /// The layer, where the step changed a file.
    pub(super) layer: Option<Layer>,
}

/// The same, as it is on disk.
#[derive(Debug, Serialize, Deserialize)]
struct File {
    created: String,
    layer: Option<FileLayer>,
}

#[derive(Debug, Serialize, Deserialize)]
struct FileLayer {
    digest: Digest,
    diff_id: DiffId,
    size_bytes: u64,
    media_type: oci_spec::image::MediaType,
}

/// The name of a step's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key(Digest);

impl Key {
    /// The key of a step on top of `layers` with `config`; `step` tells all that it depends on.
    pub(super) fn new(layers: &[Layer], config: &serde_json::Value, step: &[&str]) -> Self {
        let mut config = config.clone();
        config.sort_all_objects();
        let layers: Vec<_> = layers.iter().map(|layer| layer.diff_id).collect();
        let text = serde_json::json!({ "layers": layers, "config": config, "step": step });
        Self(Digest::of(text.to_string().as_bytes()))
    }
}

impl Cache {
    pub(super) fn new(store: &Store) -> Self {
        Self { directory: store.root().join("build"), store: store.clone() }
    }

    /// The record under `key`, if there is one and its layer is still in the store.
    pub(super) fn find(&self, key: &Key) -> Option<Record> {
        // A record that cannot be read is as good as none: the step runs again.
        let bytes = std::fs::read(self.path(key)).ok()?;
        let file: File = serde_json::from_slice(&bytes).ok()?;
        let layer = match file.layer {
            None => None,
            Some(FileLayer { digest, diff_id, size_bytes, media_type }) => {
                if !self.store.has_layer(&diff_id) || !self.store.has_blob(&digest) {
                    return None;
                }
                Some(Layer { digest, diff_id, size_bytes, media_type })
            }
        };
        Some(Record { created: file.created, layer })
    }

    /// Keeps `record`; a cache that cannot be written only makes the next build slower.
    pub(super) fn keep(&self, key: &Key, record: &Record) {
        let layer = record.layer.clone().map(|layer| FileLayer {
            digest: layer.digest,
            diff_id: layer.diff_id,
            size_bytes: layer.size_bytes,
            media_type: layer.media_type,
        });
        let file = File { created: record.created.clone(), layer };
        let write = || -> std::io::Result<()> {
            std::fs::create_dir_all(&self.directory)?;
            let mut temporary = tempfile::Builder::new()
                .prefix("file.")
                .tempfile_in(self.store.root().join("tmp"))?;
            temporary.write_all(&serde_json::to_vec(&file)?)?;
            temporary.persist(self.path(key)).map_err(|error| error.error)?;
            Ok(())
        };
        if let Err(error) = write() {
            tracing::warn!(%error, "could not write the build cache");
        }
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.directory.join(format!("{}.json", key.0.hex()))
    }
}
