//! ADD and COPY: which files of a context go where in the image.
//!
//! A source is resolved beneath the context's directory descriptor, a
//! destination inside the image's root descriptor; no path is ever joined to
//! a path of the host. A link in the context that is named as a source is
//! followed inside the context, as if that were `/`; a link found below a
//! source is copied as a link.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid,
};
use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::dockerfile::ignore::Ignore;
use crate::dockerfile::{Dialect, Glob};

/// Why files could not be copied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// The source is not in the context, or the ignore file hides it.
    #[error("{source_path}: file not found in build context or excluded by .dockerignore")]
    NotFound {
        /// As written.
        source_path: String,
    },
    /// The source begins with more `..` than there are directories.
    #[error("{source_path}: forbidden path outside the build context")]
    Outside {
        /// As written.
        source_path: String,
    },
    /// A wildcard with an open `[`.
    #[error("{source_path}: invalid wildcard")]
    Wildcard {
        /// As written.
        source_path: String,
    },
    /// Several sources, and a destination that is no directory by its name.
    #[error(
        "with more than one source file, the destination must be a directory and end with a /: {destination}"
    )]
    ManyToOne {
        /// As written.
        destination: String,
    },
    /// A directory meets something else in the image.
    #[error("cannot copy to non-directory: {}", path.display())]
    NotDirectory {
        /// Path in the image.
        path: PathBuf,
    },
    /// A file meets a directory in the image.
    #[error("cannot copy a file over the directory {}", path.display())]
    IsDirectory {
        /// Path in the image.
        path: PathBuf,
    },
    /// A device or a socket.
    #[error("cannot copy {}: neither file, directory, link nor pipe", path.display())]
    Special {
        /// Path in the context.
        path: PathBuf,
    },
    /// `--chown` names somebody whom the image does not know.
    #[error("unable to find {kind} {name} in the image")]
    Owner {
        /// `user` or `group`.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// `--chmod` with something else than an octal number.
    #[error("invalid chmod parameter {value:?}: it should be octal and between 0 and 07777")]
    Mode {
        /// As written.
        value: String,
    },
    /// An archive given to `ADD` is broken, or would write outside its destination.
    #[error("could not unpack {}", path.display())]
    Archive {
        /// Path in the context.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel refused.
    #[error("could not {action} {}", path.display())]
    File {
        /// A verb.
        action: &'static str,
        /// Path in the context or in the image.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(rustix::io::Errno) -> CopyError {
    let path = path.to_owned();
    move |errno| CopyError::File { action, path, source: errno.into() }
}

/// Where sources come from: the context, or the root of an earlier stage.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    ignore: Ignore,
}

/// What a `COPY` takes, resolved.
#[derive(Debug)]
pub(super) struct Selection {
    sources: Vec<Source>,
}

#[derive(Debug)]
struct Source {
    /// The name that it has when it is copied into a directory.
    name: OsString,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Tree {
        entries: Vec<Entry>,
    },
    File(Entry),
    /// A heredoc.
    Text(String),
}

#[derive(Debug)]
struct Entry {
    /// Path in the tree.
    path: PathBuf,
    /// Path below the source.
    relative: PathBuf,
    kind: FileType,
    stat: Stat,
}

/// How a source is written in the Dockerfile, expanded.
#[derive(Debug)]
pub(super) enum Wanted {
    Path(String),
    Text { name: String, text: String },
}

impl Tree {
    pub(super) fn open(path: &Path, ignore: Ignore) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { root: rustix::fs::open(path, flags, Mode::empty())?, ignore })
    }

    pub(super) fn of(root: OwnedFd) -> Self {
        Self { root, ignore: Ignore::default() }
    }

    /// Finds what `wanted` names.
    pub(super) fn select(&self, wanted: &[Wanted]) -> Result<Selection, CopyError> {
        let mut sources = Vec::new();
        for source in wanted {
            match source {
                Wanted::Path(text) => self.select_path(text, &mut sources)?,
                Wanted::Text { name, text } => {
                    sources.push(Source { name: name.into(), content: Content::Text(text.clone()) })
                }
            }
        }
        Ok(Selection { sources })
    }

    fn select_path(&self, text: &str, sources: &mut Vec<Source>) -> Result<(), CopyError> {
        let not_found = || CopyError::NotFound { source_path: text.to_owned() };
        let path =
            clean(text).ok_or_else(|| CopyError::Outside { source_path: text.to_owned() })?;
        if !text.contains(['*', '?', '[']) {
            sources.push(self.resolve(&path)?.ok_or_else(not_found)?);
            return Ok(());
        }
        let pattern = path.to_string_lossy();
        let glob = Glob::new(&pattern, Dialect::Copy)
            .ok_or_else(|| CopyError::Wildcard { source_path: text.to_owned() })?;
        let mut entries = Vec::new();
        self.walk(Path::new(""), Path::new(""), &mut entries)?;
        let before = sources.len();
        for entry in entries {
            if glob.matches(&entry.path.to_string_lossy()) {
                sources.extend(self.resolve(&entry.path)?);
            }
        }
        if sources.len() == before { Err(not_found()) } else { Ok(()) }
    }

    /// The file or directory at `path`, links followed as if the tree's root were `/`.
    fn resolve(&self, path: &Path) -> Result<Option<Source>, CopyError> {
        if self.hides_all(path) {
            return Ok(None);
        }
        let target = match open_in_root(self.root.as_fd(), path, OFlags::PATH) {
            Ok(target) => target,
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
            Err(errno) => return Err(failed("open", path)(errno)),
        };
        let real = path_in(self.root.as_fd(), target.as_fd())
            .map_err(|source| CopyError::File { action: "find", path: path.to_owned(), source })?;
        if self.hides_all(&real) {
            return Ok(None);
        }
        let stat = rustix::fs::fstat(&target).map_err(failed("look at", path))?;
        let name = path.file_name().unwrap_or_default().to_owned();
        let kind = FileType::from_raw_mode(stat.st_mode);
        let content = match kind {
            FileType::Directory => {
                let mut entries = Vec::new();
                self.walk(&real, Path::new(""), &mut entries)?;
                if entries.is_empty() && self.hides(&real) {
                    return Ok(None);
                }
                Content::Tree { entries }
            }
            FileType::RegularFile | FileType::Fifo => {
                if self.hides(path) || self.hides(&real) {
                    return Ok(None);
                }
                Content::File(Entry { path: real, relative: PathBuf::new(), kind, stat })
            }
            _ => return Err(CopyError::Special { path: real }),
        };
        Ok(Some(Source { name, content }))
    }

    fn hides(&self, path: &Path) -> bool {
        !path.as_os_str().is_empty() && self.ignore.excludes(&path.to_string_lossy())
    }

    /// True when neither `path` nor anything below it is to be seen.
    fn hides_all(&self, path: &Path) -> bool {
        self.ignore.is_final() && self.hides(path)
    }

    /// Appends what is below `directory`, sorted by name, parents first.
    fn walk(
        &self,
        directory: &Path,
        relative: &Path,
        entries: &mut Vec<Entry>,
    ) -> Result<(), CopyError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let fd =
            open_beneath(self.root.as_fd(), directory, flags).map_err(failed("open", directory))?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&fd).map_err(failed("read", directory))? {
            let entry = entry.map_err(failed("read", directory))?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                names.push(name.to_owned());
            }
        }
        names.sort();
        for name in names {
            let path = directory.join(&name);
            let stat = rustix::fs::statat(&fd, &name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(failed("look at", &path))?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            let hidden = self.hides(&path);
            if hidden && (kind != FileType::Directory || self.ignore.is_final()) {
                continue;
            }
            let relative = relative.join(&name);
            match kind {
                FileType::Directory => {
                    let place = entries.len();
                    entries.push(Entry {
                        path: path.clone(),
                        relative: relative.clone(),
                        kind,
                        stat,
                    });
                    self.walk(&path, &relative, entries)?;
                    // A hidden directory is there only for what came back below it.
                    if hidden && entries.len() == place + 1 {
                        entries.pop();
                    }
                }
                FileType::RegularFile | FileType::Symlink | FileType::Fifo => {
                    entries.push(Entry { path, relative, kind, stat });
                }
                // Docker's clients do not send sockets either.
                FileType::Socket => {}
                _ => return Err(CopyError::Special { path }),
            }
        }
        Ok(())
    }

    fn open_file(&self, entry: &Entry) -> Result<File, CopyError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let fd = open_beneath(self.root.as_fd(), &entry.path, flags)
            .map_err(failed("open", &entry.path))?;
        // What was a file when it was selected may have been exchanged since.
        let stat = rustix::fs::fstat(&fd).map_err(failed("look at", &entry.path))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(fd.into()),
            _ => Err(CopyError::Special { path: entry.path.clone() }),
        }
    }

    fn read_link(&self, entry: &Entry) -> Result<OsString, CopyError> {
        let fd = open_beneath_link(self.root.as_fd(), &entry.path)
            .map_err(failed("open", &entry.path))?;
        let target = rustix::fs::readlinkat(fd, "", Vec::new())
            .map_err(failed("read the link", &entry.path))?;
        Ok(OsStr::from_bytes(target.as_bytes()).to_owned())
    }

    /// What a cache knows this selection by: names, kinds, modes and content, not times.
    pub(super) fn hash(&self, selection: &Selection) -> Result<Digest, CopyError> {
        let mut hasher = Sha256::new();
        let mut field = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        for source in &selection.sources {
            field(source.name.as_bytes());
            let entries = match &source.content {
                Content::Text(text) => {
                    field(b"text");
                    field(text.as_bytes());
                    continue;
                }
                Content::Tree { entries } => {
                    field(b"tree");
                    &entries[..]
                }
                Content::File(entry) => {
                    field(b"file");
                    std::slice::from_ref(entry)
                }
            };
            for entry in entries {
                field(entry.relative.as_os_str().as_bytes());
                field(&entry.stat.st_mode.to_le_bytes());
                match entry.kind {
                    FileType::RegularFile => field(&self.hash_file(entry)?),
                    FileType::Symlink => field(self.read_link(entry)?.as_bytes()),
                    _ => {}
                }
            }
            field(b"end");
        }
        let hex: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Digest::from_hex(&hex).expect("a SHA-256 sum has 64 hex digits"))
    }

    fn hash_file(&self, entry: &Entry) -> Result<[u8; 32], CopyError> {
        let mut file = self.open_file(entry)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = file.read(&mut buffer).map_err(|source| CopyError::File {
                action: "read",
                path: entry.path.clone(),
                source,
            })?;
            if read == 0 {
                return Ok(hasher.finalize().into());
            }
            hasher.update(&buffer[..read]);
        }
    }
}

