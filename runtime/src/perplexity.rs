//! Perplexity of a model over a text: how well it predicts what it reads.
//!
//! The protocol is that of llama.cpp's `llama-perplexity`, so that two engines can be compared: the text
//! is cut into chunks of `context` tokens, a rest is left out, each chunk is read from an empty cache with
//! its first token replaced by begin-of-text (if the model wants one), and the tokens of its second half
//! are scored. The result is `exp` of the mean negative log-likelihood.
//!
//! Logits are the same bits on every kernel, thread count and ISA, and what follows them here is f64 in a
//! fixed order, so the perplexity is too.

use crate::{Error, Model, Row};
use std::ops::ControlFlow;

/// The fewest chunks that a text must fill, as in `llama-perplexity`.
const LEAST_CHUNKS: usize = 2;

/// The smallest chunk: the second half of it must hold a token to score.
pub const LEAST_CONTEXT: usize = 4;

/// Tokens read at a time. Each scored one leaves a row of logits behind, as long as the vocabulary.
const BLOCK: usize = 64;

/// What a text cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Perplexity {
    /// Tokens of a chunk.
    pub context: usize,
    /// Chunks that were read.
    pub chunks: usize,
    /// Tokens that were scored.
    pub scored: usize,
    /// Mean negative log-likelihood of a scored token, in nats.
    pub mean: f64,
    /// Standard error of the mean.
    pub error: f64,
}

impl Perplexity {
    /// The perplexity: `exp` of the mean.
    pub fn value(&self) -> f64 {
        libm::exp(self.mean)
    }

    /// The standard error of the perplexity, to first order.
    pub fn value_error(&self) -> f64 {
        self.value() * self.error
    }
}

/// Why there is no perplexity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PerplexityError {
    /// A chunk that the model cannot read, or that is too short to be scored.
    #[error("a chunk of {asked} tokens cannot be scored: {least} to {most} can")]
    Context {
        /// The length that was asked for.
        asked: usize,
        /// The shortest.
        least: usize,
        /// The context of the model.
        most: usize,
    },
    /// A text that does not fill the fewest chunks.
    #[error("the text has {tokens} tokens, {needed} are needed for chunks of {context}")]
    TooShort {
        /// Tokens of the text, begin-of-text included.
        tokens: usize,
        /// The fewest.
        needed: usize,
        /// Tokens of a chunk.
        context: usize,
    },
    /// The model failed.
    #[error("the text cannot be read")]
    Model(#[from] Error),
    /// The caller broke off.
    #[error("broken off")]
    Cancelled,
}

impl PerplexityError {
    /// A helpful next step, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::TooShort { tokens, .. } => {
                let most = tokens / LEAST_CHUNKS;
                if most < LEAST_CONTEXT {
                    let least = LEAST_CHUNKS * LEAST_CONTEXT;
                    return Some(format!("give a longer text: {least} tokens are the fewest"));
                }
                // A round number: figures of other chunks are no match for it anyway.
                let chunk = 1 << most.ilog2();
                Some(format!("give a longer text, or shorter chunks: -c {chunk}"))
            }
            Self::Model(error) => error.hint(),
            Self::Context { .. } => Some("leave the length out for the usual one".to_owned()),
            Self::Cancelled => None,
        }
    }
}

