//! Texts as vectors. One call at a time reads its texts; it shares the model's threads with the engine's
//! forward passes, and others wait in line up to a number.

use crate::engine::EngineOptions;
use crate::error::ApiError;
use crate::input::Passage;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{Mutex, Semaphore};
use trilut_runtime::embedding::{Embedder, Pooling};
use trilut_runtime::{Error, Model};

/// The most texts of one call.
const MOST_TEXTS: usize = 2048;

/// Makes vectors.
#[derive(Debug)]
pub(crate) struct Embeddings {
    embedder: Arc<Mutex<Embedder>>,
    /// Calls that may wait.
    places: Semaphore,
}

/// The vectors of a call's texts, and how many tokens these had.
#[derive(Debug)]
pub(crate) struct Vectors {
    pub(crate) vectors: Vec<Vec<f32>>,
    pub(crate) tokens: usize,
}

/// Tells a call that nobody waits for it any more.
struct Cancel(Arc<AtomicBool>);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Embeddings {
    /// As many calls may wait as for the engine. Texts are read in parts that delay the engine's answers no more
    /// than the parts of a prompt do.
    pub(crate) fn new(
        model: Model,
        pooling: Pooling,
        options: &EngineOptions,
    ) -> Result<Self, Error> {
        let embedder = Embedder::new(model, pooling)?.in_blocks_of(options.prompt_rows);
        let embedder = Arc::new(Mutex::new(embedder));
        Ok(Self { embedder, places: Semaphore::new(options.queue) })
    }

    /// The vectors of texts, or of tokens that the model has.
    pub(crate) async fn vectors(&self, texts: Vec<Passage>) -> Result<Vectors, ApiError> {
        if texts.is_empty() || texts.len() > MOST_TEXTS {
            let message = format!("`input` has {} texts, not 1 to {MOST_TEXTS}", texts.len());
            return Err(ApiError::field("input", message));
        }
        let Ok(_place) = self.places.try_acquire() else {
            return Err(ApiError::busy("too many texts are waiting to be embedded", 1));
        };
        let mut embedder = Arc::clone(&self.embedder).lock_owned().await;
        let cancelled = Arc::new(AtomicBool::new(false));
        let _cancel = Cancel(Arc::clone(&cancelled));
        let work = move || {
            let (mut vectors, mut tokens) = (Vec::with_capacity(texts.len()), 0);
            for (index, passage) in texts.into_iter().enumerate() {
                if cancelled.load(Ordering::Relaxed) {
                    break;
                }
                let passage = match passage {
                    Passage::Text(text) => embedder.tokens(&text),
                    Passage::Tokens(tokens) => tokens,
                };
                tokens += passage.len();
                let vector = embedder.embed_tokens(&passage);
                vectors.push(vector.map_err(|error| refused(index, &error))?);
            }
            Ok(Vectors { vectors, tokens })
        };
        let done = tokio::task::spawn_blocking(work).await;
        done.unwrap_or_else(|_| Err(ApiError::internal("the texts could not be embedded")))
    }
}

/// A text that has no vector.
fn refused(index: usize, error: &Error) -> ApiError {
    match error {
        Error::ContextFull { tokens, context, .. } => {
            let message =
                format!("text {index} has {tokens} tokens; the model's context has {context}");
            ApiError::field("input", message).code("context_length_exceeded")
        }
        Error::Empty => ApiError::field("input", format!("text {index} is empty")),
        error => ApiError::internal(format!("text {index}: {error}")),
    }
}
