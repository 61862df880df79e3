//! Deletes directory trees that strangers have filled.
//!
//! A container may nest directories deeper than a path is long, than a thread has stack and than a
//! process has descriptors. So nothing here recurses or keeps a directory open, and what lies too
//! deep to be named is renamed to the top first.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Directory trees that are deleted a little at a time, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Trash {
    trees: VecDeque<Tree>,
}

impl Trash {
    /// Entries deleted in one step.
    const BATCH: usize = 64;

    pub(crate) fn push(&mut self, path: PathBuf) {
        self.trees.push_back(Tree { top: path.clone(), directories: vec![path] });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.trees.is_empty()
    }

    /// How many trees there are still.
    pub(crate) fn len(&self) -> usize {
        self.trees.len()
    }

    /// Deletes some entries. What is gone already is fine.
    ///
    /// # Errors
    ///
    /// Something cannot be deleted; it is given up, and with it every directory that it is in.
    pub(crate) fn step(&mut self) -> io::Result<()> {
        let Some(tree) = self.trees.front_mut() else { return Ok(()) };
        let done = tree.delete(Self::BATCH);
        if tree.directories.is_empty() {
            self.trees.pop_front();
        }
        done
    }
}

#[derive(Debug)]
struct Tree {
    top: PathBuf,
    /// What is left of it, each directory after the one that it is in.
    directories: Vec<PathBuf>,
}

impl Tree {
    /// A directory with a longer path is renamed to the top of the tree: names of up to 255 bytes
    /// still fit into `PATH_MAX` behind it.
    const LONGEST_PATH_BYTES: usize = 2048;

    /// Deletes about so many entries.
    fn delete(&mut self, entries: usize) -> io::Result<()> {
        let mut left = entries;
        while left > 0
            && let Some(directory) = self.directories.pop()
        {
            if let Err(error) = self.delete_in(&directory, &mut left) {
                // Or the directories above would find it again, for ever.
                self.directories.retain(|above| !directory.starts_with(above));
                return Err(error);
            }
        }
        Ok(())
    }

    fn delete_in(&mut self, directory: &Path, left: &mut usize) -> io::Result<()> {
        let entries = match fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        let mut below = Vec::new();
        let mut complete = true;
        for entry in entries {
            if *left == 0 {
                complete = false;
                break;
            }
            *left -= 1;
            let entry = entry?;
            let path = entry.path();
            if !entry.file_type()?.is_dir() {
                missing_is_fine(fs::remove_file(&path))?;
            } else if path.as_os_str().len() > Self::LONGEST_PATH_BYTES {
                let raised = self.top.join(format!("raised.{:016x}", rand::random::<u64>()));
                missing_is_fine(fs::rename(&path, &raised))?;
                below.push(raised);
            } else {
                below.push(path);
            }
        }
        if complete && below.is_empty() {
            *left = left.saturating_sub(1);
            return missing_is_fine(fs::remove_dir(directory));
        }
        self.directories.push(directory.to_owned());
        self.directories.append(&mut below);
        Ok(())
    }
}

/// Deletes a directory tree, however deep. One that is gone already is fine.
///
/// # Errors
///
/// Something in it cannot be deleted.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let mut trash = Trash::default();
    trash.push(path.to_owned());
    while !trash.is_empty() {
        trash.step()?;
    }
    Ok(())
}

/// Others delete the same things.
fn missing_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_of_any_shape_are_deleted() {
        let root = tempfile::tempdir().unwrap();
        let top = root.path().join("top");
        let deep = top.join("a/b/c/d/e");
        fs::create_dir_all(&deep).unwrap();
        fs::create_dir_all(top.join("empty")).unwrap();
        for i in 0..200 {
            fs::write(deep.join(i.to_string()), "x").unwrap();
        }
        std::os::unix::fs::symlink("/etc", top.join("a/link")).unwrap();
        remove_tree(&top).unwrap();
        assert!(!top.exists());
        assert!(Path::new("/etc/passwd").exists());
        remove_tree(&top).unwrap();
    }

    #[test]
    fn trees_deeper_than_any_path_are_deleted() {
        use rustix::fs::{Mode, OFlags};
        let root = tempfile::tempdir().unwrap();
        let top = root.path().join("top");
        fs::create_dir(&top).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut directory = rustix::fs::open(&top, flags, Mode::empty()).unwrap();
        let name = "d".repeat(200);
        for _ in 0..3000 {
            rustix::fs::mkdirat(&directory, &name, Mode::RWXU).unwrap();
            rustix::fs::mkdirat(&directory, "empty", Mode::RWXU).unwrap();
            directory = rustix::fs::openat(&directory, &name, flags, Mode::empty()).unwrap();
        }
        drop(directory);
        remove_tree(&top).unwrap();
        assert!(!top.exists());
    }

    #[test]
    fn a_small_tree_is_one_step_whatever_else_waits() {
        let root = tempfile::tempdir().unwrap();
        let mut trash = Trash::default();
        for tree in 0..300 {
            let top = root.path().join(tree.to_string());
            fs::create_dir_all(top.join("upper/tmp")).unwrap();
            fs::create_dir_all(top.join("work/work")).unwrap();
            fs::write(top.join("upper/tmp/file"), "x").unwrap();
            trash.push(top);
        }
        for left in (0..300).rev() {
            trash.step().unwrap();
            assert_eq!(trash.len(), left);
        }
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_cannot_be_deleted_is_given_up() {
        // Not even root can delete from procfs.
        let mut trash = Trash::default();
        trash.push("/proc/self".into());
        trash.push("/proc/self/fdinfo".into());
        trash.step().unwrap_err();
        trash.step().unwrap_err();
        assert!(trash.is_empty());
    }
}
