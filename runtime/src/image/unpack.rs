//! tar → directory: a layer as overlayfs takes it, and nothing outside its root.
//!
//! Each layer is unpacked alone, as Docker does: a later layer replaces what an
//! earlier one has, it never writes through it. Every path is walked one
//! component at a time by openat(2) with `O_NOFOLLOW`, starting at a directory
//! that only we can reach, so no symbolic link is ever followed and `..` cannot
//! lead out. The directories on the way to the last entry stay open, so files
//! that lie together cost no walk of their own.
//!
//! Whiteouts become what overlayfs uses: a character device 0:0, and
//! `trusted.overlay.opaque` on an opaque directory (OCI image-spec, layer, Whiteouts).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::mpsc;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod,
    fchown, fsetxattr, futimens, linkat, makedev, mkdirat, mknodat, openat, statat, symlinkat,
    unlinkat, utimensat,
};
use rustix::io::Errno;

use super::layer::LayerInProgress;
use super::manifest::Compression;
use super::store::{Store, StoreError};
use super::tar::{Entries, Entry, Kind, TarError};
use crate::digest::{DiffId, Digest, Hashing};

/// What a layer may hold at most; more is an error, before the disk is full of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnpackLimits {
    /// Bytes of all files together, holes included.
    pub bytes: u64,
    /// Files, directories, links and devices.
    pub entries: u64,
}

impl Default for UnpackLimits {
    /// 256 GiB and 8 million entries: far more than any image that is meant well.
    fn default() -> Self {
        Self { bytes: 256 << 30, entries: 8_000_000 }
    }
}

/// As the kernel has it (`PATH_MAX`), the final zero included.
const MAX_PATH_BYTES: usize = 4096;
/// As the kernel has it (`NAME_MAX`).
const MAX_NAME_BYTES: usize = 255;
/// Directories above an entry; each is one open descriptor while its files are written.
const MAX_DEPTH: usize = 200;
/// Of the paths of all directories, which are remembered until the end. A small archive can hold a
/// great many long ones.
const MAX_DIRECTORY_BYTES: u64 = 512 << 20;
/// What one thread decompresses while another writes what came before.
const CHUNK_BYTES: usize = 256 << 10;
const CHUNKS_IN_FLIGHT: usize = 16;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Names that AUFS kept for itself; they describe nothing of the image.
const AUFS: &[u8] = b".wh..wh.";

/// Why a layer could not be unpacked; nothing of it is left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// The layer holds something wrong, or the disk refused it.
    #[error("could not unpack layer {diff_id}")]
    Layer {
        /// The layer.
        diff_id: DiffId,
        /// What is wrong.
        source: LayerError,
    },
    /// The layer is not the one that was promised.
    #[error("layer {expected} unpacks as {actual}")]
    WrongDiffId {
        /// What the config of the image says.
        expected: DiffId,
        /// What the uncompressed bytes hash to.
        actual: DiffId,
    },
    /// The store around it failed.
    #[error("could not keep layer {diff_id}")]
    Store {
        /// The layer.
        diff_id: DiffId,
        /// What the store says.
        source: StoreError,
    },
}

/// What is wrong with a layer, or with the disk it goes to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// The compressed bytes ended early, are damaged, or could not be fetched.
    #[error("could not read its bytes")]
    Read {
        /// What the reader or the decompressor said.
        source: io::Error,
    },
    /// The bytes are no tar archive.
    #[error("it is no valid tar archive")]
    Tar {
        /// What is wrong with it.
        #[from]
        source: TarError,
    },
    /// An entry that no honest layer has.
    #[error("refused its entry {path:?}: {reason}")]
    Refused {
        /// As the archive has it.
        path: String,
        /// What it would have done.
        reason: &'static str,
    },
    /// More than the limits allow.
    #[error("it holds more than {limit} {what}")]
    TooLarge {
        /// The limit that was hit.
        limit: u64,
        /// Of what.
        what: &'static str,
    },
    /// The file system refused.
    #[error("could not write {path:?}")]
    Write {
        /// As the archive has it.
        path: String,
        /// What the kernel said: `StorageFull` where the disk is.
        source: io::Error,
    },
}