impl Selection {
    /// How Docker's history calls it: `file:…`, `dir:…`, `multi:…`.
    pub(super) fn kind(&self) -> &'static str {
        match &self.sources[..] {
            [Source { content: Content::Tree { .. }, .. }] => "dir",
            [_] => "file",
            _ => "multi",
        }
    }
}

/// Where and how files arrive.
#[derive(Debug)]
pub(super) struct Arrival<'a> {
    /// Absolute path in the image; a trailing `/` makes it a directory.
    pub(super) destination: &'a str,
    /// User and group.
    pub(super) owner: (u32, u32),
    /// Instead of the mode that the files have.
    pub(super) mode: Option<u32>,
    /// `ADD`: archives are unpacked.
    pub(super) unpack: bool,
}

/// Copies what was selected from `tree` into the image whose root is `root`.
pub(super) fn copy(
    tree: &Tree,
    selection: &Selection,
    root: BorrowedFd<'_>,
    arrival: &Arrival<'_>,
) -> Result<(), CopyError> {
    let wants_directory = arrival.destination.ends_with('/');
    if selection.sources.len() > 1 && !wants_directory {
        return Err(CopyError::ManyToOne { destination: arrival.destination.to_owned() });
    }
    let path = clean(arrival.destination).unwrap_or_default();
    for source in &selection.sources {
        let entry = match &source.content {
            Content::Tree { entries } => {
                let directory = make_directories(root, &path, arrival.owner)?;
                copy_tree(tree, entries, directory.as_fd(), &path, arrival)?;
                continue;
            }
            Content::File(entry) => Some(entry),
            Content::Text(_) => None,
        };
        if arrival.unpack
            && let Some(entry) = entry
            && entry.kind == FileType::RegularFile
            && let Some(archive) = super::archive::open(tree.open_file(entry)?)
                .map_err(|source| CopyError::Archive { path: entry.path.clone(), source })?
        {
            let directory = make_directories(root, &path, arrival.owner)?;
            super::archive::unpack(archive, directory.as_fd())
                .map_err(|source| CopyError::Archive { path: entry.path.clone(), source })?;
            continue;
        }
        // The real place of the file: a link at the destination is followed inside the image.
        let existing = open_in_root(root, &path, OFlags::PATH).ok();
        let is_directory = existing
            .as_ref()
            .and_then(|fd| rustix::fs::fstat(fd).ok())
            .is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
        let target = match existing {
            _ if wants_directory || is_directory => path.join(&source.name),
            Some(fd) => path_in(root, fd.as_fd()).map_err(|source| CopyError::File {
                action: "find",
                path: path.clone(),
                source,
            })?,
            None => path.clone(),
        };
        let parent = target.parent().unwrap_or(Path::new(""));
        let name = target.file_name().unwrap_or_default();
        let parent = make_directories(root, parent, arrival.owner)?;
        match (&source.content, entry) {
            (Content::Text(text), _) => {
                clear(parent.as_fd(), name, &target)?;
                write_text(text, parent.as_fd(), name, &target, arrival)?;
            }
            (_, Some(entry)) => {
                clear(parent.as_fd(), name, &target)?;
                copy_one(tree, entry, parent.as_fd(), name, &target, arrival)?;
            }
            (_, None) => {}
        }
    }
    Ok(())
}

