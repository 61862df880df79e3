//! The distribution protocol, seen from outside: pull an image.
//!
//! [`pull`] asks the mirrors of a registry and then the registry itself for a
//! manifest, chooses the platform, and brings config and layers into the store.
//! Several layers download at once; each is hashed as it comes and unpacked
//! behind the download. A broken download goes on where it stopped, also in the
//! next pull; two processes that want the same layer fetch it once.
//!
//! Nothing here reads the environment but the HTTP client's proxy settings.

mod auth;
mod config;
mod error;
mod http;
mod layers;
mod manifest;
mod reach;

use std::time::Duration;
use std::{fmt, io};

use reqwest::header::HeaderMap;

pub use config::RegistriesConfig;
pub use error::{Cause, Error, Problem};

use self::auth::Session;
use self::http::Http;
use self::layers::Layers;
use self::manifest::Resolved;
use crate::digest::{Digest, ParseDigestError};
use crate::image::{Image, MANIFEST_LIMIT_BYTES, Store, StoreError, UnpackError};
use crate::platform::Platform;
use crate::reference::Reference;

/// A mirror is an offer: where it stumbles, the next one is asked soon.
const MIRROR_ATTEMPTS: u32 = 2;

/// Pulls `reference` for `platform` into `store` and names it so.
///
/// What the store has already is not fetched again. Call it from a thread that
/// may block, not from an async task.
///
/// # Errors
///
/// [`PullError::NotFound`] and its siblings; see [`PullError::is_transient`]
/// for which of them may pass. Nothing is named or listed then; layers that
/// were complete, and the beginnings of others, stay for the next pull.
pub fn pull(
    store: &Store,
    config: &RegistriesConfig,
    reference: &Reference,
    platform: &Platform,
    progress: &dyn Progress,
) -> Result<Image, PullError> {
    let http = Http::new(config).map_err(|source| PullError::Thread { source })?;
    let sessions = config
        .endpoints(reference.registry(), reference.repository())?
        .into_iter()
        .map(|endpoint| Session::new(&http, endpoint, config.docker_config.as_deref()))
        .collect();
    let mut source = Source { http: &http, config, progress, sessions, preferred: 0 };

    let resolved = manifest::resolve(store, &mut source, reference, platform)?;
    progress.event(Event::Resolved { digest: &resolved.digest });
    Layers::new(store, &source, &resolved).fetch(&resolved)?;

    let Resolved { digest, bytes, .. } = resolved;
    store
        .add_manifest(&bytes, Some(reference))
        .map_err(|source| PullError::Store { digest, source })
}

/// Where one image may come from: mirrors in order, and the registry itself.
struct Source<'a> {
    http: &'a Http<'a>,
    config: &'a RegistriesConfig,
    progress: &'a dyn Progress,
    sessions: Vec<Session<'a>>,
    /// Whoever gave the manifest; the first to be asked for the rest.
    preferred: usize,
}