impl Store {
    /// Unpacks a layer, verifies its diff_id and gives it its name; how many bytes its tar has.
    ///
    /// Where the layer is there already, nothing is read and 0 is returned. Two
    /// processes that unpack the same layer do it one after the other, the
    /// second finding it done.
    ///
    /// # Errors
    ///
    /// Nothing of the layer is left then; see [`UnpackError`].
    pub fn unpack_layer(
        &self,
        diff_id: &DiffId,
        compressed: &mut dyn Read,
        compression: Compression,
    ) -> Result<u64, UnpackError> {
        let in_store = |source| UnpackError::Store { diff_id: *diff_id, source };
        if self.has_layer(diff_id) {
            return Ok(0);
        }
        let _lock = self.lock_layer(diff_id).map_err(in_store)?;
        if self.has_layer(diff_id) {
            return Ok(0);
        }
        let layer = LayerInProgress::create(self).map_err(in_store)?;
        let (digest, bytes) = unpack(compressed, compression, layer.directory(), &self.limits())
            .map_err(|source| UnpackError::Layer { diff_id: *diff_id, source })?;
        let actual = DiffId(digest);
        if actual != *diff_id {
            return Err(UnpackError::WrongDiffId { expected: *diff_id, actual });
        }
        layer.keep(self, diff_id).map_err(in_store)?;
        Ok(bytes)
    }
}

/// Unpacks a tar into `root`; digest and length of the uncompressed bytes, to the last one.
///
/// Decompressing and hashing happen here, writing files on a second thread.
pub(super) fn unpack(
    compressed: &mut dyn Read,
    compression: Compression,
    root: BorrowedFd<'_>,
    limits: &UnpackLimits,
) -> Result<(Digest, u64), LayerError> {
    let root = root
        .try_clone_to_owned()
        .map_err(|source| LayerError::Write { path: ".".to_owned(), source })?;
    let buffered = BufReader::with_capacity(CHUNK_BYTES, compressed);
    let read_error = |source| LayerError::Read { source };
    let mut plain: Box<dyn Read + '_> = match compression {
        Compression::None => Box::new(buffered),
        Compression::Gzip => Box::new(Members::new(buffered)),
        Compression::Zstd => Box::new(zstd::Decoder::with_buffer(buffered).map_err(read_error)?),
    };
    let mut plain = Hashing::new(&mut plain);
    let (full, filled) = mpsc::sync_channel::<Vec<u8>>(CHUNKS_IN_FLIGHT);
    let (used, empty) = mpsc::channel::<Vec<u8>>();
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || {
            let mut chunks = Chunks { filled, used, current: Vec::new(), at: 0 };
            let unpacked = Unpacker::new(root, limits).run(&mut chunks);
            // What follows the end of the archive counts for the hash, not for us.
            if unpacked.is_ok() {
                chunks.drain();
            }
            unpacked
        });
        let mut failed = None;
        loop {
            let mut chunk = empty.try_recv().unwrap_or_default();
            chunk.resize(CHUNK_BYTES, 0);
            let mut length = 0;
            while length < CHUNK_BYTES {
                match plain.read(&mut chunk[length..]) {
                    Ok(0) => break,
                    Ok(n) => length += n,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                }
            }
            chunk.truncate(length);
            // The other end goes away early only with an error of its own.
            if failed.is_some() || length == 0 || full.send(chunk).is_err() {
                break;
            }
        }
        drop(full);
        let unpacked = writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match failed {
            // An archive that is cut off is only the consequence of this.
            Some(source) => Err(LayerError::Read { source }),
            None => unpacked,
        }
    })?;
    Ok(plain.finish())
}

