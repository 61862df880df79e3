//! directory → tar: a layer from the upper directory of an overlay.
//!
//! The same tree gives the same bytes: entries are sorted by name, times are
//! cut to seconds (as Docker cuts them), owners are numbers. What overlayfs
//! keeps for itself (`trusted.overlay.*`) stays behind; its whiteouts and
//! opaque directories become those of OCI image-spec, layer, Whiteouts.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek as _, SeekFrom, Write};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use oci_spec::image::MediaType;
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, fgetxattr, flistxattr, major, minor, openat,
    readlinkat, statat,
};
use rustix::io::Errno;

use super::layer;
use super::resolved::Layer;
use super::store::{Store, StoreError, file_error};
use super::tar::{Entry, Kind, Writer};
use crate::digest::{DiffId, Hashing};

const MAX_PATH_BYTES: usize = 4096;
/// As in `unpack`: what we write, we also read.
const MAX_DEPTH: usize = 200;
/// Smaller holes are cheaper as zeros, which compress to nothing.
const MIN_HOLES_BYTES: u64 = 1 << 20;

/// Why no layer could be made of a directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiffError {
    /// Something in the directory could not be read.
    #[error("could not read {} for a layer", path.display())]
    Read {
        /// What it is.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A name that means something else inside a layer.
    #[error("{} cannot be part of a layer: names that start with .wh. are reserved", path.display())]
    Reserved {
        /// The file.
        path: PathBuf,
    },
    /// Deeper than any path can say.
    #[error("{} cannot be part of a layer: it lies too deep", path.display())]
    TooDeep {
        /// The directory.
        path: PathBuf,
    },
    /// The archive could not be written: the disk may be full.
    #[error("could not write the layer's archive")]
    Write {
        /// What the kernel said.
        source: io::Error,
    },
    /// The store around it failed.
    #[error("could not keep the layer")]
    Store {
        /// What the store says.
        #[from]
        source: StoreError,
    },
}

impl Store {
    /// Makes a layer of an overlay's upper directory: its tar becomes a blob, the directory itself the unpacked layer.
    ///
    /// `upper` is gone afterwards; it must lie on the file system of the state
    /// root, and no mount may use it any more.
    ///
    /// # Errors
    ///
    /// The tree could not be read or the archive not written; `upper` stays then.
    pub fn adopt_layer(&self, upper: &Path) -> Result<Layer, DiffError> {
        let tmp = self.temporary_path("");
        let archive = tempfile::Builder::new()
            .prefix("file.")
            .tempfile_in(&tmp)
            .map_err(file_error("create a file in", &tmp))?;
        let (digest, size_bytes) = {
            let mut archive = Hashing::new(archive.as_file());
            write_layer(upper, BufWriter::with_capacity(1 << 20, &mut archive))?;
            archive.finish()
        };
        let diff_id = DiffId(digest);
        // The archive lies on the same file system.
        layer::sync(archive.as_file().as_fd(), upper)?;
        let _lock = self.lock_layer(&diff_id)?;
        let blob = self.blob_path(&digest);
        archive.persist(&blob).map_err(|error| StoreError::File {
            action: "write",
            path: blob,
            source: error.error,
        })?;
        if !layer::place(self, upper, &diff_id)? {
            let trash = self.path(format!("trash/upper.{}", rand::random::<u64>()));
            std::fs::rename(upper, &trash).map_err(file_error("rename", upper))?;
        }
        Ok(Layer { digest, diff_id, size_bytes, media_type: MediaType::ImageLayer })
    }
}

/// Writes the tree below `root` as a layer.
///
/// # Errors
///
/// As [`Store::adopt_layer`].
pub(super) fn write_layer(root: &Path, writer: impl Write) -> Result<(), DiffError> {
    let directory = rustix::fs::open(root, DIRECTORY, Mode::empty())
        .map_err(|errno| DiffError::Read { path: root.to_owned(), source: errno.into() })?;
    let mut walk = Walk {
        root,
        archive: Writer::new(writer),
        links: HashMap::new(),
        path: Vec::new(),
        depth: 0,
    };
    walk.directory(directory.as_fd())?;
    walk.archive.finish().map_err(|source| DiffError::Write { source })?;
    Ok(())
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// One walk over a tree, in the order of names.
struct Walk<'a, W> {
    root: &'a Path,
    archive: Writer<W>,
    /// Where a file with several names came first, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
    /// Of the entry at hand, below the root.
    path: Vec<u8>,
    depth: usize,
}

