//! Reads tar archives of strangers: every size is bounded before it is believed.
//!
//! Understands what layers are written in: V7, ustar, PAX and GNU headers, long
//! names, sparse files in GNU's old form and in PAX forms 0.1 and 1.0. Where
//! tools disagree, this reads as Go's `archive/tar` does, since Docker is the
//! reader that layers are made for.

use std::io::{self, Read};

use super::{BLOCK, Entry, Kind, TarError, invalid};

/// Of one long name or PAX header; file names end at 4 KiB, xattrs at 64 KiB each.
const MAX_EXTENSION_BYTES: u64 = 4 << 20;
/// Of one file; Linux keeps far fewer.
const MAX_XATTRS: usize = 1024;
/// Of one file.
const MAX_SPARSE_PIECES: usize = 1 << 20;
/// The largest size that a file can have (`off_t`).
const MAX_FILE_BYTES: u64 = i64::MAX as u64;

/// What PAX records and long names say of the next entry.
#[derive(Debug, Default, Clone)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    modified: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: Sparse,
}

#[derive(Debug, Default, Clone)]
struct Sparse {
    major: Option<u64>,
    minor: Option<u64>,
    name: Option<Vec<u8>>,
    real_size: Option<u64>,
    map: Option<Vec<u8>>,
    is_form_0_0: bool,
}

/// The entries of an archive, one after the other.
#[derive(Debug)]
pub(in super::super) struct Entries<R> {
    reader: R,
    /// Data of the current entry that nobody has read.
    data: u64,
    /// What fills its last block.
    padding: u64,
    ended: bool,
}

impl<R: Read> Entries<R> {
    /// At the start of an archive.
    pub(in super::super) fn new(reader: R) -> Self {
        Self { reader, data: 0, padding: 0, ended: false }
    }

    /// The next entry; skips what is left of the one before.
    ///
    /// # Errors
    ///
    /// The stream failed, ended inside an entry, or holds what is no header.
    pub(in super::super) fn next(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extensions = Extensions::default();
        let mut long_path = None;
        let mut long_link = None;
        loop {
            self.skip()?;
            let Some(block) = self.header()? else {
                if long_path.is_some() || long_link.is_some() {
                    return Err(invalid("the archive ends after a long name"));
                }
                return Ok(None);
            };
            let size = number(&block[124..136])?;
            match block[156] {
                b'x' => {
                    // The last one wins, as in Go: two in a row are no addition.
                    extensions = parse_pax(&self.extension(size)?)?;
                }
                // Defaults for all entries: Docker ignores them.
                b'g' => drop(self.extension(size)?),
                b'L' => long_path = Some(until_nul(&self.extension(size)?).to_vec()),
                b'K' => long_link = Some(until_nul(&self.extension(size)?).to_vec()),
                _ => {
                    extensions.path = long_path.or(extensions.path);
                    extensions.link = long_link.or(extensions.link);
                    return self.entry(&block, extensions, size).map(Some);
                }
            }
        }
    }