/// All members of a gzip file; zero bytes after the last one are padding, as gzip(1) takes them.
struct Members<R: BufRead> {
    member: Option<flate2::bufread::GzDecoder<R>>,
}

impl<R: BufRead> Members<R> {
    fn new(reader: R) -> Self {
        Self { member: Some(flate2::bufread::GzDecoder::new(reader)) }
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            match member.read(buffer)? {
                0 if buffer.is_empty() => return Ok(0),
                0 => {
                    let mut reader = self
                        .member
                        .take()
                        .map(flate2::bufread::GzDecoder::into_inner)
                        .expect("a member was just read");
                    if skip_zeros(&mut reader)? {
                        self.member = Some(flate2::bufread::GzDecoder::new(reader));
                    }
                }
                n => return Ok(n),
            }
        }
        Ok(0)
    }
}

/// Whether anything but zeros follows; they are skipped.
fn skip_zeros(reader: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(false);
        }
        let zeros = buffer.iter().take_while(|byte| **byte == 0).count();
        let more = zeros < buffer.len();
        reader.consume(zeros);
        if more {
            return Ok(true);
        }
    }
}

/// The reading end of the channel of chunks.
struct Chunks {
    filled: mpsc::Receiver<Vec<u8>>,
    used: mpsc::Sender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
}

impl Chunks {
    /// Moves on to the next chunk; false at the end.
    fn refill(&mut self) -> bool {
        while self.at == self.current.len() {
            let Ok(next) = self.filled.recv() else { return false };
            // Nobody waits for it when the other end has stopped.
            let _ = self.used.send(std::mem::replace(&mut self.current, next));
            self.at = 0;
        }
        true
    }

    fn drain(&mut self) {
        self.at = self.current.len();
        while self.refill() {
            self.at = self.current.len();
        }
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || !self.refill() {
            return Ok(0);
        }
        let rest = &self.current[self.at..];
        let n = rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&rest[..n]);
        self.at += n;
        Ok(n)
    }
}

/// Owner, mode and times of a directory, set when all its entries are there.
#[derive(Debug)]
struct Attributes {
    uid: u32,
    gid: u32,
    mode: u32,
    modified: (i64, u32),
}

/// Writes entries beneath one directory.
struct Unpacker<'a> {
    root: OwnedFd,
    /// The directory of the last entry: each component with its descriptor.
    open: Vec<(Vec<u8>, OwnedFd)>,
    /// By path, the parents before their children.
    directories: BTreeMap<Vec<u8>, Attributes>,
    /// Of all keys of `directories` together.
    directory_bytes: u64,
    limits: &'a UnpackLimits,
    bytes: u64,
    entries: u64,
    buffer: Vec<u8>,
}

