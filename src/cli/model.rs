//! Which model a command works on: a file, or the embedded one.

use super::failure::Failure;
use std::path::{Path, PathBuf};
use trilut_presets::Phase;
use trilut_runtime::gguf::Gguf;
use trilut_runtime::{Config, Load, embedded};
use trilut_tuning::ShapeUse;

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
            Self::File(path) => Gguf::open(path)?,
        })
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

/// The distinct layer shapes of a model in some phases, with how often one token runs through each: the
/// linear layers in decode, stacks of those that share an input in prefill.
pub(crate) fn shapes(config: &Config, phases: &[Phase]) -> Vec<ShapeUse> {
    let mut uses: Vec<ShapeUse> = Vec::new();
    for &phase in phases {
        let (linears, stacks) = (config.linears(), config.stacks());
        let layers = if phase == Phase::Prefill { &stacks[..] } else { &linears[..] };
        for &(_, shape) in layers {
            match uses.iter_mut().find(|used| (used.phase, used.shape) == (phase, shape)) {
                Some(used) => used.count_per_token += config.layers,
                None => uses.push(ShapeUse { phase, shape, count_per_token: config.layers }),
            }
        }
    }
    uses
}

/// Bytes of ternary weights at two bits each, which decide whether a model streams from memory.
pub(crate) fn bytes(config: &Config) -> u64 {
    let block: usize = config.linears().iter().map(|(_, shape)| shape.weights()).sum();
    block as u64 / 4 * config.layers as u64
}