    /// Reads data of the current entry; 0 at its end.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof`: the archive ends before the data does.
    pub(in super::super) fn read_data(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.data).unwrap_or(usize::MAX).min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        let n = self.reader.read(&mut buffer[..wanted])?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.data -= n as u64;
        Ok(n)
    }

    fn skip(&mut self) -> Result<(), TarError> {
        let rest = self.data.saturating_add(self.padding);
        let skipped = io::copy(&mut (&mut self.reader).take(rest), &mut io::sink())?;
        if skipped < rest {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        (self.data, self.padding) = (0, 0);
        Ok(())
    }

    /// A header that is one, or none at the end of the archive.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        if self.ended {
            return Ok(None);
        }
        let Some(block) = self.block()? else {
            self.ended = true;
            return Ok(None);
        };
        if block.iter().all(|byte| *byte == 0) {
            // Two of them end an archive; some writers forget the second.
            self.ended = true;
            return match self.block()? {
                Some(second) if second.iter().any(|byte| *byte != 0) => {
                    Err(invalid("one block of zeros before the end"))
                }
                _ => Ok(None),
            };
        }
        let unsigned = |byte: &u8| i64::from(*byte);
        let signed = |byte: &u8| i64::from(i8::from_ne_bytes([*byte]));
        let sum = |value: fn(&u8) -> i64| {
            let (before, after) = (&block[..148], &block[156..]);
            before.iter().chain(after).map(value).sum::<i64>() + 8 * i64::from(b' ')
        };
        let claimed = i64::try_from(number(&block[148..156])?).unwrap_or(i64::MAX);
        if claimed != sum(unsigned) && claimed != sum(signed) {
            return Err(invalid("wrong checksum"));
        }
        Ok(Some(block))
    }

    /// One block; none at the very end of the stream.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.reader.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(block))
    }

    /// The content of a header that describes the next one.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > MAX_EXTENSION_BYTES {
            return Err(invalid("a long name or PAX header of more than 4 MiB"));
        }
        self.begin_data(size);
        let mut bytes = Vec::new();
        (&mut self.reader).take(size).read_to_end(&mut bytes)?;
        if (bytes.len() as u64) < size {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        self.data = 0;
        Ok(bytes)
    }

    fn begin_data(&mut self, size: u64) {
        self.data = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
    }

    fn entry(
        &mut self,
        block: &[u8; BLOCK],
        extensions: Extensions,
        size: u64,
    ) -> Result<Entry, TarError> {
        let mut path = extensions.path.unwrap_or_else(|| header_path(block));
        let link = extensions.link.unwrap_or_else(|| until_nul(&block[157..257]).to_vec());
        let device = || -> Result<(u32, u32), TarError> {
            let part = |field| {
                u32::try_from(number(field)?).map_err(|_| invalid("device number too large"))
            };
            Ok((part(&block[329..337])?, part(&block[337..345])?))
        };
        let flag = block[156];
        let kind = match flag {
            b'0' | 0 if path.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' | b'S' => Kind::Regular,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => device().map(|(major, minor)| Kind::CharacterDevice(major, minor))?,
            b'4' => device().map(|(major, minor)| Kind::BlockDevice(major, minor))?,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => Kind::Unknown(other),
        };
        // Links, devices and directories have no data, whatever their size says.
        let stored = match kind {
            Kind::Regular | Kind::Unknown(_) => extensions.size.unwrap_or(size),
            Kind::Directory if matches!(flag, b'0' | 0) => extensions.size.unwrap_or(size),
            _ => 0,
        };
        if stored > MAX_FILE_BYTES - BLOCK as u64 {
            return Err(invalid("size too large"));
        }
        self.begin_data(stored);
        let (mut size, mut pieces) = (stored, None);
        if flag == b'S' {
            let (real_size, map) = self.old_sparse_map(block)?;
            (size, pieces) = (real_size, Some(map));
        } else if kind == Kind::Regular {
            let sparse = extensions.sparse;
            if sparse.is_form_0_0 {
                return Err(invalid("sparse file of PAX form 0.0"));
            }
            let map = match (sparse.major.unwrap_or(0), sparse.minor.unwrap_or(0), &sparse.map) {
                (1, 0, _) => Some(self.sparse_map_before_data()?),
                (0, _, Some(map)) => Some(numbers(map, b',')?),
                (0, _, None) => None,
                _ => return Err(invalid("unknown form of sparse file")),
            };
            if let Some(map) = map {
                size = sparse.real_size.ok_or_else(|| invalid("sparse file without its size"))?;
                path = sparse.name.unwrap_or(path);
                pieces = Some(pairs(&map));
            }
        }
        if let Some(pieces) = &pieces {
            check_pieces(pieces, size, self.data)?;
        }
        let id = |of_pax: Option<u64>, field: &[u8]| {
            let id = of_pax.map_or_else(|| number(field), Ok)?;
            // The last one means "unchanged" to chown(2).
            u32::try_from(id)
                .ok()
                .filter(|id| *id != u32::MAX)
                .ok_or_else(|| invalid("owner id too large"))
        };
        let modified = match extensions.modified {
            Some(modified) => modified,
            None => (signed_number(&block[136..148])?, 0),
        };
        Ok(Entry {
            path,
            link,
            kind,
            mode: u32::try_from(number(&block[100..108])? & 0o7777)
                .expect("twelve bits fit into 32"),
            uid: id(extensions.uid, &block[108..116])?,
            gid: id(extensions.gid, &block[116..124])?,
            modified,
            size,
            xattrs: extensions.xattrs,
            pieces,
        })
    }

    /// GNU's old form: four pieces in the header, 21 in each block that follows it.
    fn old_sparse_map(&mut self, block: &[u8; BLOCK]) -> Result<(u64, Vec<(u64, u64)>), TarError> {
        let mut pieces = Vec::new();
        let mut read = |fields: &[u8]| -> Result<(), TarError> {
            for field in fields.chunks_exact(24) {
                if field[0] == 0 {
                    break;
                }
                if pieces.len() >= MAX_SPARSE_PIECES {
                    return Err(invalid("too many pieces of a sparse file"));
                }
                pieces.push((number(&field[..12])?, number(&field[12..])?));
            }
            Ok(())
        };
        read(&block[386..482])?;
        let real_size = number(&block[483..495])?;
        let mut extended = block[482] != 0;
        while extended {
            let eof = || TarError::from(io::Error::from(io::ErrorKind::UnexpectedEof));
            let more = self.block()?.ok_or_else(eof)?;
            read(&more[..504])?;
            extended = more[504] != 0;
        }
        Ok((real_size, pieces))
    }

    /// PAX form 1.0: decimal numbers, a line each, in whole blocks at the start of the data.
    fn sparse_map_before_data(&mut self) -> Result<Vec<u64>, TarError> {
        let mut text = Vec::new();
        let mut values: Vec<u64> = Vec::new();
        loop {
            let mut block = [0; BLOCK];
            let mut filled = 0;
            while filled < BLOCK {
                match self.read_data(&mut block[filled..])? {
                    0 => return Err(invalid("the map of a sparse file is cut off")),
                    n => filled += n,
                }
            }
            for byte in block {
                match byte {
                    b'\n' => {
                        values.push(decimal(&text)?);
                        text.clear();
                        let count = usize::try_from(values[0])
                            .ok()
                            .filter(|count| *count <= MAX_SPARSE_PIECES)
                            .ok_or_else(|| invalid("too many pieces of a sparse file"))?;
                        if values.len() == 1 + 2 * count {
                            values.remove(0);
                            return Ok(values);
                        }
                    }
                    _ if text.len() < 20 => text.push(byte),
                    _ => return Err(invalid("the map of a sparse file is no number")),
                }
            }
        }
    }
}

