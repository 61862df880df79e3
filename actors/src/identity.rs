//! Who users are on the hosts: their ids and home directories, by a list that the
//! operator keeps.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tracing::warn;

use crate::error::Chain;

/// A user of the hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its user and group ids.
    pub user: (u32, u32),
    /// Its home directory, where the list has one.
    pub home: Option<String>,
}

/// Why a list of users cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentitiesError {
    /// The file is not there, or not for us.
    #[error("could not read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Not of the form of passwd(5).
    #[error("{}: line {line} is not NAME:PASSWORD:UID:GID:COMMENT:HOME:SHELL", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
}

/// Users of the hosts, from a file of the form of passwd(5). It is read again when it
/// has changed. A clone is another handle of it.
#[derive(Clone)]
pub struct Identities(Arc<File>);

struct File {
    path: PathBuf,
    may_be: fn(u32, u32) -> bool,
    read: Mutex<Read>,
}

struct Read {
    stamp: Stamp,
    users: HashMap<String, Identity>,
    /// Whether it was said that what came later cannot be used.
    said: bool,
}

/// What identifies one version of the file.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    modified: Option<SystemTime>,
    size: u64,
}

/// Lower ids are the system's own: nobody is one of these by the name of a user.
const FIRST_USER: u32 = 1_000;

impl Identities {
    /// The users in the file at `path`, but for those with ids that `may_be` refuses,
    /// and those with ids below 1000, which are the system's.
    ///
    /// # Errors
    ///
    /// It cannot be read, or a line is none of passwd(5).
    pub fn of_file(
        path: impl Into<PathBuf>,
        may_be: fn(u32, u32) -> bool,
    ) -> Result<Self, IdentitiesError> {
        let path = path.into();
        let read = read(&path, may_be)?;
        Ok(Self(Arc::new(File { path, may_be, read: Mutex::new(read) })))
    }

    /// Who `user` is on the hosts, if it is anybody.
    pub(crate) fn find(&self, user: &str) -> Option<Identity> {
        let File { path, may_be, read: last } = &*self.0;
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        // Where it is being replaced, or was broken, what it said before holds.
        let changed = match stamp(path) {
            Ok(stamp) if stamp == last.stamp => Ok(None),
            _ => read(path, *may_be).map(Some),
        };
        match changed {
            Ok(None) => {}
            Ok(Some(new)) => *last = new,
            Err(error) => {
                if !std::mem::replace(&mut last.said, true) {
                    let path = path.display();
                    warn!(error = %Chain(&error), "the users of {path} stay as they were");
                }
            }
        }
        last.users.get(user).cloned()
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identities").field(&self.0.path).finish()
    }
}

impl PartialEq for Identities {
    fn eq(&self, other: &Self) -> bool {
        self.0.path == other.0.path
    }
}

impl Eq for Identities {}

fn stamp(path: &Path) -> io::Result<Stamp> {
    let metadata = std::fs::metadata(path)?;
    Ok(Stamp { inode: metadata.ino(), modified: metadata.modified().ok(), size: metadata.len() })
}

fn read(path: &Path, may_be: fn(u32, u32) -> bool) -> Result<Read, IdentitiesError> {
    let failed = |source| IdentitiesError::Read { path: path.to_owned(), source };
    // Taken before, so that a change while we read is seen next time.
    let stamp = stamp(path).map_err(failed)?;
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let mut users = HashMap::new();
    for (n, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with(['#', '+', '-']) {
            continue;
        }
        let (name, identity) = parse(line)
            .ok_or_else(|| IdentitiesError::Line { path: path.to_owned(), line: n + 1 })?;
        let (uid, gid) = identity.user;
        if uid >= FIRST_USER && may_be(uid, gid) {
            // As the C library has it, the first of a name counts.
            users.entry(name).or_insert(identity);
        }
    }
    Ok(Read { stamp, users, said: false })
}

fn parse(line: &str) -> Option<(String, Identity)> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, _, home, _] = fields[..] else { return None };
    if name.is_empty() {
        return None;
    }
    let user = (uid.parse().ok()?, gid.parse().ok()?);
    let home = Some(home).filter(|home| is_directory(home)).map(str::to_owned);
    Some((name.to_owned(), Identity { user, home }))
}

/// A path that leads nowhere but where it says.
fn is_directory(path: &str) -> bool {
    let path = Path::new(path);
    path.is_absolute() && path.components().all(|part| part != Component::ParentDir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> (tempfile::TempDir, Result<Identities, IdentitiesError>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        std::fs::write(&path, text).unwrap();
        let identities = Identities::of_file(path, |uid, gid| uid != 4_000 && gid != 0);
        (directory, identities)
    }

    #[test]
    fn users_are_those_of_the_list_and_never_the_system_s() {
        let (_directory, identities) = of("# people\nroot:x:0:0::/root:/bin/sh\n\
             daemon:x:1:1::/:/bin/false\nada:x:1001:100:Ada,,,:/home/ada:/bin/bash\n\n\
             ada:x:1002:100::/home/other:/bin/bash\nleads:x:1003:100::/home/../etc:/bin/sh\n\
             homeless:x:1004:1004:::\nwheel:x:1005:0::/h:/s\nnobody:x:4000:4000::/h:/s\n+::::::\n");
        let identities = identities.unwrap();
        let find = |user| identities.find(user).map(|found| (found.user, found.home));
        assert_eq!(find("ada"), Some(((1001, 100), Some("/home/ada".to_owned()))));
        assert_eq!(find("leads"), Some(((1003, 100), None)));
        assert_eq!(find("homeless"), Some(((1004, 1004), None)));
        for user in ["root", "daemon", "wheel", "nobody", "grace", "", "+"] {
            assert_eq!(find(user), None, "{user}");
        }
    }

    #[test]
    fn a_list_that_is_none_is_refused_at_the_start_and_ignored_later() {
        for text in ["ada:x:1001:100\n", "ada:x:one:100::/h:/s\n", ":x:1001:100::/h:/s\n"] {
            let (_directory, refused) = of(text);
            let error = refused.unwrap_err().to_string();
            assert!(error.contains("line 1 is not NAME:"), "{text}: {error}");
        }
        let (directory, identities) = of("ada:x:1001:100::/h:/s\n");
        let identities = identities.unwrap();
        let path = directory.path().join("users");
        for (text, uid) in [
            (Some("ada:x:1002:100::/home:/s\n"), 1002),
            (Some("ada\n"), 1002),
            (None, 1002),
            (Some("ada:x:1003:100::/home/ada:/s\n"), 1003),
        ] {
            match text {
                Some(text) => std::fs::write(&path, text).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            assert_eq!(identities.find("ada").unwrap().user.0, uid, "{text:?}");
        }
    }
}
