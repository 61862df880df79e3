//! Capability names and sets.
