//! The environment variables that trilut reads.

use super::failure::Failure;
use trilut_presets::Isa;

/// A variable, with what it does.
pub(crate) struct Variable {
    pub(crate) name: &'static str,
    pub(crate) meaning: &'static str,
}

/// Every variable; `trilut doctor` lists them with their values.
pub(crate) const VARIABLES: &[Variable] = &[
    Variable { name: "TRILUT_ISA", meaning: "caps the instruction set: scalar, avx2" },
    Variable { name: "TRILUT_THREADS", meaning: "number of threads when -t is not given" },
    Variable { name: "TRILUT_PRESETS", meaning: "preset files and directories, before the cache" },
    Variable { name: "XDG_CACHE_HOME", meaning: "where presets tuned here are kept" },
    Variable { name: "NO_COLOR", meaning: "no colours" },
];

/// Refuses values that would silently do nothing.
pub(crate) fn check() -> Result<(), Failure> {
    if let Ok(text) = std::env::var("TRILUT_ISA") {
        text.parse::<Isa>().map_err(|error| Failure::usage(error).context("TRILUT_ISA"))?;
    }
    threads(None).map(drop)
}

/// The number of threads: the argument, else `TRILUT_THREADS`, else every core.
pub(crate) fn threads(argument: Option<usize>) -> Result<usize, Failure> {
    let from_environment = || match std::env::var("TRILUT_THREADS") {
        Ok(text) => text
            .parse::<usize>()
            .ok()
            .filter(|n| (1..=1024).contains(n))
            .map(Some)
            .ok_or_else(|| Failure::usage(format!("TRILUT_THREADS is `{text}`, not 1 to 1024"))),
        Err(_) => Ok(None),
    };
    Ok(argument
        .map_or_else(from_environment, |n| Ok(Some(n)))?
        .unwrap_or_else(trilut_kernels::pool::default_threads))
}
