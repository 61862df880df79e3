//! What Abaco's own clients and tests read: bodies, statuses and messages of the bare
//! prefix in each of Abaco's dialects, asked in both letter cases.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

#[path = "../service/mod.rs"]
mod service;

mod names;
mod scene;

mod actors;
mod finding;
mod running;
mod sharing;
