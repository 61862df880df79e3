//! Files and sockets of the caller's, made in the container's directory.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::net::SocketAddrUnix;

use super::{Content, CreateError, Provision};

/// Where the provision of this place in the list lies, in the container's directory.
pub(super) fn path(directory: &Path, index: usize) -> PathBuf {
    directory.join("provisions").join(index.to_string())
}

/// Makes them all. Whoever removes the directory removes them too.
pub(super) fn make(directory: &Path, provisions: &[Provision]) -> Result<(), CreateError> {
    if provisions.is_empty() {
        return Ok(());
    }
    let parent = directory.join("provisions");
    // Only what is mounted of it is seen by anybody.
    fs::create_dir(&parent)
        .and_then(|()| fs::set_permissions(&parent, Permissions::from_mode(0o700)))
        .map_err(|source| CreateError::Directory { path: parent, source })?;
    for (index, provision) in provisions.iter().enumerate() {
        let path = path(directory, index);
        let made = match &provision.content {
            Content::File(bytes) => write(&path, bytes),
            Content::Datagrams(socket) => bind(socket, &path),
        };
        made.map_err(|source| CreateError::Directory { path, source })?;
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    // Not by our umask: it is for all users of the container.
    file.set_permissions(Permissions::from_mode(0o444))
}

/// Binds by a descriptor of the directory: the whole path may be longer than the 107 bytes that
/// unix(7) has room for.
fn bind(socket: &std::os::unix::net::UnixDatagram, path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let parent = File::open(parent)?;
    let short = Path::new("/proc/self/fd").join(parent.as_raw_fd().to_string()).join(name);
    rustix::net::bind(socket, &SocketAddrUnix::new(&short)?)?;
    // Sending needs the right to write: unix(7), pathname socket ownership and permissions.
    fs::set_permissions(path, Permissions::from_mode(0o777))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn files_and_sockets_are_open_to_all_however_long_their_path() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("a-long-name-".repeat(15));
        fs::create_dir(&directory).unwrap();
        let receiver = Arc::new(UnixDatagram::unbound().unwrap());
        let provisions = [
            Provision { target: "/a".into(), content: Content::File(Arc::from(&b"bytes"[..])) },
            Provision { target: "/b".into(), content: Content::Datagrams(Arc::clone(&receiver)) },
        ];
        make(&directory, &provisions).unwrap();
        let mode = |index| fs::metadata(path(&directory, index)).unwrap().permissions().mode();
        assert_eq!(fs::read(path(&directory, 0)).unwrap(), b"bytes");
        assert_eq!((mode(0) & 0o7777, mode(1) & 0o7777), (0o444, 0o777));

        let short = root.path().join("s");
        std::os::unix::fs::symlink(path(&directory, 1), &short).unwrap();
        UnixDatagram::unbound().unwrap().send_to(b"sent", &short).unwrap();
        let mut buffer = [0; 10];
        assert_eq!(receiver.recv(&mut buffer).unwrap(), 4);
    }
}
