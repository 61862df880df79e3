//! Descriptors in bulk.

use std::io;

/// Marks every descriptor from `first` on close-on-exec: close_range(2) with
/// `CLOSE_RANGE_CLOEXEC`, Linux 5.11.
///
/// # Errors
///
/// `EINVAL`: the kernel is older than 5.11.
pub(crate) fn close_on_exec_from(first: u32) -> io::Result<()> {
    close_range(first, libc::CLOSE_RANGE_CLOEXEC)
}

/// Closes every descriptor from `first` on: close_range(2), Linux 5.9.
///
/// For a forked child that will never return to code that owns one of them.
///
/// # Errors
///
/// `ENOSYS`: the kernel is older than 5.9.
pub(crate) fn close_from(first: u32) -> io::Result<()> {
    close_range(first, 0)
}

fn close_range(first: u32, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: close_range(2) takes integers. With CLOEXEC no descriptor is closed here; without it
    // the caller has promised to run no code that owns one of them (a child about to wait and exit).
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, flags) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
