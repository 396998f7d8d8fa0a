//! Counters of what the engine has done.

use super::request::Done;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Upper ends of the classes in which times to the first token are counted, in milliseconds.
pub const FIRST_TOKEN_CLASSES: [u64; 10] =
    [10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000, u64::MAX];

/// Answers over which what is recent is averaged.
const RECENT: u64 = 8;

/// Counters since the start.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Answers that came to their end.
    pub finished: AtomicU64,
    /// Answers that nobody waited for any more.
    pub cancelled: AtomicU64,
    /// Answers that failed.
    pub failed: AtomicU64,
    /// Answers refused because the queue was full.
    pub refused: AtomicU64,
    /// Forward passes.
    pub steps: AtomicU64,
    /// Tokens that went through them.
    pub rows: AtomicU64,
    /// Time of forward passes and sampling, in microseconds.
    pub busy_us: AtomicU64,
    /// Prompt tokens of finished answers.
    pub prompt: AtomicU64,
    /// Those of them that were in the cache already.
    pub reused: AtomicU64,
    /// Tokens generated.
    pub generated: AtomicU64,
    /// Tokens guessed.
    pub drafted: AtomicU64,
    /// Guesses that held.
    pub accepted: AtomicU64,
    /// Time that finished answers took, queue included, in microseconds.
    pub answer_us: AtomicU64,
    /// Time in a slot of an answer, an average over the last ones, in microseconds.
    pub(crate) recent_us: AtomicU64,
    /// Time to the first token, queue included, in microseconds.
    pub first_token_us: AtomicU64,
    /// Finished answers by [`FIRST_TOKEN_CLASSES`].
    pub first_token: [AtomicU64; FIRST_TOKEN_CLASSES.len()],
}

impl Metrics {
    pub(crate) fn finished(&self, done: &Done, first: Option<Duration>) {
        self.finished.fetch_add(1, Relaxed);
        self.prompt.fetch_add(done.prompt_tokens as u64, Relaxed);
        self.reused.fetch_add(done.reused_tokens as u64, Relaxed);
        let work = (done.prompt_time + done.decode_time).as_micros() as u64;
        // Only the engine's thread writes.
        let recent = match self.recent_us.load(Relaxed) {
            0 => work,
            before => before - before / RECENT + work / RECENT,
        };
        self.recent_us.store(recent.max(1), Relaxed);
        let took = done.queue_time + done.prompt_time + done.decode_time;
        self.answer_us.fetch_add(took.as_micros() as u64, Relaxed);
        if let Some(first) = first {
            self.first_token_us.fetch_add(first.as_micros() as u64, Relaxed);
            let class =
                FIRST_TOKEN_CLASSES.partition_point(|end| u128::from(*end) < first.as_millis());
            self.first_token[class].fetch_add(1, Relaxed);
        }
    }

    /// Seconds for which answers have lately had a slot, each; 1 before the first.
    pub(crate) fn seconds_per_answer(&self) -> f64 {
        match self.recent_us.load(Relaxed) {
            0 => 1.0,
            recent => recent as f64 / 1e6,
        }
    }
}
