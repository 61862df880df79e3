//! Digests: what bytes hash to, parsed, printed, and verified while reading.