impl<W: Write> Walk<'_, W> {
    fn here(&self) -> PathBuf {
        use std::os::unix::ffi::OsStrExt as _;
        self.root.join(std::ffi::OsStr::from_bytes(&self.path))
    }

    fn failed(&self) -> impl Fn(Errno) -> DiffError + use<W> {
        let path = self.here();
        move |errno| DiffError::Read { path: path.clone(), source: errno.into() }
    }

    fn directory(&mut self, directory: BorrowedFd<'_>) -> Result<(), DiffError> {
        if self.depth > MAX_DEPTH {
            return Err(DiffError::TooDeep { path: self.here() });
        }
        let mut names = Vec::new();
        for entry in Dir::read_from(directory).map_err(self.failed())? {
            let entry = entry.map_err(self.failed())?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
        }
        names.sort();
        let length = self.path.len();
        for name in names {
            if length > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name.to_bytes());
            if self.path.len() >= MAX_PATH_BYTES {
                return Err(DiffError::TooDeep { path: self.here() });
            }
            self.entry(directory, &name)?;
            self.path.truncate(length);
        }
        Ok(())
    }

    fn entry(&mut self, parent: BorrowedFd<'_>, name: &CString) -> Result<(), DiffError> {
        let stat =
            statat(parent, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW).map_err(self.failed())?;
        let file_type = FileType::from_raw_mode(stat.st_mode);
        if file_type == FileType::CharacterDevice && stat.st_rdev == 0 {
            let hidden = self.path.len() - name.as_bytes().len();
            return self.marker(hidden, &[b".wh.", name.as_bytes()].concat());
        }
        if name.as_bytes().starts_with(b".wh.") {
            return Err(DiffError::Reserved { path: self.here() });
        }
        let mut entry = Entry {
            path: self.path.clone(),
            link: Vec::new(),
            kind: Kind::Regular,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            modified: (stat.st_mtime, 0),
            size: 0,
            xattrs: Vec::new(),
            pieces: None,
        };
        let device = || (major(stat.st_rdev), minor(stat.st_rdev));
        entry.kind = match file_type {
            FileType::Directory => {
                let directory = openat(parent, name.as_c_str(), DIRECTORY, Mode::empty())
                    .map_err(self.failed())?;
                return self.subdirectory(entry, &directory);
            }
            // A socket means nothing without the process that listens.
            FileType::Socket | FileType::Unknown => return Ok(()),
            FileType::RegularFile => Kind::Regular,
            FileType::Symlink => Kind::Symlink,
            FileType::Fifo => Kind::Fifo,
            FileType::CharacterDevice => Kind::CharacterDevice(device().0, device().1),
            FileType::BlockDevice => Kind::BlockDevice(device().0, device().1),
        };
        if let Some(first) = self.first_name(&stat) {
            entry.kind = Kind::HardLink;
            entry.link = first;
            return self.append(&entry, &mut io::empty());
        }
        match entry.kind {
            Kind::Symlink => {
                entry.mode = 0o777;
                let target =
                    readlinkat(parent, name.as_c_str(), Vec::new()).map_err(self.failed())?;
                entry.link = target.into_bytes();
                self.append(&entry, &mut io::empty())
            }
            Kind::Regular => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file =
                    openat(parent, name.as_c_str(), flags, Mode::empty()).map_err(self.failed())?;
                self.file(entry, &stat, file)
            }
            _ => self.append(&entry, &mut io::empty()),
        }
    }

    fn subdirectory(&mut self, mut entry: Entry, directory: &OwnedFd) -> Result<(), DiffError> {
        entry.kind = Kind::Directory;
        entry.path.push(b'/');
        let (xattrs, opaque) = xattrs(directory.as_fd()).map_err(self.failed())?;
        entry.xattrs = xattrs;
        self.append(&entry, &mut io::empty())?;
        if opaque {
            let length = self.path.len();
            self.path.push(b'/');
            self.marker(length + 1, b".wh..wh..opq")?;
            self.path.truncate(length);
        }
        self.depth += 1;
        self.directory(directory.as_fd())?;
        self.depth -= 1;
        Ok(())
    }

    fn file(&mut self, mut entry: Entry, stat: &Stat, file: OwnedFd) -> Result<(), DiffError> {
        entry.size = u64::try_from(stat.st_size).unwrap_or(0);
        entry.xattrs = xattrs(file.as_fd()).map_err(self.failed())?.0;
        let mut file = File::from(file);
        let blocks = u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        if blocks + MIN_HOLES_BYTES < entry.size {
            let path = self.here();
            let pieces =
                pieces(&file, entry.size).map_err(|source| DiffError::Read { path, source })?;
            let mut data = Pieces { file: &file, pieces: pieces.clone(), at: 0 };
            entry.pieces = Some(pieces);
            return self.append(&entry, &mut data);
        }
        self.append(&entry, &mut file)
    }

    /// An empty file that says something of the layers below: at `start` of the path.
    fn marker(&mut self, start: usize, name: &[u8]) -> Result<(), DiffError> {
        let entry = Entry {
            path: [&self.path[..start], name].concat(),
            link: Vec::new(),
            kind: Kind::Regular,
            mode: 0,
            uid: 0,
            gid: 0,
            modified: (0, 0),
            size: 0,
            xattrs: Vec::new(),
            pieces: None,
        };
        self.append(&entry, &mut io::empty())
    }

    /// The name under which this file is in the archive already.
    fn first_name(&mut self, stat: &Stat) -> Option<Vec<u8>> {
        if stat.st_nlink < 2 {
            return None;
        }
        match self.links.entry((stat.st_dev, stat.st_ino)) {
            std::collections::hash_map::Entry::Occupied(first) => Some(first.get().clone()),
            std::collections::hash_map::Entry::Vacant(new) => {
                new.insert(self.path.clone());
                None
            }
        }
    }

    fn append(&mut self, entry: &Entry, data: &mut dyn Read) -> Result<(), DiffError> {
        self.archive.append(entry, data).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => DiffError::Read { path: self.here(), source },
            _ => DiffError::Write { source },
        })
    }
}

