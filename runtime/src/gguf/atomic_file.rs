//! A file that appears under its name only when it is complete.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A temporary sibling of a file. [`commit`](Self::commit) renames it; dropping it removes it.
#[derive(Debug)]
pub struct AtomicFile {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
    committed: bool,
}

impl AtomicFile {
    /// Creates the temporary sibling of `path`, `<name>.<process>.gguf.tmp`.
    ///
    /// # Errors
    /// When `path` has no file name or the sibling cannot be created.
    pub fn create(path: &Path) -> io::Result<Self> {
        let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "the path names no file");
        let mut name = path.file_name().ok_or_else(invalid)?.to_owned();
        name.push(format!(".{}.gguf.tmp", std::process::id()));
        let temporary = path.with_file_name(name);
        let file = File::create(&temporary)?;
        Ok(Self { file, temporary, path: path.to_owned(), committed: false })
    }

    /// Gives the file its name, replacing what had it.
    ///
    /// # Errors
    /// When it cannot be renamed; the temporary file is then removed.
    pub fn commit(mut self) -> io::Result<()> {
        std::fs::rename(&self.temporary, &self.path)?;
        self.committed = true;
        Ok(())
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
            drop(std::fs::remove_file(&self.temporary));
        }
    }
}
