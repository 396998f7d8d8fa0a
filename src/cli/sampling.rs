//! How the next token is chosen, and how many there are: options that `run` and `chat` share.

use super::failure::Failure;
use crate::cli::output::say;
use std::hash::{BuildHasher, RandomState};
use std::str::FromStr;
use trilut_runtime::{Sampler, SamplerOptions};

/// How the next token is chosen.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Sampling {
    /// The most tokens to generate, -1 for as many as there is room for; 256 without it, in a chat as many
    /// as the model wants.
    #[arg(short, long = "n-predict", value_name = "N")]
    pub(crate) n_predict: Option<Limit>,
    /// Temperature; 0 takes the most likely token always.
    #[arg(long, alias = "temperature", default_value_t = 0.8)]
    temp: f32,
    /// Keep the K most likely tokens; 0 or -1 keeps all.
    #[arg(long, value_name = "K", default_value = "40")]
    top_k: TopK,
    /// Keep the most likely tokens whose probabilities reach this sum.
    #[arg(long, default_value_t = 0.95)]
    top_p: f32,
    /// Keep tokens at least this likely, relative to the most likely one.
    #[arg(long, default_value_t = 0.05)]
    min_p: f32,
    /// Random seed; the same seed gives the same text. -1 chooses one and says which.
    #[arg(short, long, default_value = "0")]
    seed: Seed,
}

impl Sampling {
    /// The options, if they are within their ranges.
    pub(crate) fn options(&self) -> Result<SamplerOptions, Failure> {
        let Self { temp, top_k, top_p, min_p, seed, .. } = *self;
        let seed = seed.number();
        let options = SamplerOptions { temperature: temp, top_k: top_k.0, top_p, min_p, seed };
        Sampler::new(options.clone()).map_err(|error| Failure::from(error).into_usage())?;
        Ok(options)
    }
}

/// The most tokens to generate; `None` for as many as there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit(pub(crate) Option<usize>);

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        number(text, "a number of tokens, or -1 for no limit").map(Self)
    }
}

/// Tokens that are kept; 0 keeps all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TopK(pub(crate) usize);

impl FromStr for TopK {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        number(text, "a number of tokens, or -1 for all").map(|k| Self(k.unwrap_or(0)))
    }
}

/// Where randomness begins; `None` somewhere else each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seed(Option<u64>);

impl FromStr for Seed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        number(text, "a number from 0 on, or -1 for a random one").map(Self)
    }
}

impl Seed {
    /// The seed; one that is chosen here is told on stderr, so that the text can be had again.
    pub(crate) fn number(self) -> u64 {
        self.0.unwrap_or_else(|| {
            // 32 bits are enough to be typed.
            let seed = RandomState::new().hash_one(()) >> 32;
            say!("note: the seed is {seed}");
            seed
        })
    }
}

/// A number, `None` for -1.
fn number<T: FromStr>(text: &str, wanted: &str) -> Result<Option<T>, String> {
    match text.parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) if text == "-1" => Ok(None),
        Err(_) => Err(format!("expected {wanted}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minus_one_is_no_limit_everything_and_any() {
        assert_eq!("-1".parse(), Ok(Limit(None)));
        assert_eq!("0".parse(), Ok(Limit(Some(0))));
        assert_eq!("-1".parse(), Ok(TopK(0)));
        assert_eq!("7".parse(), Ok(TopK(7)));
        assert_eq!("-1".parse(), Ok(Seed(None)));
        assert_eq!("18446744073709551615".parse(), Ok(Seed(Some(u64::MAX))));
        for text in ["-2", "1.5", "", "many", "18446744073709551616"] {
            assert!(text.parse::<Limit>().is_err_and(|why| why.contains("-1")), "{text}");
            assert!(text.parse::<Seed>().is_err() && text.parse::<TopK>().is_err(), "{text}");
        }
    }
}
