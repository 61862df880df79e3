//! The launcher alone: for tests of this crate, whose test binaries have a `main` of their own, which cannot
//! become the launcher. `abax` is its own launcher.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    abax_runtime::container::run_launcher_if_asked();
    // Started by hand.
    ExitCode::from(2)
}