fn copy_tree(
    tree: &Tree,
    entries: &[Entry],
    directory: BorrowedFd<'_>,
    destination: &Path,
    arrival: &Arrival<'_>,
) -> Result<(), CopyError> {
    let mut made: Vec<&Entry> = Vec::new();
    for entry in entries {
        let target = destination.join(&entry.relative);
        let parent = entry.relative.parent().unwrap_or(Path::new(""));
        let name = entry.relative.file_name().unwrap_or_default();
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let parent = match open_beneath(directory, parent, flags) {
            Ok(parent) => parent,
            Err(rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR) => {
                return Err(CopyError::NotDirectory { path: target });
            }
            Err(errno) => return Err(failed("open", &target)(errno)),
        };
        if entry.kind != FileType::Directory {
            clear(parent.as_fd(), name, &target)?;
            copy_one(tree, entry, parent.as_fd(), name, &target, arrival)?;
            continue;
        }
        match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            // A directory that is there keeps its mode and owner.
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {}
            Ok(_) => return Err(CopyError::NotDirectory { path: target }),
            Err(_) => {
                let mode = permissions(&entry.stat, arrival);
                make_directory(parent.as_fd(), name, arrival.owner, mode)
                    .map_err(failed("create", &target))?;
                made.push(entry);
            }
        }
    }
    // Children first, and after all of them were written: each changes its parent's time.
    for entry in made.iter().rev() {
        let fd = open_beneath(directory, &entry.relative, OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(failed("open", &entry.path))?;
        rustix::fs::futimens(&fd, &times(&entry.stat)).map_err(failed("date", &entry.path))?;
    }
    Ok(())
}

