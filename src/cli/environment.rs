//! The environment variables of trilut itself.

use super::failure::Failure;
use std::env::consts::ARCH;
use trilut_presets::{Isa, MOST_THREADS};

/// A variable, with what it does.
pub(crate) struct Variable {
    pub(crate) name: &'static str,
    pub(crate) meaning: &'static str,
}

impl Variable {
    /// The value as it may be shown; a key is not.
    pub(crate) fn shown(&self) -> String {
        match std::env::var_os(self.name) {
            None => "(not set)".to_owned(),
            Some(_) if self.name == API_KEY => "(set)".to_owned(),
            Some(value) => value.to_string_lossy().into_owned(),
        }
    }
}

/// The variable with the key of a server.
pub(crate) const API_KEY: &str = "TRILUT_API_KEY";

/// Every variable; `trilut doctor` lists them with their values.
pub(crate) const VARIABLES: &[Variable] = &[
    Variable { name: "TRILUT_ISA", meaning: "caps the instruction set" },
    Variable { name: "TRILUT_THREADS", meaning: "number of threads when -t is not given" },
    Variable { name: "TRILUT_PRESETS", meaning: "preset files and directories, before the cache" },
    Variable { name: API_KEY, meaning: "the key that `serve` asks for" },
    Variable { name: "XDG_CACHE_HOME", meaning: "where presets tuned here are kept" },
    Variable { name: "NO_COLOR", meaning: "no colours" },
];

/// A variable's value; an empty one counts as not set.
pub(crate) fn value(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

/// Refuses values that would silently do nothing.
pub(crate) fn check() -> Result<(), Failure> {
    if let Some(text) = value("TRILUT_ISA") {
        let isa = text.parse::<Isa>().map_err(|error| isa_refused(error).context("TRILUT_ISA"))?;
        // The cap would leave the portable kernels alone.
        if let Some(other) = foreign(isa) {
            let what = format!("TRILUT_ISA is `{isa}`, which is for {other}");
            return Err(isa_refused(what).because(format!("this program is for {ARCH}")));
        }
    }
    threads(None).map(drop)
}

fn isa_refused(what: impl std::fmt::Display) -> Failure {
    let here = Isa::ALL.iter().filter(|isa| **isa != Isa::Emulated && foreign(**isa).is_none());
    let names: Vec<&str> = here.map(|isa| isa.name()).collect();
    Failure::usage(what).hint(format!("give {}, or leave it out", names.join(", ")))
}

/// The architecture that an ISA needs, if it is not this program's.
fn foreign(isa: Isa) -> Option<&'static str> {
    isa.target_arch().filter(|arch| *arch != ARCH)
}

/// Reads a number of threads, as an argument or a variable gives it.
pub(crate) fn number_of_threads(text: &str) -> Result<usize, String> {
    let n = text.trim().parse().ok().filter(|n| (1..=MOST_THREADS).contains(n));
    n.ok_or_else(|| format!("not 1 to {MOST_THREADS}"))
}

/// The number of threads: the argument, else `TRILUT_THREADS`, else every core.
pub(crate) fn threads(argument: Option<usize>) -> Result<usize, Failure> {
    match (argument, value("TRILUT_THREADS")) {
        (Some(n), _) => Ok(n),
        (None, Some(text)) => number_of_threads(&text).map_err(|why| {
            Failure::usage(format!("TRILUT_THREADS is `{text}`, {why}"))
                .hint("leave it out to use every core")
        }),
        (None, None) => Ok(trilut_kernels::pool::default_threads()),
    }
}
