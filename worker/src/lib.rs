//! Takes messages and runs each in a fresh container.
#![forbid(unsafe_code)]