/// Reads a text in chunks of `context` tokens and scores the second half of each. `each` is told the
/// chunks done and all chunks, and may break off. Names of control tokens in the text are plain text.
///
/// # Errors
/// When the text or the context is too short, the context is longer than the model's, a value stops being
/// finite, or `each` breaks off.
pub fn perplexity(
    model: &Model,
    text: &str,
    context: usize,
    mut each: impl FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Perplexity, PerplexityError> {
    let most = model.context();
    if !(LEAST_CONTEXT..=most).contains(&context) {
        return Err(PerplexityError::Context { asked: context, least: LEAST_CONTEXT, most });
    }
    let tokenizer = model.tokenizer();
    let bos = tokenizer.begin_of_text();
    let mut tokens = tokenizer.encode_text(text, false);
    if tokens.len() < LEAST_CHUNKS * context {
        let (tokens, needed) = (tokens.len(), LEAST_CHUNKS * context);
        return Err(PerplexityError::TooShort { tokens, needed, context });
    }
    let mut state = model.state(1)?;
    let chunks = tokens.len() / context;
    let (mut sum, mut squares, mut scored) = (0.0, 0.0, 0);
    for (index, chunk) in tokens.chunks_exact_mut(context).enumerate() {
        if each(index, chunks).is_break() {
            return Err(PerplexityError::Cancelled);
        }
        if let Some(bos) = bos {
            chunk[0] = bos;
        }
        state.truncate(0, 0);
        // The last token predicts what is not in the chunk.
        let predicts = |position: usize| position >= context / 2 && position + 1 < context;
        for start in (0..context).step_by(BLOCK) {
            let end = context.min(start + BLOCK);
            let rows: Vec<Row> = (start..end)
                .map(|position| Row {
                    sequence: 0,
                    position,
                    token: chunk[position],
                    logits: predicts(position),
                })
                .collect();
            let logits = model.forward(&mut state, &rows)?.chunks_exact(model.config().vocab);
            for (position, logits) in (start..end).filter(|&p| predicts(p)).zip(logits) {
                let nats = surprise(logits, chunk[position + 1] as usize);
                sum += nats;
                squares += nats * nats;
                scored += 1;
            }
        }
    }
    let n = scored as f64;
    let mean = sum / n;
    let variance = (squares / n - mean * mean).max(0.0);
    let error = if scored > 1 { (variance / (n - 1.0)).sqrt() } else { 0.0 };
    Ok(Perplexity { context, chunks, scored, mean, error })
}

/// Negative log-likelihood of a token: `log sum_i exp(logits[i]) - logits[token]`, in nats.
pub(crate) fn surprise(logits: &[f32], token: usize) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| libm::exp(f64::from(logit - max))).sum();
    libm::log(sum) + f64::from(max) - f64::from(logits[token])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::Gguf;
    use crate::{ModelOptions, embedded};
    use trilut_kernels::Format;

    const STORY: &str = "Once upon a time there was a fox named Max. One day he went to the lake to play. \
                         There he found a red ball. Max was happy. On the way home he met a bird.";

    fn go(_: usize, _: usize) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    #[test]
    fn surprise_is_the_logarithm_of_the_probability() {
        let even = surprise(&[2.5; 8], 3);
        assert!((even - 8f64.ln()).abs() < 1e-12, "{even}");
        // Far beyond what exp of the logits themselves could hold.
        let sure = surprise(&[1000.0, 0.0, -1000.0], 0);
        assert!(sure.abs() < 1e-12, "{sure}");
        assert!((surprise(&[1000.0, 0.0], 1) - 1000.0).abs() < 1e-9);
    }

    /// The protocol spelled out with a session: token by token, chunk by chunk.
    fn spelled_out(model: &Model, text: &str, context: usize) -> (usize, f64) {
        let tokenizer = model.tokenizer();
        let bos = tokenizer.bos().unwrap();
        let mut tokens = vec![bos];
        tokens.extend(tokenizer.encode(text, false));
        let mut nats = Vec::new();
        for chunk in tokens.chunks_exact(context) {
            let mut session = model.session().unwrap();
            for (position, &token) in chunk[..context - 1].iter().enumerate() {
                session.append(&[if position == 0 { bos } else { token }]).unwrap();
                if position >= context / 2 {
                    let logits: Vec<f64> = session.logits().iter().map(|&x| f64::from(x)).collect();
                    let all: f64 = logits.iter().map(|x| x.exp()).sum();
                    nats.push(-(logits[chunk[position + 1] as usize].exp() / all).ln());
                }
            }
        }
        (nats.len(), nats.iter().sum::<f64>() / nats.len() as f64)
    }

    #[test]
    fn the_second_half_of_each_chunk_is_scored() {
        let model = Model::embedded().unwrap();
        // 5: an odd chunk. 22: one that a story fills about twice.
        for context in [5, 16, 22] {
            let found = perplexity(&model, STORY, context, go).unwrap();
            let (scored, mean) = spelled_out(&model, STORY, context);
            assert_eq!(found.scored, scored);
            assert_eq!(found.scored, found.chunks * (context - context / 2 - 1));
            assert!((found.mean - mean).abs() < 1e-9, "{context}: {found:?} {mean}");
            assert!((found.value().ln() - mean).abs() < 1e-9);
        }
    }

    #[test]
    fn the_demo_model_knows_its_stories() {
        let model = Model::embedded().unwrap();
        let story = perplexity(&model, STORY, 22, go).unwrap();
        let words: Vec<&str> = STORY.split(' ').rev().collect();
        let nonsense = perplexity(&model, &words.join(" "), 22, go).unwrap();
        assert!(story.value() > 1.0 && story.value() * 3.0 < nonsense.value(), "{story:?}");
    }

    #[test]
    fn it_is_the_same_on_every_engine() {
        let gguf = Gguf::from_static(embedded::model()).unwrap();
        let of = |threads, format| {
            let options =
                ModelOptions { threads: Some(threads), format, ..ModelOptions::default() };
            let model = Model::open_with(&gguf, &options).unwrap();
            perplexity(&model, STORY, 16, go).unwrap()
        };
        let first = of(1, None);
        assert!(first.error > 0.0);
        for (threads, format) in [(2, None), (3, Some(Format::Tl1)), (1, Some(Format::Tl2))] {
            assert_eq!(of(threads, format), first);
        }
    }

    #[test]
    fn what_cannot_be_scored_is_refused() {
        let model = Model::embedded().unwrap();
        let context = |n| perplexity(&model, STORY, n, go).unwrap_err();
        assert!(context(3).to_string().contains("4 to 512"), "{}", context(3));
        assert!(matches!(context(513), PerplexityError::Context { most: 512, .. }));
        let short = context(256);
        assert!(matches!(short, PerplexityError::TooShort { needed: 512, .. }), "{short}");
        // The hint can be followed, and is none where no chunk is short enough.
        let hint = short.hint().unwrap();
        let chunk: usize = hint.rsplit(' ').next().unwrap().parse().unwrap();
        assert!(perplexity(&model, STORY, chunk, go).is_ok(), "{hint}");
        let hopeless = perplexity(&model, "Max", 64, go).unwrap_err();
        assert!(hopeless.hint().unwrap().ends_with("8 tokens are the fewest"), "{hopeless:?}");
        let stopped = perplexity(&model, STORY, 16, |done, _| match done {
            0 => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        });
        assert!(matches!(stopped, Err(PerplexityError::Cancelled)));
    }
}
