//! The mounts of a container: made before the root changes, attached after it.
//!
//! Every file system is made as a detached mount while the host's are still there (the kernel wants
//! to see the host's /proc before it gives a user namespace one), then the root is pivoted and the
//! old one detached, and only then are paths of the image looked at. Nothing of the host can be
//! reached through them any more, whatever symlinks the image holds. Targets are resolved by
//! openat2(2) without magic links, and mounts attached by descriptor (CVE-2021-30465).

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Mount, Spec};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};

use super::handshake::{At, Failure, Role, Step};
use super::launcher::Descriptors;
use crate::sys::mount::{self, Reach};

/// Device nodes of every container: name, major, minor. All of mode 0666.
const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];
/// Symlinks of /dev: name, target.
const DEVICE_LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// A mount that is not attached yet.
#[derive(Debug)]
struct Detached {
    target: PathBuf,
    mount: OwnedFd,
    kind: Kind,
}

/// How a target is found, and made where it is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A file system of ours on a directory that must not be reached through a symlink.
    System,
    /// /dev: as `System`, and it holds the nodes that masks are made of.
    Devices,
    /// Something of the caller's; symlinks in the target are followed inside the root.
    Directory,
    /// As `Directory`, on a file.
    File,
}

/// What was made of the root before anything of the image was looked at.
#[derive(Debug)]
pub(super) struct Prepared {
    mounts: Vec<Detached>,
    /// Host device nodes to be attached in a user namespace, where none can be made.
    nodes: Vec<(&'static str, OwnedFd)>,
}

/// Makes all mounts of `spec`, detached. To be called while the host's file systems are there.
pub(super) fn prepare(
    spec: &Spec,
    descriptors: &mut Descriptors,
    in_user_namespace: bool,
) -> Result<Prepared, Failure> {
    let mut prepared = Prepared { mounts: Vec::new(), nodes: Vec::new() };
    for (index, wanted) in spec.mounts().iter().flatten().enumerate() {
        let target = wanted.destination().clone();
        let step = || Step::Prepare(target.clone());
        let kind = wanted.typ().as_deref().unwrap_or("bind");
        // A cgroup mount shows the cgroup namespace that is entered last.
        if kind == "cgroup" || kind == "cgroup2" {
            continue;
        }
        let (mount, kind) = match kind {
            "bind" => {
                let mount = descriptors
                    .take(Role::Mount(index))
                    .ok_or_else(|| Failure::new(step(), &io::ErrorKind::NotFound.into()))?;
                let directory = rustix::fs::fstat(&mount).at(step())?.st_mode;
                let is_directory = FileType::from_raw_mode(directory) == FileType::Directory;
                (mount, if is_directory { Kind::Directory } else { Kind::File })
            }
            "tmpfs" if target == Path::new("/dev") => {
                let devices = file_system("tmpfs", wanted).at(step())?;
                populate_devices(devices.as_fd(), in_user_namespace, &mut prepared.nodes)?;
                let more = spec.linux().as_ref().and_then(|linux| linux.devices().as_ref());
                for device in more.into_iter().flatten() {
                    make_device(devices.as_fd(), device).at(Step::Device(device.path().clone()))?;
                }
                (devices, Kind::Devices)
            }
            "sysfs" => {
                let system = match file_system("sysfs", wanted) {
                    // A user namespace may see the sysfs of its own network namespace only.
                    Err(error) if error.raw_os_error() == Some(libc::EPERM) => host_sysfs(),
                    other => other,
                };
                (system.at(step())?, Kind::System)
            }
            "tmpfs" if !is_ours(&target) => {
                (file_system("tmpfs", wanted).at(step())?, Kind::Directory)
            }
            kind => (file_system(kind, wanted).at(step())?, Kind::System),
        };
        prepared.mounts.push(Detached { target, mount, kind });
    }
    Ok(prepared)
}

/// True for mount points in file systems that we make ourselves.
fn is_ours(target: &Path) -> bool {
    ["/dev", "/proc", "/sys"].iter().any(|ours| target.starts_with(ours))
}

/// A new file system from a mount entry: fsopen(2) to fsmount(2).
fn file_system(kind: &str, wanted: &Mount) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    let mut attributes = MountAttrFlags::empty();
    for option in wanted.options().iter().flatten() {
        match option.as_str() {
            "ro" => attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY,
            "nosuid" => attributes |= MountAttrFlags::MOUNT_ATTR_NOSUID,
            "nodev" => attributes |= MountAttrFlags::MOUNT_ATTR_NODEV,
            "noexec" => attributes |= MountAttrFlags::MOUNT_ATTR_NOEXEC,
            "noatime" => attributes |= MountAttrFlags::MOUNT_ATTR_NOATIME,
            "strictatime" => attributes |= MountAttrFlags::MOUNT_ATTR_STRICTATIME,
            "rw" | "relatime" | "exec" | "suid" | "dev" => {}
            option => match option.split_once('=') {
                Some((key, value)) => {
                    rustix::mount::fsconfig_set_string(context.as_fd(), key, value)?
                }
                None => rustix::mount::fsconfig_set_flag(context.as_fd(), option)?,
            },
        }
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    Ok(rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// The host's sysfs, read-only with all below it.
fn host_sysfs() -> io::Result<OwnedFd> {
    let tree = clone_tree(rustix::fs::CWD, Path::new("/sys"), OpenTreeFlags::AT_RECURSIVE)?;
    mount::set_attributes(tree.as_fd(), Reach::Tree, mount::READ_ONLY)?;
    Ok(tree)
}

fn clone_tree(directory: BorrowedFd<'_>, path: &Path, flags: OpenTreeFlags) -> io::Result<OwnedFd> {
    let flags = flags | OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    Ok(rustix::mount::open_tree(directory, path, flags)?)
}

/// Fills a fresh /dev: nodes, symlinks, mount points.
fn populate_devices(
    devices: BorrowedFd<'_>,
    in_user_namespace: bool,
    nodes: &mut Vec<(&'static str, OwnedFd)>,
) -> Result<(), Failure> {
    for (name, major, minor) in DEVICES {
        let step = || Step::Device(Path::new("/dev").join(name));
        if in_user_namespace {
            // No nodes can be made there; the host's are shown instead, each checked to be what its
            // name says.
            let path = Path::new("/dev").join(name);
            let node = clone_tree(rustix::fs::CWD, &path, OpenTreeFlags::empty()).at(step())?;
            verify_device(node.as_fd(), major, minor).at(step())?;
            rustix::fs::openat(
                devices,
                name,
                OFlags::CREATE | OFlags::CLOEXEC,
                Mode::from_raw_mode(0o666),
            )
            .at(step())?;
            nodes.push((name, node));
        } else {
            let device = rustix::fs::makedev(major, minor);
            let mode = Mode::from_raw_mode(0o666);
            rustix::fs::mknodat(devices, name, FileType::CharacterDevice, mode, device)
                .at(step())?;
        }
    }
    for (name, target) in DEVICE_LINKS {
        rustix::fs::symlinkat(target, devices, name)
            .at(Step::Device(Path::new("/dev").join(name)))?;
    }
    for (name, mode) in [("pts", 0o755), ("shm", 0o1777), ("mqueue", 0o755)] {
        rustix::fs::mkdirat(devices, name, Mode::from_raw_mode(mode))
            .at(Step::Device(Path::new("/dev").join(name)))?;
    }
    Ok(())
}

/// Makes a node of the host's in a fresh /dev, with its directories.
fn make_device(devices: BorrowedFd<'_>, device: &LinuxDevice) -> io::Result<()> {
    let Ok(path) = device.path().strip_prefix("/dev") else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    // It is all ours until it is attached.
    let above: Vec<&Path> = path.ancestors().skip(1).collect();
    for directory in above.into_iter().rev().filter(|path| !path.as_os_str().is_empty()) {
        match rustix::fs::mkdirat(devices, directory, Mode::from_raw_mode(0o755)) {
            Err(Errno::EXIST) => {}
            made => made?,
        }
    }
    let kind = match device.typ() {
        LinuxDeviceType::B => FileType::BlockDevice,
        _ => FileType::CharacterDevice,
    };
    let number = |number: i64| {
        u32::try_from(number).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
    };
    let id = rustix::fs::makedev(number(device.major())?, number(device.minor())?);
    let mode = Mode::from_raw_mode(device.file_mode().unwrap_or(0o600));
    match rustix::fs::mknodat(devices, path, kind, mode, id) {
        // Where we may not make it ourselves, nobody may use it here.
        Err(Errno::PERM) => return Ok(()),
        made => made?,
    }
    let (uid, gid) = (device.uid().unwrap_or(0), device.gid().unwrap_or(0));
    let owner = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    Ok(rustix::fs::chownat(devices, path, Some(owner.0), Some(owner.1), AtFlags::empty())?)
}

/// A device is what it claims to be only if its numbers say so (CVE-2025-31133).
fn verify_device(node: BorrowedFd<'_>, major: u32, minor: u32) -> io::Result<()> {
    let found = rustix::fs::fstat(node)?;
    let is_device = FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice;
    if is_device && found.st_rdev == rustix::fs::makedev(major, minor) {
        return Ok(());
    }
    Err(io::Error::from_raw_os_error(libc::ENODEV))
}

/// Makes the detached mount `root` this process's `/`, and lets go of the host's file systems.
///
/// `mount_point` is any directory of the host; the root hangs there for a moment.
pub(super) fn pivot(root: BorrowedFd<'_>, mount_point: BorrowedFd<'_>) -> Result<(), Failure> {
    rustix::mount::move_mount(
        root,
        "",
        mount_point,
        "",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
    )
    .at(Step::Pivot)?;
    rustix::process::fchdir(root).at(Step::Pivot)?;
    // The old root is stacked on the new one, and goes from there: pivot_root(2), `pivot_root(".", ".")`.
    rustix::process::pivot_root(".", ".").at(Step::Pivot)?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).at(Step::Pivot)?;
    rustix::process::chdir("/").at(Step::Pivot)
}

/// Attaches everything that was prepared, then hides and write-protects what the spec says.
pub(super) fn attach(prepared: Prepared, spec: &Spec) -> Result<(), Failure> {
    let root =
        rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .at(Step::Pivot)?;
    for Detached { target, mount, kind } in prepared.mounts {
        let step = || Step::Mount(target.clone());
        let place = match kind {
            Kind::System | Kind::Devices => directory_without_links(root.as_fd(), &target),
            Kind::Directory => make_inside(root.as_fd(), &target, FileType::Directory),
            Kind::File => make_inside(root.as_fd(), &target, FileType::RegularFile),
        }
        .at(step())?;
        attach_at(mount.as_fd(), place.as_fd()).at(step())?;
        if kind == Kind::Devices {
            for (name, node) in &prepared.nodes {
                let step = || Step::Device(Path::new("/dev").join(name));
                let place =
                    resolve(mount.as_fd(), Path::new(name), OFlags::PATH | OFlags::NOFOLLOW)
                        .at(step())?;
                attach_at(node.as_fd(), place.as_fd()).at(step())?;
            }
        }
    }
    if let Some(linux) = spec.linux() {
        for path in linux.masked_paths().iter().flatten() {
            mask(root.as_fd(), Path::new(path)).at(Step::Mask(path.into()))?;
        }
        for path in linux.readonly_paths().iter().flatten() {
            write_protect(root.as_fd(), Path::new(path)).at(Step::ReadOnly(path.into()))?;
        }
    }
    Ok(())
}

/// Makes the root itself read-only, after the last mount point was made in it.
pub(super) fn protect_root() -> Result<(), Failure> {
    let step = || Step::ReadOnly(PathBuf::from("/"));
    let root =
        rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .at(step())?;
    mount::set_attributes(root.as_fd(), Reach::Mount, mount::READ_ONLY).at(step())
}

/// Mounts the cgroup tree of the cgroup namespace that was just entered, where the spec wants it.
pub(super) fn attach_cgroup(spec: &Spec) -> Result<(), Failure> {
    let is_cgroup =
        |mount: &&Mount| mount.typ().as_deref().is_some_and(|kind| kind.starts_with("cgroup"));
    let Some(wanted) = spec.mounts().iter().flatten().find(is_cgroup) else { return Ok(()) };
    let step = || Step::Mount(wanted.destination().clone());
    let mount = file_system("cgroup2", wanted).at(step())?;
    let root =
        rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .at(step())?;
    let place = directory_without_links(root.as_fd(), wanted.destination()).at(step())?;
    attach_at(mount.as_fd(), place.as_fd()).at(step())
}

fn attach_at(mount: BorrowedFd<'_>, place: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, "", place, "", flags)?)
}

/// Opens `path` beneath `root`, symlinks followed as if `root` were `/`, /proc's magic links refused.
pub(crate) fn resolve(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    open_beneath(root, path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

fn open_beneath(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    resolve: ResolveFlags,
) -> io::Result<OwnedFd> {
    // EAGAIN: something on the way was renamed meanwhile, by whoever else has a bind mount in sight.
    for _ in 0..64 {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
    Err(Errno::AGAIN.into())
}

/// The directory at `path`, no part of which may be a symlink: an image whose /proc is one is
/// refused (CVE-2019-19921, CVE-2023-27561). Made where it is missing.
fn directory_without_links(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let strict = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    match open_beneath(root, path, flags, strict) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                return Err(error);
            };
            let parent = directory_without_links(root, parent)?;
            make_directory(parent.as_fd(), Path::new(name))?;
            open_beneath(root, path, flags, strict)
        }
        other => other,
    }
}

/// What stands at `path` beneath `root`, made with the directories above it where it is missing.
///
/// # Errors
///
/// `EEXIST`: a dangling symlink is in the way. `ELOOP`: a magic link, or too many links.
pub(super) fn make_inside(
    root: BorrowedFd<'_>,
    path: &Path,
    kind: FileType,
) -> io::Result<OwnedFd> {
    let missing = match resolve(root, path, OFlags::PATH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => error,
        other => return other,
    };
    let (Some(parent), Some(Component::Normal(name))) =
        (path.parent(), path.components().next_back())
    else {
        return Err(missing);
    };
    let parent = make_inside(root, parent, FileType::Directory)?;
    let name = Path::new(name);
    if kind == FileType::Directory {
        make_directory(parent.as_fd(), name)?;
    } else {
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644))?;
    }
    resolve(parent.as_fd(), name, OFlags::PATH | OFlags::NOFOLLOW)
}

fn make_directory(parent: BorrowedFd<'_>, name: &Path) -> io::Result<()> {
    Ok(rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))?)
}

