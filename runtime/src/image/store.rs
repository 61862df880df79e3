//! Content-addressed blobs, unpacked layers and the index of names, on disk.
//!
//! ```text
//! ROOT/images/{oci-layout,index.json,blobs/sha256/HEX}   an OCI image layout
//! ROOT/layers/HEX/      an unpacked layer, named by its diff_id
//! ROOT/locks/           what processes lock, one file for each
//! ROOT/tmp/             what is not finished; ROOT/trash/ what is to be deleted
//! ```
//!
//! Whatever stands under its final name is whole: it was written in `tmp` and
//! renamed. Readers take no locks. Writers of the index lock it.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, MediaType};

use super::blob::{BlobLock, BlobWriter};
use super::lock::{self, Lock};
use super::manifest::MANIFEST_LIMIT_BYTES;
use super::resolved::{Image, Layer, MADE};
use super::unpack::UnpackLimits;
use crate::digest::{DiffId, Digest, ParseDigestError};
use crate::reference::{ParseError, Reference};
use crate::trash::remove_tree;

/// OCI image-spec, annotations: the name of a manifest in an image layout.
const REFERENCE_NAME: &str = "org.opencontainers.image.ref.name";
/// An index of this size names tens of thousands of images.
const INDEX_LIMIT_BYTES: u64 = 64 << 20;
/// The shortest part of an id that stands for it.
const MIN_PREFIX: usize = 4;
/// Partial blobs wait this long for somebody to go on with them.
const PARTIAL_BLOB_AGE: Duration = Duration::from_hours(24 * 7);
/// Temporary files are there for seconds; those of this age have no owner.
const TEMPORARY_FILE_AGE: Duration = Duration::from_hours(1);
/// No step of a build copies files for this long.
const BUILD_STEP_AGE: Duration = Duration::from_hours(24);
/// Images parsed and kept in memory.
const MAX_CACHED_IMAGES: usize = 256;

/// The images of one state root, shared by all processes that open it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    limits: UnpackLimits,
    /// By manifest digest: content never changes, so nothing here is ever stale.
    images: Mutex<HashMap<Digest, Image>>,
}

/// An image under one of its names, or under none.
#[derive(Debug, Clone)]
pub struct ListedImage {
    /// None for an image whose last name went to another one.
    pub reference: Option<Reference>,
    /// The image itself.
    pub image: Image,
    /// What its config says.
    pub created: Option<jiff::Timestamp>,
    /// Bytes as stored.
    pub size_bytes: u64,
}

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file system refused.
    #[error("could not {action} {}", path.display())]
    File {
        /// A verb.
        action: &'static str,
        /// What it was tried on.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is no such blob.
    #[error("no blob {digest} in the store")]
    NoBlob {
        /// The blob asked for.
        digest: Digest,
    },
    /// A blob holds other bytes than its name says.
    #[error("blob {expected} holds {actual}")]
    Corrupt {
        /// Its name.
        expected: Digest,
        /// What it hashes to.
        actual: Digest,
    },
    /// A blob is shorter or longer than promised.
    #[error("blob {digest} is {actual_bytes} bytes long instead of {expected_bytes}")]
    Size {
        /// Its name.
        digest: Digest,
        /// What was promised.
        expected_bytes: u64,
        /// What is there.
        actual_bytes: u64,
    },
    /// A blob is longer than whoever reads it takes.
    #[error("blob {digest} is longer than {limit_bytes} bytes")]
    TooLarge {
        /// Its name.
        digest: Digest,
        /// What the reader takes.
        limit_bytes: u64,
    },
    /// A manifest or config is not what it should be.
    #[error("could not read the {what} {digest}")]
    Parse {
        /// A noun.
        what: &'static str,
        /// Its name.
        digest: Digest,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The list of images is not what we write.
    #[error("could not read the list of images {}", path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A manifest contains something that is no digest of ours.
    #[error("could not read the manifest {within}")]
    Digest {
        /// The manifest.
        within: Digest,
        /// What is wrong with it.
        source: ParseDigestError,
    },
    /// A media type that the store has no use for.
    #[error("{digest} is not {what}: it is {media_type}")]
    Unsupported {
        /// What was expected.
        what: &'static str,
        /// The blob.
        digest: Digest,
        /// What it is.
        media_type: String,
    },
    /// Manifest and config disagree.
    #[error("image {digest} has {layers} layers and {diff_ids} diff_ids")]
    LayerCount {
        /// The manifest.
        digest: Digest,
        /// How many the manifest lists.
        layers: usize,
        /// How many the config lists.
        diff_ids: usize,
    },
    /// An image is to be added of which a layer is not unpacked.
    #[error("layer {digest} is not unpacked in the store")]
    MissingLayer {
        /// The layer.
        digest: Digest,
    },
    /// A short id that more than one image has.
    #[error("{name} is the start of more than one image id: {}", candidates.join(", "))]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// The ids that start so, with a name of each where it has one.
        candidates: Vec<String>,
    },
    /// What was asked for is neither a name nor an id.
    #[error(transparent)]
    InvalidName {
        /// What is wrong with it.
        #[from]
        source: ParseError,
    },
}

