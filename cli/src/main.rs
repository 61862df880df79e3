//! The `abax` command.
#![forbid(unsafe_code)]

fn main() {}
