//! The inference runtime: model files, tokenizer, model graphs and the token loop.
//!
//! [`Model::open`] maps a GGUF file (or [`Model::embedded`] takes the one inside the program),
//! [`Model::session`] begins a text, [`Session::generate`] continues it. [`Engine`] says how models are
//! run: by which kernels, in how many threads.
//!
//! ```
//! use std::ops::ControlFlow;
//! use trilut_runtime::{GenerateOptions, Model};
//!
//! let model = Model::embedded()?;
//! let mut session = model.session()?;
//! let options = GenerateOptions { max_tokens: 16, ..GenerateOptions::greedy() };
//! let generation = session.generate("Once upon a time", &options, |piece| {
//!     print!("{piece}");
//!     ControlFlow::Continue(())
//! })?;
//! assert_eq!(generation.tokens, 16);
//! # Ok::<(), trilut_runtime::Error>(())
//! ```
//!
//! The same model, prompt and seed give the same logits, bit for bit, for every kernel, format, tile,
//! thread count, batch and ISA: see [`model`] for the forward pass and `trilut_kernels::float` for the
//! order of evaluation that this rests on.

pub mod batch;
pub mod budget;
pub mod cache;
pub mod chat;
pub mod check;
pub mod convert;
pub mod dummy;
pub mod embedded;
pub mod embedding;
mod engine;
mod error;
pub mod gguf;
pub mod likelihood;
pub mod logprobs;
mod mapped_file;
pub mod model;
pub mod perplexity;
pub mod sampler;
pub mod session;
pub mod speculation;
pub mod ternary;
pub mod tokenizer;
pub mod trace;

pub use cache::{Cache, CacheType};
pub use engine::{Engine, EngineBuilder};
pub use error::Error;
pub use logprobs::Logprobs;
pub use model::{Config, Family, Load, Model, ModelOptions, Row, State};
pub use perplexity::{Perplexity, PerplexityError, perplexity};
pub use sampler::{Sampler, SamplerOptions};
pub use session::{Finish, GenerateOptions, Generation, OnFull, Session};
pub use trace::Trace;
