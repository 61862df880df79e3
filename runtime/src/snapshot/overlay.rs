//! The directories and mount options of overlayfs, by fsopen(2) or, on older kernels, mount(2).

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, open_tree,
    unmount,
};

/// A stack of directories, shown as one. overlayfs, in the kernel's `filesystems/overlayfs.rst`.
#[derive(Debug, Clone, Copy)]
pub struct Overlay<'a> {
    /// Read-only directories, the top first; at least one, or two without an upper one.
    pub lower: &'a [PathBuf],
    /// Where changes go, and an empty directory on the same file system that overlayfs works in.
    pub upper: Option<(&'a Path, &'a Path)>,
    /// Leaves out every sync: for what nobody needs after a power cut. Linux 5.10.
    pub volatile: bool,
}

/// What a layer says of itself in extended attributes is not believed: names
/// of other directories and of other files' data. Each is left out where the
/// kernel does not know it, since it then does not follow them either.
const DISTRUST: [(&str, &str); 3] =
    [("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off")];

impl Overlay<'_> {
    /// Mounts the stack nowhere: the descriptor is its root, to read through or to attach with move_mount(2).
    ///
    /// The mount goes with its last descriptor.
    ///
    /// # Errors
    ///
    /// `ENOENT`: a directory is missing. `EINVAL`: no directories, or a file
    /// system that cannot be an upper one. `EPERM`: not root. `EBUSY`: the
    /// upper directory is in use by another mount.
    pub fn mount(&self) -> io::Result<OwnedFd> {
        match self.mount_by_fsopen() {
            Err(Errno::NOSYS) => self.mount_by_options(),
            // Before Linux 6.5 there is no `lowerdir+`, and EINVAL says so.
            Err(Errno::INVAL) if !self.lower.is_empty() && !has_lowerdir_plus() => {
                self.mount_by_options()
            }
            other => other.map_err(io::Error::from),
        }
    }

    /// One call for each layer: no limit on the length of all options together.
    fn mount_by_fsopen(&self) -> Result<OwnedFd, Errno> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let context = context.as_fd();
        // /proc/mounts shows it, like that of any other overlay.
        fsconfig_set_string(context, "source", "overlay")?;
        for directory in self.lower {
            fsconfig_set_string(context, "lowerdir+", directory.as_os_str())?;
        }
        if let Some((upper, work)) = self.upper {
            fsconfig_set_string(context, "upperdir", upper.as_os_str())?;
            fsconfig_set_string(context, "workdir", work.as_os_str())?;
        }
        for (key, value) in DISTRUST {
            match fsconfig_set_string(context, key, value) {
                Err(Errno::INVAL) | Ok(()) => {}
                Err(errno) => return Err(errno),
            }
        }
        if self.volatile && self.upper.is_some() {
            fsconfig_set_flag(context, "volatile")?;
        }
        fsconfig_create(context)?;
        fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    }

    /// All options in one page: directories are named by short links in a directory of our own.
    fn mount_by_options(&self) -> io::Result<OwnedFd> {
        // Links are followed at the mount, so they can go right after it.
        let names = tempfile::Builder::new().prefix("abax.").tempdir()?;
        let link = |name: &str, target: &Path| -> io::Result<String> {
            let path = names.path().join(name);
            std::os::unix::fs::symlink(fs::canonicalize(target)?, &path)?;
            Ok(name.to_owned())
        };
        let mut lower = Vec::with_capacity(self.lower.len());
        for (n, directory) in self.lower.iter().enumerate() {
            lower.push(link(&format!("{n:x}"), directory)?);
        }
        // Relative names need a working directory, which all threads share; a
        // thread with a working directory of its own takes its place.
        let base = names.path().to_owned();
        let target = names.path().join("m");
        fs::create_dir(&target)?;
        let mut options = format!("lowerdir={}", lower.join(":"));
        if let Some((upper, work)) = self.upper {
            options.push_str(&format!(",upperdir={}", link("u", upper)?));
            options.push_str(&format!(",workdir={}", link("w", work)?));
            if self.volatile {
                options.push_str(",volatile");
            }
        }
        for (key, value) in DISTRUST {
            if Path::new("/sys/module/overlay/parameters").join(key).exists() {
                // `nofollow` is newer than `off`; both distrust.
                options.push_str(&format!(",{key}={value}"));
            }
        }
        std::thread::scope(|scope| {
            let mounting = scope.spawn(|| mount_in(&base, &target, &options));
            mounting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

/// Mounts at `target` with `base` as the working directory of this thread alone, then takes the mount off again.
fn mount_in(base: &Path, target: &Path, options: &str) -> io::Result<OwnedFd> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS | nix::sched::CloneFlags::CLONE_NEWNS)?;
    // A namespace of its own, so that nobody sees the mount and a crash leaves none.
    rustix::mount::mount_change(
        "/",
        rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC,
    )?;
    std::env::set_current_dir(base)?;
    let options = std::ffi::CString::new(options.as_bytes())?;
    mount("overlay", target, "overlay", MountFlags::empty(), options.as_c_str())?;
    let cloned =
        open_tree(CWD, target, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC);
    let unmounted = unmount(target, UnmountFlags::DETACH);
    let cloned = cloned?;
    unmounted?;
    Ok(cloned)
}

/// Whether this kernel knows `lowerdir+`, asked with a directory that surely exists.
fn has_lowerdir_plus() -> bool {
    let asked = || -> Result<(), Errno> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(context.as_fd(), "lowerdir+", "/")
    };
    asked() != Err(Errno::INVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_kernels_mount_the_same_stack() {
        let root = tempfile::tempdir().unwrap();
        // Colons and commas separate the options of mount(2).
        let directory = |name: &str| {
            let path = root.path().join(format!("{name}, with: everything"));
            fs::create_dir(&path).unwrap();
            path
        };
        let lower: Vec<PathBuf> = (0..100).map(|n| directory(&format!("lower {n}"))).collect();
        fs::write(lower[0].join("f"), "top").unwrap();
        fs::write(lower[99].join("f"), "bottom").unwrap();
        fs::write(lower[99].join("g"), "bottom").unwrap();
        let (upper, work) = (directory("upper"), directory("work"));
        let overlay = Overlay { lower: &lower, upper: Some((&upper, &work)), volatile: true };
        let mount = overlay.mount_by_options().unwrap();
        let through = |name: &str| {
            use std::os::fd::AsRawFd as _;
            PathBuf::from(format!("/proc/self/fd/{}/{name}", mount.as_raw_fd()))
        };
        assert_eq!(fs::read_to_string(through("f")).unwrap(), "top");
        assert_eq!(fs::read_to_string(through("g")).unwrap(), "bottom");
        fs::write(through("new"), "written").unwrap();
        assert_eq!(fs::read_to_string(upper.join("new")).unwrap(), "written");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains("abax."), "it is mounted nowhere");
    }
}
