//! A file that appears under its name only when it is complete.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A side file in the directory of the file that it becomes. [`commit`](Self::commit) renames it in one
/// step, so that a reader sees the old file or the new one; dropping it removes it.
#[derive(Debug)]
pub struct AtomicFile {
    file: File,
    side: PathBuf,
    path: PathBuf,
    committed: bool,
}

impl AtomicFile {
    /// Creates the side file of `path`, `.<name>.<process>.<number>.tmp`, which nothing else has.
    ///
    /// # Errors
    /// When `path` has no file name or the side file cannot be created.
    pub fn create(path: &Path) -> io::Result<Self> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "the path names no file");
        let name = path.file_name().ok_or_else(invalid)?;
        loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let mut side = OsString::from(".");
            side.push(name);
            side.push(format!(".{}.{number}.tmp", std::process::id()));
            let side = path.with_file_name(side);
            match File::create_new(&side) {
                Ok(file) => {
                    return Ok(Self { file, side, path: path.to_owned(), committed: false });
                }
                // Left behind by a process of the same number that was killed.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Where the content is until then.
    pub fn side(&self) -> &Path {
        &self.side
    }

    /// Brings the content to the disk and then gives the file its name, replacing what had it.
    ///
    /// # Errors
    /// When it cannot be written or renamed; the side file is then removed, and what had the name stays.
    pub fn commit(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.side, &self.path)?;
        self.committed = true;
        let parent = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        // The rename itself reaches the disk with the directory; that some file systems cannot sync
        // one is no reason to fail.
        File::open(parent).and_then(|dir| dir.sync_all()).or(Ok(()))
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if !self.committed {
            // Nothing better can be done with a file that cannot be removed.
            drop(fs::remove_file(&self.side));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_changes_hands_only_on_commit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "old").unwrap();
        let files = || fs::read_dir(dir.path()).unwrap().count();
        let mut dropped = AtomicFile::create(&path).unwrap();
        let mut kept = AtomicFile::create(&path).unwrap();
        dropped.write_all(b"lost").unwrap();
        kept.write_all(b"new").unwrap();
        assert_eq!((files(), fs::read_to_string(&path).unwrap()), (3, "old".to_owned()));
        drop(dropped);
        kept.commit().unwrap();
        assert_eq!((files(), fs::read_to_string(&path).unwrap()), (1, "new".to_owned()));

        // A directory with something in it cannot be replaced.
        let occupied = dir.path().join("occupied");
        fs::create_dir_all(occupied.join("inner")).unwrap();
        assert!(AtomicFile::create(&occupied).unwrap().commit().is_err());
        assert_eq!(files(), 2);
        assert!(AtomicFile::create(Path::new("/")).is_err());
    }
}
