//! Reading and writing preset files without ever losing one.

use super::{Key, Preset, PresetError, Record};
use crate::atomic_file::{AtomicFile, without_name};
use crate::machine::Likeness;
use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The largest file that is read. A real preset has a few kilobytes; a mistyped `--preset model.gguf`
/// must not be read into memory.
pub const MAX_BYTES: u64 = 4 << 20;

/// What [`Preset::save_merged`], [`Preset::save_left`] and [`Preset::save_added`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// The number of earlier records that stayed.
    pub kept: usize,
    /// The number of new records that were left out in favour of earlier ones.
    pub left_out: usize,
    /// Where an earlier file was moved that could not be merged, and why.
    pub set_aside: Option<(PathBuf, String)>,
}

impl Preset {
    /// Reads a preset file.
    ///
    /// # Errors
    /// When it cannot be read, is no regular file, is larger than [`MAX_BYTES`] or is not a preset.
    pub fn load(path: &Path) -> Result<Self, PresetError> {
        let text =
            read(path).map_err(|source| PresetError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Writes the preset: the whole text to a side file in the same directory (made if missing), then
    /// one atomic rename. A reader sees the old file or the new one, and a failure leaves the old one.
    ///
    /// # Errors
    /// When the directory or the side file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), PresetError> {
        replace(&behind_link(path), self.to_text().as_bytes()).map_err(unwritable(path))
    }

    /// Writes the preset as a file of this name. A file that has the name is set aside under a new one,
    /// which is returned.
    ///
    /// # Errors
    /// When the file cannot be written, or an earlier one cannot be set aside.
    pub fn save_beside(&self, path: &Path) -> Result<Option<PathBuf>, PresetError> {
        let _turn = lock(path);
        if !path.try_exists().unwrap_or(true) {
            return self.save(path).map(|()| None);
        }
        self.set_aside(path).map(Some).map_err(unwritable(path))
    }

    /// Adds the preset to the file: its records replace those with the same (shape, phase, threads),
    /// others stay. A file that is no readable preset of the same CPU is set aside under a new name,
    /// never overwritten. Two programs that do this at once take turns, so that neither loses the
    /// other's records.
    ///
    /// # Errors
    /// When the file cannot be written or an unreadable one cannot be set aside.
    pub fn save_merged(self, path: &Path) -> Result<Saved, PresetError> {
        self.save_but(|_| false, path)
    }

    /// Writes what the preset and that in the file come to [together](Self::combine).
    ///
    /// # Errors
    /// When the file is no readable preset of the same CPU, or cannot be written.
    pub fn save_combined(self, path: &Path) -> Result<(), PresetError> {
        let _turn = lock(path);
        match self.earlier(path)? {
            Some(there) => there.combine(self).preset.save(path),
            None => self.save(path),
        }
    }

    /// As [`Preset::save_merged`] for what is left of a preset that a check dropped records of: they go from the
    /// file as well, where an earlier run may have put them.
    ///
    /// # Errors
    /// As [`Preset::save_merged`].
    pub fn save_left(self, before: &Self, path: &Path) -> Result<Saved, PresetError> {
        let left: BTreeSet<Key> = self.records.iter().map(Record::key).collect();
        let dropped: BTreeSet<Key> = before.records.iter().map(Record::key).collect();
        let dropped: BTreeSet<Key> = dropped.difference(&left).copied().collect();
        self.save_but(|record| dropped.contains(&record.key()), path)
    }

    /// Adds the preset to the file, but for some of the file's records.
    fn save_but(
        self,
        is_dropped: impl Fn(&Record) -> bool,
        path: &Path,
    ) -> Result<Saved, PresetError> {
        let _turn = lock(path);
        match self.earlier(path) {
            Ok(older) => {
                let older = older.map(|mut older| {
                    older.records.retain(|record| !is_dropped(record));
                    older
                });
                self.add_to(older, path)
            }
            Err(why) => {
                let aside = self.set_aside(path).map_err(unwritable(path))?;
                Ok(Saved { kept: 0, left_out: 0, set_aside: Some((aside, why.with_cause())) })
            }
        }
    }

    /// The same for records that are not worth more than what is there: a file that is no readable preset
    /// of the same CPU is left as it is, and so is an earlier record of greater effort. Another build that
    /// has kernels which this one lacks may use it.
    ///
    /// # Errors
    /// When the file is such a one, or cannot be written.
    pub fn save_added(mut self, path: &Path) -> Result<Saved, PresetError> {
        let _turn = lock(path);
        let Some(older) = self.earlier(path)? else { return self.add_to(None, path) };
        let fresh = self.records.len();
        let knows_more = |new: &Record| {
            let old = older.record(new.shape, new.phase, new.threads);
            old.is_some_and(|old| old.effort > new.effort)
        };
        self.records.retain(|record| !knows_more(record));
        let left_out = fresh - self.records.len();
        if self.records.is_empty() {
            return Ok(Saved { kept: older.records.len(), left_out, set_aside: None });
        }
        self.add_to(Some(older), path).map(|saved| Saved { left_out, ..saved })
    }

    /// The preset in a file, if there is one, to which this one can be added.
    fn earlier(&self, path: &Path) -> Result<Option<Self>, PresetError> {
        if !path.try_exists().unwrap_or(true) {
            return Ok(None);
        }
        let older = Self::load(path)?;
        if older.likeness(&self.machine, self.provenance.isa) != Likeness::SameCpu {
            let made_on = format!("{}, {}", older.machine, older.provenance.isa);
            return Err(PresetError::Other { path: path.to_owned(), made_on });
        }
        Ok(Some(older))
    }

    fn add_to(self, older: Option<Self>, path: &Path) -> Result<Saved, PresetError> {
        let fresh = self.records().len();
        let all = match older {
            Some(mut older) => {
                older.merge(self);
                older
            }
            None => self,
        };
        all.save(path)?;
        Ok(Saved { kept: all.records().len() - fresh, left_out: 0, set_aside: None })
    }

    /// Writes the preset in the place of a file, which gets a new name.
    fn set_aside(&self, path: &Path) -> io::Result<PathBuf> {
        let path = behind_link(path);
        // It is whole before anything is moved: a disk that is full moves nothing.
        let mut file = AtomicFile::create(&path)?;
        file.write_all(self.to_text().as_bytes())?;
        in_place_of(&path, || file.commit())
    }
}

/// The file to write for a path. A link stays a link: its target is replaced.
fn behind_link(path: &Path) -> PathBuf {
    let target = if path.is_symlink() { fs::canonicalize(path).ok() } else { None };
    target.unwrap_or_else(|| path.to_owned())
}

/// The text of a regular file that is not too large. Opening a pipe would wait for somebody to write, and a
/// device has no end.
fn read(path: &Path) -> io::Result<String> {
    let refuse = |rule: String| Err(io::Error::new(io::ErrorKind::InvalidData, rule));
    let kind = fs::metadata(path)?;
    if !kind.is_file() {
        let what = if kind.is_dir() { "a directory" } else { "no regular file" };
        return refuse(format!("it is {what}"));
    }
    let mut text = String::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return refuse(format!("it is larger than {} MiB, so it is no preset", MAX_BYTES >> 20));
    }
    Ok(text)
}

