//! What all handlers share, and which handler serves which path.

use crate::embeddings::Embeddings;
use crate::engine::{Client, Engine, Events, Request};
use crate::error::ApiError;
use crate::grammar::Grammars;
use crate::limits::Limits;
use crate::{guard, native, ollama, openai, page};
use axum::Router;
use axum::http::StatusCode;
use axum::middleware;
use axum::response::Response;
use axum::routing::{get, post};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::Semaphore;
use trilut_presets::Machine;
use trilut_runtime::Model;
use trilut_runtime::chat::ChatTemplate;

/// The served model and what is known of it.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) model: Model,
    pub(crate) template: Option<ChatTemplate>,
    /// The name by which clients ask for it.
    pub(crate) name: String,
    pub(crate) engine: Arc<Engine>,
    pub(crate) grammars: Grammars,
    /// For models that give them.
    pub(crate) embeddings: Option<Embeddings>,
    pub(crate) limits: Limits,
    /// Turns of bodies that are [large](Limits::large_bodies).
    pub(crate) large_bodies: Semaphore,
    pub(crate) guard: guard::Guard,
    /// Whether it was said that a client wants a larger context.
    pub(crate) warned: AtomicBool,
    pub(crate) started: Instant,
    /// When it was started, in seconds since 1970.
    pub(crate) created: u64,
    pub(crate) about: About,
    pub(crate) machine: Box<Machine>,
}

/// What is known of the model's file.
#[derive(Debug)]
pub(crate) struct About {
    pub(crate) architecture: String,
    /// Its size.
    pub(crate) bytes: usize,
    /// A name for what it holds.
    pub(crate) digest: String,
    /// Elements of all tensors.
    pub(crate) parameters: u64,
}

impl App {
    /// Checks that a client means the model that is served. No name means it too.
    pub(crate) fn check_model(&self, name: Option<&str>) -> Result<(), ApiError> {
        let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(()) };
        if name == self.name || name.strip_suffix(":latest") == Some(&self.name) {
            return Ok(());
        }
        let name: String = name.chars().take(100).collect();
        let message = format!("the model `{name}` does not exist; this server has `{}`", self.name);
        let error = ApiError::new(StatusCode::NOT_FOUND, message).code("model_not_found");
        Err(ApiError { param: Some("model".to_owned()), ..error })
    }

    /// Says once that a client wants a larger context than there is. It gets what there is, as Ollama's
    /// own server does with models that were made for less: many clients send one number to all models.
    pub(crate) fn check_context(&self, wanted: u64) {
        let context = self.model.context();
        if wanted > context as u64 && !self.warned.swap(true, Ordering::Relaxed) {
            // A stderr that cannot take it is no reason to fail a request.
            let _ = writeln!(
                std::io::stderr(),
                "note: a client asks for a context of {wanted} tokens; it is {context} here, whatever \
                 clients ask for (this is said once)"
            );
        }
    }

    /// Prepares requests, which may take a while, and queues them.
    pub(crate) async fn submit(
        self: &Arc<Self>,
        client: Client,
        prepare: impl FnOnce(&App) -> Result<Vec<Request>, ApiError> + Send + 'static,
    ) -> Result<Events, ApiError> {
        let requests = self.blocking(prepare).await?;
        Ok(self.engine.submit(client, requests)?)
    }

    /// Does something that may take a while where it keeps nobody waiting.
    pub(crate) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&App) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let app = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || work(&app)).await;
        // A panic was reported where it happened.
        done.unwrap_or_else(|_| Err(ApiError::internal("the request could not be prepared")))
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Every path that there is.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(page::index))
        .route("/style.css", get(page::style))
        .route("/app.js", get(page::script))
        .route("/favicon.svg", get(page::icon))
        .route("/v1/models", get(openai::models::list))
        .route("/v1/models/{*id}", get(openai::models::get))
        .route("/v1/chat/completions", post(openai::chat::create))
        .route("/v1/completions", post(openai::completions::create))
        .route("/v1/embeddings", post(openai::embeddings::create))
        .route("/api/version", get(ollama::models::version))
        .route("/api/tags", get(ollama::models::tags))
        .route("/api/ps", get(ollama::models::ps))
        .route("/api/show", post(ollama::models::show))
        .route("/api/generate", post(ollama::answer::generate))
        .route("/api/chat", post(ollama::answer::chat))
        .route("/api/embed", post(ollama::embed::embed))
        .route("/api/embeddings", post(ollama::embed::embedding))
        .route("/health", get(native::health))
        .route("/metrics", get(native::metrics))
        .route("/props", get(native::props))
        .route("/slots", get(native::slots))
        .route("/tokenize", post(native::tokenize))
        .route("/detokenize", post(native::detokenize))
        .route("/apply-template", post(native::apply_template))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), guard::check))
        .with_state(app)
}

async fn unknown(request: axum::extract::Request) -> Response {
    let path = request.uri().path();
    ApiError::new(StatusCode::NOT_FOUND, format!("there is no `{path}`")).response_at(path)
}

async fn wrong_method(request: axum::extract::Request) -> Response {
    let path = request.uri().path();
    let message = format!("`{path}` does not take {}", request.method());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message).response_at(path)
}
