//! The shared vocabulary of trilut: every other crate speaks in these words.
//!
//! Start here when reading the project. [`Format`], [`Shape`] and [`Isa`] say what a kernel is for,
//! [`KernelName`] names it, [`Tile`] holds its run-time loop bounds, [`Machine`] describes a CPU and
//! [`Preset`] is the file that remembers which kernel and tile won on it. [`ladder`] finds the preset
//! to use, [`models`] knows the shapes of the models people run.
//!
//! This crate runs no kernel and depends on no other crate of the project.

pub mod atomic_file;
mod batch_name;
mod format;
mod gemm_name;
mod hash;
mod isa;
mod kernel_name;
pub mod ladder;
pub mod machine;
pub mod models;
mod pace;
mod phase;
pub mod plan;
pub mod preset;
mod shape;
mod tile;

pub use batch_name::{BatchName, default_batch_point};
pub use format::Format;
pub use gemm_name::{GemmAlgorithm, GemmName, default_gemm_point};
pub use hash::hash;
pub use isa::Isa;
pub use kernel_name::{Algorithm, Fixed, KernelName, MicroTile, default_point};
pub use machine::Machine;
pub use pace::Pace;
pub use phase::Phase;
pub use plan::{Pick, Plan};
pub use preset::Preset;
pub use shape::Shape;
pub use tile::Tile;

/// The most threads that a model is run with, and that a preset may have a record for.
pub const MOST_THREADS: usize = 1024;

/// A word of the vocabulary that could not be read: what was given and what would have been legal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is no {what}: {rule}")]
pub struct ParseError {
    /// The kind of word that was expected, such as `format`.
    pub what: &'static str,
    /// The text that was given.
    pub given: String,
    /// The rule that the text breaks, naming the legal values.
    pub rule: String,
}

impl ParseError {
    /// `given` is no `what`, because of `rule`.
    pub fn new(what: &'static str, given: &str, rule: impl Into<String>) -> Self {
        Self { what, given: given.to_owned(), rule: rule.into() }
    }
}

/// The word that was probably meant, if any is like the one that was given: whatever their case, one that
/// begins with what was given, else one that it begins with, else the most alike.
pub fn nearest<'a>(given: &str, legal: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let given = given.trim().to_lowercase();
    let rank = |word: &str| {
        let word = word.to_lowercase();
        // One letter says too little.
        let is_part = |part: &str, whole: &str| part.len() > 1 && whole.starts_with(part);
        let alike = strsim::jaro_winkler(&given, &word);
        (is_part(&given, &word), is_part(&word, &given), alike)
    };
    let mut best = None;
    for word in legal {
        let rank = rank(word);
        if best.is_none_or(|(known, _)| rank >= known) {
            best = Some((rank, word));
        }
    }
    let ((begins, is_begun_by, alike), word) = best?;
    (begins || is_begun_by || alike > 0.6).then_some(word)
}

/// Implements `Display`, `FromStr` and serde (as a string) for a field-less enum with `ALL` and `name`.
macro_rules! named {
    ($ty:ident, $what:literal) => {
        impl std::fmt::Display for $ty {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl std::str::FromStr for $ty {
            type Err = $crate::ParseError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::ALL.iter().copied().find(|v| v.name() == text).ok_or_else(|| {
                    let legal: Vec<_> = Self::ALL.iter().map(|v| v.name()).collect();
                    let nearest = $crate::nearest(text, legal.iter().copied());
                    let nearest = nearest.map_or(String::new(), |n| format!("; nearest: {n}"));
                    let rule = format!("one of {}{nearest}", legal.join(", "));
                    $crate::ParseError::new($what, text, rule)
                })
            }
        }

        impl serde::Serialize for $ty {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(self.name())
            }
        }

        impl<'de> serde::Deserialize<'de> for $ty {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use named;

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn the_word_that_was_meant_is_found() {
        let isas = ["scalar", "avx2", "avxvnni", "avx512", "avx512vbmi", "neon", "i8mm"];
        let models = ["bitnet-2b-4t", "bitnet-large", "bitnet-3b", "falcon3-1b", "falcon3-10b"];
        for (given, legal, meant) in [
            ("AVX2", &isas[..], Some("avx2")),
            ("avx3", &isas, Some("avx2")),
            ("AVX512", &isas, Some("avx512")),
            ("avx512_vnni", &isas, Some("avx512")),
            ("avx512v", &isas, Some("avx512vbmi")),
            ("NEON ", &isas, Some("neon")),
            ("i8", &isas, Some("i8mm")),
            ("sse9", &isas, None),
            ("", &isas, None),
            ("bitnet-2b", &models, Some("bitnet-2b-4t")),
            ("BitNet-2B-4T", &models, Some("bitnet-2b-4t")),
            ("falcon3-1", &models, Some("falcon3-1b")),
            ("bitnet_3b", &models, Some("bitnet-3b")),
        ] {
            assert_eq!(nearest(given, legal.iter().copied()), meant, "{given}");
        }
    }
}
