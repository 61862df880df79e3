//! Media types of manifests, indexes, configs and layers, in OCI's words and in Docker's.

use oci_spec::image::MediaType;

/// The most that a manifest, an index or a config may be, in bytes; registries hold to it too.
pub const MANIFEST_LIMIT_BYTES: u64 = 4 << 20;

/// How the tar of a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// A plain tar.
    None,
    /// One or more gzip members, one after the other.
    Gzip,
    /// One or more zstd frames, one after the other.
    Zstd,
}

impl Compression {
    /// What a layer's media type says; none where it is no layer's.
    #[must_use]
    pub fn of(media_type: &MediaType) -> Option<Self> {
        let name: &str = media_type.as_ref();
        let name = name
            .strip_prefix("application/vnd.oci.image.layer.v1.tar")
            .or_else(|| {
                name.strip_prefix("application/vnd.oci.image.layer.nondistributable.v1.tar")
            })
            .or_else(|| name.strip_prefix("application/vnd.docker.image.rootfs.diff.tar"))
            .or_else(|| {
                name.strip_prefix("application/vnd.docker.image.rootfs.foreign.diff.tar")
            })?;
        match name {
            "" => Some(Self::None),
            "+gzip" | ".gzip" => Some(Self::Gzip),
            "+zstd" | ".zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// OCI's type of a layer that is compressed so.
    #[must_use]
    pub fn media_type(self) -> MediaType {
        match self {
            Self::None => MediaType::ImageLayer,
            Self::Gzip => MediaType::ImageLayerGzip,
            Self::Zstd => MediaType::ImageLayerZstd,
        }
    }

    /// What the first bytes of a file say; [`Compression::None`] where they are no known magic number.
    #[must_use]
    pub fn detect(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A skippable frame (RFC 8878, 3.1.2), which some tools put first.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// Whether this is the manifest of one image, OCI's or Docker's schema 2.
#[must_use]
pub fn is_manifest(media_type: &MediaType) -> bool {
    *media_type == MediaType::ImageManifest
        || media_type.as_ref() == "application/vnd.docker.distribution.manifest.v2+json"
}

/// Whether this is an index of manifests, OCI's or Docker's list.
#[must_use]
pub fn is_index(media_type: &MediaType) -> bool {
    *media_type == MediaType::ImageIndex
        || media_type.as_ref() == "application/vnd.docker.distribution.manifest.list.v2+json"
}

/// Whether this is the config of an image, OCI's or Docker's.
#[must_use]
pub fn is_config(media_type: &MediaType) -> bool {
    *media_type == MediaType::ImageConfig
        || media_type.as_ref() == "application/vnd.docker.container.image.v1+json"
}

/// Whether this is a layer that we can unpack.
#[must_use]
pub fn is_layer(media_type: &MediaType) -> bool {
    Compression::of(media_type).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layers_media_type_says_how_it_is_compressed() {
        use Compression::{Gzip, None as Plain, Zstd};
        for (name, compression) in [
            ("application/vnd.oci.image.layer.v1.tar", Some(Plain)),
            ("application/vnd.oci.image.layer.v1.tar+gzip", Some(Gzip)),
            ("application/vnd.oci.image.layer.v1.tar+zstd", Some(Zstd)),
            ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", Some(Gzip)),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", Some(Gzip)),
            ("application/vnd.docker.image.rootfs.diff.tar.zstd", Some(Zstd)),
            ("application/vnd.docker.image.rootfs.diff.tar", Some(Plain)),
            ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", Some(Gzip)),
            ("application/vnd.oci.image.layer.v1.tar+encrypted", None),
            ("application/vnd.oci.image.config.v1+json", None),
            ("application/octet-stream", None),
        ] {
            assert_eq!(Compression::of(&MediaType::from(name)), compression, "{name}");
        }
    }
}
