//! Tar archives: what layers are transported in. pax(1), ustar and pax Interchange Formats.

mod reader;
mod writer;

pub(super) use reader::Entries;
pub(super) use writer::Writer;

use std::io;

const BLOCK: usize = 512;

/// Why an archive cannot be read on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TarError {
    /// The stream under the archive failed or ended early.
    #[error("could not read the archive")]
    Read {
        /// `UnexpectedEof` where it ended in the middle of an entry.
        #[from]
        source: io::Error,
    },
    /// A header is not one.
    #[error("invalid tar header: {reason}")]
    Header {
        /// What is wrong with it.
        reason: &'static str,
    },
}

fn invalid(reason: &'static str) -> TarError {
    TarError::Header { reason }
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A file with data.
    Regular,
    /// A directory.
    Directory,
    /// Another name of an entry that came before.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device with its major and minor number.
    CharacterDevice(u32, u32),
    /// A block device with its major and minor number.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
    /// Some type flag that layers have no use for.
    Unknown(u8),
}

/// One entry, without its data.
#[derive(Debug)]
pub(super) struct Entry {
    /// As the archive has it: nothing is resolved or refused yet.
    pub(super) path: Vec<u8>,
    /// Target of a link.
    pub(super) link: Vec<u8>,
    /// What it is.
    pub(super) kind: Kind,
    /// Permission bits, setuid, setgid and sticky; nothing else.
    pub(super) mode: u32,
    /// Numeric owner.
    pub(super) uid: u32,
    /// Numeric group.
    pub(super) gid: u32,
    /// Seconds and nanoseconds since the epoch.
    pub(super) modified: (i64, u32),
    /// Bytes of a file when it is written out, holes included.
    pub(super) size: u64,
    /// From `SCHILY.xattr.` records.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the data of a sparse file goes: offset and length; none for a dense file.
    pub(super) pieces: Option<Vec<(u64, u64)>>,
}
