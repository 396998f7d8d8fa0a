//! Serving a model: the OpenAI and Ollama APIs and a web page, for many chats at once.
//!
//! [`Server::bind`] takes a loaded model and an address, [`Server::run`] serves until it is told to end.
//! Requests become token sequences ([`engine`]) that share the model's forward passes; the text of an answer
//! does not depend on what else is served at the time.

mod app;
mod body;
pub mod engine;
mod error;
pub mod grammar;
mod guard;
mod limits;
mod listen;
mod native;
mod ollama;
mod openai;
mod page;
mod prompt;
mod server;
mod settings;

pub use limits::Limits;
pub use server::{Ended, ServeError, Served, Server, ServerOptions};
