//! One blob on its way into the store: hashed as it streams, resumable, there only when whole.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write};
use std::path::PathBuf;

use super::lock::{self, Lock};
use super::store::{Store, StoreError, file_error};
use crate::digest::{Digest, Hashing};

/// A lock on one blob between all processes of the store; released when dropped.
#[derive(Debug)]
pub struct BlobLock {
    _lock: Lock,
}

impl BlobLock {
    pub(super) fn acquire(path: PathBuf) -> Result<Self, StoreError> {
        let lock = Lock::acquire(path.clone()).map_err(file_error("lock", path))?;
        Ok(Self { _lock: lock })
    }
}

/// Writes a blob; [`BlobWriter::commit`] verifies it and gives it its name.
///
/// Dropped without a commit, it leaves what it has for the next writer of the
/// same blob, which goes on at [`BlobWriter::offset`].
#[derive(Debug)]
pub struct BlobWriter {
    expected: Digest,
    size: Option<u64>,
    file: Hashing<File>,
    partial: PathBuf,
    target: PathBuf,
    fate: Fate,
}

/// What becomes of the partial file when the writer is dropped.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Keep,
    Remove,
    Gone,
}

impl BlobWriter {
    /// Opens the partial file of `expected`, alone, and hashes what it has.
    pub(super) fn open(
        store: &Store,
        expected: &Digest,
        size: Option<u64>,
    ) -> Result<Self, StoreError> {
        let partial = store.temporary_path(&format!("blob.{}", expected.hex()));
        let file = loop {
            let file = lock::open(&partial).map_err(file_error("open", &partial))?;
            file.lock().map_err(file_error("lock", &partial))?;
            // The writer before us may have renamed it into place meanwhile.
            if lock::is_still_at(&file, &partial).map_err(file_error("open", &partial))? {
                break file;
            }
        };
        let mut writer = Self {
            expected: *expected,
            size,
            file: Hashing::new(file),
            partial,
            target: store.blob_path(expected),
            fate: Fate::Keep,
        };
        writer.rehash().map_err(file_error("read", &writer.partial))?;
        if size.is_some_and(|size| writer.offset() > size) {
            writer.restart()?;
        }
        Ok(writer)
    }

    fn rehash(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; 256 << 10];
        while self.file.read(&mut buffer)? > 0 {}
        Ok(())
    }

    /// How many bytes are there already: where to go on.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.file.passed_bytes()
    }

    /// A second handle, to read by position what is there already.
    ///
    /// # Errors
    ///
    /// There are too many open files.
    pub(crate) fn reader(&self) -> Result<File, StoreError> {
        self.file.get_ref().try_clone().map_err(file_error("open", &self.partial))
    }

    /// Forgets what is there, for a server that cannot go on in the middle.
    ///
    /// # Errors
    ///
    /// The partial file could not be emptied.
    pub fn restart(&mut self) -> Result<(), StoreError> {
        let mut file = self.file.get_ref();
        let emptied = file.set_len(0).and_then(|()| file.rewind());
        emptied.map_err(file_error("empty", &self.partial))?;
        let file = file.try_clone().map_err(file_error("open", &self.partial))?;
        self.file = Hashing::new(file);
        self.fate = Fate::Keep;
        Ok(())
    }

    /// Verifies length and digest, syncs, and gives the blob its name.
    ///
    /// # Errors
    ///
    /// [`StoreError::Size`] for a blob that is too short, after which the next
    /// writer goes on; [`StoreError::Corrupt`] for one that holds other bytes,
    /// of which nothing stays.
    pub fn commit(mut self) -> Result<(), StoreError> {
        let actual_bytes = self.offset();
        if let Some(expected_bytes) = self.size.filter(|size| *size != actual_bytes) {
            return Err(StoreError::Size { digest: self.expected, expected_bytes, actual_bytes });
        }
        let file = self.file.get_ref().try_clone().map_err(file_error("open", &self.partial))?;
        let (actual, _) = std::mem::replace(&mut self.file, Hashing::new(file)).finish();
        if actual != self.expected {
            self.fate = Fate::Remove;
            return Err(StoreError::Corrupt { expected: self.expected, actual });
        }
        self.file.get_ref().sync_data().map_err(file_error("sync", &self.partial))?;
        fs::rename(&self.partial, &self.target).map_err(file_error("rename", &self.partial))?;
        self.fate = Fate::Gone;
        Ok(())
    }
}

impl Write for BlobWriter {
    /// Refuses bytes past the size that was promised.
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if let Some(size) = self.size {
            let after = self.offset().saturating_add(buffer.len() as u64);
            if after > size {
                self.fate = Fate::Remove;
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("blob {} is longer than the {size} bytes promised", self.expected),
                ));
            }
        }
        self.file.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        let empty = self.fate == Fate::Keep && self.offset() == 0;
        if empty || self.fate == Fate::Remove {
            let _ = fs::remove_file(&self.partial);
        }
    }
}
