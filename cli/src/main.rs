//! The `abax` command: containers and images on this machine, the service, and
//! a client of it.
#![forbid(unsafe_code)]

mod args;
mod config;
mod exit;
mod output;
mod telemetry;
mod terminal;

mod client;
mod commands;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    // Before anything else: this may be the process that makes containers.
    abax_runtime::container::run_launcher_if_asked();
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let args::Abax { global, command } = match args::Abax::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(exit::code_of_usage(&error));
        }
    };
    let code = match commands::run(&global, &command) {
        Ok(code) => code,
        Err(error) => {
            if let Some(message) = exit::message(&error) {
                let _ = writeln!(std::io::stderr(), "{message}");
            }
            exit::code(&command, &error)
        }
    };
    ExitCode::from(code)
}
