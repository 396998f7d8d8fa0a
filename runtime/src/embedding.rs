//! Texts as vectors: the last hidden states of a model, pooled into one and scaled to length 1.

use crate::gguf::{Gguf, GgufError};
use crate::session::PREFILL_BLOCK;
use crate::{Error, Model, Row, State};

/// How the states of a text's tokens become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// That of the first token.
    First,
    /// That of the last token, which models are trained on that end texts with a token of their own.
    Last,
}

impl Pooling {
    /// What a file says (`pooling_type`), `None` when it does not or says that there is none.
    ///
    /// # Errors
    /// When the value is no integer, or one that stands for nothing known.
    pub fn from_gguf(gguf: &Gguf) -> Result<Option<Self>, GgufError> {
        match gguf.opt_arch_u32("pooling_type")? {
            None | Some(0) => Ok(None),
            Some(1) => Ok(Some(Self::Mean)),
            Some(2) => Ok(Some(Self::First)),
            Some(3) => Ok(Some(Self::Last)),
            Some(other) => Err(GgufError::OutOfRange {
                key: gguf.arch_key("pooling_type")?,
                value: other.into(),
                wants: "1 (mean), 2 (first token) or 3 (last token)",
            }),
        }
    }

    /// A word for a person: `mean`, `first`, `last`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::First => "first",
            Self::Last => "last",
        }
    }
}

/// Turns texts into vectors, one after the other.
#[derive(Debug)]
pub struct Embedder {
    model: Model,
    state: State,
    pooling: Pooling,
    /// Tokens of one forward pass.
    block: usize,
}

impl Embedder {
    /// An embedder with a cache of its own.
    ///
    /// # Errors
    /// When the cache is too large.
    pub fn new(model: Model, pooling: Pooling) -> Result<Self, Error> {
        let state = model.state(1)?;
        Ok(Self { model, state, pooling, block: PREFILL_BLOCK })
    }

    /// The same with at most so many tokens (at least one) in a forward pass: others who use the model's threads
    /// wait less. The vectors are the same.
    #[must_use]
    pub fn in_blocks_of(self, tokens: usize) -> Self {
        Self { block: tokens.max(1), ..self }
    }

    /// The tokens of a text, with those that the model wants around it. Names of control tokens in the
    /// text are plain text.
    pub fn tokens(&self, text: &str) -> Vec<u32> {
        let mut tokens = self.model.tokenizer().encode_text(text, false);
        tokens.extend(self.end());
        tokens
    }

    /// The same, as many of them as the context holds. A token that ends texts ends what was cut too.
    pub fn tokens_within(&self, text: &str) -> Vec<u32> {
        let (mut tokens, context) = (self.tokens(text), self.model.context());
        if tokens.len() > context {
            let end = self.end();
            tokens.truncate(context - usize::from(end.is_some()));
            tokens.extend(end);
        }
        tokens
    }

    /// The token that the model wants at the end of a text.
    fn end(&self) -> Option<u32> {
        let tokenizer = self.model.tokenizer();
        tokenizer.eos().filter(|_| tokenizer.add_eos())
    }

    /// The vector of a text: `hidden` values of length 1.
    ///
    /// # Errors
    /// When the text has no tokens or more than the context holds, or a value stops being finite.
    pub fn embed(&mut self, text: &str) -> Result<Vec<f32>, Error> {
        self.embed_tokens(&self.tokens(text))
    }

