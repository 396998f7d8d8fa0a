//! One answer in progress: from logits to tokens to text, and when to end.

use super::metrics::Metrics;
use super::queue::Job;
use super::request::{Done, EngineError, Event, FinishReason, Penalties, TokenReport};
use super::stop::StopFilter;
use crate::grammar::Constraint;
use std::collections::HashMap;
use std::time::Instant;
use tokio::sync::mpsc::UnboundedSender;
use trilut_runtime::tokenizer::{TokenStream, Tokenizer};
use trilut_runtime::{Logprobs, Sampler};

/// An answer that has a slot.
pub(crate) struct Answer<'m> {
    /// The prompt's tokens.
    pub(crate) prompt: Vec<u32>,
    /// Of them those that were in the cache when the answer got its slot.
    pub(crate) reused: usize,
    /// The last token chosen, which the model has not read yet; `None` while the prompt is read.
    pub(crate) pending: Option<u32>,
    /// Steps in which others read their prompts and this one did not.
    pub(crate) passed_over: usize,
    /// When the request came.
    pub(crate) arrived: Instant,
    max_tokens: usize,
    generated: usize,
    sampler: Sampler,
    penalties: Penalties,
    counts: HashMap<u32, u32>,
    bias: Vec<(u32, f32)>,
    constraint: Option<Constraint>,
    /// Logits as bias, penalties and grammar leave them.
    adjusted: Vec<f32>,
    tokenizer: &'m Tokenizer,
    stream: TokenStream<'m>,
    stop: StopFilter,
    logprobs: Option<(usize, Logprobs)>,
    /// Tokens to be reported with the next text, each with the place in the text where it begins.
    reports: Vec<(usize, TokenReport)>,
    /// Bytes and characters of text decoded, and bytes of text said.
    decoded: usize,
    characters: usize,
    said: usize,
    /// Text to be said at the end of the step.
    text: String,
    /// Whether a stop text came.
    stopped: bool,
    number: usize,
    events: UnboundedSender<(usize, Event)>,
    started: Instant,
    first: Option<Instant>,
}

impl<'m> Answer<'m> {
    /// Begins an answer; `None`, and its client is told, when a sampling option is out of range.
    pub(crate) fn new(job: Job, tokenizer: &'m Tokenizer) -> Option<Self> {
        let Job { request, answer, events, arrived } = job;
        let sampler = match Sampler::new(request.sampling) {
            Ok(sampler) => sampler,
            Err(error) => {
                let error = EngineError::Model(error.to_string());
                let _ = events.send((answer, Event::Failed(error)));
                return None;
            }
        };
        let stream = tokenizer.stream_after(request.prompt.last().copied());
        Some(Self {
            reused: 0,
            pending: None,
            passed_over: 0,
            arrived,
            max_tokens: request.max_tokens,
            generated: 0,
            sampler,
            penalties: request.penalties,
            counts: HashMap::new(),
            bias: request.bias,
            constraint: request.constraint,
            adjusted: Vec::new(),
            tokenizer,
            stream,
            stop: StopFilter::new(request.stop),
            logprobs: request.logprobs.map(|most| (most, Logprobs::default())),
            reports: Vec::new(),
            decoded: 0,
            characters: 0,
            said: 0,
            text: String::new(),
            stopped: false,
            number: answer,
            events,
            started: Instant::now(),
            first: None,
            prompt: request.prompt,
        })
    }

