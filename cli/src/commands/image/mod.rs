//! The image verbs, on this machine.

pub(crate) mod build;
pub(crate) mod images;
pub(crate) mod import;
pub(crate) mod pull;
pub(crate) mod rmi;
pub(crate) mod tag;

use abax_runtime::image::{Image, Store};
use anyhow::{Context as _, anyhow};

use crate::config::Settings;

/// The store of this machine's images.
fn store(settings: &Settings) -> anyhow::Result<Store> {
    Store::open(&settings.root)
        .with_context(|| format!("could not open the images in {}", settings.root.display()))
}

/// An image that must be here.
fn must_find(store: &Store, name: &str) -> anyhow::Result<Image> {
    store
        .find(name)?
        .ok_or_else(|| anyhow!("no image {name} here; see `abax images`, or `abax pull {name}`"))
}