/// Name and value of each attribute.
type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// What an image keeps of a file's attributes, and whether the directory is opaque.
fn xattrs(file: BorrowedFd<'_>) -> Result<(Xattrs, bool), Errno> {
    // XATTR_LIST_MAX and XATTR_SIZE_MAX: nothing is longer.
    let mut names = Vec::with_capacity(1024);
    loop {
        match flistxattr(file, rustix::buffer::spare_capacity(&mut names)) {
            Ok(_) => break,
            Err(Errno::RANGE) if names.capacity() < 64 << 10 => {
                names.reserve(64 << 10);
            }
            Err(Errno::NOTSUP) => break,
            Err(errno) => return Err(errno),
        }
    }
    let mut found = Vec::new();
    let mut opaque = false;
    for name in names.split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        let bytes = name.to_bytes();
        let wanted = bytes.starts_with(b"user.") || bytes == b"security.capability";
        if !wanted && bytes != b"trusted.overlay.opaque" {
            continue;
        }
        let mut value = Vec::with_capacity(256);
        loop {
            match fgetxattr(file, name, rustix::buffer::spare_capacity(&mut value)) {
                Ok(_) => break,
                Err(Errno::RANGE) if value.capacity() < 64 << 10 => value.reserve(64 << 10),
                Err(errno) => return Err(errno),
            }
        }
        match wanted {
            true => found.push((bytes.to_vec(), value)),
            false => opaque = value == b"y",
        }
    }
    found.sort();
    Ok((found, opaque))
}

/// Where a file has data: lseek(2), `SEEK_DATA` and `SEEK_HOLE`.
fn pieces(mut file: &File, size: u64) -> io::Result<Vec<(u64, u64)>> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(errno) => return Err(errno.into()),
        };
        let end = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(start))?.min(size);
        if start >= end {
            break;
        }
        pieces.push((start, end - start));
        at = end;
    }
    file.seek(SeekFrom::Start(0))?;
    // As GNU tar does, so that a reader knows the file's end.
    pieces.push((size, 0));
    Ok(pieces)
}

/// The data of a sparse file, one piece after the other.
struct Pieces<'a> {
    file: &'a File,
    pieces: Vec<(u64, u64)>,
    at: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some((offset, length)) = self.pieces.get_mut(self.at) {
            if *length == 0 {
                self.at += 1;
                continue;
            }
            let wanted = usize::try_from(*length).unwrap_or(usize::MAX).min(buffer.len());
            let n = self.file.read_at(&mut buffer[..wanted], *offset)?;
            *offset += n as u64;
            *length -= n as u64;
            return Ok(n);
        }
        Ok(0)
    }
}
