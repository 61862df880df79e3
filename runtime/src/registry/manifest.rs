//! Reference → the manifest of one platform.

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
use reqwest::header::{ACCEPT, HeaderMap, HeaderValue};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{PullError, Source, Unsupported};
use crate::digest::{DiffId, Digest};
use crate::image::{
    Compression, MANIFEST_LIMIT_BYTES, Store, is_config, is_index, is_layer, is_manifest,
};
use crate::platform::Platform;
use crate::reference::Reference;

/// An index may contain indexes, which contain manifests.
const MAX_INDEX_DEPTH: usize = 2;

const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// A manifest that we can pull the rest of.
pub(super) struct Resolved {
    pub(super) reference: Reference,
    pub(super) digest: Digest,
    pub(super) bytes: Vec<u8>,
    pub(super) config: Digest,
    /// The bottom first.
    pub(super) layers: Vec<LayerDescriptor>,
}

/// A layer as the manifest lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LayerDescriptor {
    pub(super) digest: Digest,
    pub(super) size_bytes: u64,
    pub(super) compression: Compression,
}

/// Finds the manifest of `reference` for `platform`, and remembers in `source` who had it.
pub(super) fn resolve(
    store: &Store,
    source: &mut Source<'_>,
    reference: &Reference,
    platform: &Platform,
) -> Result<Resolved, PullError> {
    let mut digest = reference.digest().copied();
    for _ in 0..=MAX_INDEX_DEPTH {
        let (bytes, media_type) = fetch(store, source, reference, digest.as_ref())?;
        match Document::parse(reference, &bytes, media_type)? {
            Document::Manifest(manifest) => return read(reference, bytes, &manifest),
            Document::Index(index) => {
                let descriptors = index.manifests();
                let Some(chosen) = platform.choose(descriptors) else {
                    return Err(PullError::NoPlatform {
                        reference: Box::new(reference.clone()),
                        platform: Box::new(platform.clone()),
                        offered: platforms(descriptors),
                    });
                };
                digest = Some(parse_digest(reference, chosen.digest())?);
            }
        }
    }
    Err(PullError::Unsupported {
        reference: Box::new(reference.clone()),
        problem: Unsupported::Depth,
    })
}

/// A manifest or an index by digest, from the store if it is there, or by the reference's tag.
fn fetch(
    store: &Store,
    source: &mut Source<'_>,
    reference: &Reference,
    digest: Option<&Digest>,
) -> Result<(Vec<u8>, Option<String>), PullError> {
    if let Some(digest) = digest
        && let Ok(bytes) = store.read_blob(digest, MANIFEST_LIMIT_BYTES)
    {
        return Ok((bytes, None));
    }
    let name = match digest {
        Some(digest) => digest.to_string(),
        None => reference.tag().unwrap_or("latest").to_owned(),
    };
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
    let asked = source.ask(&format!("manifest of {reference}"), |session, _| {
        let limit_bytes = MANIFEST_LIMIT_BYTES;
        let document = Source::document(session, "manifests", &name, &headers, limit_bytes)?;
        let actual = Digest::of(&document.0);
        match digest {
            Some(expected) if actual != *expected => {
                Err(PullError::DigestMismatch { what: "manifest", expected: *expected, actual })
            }
            _ => Ok(document),
        }
    });
    match asked {
        Ok((document, index)) => {
            source.preferred = index;
            Ok(document)
        }
        Err(PullError::Registry { source }) if source.is_not_found() => {
            Err(PullError::NotFound { reference: Box::new(reference.clone()) })
        }
        Err(error) => Err(error),
    }
}

enum Document {
    Manifest(Box<ImageManifest>),
    Index(Box<ImageIndex>),
}