/// For `map_err`: an error of the file system with what was tried, on what.
pub(super) fn file_error(
    action: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.into();
    move |source| StoreError::File { action, path, source }
}

impl Store {
    /// Opens the store under the state root `root`, making it where it is missing.
    ///
    /// # Errors
    ///
    /// The directories could not be made.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        Self::open_with(root, UnpackLimits::default())
    }

    /// As [`Store::open`], with limits of one's own on what is unpacked.
    ///
    /// # Errors
    ///
    /// The directories could not be made.
    pub fn open_with(root: &Path, limits: UnpackLimits) -> Result<Self, StoreError> {
        let root = std::path::absolute(root).map_err(file_error("find", root))?;
        let store =
            Self { shared: Arc::new(Shared { root, limits, images: Mutex::new(HashMap::new()) }) };
        if store.path("images/oci-layout").exists() {
            return Ok(store);
        }
        for (directory, mode) in [
            ("images/blobs/sha256", 0o755),
            // Setuid programs of images lie here: nobody but root may reach them.
            ("layers", 0o700),
            ("locks", 0o700),
            ("tmp", 0o700),
            ("trash", 0o700),
        ] {
            use std::os::unix::fs::PermissionsExt as _;
            let path = store.path(directory);
            fs::create_dir_all(&path).map_err(file_error("create", &path))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))
                .map_err(file_error("change the mode of", &path))?;
        }
        let init = store.init_layer();
        if !init.exists() {
            let temporary = store.temporary_path(&format!("init.{}", rand::random::<u64>()));
            let made = crate::snapshot::make_init_layer(&init, &temporary);
            // Where another process was first, its layer is the same.
            made.or_else(|error| {
                let _ = fs::remove_dir_all(&temporary);
                if init.exists() { Ok(()) } else { Err(error) }
            })
            .map_err(file_error("create", &init))?;
        }
        // Last, since its presence says that the rest is there.
        store.write_file("images/oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(store)
    }

    /// The state root.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.shared.root
    }

    pub(super) fn limits(&self) -> UnpackLimits {
        self.shared.limits
    }

    pub(super) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.shared.root.join(relative)
    }

    pub(super) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path("images/blobs/sha256").join(digest.hex())
    }

    pub(super) fn temporary_path(&self, name: &str) -> PathBuf {
        self.path("tmp").join(name)
    }

    /// Writes a file that others read: whole or not at all, and there after a power cut.
    fn write_file(&self, relative: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.path(relative);
        let write = || {
            let mut file =
                tempfile::Builder::new().prefix("file.").tempfile_in(self.path("tmp"))?;
            file.write_all(bytes)?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|error| error.error)?;
            path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
        };
        write().map_err(file_error("write", &path))
    }
}

