//! What a container may do: capabilities, system calls, users.

pub mod capabilities;
pub mod seccomp;
pub mod user;
