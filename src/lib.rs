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
//!
//! [`Engine`] says how models are run: by which kernels, those of your own crate included, in how many
//! threads; [`engine`] begins with the presets that the command goes by.

pub mod layers;

use trilut_presets::ladder::Sources;

pub use trilut_codegen as codegen;
pub use trilut_kernels as kernels;
pub use trilut_kernels::include_kernels;
#[doc(hidden)]
pub use trilut_macros as macros;
pub use trilut_presets as presets;
pub use trilut_runtime as runtime;
pub use trilut_runtime::{Engine, EngineBuilder};
pub use trilut_server as server;
pub use trilut_shipped as shipped;
pub use trilut_tuning as tuning;

/// Begins the description of an engine that runs models as the command does: by the presets of the
/// environment, the user's cache, the system and those that ship.
///
/// ```
/// let model = trilut::engine().threads(2).embedded()?;
/// assert_eq!(model.threads(), 2);
/// # Ok::<(), trilut::runtime::Error>(())
/// ```
pub fn engine() -> EngineBuilder {
    Engine::builder().presets(Sources::from_environment(None, trilut_shipped::SHIPPED))
}

/// Generates kernels in a crate that depends on `trilut`: [`macros::kernels!`] with its settings.
///
/// ```
/// mod kernels {
///     trilut::kernels! {
///         shapes = [96 x 192];
///         formats = [i2_s];
///     }
/// }
///
/// let engine = trilut::Engine::builder().kernels(&kernels::REGISTRY).threads(1).build()?;
/// assert!(engine.cpu().find("gemv_i2s_dot_r1u1_scalar_k192").is_some());
/// # Ok::<(), trilut::runtime::Error>(())
/// ```
#[macro_export]
macro_rules! kernels {
    ($($settings:tt)*) => {
        $crate::macros::kernels! { crate = $crate::kernels; $($settings)* }
    };
}
