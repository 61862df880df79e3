//! Attributes of mounts.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// How far a change reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The mount itself.
    Mount,
    /// The mount and all mounts below it.
    Tree,
}

/// Read-only, `MOUNT_ATTR_RDONLY`.
pub(crate) const READ_ONLY: u64 = 0x1;
/// No device nodes, `MOUNT_ATTR_NODEV`.
pub(crate) const NO_DEVICES: u64 = 0x4;

/// Sets `attributes` (`MOUNT_ATTR_*`) on the mount that `mount` refers to: mount_setattr(2), Linux 5.12.
///
/// # Errors
///
/// `EPERM`: an attribute is locked by a mount namespace above. `ENOSYS`: older kernel.
pub(crate) fn set_attributes(
    mount: BorrowedFd<'_>,
    reach: Reach,
    attributes: u64,
) -> io::Result<()> {
    setattr(
        mount,
        reach,
        &libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 },
    )
}

/// Cuts a mount off from its peers, so that nothing mounted on one side shows on the other:
/// mount_setattr(2) with `MS_PRIVATE`, Linux 5.12.
///
/// # Errors
///
/// `EINVAL`: `mount` is not a mount. `ENOSYS`: older kernel.
pub(crate) fn make_private(mount: BorrowedFd<'_>, reach: Reach) -> io::Result<()> {
    setattr(
        mount,
        reach,
        &libc::mount_attr { attr_set: 0, attr_clr: 0, propagation: libc::MS_PRIVATE, userns_fd: 0 },
    )
}

/// Shows the owners of a detached mount through the id mapping of `user_namespace`:
/// mount_setattr(2) with `MOUNT_ATTR_IDMAP`, Linux 5.12.
///
/// # Errors
///
/// `EINVAL`: the file system does not support it, or the mount is attached already.
pub(crate) fn map_ids(mount: BorrowedFd<'_>, user_namespace: BorrowedFd<'_>) -> io::Result<()> {
    let userns_fd =
        u64::try_from(user_namespace.as_raw_fd()).expect("descriptors are not negative");
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd,
    };
    setattr(mount, Reach::Mount, &attributes)
}

fn setattr(mount: BorrowedFd<'_>, reach: Reach, attributes: &libc::mount_attr) -> io::Result<()> {
    let recursive = match reach {
        Reach::Mount => 0,
        Reach::Tree => libc::AT_RECURSIVE,
    };
    // SAFETY: the path is a constant C string, `attributes` outlives the call, and its size is given.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            std::ptr::from_ref(attributes),
            size_of::<libc::mount_attr>(),
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