fn unwritable(path: &Path) -> impl FnOnce(io::Error) -> PresetError {
    let path = path.to_owned();
    move |source| PresetError::Write { source: without_name(source, &path), path }
}

/// The longest that another program is waited for: it writes a few kilobytes.
const TURN: Duration = Duration::from_secs(5);

/// A lock on the directory of a file, held as long as the value lives. Where there is none (no such
/// directory yet, a file system without locks, another program that hangs) the work goes on without it:
/// the rename keeps the file whole, and records that are lost are made again.
fn lock(path: &Path) -> Option<File> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).ok()?;
    let directory = File::open(parent).ok()?;
    let begin = Instant::now();
    loop {
        match directory.try_lock() {
            Ok(()) => return Some(directory),
            Err(TryLockError::WouldBlock) if begin.elapsed() < TURN => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(_) => return None,
        }
    }
}

fn replace(target: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut file = AtomicFile::create(target)?;
    file.write_all(bytes)?;
    file.commit()
}

/// Sets a file aside for one that `publish` gives its name to. Where that fails the file has its name again.
fn in_place_of(path: &Path, publish: impl FnOnce() -> io::Result<()>) -> io::Result<PathBuf> {
    let aside = set_aside(path)?;
    let Err(error) = publish() else { return Ok(aside) };
    match fs::rename(&aside, path) {
        Ok(()) => Err(error),
        Err(_) => {
            let source = without_name(error, path);
            Err(io::Error::new(source.kind(), Moved { aside, source }))
        }
    }
}

/// Why a file could not be replaced that could not be moved back either.
#[derive(Debug, thiserror::Error)]
#[error("the earlier file is now {}", aside.display())]
struct Moved {
    aside: PathBuf,
    source: io::Error,
}

/// Renames a file to `<path>.old`, `<path>.old2`, ...: the first name that is free.
fn set_aside(path: &Path) -> io::Result<PathBuf> {
    for n in 1..1000 {
        let mut name = path.as_os_str().to_owned();
        name.push(if n == 1 { ".old".to_owned() } else { format!(".old{n}") });
        let aside = PathBuf::from(name);
        if !aside.try_exists()? {
            return fs::rename(path, &aside).map(|()| aside);
        }
    }
    let rule = "the earlier file cannot be set aside: too many were before it";
    Err(io::Error::new(io::ErrorKind::AlreadyExists, rule))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_could_not_be_replaced_has_its_name_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.toml");
        fs::write(&path, "kept").unwrap();
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let error = in_place_of(&path, || Err(full())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read_to_string(&path).unwrap(), "kept");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

        // Where something else has taken the name it is said where the file is.
        let error = in_place_of(&path, || {
            fs::create_dir(&path)?;
            Err(full())
        });
        let aside = dir.path().join("a.toml.old");
        assert!(error.unwrap_err().to_string().contains(aside.to_str().unwrap()));
        assert_eq!(fs::read_to_string(&aside).unwrap(), "kept");
    }
}
