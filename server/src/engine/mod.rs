//! The engine: one thread that runs the model for all requests at once.
//!
//! [`Engine::submit`] puts requests into a bounded queue; the scheduler gives each a slot of the cache and
//! lets it take part in the forward passes until its answer ends. What happens comes back as [`Event`]s;
//! dropping their receiver cancels the answers within one step.

mod answer;
mod metrics;
mod queue;
mod request;
mod scheduler;
mod shared;
mod slot;
mod stop;

pub use metrics::{FIRST_TOKEN_CLASSES, Metrics};
pub use queue::Client;
pub use request::{
    Done, EngineError, Event, Events, FinishReason, Penalties, Refusal, Request, TokenReport,
};
pub use shared::SlotState;

use queue::Job;
use scheduler::Scheduler;
use shared::{Mode, Shared};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::unbounded_channel;
use trilut_runtime::{Error, Model};

/// How the engine shares its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineOptions {
    /// Answers that are written at once.
    pub slots: usize,
    /// Requests that may wait for a slot.
    pub queue: usize,
    /// Prompt tokens read in one step, by all prompts together: what a long prompt delays others by. Tokens of
    /// answers that take part are counted among them, but a quarter is always left.
    pub prompt_rows: usize,
    /// The most tokens guessed by prompt lookup in one step of an answer; 0 guesses none.
    pub speculate: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { slots: 4, queue: 64, prompt_rows: 64, speculate: 0 }
    }
}

impl EngineOptions {
    /// Refuses options with which no answer would ever come.
    fn check(&self) -> Result<(), StartError> {
        let needed =
            [("slots", self.slots), ("queue", self.queue), ("prompt_rows", self.prompt_rows)];
        match needed.into_iter().find(|(_, value)| *value == 0) {
            None => Ok(()),
            Some((name, _)) => Err(StartError::Zero(name)),
        }
    }
}

/// A running engine.
#[derive(Debug)]
pub struct Engine {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Engine {
    /// Starts an engine for a model.
    ///
    /// # Errors
    /// When an option is 0 that must not be, the cache for that many slots is too large, or the system
    /// gives no thread.
    pub fn start(model: Model, options: EngineOptions) -> Result<Self, StartError> {
        options.check()?;
        let state = model.state(options.slots)?;
        let shared = Arc::new(Shared::new(options));
        let own = Arc::clone(&shared);
        let run = move || {
            // However the thread ends, nobody is left waiting for it.
            let _closed = Close(&own);
            Scheduler::new(&model, &own, state).run();
        };
        let thread = std::thread::Builder::new().name("engine".to_owned()).spawn(run)?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Queues the requests of one call, whose answers are numbered in their order.
    ///
    /// # Errors
    /// When there is no room for all of them, now or ever, or the engine is stopping.
    pub fn submit(&self, client: Client, requests: Vec<Request>) -> Result<Events, Refusal> {
        // All of them go through the queue, also when slots are free.
        let (answers, most) = (requests.len(), self.shared.options.queue);
        if answers > most {
            return Err(Refusal::TooMany { answers, most });
        }
        let (events, receiver) = unbounded_channel();
        let arrived = Instant::now();
        let job = |(answer, request)| Job { request, answer, events: events.clone(), arrived };
        let jobs = requests.into_iter().enumerate().map(job).collect();
        let mut inbox = self.shared.inbox();
        match inbox.mode {
            Mode::Serving => {}
            Mode::Draining(_) => return Err(Refusal::Stopping),
            Mode::Failed => return Err(Refusal::Failed),
        }
        let metrics = &self.shared.metrics;
        metrics.cancelled.fetch_add(inbox.queue.prune() as u64, Relaxed);
        let pushed = inbox.queue.push(client, jobs);
        drop(inbox);
        match pushed {
            Ok(()) => {
                self.shared.wake();
                Ok(receiver)
            }
            Err(waiting) => {
                metrics.refused.fetch_add(answers as u64, Relaxed);
                let each = metrics.seconds_per_answer() / self.shared.options.slots as f64;
                let retry_after = (each * waiting as f64).ceil().clamp(1.0, 60.0) as u64;
                Err(Refusal::Full { waiting, retry_after })
            }
        }
    }

    /// How it was started.
    pub fn options(&self) -> &EngineOptions {
        &self.shared.options
    }

    /// What it has done.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Requests that wait for a slot.
    pub fn waiting(&self) -> usize {
        self.shared.inbox().queue.len()
    }

    /// What the slots do.
    pub fn slots(&self) -> Vec<SlotState> {
        self.shared.slots()
    }

    /// Whether requests are taken.
    pub fn is_serving(&self) -> bool {
        self.shared.inbox().mode == Mode::Serving
    }

    /// Whether its thread has ended without being told to.
    pub fn has_failed(&self) -> bool {
        self.shared.inbox().mode == Mode::Failed
    }

    /// Ends the engine: what waits is told so, answers at work may go on for `grace`. Returns at once.
    pub fn stop(&self, grace: Duration) {
        let end = Instant::now() + grace;
        let mut inbox = self.shared.inbox();
        inbox.mode = match inbox.mode {
            Mode::Serving => Mode::Draining(end),
            Mode::Draining(before) => Mode::Draining(before.min(end)),
            Mode::Failed => Mode::Failed,
        };
        drop(inbox);
        self.shared.wake();
    }

    /// Waits for the end of an engine that was told to stop.
    pub fn join(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic was reported where it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
        self.join();
    }
}

/// Refuses and cancels everything when it is dropped.
struct Close<'a>(&'a Shared);

impl Drop for Close<'_> {
    fn drop(&mut self) {
        let mut inbox = self.0.inbox();
        inbox.mode = match std::thread::panicking() {
            true => Mode::Failed,
            false => Mode::Draining(Instant::now()),
        };
        for job in inbox.queue.drain() {
            let _ = job.events.send((job.answer, Event::Failed(EngineError::Stopping)));
        }
    }
}

/// Why an engine does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An option is 0 with which no answer would ever come.
    #[error("`{0}` is 0; at least 1 is needed")]
    Zero(&'static str),
    /// The model's state cannot be made.
    #[error(transparent)]
    Model(#[from] Error),
    /// The system refuses.
    #[error("the engine's thread cannot be started")]
    Thread(#[from] std::io::Error),
}
