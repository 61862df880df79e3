//! The image of an execution: here, or pulled once for all who wait for it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};

use abax_runtime::Runtime;
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
}

impl ImageError {
    /// True where it may be there later, or elsewhere, with nothing changed.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Self::Pull { source, .. } if source.is_transient()) || is_of_host(self)
    }
}

/// What identifies one version of the list of images on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    modified: Option<SystemTime>,
    size: u64,
}

/// An image as it was found, and when that was.
type Found = Arc<Mutex<Option<(Stamp, Image)>>>;

/// Images by the name that actors give them.
#[derive(Debug)]
pub(crate) struct Images {
    registries: RegistriesConfig,
    index: PathBuf,
    by_name: Mutex<HashMap<String, Found>>,
}

/// More names than this are not remembered at once.
const MOST: usize = 1024;

impl Images {
    pub(crate) fn new(runtime: &Runtime, registries: RegistriesConfig) -> Self {
        Self {
            registries,
            index: runtime.root().join("images/index.json"),
            by_name: Mutex::default(),
        }
    }

    /// The image called `name`; blocks while it is pulled. Of many that wait
    /// for one image, one pulls.
    pub(crate) fn ready(&self, runtime: &Runtime, name: &str) -> Result<Image, ImageError> {
        let found = {
            let mut by_name = self.by_name.lock().expect("no holder of this lock panics");
            if by_name.len() >= MOST {
                by_name.clear();
            }
            Arc::clone(by_name.entry(name.to_owned()).or_default())
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
        let here = runtime
            .images()
            .find(name)
            .map_err(|source| ImageError::Find { name: name.to_owned(), source })?;
        let image = match here {
            Some(image) => image,
            None => pull(runtime, &self.registries, name)?,
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

fn pull(runtime: &Runtime, registries: &RegistriesConfig, name: &str) -> Result<Image, ImageError> {
    let reference = Reference::parse(name)
        .map_err(|source| ImageError::Name { name: name.to_owned(), source })?;
    let began = Instant::now();
    let pulled = registry::pull(runtime.images(), registries, &reference, &Platform::host(), &());
    metrics::pulled(pulled.is_ok(), began.elapsed());
    pulled.map_err(|source| ImageError::Pull { name: name.to_owned(), source: Box::new(source) })
}
