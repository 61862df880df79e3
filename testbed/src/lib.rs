//! Real servers for tests: started on free ports, stopped on drop.
//!
//! The servers are Debian's packages (`testbed/install.sh` installs what is
//! missing); each runs on a free loopback port in a temporary directory of its
//! own and ends with the test, also when the test panics or is killed.
//! This crate knows nothing of the code under test.
#![forbid(unsafe_code)]

mod bridge;
mod collector;
mod front;
mod image;
mod ports;
mod postgres;
mod process;
mod rabbitmq;
mod registry;
mod shared;
mod tls;
mod token;

pub use bridge::remove_bridge;
pub use collector::{Collector, Span};
pub use front::{Action, Front, Request};
pub use image::{
    Compression, Layout, Manifest, busybox_image, busybox_rootfs_tar, files_tar, noise,
};
pub use postgres::{Database, Postgres, PostgresOptions};
pub use process::Process;
pub use rabbitmq::{Broker, RabbitMq, RabbitMqOptions};
pub use registry::{Access, Registry};
pub use token::{SERVICE, TokenServer};

/// The user name that the servers of this crate accept.
pub const USER: &str = "abax";
/// The password of [`USER`].
pub const PASSWORD: &str = "open sesame";
