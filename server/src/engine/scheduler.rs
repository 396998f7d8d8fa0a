//! The loop that runs the model: who takes part in each step, and what becomes of the logits.
//!
//! A step is one forward pass. Every answer that is being written takes part with its last token (and
//! guesses at those that follow, with speculation), and prompts take part with a bounded number of tokens
//! together, so that a long prompt delays the others by little. Among prompts the one with the least left
//! to read goes first, so that a short one need not wait for a long one; one that was passed over too
//! often goes before it. Because a row's result depends on its own sequence alone, bit for bit, and the
//! randomness of a choice on seed and position alone, none of this changes any text.

use super::answer::Answer;
use super::queue::Job;
use super::request::{EngineError, FinishReason};
use super::shared::{Mode, Shared, SlotState};
use super::slot::{Slot, place};
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;
use trilut_runtime::speculation::lookup;
use trilut_runtime::{Error, Model, Row, State};

/// Steps in which a prompt may be passed over by shorter ones.
const PATIENCE: usize = 8;

/// Positions that make it worth waiting for another prompt that is being read.
const WORTH_WAITING: usize = 16;

/// The engine thread's own.
pub(crate) struct Scheduler<'m> {
    model: &'m Model,
    shared: &'m Shared,
    state: State,
    slots: Vec<Slot<'m>>,
    steps: u64,
}

/// The part of a step that belongs to one slot.
#[derive(Debug)]
struct Span {
    slot: usize,
    rows: Range<usize>,
    /// How many of these rows, at the end, want logits.
    wanted: usize,
}

impl<'m> Scheduler<'m> {
    /// A scheduler with empty slots.
    pub(crate) fn new(model: &'m Model, shared: &'m Shared, state: State) -> Self {
        let slots = (0..shared.options.slots).map(|_| Slot::default()).collect();
        Self { model, shared, state, slots, steps: 0 }
    }

    /// Serves until the engine is told to stop.
    pub(crate) fn run(mut self) {
        loop {
            self.drop_cancelled();
            self.publish();
            let mode = self.admit();
            let busy = self.slots.iter().any(|slot| slot.answer.is_some());
            match mode {
                Mode::Serving => {}
                Mode::Draining(end) if busy && Instant::now() < end => {}
                Mode::Draining(_) | Mode::Failed => break,
            }
            if busy {
                self.step();
            }
        }
        for answer in self.slots.iter_mut().filter_map(|slot| slot.answer.take()) {
            answer.fail(EngineError::Stopping);
        }
        self.publish();
    }

    /// Frees the slots of answers that nobody waits for any more.
    fn drop_cancelled(&mut self) {
        for slot in &mut self.slots {
            if slot.answer.take_if(|answer| answer.is_cancelled()).is_some() {
                self.shared.metrics.cancelled.fetch_add(1, Relaxed);
            }
        }
    }

    /// Gives free slots to waiting jobs. Waits for one when there is nothing else to do.
    fn admit(&mut self) -> Mode {
        let shared = self.shared;
        let mut inbox = shared.inbox();
        while inbox.mode == Mode::Serving
            && inbox.queue.len() == 0
            && self.slots.iter().all(|slot| slot.answer.is_none())
        {
            inbox = shared.wait(inbox);
        }
        if let Mode::Draining(_) = inbox.mode {
            for job in inbox.queue.drain() {
                let _ = job.events.send((job.answer, super::Event::Failed(EngineError::Stopping)));
            }
        }
        let left = inbox.queue.prune();
        shared.metrics.cancelled.fetch_add(left as u64, Relaxed);
        while inbox.mode == Mode::Serving && self.slots.iter().any(|slot| slot.answer.is_none()) {
            // A prompt that another slot is about to read is cheaper to copy than to read again.
            let slots = &self.slots;
            let ready = |job: &Job| {
                let prompt = &job.request.prompt;
                let now = slots.iter().map(|slot| slot.shared(prompt)).max().unwrap_or(0);
                let soon = slots.iter().map(|slot| slot.shared_soon(prompt)).max().unwrap_or(0);
                soon < now + WORTH_WAITING
            };
            let Some(job) = inbox.queue.pop(ready) else { break };
            // It may copy much of the cache, and nobody who asks need wait for that.
            drop(inbox);
            self.start(job);
            inbox = shared.inbox();
        }
        inbox.mode
    }

