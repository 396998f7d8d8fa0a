//! Which model a command works on: a file, or the embedded one.

use super::failure::Failure;
use std::path::{Path, PathBuf};
use trilut_runtime::gguf::Gguf;
use trilut_runtime::{CacheType, Load, embedded};

pub(crate) use trilut::layers::{bytes, shapes};

/// Where weights are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LoadMode {
    /// Execute them in the pages of the mapped file, where their layout allows.
    Map,
    /// Copy them into memory of the process and let the file's pages go.
    Copy,
}

impl From<LoadMode> for Load {
    fn from(mode: LoadMode) -> Self {
        match mode {
            LoadMode::Map => Self::Map,
            LoadMode::Copy => Self::Copy,
        }
    }
}

/// What keys and values are cached as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum CacheMode {
    /// Two bytes a value; attention in integers, which is exact and fast behind long texts.
    Q16,
    /// Two bytes a value, as other engines keep them; attention in f32.
    F16,
    /// A byte a value: half of the memory; attention in integers, less exact.
    #[value(alias = "q8_0")]
    Q8,
}

impl From<CacheMode> for CacheType {
    fn from(mode: CacheMode) -> Self {
        match mode {
            CacheMode::F16 => Self::F16,
            CacheMode::Q16 => Self::Q16,
            CacheMode::Q8 => Self::Q8,
        }
    }
}

/// The name under which the embedded model can be asked for.
pub(crate) const EMBEDDED: &str = "demo";

/// A model that a command works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// The model inside the program.
    Embedded,
    /// A GGUF file.
    File(PathBuf),
}

impl Source {
    /// The embedded model for no path or the path `demo`, else the file.
    pub(crate) fn new(path: Option<PathBuf>) -> Self {
        match path {
            Some(path) if path != Path::new(EMBEDDED) => Self::File(path),
            _ => Self::Embedded,
        }
    }

    /// Opens the file.
    pub(crate) fn open(&self) -> Result<Gguf, Failure> {
        Ok(match self {
            Self::Embedded => Gguf::from_static(embedded::model())?,
            Self::File(path) if path.is_dir() => return Err(directory(path)),
            Self::File(path) => Gguf::open(path)?,
        })
    }
}

/// Why a directory is no model, and how one is had out of it.
fn directory(path: &Path) -> Failure {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.sort();
    let ends_in = |file: &PathBuf, end: &str| file.extension().is_some_and(|e| e == end);
    let is_checkpoint =
        files.iter().any(|file| ends_in(file, "safetensors")) || path.join("config.json").is_file();
    let failure = Failure::new(format!("{} is a directory, not a model file", path.display()));
    match files.iter().find(|file| ends_in(file, "gguf")) {
        Some(model) => failure.hint(format!("give a file in it, such as {}", model.display())),
        None if is_checkpoint => {
            let name = path.canonicalize().ok().and_then(|path| Some(path.file_name()?.to_owned()));
            let name = name.unwrap_or_else(|| "model".into());
            let (dir, name) = (path.display(), name.display());
            failure
                .because("it holds a checkpoint")
                .hint(format!("trilut convert {dir} {name}.gguf"))
        }
        None => failure.hint("give a GGUF file; trilut convert makes one of a checkpoint"),
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Embedded => f.write_str("the embedded model"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}
