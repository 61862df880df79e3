//! Image references by Docker's rules: registry, repository, tag, digest, and their defaults.
//!
//! `alpine` means `docker.io/library/alpine:latest`. The grammar is that of
//! the distribution project's `reference` package, as Docker applies it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, ParseDigestError};

const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";
/// Registry, slash and repository together.
const MAX_NAME_BYTES: usize = 255;
const MAX_TAG_BYTES: usize = 128;

/// The name of an image, complete: defaults are filled in.
///
/// With a digest there may be no tag; without a digest there always is one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// There is no name at all.
    #[error("invalid image name {text:?}: it is empty")]
    Empty {
        /// What was to be parsed.
        text: String,
    },
    /// Repositories are lower case.
    #[error("invalid image name {text:?}: the repository must be lower case, as in {hint:?}")]
    Uppercase {
        /// What was to be parsed.
        text: String,
        /// The same in lower case.
        hint: String,
    },
    /// 64 hex digits are an image's id, which Docker keeps apart from names.
    #[error("invalid image name {text:?}: 64 hex digits are an image id; write sha256:{text}")]
    Identifier {
        /// What was to be parsed.
        text: String,
    },
    /// The registry is no host name with an optional port.
    #[error("invalid image name {text:?}: {registry:?} is no registry host")]
    Registry {
        /// What was to be parsed.
        text: String,
        /// Its part before the first slash.
        registry: String,
    },
    /// A repository component breaks the grammar.
    #[error(
        "invalid image name {text:?}: {component:?} is not letters and digits joined by one of . _ __ -"
    )]
    Component {
        /// What was to be parsed.
        text: String,
        /// The part between slashes that is wrong.
        component: String,
    },
    /// A tag breaks the grammar.
    #[error("invalid image name {text:?}: {tag:?} is no tag (up to 128 of A-Z a-z 0-9 _ . -)")]
    Tag {
        /// What was to be parsed.
        text: String,
        /// Its part after the last colon.
        tag: String,
    },
    /// Longer than registries take.
    #[error("invalid image name {text:?}: registry and repository are longer than 255 bytes")]
    TooLong {
        /// What was to be parsed.
        text: String,
    },
    /// What follows the `@` is no digest.
    #[error("invalid image name {text:?}")]
    Digest {
        /// What was to be parsed.
        text: String,
        /// What is wrong with it.
        source: ParseDigestError,
    },
}

impl Reference {
    /// Parses a name as `docker run` does.
    ///
    /// # Errors
    ///
    /// The text breaks the grammar; the error says which part of it.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let owned = || text.to_owned();
        if text.is_empty() {
            return Err(ParseError::Empty { text: owned() });
        }
        if Digest::from_hex(text).is_ok() {
            return Err(ParseError::Identifier { text: owned() });
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => {
                let digest = digest
                    .parse()
                    .map_err(|source| ParseError::Digest { text: owned(), source })?;
                (name, Some(digest))
            }
            None => (text, None),
        };
        let (registry, rest) = match name.split_once('/') {
            Some((first, rest)) if is_registry(first) => (first, rest),
            _ => (DEFAULT_REGISTRY, name),
        };
        // The registry's port is gone by now, so a colon starts a tag.
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        if !is_host(registry) {
            return Err(ParseError::Registry { text: owned(), registry: registry.to_owned() });
        }
        if path.is_empty() {
            return Err(ParseError::Empty { text: owned() });
        }
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            let hint = text.replacen(path, &path.to_ascii_lowercase(), 1);
            return Err(ParseError::Uppercase { text: owned(), hint });
        }
        if let Some(component) = path.split('/').find(|component| !is_component(component)) {
            return Err(ParseError::Component { text: owned(), component: component.to_owned() });
        }
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(ParseError::Tag { text: owned(), tag: tag.to_owned() });
        }
        let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
        let repository = if registry == DEFAULT_REGISTRY && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        if registry.len() + 1 + repository.len() > MAX_NAME_BYTES {
            return Err(ParseError::TooLong { text: owned() });
        }
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some(DEFAULT_TAG.to_owned()),
        };
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }

    /// Host and optional port, as in `docker.io` or `localhost:5000`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path at the registry, as in `library/alpine`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; always there when there is no digest.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest that the reference pins, of a manifest or an index.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same repository at exactly `digest`, without a tag.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// Whether both name the same repository of the same registry.
    #[must_use]
    pub fn same_repository(&self, other: &Self) -> bool {
        self.registry == other.registry && self.repository == other.repository
    }

    /// Registry and repository as a user writes them: `alpine`, `ghcr.io/a/b`.
    #[must_use]
    pub fn familiar_name(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return format!("{}/{}", self.registry, self.repository);
        }
        match self.repository.strip_prefix("library/") {
            // `docker.io/library/a/b` shortened to `a/b` would mean another image.
            Some(short) if !short.contains('/') => short.to_owned(),
            _ => self.repository.clone(),
        }
    }

    /// The shortest text that means the same image, as Docker prints it: `alpine:latest`.
    #[must_use]
    pub fn familiar(&self) -> String {
        self.familiar_name() + &self.suffix()
    }

    fn suffix(&self) -> String {
        let mut suffix = String::new();
        if let Some(tag) = &self.tag {
            suffix = format!(":{tag}");
        }
        if let Some(digest) = &self.digest {
            suffix.push_str(&format!("@{digest}"));
        }
        suffix
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.registry, self.repository, self.suffix())
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reference({self})")
    }
}

