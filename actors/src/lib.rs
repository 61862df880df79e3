//! The domain: actors, messages, executions; their rules, rows and queue.
//!
//! Knows nothing of containers or HTTP. The only crate that names a table, a
//! SQL engine or a broker; its one door is `Service`.
#![forbid(unsafe_code)]
