//! Logarithms of the probabilities that a model gives to tokens, before any sampling option.

use trilut_kernels::float::softmax;
use trilut_kernels::{Cpu, Supported};

/// Computes log probabilities; keeps its buffers between calls.
#[derive(Debug, Clone)]
pub struct Logprobs {
    isa: Supported,
    exponentials: Vec<f32>,
}

impl Default for Logprobs {
    fn default() -> Self {
        Self { isa: Cpu::detect().best(), exponentials: Vec::new() }
    }
}

impl Logprobs {
    /// The natural logarithm of the sum of the exponentials of `logits`: what is taken from a logit to
    /// have the logarithm of its token's probability.
    pub fn normaliser(&mut self, logits: &[f32]) -> f64 {
        let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        self.exponentials.clear();
        self.exponentials.extend(logits.iter().map(|logit| logit - highest));
        softmax::exp(self.isa, &mut self.exponentials);
        let sum: f64 = self.exponentials.iter().map(|x| f64::from(*x)).sum();
        f64::from(highest) + libm::log(sum)
    }

    /// The `most` most likely tokens, likelier ones first and equal ones by id, with the logarithms of
    /// their probabilities.
    pub fn top(&mut self, logits: &[f32], most: usize) -> Vec<(u32, f64)> {
        let normaliser = self.normaliser(logits);
        let mut top: Vec<(u32, f32)> = Vec::with_capacity(most + 1);
        for (id, &logit) in (0u32..).zip(logits) {
            if top.len() == most && top.last().is_none_or(|(_, least)| logit <= *least) {
                continue;
            }
            top.insert(top.partition_point(|(_, other)| *other >= logit), (id, logit));
            top.truncate(most);
        }
        top.into_iter().map(|(id, logit)| (id, f64::from(logit) - normaliser)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Logprobs;

    #[test]
    fn probabilities_sum_to_one_and_are_in_order() {
        let logits = [0.5f32, 2.0, -1.0, 2.0, 1000.0, 999.0];
        let top = Logprobs::default().top(&logits, 10);
        assert_eq!(top.iter().map(|t| t.0).collect::<Vec<_>>(), [4, 5, 1, 3, 0, 2]);
        let sum: f64 = top.iter().map(|(_, logprob)| logprob.exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
        assert!((top[0].1 - (1.0 / (1.0 + (-1.0f64).exp())).ln()).abs() < 1e-6);
        assert_eq!(Logprobs::default().top(&logits, 2), top[..2]);
        assert!(Logprobs::default().top(&logits, 0).is_empty());
    }
}
