//! OpenAI's API, as far as a text model on one machine has something to say to it.

pub(crate) mod chat;
mod chunks;
pub(crate) mod completions;
pub(crate) mod embeddings;
pub(crate) mod models;
pub(crate) mod request;
pub(crate) mod wire;