/// Removes a file or link that stands where a new one goes.
fn clear(parent: BorrowedFd<'_>, name: &OsStr, target: &Path) -> Result<(), CopyError> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(rustix::io::Errno::ISDIR) => Err(CopyError::IsDirectory { path: target.to_owned() }),
        Err(errno) => Err(failed("replace", target)(errno)),
    }
}

fn copy_one(
    tree: &Tree,
    entry: &Entry,
    parent: BorrowedFd<'_>,
    name: &OsStr,
    target: &Path,
    arrival: &Arrival<'_>,
) -> Result<(), CopyError> {
    let (uid, gid) = ids(arrival.owner);
    let mode = Mode::from_raw_mode(permissions(&entry.stat, arrival));
    let no_follow = AtFlags::SYMLINK_NOFOLLOW;
    match entry.kind {
        FileType::RegularFile => {
            let mut from = tree.open_file(entry)?;
            let mut to = create(parent, name).map_err(failed("create", target))?;
            io::copy(&mut from, &mut to).map_err(|source| CopyError::File {
                action: "copy",
                path: target.to_owned(),
                source,
            })?;
            // The owner first: changing it clears setuid.
            rustix::fs::fchown(&to, Some(uid), Some(gid)).map_err(failed("own", target))?;
            rustix::fs::fchmod(&to, mode).map_err(failed("change the mode of", target))?;
            rustix::fs::futimens(&to, &times(&entry.stat)).map_err(failed("date", target))
        }
        FileType::Symlink => {
            let link = tree.read_link(entry)?;
            rustix::fs::symlinkat(link, parent, name).map_err(failed("create", target))?;
            rustix::fs::chownat(parent, name, Some(uid), Some(gid), no_follow)
                .map_err(failed("own", target))?;
            rustix::fs::utimensat(parent, name, &times(&entry.stat), no_follow)
                .map_err(failed("date", target))
        }
        FileType::Fifo => {
            rustix::fs::mknodat(parent, name, FileType::Fifo, mode, 0)
                .map_err(failed("create", target))?;
            rustix::fs::chownat(parent, name, Some(uid), Some(gid), no_follow)
                .map_err(failed("own", target))?;
            rustix::fs::chmodat(parent, name, mode, AtFlags::empty())
                .map_err(failed("change the mode of", target))
        }
        _ => Err(CopyError::Special { path: entry.path.clone() }),
    }
}

