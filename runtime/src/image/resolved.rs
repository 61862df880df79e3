//! Image: a manifest and the config it names, parsed once.

use std::sync::Arc;

use oci_spec::image::{ImageConfiguration, ImageManifest, MediaType};

use super::manifest::{is_config, is_index, is_layer};
use super::store::StoreError;
use crate::digest::{DiffId, Digest};

/// Annotation of the manifests of images that were made and not fetched.
pub(super) const MADE: &str = "dev.abax.made";

/// An image of the store: what a container starts from. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Image {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    id: Digest,
    manifest_digest: Digest,
    manifest: ImageManifest,
    config: ImageConfiguration,
    config_json: serde_json::Value,
    layers: Vec<Layer>,
    diff_ids: Vec<DiffId>,
}

/// One layer as an image lists it: its stored bytes and what they unpack to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Of the bytes as stored, compressed or not.
    pub digest: Digest,
    /// Of the uncompressed tar.
    pub diff_id: DiffId,
    /// Of the bytes as stored.
    pub size_bytes: u64,
    /// Says how the stored bytes are compressed.
    pub media_type: MediaType,
}

impl Image {
    /// Parses a manifest whose digest is `manifest_digest`, and its config, which `read` fetches verified.
    pub(super) fn load(
        manifest_digest: Digest,
        manifest: &[u8],
        read: impl FnOnce(&Digest) -> Result<Vec<u8>, StoreError>,
    ) -> Result<Self, StoreError> {
        let manifest = parse_manifest(manifest_digest, manifest)?;
        let id = digest_of(manifest.config().digest(), &manifest_digest)?;
        if !is_config(manifest.config().media_type()) {
            return Err(StoreError::Unsupported {
                what: "the config of an image",
                digest: id,
                media_type: manifest.config().media_type().to_string(),
            });
        }
        let config_json = parse_config(&read(&id)?).map_err(|source| StoreError::Parse {
            what: "config",
            digest: id,
            source,
        })?;
        let config: ImageConfiguration = serde_json::from_value(config_json.clone())
            .map_err(|source| StoreError::Parse { what: "config", digest: id, source })?;

        let diff_ids = config.rootfs().diff_ids();
        if diff_ids.len() != manifest.layers().len() {
            return Err(StoreError::LayerCount {
                digest: manifest_digest,
                layers: manifest.layers().len(),
                diff_ids: diff_ids.len(),
            });
        }
        let mut layers = Vec::with_capacity(diff_ids.len());
        for (descriptor, diff_id) in manifest.layers().iter().zip(diff_ids) {
            let digest = digest_of(descriptor.digest(), &manifest_digest)?;
            if !is_layer(descriptor.media_type()) {
                return Err(StoreError::Unsupported {
                    what: "a layer",
                    digest,
                    media_type: descriptor.media_type().to_string(),
                });
            }
            let diff_id = diff_id
                .parse()
                .map_err(|source| StoreError::Digest { within: manifest_digest, source })?;
            let media_type = descriptor.media_type().clone();
            layers.push(Layer { digest, diff_id, size_bytes: descriptor.size(), media_type });
        }
        let diff_ids = layers.iter().map(|layer| layer.diff_id).collect();
        let shared =
            Shared { id, manifest_digest, manifest, config, config_json, layers, diff_ids };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// An image that is in no store: what a build has so far, to run a container on.
    pub(crate) fn draft(
        mut config: serde_json::Value,
        layers: &[Layer],
    ) -> Result<Self, StoreError> {
        let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id).collect();
        config["rootfs"] = serde_json::json!({ "type": "layers", "diff_ids": diff_ids });
        let config = config.to_string().into_bytes();
        let layers: Vec<_> = layers
            .iter()
            .map(|Layer { digest, size_bytes, media_type, .. }| {
                serde_json::json!({ "mediaType": media_type, "size": size_bytes, "digest": digest })
            })
            .collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": MediaType::ImageManifest,
            "config": {
                "mediaType": MediaType::ImageConfig,
                "size": config.len(),
                "digest": Digest::of(&config),
            },
            "layers": layers,
        });
        let manifest = manifest.to_string().into_bytes();
        Self::load(Digest::of(&manifest), &manifest, |_| Ok(config))
    }

    /// The digest of the config: what Docker calls the image's id.
    #[must_use]
    pub fn id(&self) -> &Digest {
        &self.shared.id
    }

    /// The first 12 hex digits of the id, as Docker prints it.
    #[must_use]
    pub fn short_id(&self) -> String {
        let mut hex = self.shared.id.hex();
        hex.truncate(12);
        hex
    }

    /// Whether it was built or imported by us, so that no registry gave it this manifest.
    #[must_use]
    pub fn was_made_here(&self) -> bool {
        let annotations = self.shared.manifest.annotations().as_ref();
        annotations.is_some_and(|annotations| annotations.contains_key(MADE))
    }

    /// The digest of the manifest: what a registry knows the image by.
    #[must_use]
    pub fn manifest_digest(&self) -> &Digest {
        &self.shared.manifest_digest
    }

    /// Environment, command, user and the like.
    #[must_use]
    pub fn config(&self) -> &ImageConfiguration {
        &self.shared.config
    }

    /// The config with the fields that only Docker has: `Healthcheck`, `OnBuild`, `Shell`.
    #[must_use]
    pub fn config_json(&self) -> &serde_json::Value {
        &self.shared.config_json
    }

    /// The manifest as it is stored.
    #[must_use]
    pub fn manifest(&self) -> &ImageManifest {
        &self.shared.manifest
    }

    /// The layers, the bottom first.
    #[must_use]
    pub fn layers(&self) -> &[Layer] {
        &self.shared.layers
    }

    /// What the layers unpack to, the bottom first.
    #[must_use]
    pub fn diff_ids(&self) -> &[DiffId] {
        &self.shared.diff_ids
    }

    /// Bytes of config and layers as stored; pulled layers are stored compressed.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        let layers = self.shared.layers.iter().map(|layer| layer.size_bytes);
        layers.fold(self.shared.manifest.config().size(), u64::saturating_add)
    }
}

