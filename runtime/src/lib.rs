//! Images and containers on one machine: pull, build and run, without a daemon.
//!
//! This crate knows nothing of actors, SQL, HTTP servers or executors; it
//! depends on no other crate of the workspace, and its functions block.
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