    /// Gives a free slot to a job.
    fn start(&mut self, job: Job) {
        let Some(placement) = place(&self.slots, &job.request.prompt) else { return };
        let Some(mut answer) = Answer::new(job, self.model.tokenizer()) else { return };
        let (index, shared) = (placement.slot, placement.shared);
        if let Some(source) = placement.source {
            self.state.copy(source, index, shared);
            self.slots[index].cached = self.slots[source].cached[..shared].to_vec();
        }
        self.keep(index, shared);
        answer.reused = shared;
        self.slots[index].used = self.steps;
        self.slots[index].answer = Some(answer);
    }

    /// Forgets what a slot holds from position `len` on.
    fn keep(&mut self, slot: usize, len: usize) {
        self.state.truncate(slot, len);
        self.slots[slot].cached.truncate(len);
    }

    /// One forward pass for all who take part.
    fn step(&mut self) {
        self.steps += 1;
        let began = Instant::now();
        let (rows, spans) = self.plan();
        let metrics = &self.shared.metrics;
        metrics.steps.fetch_add(1, Relaxed);
        metrics.rows.fetch_add(rows.len() as u64, Relaxed);
        self.forward(&rows, &spans);
        metrics.busy_us.fetch_add(began.elapsed().as_micros() as u64, Relaxed);
    }

    /// The rows of the next step.
    fn plan(&mut self) -> (Vec<Row>, Vec<Span>) {
        let (mut rows, mut spans) = (Vec::new(), Vec::new());
        let (context, speculate) = (self.model.context(), self.shared.options.speculate);
        for (index, slot) in self.slots.iter().enumerate() {
            let Some(answer) = &slot.answer else { continue };
            let Some(pending) = answer.pending else { continue };
            let (first, begin) = (slot.cached.len(), rows.len());
            rows.push(Row { sequence: index, position: first, token: pending, logits: true });
            let most = speculate
                .min(answer.left().saturating_sub(1))
                .min(context.saturating_sub(first + 1));
            if most > 0 {
                let text: Vec<u32> = slot.cached.iter().copied().chain([pending]).collect();
                for (position, token) in (first + 1..).zip(lookup(&text, most)) {
                    rows.push(Row { sequence: index, position, token, logits: true });
                }
                let drafted = (rows.len() - begin - 1) as u64;
                self.shared.metrics.drafted.fetch_add(drafted, Relaxed);
            }
            let wanted = rows.len() - begin;
            spans.push(Span { slot: index, rows: begin..rows.len(), wanted });
        }

        // Rows of answers come out of it: one more than a tile holds would cost a part of another. Some are
        // left for prompts however many answers there are.
        let most = self.shared.options.prompt_rows;
        let mut budget = most.saturating_sub(rows.len()).max(most.div_ceil(4));
        for index in self.readers() {
            let slot = &mut self.slots[index];
            let (position, Some(answer)) = (slot.cached.len(), &mut slot.answer) else { continue };
            let tokens = &answer.prompt[position..];
            let count = tokens.len().min(budget);
            answer.passed_over = if count == 0 { answer.passed_over + 1 } else { 0 };
            if count == 0 {
                continue;
            }
            budget -= count;
            let (begin, last) = (rows.len(), count == tokens.len());
            for (place, (position, &token)) in (position..).zip(&tokens[..count]).enumerate() {
                let logits = last && place + 1 == count;
                rows.push(Row { sequence: index, position, token, logits });
            }
            spans.push(Span { slot: index, rows: begin..rows.len(), wanted: usize::from(last) });
        }
        (rows, spans)
    }

    /// The slots whose prompts are being read, in the order in which they may.
    fn readers(&self) -> Vec<usize> {
        let mut readers: Vec<_> = (0..self.slots.len())
            .filter(|&index| self.slots[index].is_reading())
            .filter_map(|index| {
                let slot = &self.slots[index];
                let answer = slot.answer.as_ref()?;
                let patient = answer.passed_over < PATIENCE;
                let left = answer.prompt.len() - slot.cached.len();
                Some(((patient, if patient { left } else { 0 }, answer.arrived), index))
            })
            .collect();
        readers.sort();
        readers.into_iter().map(|(_, index)| index).collect()
    }

