//! One text: a sequence of tokens that is read, continued and kept in the cache.

use crate::speculation::lookup;
use crate::{Error, Model, Row, Sampler, SamplerOptions, State, Trace};
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// Tokens that a prompt is read in at a time: enough that unpacking a panel of weights costs little beside
/// multiplying it, few enough that scratch space stays small.
pub(crate) const PREFILL_BLOCK: usize = 256;

/// How a text is continued.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateOptions {
    /// The most tokens to generate.
    pub max_tokens: usize,
    /// How each is chosen.
    pub sampling: SamplerOptions,
    /// Whether the names of control tokens in the prompt become those tokens, as the text of a chat
    /// template needs. By default they are plain text: a prompt may come from anybody. What goes into
    /// a template should pass [`Tokenizer::without_control`](crate::tokenizer::Tokenizer::without_control).
    pub parse_special: bool,
    /// The most tokens to guess at a time from what the text has said before (see
    /// [`speculation`](crate::speculation)); 0 guesses none. Guesses change the speed, never the text.
    pub speculate: usize,
    /// What happens when the context is full.
    pub on_full: OnFull,
}

/// What happens when a text reaches the end of the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFull {
    /// The text ends; a prompt that does not fit is refused.
    #[default]
    Stop,
    /// The first `keep` tokens (a system prompt) and the newer half of the others stay, the older half is
    /// dropped, and what stays is read again: the text goes on exactly as if it had been the prompt.
    Shift {
        /// Tokens at the beginning that always stay; half of the context at most.
        keep: usize,
    },
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_tokens: 256,
            sampling: SamplerOptions::default(),
            parse_special: false,
            speculate: 0,
            on_full: OnFull::Stop,
        }
    }
}

impl GenerateOptions {
    /// The most likely token always.
    pub fn greedy() -> Self {
        Self { sampling: SamplerOptions::greedy(), ..Self::default() }
    }
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model ended its answer.
    Stop,
    /// The most tokens that were asked for were generated.
    Length,
    /// The callback broke off.
    Cancelled,
    /// The context is full.
    Context,
}

impl Finish {
    /// A word for a person: `stop`, `length`, `cancelled`, `context`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Cancelled => "cancelled",
            Self::Context => "context",
        }
    }
}

/// What was generated.
#[derive(Debug, Clone)]
pub struct Generation {
    /// The text, without control tokens.
    pub text: String,
    /// Tokens of the prompt, the begin-of-text token included; of a prompt whose reading was broken off,
    /// those that were read.
    pub prompt_tokens: usize,
    /// Tokens generated, the one that ended the answer not included.
    pub tokens: usize,
    /// Tokens that were dropped from a full context.
    pub dropped: usize,
    /// Why it ended.
    pub finish: Finish,
    /// Time to read the prompt.
    pub prompt_time: Duration,
    /// Time to generate.
    pub decode_time: Duration,
}

/// A text in progress. Each session has a cache of its own; those of one model share its threads.
#[derive(Debug)]
pub struct Session {
    model: Model,
    state: State,
    tokens: Vec<u32>,
    /// Logits after the last token; empty when there is none.
    logits: Vec<f32>,
    /// Guesses that the cache holds behind the tokens, each with the logits that follow it.
    ahead: VecDeque<(u32, Vec<f32>)>,
}