/// Blobs.
impl Store {
    /// Whether the blob is there.
    #[must_use]
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.blob_path(digest).exists()
    }

    /// Opens a blob; what is read is not verified.
    ///
    /// # Errors
    ///
    /// [`StoreError::NoBlob`], or the file could not be opened.
    pub fn open_blob(&self, digest: &Digest) -> Result<File, StoreError> {
        let path = self.blob_path(digest);
        File::open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => StoreError::NoBlob { digest: *digest },
            _ => StoreError::File { action: "open", path, source },
        })
    }

    /// Reads a blob of up to `limit_bytes` and verifies it.
    ///
    /// # Errors
    ///
    /// [`StoreError::NoBlob`], [`StoreError::TooLarge`], [`StoreError::Corrupt`], or it could not be read.
    pub fn read_blob(&self, digest: &Digest, limit_bytes: u64) -> Result<Vec<u8>, StoreError> {
        let mut bytes = Vec::new();
        self.open_blob(digest)?
            .take(limit_bytes.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(file_error("read", self.blob_path(digest)))?;
        if bytes.len() as u64 > limit_bytes {
            return Err(StoreError::TooLarge { digest: *digest, limit_bytes });
        }
        match Digest::of(&bytes) {
            actual if actual == *digest => Ok(bytes),
            actual => Err(StoreError::Corrupt { expected: *digest, actual }),
        }
    }

    /// Stores bytes; the same bytes again are nothing new.
    ///
    /// # Errors
    ///
    /// The file system refused.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        // Read, not only looked for: a blob that the disk has lost is written anew.
        if self.read_blob(&digest, bytes.len() as u64).is_err() {
            self.write_file(&format!("images/blobs/sha256/{}", digest.hex()), bytes)?;
        }
        Ok(digest)
    }

    /// Starts or goes on with writing the blob `expected`, waiting for whoever writes it now.
    ///
    /// # Errors
    ///
    /// The partial file could not be opened or read.
    pub fn blob_writer(
        &self,
        expected: &Digest,
        size: Option<u64>,
    ) -> Result<BlobWriter, StoreError> {
        BlobWriter::open(self, expected, size)
    }

    /// Waits until no other process or thread fetches this blob, and keeps them waiting.
    ///
    /// Look for the blob (or its layer) again once the lock is held.
    ///
    /// # Errors
    ///
    /// The lock's file could not be opened or locked.
    pub fn lock_blob(&self, digest: &Digest) -> Result<BlobLock, StoreError> {
        BlobLock::acquire(self.path(format!("locks/blob.{}", digest.hex())))
    }
}

/// Unpacked layers.
impl Store {
    /// Whether the layer is unpacked.
    #[must_use]
    pub fn has_layer(&self, diff_id: &DiffId) -> bool {
        self.layer_directory(diff_id).exists()
    }

    /// The topmost lower directory of every container: mount points and nothing else.
    pub(crate) fn init_layer(&self) -> PathBuf {
        self.path("layers/init")
    }

    pub(super) fn lock_layer(&self, diff_id: &DiffId) -> Result<Lock, StoreError> {
        let path = self.path(format!("locks/layer.{}", diff_id.hex()));
        Lock::acquire(path.clone()).map_err(file_error("lock", path))
    }

    /// Where the layer is, or would be, unpacked: usable as a lower directory of overlayfs.
    #[must_use]
    pub fn layer_directory(&self, diff_id: &DiffId) -> PathBuf {
        self.path("layers").join(diff_id.hex())
    }
}

/// Images and their names.
impl Store {
    /// Stores the config and manifest of a new image and gives it `names`, taking them from others.
    ///
    /// The config's diff_ids are set to those of `layers` (the bottom first).
    ///
    /// # Errors
    ///
    /// [`StoreError::MissingLayer`], or the file system refused.
    pub fn create_image(
        &self,
        config: &ImageConfiguration,
        layers: &[Layer],
        names: &[Reference],
    ) -> Result<Image, StoreError> {
        let config = serde_json::to_value(config)
            .expect("a config has string keys and no other way to fail");
        self.create_image_from_json(config, layers, names)
    }

    /// As [`Store::create_image`], for a config with fields that only Docker has.
    ///
    /// # Errors
    ///
    /// As [`Store::create_image`]; [`StoreError::Parse`] where the value is no config.
    pub fn create_image_from_json(
        &self,
        mut config: serde_json::Value,
        layers: &[Layer],
        names: &[Reference],
    ) -> Result<Image, StoreError> {
        let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id).collect();
        config["rootfs"] = serde_json::json!({ "type": "layers", "diff_ids": diff_ids });
        // The same config gives the same id, whatever order its maps came in.
        config.sort_all_objects();
        let config = config.to_string();
        let config_digest = self.put_blob(config.as_bytes())?;

