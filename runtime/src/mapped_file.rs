//! A file mapped for reading, whose pages can be let go.

use memmap2::Mmap;
use std::io;
use std::ops::Range;
use std::path::Path;

/// Bytes on either side of a missing page that Linux maps with it.
#[cfg(unix)]
const PAGES_AROUND: usize = 64 << 10;

/// The bytes of a file, in place.
pub(crate) struct MappedFile {
    /// `None` for an empty file, which cannot be mapped everywhere.
    map: Option<Mmap>,
}

impl MappedFile {
    /// Maps a regular file.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        // Before opening: that would wait for ever on a pipe.
        let facts = std::fs::metadata(path)?;
        if facts.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if !facts.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        let file = std::fs::File::open(path)?;
        if facts.len() == 0 {
            return Ok(Self { map: None });
        }
        // SAFETY: the mapping is read-only and never outlives its `Mmap`. Another process could still
        // change the file under us: no value read from it is trusted for memory safety (every access
        // is a checked slice), and models are replaced by renaming, not by writing in place.
        let map = unsafe { Mmap::map(&file) }?;
        Ok(Self { map: Some(map) })
    }

    /// Tells the system that a range of the file will not be read again soon, so that its pages can be
    /// dropped. Only advice: reading the range later works.
    pub(crate) fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Some(map) = self.map.as_ref().filter(|map| range.end <= map.len()) {
            // The system maps some pages around each that is missing: neighbours of what was released
            // before came back with this range.
            let start = range.start.saturating_sub(PAGES_AROUND);
            let end = range.end.saturating_add(PAGES_AROUND).min(map.len());
            // SAFETY: the mapping is of a file and never written, so dropped pages are read back from
            // the file with the same contents.
            let advised = unsafe {
                map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start)
            };
            // A system that does not take the advice merely keeps the pages.
            drop(advised);
        }
        #[cfg(not(unix))]
        drop(range);
    }
}

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }
}
