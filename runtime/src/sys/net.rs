//! Interfaces, where netlink would be too much.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Sets the loopback interface of the calling thread's network namespace up: netdevice(7), `SIOCSIFFLAGS`.
///
/// # Errors
///
/// `EPERM`: without `CAP_NET_ADMIN` in the namespace.
pub(crate) fn loopback_up() -> io::Result<()> {
    // SAFETY: socket(2) takes three integers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just opened `fd` for us and nothing else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING)
                .expect("both flags are small"),
        },
    };
    for (slot, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *slot = libc::c_char::from_ne_bytes([*byte]);
    }
    // SAFETY: SIOCSIFFLAGS reads one `ifreq`, which lives on our stack, its name zero-terminated.
    let done = unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, std::ptr::from_ref(&request))
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
