//! Which addresses of a subnet are free: one lease per address on disk.
//!
//! A lease is a symbolic link named after the address that points to the container's id: made in
//! one step, never half written, and read with `ls -l`. All changes happen under one lock, so
//! releasing can never take a lease that somebody else has got meanwhile.

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;

use super::NetworkError;

/// The addresses of one bridge.
#[derive(Debug)]
pub(super) struct Leases {
    directory: PathBuf,
    subnet: Ipv4Net,
}

impl Leases {
    pub(super) fn open(directory: PathBuf, subnet: Ipv4Net) -> Result<Self, NetworkError> {
        fs::create_dir_all(&directory)
            .map_err(|source| NetworkError::State { path: directory.clone(), source })?;
        Ok(Self { directory, subnet })
    }

    /// Takes the next free address for a container.
    ///
    /// Addresses go round: one that was given back is the last to be used again, so that nothing
    /// which still talks to a container that ended reaches another one.
    pub(super) fn take(&self, container: &str) -> Result<Ipv4Addr, NetworkError> {
        let lock = self.lock()?;
        let next = read_next(&lock);
        // Without the network, the gateway and the broadcast address.
        let first = u32::from(gateway(self.subnet)) + 1;
        let count = u32::from(self.subnet.broadcast()).saturating_sub(first);
        for offset in 0..count {
            let place = (next % count + offset) % count;
            let address = Ipv4Addr::from(first + place);
            let path = self.directory.join(address.to_string());
            match symlink(container, &path) {
                Ok(()) => {
                    let following = format!("{:010}", (place + 1) % count);
                    // Only where to look first: losing it costs a few more tries.
                    let _ = lock.write_all_at(following.as_bytes(), 0);
                    return Ok(address);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(NetworkError::State { path, source }),
            }
        }
        Err(NetworkError::Exhausted { subnet: self.subnet, directory: self.directory.clone() })
    }

    /// Gives back every address of a container; none is fine.
    pub(super) fn release(&self, container: &str) -> Result<(), NetworkError> {
        self.remove(|holder| holder == container)
    }

    /// Gives back one address if that container still holds it.
    pub(super) fn release_address(
        &self,
        container: &str,
        address: Ipv4Addr,
    ) -> Result<(), NetworkError> {
        let _lock = self.lock()?;
        let path = self.directory.join(address.to_string());
        match fs::read_link(&path) {
            Ok(holder) if holder == Path::new(container) => remove(&path),
            _ => Ok(()),
        }
    }

    /// Gives back the addresses of containers that are no more.
    pub(super) fn sweep(&self, is_alive: impl Fn(&str) -> bool) -> Result<(), NetworkError> {
        self.remove(|holder| !is_alive(holder))
    }

    fn remove(&self, condition: impl Fn(&str) -> bool) -> Result<(), NetworkError> {
        let _lock = self.lock()?;
        let failed = |source| NetworkError::State { path: self.directory.clone(), source };
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            // The lock file is no link.
            let Ok(holder) = fs::read_link(&path) else { continue };
            if condition(&holder.to_string_lossy()) {
                remove(&path)?;
            }
        }
        Ok(())
    }

    fn lock(&self) -> Result<File, NetworkError> {
        let path = self.directory.join(".lock");
        File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .and_then(|file| file.lock().map(|()| file))
            .map_err(|source| NetworkError::State { path, source })
    }
}

/// The first address of a subnet is the bridge's own.
pub(super) fn gateway(subnet: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(subnet.network()) + 1)
}

/// Where the last search ended; from the start where that is not known.
fn read_next(lock: &File) -> u32 {
    let mut digits = [0; 10];
    let read = lock.read_at(&mut digits, 0).unwrap_or(0);
    std::str::from_utf8(&digits[..read]).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn remove(path: &Path) -> Result<(), NetworkError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(NetworkError::State { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn leases(subnet: &str) -> (tempfile::TempDir, Leases) {
        let directory = tempfile::tempdir().unwrap();
        let leases =
            Leases::open(directory.path().join("leases"), subnet.parse().unwrap()).unwrap();
        (directory, leases)
    }

    #[test]
    fn addresses_go_round_before_one_is_used_again() {
        let (_directory, leases) = leases("10.9.0.0/29");
        let take = |id| leases.take(id).unwrap().octets()[3];
        assert_eq!([take("a"), take("b")], [2, 3], "1 is the gateway");
        leases.release("a").unwrap();
        assert_eq!([take("c"), take("d"), take("e")], [4, 5, 6], "7 is the broadcast address");
        assert_eq!(take("f"), 2, "only now comes the address of a again");
    }

    #[test]
    fn a_full_subnet_is_an_error_that_names_it() {
        let (_directory, leases) = leases("10.9.0.0/30");
        leases.take("only").unwrap();
        let error = leases.take("second").unwrap_err();
        assert!(matches!(error, NetworkError::Exhausted { .. }), "{error}");
        assert!(error.to_string().contains("10.9.0.0/30"), "{error}");
        leases.release("only").unwrap();
        leases.take("second").unwrap();
    }

    #[test]
    fn an_address_is_released_only_by_its_holder() {
        let (_directory, leases) = leases("10.9.0.0/29");
        let address = leases.take("a").unwrap();
        leases.release_address("b", address).unwrap();
        leases.release("b").unwrap();
        assert_eq!(leases.take("c").unwrap().octets()[3], 3, "2 is still held");
        leases.release_address("a", address).unwrap();
        leases.sweep(|id| id == "c").unwrap();
    }

    #[test]
    fn leases_of_the_dead_are_swept() {
        let (_directory, leases) = leases("10.9.0.0/29");
        for id in ["a", "b", "c", "d", "e"] {
            leases.take(id).unwrap();
        }
        leases.sweep(|id| id == "b" || id == "d").unwrap();
        for id in ["f", "g", "h"] {
            leases.take(id).unwrap();
        }
        assert!(leases.take("i").is_err(), "b and d kept theirs");
    }

    #[test]
    fn no_address_is_given_twice_however_many_take_at_once() {
        let (directory, _) = leases("10.9.0.0/16");
        let taken = Mutex::new(std::collections::BTreeSet::new());
        std::thread::scope(|scope| {
            for taker in 0..8 {
                let (taken, directory) = (&taken, directory.path());
                scope.spawn(move || {
                    // As another process would: it shares nothing but the directory.
                    let leases =
                        Leases::open(directory.join("leases"), "10.9.0.0/16".parse().unwrap())
                            .unwrap();
                    for number in 0..50 {
                        let address = leases.take(&format!("{taker}-{number}")).unwrap();
                        assert!(taken.lock().unwrap().insert(address), "{address} twice");
                        if number % 3 == 0 {
                            // Given back, it still is not the next one to be used.
                            leases.release(&format!("{taker}-{number}")).unwrap();
                        }
                    }
                });
            }
        });
        assert_eq!(taken.lock().unwrap().len(), 400);
    }
}