impl Session {
    pub(crate) fn new(model: Model) -> Result<Self, Error> {
        let state = model.state(1)?;
        Ok(Self { model, state, tokens: Vec::new(), logits: Vec::new(), ahead: VecDeque::new() })
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The tokens so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The logits of the token that follows, one for each token of the vocabulary; empty at the start.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// Positions that are still free.
    pub fn room(&self) -> usize {
        self.model.context() - self.tokens.len()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.state.truncate(0, 0);
        self.ahead.clear();
        self.tokens.clear();
        self.logits.clear();
    }

    /// Forgets the tokens from `len` on, so that another continuation can be read; logits come with the
    /// next [`Session::append`].
    pub fn truncate(&mut self, len: usize) {
        if len < self.tokens.len() {
            self.forget_guesses();
            self.state.truncate(0, len);
            self.tokens.truncate(len);
            self.logits.clear();
        }
    }

    /// Reads tokens and computes the logits that follow them. Reading them at once or one by one gives
    /// the same logits, bit for bit.
    ///
    /// # Errors
    /// When the tokens do not exist or do not fit (nothing is read then), or a value stops being
    /// finite (the session then ends before the block of tokens that failed).
    pub fn append(&mut self, tokens: &[u32]) -> Result<(), Error> {
        self.append_traced(tokens, None)
    }

    /// [`Session::append`], observed: the trace gets the logits of every token.
    ///
    /// # Errors
    /// As [`Session::append`].
    pub fn append_traced(
        &mut self,
        tokens: &[u32],
        trace: Option<&mut Trace>,
    ) -> Result<(), Error> {
        self.read(tokens, trace, || ControlFlow::Continue(())).map(|_| ())
    }

    /// Reads tokens block by block; `between` two blocks it can be broken off. The session then ends
    /// with the block before, without logits.
    fn read(
        &mut self,
        tokens: &[u32],
        mut trace: Option<&mut Trace>,
        mut between: impl FnMut() -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Error> {
        let (used, context) = (self.tokens.len(), self.model.context());
        if tokens.len() > self.room() {
            return Err(Error::ContextFull { tokens: tokens.len(), used, context });
        }
        let vocab = self.model.config().vocab;
        if let Some(&token) = tokens.iter().find(|token| **token as usize >= vocab) {
            return Err(Error::Token { token, vocab });
        }
        self.forget_guesses();
        let (every, end) = (trace.is_some(), used + tokens.len());
        for (index, block) in tokens.chunks(PREFILL_BLOCK).enumerate() {
            if index > 0 && between().is_break() {
                return Ok(ControlFlow::Break(()));
            }
            let rows: Vec<Row> = (self.tokens.len()..)
                .zip(block)
                .map(|(position, &token)| {
                    let logits = every || position + 1 == end;
                    Row { sequence: 0, position, token, logits }
                })
                .collect();
            let logits = self.model.forward_traced(&mut self.state, &rows, trace.as_deref_mut())?;
            self.logits.clear();
            if let Some(last) = logits.chunks_exact(vocab).next_back() {
                self.logits.extend_from_slice(last);
            }
            self.tokens.extend_from_slice(block);
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Reads one token, and with it up to `most` guesses at those that follow. What was guessed right
    /// before need not be read again.
    fn follow(&mut self, token: u32, most: usize) -> Result<(), Error> {
        if let Some((_, logits)) = self.ahead.pop_front_if(|(guess, _)| *guess == token) {
            self.tokens.push(token);
            self.logits = logits;
            return Ok(());
        }
        let most = most.min(self.room().saturating_sub(1));
        if most == 0 {
            return self.append(&[token]);
        }
        self.forget_guesses();
        let position = self.tokens.len();
        self.tokens.push(token);
        let guesses = lookup(&self.tokens, most);
        let row = |(position, token)| Row { sequence: 0, position, token, logits: true };
        let read = std::iter::once(token).chain(guesses.iter().copied());
        let rows: Vec<Row> = (position..).zip(read).map(row).collect();
        let logits = match self.model.forward(&mut self.state, &rows) {
            Ok(logits) => logits,
            Err(_) => {
                // A guess may be what cannot be read; the token itself says.
                self.tokens.pop();
                return self.append(&[token]);
            }
        };
        let mut logits = logits.chunks_exact(self.model.config().vocab);
        self.logits.clear();
        self.logits.extend_from_slice(logits.next().unwrap_or_default());
        self.ahead.extend(guesses.into_iter().zip(logits.map(<[f32]>::to_vec)));
        Ok(())
    }

    /// Takes guesses that did not come true out of the cache.
    fn forget_guesses(&mut self) {
        self.ahead.clear();
        self.state.truncate(0, self.tokens.len());
    }

    /// Reads a prompt and continues it. At the start of a session the prompt gets the begin-of-text
    /// token if the model wants one. Text is handed to `each` as it comes, in whole characters; a
    /// callback that breaks ends the generation. While a long prompt is read, `each` is called with an
    /// empty text from time to time, so that this can be broken off too. The session can be continued
    /// afterwards.
    ///
    /// # Errors
    /// When the prompt is empty, does not fit into the context, an option is out of range, or a value
    /// stops being finite.
    pub fn generate(
        &mut self,
        prompt: &str,
        options: &GenerateOptions,
        each: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Generation, Error> {
        let tokenizer = self.model.tokenizer();
        let tokens = match self.tokens.is_empty() {
            true => tokenizer.encode_text(prompt, options.parse_special),
            false => tokenizer.encode(prompt, options.parse_special),
        };
        self.generate_after(&tokens, options, each)
    }

    /// Makes the session one of `tokens` and continues them, as [`Session::generate`] does. What the
    /// session has in common with them is not read again: a conversation that goes on costs its new part.
    ///
    /// # Errors
    /// As [`Session::generate`].
    pub fn generate_from(
        &mut self,
        tokens: &[u32],
        options: &GenerateOptions,
        each: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Generation, Error> {
        let same = self.tokens.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        // The last token is read again, for the logits behind it.
        let same = same.min(tokens.len().saturating_sub(1));
        self.truncate(same);
        self.generate_after(&tokens[same..], options, each)
    }

    /// Drops the older half of what a full context may lose, and reads what stays again. Returns the
    /// number of tokens dropped, and whether the reading was broken off.
    fn shift(
        &mut self,
        keep: usize,
        new: &[u32],
        between: impl FnMut() -> ControlFlow<()>,
    ) -> Result<(usize, ControlFlow<()>), Error> {
        let context = self.model.context();
        let all = [&self.tokens[..], new].concat();
        let keep = keep.min(context / 2).min(all.len());
        // Half of the context behind what always stays.
        let stays = ((context - keep) / 2).max(1).min(all.len() - keep);
        let dropped = all.len() - keep - stays;
        let mut tokens = all[..keep].to_vec();
        tokens.extend(&all[keep + dropped..]);
        let same = keep.min(self.tokens.len());
        self.truncate(same);
        Ok((dropped, self.read(&tokens[same..], None, between)?))
    }

    /// Reads tokens and continues them.
    fn generate_after(
        &mut self,
        prompt: &[u32],
        options: &GenerateOptions,
        mut each: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Generation, Error> {
        let mut sampler = Sampler::new(options.sampling.clone())?;
        let began = Instant::now();
        let model = self.model.clone();
        let tokenizer = model.tokenizer();
        let before = self.tokens.len();
        let (mut dropped, flow) = match options.on_full {
            OnFull::Shift { keep } if prompt.len() > self.room() => {
                self.shift(keep, prompt, || each(""))?
            }
            _ => (0, self.read(prompt, None, || each(""))?),
        };
        let (prompt_tokens, prompt_time) =
            ((self.tokens.len() + dropped).saturating_sub(before), began.elapsed());
        if flow.is_break() {
            return Ok(Generation {
                text: String::new(),
                prompt_tokens,
                tokens: 0,
                dropped,
                finish: Finish::Cancelled,
                prompt_time,
                decode_time: Duration::ZERO,
            });
        }
        if self.logits.is_empty() {
            return Err(Error::Empty);
        }

        let began = Instant::now();
        let (mut text, mut tokens, mut stream) =
            (String::new(), 0, tokenizer.stream_after(self.tokens.last().copied()));
        let mut hand_over = |piece: Option<String>| {
            let Some(piece) = piece else { return ControlFlow::Continue(()) };
            text.push_str(&piece);
            each(&piece)
        };
        let finish = loop {
            if tokens == options.max_tokens {
                break Finish::Length;
            }
            // Places count what was dropped, so that each has random numbers of its own.
            let token = sampler.choose(&self.logits, self.tokens.len() + dropped)?;
            if tokenizer.is_stop(token) {
                break Finish::Stop;
            }
            if self.room() == 0 {
                let OnFull::Shift { keep } = options.on_full else { break Finish::Context };
                // Broken off by the next piece of text.
                let (lost, _) = self.shift(keep, &[], || ControlFlow::Continue(()))?;
                dropped += lost;
                if lost == 0 {
                    break Finish::Context;
                }
            }
            tokens += 1;
            // Handed over before the next token is computed, and read even when it is the last one,
            // so that the session can be continued.
            let flow = hand_over(stream.push(token));
            self.follow(token, options.speculate)?;
            if flow.is_break() {
                break Finish::Cancelled;
            }
        };
        self.forget_guesses();
        // What is left of an unfinished character; nobody can cancel any more.
        let _ = hand_over(stream.finish());
        let decode_time = began.elapsed();
        Ok(Generation { text, prompt_tokens, tokens, dropped, finish, prompt_time, decode_time })
    }
}