impl<'a> Source<'a> {
    /// Calls `attempt` for each session from the preferred one on until one succeeds; tells which.
    ///
    /// If none does, the error of the registry itself counts.
    fn ask<T>(
        &self,
        what: &str,
        mut attempt: impl FnMut(&Session<'a>, &mut u64) -> Result<T, PullError>,
    ) -> Result<(T, usize), PullError> {
        let count = self.sessions.len();
        let mut order = (self.preferred..count).chain(0..self.preferred).peekable();
        let mut registrys = None;
        while let Some(index) = order.next() {
            let session = &self.sessions[index];
            let is_mirror = session.endpoint.is_mirror;
            let max_attempts =
                self.config.attempts.min(if is_mirror { MIRROR_ATTEMPTS } else { u32::MAX });
            // What is not the registry's fault ends the retries, and comes out at the end.
            let mut other = None;
            let outcome = self.http.retry(what, max_attempts, self.progress, |reached| {
                attempt(session, reached).map_err(|error| match error {
                    PullError::Registry { source } => source,
                    error => {
                        other = Some(error);
                        Error::Stopped
                    }
                })
            });
            let error = match (outcome, other) {
                (Ok(done), _) => return Ok((done, index)),
                (Err(_), Some(error)) if !error.is_transient() => return Err(error),
                (Err(_), Some(error)) => error,
                (Err(source), None) => PullError::Registry { source },
            };
            if let Some(next) = order.peek() {
                self.progress.event(Event::Fallback {
                    from: &session.endpoint.host,
                    to: &self.sessions[*next].endpoint.host,
                    error: &error,
                });
            }
            if !is_mirror {
                registrys = Some(error);
            }
        }
        Err(registrys.expect("the registry itself is always asked"))
    }

    /// GETs a body of up to `limit_bytes`, with its media type.
    fn document(
        session: &Session<'a>,
        kind: &str,
        name: &str,
        headers: &HeaderMap,
        limit_bytes: u64,
    ) -> Result<(Vec<u8>, Option<String>), Error> {
        let mut response = session.get(&session.endpoint.url(kind, name), headers)?;
        let media_type = response.header(reqwest::header::CONTENT_TYPE);
        let media_type =
            media_type.map(|text| text.split(';').next().unwrap_or(text).trim().to_owned());
        Ok((response.bytes(limit_bytes)?, media_type))
    }

    /// Fetches a config into the store, unless it is there.
    fn config(&self, store: &Store, digest: &Digest) -> Result<Vec<u8>, PullError> {
        let limit_bytes = MANIFEST_LIMIT_BYTES;
        if let Ok(config) = store.read_blob(digest, limit_bytes) {
            return Ok(config);
        }
        let name = digest.to_string();
        let (config, _) = self.ask(&format!("config {digest}"), |session, _| {
            let (bytes, _) =
                Self::document(session, "blobs", &name, &HeaderMap::new(), limit_bytes)?;
            match Digest::of(&bytes) {
                actual if actual == *digest => Ok(bytes),
                actual => {
                    Err(PullError::DigestMismatch { what: "config", expected: *digest, actual })
                }
            }
        })?;
        let stored = store.put_blob(&config);
        stored.map_err(|source| PullError::Store { digest: *digest, source })?;
        Ok(config)
    }
}

/// Hears what a pull is doing; called from several threads.
pub trait Progress: Send + Sync {
    /// Something happened; must return soon.
    fn event(&self, event: Event<'_>);
}

/// Silent.
impl Progress for () {
    fn event(&self, _: Event<'_>) {}
}

/// What happens during a pull.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The manifest for the platform is known.
    Resolved {
        /// Its digest.
        digest: &'a Digest,
    },
    /// A layer is somewhere on its way.
    Layer {
        /// As stored.
        digest: &'a Digest,
        /// As stored.
        size_bytes: u64,
        /// Where it is.
        status: LayerStatus,
    },
    /// A request failed and will be tried again.
    Retrying {
        /// What was asked for.
        what: &'a str,
        /// The wait.
        after: Duration,
        /// Why.
        error: &'a Error,
    },
    /// A mirror failed and the next one, or the registry, is asked.
    Fallback {
        /// The host that failed.
        from: &'a str,
        /// The host that is asked now.
        to: &'a str,
        /// Why.
        error: &'a PullError,
    },
}

/// Where a layer is on its way. Downloading and unpacking overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerStatus {
    /// The store has it.
    Exists,
    /// Another download, or another process's download of the same layer, comes first.
    Waiting,
    /// It is coming.
    Downloading {
        /// So far, as stored.
        bytes: u64,
    },
    /// It is here; its digest is being checked and it is written to the disk.
    Verifying,
    /// It is being unpacked, perhaps while it comes.
    Unpacking {
        /// Read by the unpacker so far, as stored.
        bytes: u64,
    },
    /// It is stored and unpacked.
    Done,
}

/// Why an image could not be pulled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullError {
    /// The registry has no such repository, tag or digest.
    #[error("no image {reference}")]
    NotFound {
        /// What was asked for.
        reference: Box<Reference>,
    },
    /// The image exists, but not for this platform.
    #[error("no image {reference} for {platform}, only for {}", offered.join(", "))]
    NoPlatform {
        /// What was asked for.
        reference: Box<Reference>,
        /// What was asked for.
        platform: Box<Platform>,
        /// What there is.
        offered: Vec<String>,
    },
    /// What the reference names is of a kind that we cannot run.
    #[error("{reference} {problem}")]
    Unsupported {
        /// What was asked for.
        reference: Box<Reference>,
        /// Which kind, as the end of a sentence.
        problem: Unsupported,
    },
    /// A manifest or config that does not parse.
    #[error("could not read the {what} of {reference}")]
    Malformed {
        /// `manifest`, `index` or `config`.
        what: &'static str,
        /// What was asked for.
        reference: Box<Reference>,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A manifest names something by an identifier that is no SHA-256 digest.
    #[error("could not read the manifest of {reference}")]
    Digest {
        /// What was asked for.
        reference: Box<Reference>,
        /// What is wrong with it.
        source: ParseDigestError,
    },
    /// Bytes came that are not those asked for.
    #[error("{what} {expected} arrived as {actual}")]
    DigestMismatch {
        /// `manifest`, `config` or `layer`.
        what: &'static str,
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// The registry could not be asked for the manifest or the config.
    #[error(transparent)]
    Registry {
        /// The error names the registry.
        #[from]
        source: Error,
    },
    /// A layer did not come.
    #[error("could not fetch layer {digest}")]
    Fetch {
        /// The layer.
        digest: Digest,
        /// The last attempt's error.
        source: Box<Error>,
    },
    /// A layer came and could not be written.
    #[error("could not store layer {digest}")]
    Write {
        /// The layer.
        digest: Digest,
        /// As `ENOSPC`.
        source: io::Error,
    },
    /// The store refused.
    #[error("could not store {digest}")]
    Store {
        /// A layer, a config or a manifest.
        digest: Digest,
        /// Why.
        source: StoreError,
    },
    /// A layer is no tar that we unpack, or not the one that the config lists.
    #[error(transparent)]
    Unpack {
        /// The error names the layer.
        #[from]
        source: UnpackError,
    },
    /// No thread could be started.
    #[error("could not start a thread for downloads")]
    Thread {
        /// Why.
        source: io::Error,
    },
}

impl PullError {
    /// True where the same pull may succeed later with nothing changed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Registry { source } => source.is_transient(),
            Self::Fetch { source, .. } => source.is_transient(),
            Self::DigestMismatch { .. } | Self::Thread { .. } => true,
            Self::NotFound { .. }
            | Self::NoPlatform { .. }
            | Self::Unsupported { .. }
            | Self::Malformed { .. }
            | Self::Digest { .. }
            | Self::Write { .. }
            | Self::Store { .. }
            | Self::Unpack { .. } => false,
        }
    }
}

