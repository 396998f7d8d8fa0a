//! What the engine is asked for and what it answers.

use crate::grammar::{Constraint, GrammarError};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use trilut_runtime::SamplerOptions;

/// One answer to be generated.
#[derive(Debug)]
pub struct Request {
    /// The prompt; at least one token.
    pub prompt: Vec<u32>,
    /// The most tokens to generate.
    pub max_tokens: usize,
    /// How each is chosen.
    pub sampling: SamplerOptions,
    /// Taken from the logits of tokens that the answer has already.
    pub penalties: Penalties,
    /// Added to the logits of some tokens.
    pub bias: Vec<(u32, f32)>,
    /// Texts before which the answer ends.
    pub stop: Vec<String>,
    /// How many of the likeliest tokens to report with each token; `None` reports no probabilities.
    pub logprobs: Option<usize>,
    /// What the answer must look like.
    pub constraint: Option<Constraint>,
}

/// Penalties for repetition, over the tokens generated so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Penalties {
    /// Taken once from the logit of a token that is there.
    pub presence: f32,
    /// Taken for each time that it is there.
    pub frequency: f32,
    /// Makes the logit of a token that is there smaller by this factor, whatever its sign.
    pub repeat: f32,
}

impl Default for Penalties {
    /// None.
    fn default() -> Self {
        Self { presence: 0.0, frequency: 0.0, repeat: 1.0 }
    }
}

impl Penalties {
    /// Whether there is nothing to take.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Something that happens to an answer.
#[derive(Debug)]
pub enum Event {
    /// The prompt was read.
    Started {
        /// Its tokens.
        prompt: usize,
        /// How many of them were in the cache already.
        reused: usize,
    },
    /// More of the text.
    Piece {
        /// Whole characters.
        text: String,
        /// The tokens behind it, if they were asked for; tokens that a stop text cut off are left out.
        tokens: Vec<TokenReport>,
    },
    /// The end.
    Done(Done),
    /// Something went wrong; nothing comes after.
    Failed(EngineError),
}

/// A token of an answer with its probability.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenReport {
    /// The token.
    pub id: u32,
    /// The natural logarithm of the probability that the model gave it.
    pub logprob: f64,
    /// The likeliest tokens in its place.
    pub top: Vec<(u32, f64)>,
    /// Characters of the answer before the one that it begins, or goes on with.
    pub offset: usize,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended it, a stop text came, or its grammar was complete.
    Stop,
    /// There is no room for more: the most tokens were generated, or the context is full.
    Length,
}

impl FinishReason {
    /// As both APIs write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// How an answer went.
#[derive(Debug, Clone, Copy)]
pub struct Done {
    /// Why it ended.
    pub finish: FinishReason,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Those of them that were in the cache already.
    pub reused_tokens: usize,
    /// Tokens generated, one that only ended the answer not included.
    pub tokens: usize,
    /// Time in the queue.
    pub queue_time: Duration,
    /// Time to read the prompt, from leaving the queue to the first token.
    pub prompt_time: Duration,
    /// Time from the first token to the end.
    pub decode_time: Duration,
}

/// What goes wrong with one answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The forward pass or the sampler failed.
    #[error("the model cannot continue this text: {0}")]
    Model(String),
    /// The grammar allows no token, or cost more than it may.
    #[error("the answer's grammar cannot be followed: {0}")]
    Grammar(GrammarError),
    /// The server ends.
    #[error("the server is shutting down")]
    Stopping,
}

/// Why a request was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The queue is full.
    #[error("the server is busy: {waiting} requests are waiting")]
    Full {
        /// The length of the queue.
        waiting: usize,
        /// Seconds after which there may be room.
        retry_after: u64,
    },
    /// The call wants more answers than can ever wait.
    #[error("{answers} answers were asked for; this server's queue holds {most}")]
    TooMany {
        /// Answers of the call.
        answers: usize,
        /// The most that the queue holds.
        most: usize,
    },
    /// The server ends.
    #[error("the server is shutting down")]
    Stopping,
    /// The engine has failed, and the server is about to end.
    #[error("the engine has failed; the server must be started again")]
    Failed,
}

/// The events of the answers to one call, each with the answer's number. To drop it is to cancel them.
pub type Events = UnboundedReceiver<(usize, Event)>;
