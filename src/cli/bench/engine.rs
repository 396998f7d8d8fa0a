//! Other engines, as data: `benches/engines.toml` says for each what was built, how, and which arguments
//! and model files suit it.

use serde::{Deserialize, Serialize};

const TEXT: &str = include_str!("../../../benches/engines.toml");

/// An engine that is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Engine {
    /// The name, as `--baseline NAME=PATH` takes it.
    pub(super) name: String,
    pub(super) repository: String,
    /// The commit that was compared.
    pub(super) commit: String,
    pub(super) compiler: String,
    pub(super) flags: String,
    /// What its model file holds.
    pub(super) quantisation: String,
    /// Arguments of its bench program, as `--baseline-args` takes them.
    #[serde(default)]
    pub(super) bench_args: String,
    /// Arguments of its perplexity program.
    #[serde(default)]
    pub(super) perplexity_args: String,
    /// How its output is spelled, and what to know of it.
    pub(super) notes: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    engine: Vec<Engine>,
}

/// Every engine that is described.
pub(super) fn all() -> Vec<Engine> {
    toml::from_str::<File>(TEXT).expect("the description that is compiled in is legal").engine
}

/// The engine with a name.
pub(super) fn find(name: &str) -> Option<Engine> {
    all().into_iter().find(|engine| engine.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_is_legal() {
        let engines = all();
        assert!(!engines.is_empty());
        for engine in &engines {
            assert_eq!(find(&engine.name).as_ref(), Some(engine), "a name of its own");
            assert!(engine.repository.starts_with("https://"), "{}", engine.name);
            for args in [&engine.bench_args, &engine.perplexity_args] {
                assert!(shlex::split(args).is_some(), "{args}");
            }
        }
    }
}