/// A kind of content that registries have and we cannot run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unsupported {
    /// Docker's manifest format of before 2016.
    Schema1,
    /// A manifest that is neither an image's nor an index.
    Manifest {
        /// Its media type.
        media_type: String,
    },
    /// A manifest that claims to be an image's and an index at once (CVE-2021-41190).
    Ambiguous,
    /// An index that contains an index that contains an index.
    Depth,
    /// Something else than an image: a chart, a signature, a model.
    Artifact {
        /// The media type of its config.
        media_type: String,
    },
    /// A layer that the registry does not have and may not give.
    Foreign {
        /// The layer's media type.
        media_type: String,
    },
    /// A layer of a kind that we do not know.
    Layer {
        /// Its media type.
        media_type: String,
    },
    /// The manifest and the config list different numbers of layers.
    LayerCount {
        /// In the manifest.
        layers: usize,
        /// In the config.
        diff_ids: usize,
    },
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Schema1 => f.write_str(
                "is in Docker's old format (schema 1), which is not supported: push it anew",
            ),
            Self::Manifest { media_type } => write!(f, "is no image: it is of type {media_type}"),
            Self::Ambiguous => f.write_str("claims to be an image and an index at once"),
            Self::Depth => f.write_str("is an index of indexes of indexes"),
            Self::Artifact { media_type } => {
                write!(f, "is no image: its config is of type {media_type}")
            }
            Self::Foreign { media_type } => {
                write!(f, "has a layer of type {media_type}, which registries do not distribute")
            }
            Self::Layer { media_type } => {
                write!(f, "has a layer of type {media_type}, which is not supported")
            }
            Self::LayerCount { layers, diff_ids } => {
                write!(f, "has {layers} layers in its manifest and {diff_ids} in its config")
            }
        }
    }
}
