//! Verb → function.

mod actor;
mod config;
mod container;
mod image;
mod serve;
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
    let service = matches!(command, Command::Serve(_)).then_some("abax");
    telemetry::init(&settings, service)?;
    let by_http = matches!(command, Command::Actor(_) | Command::Token(_) | Command::Version(_));
    if !by_http && !nix::unistd::geteuid().is_root() {
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
        Command::Serve(_) => serve::run(&settings),
        Command::Token(args) => token::run(&settings, args),
        Command::Actor(args) => actor::run(&settings, args),
        Command::Version(args) => version::run(args),
        Command::Config(_) => Ok(()),
    }
    .map(|()| 0)
}
