//! Results: what an execution sends back while it runs, beside its output.

use crate::clock::Time;

/// One result of an execution, but for its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResultEntry {
    /// Its place among the results of the execution, from 1.
    pub number: u64,
    /// How many bytes it has.
    pub size_bytes: u64,
    /// When it came.
    pub created: Time,
    /// Whether a client that reads one after the other has had it.
    pub taken: bool,
}
