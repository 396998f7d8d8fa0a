//! A file that appears under its name only when it is complete.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A file without its name. [`commit`](Self::commit) gives it the name in one step, so that a reader sees the
/// old file or the new one; dropping it removes it.
///
/// On Linux it has no name at all until then, so that nothing is left of it however the process ends. Where the
/// file system knows no such files, or /proc is not there, it is a side file in the same directory, which stays
/// behind when the process is killed.
///
/// Its errors say which file cannot be written; what the system says is their source.
#[derive(Debug)]
pub struct AtomicFile {
    file: File,
    /// By which name the content can be opened.
    side: PathBuf,
    /// Whether that is a name in a directory, which is to be removed.
    named: bool,
    path: PathBuf,
}

impl AtomicFile {
    /// Creates the file that is to become `path`, in its directory.
    ///
    /// # Errors
    /// When `path` has no file name or the directory takes no file.
    pub fn create(path: &Path) -> io::Result<Self> {
        if path.file_name().is_none() {
            let invalid = io::Error::new(io::ErrorKind::InvalidInput, "the path names no file");
            return Err(cannot_write(path)(invalid));
        }
        match unnamed::create(directory(path)) {
            Some((file, side)) => Ok(Self { file, side, named: false, path: path.to_owned() }),
            None => Self::create_named(path),
        }
    }

    /// Creates a side file.
    fn create_named(path: &Path) -> io::Result<Self> {
        let mut created = None;
        let side = at_free_name(path, |side| {
            created = Some(File::create_new(side)?);
            Ok(())
        });
        let side = side.map_err(cannot_write(path))?;
        let file = created.expect("the name was free, so that the file was created");
        Ok(Self { file, side, named: true, path: path.to_owned() })
    }

    /// Where the content can be opened until then.
    pub fn side(&self) -> &Path {
        &self.side
    }

    /// Brings the content to the disk and then gives the file its name, replacing what had it.
    ///
    /// # Errors
    /// When it cannot be written or named; it is then removed, and what had the name stays.
    pub fn commit(mut self) -> io::Result<()> {
        self.publish().map_err(cannot_write(&self.path))?;
        // The name itself reaches the disk with the directory; that some file systems cannot sync one is no
        // reason to fail.
        File::open(directory(&self.path)).and_then(|dir| dir.sync_all()).or(Ok(()))
    }

    fn publish(&mut self) -> io::Result<()> {
        self.file.sync_all()?;
        if !self.named {
            match unnamed::link(&self.side, &self.path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                done => return done,
            }
            // A name cannot be given to it while another file has it: from a name beside it, it can be moved.
            self.side = at_free_name(&self.path, |side| unnamed::link(&self.side, side))?;
            self.named = true;
        }
        fs::rename(&self.side, &self.path)?;
        self.named = false;
        Ok(())
    }
}