    /// Runs rows and hands out the logits. When the pass fails, each slot's rows are run alone, so that
    /// only the text that cannot be continued ends.
    fn forward(&mut self, rows: &[Row], spans: &[Span]) {
        let outcome = match self.model.forward(&mut self.state, rows) {
            Ok(logits) => {
                let vocab = self.model.config().vocab;
                let mut logits = logits.chunks_exact(vocab);
                let mut took = Vec::with_capacity(spans.len());
                for span in spans {
                    let slot = &mut self.slots[span.slot];
                    slot.cached.extend(rows[span.rows.clone()].iter().map(|row| row.token));
                    let own: Vec<&[f32]> = logits.by_ref().take(span.wanted).collect();
                    let context = self.model.context();
                    took.push(advance(slot, &rows[span.rows.clone()], &own, context));
                }
                Ok(took)
            }
            Err(error) => Err(error),
        };
        match outcome {
            Ok(took) => {
                spans.iter().zip(took).for_each(|(span, took)| self.settle(span.slot, took));
            }
            Err(error) if spans.len() == 1 => self.fail(spans[0].slot, &error),
            Err(_) => {
                for span in spans {
                    let alone = Span { slot: span.slot, rows: 0..span.rows.len(), ..*span };
                    self.forward(&rows[span.rows.clone()], &[alone]);
                }
            }
        }
    }

    /// Keeps what a slot's step was worth and ends its answer if it has ended.
    fn settle(&mut self, index: usize, took: Took) {
        let metrics = &self.shared.metrics;
        metrics.generated.fetch_add(took.tokens as u64, Relaxed);
        metrics.accepted.fetch_add(took.tokens.saturating_sub(1) as u64, Relaxed);
        self.keep(index, took.keep);
        let slot = &mut self.slots[index];
        slot.used = self.steps;
        match took.end {
            None => {}
            Some(Ok(finish)) => {
                if let Some(answer) = slot.answer.take() {
                    answer.finish(finish, &self.shared.metrics);
                }
            }
            Some(Err(error)) => {
                if let Some(answer) = slot.answer.take() {
                    self.shared.metrics.failed.fetch_add(1, Relaxed);
                    answer.fail(error);
                }
            }
        }
    }

    /// Ends the answer of a slot whose text the model cannot continue.
    fn fail(&mut self, slot: usize, error: &Error) {
        let len = self.state.cache().len(slot);
        self.keep(slot, len);
        if let Some(answer) = self.slots[slot].answer.take() {
            self.shared.metrics.failed.fetch_add(1, Relaxed);
            answer.fail(EngineError::Model(error.to_string()));
        }
    }

    /// Shows what the slots do.
    fn publish(&self) {
        let show = |slot: &Slot<'_>| SlotState {
            cached: slot.cached.len(),
            reading: slot.is_reading(),
            busy: slot.answer.is_some(),
            prompt: slot.answer.as_ref().map_or(0, |answer| answer.prompt.len()),
            generated: slot.answer.as_ref().map_or(0, Answer::generated),
        };
        self.shared.show(self.slots.iter().map(show).collect());
    }
}

/// What a step was worth to a slot.
struct Took {
    /// Positions that stay.
    keep: usize,
    /// Tokens chosen.
    tokens: usize,
    end: Option<Result<FinishReason, EngineError>>,
}

/// Hands logits, which belong to the last of the rows, to a slot's answer, as far as its guesses hold.
fn advance(slot: &mut Slot<'_>, rows: &[Row], logits: &[&[f32]], context: usize) -> Took {
    let mut took = Took { keep: slot.cached.len(), tokens: 0, end: None };
    let Some(answer) = &mut slot.answer else { return took };
    let behind = &rows[rows.len() - logits.len()..];
    for (index, (row, logits)) in behind.iter().zip(logits).enumerate() {
        let (position, before) = (row.position + 1, answer.generated());
        let end = answer.take(logits, position, position < context).transpose();
        took.tokens += answer.generated() - before;
        took.keep = position;
        took.end = end;
        let guess = behind.get(index + 1).map(|row| row.token);
        if took.end.is_some() || guess.is_none() || guess != answer.pending {
            break;
        }
    }
    answer.flush();
    took
}