fn write_text(
    text: &str,
    parent: BorrowedFd<'_>,
    name: &OsStr,
    target: &Path,
    arrival: &Arrival<'_>,
) -> Result<(), CopyError> {
    use std::io::Write as _;
    let (uid, gid) = ids(arrival.owner);
    let mut file = create(parent, name).map_err(failed("create", target))?;
    file.write_all(text.as_bytes()).map_err(|source| CopyError::File {
        action: "write",
        path: target.to_owned(),
        source,
    })?;
    rustix::fs::fchown(&file, Some(uid), Some(gid)).map_err(failed("own", target))?;
    let mode = Mode::from_raw_mode(arrival.mode.unwrap_or(0o644));
    rustix::fs::fchmod(&file, mode).map_err(failed("change the mode of", target))
}

fn create(parent: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?.into())
}

fn permissions(stat: &Stat, arrival: &Arrival<'_>) -> u32 {
    arrival.mode.unwrap_or(stat.st_mode & 0o7777)
}

fn ids((user, group): (u32, u32)) -> (Uid, Gid) {
    (Uid::from_raw(user), Gid::from_raw(group))
}

fn times(stat: &Stat) -> Timestamps {
    let time = Timespec {
        tv_sec: stat.st_mtime,
        tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or_default(),
    };
    Timestamps { last_access: time, last_modification: time }
}

/// `path` without `.` and `..`, relative; `None` when it leaves where it starts.
pub(super) fn clean(path: &str) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir if !clean.pop() => return None,
            _ => {}
        }
    }
    Some(clean)
}

/// Opens `path` with `root` as the root directory: links, also absolute ones, stay inside.
pub(super) fn open_in_root(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    retry(|| rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve))
}

/// Opens `path` below `directory`, following no link at all.
fn open_beneath(
    directory: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    retry(|| rustix::fs::openat2(directory, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve))
}

/// Opens a link itself: with `O_PATH` and `O_NOFOLLOW`, `RESOLVE_NO_SYMLINKS` permits that.
fn open_beneath_link(directory: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    open_beneath(directory, path, OFlags::PATH | OFlags::NOFOLLOW)
}

