//! Operating system and architecture, and which manifest of an index fits them.

use std::fmt;
use std::str::FromStr;

use oci_spec::image::{Descriptor, ImageConfiguration};
use serde::{Deserialize, Serialize};

/// What an image runs on, in the words of Go: `linux/amd64`, `linux/arm64/v8`.
///
/// OCI image-spec, image index, Platform Variants.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, `arm`, `riscv64`, …
    pub architecture: String,
    /// Of the CPU, as `v7` of `arm`; absent where the architecture's usual one is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// Why a text names no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no platform; write os/architecture[/variant], as in linux/arm64")]
pub struct ParsePlatformError {
    text: String,
}

impl Platform {
    /// The platform of this machine.
    #[must_use]
    pub fn host() -> Self {
        Self::linux(std::env::consts::ARCH, None)
    }

    fn linux(architecture: &str, variant: Option<&str>) -> Self {
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }
        .normalized()
    }

    /// One spelling for each platform: `x86_64` is `amd64`, `arm64/v8` is `arm64`, `arm` is `arm/v7`.
    fn normalized(mut self) -> Self {
        self.os.make_ascii_lowercase();
        self.architecture.make_ascii_lowercase();
        if let Some(variant) = &mut self.variant {
            variant.make_ascii_lowercase();
            if variant.starts_with(|c: char| c.is_ascii_digit()) {
                variant.insert(0, 'v');
            }
        }
        self.variant = self.variant.filter(|variant| !variant.is_empty());
        let (architecture, implied) = match self.architecture.as_str() {
            "x86_64" | "x86-64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "armhf" => ("arm", Some("v7")),
            "armel" => ("arm", Some("v6")),
            "i386" | "i486" | "i586" | "i686" | "x86" => ("386", None),
            "powerpc64" if cfg!(target_endian = "little") => ("ppc64le", None),
            "loongarch64" => ("loong64", None),
            other => (other, None),
        };
        self.variant = self.variant.or(implied.map(str::to_owned));
        self.variant = match (architecture, self.variant.as_deref()) {
            ("arm64", Some("v8")) | ("amd64", Some("v1")) => None,
            ("arm", None) => Some("v7".to_owned()),
            (_, variant) => variant.map(str::to_owned),
        };
        self.architecture = architecture.to_owned();
        self
    }

    /// Whether what was built for `candidate` runs on this platform.
    #[must_use]
    pub fn fits(&self, candidate: &Self) -> bool {
        self.rank(candidate).is_some()
    }

    /// How close `candidate` comes, 0 the best; none where it does not run.
    fn rank(&self, candidate: &Self) -> Option<u32> {
        let (own, candidate) = (self.clone().normalized(), candidate.clone().normalized());
        if own.os != candidate.os || own.architecture != candidate.architecture {
            return None;
        }
        let baseline = match own.architecture.as_str() {
            "amd64" => 1,
            "arm64" => 8,
            _ => 0,
        };
        // Later variants run what was built for earlier ones, not the other way round.
        let level = |platform: &Self| match &platform.variant {
            None => Some(baseline),
            Some(variant) => variant.strip_prefix('v')?.split('.').next()?.parse::<u32>().ok(),
        };
        match (level(&own), level(&candidate)) {
            (Some(own), Some(candidate)) => own.checked_sub(candidate),
            _ => (own.variant == candidate.variant).then_some(0),
        }
    }

    /// The manifest of an index that fits best; the first of equals, as Docker does.
    ///
    /// An entry without a platform is taken only where no other fits and it is
    /// the only one. Attestations name the platform `unknown/unknown` and fit nothing.
    #[must_use]
    pub fn choose<'a>(&self, manifests: &'a [Descriptor]) -> Option<&'a Descriptor> {
        let fitting = manifests
            .iter()
            .filter_map(|manifest| {
                let candidate = Self::of_descriptor(manifest)?;
                self.rank(&candidate).map(|rank| (rank, manifest))
            })
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, manifest)| manifest);
        let mut unnamed = manifests.iter().filter(|manifest| manifest.platform().is_none());
        fitting.or_else(|| unnamed.next().filter(|_| unnamed.next().is_none()))
    }

    /// What a descriptor of an index says of the platform.
    #[must_use]
    pub fn of_descriptor(descriptor: &Descriptor) -> Option<Self> {
        let platform = descriptor.platform().as_ref()?;
        Some(Self {
            os: platform.os().to_string(),
            architecture: platform.architecture().to_string(),
            variant: platform.variant().clone(),
        })
    }

    /// What an image's config says of the platform.
    #[must_use]
    pub fn of_config(config: &ImageConfiguration) -> Self {
        Self {
            os: config.os().to_string(),
            architecture: config.architecture().to_string(),
            variant: config.variant().clone(),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = ParsePlatformError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split('/').collect();
        let word = |part: &&str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        };
        let platform = match parts[..] {
            _ if !parts.iter().all(word) => None,
            [os, architecture] => Some((os, architecture, None)),
            [os, architecture, variant] => Some((os, architecture, Some(variant))),
            _ => None,
        };
        let (os, architecture, variant) =
            platform.ok_or_else(|| ParsePlatformError { text: text.to_owned() })?;
        Ok(Self {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }
        .normalized())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(platforms: &[&str]) -> Vec<Descriptor> {
        platforms
            .iter()
            .enumerate()
            .map(|(n, platform)| {
                let mut descriptor = serde_json::json!({
                    "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "digest": crate::digest::Digest::of(&[u8::try_from(n).unwrap()]),
                    "size": 1,
                });
                let parts: Vec<&str> = platform.split('/').collect();
                if let [os, architecture, variant @ ..] = &parts[..] {
                    descriptor["platform"] =
                        serde_json::json!({ "os": os, "architecture": architecture });
                    if let [variant] = variant {
                        descriptor["platform"]["variant"] = (*variant).into();
                    }
                }
                serde_json::from_value(descriptor).unwrap()
            })
            .collect()
    }

    #[test]
    fn the_closest_manifest_of_an_index_is_chosen() {
        let python: &[&str] = &[
            "linux/amd64",
            "unknown/unknown",
            "linux/arm/v5",
            "linux/arm/v7",
            "linux/arm64/v8",
            "linux/386",
            "windows/amd64",
        ];
        for (platform, manifests, chosen) in [
            ("linux/amd64", python, Some(0)),
            ("linux/arm64", python, Some(4)),
            ("linux/aarch64", python, Some(4)),
            ("linux/arm/v8", python, Some(3)),
            ("linux/arm/v6", python, Some(2)),
            ("linux/arm", python, Some(3)),
            ("linux/i386", python, Some(5)),
            ("linux/riscv64", python, None),
            ("linux/amd64", &["linux/amd64/v3", "linux/amd64"], Some(1)),
            ("linux/amd64/v3", &["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], Some(1)),
            ("linux/amd64", &["linux/amd64", "linux/amd64"], Some(0)),
            ("linux/amd64", &[""], Some(0)),
            ("linux/amd64", &["", ""], None),
            ("linux/amd64", &["unknown/unknown"], None),
            ("linux/amd64", &[], None),
        ] {
            let manifests = index(manifests);
            let platform: Platform = platform.parse().unwrap();
            let expected = chosen.map(|n: usize| manifests[n].digest());
            assert_eq!(platform.choose(&manifests).map(Descriptor::digest), expected, "{platform}");
        }
    }

    #[test]
    fn a_platform_prints_as_it_is_written() {
        for (text, printed) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("Linux/ARM/7", "linux/arm/v7"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), printed, "{text}");
        }
        for text in ["", "linux", "linux/", "/amd64", "linux/amd64/v1/x", "linux/a b"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_host_runs_what_is_built_for_it() {
        assert!(Platform::host().fits(&Platform::host()));
        assert_eq!(Platform::host().os, "linux");
    }
}