/// Pieces go up, do not overlap, end inside the file, and take exactly the data there is.
fn check_pieces(pieces: &[(u64, u64)], size: u64, data: u64) -> Result<(), TarError> {
    let (mut end, mut total) = (0u64, 0u64);
    for (offset, length) in pieces {
        let next = offset.checked_add(*length).filter(|next| *offset >= end && *next <= size);
        end = next.ok_or_else(|| invalid("overlapping pieces of a sparse file"))?;
        total += length;
    }
    if total != data || size > MAX_FILE_BYTES {
        return Err(invalid("the pieces of a sparse file are not its size"));
    }
    Ok(())
}

/// ustar splits a long path in two; GNU uses the second field for times.
fn header_path(block: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_nul(&block[..100]);
    let prefix = until_nul(&block[345..500]);
    if &block[257..263] == b"ustar\0" && !prefix.is_empty() {
        return [prefix, b"/", name].concat();
    }
    name.to_vec()
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or(bytes)
}

/// A number that cannot be negative: octal digits, or GNU's base 256.
fn number(field: &[u8]) -> Result<u64, TarError> {
    u64::try_from(signed_number(field)?).map_err(|_| invalid("negative number"))
}

fn signed_number(field: &[u8]) -> Result<i64, TarError> {
    if field.first().is_some_and(|first| first & 0x80 != 0) {
        // Two's complement, of which the first bit only says that it is binary.
        let negative = field[0] & 0x40 != 0;
        let mut value: i128 = if negative { -1 } else { 0 };
        for (n, byte) in field.iter().enumerate() {
            let byte = if n == 0 { (byte & 0x7f) | (u8::from(negative) << 7) } else { *byte };
            value = (value << 8) | i128::from(byte);
            if i64::try_from(value).is_err() {
                return Err(invalid("number too large"));
            }
        }
        return i64::try_from(value).map_err(|_| invalid("number too large"));
    }
    let text = until_nul(field).trim_ascii();
    text.iter().try_fold(0i64, |value, digit| match digit {
        b'0'..=b'7' => value
            .checked_mul(8)
            .and_then(|value| value.checked_add(i64::from(digit - b'0')))
            .ok_or_else(|| invalid("number too large")),
        _ => Err(invalid("not an octal number")),
    })
}

fn decimal(text: &[u8]) -> Result<u64, TarError> {
    std::str::from_utf8(text)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| invalid("not a decimal number"))
}

fn numbers(text: &[u8], separator: u8) -> Result<Vec<u64>, TarError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let values: Result<Vec<u64>, TarError> =
        text.split(|byte| *byte == separator).map(decimal).collect();
    match values {
        Ok(values) if values.len() % 2 == 1 => Err(invalid("odd map of a sparse file")),
        other => other,
    }
}

fn pairs(values: &[u64]) -> Vec<(u64, u64)> {
    values.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
}

/// pax(1), Extended Header: records of `LENGTH KEY=VALUE\n`.
fn parse_pax(mut bytes: &[u8]) -> Result<Extensions, TarError> {
    let malformed = || invalid("malformed PAX record");
    let mut extensions = Extensions::default();
    while !bytes.is_empty() {
        let space = bytes.iter().position(|byte| *byte == b' ').ok_or_else(malformed)?;
        let length = usize::try_from(decimal(&bytes[..space])?).map_err(|_| malformed())?;
        let record = bytes.get(space + 1..length).ok_or_else(malformed)?;
        let record = record.strip_suffix(b"\n").ok_or_else(malformed)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(malformed)?;
        extensions.set(&record[..equals], &record[equals + 1..])?;
        bytes = &bytes[length..];
    }
    Ok(extensions)
}