/// A refusal or a failure before the entry's path is added to it.
enum Failure {
    Refused(&'static str),
    Errno(Errno),
    Io(io::Error),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Failure {
    fn at(self, path: &[u8]) -> LayerError {
        let path = || String::from_utf8_lossy(path).into_owned();
        match self {
            Self::Refused(reason) => LayerError::Refused { path: path(), reason },
            Self::Errno(errno) => LayerError::Write { path: path(), source: errno.into() },
            Self::Io(source) => LayerError::Write { path: path(), source },
        }
    }
}

/// What was there before an entry.
#[derive(Debug, PartialEq, Eq)]
enum Before {
    Nothing,
    Directory,
    Whiteout,
}

impl<'a> Unpacker<'a> {
    fn new(root: OwnedFd, limits: &'a UnpackLimits) -> Self {
        Self {
            root,
            open: Vec::new(),
            directories: BTreeMap::new(),
            directory_bytes: 0,
            limits,
            bytes: 0,
            entries: 0,
            buffer: vec![0; CHUNK_BYTES],
        }
    }

    fn run(mut self, archive: impl Read) -> Result<(), LayerError> {
        let mut entries = Entries::new(archive);
        while let Some(entry) = entries.next()? {
            self.entries += 1;
            if self.entries > self.limits.entries {
                return Err(LayerError::TooLarge { limit: self.limits.entries, what: "entries" });
            }
            self.entry(&entry, &mut entries)?;
        }
        self.finish_directories()
    }

    fn entry<R: Read>(&mut self, entry: &Entry, data: &mut Entries<R>) -> Result<(), LayerError> {
        let at = |failure: Failure| failure.at(&entry.path);
        let path = components(&entry.path).map_err(|reason| at(Failure::Refused(reason)))?;
        let Some((name, parents)) = path.split_last() else {
            if entry.kind != Kind::Directory {
                return Err(at(Failure::Refused("the root can only be a directory")));
            }
            self.directories.insert(Vec::new(), attributes(entry));
            let root = self.root.as_fd().try_clone_to_owned().map_err(|e| at(e.into()))?;
            return set_xattrs(root.as_fd(), &entry.xattrs).map_err(|e| at(e.into()));
        };
        let is_aufs = |name: &[u8]| name.starts_with(AUFS) && name != OPAQUE;
        if path.iter().any(|name| is_aufs(name)) {
            return Ok(());
        }
        if parents.iter().any(|name| name.starts_with(WHITEOUT)) {
            return Err(at(Failure::Refused("a whiteout has nothing below it")));
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.whiteout(parents, name, hidden).map_err(at);
        }
        if let Kind::Regular = entry.kind {
            self.bytes = self.bytes.saturating_add(entry.size);
            if self.bytes > self.limits.bytes {
                return Err(LayerError::TooLarge { limit: self.limits.bytes, what: "bytes" });
            }
        }
        match entry.kind {
            Kind::Regular => return self.file(parents, name, entry, data),
            Kind::Directory => self.directory(parents, &path, name, entry),
            Kind::HardLink => self.hard_link(parents, name, &entry.link),
            Kind::Symlink => self.symlink(parents, name, entry),
            Kind::CharacterDevice(major, minor) => {
                self.node(parents, name, entry, FileType::CharacterDevice, makedev(major, minor))
            }
            Kind::BlockDevice(major, minor) => {
                self.node(parents, name, entry, FileType::BlockDevice, makedev(major, minor))
            }
            Kind::Fifo => self.node(parents, name, entry, FileType::Fifo, 0),
            Kind::Unknown(_) => Err(Failure::Refused("an entry of unknown type")),
        }
        .map_err(at)
    }

    fn whiteout(&mut self, parents: &[&[u8]], name: &[u8], hidden: &[u8]) -> Result<(), Failure> {
        if name == OPAQUE {
            let parent = self.parent(parents)?;
            fsetxattr(parent, c"trusted.overlay.opaque", b"y", XattrFlags::empty())?;
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(Failure::Refused("a whiteout of no name"));
        }
        let parent = self.parent(parents)?;
        match mknodat(parent, hidden, FileType::CharacterDevice, Mode::empty(), makedev(0, 0)) {
            Err(Errno::EXIST) if is_whiteout(parent, hidden)? => Ok(()),
            Err(Errno::EXIST) => {
                Err(Failure::Refused("a whiteout of what the same layer has put there"))
            }
            other => other.map_err(Failure::from),
        }
    }

    fn file<R: Read>(
        &mut self,
        parents: &[&[u8]],
        name: &[u8],
        entry: &Entry,
        data: &mut Entries<R>,
    ) -> Result<(), LayerError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let at = |failure: Failure| failure.at(&entry.path);
        let create = |this: &mut Self| -> Result<File, Failure> {
            let parent = this.parent(parents)?;
            let flags =
                OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mode = Mode::RUSR | Mode::WUSR;
            // Nearly always nothing is there: ask the kernel to tell, rather than look first.
            let file = match openat(parent, name, flags, mode) {
                Err(Errno::EXIST) => {
                    clear(parent, name, false)?;
                    openat(parent, name, flags, mode)?
                }
                other => other?,
            };
            Ok(File::from(file))
        };
        let mut file = create(self).map_err(at)?;
        match &entry.pieces {
            None => loop {
                let n = data.read_data(&mut buffer).map_err(TarError::from)?;
                if n == 0 {
                    break;
                }
                file.write_all(&buffer[..n]).map_err(|error| at(error.into()))?;
            },
            Some(pieces) => {
                file.set_len(entry.size).map_err(|error| at(error.into()))?;
                for (offset, length) in pieces {
                    let (mut offset, mut rest) = (*offset, *length);
                    while rest > 0 {
                        let wanted = usize::try_from(rest).unwrap_or(usize::MAX).min(buffer.len());
                        let n = data.read_data(&mut buffer[..wanted]).map_err(TarError::from)?;
                        file.write_all_at(&buffer[..n], offset)
                            .map_err(|error| at(error.into()))?;
                        offset += n as u64;
                        rest -= n as u64;
                    }
                }
            }
        }
        self.buffer = buffer;
        let attributes = || -> Result<(), Failure> {
            // The owner first: a change of it takes setuid and capabilities away.
            if (entry.uid, entry.gid) != (0, 0) || !rustix::process::geteuid().is_root() {
                fchown(&file, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))?;
            }
            fchmod(&file, Mode::from_raw_mode(entry.mode))?;
            set_xattrs(file.as_fd(), &entry.xattrs)?;
            futimens(&file, &times(entry.modified))?;
            Ok(())
        };
        attributes().map_err(at)
    }

