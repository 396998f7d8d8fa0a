//! Counters of what the engine has done.

use super::request::Done;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Upper ends of the classes in which times to the first token are counted, in milliseconds.
pub const FIRST_TOKEN_CLASSES: [u64; 10] =
    [10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000, u64::MAX];

/// Counters since the start.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Answers that came to their end.
    pub finished: AtomicU64,
    /// Answers that nobody waited for any more.
    pub cancelled: AtomicU64,
    /// Answers that failed.
    pub failed: AtomicU64,
    /// Requests refused because the queue was full.
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
    /// Time to the first token, queue included, in microseconds.
    pub first_token_us: AtomicU64,
    /// Finished answers by [`FIRST_TOKEN_CLASSES`].
    pub first_token: [AtomicU64; FIRST_TOKEN_CLASSES.len()],
}

impl Metrics {
    pub(crate) fn step(&self, took: Duration, rows: usize) {
        self.steps.fetch_add(1, Relaxed);
        self.rows.fetch_add(rows as u64, Relaxed);
        self.busy_us.fetch_add(took.as_micros() as u64, Relaxed);
    }

    pub(crate) fn finished(&self, done: &Done, first: Option<Duration>) {
        self.finished.fetch_add(1, Relaxed);
        self.prompt.fetch_add(done.prompt_tokens as u64, Relaxed);
        self.reused.fetch_add(done.reused_tokens as u64, Relaxed);
        let took = done.queue_time + done.prompt_time + done.decode_time;
        self.answer_us.fetch_add(took.as_micros() as u64, Relaxed);
        if let Some(first) = first {
            self.first_token_us.fetch_add(first.as_micros() as u64, Relaxed);
            let class =
                FIRST_TOKEN_CLASSES.partition_point(|end| u128::from(*end) < first.as_millis());
            self.first_token[class].fetch_add(1, Relaxed);
        }
    }

    /// Seconds that an answer takes on average, queue included; 1 before the first.
    pub(crate) fn seconds_per_answer(&self) -> f64 {
        match self.finished.load(Relaxed) {
            0 => 1.0,
            n => self.answer_us.load(Relaxed) as f64 / 1e6 / n as f64,
        }
    }
}