/// openat2(2) answers EAGAIN when something was renamed while it looked.
fn retry(open: impl Fn() -> rustix::io::Result<OwnedFd>) -> rustix::io::Result<OwnedFd> {
    let mut result = open();
    for _ in 0..64 {
        match result {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => result = open(),
            _ => break,
        }
    }
    result
}

/// Where `fd`, opened inside `root`, really is, relative to it.
fn path_in(root: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> io::Result<PathBuf> {
    use std::os::fd::AsRawFd as _;
    let link = |fd: BorrowedFd<'_>| std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let (root, path) = (link(root)?, link(fd)?);
    path.strip_prefix(&root).map(Path::to_owned).map_err(io::Error::other)
}

/// The directory at `path` inside `root`; what is missing of it is made, owned by `owner`.
pub(super) fn make_directories(
    root: BorrowedFd<'_>,
    path: &Path,
    owner: (u32, u32),
) -> Result<OwnedFd, CopyError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    // Usually it is there.
    if let Ok(directory) = open_in_root(root, path, flags) {
        return Ok(directory);
    }
    let mut current = open_in_root(root, Path::new(""), flags).map_err(failed("open", path))?;
    let mut prefix = PathBuf::new();
    for name in path.iter() {
        prefix.push(name);
        current = match open_in_root(root, &prefix, flags) {
            Ok(next) => next,
            Err(rustix::io::Errno::NOENT) => {
                // `current` is where the last prefix really leads.
                make_directory(current.as_fd(), name, owner, 0o755).map_err(|errno| {
                    match errno {
                        // A link to nowhere.
                        rustix::io::Errno::EXIST => {
                            CopyError::NotDirectory { path: prefix.clone() }
                        }
                        errno => failed("create", &prefix)(errno),
                    }
                })?;
                open_beneath(current.as_fd(), Path::new(name), flags)
                    .map_err(failed("open", &prefix))?
            }
            Err(rustix::io::Errno::NOTDIR) => {
                return Err(CopyError::NotDirectory { path: prefix });
            }
            Err(errno) => return Err(failed("open", &prefix)(errno)),
        };
    }
    Ok(current)
}

/// mkdirat(2), whatever the umask.
fn make_directory(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    owner: (u32, u32),
    mode: u32,
) -> rustix::io::Result<()> {
    rustix::fs::mkdirat(parent, name, Mode::RWXU)?;
    let (uid, gid) = ids(owner);
    rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    rustix::fs::chmodat(parent, name, Mode::from_raw_mode(mode), AtFlags::empty())
}

/// The mode that `--chmod` asks for.
pub(super) fn parse_mode(value: &str) -> Result<u32, CopyError> {
    u32::from_str_radix(value, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| CopyError::Mode { value: value.to_owned() })
}

/// User and group ids that `--chown=user[:group]` means in the image whose root is `root`.
pub(super) fn parse_owner(root: BorrowedFd<'_>, value: &str) -> Result<(u32, u32), CopyError> {
    let (user, group) = match value.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (value, None),
    };
    let find = |kind, file, name: &str| -> Result<u32, CopyError> {
        if let Ok(id) = name.parse() {
            return Ok(id);
        }
        read_small(root, Path::new(file))
            .lines()
            .filter_map(|line| {
                let mut fields = line.split(':');
                (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
            })
            .next()
            .ok_or_else(|| CopyError::Owner { kind, name: name.to_owned() })
    };
    let user = find("user", "etc/passwd", user)?;
    // Docker: without a group, the group has the user's number.
    let group = group.map_or(Ok(user), |group| find("group", "etc/group", group))?;
    Ok((user, group))
}

/// A file of the image, at most 1 MiB of it; empty when there is none.
fn read_small(root: BorrowedFd<'_>, path: &Path) -> String {
    let mut text = Vec::new();
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    if let Ok(fd) = open_in_root(root, path, flags) {
        let is_file = rustix::fs::fstat(&fd)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
        if is_file {
            // A file that cannot be read knows nobody.
            let _ = File::from(fd).take(1 << 20).read_to_end(&mut text);
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}
