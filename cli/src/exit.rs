//! Error → exit code and message, in one place.

use std::io;

use abax_runtime::container::StartError;
use clap::CommandFactory as _;

use crate::args::Command;

/// The command line asks for what cannot be; exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// The answer has been written, and it is "no": the code, without another line.
#[derive(Debug, thiserror::Error)]
#[error("exit code {0}")]
pub(crate) struct Silent(pub(crate) u8);

/// The exit code that an error of `command` ends with.
///
/// 1 failed, 2 usage; for `run` 125 we failed, 126 the command cannot be
/// executed, 127 it is not there. A closed pipe is not an error.
pub(crate) fn code(command: &Command, error: &anyhow::Error) -> u8 {
    if is_closed_pipe(error) {
        return 0;
    }
    if let Some(Silent(code)) = find(error) {
        return *code;
    }
    match command {
        Command::Run(_) => find::<StartError>(error).map_or(125, StartError::exit_code),
        _ if find::<Usage>(error).is_some() => 2,
        _ => 1,
    }
}

/// The exit code of a command line that cannot be read, or that asks for help.
///
/// As with docker, `run` ends with 125 whatever was wrong on our side of it.
pub(crate) fn code_of_usage(error: &clap::Error) -> u8 {
    let abax = crate::args::Abax::command();
    let verb = std::env::args().skip(1).find(|word| abax.find_subcommand(word).is_some());
    match verb.as_deref() {
        _ if !error.use_stderr() => 0,
        Some("run") => 125,
        _ => 2,
    }
}

/// One line for standard error: `abax: what: why: why`, or nothing.
pub(crate) fn message(error: &anyhow::Error) -> Option<String> {
    if is_closed_pipe(error) || find::<Silent>(error).is_some() {
        return None;
    }
    let mut text = String::from("abax");
    let mut last = String::new();
    for cause in error.chain() {
        let part = cause.to_string();
        // A cause that the error above already quoted is not said twice.
        if !part.is_empty() && !last.ends_with(&part) {
            text.push_str(": ");
            text.push_str(&part);
            last = part;
        }
    }
    Some(text)
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    find::<io::Error>(error).is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
        && find::<WritingOutput>(error).is_some()
}

/// Marks an I/O error as one of our own standard output.
#[derive(Debug, thiserror::Error)]
#[error("could not write to standard output")]
pub(crate) struct WritingOutput(#[source] pub(crate) io::Error);

fn find<E: std::error::Error + 'static>(error: &anyhow::Error) -> Option<&E> {
    error.chain().find_map(|cause| cause.downcast_ref())
}
