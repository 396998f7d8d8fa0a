//! Texts as vectors. One call at a time reads its texts; it shares the model's threads with the engine's
//! forward passes, and others wait in line up to a number.

use crate::app::App;
use crate::engine::EngineOptions;
use crate::error::ApiError;
use crate::input::Passage;
use axum::http::StatusCode;
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

/// What becomes of a text that has more tokens than the context holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TooLong {
    Refused,
    Cut,
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
    pub(crate) async fn vectors(
        &self,
        texts: Vec<Passage>,
        too_long: TooLong,
    ) -> Result<Vectors, ApiError> {
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
                    Passage::Text(text) if too_long == TooLong::Cut => {
                        embedder.tokens_within(&text)
                    }
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

/// What makes the vectors of a server that has any.
pub(crate) fn of(app: &App) -> Result<&Embeddings, ApiError> {
    app.embeddings.as_ref().ok_or_else(|| {
        let message = "this model was not made for embeddings: serve one that was, or start the \
                       server with --pooling mean or --pooling last";
        ApiError::new(StatusCode::NOT_IMPLEMENTED, message).code("no_embeddings")
    })
}

/// Vectors have as many dimensions as the model has; a client may ask for no others.
pub(crate) fn check_dimensions(app: &App, dimensions: Option<usize>) -> Result<(), ApiError> {
    let hidden = app.model.config().hidden;
    if dimensions.is_none_or(|dimensions| dimensions == hidden) {
        return Ok(());
    }
    let message = format!("this model's embeddings have {hidden} dimensions and no other number");
    Err(ApiError::field("dimensions", message))
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
