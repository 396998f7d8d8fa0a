//! Reading and writing preset files without ever losing one.

use super::{Preset, PresetError};
use crate::atomic_file::AtomicFile;
use crate::machine::Likeness;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The largest file that is read. A real preset has a few kilobytes; a mistyped `--preset model.gguf`
/// must not be read into memory.
pub const MAX_BYTES: u64 = 4 << 20;

/// What [`Preset::save_merged`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// The number of earlier records that stayed.
    pub kept: usize,
    /// Where an earlier file was moved that could not be merged, and why.
    pub set_aside: Option<(PathBuf, String)>,
}

impl Preset {
    /// Reads a preset file.
    ///
    /// # Errors
    /// When it cannot be read, is larger than [`MAX_BYTES`] or is not a preset.
    pub fn load(path: &Path) -> Result<Self, PresetError> {
        let unreadable = |source| PresetError::Read { path: path.to_owned(), source };
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text))
            .map_err(unreadable)?;
        if text.len() as u64 > MAX_BYTES {
            let rule = format!("it is larger than {} MiB, so it is no preset", MAX_BYTES >> 20);
            return Err(unreadable(io::Error::new(io::ErrorKind::InvalidData, rule)));
        }
        Self::parse(&text, &path.display().to_string())
    }

    /// Writes the preset: the whole text to a side file in the same directory (made if missing), then
    /// one atomic rename. A reader sees the old file or the new one, and a failure leaves the old one.
    ///
    /// # Errors
    /// When the directory or the side file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), PresetError> {
        // A link stays a link: its target is replaced.
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        replace(&target, self.to_text().as_bytes())
            .map_err(|source| PresetError::Write { path: path.to_owned(), source })
    }

    /// Adds the preset to the file: its records replace those with the same (shape, phase, threads),
    /// others stay. A file that is no readable preset of the same CPU is set aside under a new name,
    /// never overwritten. Two programs that do this at once take turns, so that neither loses the
    /// other's records.
    ///
    /// # Errors
    /// When the file cannot be written or an unreadable one cannot be set aside.
    pub fn save_merged(self, path: &Path) -> Result<Saved, PresetError> {
        let _turn = lock(path);
        let mut saved = Saved { kept: 0, set_aside: None };
        if !path.try_exists().unwrap_or(true) {
            self.save(path)?;
            return Ok(saved);
        }
        let reason = match Self::load(path) {
            Ok(mut older)
                if older.likeness(&self.machine, self.provenance.isa) == Likeness::SameCpu =>
            {
                let fresh = self.records().len();
                older.merge(self);
                saved.kept = older.records().len() - fresh;
                older.save(path)?;
                return Ok(saved);
            }
            Ok(older) => {
                format!("it is for another CPU or ISA: {}, {}", older.machine, older.provenance.isa)
            }
            Err(error) => error.with_cause(),
        };
        let aside = set_aside(path)
            .map_err(|source| PresetError::Write { path: path.to_owned(), source })?;
        saved.set_aside = Some((aside, reason));
        self.save(path)?;
        Ok(saved)
    }
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