impl FromStr for Reference {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Serialize for Reference {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Docker's rule for telling a registry from the first part of a repository.
fn is_registry(first: &str) -> bool {
    first == "localhost"
        || first.contains(['.', ':'])
        || first.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_host(registry: &str) -> bool {
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (registry, None),
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return false;
    }
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    host.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    })
}

/// `[a-z0-9]+` joined by one of: a dot, one or two underscores, any number of dashes.
fn is_component(component: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    word(*first)
        && word(*last)
        && bytes.split(|b| word(*b)).all(|joint| {
            matches!(joint, b"" | b"." | b"_" | b"__") || joint.iter().all(|b| *b == b'-')
        })
}

fn is_tag(tag: &str) -> bool {
    tag.len() <= MAX_TAG_BYTES
        && tag.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn defaults_are_filled_in_as_docker_does() {
        for (input, canonical, familiar) in [
            ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("alpine:3.20", "docker.io/library/alpine:3.20", "alpine:3.20"),
            ("library/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("team/app", "docker.io/team/app:latest", "team/app:latest"),
            ("docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("index.docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
            (
                "localhost:5000/team/app",
                "localhost:5000/team/app:latest",
                "localhost:5000/team/app:latest",
            ),
            ("localhost:5000/app:v2", "localhost:5000/app:v2", "localhost:5000/app:v2"),
            ("127.0.0.1:80/a/b/c", "127.0.0.1:80/a/b/c:latest", "127.0.0.1:80/a/b/c:latest"),
            ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"),
            ("Registry/app", "Registry/app:latest", "Registry/app:latest"),
            (
                "ghcr.io/a__b/c-d.e--f:V_1.2-x",
                "ghcr.io/a__b/c-d.e--f:V_1.2-x",
                "ghcr.io/a__b/c-d.e--f:V_1.2-x",
            ),
            ("foo:5000", "docker.io/library/foo:5000", "foo:5000"),
            ("docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
        ] {
            let reference = Reference::parse(input).unwrap_or_else(|e| panic!("{input}: {e}"));
            assert_eq!(reference.to_string(), canonical, "{input}");
            assert_eq!(reference.familiar(), familiar, "{input}");
        }
    }

    #[test]
    fn a_digest_pins_and_takes_no_default_tag() {
        let reference = Reference::parse(&format!("alpine@{DIGEST}")).unwrap();
        assert_eq!(reference.tag(), None);
        assert_eq!(reference.digest().unwrap().to_string(), DIGEST);
        assert_eq!(reference.to_string(), format!("docker.io/library/alpine@{DIGEST}"));
        let reference = Reference::parse(&format!("alpine:3@{DIGEST}")).unwrap();
        assert_eq!(reference.tag(), Some("3"));
        assert_eq!(reference.familiar(), format!("alpine:3@{DIGEST}"));
    }

    #[test]
    fn what_docker_refuses_is_refused() {
        let long = "a".repeat(256);
        let tag = format!("a:{}", "t".repeat(129));
        for input in [
            "",
            "/",
            "a//b",
            "a/",
            "/a",
            ":tag",
            "a:",
            "a:b:c",
            "a b",
            "a:ta g",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a/.",
            "a/..",
            "../a",
            "localhost:port/a",
            "localhost:99999/a",
            "ex ample.com/a",
            "-x.com/a",
            "a@sha256:ab",
            "a@",
            "a@md5:d41d8cd98f00b204e9800998ecf8427e",
            "é",
            "a\0",
            "https://docker.io/alpine",
            &long,
            &tag,
            &DIGEST[7..],
        ] {
            assert!(Reference::parse(input).is_err(), "{input:?}");
        }
    }

    #[test]
    fn upper_case_is_refused_with_the_name_that_would_do() {
        let error = Reference::parse("ghcr.io/Team/App:V1").unwrap_err();
        assert!(error.to_string().contains("ghcr.io/team/app:V1"), "{error}");
        assert!(Reference::parse("Alpine").unwrap_err().to_string().contains("\"alpine\""));
    }

    proptest! {
        #[test]
        fn parsing_what_is_printed_gives_the_same(
            text in "([a-z]{1,5}(\\.[a-z]{2,3})?(:[0-9]{1,4})?/)?[a-z0-9]{1,6}([._-][a-z0-9]{1,4})?(/[a-z]{1,5})?(:[A-Za-z0-9_][A-Za-z0-9._-]{0,6})?"
        ) {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert_eq!(&Reference::parse(&reference.to_string()).unwrap(), &reference);
                prop_assert_eq!(&Reference::parse(&reference.familiar()).unwrap(), &reference);
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,80}") {
            let _ = Reference::parse(&text);
        }
    }
}