/// Parses the manifest of one image; an index, or Docker's schema 1, is an error that says so.
fn parse_manifest(digest: Digest, bytes: &[u8]) -> Result<ImageManifest, StoreError> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Head {
        schema_version: u32,
        media_type: Option<MediaType>,
        manifests: Option<serde::de::IgnoredAny>,
    }
    let wrong = |source| StoreError::Parse { what: "manifest", digest, source };
    let head: Head = serde_json::from_slice(bytes).map_err(wrong)?;
    let unsupported = |media_type: String| StoreError::Unsupported {
        what: "the manifest of one image",
        digest,
        media_type,
    };
    if head.schema_version != 2 {
        return Err(unsupported(format!("docker schema {}", head.schema_version)));
    }
    if head.manifests.is_some() || head.media_type.as_ref().is_some_and(is_index) {
        return Err(unsupported("an index".to_owned()));
    }
    serde_json::from_slice(bytes).map_err(wrong)
}

/// Parses a config, filling in what old tools leave out or write as null.
fn parse_config(bytes: &[u8]) -> Result<serde_json::Value, serde_json::Error> {
    let mut config: serde_json::Value = serde_json::from_slice(bytes)?;
    if let Some(config) = config.as_object_mut() {
        config.entry("os").or_insert_with(|| "linux".into());
        config
            .entry("architecture")
            .or_insert_with(|| crate::platform::Platform::host().architecture.into());
        let rootfs = config.entry("rootfs").or_insert_with(|| serde_json::json!({}));
        if let Some(rootfs) = rootfs.as_object_mut() {
            rootfs.entry("type").or_insert_with(|| "layers".into());
            let diff_ids = rootfs.entry("diff_ids").or_insert(serde_json::Value::Null);
            if diff_ids.is_null() {
                *diff_ids = serde_json::json!([]);
            }
        }
    }
    Ok(config)
}

fn digest_of(digest: &oci_spec::image::Digest, within: &Digest) -> Result<Digest, StoreError> {
    let text: &str = digest.as_ref();
    text.parse().map_err(|source| StoreError::Digest { within: *within, source })
}