    fn directory(
        &mut self,
        parents: &[&[u8]],
        path: &[&[u8]],
        name: &[u8],
        entry: &Entry,
    ) -> Result<(), Failure> {
        let parent = self.parent(parents)?;
        match mkdirat(parent, name, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) => match clear(parent, name, true)? {
                Before::Directory => {}
                before => {
                    mkdirat(parent, name, Mode::RWXU)?;
                    if before == Before::Whiteout {
                        // Both in one layer mean: nothing of the layers below shows through.
                        let made = open_directory(parent, name)?;
                        fsetxattr(&made, c"trusted.overlay.opaque", b"y", XattrFlags::empty())?;
                    }
                }
            },
            Err(errno) => return Err(errno.into()),
        }
        if !entry.xattrs.is_empty() {
            let made = open_directory(parent, name)?;
            set_xattrs(made.as_fd(), &entry.xattrs)?;
        }
        let path = path.join(&b'/');
        let length = path.len() as u64;
        if self.directories.insert(path, attributes(entry)).is_none() {
            self.directory_bytes += length;
        }
        if self.directory_bytes > MAX_DIRECTORY_BYTES {
            return Err(Failure::Refused("the paths of its directories are too long together"));
        }
        Ok(())
    }

    fn hard_link(&mut self, parents: &[&[u8]], name: &[u8], target: &[u8]) -> Result<(), Failure> {
        let target = components(target).map_err(Failure::Refused)?;
        let Some((target_name, target_parents)) = target.split_last() else {
            return Err(Failure::Refused("a hard link to the root"));
        };
        if target_parents == parents && *target_name == name {
            return Err(Failure::Refused("a hard link to itself"));
        }
        let missing = |errno| match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP => {
                Failure::Refused("a hard link to what the same layer does not have")
            }
            errno => Failure::Errno(errno),
        };
        let mut from = self.root.as_fd().try_clone_to_owned()?;
        for component in target_parents {
            from = open_directory(from.as_fd(), component).map_err(missing)?;
        }
        let found = statat(&from, *target_name, AtFlags::SYMLINK_NOFOLLOW).map_err(missing)?;
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
            return Err(Failure::Refused("a hard link to a directory"));
        }
        let parent = self.parent(parents)?;
        // Without AT_SYMLINK_FOLLOW, so a link to a symbolic link is one more name of the link.
        match linkat(&from, *target_name, parent, name, AtFlags::empty()) {
            Err(Errno::EXIST) => {
                clear(parent, name, false)?;
                linkat(&from, *target_name, parent, name, AtFlags::empty()).map_err(missing)
            }
            other => other.map_err(missing),
        }
    }

    fn symlink(&mut self, parents: &[&[u8]], name: &[u8], entry: &Entry) -> Result<(), Failure> {
        let target = &entry.link[..];
        if target.is_empty() || target.len() >= MAX_PATH_BYTES || target.contains(&0) {
            return Err(Failure::Refused("a symbolic link to no path"));
        }
        let parent = self.parent(parents)?;
        // Where it points is the container's business: nothing here ever follows it.
        if let Err(Errno::EXIST) = symlinkat(target, parent, name) {
            clear(parent, name, false)?;
            symlinkat(target, parent, name)?;
        }
        own(parent, name, entry)?;
        utimensat(parent, name, &times(entry.modified), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }

    fn node(
        &mut self,
        parents: &[&[u8]],
        name: &[u8],
        entry: &Entry,
        kind: FileType,
        device: u64,
    ) -> Result<(), Failure> {
        let parent = self.parent(parents)?;
        let mode = Mode::from_raw_mode(entry.mode);
        match mknodat(parent, name, kind, Mode::empty(), device) {
            Err(Errno::EXIST) => {
                clear(parent, name, false)?;
                mknodat(parent, name, kind, Mode::empty(), device)?;
            }
            Err(Errno::PERM) => return Err(Failure::Refused("only root can make a device")),
            other => other?,
        }
        own(parent, name, entry)?;
        // Nobody but us is in this directory, so the name is still what we made.
        rustix::fs::chmodat(parent, name, mode, AtFlags::empty())?;
        utimensat(parent, name, &times(entry.modified), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }

    /// The directory of an entry, made where the archive has left it out.
    fn parent(&mut self, parents: &[&[u8]]) -> Result<BorrowedFd<'_>, Failure> {
        let shared =
            self.open.iter().zip(parents).take_while(|((open, _), wanted)| open == *wanted);
        let shared = shared.count();
        self.open.truncate(shared);
        for name in &parents[shared..] {
            let above = self.open.last().map_or(self.root.as_fd(), |(_, fd)| fd.as_fd());
            let directory = match open_directory(above, name) {
                Err(Errno::NOENT) => {
                    mkdirat(above, *name, Mode::RWXU)?;
                    fchmod(open_directory(above, name)?, Mode::from_raw_mode(0o755))?;
                    open_directory(above, name)?
                }
                Err(Errno::NOTDIR | Errno::LOOP) if is_whiteout(above, name)? => {
                    return Err(Failure::Refused("it lies under a whiteout of the same layer"));
                }
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    return Err(Failure::Refused(
                        "a directory above it is a symbolic link or a file of the same layer",
                    ));
                }
                other => other?,
            };
            self.open.push((name.to_vec(), directory));
        }
        Ok(self.open.last().map_or(self.root.as_fd(), |(_, fd)| fd.as_fd()))
    }

    /// Owners, modes and times of directories: last, since files change times and setgid is inherited.
    fn finish_directories(mut self) -> Result<(), LayerError> {
        for (path, attributes) in std::mem::take(&mut self.directories).into_iter().rev() {
            let set = |this: &mut Self| -> Result<(), Failure> {
                let path: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
                let directory = match path.split_last() {
                    None | Some((&b"", _)) => this.root.as_fd().try_clone_to_owned()?,
                    Some((name, parents)) => {
                        // A later entry may have put something else in its place.
                        match this.parent(parents).map(|parent| open_directory(parent, name)) {
                            Ok(Ok(directory)) => directory,
                            Ok(Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))
                            | Err(Failure::Refused(_)) => return Ok(()),
                            Ok(Err(errno)) => return Err(errno.into()),
                            Err(failure) => return Err(failure),
                        }
                    }
                };
                let Attributes { uid, gid, mode, modified } = attributes;
                fchown(&directory, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
                fchmod(&directory, Mode::from_raw_mode(mode))?;
                futimens(&directory, &times(modified))?;
                Ok(())
            };
            set(&mut self).map_err(|failure| failure.at(&path))?;
        }
        Ok(())
    }
}

