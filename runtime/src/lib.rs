//! Images and containers on one machine: pull, build and run, without a daemon.
//!
//! This crate knows nothing of actors, SQL, HTTP servers or executors; it
//! depends on no other crate of the workspace, and its functions block.
//!
#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

pub mod digest;
pub mod platform;
pub mod reference;

pub mod image;
pub mod registry;
pub mod snapshot;

pub mod build;
pub mod dockerfile;

pub mod cgroup;
pub mod container;
pub mod network;
pub mod security;

#[allow(unsafe_code, reason = "kernel calls that no dependency wraps")]
mod sys;
mod trash;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use image::{Store, StoreError};

/// What a [`Runtime`] is to know of the machine.
#[derive(Clone, Debug)]
pub struct Config {
    /// The state root; made where it is missing.
    pub root: PathBuf,
    /// The host's CA bundle, shown to builds and to containers that ask for it.
    pub ca_bundle: Option<PathBuf>,
}

/// Why the state root could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A directory could not be made.
    #[error("could not make {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The images could not be opened.
    #[error(transparent)]
    Images(#[from] StoreError),
}

/// The one entry point: a state root with its images and containers.
///
/// Clones are the same runtime.
#[derive(Clone, Debug)]
pub struct Runtime {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: Config,
    images: Store,
    /// Bridges that this process has prepared.
    bridges: Mutex<Vec<Arc<network::Bridge>>>,
}

impl Runtime {
    /// Opens the state root.
    ///
    /// # Errors
    ///
    /// When its directories cannot be made or its images not be read.
    pub fn open(config: Config) -> Result<Self, OpenError> {
        // `private` comes last, so where it is, all are.
        if !config.root.join("private").exists() {
            for part in ["containers", "trash", "tmp", "network", "private"] {
                let path = config.root.join(part);
                fs::create_dir_all(&path)
                    .map_err(|source| OpenError::Directory { path: path.clone(), source })?;
            }
        }
        let images = Store::open(&config.root)?;
        Ok(Self { shared: Arc::new(Shared { config, images, bridges: Mutex::default() }) })
    }

    /// The state root.
    pub fn root(&self) -> &Path {
        &self.shared.config.root
    }

    /// The images.
    pub fn images(&self) -> &Store {
        &self.shared.images
    }

    /// What it was opened with.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// The bridge of these settings, prepared once by this process.
    ///
    /// # Errors
    ///
    /// As [`network::Bridge::prepare`].
    pub fn bridge(
        &self,
        config: &network::BridgeConfig,
    ) -> Result<Arc<network::Bridge>, network::NetworkError> {
        let mut bridges = self.shared.bridges.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bridge) = bridges.iter().find(|bridge| bridge.config() == config) {
            return Ok(Arc::clone(bridge));
        }
        let bridge = Arc::new(network::Bridge::prepare(self.root(), config)?);
        bridges.push(Arc::clone(&bridge));
        Ok(bridge)
    }

    /// Clears what crashed processes left: containers whose supervisor is gone, with their
    /// processes, cgroups, addresses and directories, which are in the trash then. What is
    /// supervised, here or by other processes, is not touched, and a kept container keeps its
    /// record.
    ///
    /// # Errors
    ///
    /// When something cannot be removed; the rest is swept by the next call.
    pub fn sweep(&self) -> Result<(), container::SweepError> {
        container::sweep(self.root())
    }

    /// Deletes what was removed and is still on the disk, which can take long: nobody needs to
    /// wait for it. What cannot be deleted is only warned of.
    ///
    /// # Errors
    ///
    /// When the directory cannot be read.
    pub fn empty_trash(&self) -> Result<(), image::StoreError> {
        self.images().empty_trash()
    }
}