    /// Whether nobody waits for it any more.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.events.is_closed()
    }

    /// Tokens that may still be generated, the pending one not counted.
    pub(crate) fn left(&self) -> usize {
        self.max_tokens - self.generated
    }

    /// Tokens generated so far.
    pub(crate) fn generated(&self) -> usize {
        self.generated
    }

    /// Takes the logits behind the token at `position - 1`: chooses the next token, which becomes the
    /// pending one, or ends. `room` says whether the context has a place for it.
    pub(crate) fn take(
        &mut self,
        logits: &[f32],
        position: usize,
        room: bool,
    ) -> Result<Option<FinishReason>, EngineError> {
        if self.first.is_none() {
            self.first = Some(Instant::now());
            let (prompt, reused) = (self.prompt.len(), self.reused);
            self.send(Event::Started { prompt, reused });
        }
        if self.left() == 0 {
            return Ok(Some(FinishReason::Length));
        }
        let token = self.choose(logits, position)?;
        if self.tokenizer.is_stop(token) {
            return Ok(Some(FinishReason::Stop));
        }
        if !room {
            return Ok(Some(FinishReason::Length));
        }
        self.generated += 1;
        self.pending = Some(token);
        if !self.penalties.is_none() {
            *self.counts.entry(token).or_default() += 1;
        }
        self.report(token, logits);
        if let Some(piece) = self.stream.push(token) {
            self.decoded += piece.len();
            self.characters += piece.chars().count();
            let (text, stopped) = self.stop.push(&piece);
            self.said += text.len();
            self.text.push_str(&text);
            self.stopped = stopped;
            if stopped {
                return Ok(Some(FinishReason::Stop));
            }
        }
        if let Some(constraint) = &mut self.constraint
            && constraint.push(token).map_err(EngineError::Grammar)?
        {
            return Ok(Some(FinishReason::Stop));
        }
        Ok((self.left() == 0).then_some(FinishReason::Length))
    }

    fn choose(&mut self, logits: &[f32], position: usize) -> Result<u32, EngineError> {
        let plain = self.bias.is_empty() && self.penalties.is_none() && self.constraint.is_none();
        let logits = if plain {
            logits
        } else {
            self.adjusted.clear();
            self.adjusted.extend_from_slice(logits);
            for &(token, bias) in &self.bias {
                if let Some(logit) = self.adjusted.get_mut(token as usize) {
                    *logit += bias;
                }
            }
            let Penalties { presence, frequency, repeat } = self.penalties;
            for (&token, &count) in &self.counts {
                let logit = &mut self.adjusted[token as usize];
                *logit = if *logit > 0.0 { *logit / repeat } else { *logit * repeat };
                *logit -= presence + frequency * count as f32;
            }
            if let Some(constraint) = &mut self.constraint {
                constraint.mask(&mut self.adjusted).map_err(EngineError::Grammar)?;
            }
            &self.adjusted
        };
        self.sampler.choose(logits, position).map_err(|e| EngineError::Model(e.to_string()))
    }

    fn report(&mut self, token: u32, logits: &[f32]) {
        let Some((most, logprobs)) = &mut self.logprobs else { return };
        let top = logprobs.top(logits, *most);
        let logprob = match top.iter().find(|(id, _)| *id == token) {
            Some(&(_, logprob)) => logprob,
            None => f64::from(logits[token as usize]) - logprobs.normaliser(logits),
        };
        let report = TokenReport { id: token, logprob, top, offset: self.characters };
        self.reports.push((self.decoded, report));
    }

    /// Says what the step brought.
    pub(crate) fn flush(&mut self) {
        if !self.text.is_empty() {
            let text = std::mem::take(&mut self.text);
            // Tokens of text that is held back may turn out to be those of a stop text.
            let said = self.reports.partition_point(|(begin, _)| *begin < self.said);
            let tokens = self.reports.drain(..said).map(|(_, report)| report).collect();
            self.send(Event::Piece { text, tokens });
        }
    }

    /// Says the rest and how it went, which is counted first: who has the answer sees it counted.
    pub(crate) fn finish(mut self, finish: FinishReason, metrics: &Metrics) {
        if self.stopped {
            // Tokens of the stop text itself are no part of the answer.
            let said = self.said;
            self.reports.retain(|(begin, _)| *begin < said);
        } else {
            let stream = std::mem::replace(&mut self.stream, self.tokenizer.stream());
            let half = stream.finish().unwrap_or_default();
            let (text, stopped) = self.stop.push(&half);
            self.text.push_str(&text);
            if !stopped {
                self.text.push_str(&self.stop.finish());
            }
        }
        let text = std::mem::take(&mut self.text);
        let tokens: Vec<_> = self.reports.drain(..).map(|(_, report)| report).collect();
        if !text.is_empty() || !tokens.is_empty() {
            self.send(Event::Piece { text, tokens });
        }
        let first = self.first.unwrap_or(self.started);
        let done = Done {
            finish,
            prompt_tokens: self.prompt.len(),
            reused_tokens: self.reused,
            tokens: self.generated,
            queue_time: self.started - self.arrived,
            prompt_time: first - self.started,
            decode_time: first.elapsed(),
        };
        metrics.finished(&done, self.first.map(|first| first - self.arrived));
        self.send(Event::Done(done));
    }

    /// Says what went wrong.
    pub(crate) fn fail(self, error: EngineError) {
        self.send(Event::Failed(error));
    }

    /// A receiver that is gone is noticed by [`is_cancelled`](Self::is_cancelled).
    fn send(&self, event: Event) {
        let _ = self.events.send((self.number, event));
    }
}
