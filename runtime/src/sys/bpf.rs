//! bpf(2): load a program and attach it to a control group.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// `BPF_PROG_LOAD`, linux/bpf.h.
const PROG_LOAD: libc::c_int = 5;
/// `BPF_PROG_ATTACH`, linux/bpf.h.
const PROG_ATTACH: libc::c_int = 8;
/// `BPF_PROG_TYPE_CGROUP_DEVICE`, linux/bpf.h.
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
/// `BPF_CGROUP_DEVICE`, linux/bpf.h.
const ATTACH_TYPE_CGROUP_DEVICE: u32 = 6;
/// `BPF_F_ALLOW_MULTI`: programs of parent groups stay in force as well.
const ALLOW_MULTI: u32 = 2;

/// One instruction as `struct bpf_insn` lays it out in 64 bits, native byte order.
pub(crate) type Instruction = [u8; 8];

/// The first fields of `union bpf_attr` for `BPF_PROG_LOAD`; the kernel takes the rest as zero.
#[repr(C)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

/// The first fields of `union bpf_attr` for `BPF_PROG_ATTACH`.
#[repr(C)]
struct AttachAttributes {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

/// Loads a `BPF_PROG_TYPE_CGROUP_DEVICE` program: bpf(2), Linux 4.15.
///
/// # Errors
///
/// `EPERM`: neither `CAP_BPF` with `CAP_NET_ADMIN` nor `CAP_SYS_ADMIN`. `EINVAL`, `EACCES`: the
/// verifier refused it. `ENOSYS`: a kernel without bpf(2).
pub(crate) fn bpf_load_device_program(program: &[Instruction]) -> io::Result<OwnedFd> {
    let attributes = LoadAttributes {
        program_type: PROG_TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(program.len()).map_err(io::Error::other)?,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: the kernel reads `size_of` bytes of `attributes`, `instruction_count` instructions of
    // 8 bytes from `program`, and a NUL-terminated static string; all outlive the call, and
    // with no log buffer it writes nothing.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const attributes, size_of::<LoadAttributes>())
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = RawFd::try_from(fd).expect("descriptors are ints");
    // SAFETY: the kernel just opened `fd` for us (close-on-exec, as all of bpf(2)'s) and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a device program to the v2 control group `group`: bpf(2), Linux 4.15.
///
/// # Errors
///
/// `EBADF`: `group` is no directory of a cgroup v2 tree.
pub(crate) fn bpf_attach_device_program(
    group: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
) -> io::Result<()> {
    let raw =
        |fd: BorrowedFd<'_>| u32::try_from(fd.as_raw_fd()).expect("descriptors are not negative");
    let attributes = AttachAttributes {
        target: raw(group),
        program: raw(program),
        attach_type: ATTACH_TYPE_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    // SAFETY: the kernel reads `size_of` bytes of `attributes`, which outlives the call, and writes nothing.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            PROG_ATTACH,
            &raw const attributes,
            size_of::<AttachAttributes>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