/// The directory of a file.
fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// The first name beside a path, `.<name>.<process>.<number>.tmp`, that nothing else has.
fn at_free_name(path: &Path, mut make: impl FnMut(&Path) -> io::Result<()>) -> io::Result<PathBuf> {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    loop {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut side = OsString::from(".");
        side.push(path.file_name().unwrap_or_default());
        side.push(format!(".{}.{number}.tmp", std::process::id()));
        let side = path.with_file_name(side);
        match make(&side) {
            Ok(()) => return Ok(side),
            // Left behind by a process of the same number that was killed.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

/// Files that have no name yet.
#[cfg(target_os = "linux")]
mod unnamed {
    use std::ffi::CString;
    use std::fs::{self, File};
    use std::io;
    use std::os::fd::AsRawFd;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::{Path, PathBuf};

    /// A file in a directory, and the path by which it can be opened; `None` where there are none such.
    pub(super) fn create(directory: &Path) -> Option<(File, PathBuf)> {
        let mut options = File::options();
        options.read(true).write(true).custom_flags(libc::O_TMPFILE);
        let file = options.open(directory).ok()?;
        let side = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        // The only way to name it later.
        fs::metadata(&side).is_ok().then_some((file, side))
    }

    /// Gives the file that `side` leads to a name that is free.
    pub(super) fn link(side: &Path, path: &Path) -> io::Result<()> {
        let [side, path] = [side, path].map(|path| CString::new(path.as_os_str().as_bytes()));
        let (side, path) = (side?, path?);
        // SAFETY: both are texts that end in a zero byte and live until the call is over.
        let linked = unsafe {
            libc::linkat(
                libc::AT_FDCWD,
                side.as_ptr(),
                libc::AT_FDCWD,
                path.as_ptr(),
                libc::AT_SYMLINK_FOLLOW,
            )
        };
        if linked == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// Systems where every file has a name.
#[cfg(not(target_os = "linux"))]
mod unnamed {
    use std::fs::File;
    use std::io;
    use std::path::{Path, PathBuf};

    pub(super) fn create(_directory: &Path) -> Option<(File, PathBuf)> {
        None
    }

    pub(super) fn link(_side: &Path, _path: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).map_err(cannot_write(&self.path))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush().map_err(cannot_write(&self.path))
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if self.named {
            // Nothing better can be done with a file that cannot be removed.
            drop(fs::remove_file(&self.side));
        }
    }
}

/// An error of the system together with the file that it is about.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", path.display())]
struct CannotWrite {
    path: PathBuf,
    source: io::Error,
}

fn cannot_write(path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    let path = path.to_owned();
    move |source| io::Error::new(source.kind(), CannotWrite { path, source })
}

/// The error without the name of this file, for a caller that says the name itself.
pub(crate) fn without_name(error: io::Error, path: &Path) -> io::Error {
    match error.downcast::<CannotWrite>() {
        Ok(CannotWrite { path: named, source }) if named == path => source,
        Ok(CannotWrite { path, source }) => cannot_write(&path)(source),
        Err(error) => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As it is here, and as it is where every file has a name.
    const WAYS: [fn(&Path) -> io::Result<AtomicFile>; 2] =
        [AtomicFile::create, AtomicFile::create_named];

    #[test]
    fn the_name_changes_hands_only_on_commit() {
        for (way, create) in WAYS.iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a");
            fs::write(&path, "old").unwrap();
            let files = || fs::read_dir(dir.path()).unwrap().count();
            let mut dropped = create(&path).unwrap();
            let mut kept = create(&path).unwrap();
            dropped.write_all(b"lost").unwrap();
            kept.write_all(b"new").unwrap();
            assert_eq!(fs::read_to_string(kept.side()).unwrap(), "new");
            assert_eq!(fs::read_to_string(&path).unwrap(), "old");
            if way == 1 {
                assert_eq!(files(), 3);
            }
            drop(dropped);
            kept.commit().unwrap();
            assert_eq!((files(), fs::read_to_string(&path).unwrap()), (1, "new".to_owned()));

            let fresh = dir.path().join("b");
            create(&fresh).unwrap().commit().unwrap();
            assert_eq!((files(), fs::read(&fresh).unwrap()), (2, vec![]));

            // A directory with something in it cannot be replaced.
            let occupied = dir.path().join("occupied");
            fs::create_dir_all(occupied.join("inner")).unwrap();
            let error = create(&occupied).unwrap().commit().unwrap_err();
            assert!(error.to_string().contains("occupied"), "{error}");
            assert_eq!(files(), 3);
            assert!(create(&dir.path().join("nowhere/c")).is_err());
        }
        assert!(AtomicFile::create(Path::new("/")).is_err());
    }

    /// Temporary directories may lie in file systems without such files; then there is nothing to see.
    #[cfg(target_os = "linux")]
    #[test]
    fn nothing_is_left_of_a_process_that_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = AtomicFile::create(&dir.path().join("a")).unwrap();
        file.write_all(b"half").unwrap();
        if !file.named {
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        }
        // As the end of the process does.
        std::mem::forget(file);
    }
}