        let layers: Vec<_> = layers
            .iter()
            .map(|layer| descriptor(layer.media_type.clone(), layer.size_bytes, &layer.digest))
            .collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": MediaType::ImageManifest,
            "config": descriptor(MediaType::ImageConfig, config.len() as u64, &config_digest),
            "layers": layers,
            "annotations": { MADE: "true" },
        });
        let manifest = manifest.to_string().into_bytes();
        self.add_image(&manifest, names)
    }

    /// Adds an image whose config is in the store and whose layers are unpacked, as after a pull.
    ///
    /// # Errors
    ///
    /// [`StoreError::MissingLayer`] and [`StoreError::NoBlob`] for what is not there after all;
    /// [`StoreError::Parse`], [`StoreError::Unsupported`], [`StoreError::LayerCount`] for a manifest
    /// that is none of an image we can run.
    pub fn add_manifest(
        &self,
        manifest: &[u8],
        name: Option<&Reference>,
    ) -> Result<Image, StoreError> {
        self.add_image(manifest, name.map(std::slice::from_ref).unwrap_or_default())
    }

    fn add_image(&self, manifest: &[u8], names: &[Reference]) -> Result<Image, StoreError> {
        let limit_bytes = MANIFEST_LIMIT_BYTES;
        if manifest.len() as u64 > limit_bytes {
            return Err(StoreError::TooLarge { digest: Digest::of(manifest), limit_bytes });
        }
        // Parsed before it is stored: what is no image leaves no blob.
        let image = Image::load(Digest::of(manifest), manifest, |digest| {
            self.read_blob(digest, limit_bytes)
        })?;
        self.update_index(|index| {
            // Under the lock, so that nothing is pruned between the look and the entry.
            for layer in image.layers() {
                if !self.has_layer(&layer.diff_id) {
                    return Err(StoreError::MissingLayer { digest: layer.digest });
                }
            }
            self.put_blob(manifest)?;
            Self::enter(index, &image, manifest.len() as u64, names);
            Ok(())
        })?;
        self.remember(&image);
        Ok(image)
    }

    /// The image whose manifest has this digest.
    ///
    /// # Errors
    ///
    /// [`StoreError::NoBlob`], or its manifest or config cannot be read.
    pub fn image(&self, manifest: &Digest) -> Result<Image, StoreError> {
        if let Some(image) = self.cache().get(manifest) {
            return Ok(image.clone());
        }
        let bytes = self.read_blob(manifest, MANIFEST_LIMIT_BYTES)?;
        let image =
            Image::load(*manifest, &bytes, |digest| self.read_blob(digest, MANIFEST_LIMIT_BYTES))?;
        self.remember(&image);
        Ok(image)
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Image>> {
        self.shared.images.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, image: &Image) {
        let mut cache = self.cache();
        if cache.len() >= MAX_CACHED_IMAGES {
            cache.clear();
        }
        cache.insert(*image.manifest_digest(), image.clone());
    }

    /// The image that a user means: by reference, by id, or by the start of an id (4 hex digits or more).
    ///
    /// A name wins over an id that starts the same. `name@digest` finds the
    /// image that was pulled by that digest, or whose manifest has it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Ambiguous`] for the start of several ids, [`StoreError::InvalidName`] for
    /// what can be neither name nor id, or the store could not be read.
    pub fn find(&self, name: &str) -> Result<Option<Image>, StoreError> {
        let entries = self.entries()?;
        let reference = Reference::parse(name);
        if let Ok(reference) = &reference {
            let named = entries.iter().find(|entry| entry.is_named(reference));
            if let Some(entry) = named {
                return self.image(&entry.manifest).map(Some);
            }
        }
        let hex = name.strip_prefix("sha256:").unwrap_or(name);
        let is_prefix = (MIN_PREFIX..=64).contains(&hex.len())
            && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !is_prefix {
            return reference.map(|_| None).map_err(StoreError::from);
        }
        let mut found: BTreeMap<Digest, (Image, Option<Reference>)> = BTreeMap::new();
        for entry in entries {
            let image = self.image(&entry.manifest)?;
            let by_manifest = hex.len() == 64 && entry.manifest.hex() == hex;
            if by_manifest || image.id().hex().starts_with(hex) {
                found.entry(*image.id()).or_insert((image, entry.reference));
            }
        }
        if found.len() > 1 {
            let candidates = found
                .into_values()
                .map(|(image, reference)| match reference {
                    Some(reference) => format!("{} ({})", image.short_id(), reference.familiar()),
                    None => image.short_id(),
                })
                .collect();
            return Err(StoreError::Ambiguous { name: name.to_owned(), candidates });
        }
        Ok(found.into_values().next().map(|(image, _)| image))
    }

    /// Every image under each of its names, in the order in which they were named.
    ///
    /// An image whose manifest or config cannot be read is left out, with a warning.
    ///
    /// # Errors
    ///
    /// The list itself could not be read.
    pub fn list(&self) -> Result<Vec<ListedImage>, StoreError> {
        let mut list = Vec::new();
        for Entry { manifest, reference } in self.entries()? {
            match self.image(&manifest) {
                Ok(image) => {
                    let created = image.config().created().as_deref();
                    let created = created.and_then(|created| created.parse().ok());
                    let size_bytes = image.size_bytes();
                    list.push(ListedImage { reference, image, created, size_bytes });
                }
                Err(error) => tracing::warn!(
                    image.manifest = %manifest,
                    error = %error,
                    "left image {manifest} out of the list: it cannot be read"
                ),
            }
        }
        Ok(list)
    }

    /// Gives an image one more name, taking it from the image that has it.
    ///
    /// # Errors
    ///
    /// [`StoreError::NoBlob`] for an image that was removed meanwhile, or the file system refused.
    pub fn tag(&self, image: &Image, reference: &Reference) -> Result<(), StoreError> {
        let limit_bytes = MANIFEST_LIMIT_BYTES;
        self.update_index(|index| {
            let size = self.read_blob(image.manifest_digest(), limit_bytes)?.len() as u64;
            Self::enter(index, image, size, std::slice::from_ref(reference));
            Ok(())
        })
    }

    /// Takes a name away; says whether anything had it. An image without a name left is no longer listed.
    ///
    /// Its blobs and layers stay until [`Store::prune`].
    ///
    /// # Errors
    ///
    /// The file system refused.
    pub fn untag(&self, reference: &Reference) -> Result<bool, StoreError> {
        self.update_index(|index| {
            let before = index.manifests().len();
            let mut manifests = index.manifests().clone();
            manifests.retain(|manifest| reference_of(manifest).as_ref() != Some(reference));
            index.set_manifests(manifests);
            Ok(index.manifests().len() != before)
        })
    }

    /// Takes all names of an image away and takes it off the list; says whether it was there.
    ///
    /// # Errors
    ///
    /// The file system refused.
    pub fn remove(&self, image: &Image) -> Result<bool, StoreError> {
        self.update_index(|index| {
            let before = index.manifests().len();
            let mut manifests = index.manifests().clone();
            manifests.retain(|entry| manifest_of(entry) != Some(*image.manifest_digest()));
            index.set_manifests(manifests);
            Ok(index.manifests().len() != before)
        })
    }

    /// Puts an image into the index under `names`; whoever loses its last name stays, without one.
    fn enter(index: &mut ImageIndex, image: &Image, size: u64, names: &[Reference]) {
        let mut manifests: Vec<Descriptor> = Vec::with_capacity(index.manifests().len() + 1);
        let mut nameless: Vec<Descriptor> = Vec::new();
        for entry in index.manifests() {
            match reference_of(entry) {
                Some(name) if names.contains(&name) => nameless.push(entry.clone()),
                Some(_) => manifests.push(entry.clone()),
                None => nameless.push(entry.clone()),
            }
        }
        let media_type = image.manifest().media_type().clone().unwrap_or(MediaType::ImageManifest);
        let mut entry = descriptor(media_type, size, image.manifest_digest());
        for name in names {
            let annotations = [(REFERENCE_NAME.to_owned(), name.to_string())];
            entry.set_annotations(Some(annotations.into()));
            manifests.push(entry.clone());
        }
        if names.is_empty() {
            nameless.push(entry);
        }
        for mut entry in nameless {
            if manifests.iter().all(|other| other.digest() != entry.digest()) {
                entry.set_annotations(None);
                manifests.push(entry);
            }
        }
        index.set_manifests(manifests);
    }
}

