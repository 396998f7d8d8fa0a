//! Which preset is used: the first hit on a ladder of places, with every rung explained.
//!
//! | rung | where |
//! |---|---|
//! | explicit | `--preset FILE`; the only rung whose failure is an error |
//! | environment | `$TRILUT_PRESETS`, a path list of files and directories |
//! | cache | the user's cache directory: tuned here |
//! | system | `/etc/trilut/presets` |
//! | cpu | shipped presets of exactly this CPU |
//! | microarchitecture | presets of the same microarchitecture, from any place above |
//! | isa | presets of another CPU with the same best ISA, from any place above; those of the same vendor first |
//! | estimate | no preset: the tuner's analytic rank |
//!
//! A file for another CPU counts only on the weaker rung that it fits. Weaker hits are kept behind the
//! winner: [`Found::picks`] asks them for the layers that the winner does not know.
//!
//! What was only estimated is believed less than what was measured: the cache keeps estimates of layers
//! that no preset knew at the time, and they must not outlive that. So of the rungs from the cache to the
//! microarchitecture those are asked first that have measured a layer, and only then those that have
//! estimated it. What a user asks for, on the two rungs above, counts whatever its effort.
//!
//! The picks of one layer for all numbers of threads come from one preset, and the nearest number is used.
//! An estimate that it has beside what it measured for other numbers was tried with exactly its own number,
//! so it stays, unless another of those rungs has a measurement for that number: then this takes its place.

mod found;
mod search;
#[cfg(test)]
mod tests;

pub use found::{Found, Rung, Unreadable, Usable, Verdict};

use crate::preset::PresetError;
use crate::{Isa, Machine};
use search::Search;
use std::ffi::OsString;
use std::path::PathBuf;

/// The environment variable that lists preset files and directories.
pub const VARIABLE: &str = "TRILUT_PRESETS";

/// Where presets that concern every user of the machine lie.
pub const SYSTEM_DIR: &str = "/etc/trilut/presets";

/// The places to look in.
#[derive(Debug, Clone, Default)]
pub struct Sources<'a> {
    /// The file given by `--preset`.
    pub explicit: Option<PathBuf>,
    /// The value of [`VARIABLE`].
    pub environment: Option<OsString>,
    /// The directory of presets tuned by this user, if one is known.
    pub cache: Option<PathBuf>,
    /// The directory of presets for every user.
    pub system: Option<PathBuf>,
    /// Embedded presets, `(name, text)`.
    pub shipped: &'a [(&'a str, &'a str)],
}

/// A step of the ladder, strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// `--preset FILE`.
    Explicit,
    /// `$TRILUT_PRESETS`.
    Environment,
    /// The user's cache directory.
    Cache,
    /// The system's directory.
    System,
    /// Shipped, exactly this CPU.
    Cpu,
    /// Any place, same microarchitecture.
    Microarchitecture,
    /// Any place, same best ISA.
    Isa,
    /// No preset.
    Estimate,
}

impl Place {
    /// Every rung, strongest first.
    pub const ALL: &[Self] = &[
        Self::Explicit,
        Self::Environment,
        Self::Cache,
        Self::System,
        Self::Cpu,
        Self::Microarchitecture,
        Self::Isa,
        Self::Estimate,
    ];
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Explicit => "--preset",
            Self::Environment => "$TRILUT_PRESETS",
            Self::Cache => "user cache",
            Self::System => "system",
            Self::Cpu => "shipped, this CPU",
            Self::Microarchitecture => "same microarchitecture",
            Self::Isa => "same instruction set",
            Self::Estimate => "analytic estimate",
        })
    }
}

impl<'a> Sources<'a> {
    /// The places that the environment names; `explicit` comes from the command line.
    pub fn from_environment(explicit: Option<PathBuf>, shipped: &'a [(&'a str, &'a str)]) -> Self {
        Self {
            explicit,
            environment: std::env::var_os(VARIABLE).filter(|v| !v.is_empty()),
            cache: cache_dir(),
            system: Some(PathBuf::from(SYSTEM_DIR)),
            shipped,
        }
    }

    /// Looks in every place for presets that fit `machine`, for which `isa` is the best.
    ///
    /// # Errors
    /// Only when the explicit file cannot be used. Everything else that is unreadable or foreign is
    /// skipped, and a rung says so.
    pub fn find(&self, machine: &Machine, isa: Isa) -> Result<Found, PresetError> {
        let mut search = Search::new(machine, isa);
        search.explicit(self.explicit.as_deref())?;
        let paths: Vec<PathBuf> =
            self.environment.iter().flat_map(|list| std::env::split_paths(list)).collect();
        let absent = if self.environment.is_some() { "names no file" } else { "not set" };
        search.files(Place::Environment, &paths, absent);
        search.files(Place::Cache, self.cache.as_slice(), "this user has no cache directory");
        search.files(Place::System, self.system.as_slice(), "none on this system");
        search.shipped(self.shipped);
        Ok(search.finish())
    }
}

/// The directory of presets tuned by this user: `$XDG_CACHE_HOME/trilut/presets` or its like.
pub fn cache_dir() -> Option<PathBuf> {
    let dirs = directories::ProjectDirs::from("", "", "trilut")?;
    Some(dirs.cache_dir().join("presets"))
}

/// The file in which tuning on this machine is remembered, one for each best ISA: a run that is capped
/// must not take the place of one that is not.
pub fn cache_file(machine: &Machine, isa: Isa) -> Option<PathBuf> {
    Some(cache_dir()?.join(format!("{}-{isa}.toml", machine.key())))
}
