//! Verb → function.

mod actor;
mod container;
mod image;
mod serve;
mod token;
mod version;

use std::io;

use anyhow::bail;
use tracing_subscriber::EnvFilter;

use crate::args::{Command, Global};
use crate::config::Settings;

/// The exit code of the verb.
///
/// # Errors
///
/// Whatever the verb could not do; [`crate::exit`] makes a code and a line of it.
pub(crate) fn run(global: &Global, command: &Command) -> anyhow::Result<u8> {
    let settings = Settings::load(global)?;
    log(global, command)?;
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
        Command::Serve(args) => serve::run(&settings, args),
        Command::Token(args) => token::run(&settings, args),
        Command::Actor(args) => actor::run(&settings, args),
        Command::Version(args) => version::run(args),
    }
    .map(|()| 0)
}

/// The log goes to standard error: `info` and above for the service, `warn`
/// for verbs whose output people read.
fn log(global: &Global, command: &Command) -> Result<(), crate::exit::Usage> {
    let serving = matches!(command, Command::Serve(_));
    let default = if serving { "info" } else { "warn" };
    let filter = global.log_level.as_deref().unwrap_or(default);
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| crate::exit::Usage(format!("--log-level {filter}: {error}")))?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
        .with_target(false)
        .with_writer(io::stderr);
    match command {
        Command::Serve(args) if args.log_json => subscriber.json().init(),
        _ => subscriber.init(),
    }
    Ok(())
}
