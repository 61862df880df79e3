//! The image of an execution: here, or pulled once for all who wait for it.
//!
//! A revision of an actor runs one image, known by its digest. Until a host has
//! looked, it has none: whoever looks first decides, and says so.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};

use abax_actors::{PinnedImage, RevisionImage};
use abax_runtime::Runtime;
use abax_runtime::digest::{Digest, ParseDigestError};
use abax_runtime::image::{Image, StoreError};
use abax_runtime::platform::Platform;
use abax_runtime::reference::{ParseError, Reference};
use abax_runtime::registry::{self, PullError, RegistriesConfig};

use crate::metrics;
use crate::trouble::is_of_host;

/// Why an image is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageError {
    #[error("{name:?} is no name of an image")]
    Name { name: String, source: ParseError },
    #[error("could not look for image {name}")]
    Find { name: String, source: StoreError },
    #[error("could not pull image {name}")]
    Pull { name: String, source: Box<PullError> },
    #[error("the digest of image {name} is none")]
    Digest { name: String, source: ParseDigestError },
    #[error("could not note which image {name} is")]
    Pin { name: String, source: PinError },
}

/// Why a revision has no digest although a host found its image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PinError {
    #[error(transparent)]
    Service(abax_actors::Error),
    #[error("its actor is gone")]
    Gone,
}

impl ImageError {
    /// True where it may be there later, or elsewhere, with nothing changed.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Pull { source, .. } if source.is_transient() => true,
            Self::Pin { source: PinError::Service(source), .. } => source.is_transient(),
            _ => is_of_host(self),
        }
    }

    /// True where a registry did not give it, and this host is not to blame.
    pub(crate) fn is_of_registry(&self) -> bool {
        matches!(self, Self::Pull { .. }) && !is_of_host(self)
    }
}

/// What identifies one version of the list of images on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    modified: Option<SystemTime>,
    size: u64,
}

/// What an image is asked for by: its name, and its digest where that is known.
type Key = (String, Option<String>);

/// An image as it was found, and when that was.
type Found = Arc<Mutex<Option<(Stamp, Image)>>>;

/// Images by the name that actors give them.
#[derive(Debug)]
pub(crate) struct Images {
    registries: RegistriesConfig,
    index: PathBuf,
    by_name: Mutex<HashMap<Key, Found>>,
}

/// More names than this are not remembered at once.
const MOST: usize = 1024;

impl Images {
    pub(crate) fn new(runtime: &Runtime, registries: RegistriesConfig) -> Self {
        // Anybody registers actors.
        let registries = RegistriesConfig { named_by_strangers: true, ..registries };
        Self {
            registries,
            index: runtime.root().join("images/index.json"),
            by_name: Mutex::default(),
        }
    }

    /// The image of a revision; blocks while it is pulled. Where it is not pinned,
    /// says by `pin` what was found, and takes what this answers.
    pub(crate) fn of_revision(
        &self,
        runtime: &Runtime,
        wanted: &RevisionImage,
        pin: impl FnOnce(PinnedImage) -> Result<PinnedImage, PinError>,
    ) -> Result<Image, ImageError> {
        let name = &wanted.reference;
        if let Some(pinned) = &wanted.pinned {
            return self.ready(runtime, name, Some(pinned));
        }
        // What was made here is as new as can be.
        let here = if wanted.anew { find(runtime, name)? } else { None };
        let found = match here.filter(Image::was_made_here) {
            Some(image) => image,
            None if wanted.anew => pull(runtime, &self.registries, &parse(name)?)?,
            None => self.ready(runtime, name, None)?,
        };
        let found_as = PinnedImage {
            digest: found.manifest_digest().to_string(),
            made: found.was_made_here(),
        };
        let pinned = pin(found_as.clone())
            .map_err(|source| ImageError::Pin { name: name.clone(), source })?;
        if pinned == found_as { Ok(found) } else { self.ready(runtime, name, Some(&pinned)) }
    }

    /// The image called `name`, the pinned one where one is given; blocks while it is
    /// pulled. Of many that wait for one image, one pulls.
    pub(crate) fn ready(
        &self,
        runtime: &Runtime,
        name: &str,
        pinned: Option<&PinnedImage>,
    ) -> Result<Image, ImageError> {
        let found = {
            let mut by_name = self.by_name.lock().expect("no holder of this lock panics");
            if by_name.len() >= MOST {
                by_name.clear();
            }
            let key = (name.to_owned(), pinned.map(|pinned| pinned.digest.clone()));
            Arc::clone(by_name.entry(key).or_default())
        };
        // A poisoned entry is one that nobody filled.
        let mut found = found.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let stamp = self.stamp();
        // The same list of images names the same image; reading it again would
        // cost each execution a parse of its config.
        if let (Some(stamp), Some((then, image))) = (stamp, &*found)
            && stamp == *then
        {
            return Ok(image.clone());
        }
        let here = match pinned {
            None => find(runtime, name)?,
            Some(pinned) => find_pinned(runtime, name, pinned)?,
        };
        let image = match here {
            Some(image) => image,
            None => {
                let reference = parse(name)?;
                let reference = match pinned {
                    None => reference,
                    Some(pinned) => reference.with_digest(parse_digest(name, &pinned.digest)?),
                };
                pull(runtime, &self.registries, &reference)?
            }
        };
        // Taken before the look, so that a change after it is seen next time.
        *found = stamp.or_else(|| self.stamp()).map(|stamp| (stamp, image.clone()));
        Ok(image)
    }

    fn stamp(&self) -> Option<Stamp> {
        use std::os::unix::fs::MetadataExt as _;
        let metadata = std::fs::metadata(&self.index).ok()?;
        Some(Stamp {
            inode: metadata.ino(),
            modified: metadata.modified().ok(),
            size: metadata.len(),
        })
    }
}

fn find(runtime: &Runtime, name: &str) -> Result<Option<Image>, ImageError> {
    let found = runtime.images().find(name);
    found.map_err(|source| ImageError::Find { name: name.to_owned(), source })
}

/// The image of this digest, also when its name has gone to another. Of one that was
/// made on a host, each host has its own.
fn find_pinned(
    runtime: &Runtime,
    name: &str,
    pinned: &PinnedImage,
) -> Result<Option<Image>, ImageError> {
    match find(runtime, &pinned.digest)? {
        None if pinned.made => Ok(find(runtime, name)?.filter(Image::was_made_here)),
        found => Ok(found),
    }
}

fn parse(name: &str) -> Result<Reference, ImageError> {
    Reference::parse(name).map_err(|source| ImageError::Name { name: name.to_owned(), source })
}

fn parse_digest(name: &str, digest: &str) -> Result<Digest, ImageError> {
    digest.parse().map_err(|source| ImageError::Digest { name: name.to_owned(), source })
}

fn pull(
    runtime: &Runtime,
    registries: &RegistriesConfig,
    reference: &Reference,
) -> Result<Image, ImageError> {
    let began = Instant::now();
    let pulled = registry::pull(runtime.images(), registries, reference, &Platform::host(), &());
    metrics::pulled(pulled.is_ok(), began.elapsed());
    pulled
        .map_err(|source| ImageError::Pull { name: reference.familiar(), source: Box::new(source) })
}
