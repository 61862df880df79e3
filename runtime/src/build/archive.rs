//! Local archives given to ADD: recognised by content, unpacked inside their destination.

use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use tar::EntryType;

use super::copy::{make_directories, open_in_root};

/// Size of one tar header.
const BLOCK_BYTES: usize = 512;

/// The tar in `file`, decompressed; `None` when it is none.
///
/// # Errors
///
/// It cannot be read, or is compressed in a way that this builder does not know.
pub(super) fn open(mut file: File) -> io::Result<Option<Box<dyn Read>>> {
    let mut start = Vec::new();
    file.by_ref().take(6).read_to_end(&mut start)?;
    let rewind = |mut file: File| -> io::Result<Box<dyn Read>> {
        file.rewind()?;
        Ok(match &start[..] {
            [0x1f, 0x8b, ..] => {
                Box::new(flate2::bufread::MultiGzDecoder::new(io::BufReader::new(file)))
            }
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::stream::read::Decoder::new(file)?),
            _ => Box::new(io::BufReader::new(file)),
        })
    };
    let unknown = match &start[..] {
        [b'B', b'Z', b'h', ..] => Some("bzip2"),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Some("xz"),
        _ => None,
    };
    if let Some(unknown) = unknown {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("archives compressed with {unknown} are not supported yet"),
        ));
    }
    let mut header = Vec::new();
    // What cannot be decompressed to the first header is a file like any other.
    let again = file.try_clone()?;
    if rewind(file)?.take(BLOCK_BYTES as u64).read_to_end(&mut header).is_err() {
        return Ok(None);
    }
    if is_tar_header(&header) { rewind(again).map(Some) } else { Ok(None) }
}

/// True for a header whose sum is right, as in any tar since V7.
fn is_tar_header(block: &[u8]) -> bool {
    if block.len() != BLOCK_BYTES || block[0] == 0 {
        return false;
    }
    let sum: u64 = block
        .iter()
        .enumerate()
        .map(|(at, byte)| u64::from(if (148..156).contains(&at) { b' ' } else { *byte }))
        .sum();
    let field: String = block[148..156]
        .iter()
        .map(|byte| char::from(*byte))
        .filter(|c| c.is_ascii_digit())
        .collect();
    u64::from_str_radix(&field, 8) == Ok(sum)
}

/// Unpacks into `directory`, which is the root of all paths and links of the archive.
///
/// # Errors
///
/// The archive is broken, names something outside, or holds devices.
pub(super) fn unpack(archive: Box<dyn Read>, directory: BorrowedFd<'_>) -> io::Result<()> {
    let mut archive = tar::Archive::new(archive);
    let mut dates = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            continue;
        }
        let path = inside(&entry.path()?)?;
        let Some(name) = path.file_name() else { continue };
        let header = entry.header();
        // Old archives leave fields empty, which means 0.
        let owner = (id(header.uid().unwrap_or(0))?, id(header.gid().unwrap_or(0))?);
        let mode = Mode::from_raw_mode(header.mode()? & 0o7777);
        let seconds = i64::try_from(header.mtime().unwrap_or(0)).unwrap_or(0);
        let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        let parent = make_directories(directory, path.parent().unwrap_or(Path::new("")), (0, 0))
            .map_err(io::Error::other)?;
        let parent = parent.as_fd();

        if kind == EntryType::Directory {
            let directory = make_directories(directory, &path, owner).map_err(io::Error::other)?;
            let directory =
                open_in_root(directory.as_fd(), Path::new(""), OFlags::RDONLY | OFlags::DIRECTORY)?;
            rustix::fs::fchown(
                &directory,
                Some(Uid::from_raw(owner.0)),
                Some(Gid::from_raw(owner.1)),
            )?;
            rustix::fs::fchmod(&directory, mode)?;
            dates.push((directory, times));
            // Descriptors are few; times of the oldest are good enough by now.
            if dates.len() > 256 {
                let (directory, times) = dates.remove(0);
                rustix::fs::futimens(&directory, &times)?;
            }
            continue;
        }
        match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let flags = OFlags::WRONLY
                    | OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let mut file: File =
                    rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?.into();
                io::copy(&mut entry, &mut file)?;
                rustix::fs::fchown(
                    &file,
                    Some(Uid::from_raw(owner.0)),
                    Some(Gid::from_raw(owner.1)),
                )?;
                rustix::fs::fchmod(&file, mode)?;
                rustix::fs::futimens(&file, &times)?;
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default();
                rustix::fs::symlinkat(std::ffi::OsStr::from_bytes(&target), parent, name)?;
                rustix::fs::chownat(
                    parent,
                    name,
                    Some(Uid::from_raw(owner.0)),
                    Some(Gid::from_raw(owner.1)),
                    AtFlags::SYMLINK_NOFOLLOW,
                )?;
            }
            EntryType::Link => {
                let target = entry.link_name()?.unwrap_or_default();
                let target = inside(&target)?;
                let from = open_in_root(
                    directory,
                    target.parent().unwrap_or(Path::new("")),
                    OFlags::PATH | OFlags::DIRECTORY,
                )?;
                let from_name = target.file_name().unwrap_or_default();
                rustix::fs::linkat(from, from_name, parent, name, AtFlags::empty())?;
            }
            EntryType::Fifo => {
                rustix::fs::mknodat(parent, name, rustix::fs::FileType::Fifo, mode, 0)?;
            }
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    format!("{} is a device or of an unknown kind", path.display()),
                ));
            }
        }
    }
    for (directory, times) in dates.iter().rev() {
        rustix::fs::futimens(directory, times)?;
    }
    Ok(())
}

/// `path` made relative; an error when it has `..`.
fn inside(path: &Path) -> io::Result<PathBuf> {
    let mut inside = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => inside.push(name),
            Component::ParentDir => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{} leaves the archive", path.display()),
                ));
            }
            _ => {}
        }
    }
    Ok(inside)
}

fn id(id: u64) -> io::Result<u32> {
    u32::try_from(id).map_err(io::Error::other)
}
