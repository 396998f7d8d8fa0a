//! The server that is measured: one that runs already, or one of our own in this process, whose engine can
//! then be asked without HTTP as well.

use super::super::super::failure::Failure;
use super::super::super::model::Source;
use super::super::super::run::Engine as Loading;
use super::super::super::serve::share_heap;
use super::client::{Client, Heard};
use crate::cli::output::say;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;
use trilut_runtime::SamplerOptions;
use trilut_server::engine::{Engine, EngineOptions, Event, Penalties, Request};
use trilut_server::{Limits, Served, Server, ServerOptions};

/// A server and how to ask it.
pub(super) struct Subject {
    pub(super) client: Client,
    /// Where it listens.
    pub(super) address: String,
    /// The engine of a server of our own.
    engine: Option<Arc<Engine>>,
    /// Tokens that end answers; known of a server of our own.
    stops: Vec<u32>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Subject {
    /// A server that runs already.
    pub(super) fn running(url: &str, key: Option<String>) -> Self {
        Self {
            client: Client::new(url, key),
            address: url.to_owned(),
            engine: None,
            stops: Vec::new(),
            end: Arc::default(),
            thread: None,
        }
    }

    /// A server of our own.
    pub(super) fn start(
        source: &Source,
        loading: &Loading,
        options: EngineOptions,
    ) -> Result<Self, Failure> {
        let gguf = source.open()?;
        let model = loading.load(&gguf)?;
        let stops = model.tokenizer().stops().to_vec();
        let served = Served::new(&gguf, model, "measured")?;
        // What is at work at the end is not waited for.
        let limits = Limits { grace: std::time::Duration::ZERO, ..Limits::default() };
        let options = ServerOptions { engine: options, limits, ..ServerOptions::default() };
        // As `trilut serve` does, as far as threads are not there already.
        share_heap();
        let server = Server::bind(served, "127.0.0.1", 0, options)?;
        let (address, engine) = (format!("http://{}", server.address()), server.engine());
        let end = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&end);
        let run = move || {
            if let Err(error) = server.run(|| asked.load(Ordering::Relaxed)) {
                say!("note: the server failed: {error}");
            }
        };
        let thread = std::thread::Builder::new().name("server".to_owned()).spawn(run)?;
        Ok(Self {
            client: Client::new(&address, None),
            address,
            engine: Some(engine),
            stops,
            end,
            thread: Some(thread),
        })
    }

    /// What the server says of itself.
    pub(super) fn props(&self) -> Result<Value, Failure> {
        self.client.get("/props")
    }

    /// Whether the engine can be asked without HTTP.
    pub(super) fn has_engine(&self) -> bool {
        self.engine.is_some()
    }

    /// Has a prompt continued over HTTP.
    pub(super) fn listen(&self, prompt: &[u32], most: usize) -> Result<Heard, Failure> {
        self.client.listen(prompt, most)
    }

    /// Has a prompt continued by the engine itself, as [`listen`](Self::listen) does over HTTP.
    pub(super) fn listen_without_http(
        &self,
        prompt: &[u32],
        most: usize,
    ) -> Result<Heard, Failure> {
        let engine = self.engine.as_ref().ok_or_else(|| Failure::new("the engine is elsewhere"))?;
        let request = Request {
            prompt: prompt.to_vec(),
            max_tokens: most,
            sampling: SamplerOptions::greedy(),
            penalties: Penalties::default(),
            bias: self.stops.iter().map(|&token| (token, f32::NEG_INFINITY)).collect(),
            stop: Vec::new(),
            logprobs: None,
            constraint: None,
        };
        let mut events = engine.submit(None, vec![request]).map_err(|error| Failure::of(&error))?;
        let mut first = None;
        while let Some((_, event)) = events.blocking_recv() {
            match event {
                Event::Started { .. } => {}
                Event::Piece { .. } => drop(first.get_or_insert_with(Instant::now)),
                Event::Done(done) => {
                    let end = Instant::now();
                    return Ok(Heard { first: first.unwrap_or(end), end, tokens: done.tokens });
                }
                Event::Failed(error) => return Err(Failure::of(&error)),
            }
        }
        Err(Failure::new("the engine ended"))
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic was reported where it happened.
            let _ = thread.join();
        }
    }
}
