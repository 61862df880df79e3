//! The only unsafe code of the workspace: one safe function per kernel call that no dependency wraps.

mod bpf;
pub(crate) mod fd;
pub(crate) mod mount;
pub(crate) mod net;
pub(crate) mod process;
mod seccomp;

pub(crate) use bpf::{Instruction, bpf_attach_device_program, bpf_load_device_program};
pub(crate) use seccomp::install_seccomp;
