//! The choice of the next token from logits: top-k, top-p, min-p, temperature, in this order.
//!
//! Randomness is a function of (seed, position): SplitMix64, started at the mixed seed and jumped to
//! the position. So neither batching nor the order in which sequences are served changes a choice.
//! Equal logits are ordered by token id, lowest first, and NaNs are never chosen.

use crate::Error;
use std::cmp::Ordering;
use trilut_kernels::float::softmax;
use trilut_kernels::{Cpu, Supported};

/// How the next token is chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplerOptions {
    /// Divides the logits; 0 takes the most likely token always.
    pub temperature: f32,
    /// Keeps the `k` most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the fewest most likely tokens whose probabilities reach this sum; 1 keeps all.
    pub top_p: f32,
    /// Keeps tokens whose probability is at least this part of the most likely one's; 0 keeps all.
    pub min_p: f32,
    /// Selects the random numbers.
    pub seed: u64,
}

impl Default for SamplerOptions {
    /// Moderately varied text.
    fn default() -> Self {
        Self { temperature: 0.8, top_k: 40, top_p: 0.95, min_p: 0.05, seed: 0 }
    }
}

impl SamplerOptions {
    /// Always the most likely token.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    fn check(&self) -> Result<(), Error> {
        let refuse =
            |name, value: f32, rule| Err(Error::Sampling { name, value: value.to_string(), rule });
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return refuse("temperature", self.temperature, "must be 0 or above");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return refuse("top_p", self.top_p, "must be above 0 and at most 1");
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return refuse("min_p", self.min_p, "must be between 0 and 1");
        }
        Ok(())
    }
}

/// Chooses tokens by checked options; keeps its buffers between calls.
#[derive(Debug, Clone)]
pub struct Sampler {
    options: SamplerOptions,
    isa: Supported,
    /// Tokens and their logits, likelier ones first.
    candidates: Vec<(u32, f32)>,
    /// Of each candidate the probability over that of the first one.
    weights: Vec<f32>,
}

impl Sampler {
    /// A sampler.
    ///
    /// # Errors
    /// When an option is out of its range.
    pub fn new(options: SamplerOptions) -> Result<Self, Error> {
        options.check()?;
        let isa = Cpu::detect().best();
        Ok(Self { options, isa, candidates: Vec::new(), weights: Vec::new() })
    }

    /// The token that follows position `position - 1`, from the logits there.
    ///
    /// # Errors
    /// When no logit is a number.
    pub fn choose(&mut self, logits: &[f32], position: usize) -> Result<u32, Error> {
        let SamplerOptions { temperature, top_k, top_p, min_p, seed } = self.options;
        if temperature == 0.0 || top_k == 1 {
            return most_likely(logits).ok_or(Error::NotFinite { what: "every logit" });
        }
        let candidates = &mut self.candidates;
        candidates.clear();
        let numbered = (0u32..).zip(logits.iter().copied());
        candidates.extend(numbered.filter(|(_, logit)| logit.is_finite()));
        if top_k > 0 && top_k < candidates.len() {
            candidates.select_nth_unstable_by(top_k - 1, likelier);
            candidates.truncate(top_k);
        }
        candidates.sort_unstable_by(likelier);
        if candidates.is_empty() {
            return Err(Error::NotFinite { what: "every logit" });
        }
        if top_p < 1.0 || min_p > 0.0 {
            weigh(self.isa, candidates, 1.0, &mut self.weights);
            let enough = f64::from(top_p) * sum(&self.weights);
            let mut reached = 0.0;
            let last = self.weights.iter().position(|weight| {
                reached += f64::from(*weight);
                reached >= enough
            });
            let likely = last.map_or(candidates.len(), |last| last + 1);
            // Weights fall, and the first is 1, so it always stays.
            candidates.truncate(likely.min(self.weights.partition_point(|w| *w >= min_p)));
        }
        weigh(self.isa, candidates, temperature, &mut self.weights);
        let mut left = uniform(seed, position as u64) * sum(&self.weights);
        let chosen = self.weights.iter().position(|weight| {
            left -= f64::from(*weight);
            left < 0.0
        });
        // When rounding used up the sum, the last candidate it is.
        Ok(candidates[chosen.unwrap_or(candidates.len() - 1)].0)
    }
}

/// The position of the largest logit, the first of equal ones; `None` when there is no number.
pub fn most_likely(logits: &[f32]) -> Option<u32> {
    let mut best: Option<(u32, f32)> = None;
    for (id, &logit) in (0u32..).zip(logits) {
        if !logit.is_nan() && best.is_none_or(|(_, most)| logit > most) {
            best = Some((id, logit));
        }
    }
    best.map(|(id, _)| id)
}

/// Higher logits first, then lower ids. Adding +0 turns -0 into +0, to which it is equal.
fn likelier(a: &(u32, f32), b: &(u32, f32)) -> Ordering {
    (b.1 + 0.0).total_cmp(&(a.1 + 0.0)).then(a.0.cmp(&b.0))
}

/// `exp((logit - highest) / temperature)` of each candidate, the first of which is the highest.
fn weigh(isa: Supported, candidates: &[(u32, f32)], temperature: f32, weights: &mut Vec<f32>) {
    let highest = candidates[0].1;
    weights.clear();
    weights.extend(candidates.iter().map(|(_, logit)| (logit - highest) / temperature));
    softmax::exp(isa, weights);
}