/// What is at `path`, where nothing on the way to it is a symlink; `None` where there is nothing.
fn find_without_symlinks(root: BorrowedFd<'_>, path: &Path) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW;
    match open_beneath(root, path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// Hides a file behind our /dev/null, a directory behind an empty tmpfs. What is not there needs no hiding.
fn mask(root: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let Some(place) = find_without_symlinks(root, path)? else { return Ok(()) };
    let is_directory =
        FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode) == FileType::Directory;
    let cover = if is_directory {
        let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_set_string(context.as_fd(), "nr_blocks", "1")?;
        rustix::mount::fsconfig_set_string(context.as_fd(), "nr_inodes", "1")?;
        rustix::mount::fsconfig_create(context.as_fd())?;
        rustix::mount::fsmount(
            context.as_fd(),
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::MOUNT_ATTR_RDONLY
                | MountAttrFlags::MOUNT_ATTR_NOSUID
                | MountAttrFlags::MOUNT_ATTR_NODEV
                | MountAttrFlags::MOUNT_ATTR_NOEXEC,
        )?
    } else {
        // Of our own /dev, and checked again: never whatever the image calls /dev/null.
        let null = open_beneath(
            root,
            Path::new("/dev/null"),
            OFlags::PATH | OFlags::NOFOLLOW,
            ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS,
        )?;
        verify_device(null.as_fd(), 1, 3)?;
        clone_tree(null.as_fd(), Path::new(""), OpenTreeFlags::AT_EMPTY_PATH)?
    };
    attach_at(cover.as_fd(), place.as_fd())
}

/// Puts a read-only view of `path`, and of all mounts below it, over itself.
fn write_protect(root: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let Some(place) = find_without_symlinks(root, path)? else { return Ok(()) };
    let view = clone_tree(
        place.as_fd(),
        Path::new(""),
        OpenTreeFlags::AT_EMPTY_PATH | OpenTreeFlags::AT_RECURSIVE,
    )?;
    mount::set_attributes(view.as_fd(), Reach::Tree, mount::READ_ONLY)?;
    attach_at(view.as_fd(), place.as_fd())
}

/// Opens a pair of terminal ends in the container's own devpts, and shows the container's end as /dev/console.
pub(super) fn terminal() -> io::Result<(OwnedFd, OwnedFd)> {
    use rustix::pty::OpenptFlags;
    let root =
        rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let master = open_beneath(
        root.as_fd(),
        Path::new("/dev/pts/ptmx"),
        OFlags::RDWR | OFlags::NOCTTY,
        ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS,
    )?;
    verify_device(master.as_fd(), 5, 2)?;
    rustix::pty::unlockpt(&master)?;
    // Not by its name: whoever could mount over /dev/pts could give us another file (CVE-2025-52565).
    let terminal = rustix::pty::ioctl_tiocgptpeer(
        &master,
        OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
    )?;
    let devices = directory_without_links(root.as_fd(), Path::new("/dev"))?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(&devices, "console", flags, Mode::from_raw_mode(0o600))?;
    let place = resolve(devices.as_fd(), Path::new("console"), OFlags::PATH | OFlags::NOFOLLOW)?;
    let console = clone_tree(terminal.as_fd(), Path::new(""), OpenTreeFlags::AT_EMPTY_PATH)?;
    attach_at(console.as_fd(), place.as_fd())?;
    Ok((master, terminal))
}

/// What becomes of symbolic links on the way to what is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Links {
    Followed,
    Refused,
}

