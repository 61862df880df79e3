//! Takes messages and runs each in a fresh container.
//!
//! Knows neither SQL nor HTTP: what it learns and tells goes through
//! [`abax_actors::Service`], and containers are [`abax_runtime`]'s.
//!
//! ```text
//! consume   a slot, then a message ──► execute   one execution, from claim to result
//! prepare   images before they are needed  ├─ image    the image, here or pulled once for all who wait
//!                                        ├─ sandbox  options → container → outcome
//!                                        ├─ watched  a container that runs, and how it is stopped
//!                                        ├─ output   bounded, handed on while it runs
//!                                        └─ results  what it sends back, as it comes
//! lease     renews what runs here; ends what was halted, or taken from us
//! trouble   rests, or stops, when this host cannot start anything
//! ```
//!
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod config;
mod machine;
mod metrics;
mod trace;

mod consume;
mod execute;
mod lease;
mod trouble;

mod image;
mod output;
mod prepare;
mod results;
mod sandbox;
mod watched;

pub use config::{AccessTokens, Config};
pub use consume::{RunError, run};