    /// The vector of tokens, as [`tokens`](Self::tokens) has them or a caller of their own.
    ///
    /// # Errors
    /// As [`embed`](Self::embed), and when a token does not exist.
    pub fn embed_tokens(&mut self, tokens: &[u32]) -> Result<Vec<f32>, Error> {
        let context = self.model.context();
        match tokens.len() {
            0 => return Err(Error::Empty),
            n if n > context => return Err(Error::ContextFull { tokens: n, used: 0, context }),
            _ => {}
        }
        let wanted = match self.pooling {
            Pooling::Mean => 0..tokens.len(),
            Pooling::First => 0..1,
            Pooling::Last => tokens.len() - 1..tokens.len(),
        };
        let rows: Vec<Row> = (tokens.iter().enumerate())
            .map(|(position, &token)| {
                let logits = wanted.contains(&position);
                Row { sequence: 0, position, token, logits }
            })
            .collect();
        self.state.truncate(0, 0);
        // In f64 and in the order of the tokens: the same sums on any machine.
        let mut sums = vec![0f64; self.model.config().hidden];
        for block in rows.chunks(self.block) {
            let states = self.model.forward_hidden(&mut self.state, block)?;
            for state in states.chunks_exact(sums.len()) {
                sums.iter_mut().zip(state).for_each(|(sum, value)| *sum += f64::from(*value));
            }
        }
        let length = sums.iter().map(|sum| sum * sum).sum::<f64>().sqrt();
        if length == 0.0 {
            return Ok(vec![0.0; sums.len()]);
        }
        Ok(sums.iter().map(|sum| (sum / length) as f32).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embed(model: &Model, pooling: Pooling, text: &str) -> Vec<f32> {
        Embedder::new(model.clone(), pooling).unwrap().embed(text).unwrap()
    }

    #[test]
    fn vectors_have_length_1_and_follow_the_meaning() {
        let model = Model::embedded().unwrap();
        for pooling in [Pooling::Mean, Pooling::Last] {
            let of = |text| embed(&model, pooling, text);
            let [fox, same, sum] =
                ["The fox was happy.", "The fox was glad.", "What is 7 + 8?"].map(of);
            assert_eq!(fox.len(), model.config().hidden);
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
            assert!((dot(&fox, &fox) - 1.0).abs() < 1e-5);
            assert!(dot(&fox, &same) > dot(&fox, &sum), "{pooling:?}");
        }
    }

    #[test]
    fn states_are_what_the_head_is_given() {
        let model = Model::embedded().unwrap();
        let tokens = model.tokenizer().encode("Once upon a time there was a fox", false);
        let rows: Vec<Row> = (tokens.iter().enumerate())
            .map(|(position, &token)| Row { sequence: 0, position, token, logits: position > 3 })
            .collect();
        let mut state = model.state(1).unwrap();
        let hidden = model.forward_hidden(&mut state, &rows).unwrap();
        assert_eq!(hidden.len(), (tokens.len() - 4) * model.config().hidden);
        // One by one they are the same, and reading goes on behind them.
        state.truncate(0, 0);
        let mut one_by_one = Vec::new();
        for row in &rows {
            one_by_one.extend(model.forward_hidden(&mut state, &[*row]).unwrap());
        }
        assert_eq!(hidden, one_by_one);
        let next = Row { sequence: 0, position: tokens.len(), token: 5, logits: true };
        let after = model.forward(&mut state, &[next]).unwrap().to_vec();
        let mut plain = model.state(1).unwrap();
        let all: Vec<Row> = rows.iter().copied().chain([next]).collect();
        let logits = model.forward(&mut plain, &all).unwrap();
        assert_eq!(&logits[logits.len() - after.len()..], after);
    }

    #[test]
    fn blocks_change_no_vector() {
        let model = Model::embedded().unwrap();
        let text = "The fox was happy. ".repeat(20);
        let whole = embed(&model, Pooling::Mean, &text);
        let parts = Embedder::new(model, Pooling::Mean).unwrap().in_blocks_of(7);
        assert_eq!({ parts }.embed(&text).unwrap(), whole);
    }

    #[test]
    fn texts_that_do_not_fit_are_refused() {
        let model = Model::embedded().unwrap();
        let mut embedder = Embedder::new(model, Pooling::Mean).unwrap();
        let long = embedder.embed(&"fox ".repeat(2000)).unwrap_err();
        assert!(matches!(long, Error::ContextFull { .. }));
        assert!(embedder.embed("a").is_ok());
    }
}
