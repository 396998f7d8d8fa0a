//! What the engine's thread shares with those who ask.

use super::EngineOptions;
use super::metrics::Metrics;
use super::queue::Queue;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Whether new requests are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Serving,
    /// Answers at work may go on until then; nothing new begins.
    Draining(Instant),
    /// The engine's thread has ended by itself, by a panic.
    Failed,
}

/// What waits for the engine.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub(crate) queue: Queue,
    pub(crate) mode: Mode,
}

/// What a slot does, for a person to see.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct SlotState {
    /// Whether an answer uses it.
    pub busy: bool,
    /// Whether the answer's prompt is still being read.
    pub reading: bool,
    /// Tokens in the cache.
    pub cached: usize,
    /// Tokens of the answer's prompt.
    pub prompt: usize,
    /// Tokens of the answer so far.
    pub generated: usize,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: EngineOptions,
    pub(crate) metrics: Metrics,
    inbox: Mutex<Inbox>,
    wake: Condvar,
    slots: Mutex<Vec<SlotState>>,
}

// Nobody panics while holding one of these locks, and what they guard is whole at any time.
impl Shared {
    pub(crate) fn new(options: EngineOptions) -> Self {
        let inbox = Inbox { queue: Queue::new(options.queue), mode: Mode::Serving };
        let slots = Mutex::new(vec![SlotState::default(); options.slots]);
        Self {
            options,
            metrics: Metrics::default(),
            inbox: Mutex::new(inbox),
            wake: Condvar::new(),
            slots,
        }
    }

    pub(crate) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until somebody [`wake`](Self::wake)s the engine.
    pub(crate) fn wait<'a>(&self, inbox: MutexGuard<'a, Inbox>) -> MutexGuard<'a, Inbox> {
        self.wake.wait(inbox).unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wake(&self) {
        self.wake.notify_all();
    }

    pub(crate) fn show(&self, states: Vec<SlotState>) {
        *self.slots.lock().unwrap_or_else(PoisonError::into_inner) = states;
    }

    pub(crate) fn slots(&self) -> Vec<SlotState> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