/// Opens a directory that is one, never through a symbolic link.
fn open_directory(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

fn is_whiteout(parent: BorrowedFd<'_>, name: &[u8]) -> Result<bool, Errno> {
    let found = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice && found.st_rdev == 0)
}

/// Makes room for an entry, as Docker does: whatever has its name goes, with all below it.
///
/// A directory stays where `keep_directory` says that another one is to be merged into it.
fn clear(parent: BorrowedFd<'_>, name: &[u8], keep_directory: bool) -> Result<Before, Errno> {
    match open_directory(parent, name) {
        Ok(_) if keep_directory => Ok(Before::Directory),
        Ok(directory) => {
            remove_below(directory)?;
            unlinkat(parent, name, AtFlags::REMOVEDIR)?;
            Ok(Before::Nothing)
        }
        Err(Errno::NOENT) => Ok(Before::Nothing),
        Err(Errno::NOTDIR | Errno::LOOP) => {
            let whiteout = is_whiteout(parent, name)?;
            unlinkat(parent, name, AtFlags::empty())?;
            Ok(if whiteout { Before::Whiteout } else { Before::Nothing })
        }
        Err(errno) => Err(errno),
    }
}

/// Empties a directory, never following a link. Depth is bounded where entries are made.
fn remove_below(directory: OwnedFd) -> Result<(), Errno> {
    let entries = rustix::fs::Dir::read_from(&directory)?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match unlinkat(&directory, name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => {
                remove_below(open_directory(directory.as_fd(), name.to_bytes())?)?;
                unlinkat(&directory, name, AtFlags::REMOVEDIR)?;
            }
            other => other?,
        }
    }
    Ok(())
}

