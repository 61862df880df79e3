//! Writes tar archives: ustar, and a PAX header before an entry that ustar cannot hold.
//!
//! The same entries give the same bytes: nothing here depends on time, host or user.

use std::io::{self, Read, Write};

use super::{BLOCK, Entry, Kind};

/// Numbers of up to eleven octal digits, which is 8 GiB.
const MAX_OCTAL_11: u64 = (1 << 33) - 1;
/// Numbers of up to seven octal digits, for owners and devices.
const MAX_OCTAL_7: u64 = (1 << 21) - 1;

/// An archive being written.
#[derive(Debug)]
pub(in super::super) struct Writer<W> {
    writer: W,
}

impl<W: Write> Writer<W> {
    /// At the start of an archive.
    pub(in super::super) fn new(writer: W) -> Self {
        Self { writer }
    }

    /// Appends an entry with its data, of which exactly `entry.size` bytes are taken
    /// (the bytes of its pieces for a sparse file).
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` where `data` ends early: the file shrank while it was read.
    pub(in super::super) fn append(
        &mut self,
        entry: &Entry,
        data: &mut dyn Read,
    ) -> io::Result<()> {
        let mut pax = Vec::new();
        let map = entry.pieces.as_deref().map(|pieces| {
            record(&mut pax, b"GNU.sparse.major", b"1");
            record(&mut pax, b"GNU.sparse.minor", b"0");
            record(&mut pax, b"GNU.sparse.name", &entry.path);
            record(&mut pax, b"GNU.sparse.realsize", entry.size.to_string().as_bytes());
            sparse_map(pieces)
        });
        let stored = match (&map, &entry.pieces) {
            (Some(map), Some(pieces)) => {
                map.len() as u64 + pieces.iter().map(|(_, length)| length).sum::<u64>()
            }
            _ if entry.kind == Kind::Regular => entry.size,
            _ => 0,
        };
        let (seconds, nanoseconds) = entry.modified;
        if entry.path.len() > 100 || !entry.path.is_ascii() {
            record(&mut pax, b"path", &entry.path);
        }
        if entry.link.len() > 100 || !entry.link.is_ascii() {
            record(&mut pax, b"linkpath", &entry.link);
        }
        for (key, value, limit) in [
            (&b"size"[..], stored, MAX_OCTAL_11),
            (b"uid", entry.uid.into(), MAX_OCTAL_7),
            (b"gid", entry.gid.into(), MAX_OCTAL_7),
        ] {
            if value > limit {
                record(&mut pax, key, value.to_string().as_bytes());
            }
        }
        let octal_seconds = u64::try_from(seconds).ok().filter(|time| *time <= MAX_OCTAL_11);
        if octal_seconds.is_none() || nanoseconds != 0 {
            record(&mut pax, b"mtime", pax_time(seconds, nanoseconds).as_bytes());
        }
        for (name, value) in &entry.xattrs {
            record(&mut pax, &[b"SCHILY.xattr.", &name[..]].concat(), value);
        }
        if !pax.is_empty() {
            let mut header = Header::new(b"PaxHeaders/entry", b'x');
            header.octal(124..136, pax.len() as u64);
            self.writer.write_all(&header.finish())?;
            self.writer.write_all(&pax)?;
            self.pad(pax.len() as u64)?;
        }

        let (flag, device) = match entry.kind {
            Kind::Regular => (b'0', None),
            Kind::HardLink => (b'1', None),
            Kind::Symlink => (b'2', None),
            Kind::CharacterDevice(major, minor) => (b'3', Some((major, minor))),
            Kind::BlockDevice(major, minor) => (b'4', Some((major, minor))),
            Kind::Directory => (b'5', None),
            Kind::Fifo => (b'6', None),
            Kind::Unknown(flag) => (flag, None),
        };
        let mut header = Header::new(&entry.path, flag);
        header.octal(100..108, entry.mode.into());
        header.octal(108..116, u64::from(entry.uid).min(MAX_OCTAL_7));
        header.octal(116..124, u64::from(entry.gid).min(MAX_OCTAL_7));
        header.octal(124..136, stored.min(MAX_OCTAL_11));
        header.octal(136..148, octal_seconds.unwrap_or(0));
        header.text(157..257, &entry.link);
        if let Some((major, minor)) = device {
            header.number(329..337, major.into());
            header.number(337..345, minor.into());
        }
        self.writer.write_all(&header.finish())?;
        self.writer.write_all(map.as_deref().unwrap_or_default())?;
        let rest = stored - map.map_or(0, |map| map.len() as u64);
        if io::copy(&mut data.take(rest), &mut self.writer)? < rest {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.pad(stored)
    }

    /// Ends the archive; what it was written to.
    pub(in super::super) fn finish(mut self) -> io::Result<W> {
        self.writer.write_all(&[0; 2 * BLOCK])?;
        self.writer.flush()?;
        Ok(self.writer)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let rest = size.next_multiple_of(BLOCK as u64) - size;
        io::copy(&mut io::repeat(0).take(rest), &mut self.writer).map(drop)
    }
}

/// The 512 bytes before an entry.
struct Header([u8; BLOCK]);

impl Header {
    fn new(path: &[u8], flag: u8) -> Self {
        let mut header = Self([0; BLOCK]);
        header.text(0..100, path);
        for field in [100..108, 108..116, 116..124, 124..136, 136..148] {
            header.octal(field, 0);
        }
        header.0[156] = flag;
        header.0[257..265].copy_from_slice(b"ustar\x0000");
        header
    }

    /// Cut off where it does not fit: a PAX record has the rest.
    fn text(&mut self, field: std::ops::Range<usize>, text: &[u8]) {
        let length = text.len().min(field.len());
        self.0[field.start..field.start + length].copy_from_slice(&text[..length]);
    }

    fn octal(&mut self, field: std::ops::Range<usize>, value: u64) {
        let digits = field.len() - 1;
        self.text(field, format!("{value:0digits$o}").as_bytes());
    }

    /// Octal, or base 256 for what is larger.
    fn number(&mut self, field: std::ops::Range<usize>, value: u64) {
        if value <= MAX_OCTAL_7 {
            return self.octal(field, value);
        }
        self.0[field.clone()].copy_from_slice(&value.to_be_bytes());
        self.0[field.start] |= 0x80;
    }

    fn finish(mut self) -> [u8; BLOCK] {
        self.0[148..156].fill(b' ');
        let sum: u32 = self.0.iter().map(|byte| u32::from(*byte)).sum();
        self.0[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

/// `LENGTH KEY=VALUE\n`, where the length counts its own digits.
fn record(pax: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    pax.extend_from_slice(format!("{length} ").as_bytes());
    pax.extend_from_slice(key);
    pax.push(b'=');
    pax.extend_from_slice(value);
    pax.push(b'\n');
}

fn pax_time(seconds: i64, nanoseconds: u32) -> String {
    let (sign, whole, nanoseconds) = match (seconds < 0, nanoseconds) {
        (true, 1..) => ("-", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanoseconds),
        (true, 0) => ("-", seconds.unsigned_abs(), 0),
        (false, _) => ("", seconds.unsigned_abs(), nanoseconds),
    };
    match nanoseconds {
        0 => format!("{sign}{whole}"),
        _ => format!("{sign}{whole}.{nanoseconds:09}"),
    }
}

fn sparse_map(pieces: &[(u64, u64)]) -> Vec<u8> {
    let mut map = format!("{}\n", pieces.len());
    for (offset, length) in pieces {
        map.push_str(&format!("{offset}\n{length}\n"));
    }
    let mut map = map.into_bytes();
    map.resize(map.len().next_multiple_of(BLOCK), 0);
    map
}