impl Extensions {
    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarError> {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            if self.xattrs.len() >= MAX_XATTRS {
                return Err(invalid("more than 1024 extended attributes"));
            }
            self.xattrs.retain(|(other, _)| other != name);
            self.xattrs.push((name.to_vec(), value.to_vec()));
            return Ok(());
        }
        let nul_free = || match value.contains(&0) {
            true => Err(invalid("a name with a zero byte")),
            // An empty value takes the record back.
            false => Ok(Some(value.to_vec()).filter(|value| !value.is_empty())),
        };
        let optional = || if value.is_empty() { Ok(None) } else { decimal(value).map(Some) };
        match key {
            b"path" => self.path = nul_free()?,
            b"linkpath" => self.link = nul_free()?,
            b"size" => self.size = optional()?,
            b"uid" => self.uid = optional()?,
            b"gid" => self.gid = optional()?,
            b"mtime" if value.is_empty() => self.modified = None,
            b"mtime" => self.modified = Some(time(value)?),
            b"GNU.sparse.major" => self.sparse.major = optional()?,
            b"GNU.sparse.minor" => self.sparse.minor = optional()?,
            b"GNU.sparse.name" => self.sparse.name = nul_free()?,
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.sparse.real_size = optional()?,
            b"GNU.sparse.map" => self.sparse.map = Some(value.to_vec()),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => self.sparse.is_form_0_0 = true,
            _ => {}
        }
        Ok(())
    }
}

/// Seconds since the epoch with an optional fraction, as in `-1.5`.
fn time(value: &[u8]) -> Result<(i64, u32), TarError> {
    let wrong = || invalid("not a time");
    let text = std::str::from_utf8(value).map_err(|_| wrong())?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let negative = seconds.starts_with('-');
    let seconds: i64 = seconds.parse().map_err(|_| wrong())?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let nanoseconds: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: u32 = nanoseconds.parse().map_err(|_| wrong())?;
    if negative && nanoseconds > 0 {
        // Nanoseconds count upwards, so minus 1.5 is half a second after minus 2.
        return Ok((seconds.checked_sub(1).ok_or_else(wrong)?, 1_000_000_000 - nanoseconds));
    }
    Ok((seconds, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        for (field, value) in [
            (&b"0000644\0"[..], 0o644),
            (b"   644 \0", 0o644),
            (b"\0\0\0\0", 0),
            (b"\x80\0\0\x01\0", 256),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", -2),
        ] {
            assert_eq!(signed_number(field).unwrap(), value, "{field:?}");
        }
        for field in [&b"0000648\0"[..], b"-1", b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"7 7"]
        {
            assert!(signed_number(field).is_err(), "{field:?}");
        }
        assert!(number(b"\xff\xff\xff\xfe").is_err());
    }

    #[test]
    fn times_have_nanoseconds_and_signs() {
        for (text, expected) in [
            ("0", (0, 0)),
            ("12.5", (12, 500_000_000)),
            ("12.000000001999", (12, 1)),
            ("-1.5", (-2, 500_000_000)),
            ("-0.25", (-1, 750_000_000)),
            ("-3", (-3, 0)),
        ] {
            assert_eq!(time(text.as_bytes()).unwrap(), expected, "{text}");
        }
        for text in ["", ".", "1.x", "1e9", "--1", "9999999999999999999"] {
            assert!(time(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn malformed_pax_records_are_refused() {
        for text in [
            "x",
            "5 a=b",
            "99 a=b\n",
            "0 a=b\n",
            "4 ab\n",
            "-6 a=b\n",
            "2 a=b\n",
            "18446744073709551615 a=b\n",
        ] {
            assert!(parse_pax(text.as_bytes()).is_err(), "{text:?}");
        }
        let extensions = parse_pax(b"12 path=a/b\n9 uid=77\n").unwrap();
        assert_eq!((extensions.path.as_deref(), extensions.uid), (Some(&b"a/b"[..]), Some(77)));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_or_loop(mut bytes in proptest::collection::vec(any::<u8>(), 0..2048), flag in any::<u8>()) {
            // With a checksum that holds, so that what lies behind it is reached.
            if bytes.len() >= BLOCK {
                bytes[124..136].copy_from_slice(b"00000000777\0");
                bytes[156] = flag;
                let sum: u32 = bytes[..148].iter().chain(&bytes[156..BLOCK]).map(|b| u32::from(*b)).sum::<u32>() + 256;
                bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
            let mut entries = Entries::new(&bytes[..]);
            while let Ok(Some(_)) = entries.next() {}
        }
    }
}