fn sum(weights: &[f32]) -> f64 {
    weights.iter().map(|weight| f64::from(*weight)).sum()
}

/// A number in 0..1 for a position: output `position` of SplitMix64 seeded with the mixed seed.
fn uniform(seed: u64, position: u64) -> f64 {
    const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;
    let mix = |mut z: u64| {
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    // Mixed first, so that neighbouring seeds are not shifted copies of one stream.
    let start = mix(seed.wrapping_add(GAMMA));
    let bits = mix(start.wrapping_add(GAMMA.wrapping_mul(position.wrapping_add(1))));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(change: impl Fn(&mut SamplerOptions)) -> Sampler {
        let mut options =
            SamplerOptions { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 7 };
        change(&mut options);
        Sampler::new(options).unwrap()
    }

    /// How often each token is chosen over many positions, in percent.
    fn shares(mut sampler: Sampler, logits: &[f32]) -> Vec<f64> {
        let mut counts = vec![0.0; logits.len()];
        for position in 0..20_000 {
            counts[sampler.choose(logits, position).unwrap() as usize] += 1.0 / 200.0;
        }
        counts
    }

    #[test]
    fn ties_and_nans() {
        let logits = [f32::NAN, 1.0, 3.0, 3.0, f32::NAN, f32::NEG_INFINITY];
        assert_eq!(most_likely(&logits), Some(2));
        let mut greedy = Sampler::new(SamplerOptions::greedy()).unwrap();
        assert_eq!(greedy.choose(&logits, 0).unwrap(), 2);
        assert_eq!(sampler(|o| o.top_k = 1).choose(&logits, 0).unwrap(), 2);
        assert!(greedy.choose(&[f32::NAN; 3], 0).is_err());
        assert!(sampler(|_| ()).choose(&[f32::NAN; 3], 0).is_err());
        assert!(sampler(|_| ()).choose(&[], 0).is_err());
        // Zeros are equal, whatever their sign.
        let zeros = [-0.0, 0.0, -1.0];
        assert_eq!(most_likely(&zeros), Some(0));
        assert_eq!(sampler(|o| o.top_k = 1).choose(&zeros, 0).unwrap(), 0);
        // Of four equal logits top-k keeps the lowest ids.
        let shares = shares(sampler(|o| o.top_k = 2), &[1.0; 4]);
        assert!(shares[0] > 45.0 && shares[1] > 45.0);
    }

    #[test]
    fn the_distribution_is_the_softmax() {
        let logits = [0.0f32, 1.0, 2.0];
        let total: f64 = logits.iter().map(|l| f64::from(l.exp())).sum();
        for (share, logit) in shares(sampler(|_| ()), &logits).into_iter().zip(logits) {
            assert!((share - 100.0 * f64::from(logit.exp()) / total).abs() < 1.0);
        }
        let cold = shares(sampler(|o| o.temperature = 0.1), &logits);
        assert!(cold[2] > 99.9);
    }

    #[test]
    fn the_filters_keep_what_they_say() {
        // Probabilities 0.4, 0.3, 0.2, 0.1.
        let logits = [0.4f32, 0.3, 0.2, 0.1].map(f32::ln);
        let kept = |change: fn(&mut SamplerOptions)| {
            shares(sampler(change), &logits).iter().filter(|share| **share > 0.0).count()
        };
        assert_eq!(kept(|_| ()), 4);
        assert_eq!(kept(|o| o.top_k = 3), 3);
        assert_eq!(kept(|o| o.top_p = 0.65), 2);
        assert_eq!(kept(|o| o.top_p = 0.01), 1);
        assert_eq!(kept(|o| o.min_p = 0.45), 3);
        assert_eq!(kept(|o| o.min_p = 1.0), 1);
        // top-p is taken of what top-k left: 0.4 / 0.7 is above 0.55.
        assert_eq!(kept(|o| (o.top_k, o.top_p) = (2, 0.55)), 1);
    }

    #[test]
    fn choices_depend_on_seed_and_position_alone() {
        let logits: Vec<f32> = (0..100).map(|i| (i as f32 * 0.7).sin()).collect();
        let run = |seed, positions: &mut dyn Iterator<Item = usize>| -> Vec<u32> {
            let mut sampler = sampler(|o| o.seed = seed);
            positions.map(|p| sampler.choose(&logits, p).unwrap()).collect()
        };
        let forwards = run(1, &mut (0..50));
        let mut backwards = run(1, &mut (0..50).rev());
        backwards.reverse();
        assert_eq!(forwards, backwards);
        assert_ne!(forwards, run(2, &mut (0..50)));
    }

    #[test]
    fn options_out_of_range_are_refused_by_name() {
        type Case = (&'static str, fn(&mut SamplerOptions));
        let cases: [Case; 6] = [
            ("temperature", |o| o.temperature = -1.0),
            ("temperature", |o| o.temperature = f32::NAN),
            ("top_p", |o| o.top_p = 0.0),
            ("top_p", |o| o.top_p = 1.5),
            ("min_p", |o| o.min_p = -0.1),
            ("min_p", |o| o.min_p = f32::NAN),
        ];
        for (name, change) in cases {
            let mut options = SamplerOptions::default();
            change(&mut options);
            let error = Sampler::new(options).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
