//! Seccomp profiles, and the programs that they compile to.
