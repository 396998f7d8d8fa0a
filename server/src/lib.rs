//! Serving a model: the OpenAI and Ollama APIs and a web page, for many chats at once.
//!
//! [`Server::bind`] takes a loaded model and an address, [`Server::run`] serves until it is told to end.
//! Requests become token sequences ([`engine`]) that share the model's forward passes; the text of an answer
//! does not depend on what else is served at the time.
//!
//! ```no_run
//! use trilut_runtime::gguf::Gguf;
//! use trilut_runtime::{Model, ModelOptions};
//! use trilut_server::{Served, Server, ServerOptions};
//!
//! let gguf = Gguf::open("model.gguf")?;
//! let model = Model::open_with(&gguf, &ModelOptions::default())?;
//! let served = Served::new(&gguf, model, "mine")?;
//! let server = Server::bind(served, "127.0.0.1", 8080, ServerOptions::default())?;
//! println!("http://{}", server.address());
//! server.run(|| false)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | [`engine`] | the queue, the slots and the loop of forward passes |
//! | [`grammar`] | answers that must be JSON |
//! | `openai`, `ollama`, `native` | what clients say and hear |
//! | `input`, `prompt`, `settings` | from their words to tokens and engine requests |
//! | `embeddings` | texts as vectors, beside the engine |
//! | `guard`, `limits`, `listen`, `body` | who may ask, how much, and for how long |
//! | `page` | the web page, files without a build step |

mod app;
mod body;
mod digest;
mod embeddings;
pub mod engine;
mod error;
pub mod grammar;
mod guard;
mod input;
mod limits;
mod listen;
mod native;
mod ollama;
mod openai;
mod page;
mod prompt;
mod schema;
mod server;
mod settings;

pub use limits::Limits;
pub use server::{Ended, ServeError, Served, Server, ServerOptions};
