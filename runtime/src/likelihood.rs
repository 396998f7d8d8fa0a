//! How likely a model holds a continuation of a text: multiple choice without generating.

use crate::perplexity::surprise;
use crate::{Error, Model, Row, State};

/// Tokens that are read at a time; each of a continuation leaves a row of logits behind.
const BLOCK: usize = 64;

/// A continuation's likelihood.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Likelihood {
    /// The logarithm of the probability that the model writes it, in nats.
    pub log: f64,
    /// Its tokens.
    pub tokens: usize,
    /// Its bytes.
    pub bytes: usize,
}

impl Likelihood {
    /// The logarithm per byte, which does not favour short continuations.
    pub fn per_byte(&self) -> f64 {
        self.log / self.bytes.max(1) as f64
    }
}

/// Scores the continuations of a text. What they have in common is read once. The text and its
/// continuation are encoded together, so that the words at the seam are cut as in ordinary text; names of
/// control tokens are plain text.
///
/// # Errors
/// When text and continuation do not fit into the context or are empty, or a value stops being finite.
pub fn likelihoods(
    model: &Model,
    state: &mut State,
    text: &str,
    continuations: &[impl AsRef<str>],
) -> Result<Vec<Likelihood>, Error> {
    let tokenizer = model.tokenizer();
    let encode = |text: &str| tokenizer.encode_text(text, false);
    let prompt = encode(text);
    let wholes: Vec<Vec<u32>> =
        continuations.iter().map(|more| encode(&format!("{text}{}", more.as_ref()))).collect();
    state.truncate(0, 0);
    let mut read: Vec<u32> = Vec::new();
    let mut scores = Vec::new();
    for (whole, continuation) in wholes.iter().zip(continuations) {
        // The seam may lie within a token of the whole, which then belongs to the continuation.
        let seam = same(&prompt, whole).min(whole.len().saturating_sub(1));
        // The first token of all is predicted by nothing.
        let first = seam.max(1);
        // The token before the first one that is scored is read again, for its logits.
        let start = same(&read, whole).min(first - 1);
        state.truncate(0, start);
        let mut log = 0.0;
        let vocab = model.config().vocab;
        if whole.len() > first {
            for block in (start..whole.len() - 1).collect::<Vec<_>>().chunks(BLOCK) {
                let rows: Vec<Row> = (block.iter())
                    .map(|&position| {
                        let (token, logits) = (whole[position], position + 1 >= first);
                        Row { sequence: 0, position, token, logits }
                    })
                    .collect();
                let logits = model.forward(state, &rows)?;
                let predicted = block.iter().map(|at| at + 1).filter(|&at| at >= first);
                for (at, logits) in predicted.zip(logits.chunks_exact(vocab)) {
                    log -= surprise(logits, whole[at] as usize);
                }
            }
        }
        if whole.len() <= first {
            return Err(Error::Empty);
        }
        read = whole[..whole.len() - 1].to_vec();
        let bytes = continuation.as_ref().len();
        scores.push(Likelihood { log, tokens: whole.len() - first, bytes });
    }
    Ok(scores)
}

/// The number of tokens at the beginning that are the same.
fn same(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_sums_of_the_probabilities_of_tokens() {
        let model = Model::embedded().unwrap();
        let (text, choices) = (
            "Once upon a time there was a clever",
            [" girl named Ella", " boy named Hugo", " named Hugo boy"],
        );
        let mut state = model.state(1).unwrap();
        let found = likelihoods(&model, &mut state, text, &choices).unwrap();
        for (choice, found) in choices.iter().zip(&found) {
            let tokenizer = model.tokenizer();
            let mut tokens = vec![tokenizer.bos().unwrap()];
            tokens.extend(tokenizer.encode(text, false));
            let mut session = model.session().unwrap();
            session.append(&tokens).unwrap();
            let mut log = 0.0;
            for &token in &tokenizer.encode(&format!("{text}{choice}"), false)[tokens.len() - 1..] {
                let logits: Vec<f64> = session.logits().iter().map(|&x| f64::from(x)).collect();
                let all: f64 = logits.iter().map(|x| x.exp()).sum();
                log += (logits[token as usize].exp() / all).ln();
                session.append(&[token]).unwrap();
            }
            assert!((found.log - log).abs() < 1e-6, "{choice}: {found:?} {log}");
        }
        assert!(found[1].log > found[2].log);
        // Alone it scores the same: nothing leaks from one choice to the next.
        let alone = likelihoods(&model, &mut state, text, &choices[1..2]).unwrap();
        assert_eq!(alone[0], found[1]);
    }

    #[test]
    fn an_empty_continuation_is_refused() {
        let model = Model::embedded().unwrap();
        let mut state = model.state(1).unwrap();
        let empty = likelihoods(&model, &mut state, "", &[""]);
        assert!(matches!(empty, Err(Error::Empty)));
    }
}
