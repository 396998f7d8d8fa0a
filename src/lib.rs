//! Kernels, autotuner, presets and runtime for ternary (BitNet b1.58) language models on CPUs.
//!
//! This crate is the facade: it re-exports the workspace's crates and holds the `trilut` command.
//!
//! ```
//! use std::ops::ControlFlow;
//! use trilut::runtime::{GenerateOptions, Model};
//!
//! let mut session = Model::embedded()?.session()?;
//! let options = GenerateOptions { max_tokens: 8, ..GenerateOptions::greedy() };
//! let story = session.generate("Once upon a time", &options, |_| ControlFlow::Continue(()))?;
//! assert_eq!(story.tokens, 8);
//! # Ok::<(), trilut::runtime::Error>(())
//! ```

pub use trilut_codegen as codegen;
pub use trilut_kernels as kernels;
pub use trilut_macros::kernels;
pub use trilut_presets as presets;
pub use trilut_runtime as runtime;
pub use trilut_shipped as shipped;
pub use trilut_tuning as tuning;