fn own(parent: BorrowedFd<'_>, name: &[u8], entry: &Entry) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

/// Sets what a layer may carry: attributes of the user, and file capabilities.
///
/// `trusted.` would let a layer speak to overlayfs, and `system.` and the other
/// `security.` ones speak to this machine. What a file system cannot keep is left out.
fn set_xattrs(file: BorrowedFd<'_>, xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Errno> {
    for (name, value) in xattrs {
        let wanted = name.starts_with(b"user.") || name == b"security.capability";
        if !wanted || name.len() > MAX_NAME_BYTES || name.contains(&0) {
            continue;
        }
        match fsetxattr(file, name.as_slice(), value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::NOTSUP) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn attributes(entry: &Entry) -> Attributes {
    Attributes { uid: entry.uid, gid: entry.gid, mode: entry.mode, modified: entry.modified }
}

fn times((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// The components of a path of an archive below the root; absolute ones start there too.
///
/// `a/../b` is `b`, as Docker cleans names before it looks at any file.
fn components(path: &[u8]) -> Result<Vec<&[u8]>, &'static str> {
    if path.is_empty() {
        return Err("it has no name");
    }
    if path.len() >= MAX_PATH_BYTES {
        return Err("its path is longer than 4095 bytes");
    }
    if path.contains(&0) {
        return Err("its path holds a zero byte");
    }
    let mut components = Vec::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => {
                components.pop().ok_or("it leads out of the root")?;
            }
            name if name.len() > MAX_NAME_BYTES => return Err("a name is longer than 255 bytes"),
            name => components.push(name),
        }
    }
    if components.len() > MAX_DEPTH {
        return Err("it lies more than 200 directories deep");
    }
    Ok(components)
}