impl Document {
    fn parse(
        reference: &Reference,
        bytes: &[u8],
        media_type: Option<String>,
    ) -> Result<Self, PullError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Head {
            schema_version: Option<u32>,
            media_type: Option<String>,
            config: Option<IgnoredAny>,
            layers: Option<IgnoredAny>,
            manifests: Option<IgnoredAny>,
            fs_layers: Option<IgnoredAny>,
        }
        let malformed = |what| {
            let reference = Box::new(reference.clone());
            move |source| PullError::Malformed { what, reference, source }
        };
        let unsupported =
            |problem| PullError::Unsupported { reference: Box::new(reference.clone()), problem };
        let head: Head = serde_json::from_slice(bytes).map_err(malformed("manifest"))?;
        if head.schema_version == Some(1) || head.fs_layers.is_some() {
            return Err(unsupported(Unsupported::Schema1));
        }
        let is_image = head.config.is_some() || head.layers.is_some();
        if head.manifests.is_some() && is_image {
            return Err(unsupported(Unsupported::Ambiguous));
        }
        // What the document says of itself is covered by its digest; the header is not.
        let media_type = head.media_type.or(media_type).unwrap_or_default();
        let media_type = MediaType::from(media_type.as_str());
        if head.manifests.is_some() && !is_manifest(&media_type) {
            let index = serde_json::from_slice(bytes).map_err(malformed("index"))?;
            Ok(Self::Index(Box::new(index)))
        } else if is_image && !is_index(&media_type) {
            let manifest = serde_json::from_slice(bytes).map_err(malformed("manifest"))?;
            Ok(Self::Manifest(Box::new(manifest)))
        } else {
            let media_type = printable(media_type.as_ref());
            Err(unsupported(Unsupported::Manifest { media_type }))
        }
    }
}

/// Checks that a manifest is of an image whose layers we can unpack.
fn read(
    reference: &Reference,
    bytes: Vec<u8>,
    manifest: &ImageManifest,
) -> Result<Resolved, PullError> {
    let unsupported =
        |problem| PullError::Unsupported { reference: Box::new(reference.clone()), problem };
    let config = manifest.config();
    if !is_config(config.media_type()) {
        let media_type = printable(config.media_type().as_ref());
        return Err(unsupported(Unsupported::Artifact { media_type }));
    }
    let mut layers = Vec::with_capacity(manifest.layers().len());
    for layer in manifest.layers() {
        let name: &str = layer.media_type().as_ref();
        let media_type = printable(name);
        if name.contains(".foreign.") || name.contains(".nondistributable.") {
            return Err(unsupported(Unsupported::Foreign { media_type }));
        }
        let compression = Compression::of(layer.media_type())
            .filter(|_| is_layer(layer.media_type()))
            .ok_or_else(|| unsupported(Unsupported::Layer { media_type }))?;
        layers.push(LayerDescriptor {
            digest: parse_digest(reference, layer.digest())?,
            size_bytes: layer.size(),
            compression,
        });
    }
    Ok(Resolved {
        reference: reference.clone(),
        digest: Digest::of(&bytes),
        config: parse_digest(reference, config.digest())?,
        bytes,
        layers,
    })
}

/// The diff_ids that a config lists, as many as there are layers.
pub(super) fn diff_ids(resolved: &Resolved, config: &[u8]) -> Result<Vec<DiffId>, PullError> {
    #[derive(Deserialize)]
    struct Config {
        rootfs: Option<RootFs>,
    }
    #[derive(Deserialize)]
    struct RootFs {
        diff_ids: Option<Vec<DiffId>>,
    }
    let config: Config = serde_json::from_slice(config).map_err(|source| PullError::Malformed {
        what: "config",
        reference: Box::new(resolved.reference.clone()),
        source,
    })?;
    let diff_ids = config.rootfs.and_then(|rootfs| rootfs.diff_ids).unwrap_or_default();
    if diff_ids.len() == resolved.layers.len() {
        return Ok(diff_ids);
    }
    Err(PullError::Unsupported {
        reference: Box::new(resolved.reference.clone()),
        problem: Unsupported::LayerCount {
            layers: resolved.layers.len(),
            diff_ids: diff_ids.len(),
        },
    })
}

fn parse_digest(
    reference: &Reference,
    digest: &oci_spec::image::Digest,
) -> Result<Digest, PullError> {
    let text: &str = digest.as_ref();
    text.parse()
        .map_err(|source| PullError::Digest { reference: Box::new(reference.clone()), source })
}

/// The platforms of an index, but not its attestations.
fn platforms(descriptors: &[Descriptor]) -> Vec<String> {
    let mut names: Vec<String> = descriptors
        .iter()
        .filter_map(Platform::of_descriptor)
        .filter(|platform| platform.os != "unknown")
        .map(|platform| printable(&platform.to_string()))
        .collect();
    names.dedup();
    names.truncate(20);
    if names.is_empty() {
        names.push("no platform at all".to_owned());
    }
    names
}

/// Strangers' text, fit for a terminal.
fn printable(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control()).take(100).collect();
    if text.is_empty() { "(none)".to_owned() } else { text }
}
