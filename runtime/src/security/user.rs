//! Users and groups of a root file system, and id mappings.
//!
//! Names are looked up in the files of the image, read as data: no name service of the host, no
//! library of the image.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};

use crate::container::rootfs;

/// Most that is read of /etc/passwd or /etc/group.
const LIMIT_BYTES: u64 = 16 * 1024 * 1024;
/// Largest id, as with Docker. Past it lies the one that setresuid(2) takes for "unchanged", which
/// would leave a process root.
const LARGEST_ID: u32 = i32::MAX.cast_unsigned();
/// Most supplementary groups, the kernel's NGROUPS_MAX.
const MOST_GROUPS: usize = 65_536;

/// A user as a process has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Home directory; `/` where none is known.
    pub home: String,
}

/// Why a user was not found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UserError {
    /// The name has no line in /etc/passwd.
    #[error("the image has no user {name:?}")]
    NoUser {
        /// The name.
        name: String,
    },
    /// The name has no line in /etc/group.
    #[error("the image has no group {name:?}")]
    NoGroup {
        /// The name.
        name: String,
    },
    /// A number that no user and no group has.
    #[error("{id} is no user or group id: it must be between 0 and {LARGEST_ID}")]
    Id {
        /// The number.
        id: u32,
    },
    /// The file is there but cannot be read.
    #[error("could not read {path} of the image: {source}")]
    Read {
        /// The file.
        path: &'static str,
        /// The cause; part of the text, because it crosses a process boundary as text.
        source: io::Error,
    },
}

/// Finds `user` ("", "uid", "name", "uid:gid", "name:group" and their mixtures) in the root file
/// system that is this process's `/`, as docker does: a number need not be in any file.
pub(crate) fn find(user: &str) -> Result<User, UserError> {
    find_in(user, &read("/etc/passwd")?, &read("/etc/group")?)
}

/// A file of the image, without following it anywhere odd. Missing is empty.
fn read(path: &'static str) -> Result<Vec<String>, UserError> {
    let lines = || -> io::Result<Vec<String>> {
        let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        // NONBLOCK: a FIFO of that name must not stop us.
        let file =
            match rootfs::resolve(root.as_fd(), Path::new(path), OFlags::RDONLY | OFlags::NONBLOCK)
            {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                other => other?,
            };
        if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("it is no regular file"));
        }
        let mut lines = Vec::new();
        for line in BufReader::new(File::from(file).take(LIMIT_BYTES)).split(b'\n') {
            // A line that is no text names nobody that we are asked for.
            lines.extend(String::from_utf8(line?));
        }
        Ok(lines)
    };
    lines().map_err(|source| UserError::Read { path, source })
}

fn find_in(user: &str, passwd: &[String], group: &[String]) -> Result<User, UserError> {
    let (user, wanted_group) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let line = passwd.iter().find_map(|line| Passwd::parse(line).filter(|line| line.is(user)));
    let (uid, mut gid, name, home) = match (line, user.parse()) {
        (Some(line), _) => (line.uid, line.gid, Some(line.name), line.home),
        (None, Ok(uid)) => (uid, 0, None, ""),
        (None, Err(_)) => return Err(UserError::NoUser { name: user.to_owned() }),
    };

    let mut groups = Vec::new();
    if let Some(wanted) = wanted_group {
        let line = group.iter().find_map(|line| Group::parse(line).filter(|line| line.is(wanted)));
        gid = match (line, wanted.parse()) {
            (Some(line), _) => line.gid,
            (None, Ok(gid)) => gid,
            (None, Err(_)) => return Err(UserError::NoGroup { name: wanted.to_owned() }),
        };
    } else if let Some(name) = name {
        // Memberships count only where no group was asked for.
        groups.extend(
            group
                .iter()
                .filter_map(|line| Group::parse(line))
                .filter(|line| line.members.split(',').any(|member| member == name))
                .map(|line| line.gid)
                .take(MOST_GROUPS),
        );
    }
    if let Some(id) = [uid, gid].iter().chain(&groups).find(|id| **id > LARGEST_ID) {
        return Err(UserError::Id { id: *id });
    }
    let home = if home.is_empty() { "/" } else { home };
    Ok(User { uid, gid, groups, home: home.to_owned() })
}

/// A line of passwd(5).
struct Passwd<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> Passwd<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or_default();
        Some(Self { name, uid, gid, home })
    }

    fn is(&self, user: &str) -> bool {
        self.name == user || user.parse() == Ok(self.uid)
    }
}

/// A line of group(5).
struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl<'a> Group<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some(Self { name, gid, members: fields.next().unwrap_or_default() })
    }

    fn is(&self, group: &str) -> bool {
        self.name == group || group.parse() == Ok(self.gid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_as_docker_finds_them() {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let passwd = lines(
            "root:x:0:0:root:/root:/bin/sh\nada:x:1000:1001:Ada:/home/ada:/bin/sh\nbroken\nhomeless:x:7:8::",
        );
        let group = lines("root:x:0:\nada:x:1001:\nstaff:x:50:ada,root\naudio:x:29:bob,ada\nbad");
        for (text, uid, gid, groups, home) in [
            ("", 0, 0, vec![50], "/root"),
            ("0", 0, 0, vec![50], "/root"),
            ("ada", 1000, 1001, vec![50, 29], "/home/ada"),
            ("1000", 1000, 1001, vec![50, 29], "/home/ada"),
            ("ada:staff", 1000, 50, vec![], "/home/ada"),
            ("ada:77", 1000, 77, vec![], "/home/ada"),
            ("4711", 4711, 0, vec![], "/"),
            ("4711:4712", 4711, 4712, vec![], "/"),
            (":staff", 0, 50, vec![], "/root"),
            ("homeless", 7, 8, vec![], "/"),
        ] {
            let found = find_in(text, &passwd, &group).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(found, User { uid, gid, groups, home: home.to_owned() }, "{text}");
        }
        for text in [
            "bob",
            "ada:nobody",
            "broken",
            "-1",
            "99999999999",
            "4294967295",
            "2147483648",
            "ada:4294967295",
        ] {
            assert!(find_in(text, &passwd, &group).is_err(), "{text}");
        }
    }
}
