//! Ollama's API for the one model that is served: generate, chat, and what clients look at before.
//!
//! Answers are streamed as lines of JSON unless a client says otherwise. What belongs to Ollama's store of
//! models (pull, push, create, `keep_alive`) has no meaning here: a client that unloads the model is told so,
//! and the model stays. The context is the server's: what a smaller
//! `num_ctx` would cut off is read, and a larger one is capped, which the server says once.

pub(crate) mod answer;
pub(crate) mod embed;
pub(crate) mod models;
mod request;