/// The index.
impl Store {
    fn entries(&self) -> Result<Vec<Entry>, StoreError> {
        let index = self.read_index()?;
        let entry = |descriptor: &Descriptor| {
            let reference = reference_of(descriptor);
            manifest_of(descriptor).map(|manifest| Entry { manifest, reference })
        };
        Ok(index.manifests().iter().filter_map(entry).collect())
    }

    fn read_index(&self) -> Result<ImageIndex, StoreError> {
        let path = self.path("images/index.json");
        let mut bytes = Vec::new();
        match File::open(&path) {
            Ok(file) => {
                file.take(INDEX_LIMIT_BYTES)
                    .read_to_end(&mut bytes)
                    .map_err(file_error("read", &path))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                bytes = br#"{"schemaVersion":2,"manifests":[]}"#.to_vec();
            }
            Err(source) => return Err(StoreError::File { action: "open", path, source }),
        }
        serde_json::from_slice(&bytes).map_err(|source| StoreError::Index { path, source })
    }

    /// Runs `work` on the digests of all listed manifests, which do not change meanwhile.
    pub(super) fn with_index_locked<T>(
        &self,
        work: impl FnOnce(Vec<Digest>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.update_index(|index| work(index.manifests().iter().filter_map(manifest_of).collect()))
    }

    /// Changes the index, alone among all processes; writes nothing where `change` fails.
    fn update_index<T>(
        &self,
        change: impl FnOnce(&mut ImageIndex) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let path = self.path("locks/index");
        let _lock = Lock::acquire(path.clone()).map_err(file_error("lock", path))?;
        let before = self.read_index()?;
        let mut index = before.clone();
        let outcome = change(&mut index)?;
        if index != before {
            index.set_media_type(Some(MediaType::ImageIndex));
            let bytes = serde_json::to_vec(&index).expect("an index has string keys only");
            self.write_file("images/index.json", &bytes)?;
        }
        Ok(outcome)
    }
}

/// What is left over.
impl Store {
    /// Deletes what processes that died have left in `tmp`, and everything in `trash`.
    ///
    /// What a living process works on is locked, and stays.
    ///
    /// # Errors
    ///
    /// The directories could not be read; a leftover that resists is only warned of.
    pub fn sweep(&self) -> Result<(), StoreError> {
        let tmp = self.path("tmp");
        for entry in fs::read_dir(&tmp).map_err(file_error("read", &tmp))?.flatten() {
            let path = entry.path();
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let older_than = |age| {
                let modified = entry.metadata().and_then(|metadata| metadata.modified());
                modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|since| since > age))
            };
            let removed = if name.starts_with("layer.") {
                // Kept out while a directory is made and locked: see `LayerInProgress`.
                let _lock = self.lock_sweep()?;
                lock::is_abandoned(&path).then(|| remove_tree(&path))
            } else if name.starts_with("blob.") {
                (older_than(PARTIAL_BLOB_AGE) && lock::is_abandoned(&path))
                    .then(|| fs::remove_file(&path))
            } else if name.starts_with("init.") {
                older_than(TEMPORARY_FILE_AGE).then(|| remove_tree(&path))
            } else if name.starts_with("build.") {
                // Of a build step that copies files.
                older_than(BUILD_STEP_AGE).then(|| remove_tree(&path))
            } else if name.starts_with("file.") {
                older_than(TEMPORARY_FILE_AGE).then(|| fs::remove_file(&path))
            } else {
                None
            };
            warn_of_leftover(&path, removed);
        }
        self.empty_trash()
    }

    pub(super) fn lock_sweep(&self) -> Result<Lock, StoreError> {
        let path = self.path("locks/sweep");
        Lock::acquire(path.clone()).map_err(file_error("lock", path))
    }

    pub(crate) fn empty_trash(&self) -> Result<(), StoreError> {
        let trash = self.path("trash");
        for entry in fs::read_dir(&trash).map_err(file_error("read", &trash))?.flatten() {
            let path = entry.path();
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let removed = if is_directory { remove_tree(&path) } else { fs::remove_file(&path) };
            warn_of_leftover(&path, Some(removed));
        }
        Ok(())
    }
}

fn warn_of_leftover(path: &Path, removed: Option<io::Result<()>>) {
    match removed {
        Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "could not delete {}", path.display());
        }
        _ => {}
    }
}

/// One line of the index.
#[derive(Debug)]
struct Entry {
    manifest: Digest,
    reference: Option<Reference>,
}

impl Entry {
    fn is_named(&self, wanted: &Reference) -> bool {
        let Some(name) = &self.reference else { return false };
        name == wanted
            || wanted.digest().is_some_and(|digest| {
                // With a digest, a tag says nothing more.
                name.same_repository(wanted)
                    && (name.digest() == Some(digest) || self.manifest == *digest)
            })
    }
}

fn descriptor(media_type: MediaType, size: u64, digest: &Digest) -> Descriptor {
    let digest: oci_spec::image::Digest =
        digest.to_string().parse().expect("our digests print as OCI's");
    Descriptor::new(media_type, size, digest)
}

fn manifest_of(entry: &Descriptor) -> Option<Digest> {
    let text: &str = entry.digest().as_ref();
    text.parse().ok()
}

fn reference_of(entry: &Descriptor) -> Option<Reference> {
    Reference::parse(entry.annotations().as_ref()?.get(REFERENCE_NAME)?).ok()
}