/// A detached view of a path of the host, cut off from the host's later mounts: what a bind mount is made of.
pub(super) fn bind_source(path: &Path, read_only: bool, links: Links) -> io::Result<OwnedFd> {
    let found = match links {
        Links::Followed => None,
        Links::Refused => Some(found_without_links(path)?),
    };
    let metadata = match &found {
        None => fs::metadata(path)?,
        Some(found) => fs::File::from(found.try_clone()?).metadata()?,
    };
    let reach = if metadata.is_dir() { Reach::Tree } else { Reach::Mount };
    if metadata.file_type().is_block_device()
        || metadata.rdev() != 0 && !metadata.file_type().is_char_device()
    {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "block devices cannot be mounted as files",
        ));
    }
    let flags =
        if reach == Reach::Tree { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
    let tree = match &found {
        None => clone_tree(rustix::fs::CWD, path, flags)?,
        Some(found) => {
            clone_tree(found.as_fd(), Path::new(""), flags | OpenTreeFlags::AT_EMPTY_PATH)?
        }
    };
    mount::make_private(tree.as_fd(), reach)?;
    if read_only {
        mount::set_attributes(tree.as_fd(), reach, mount::READ_ONLY)?;
    }
    Ok(tree)
}

/// What is at `path`, where no part of it is a symbolic link.
fn found_without_links(path: &Path) -> io::Result<OwnedFd> {
    let strict = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let open = |flags| open_beneath(rustix::fs::CWD, path, flags, strict);
    // As a directory first, so that one that is mounted when it is used is.
    let found = match open(OFlags::PATH | OFlags::DIRECTORY) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => open(OFlags::PATH),
        other => other,
    };
    found.map_err(|error| match error.raw_os_error() == Some(libc::ELOOP) {
        true => io::Error::new(
            io::ErrorKind::InvalidInput,
            "it leads over a symbolic link, and none is followed here: name the path that is meant",
        ),
        false => error,
    })
}

/// Makes the working directory where it is missing, enters it, and makes sure that it is inside
/// (CVE-2024-21626: a directory of the host, kept open by a descriptor that leaked).
pub(super) fn enter_directory(path: &Path, owner: Option<(u32, u32)>) -> io::Result<()> {
    let root =
        rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let directory = match resolve(root.as_fd(), path, OFlags::PATH | OFlags::DIRECTORY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let made = make_inside(root.as_fd(), path, FileType::Directory)?;
            if let Some((uid, gid)) = owner {
                rustix::fs::chownat(
                    &made,
                    "",
                    Some(rustix::fs::Uid::from_raw(uid)),
                    Some(rustix::fs::Gid::from_raw(gid)),
                    AtFlags::EMPTY_PATH,
                )?;
            }
            made
        }
        other => other?,
    };
    rustix::process::fchdir(&directory)?;
    let current = rustix::process::getcwd(Vec::new())?;
    if current.as_bytes().first() == Some(&b'/') {
        return Ok(());
    }
    Err(io::Error::other("the directory is outside of the container"))
}
