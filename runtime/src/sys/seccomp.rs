//! seccomp(2).

use std::io;

/// Installs a classic BPF program in the calling thread, one instruction in each `u64` as the
/// kernel lays out `struct sock_filter`: seccomp(2), `SECCOMP_SET_MODE_FILTER`, Linux 3.17.
///
/// # Errors
///
/// `EACCES`: neither `CAP_SYS_ADMIN` nor no_new_privs. `EINVAL`: not a valid program.
pub(crate) fn install_seccomp(program: &[u64]) -> io::Result<()> {
    let len = libc::c_ushort::try_from(program.len())
        .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: `filter` points to `len` instructions of eight bytes each, aligned for u64 (stricter
    // than sock_filter); the kernel copies and checks them, and writes nothing.
    let done = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program)
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
