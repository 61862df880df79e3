//! Verb → function.

mod actor;
mod admin;
mod config;
mod container;
mod image;
mod reach;
mod service;
mod token;
mod version;

use anyhow::bail;

use crate::args::{Command, Global};
use crate::config::Said;
use crate::telemetry;

/// The exit code of the verb.
///
/// # Errors
///
/// Whatever the verb could not do; [`crate::exit`] makes a code and a line of it.
pub(crate) fn run(global: &Global, command: &Command) -> anyhow::Result<u8> {
    let said = Said::read(global, command);
    // This one is for settings that cannot be used, too.
    if let Command::Config(args) = command {
        return config::run(&said, args).map(|()| 0);
    }
    let settings = said.settings()?;
    let service = match command {
        Command::Serve(_) => Some("abax"),
        Command::Api(_) => Some("abax-api"),
        Command::Worker(_) => Some("abax-worker"),
        _ => None,
    };
    telemetry::init(&settings, service)?;
    if needs_root(command) && !nix::unistd::geteuid().is_root() {
        bail!("this needs root, to make containers and to unpack images; try it with sudo");
    }
    match command {
        Command::Run(args) => return container::run::run(&settings, args),
        Command::Ps(args) => container::ps::run(&settings, args),
        Command::Rm(args) => container::rm::run(&settings, args),
        Command::Pull(args) => image::pull::run(&settings, args),
        Command::Images(args) => image::images::run(&settings, args),
        Command::Build(args) => image::build::run(&settings, args),
        Command::Import(args) => image::import::run(&settings, args),
        Command::Tag(args) => image::tag::run(&settings, args),
        Command::Rmi(args) => image::rmi::run(&settings, args),
        Command::Serve(_) => service::serve::run(&settings),
        Command::Api(_) => service::api::run(&settings),
        Command::Worker(_) => service::worker::run(&settings),
        Command::Migrate(args) => service::migrate::run(&settings, args),
        Command::Admin(args) => admin::run(&settings, args),
        Command::Token(args) => token::run(&settings, args),
        Command::Actor(args) => actor::run(&settings, args),
        Command::Version(args) => version::run(args),
        Command::Config(_) => Ok(()),
    }
    .map(|()| 0)
}

/// Whether the verb makes containers or unpacks images.
fn needs_root(command: &Command) -> bool {
    !matches!(
        command,
        Command::Actor(_)
            | Command::Admin(_)
            | Command::Api(_)
            | Command::Config(_)
            | Command::Migrate(_)
            | Command::Token(_)
            | Command::Version(_)
    )
}
