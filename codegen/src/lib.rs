//! The kernel generator: from what a kernel is to Rust text.
//!
//! ```text
//! Spec  --plan-->  Plan  --lower-->  ops  --spell-->  TokenStream  --emit-->  text
//! ```
//!
//! * [`Spec`] says what is wanted; it has the same parts as a kernel's name.
//! * [`Plan`] proves that it is legal: the int16 bounds, the vector width, the micro tile.
//! * [`lower`] writes the algorithm once, as a list of [`op::Op`]s, for every ISA.
//! * [`spelling`] has one table per ISA that spells each op.
//! * [`emit`] wraps the result into a documented function and a registry entry.
//! * [`lattice`] lists the kernels that are compiled in.
//!
//! Gemm kernels go the same way from their name: [`GemmPlan`], then [`emit_gemm`]; kernels of small batches by
//! [`BatchPlan`] and [`emit_batch`].
//!
//! The three front doors (`kernels!`, the build-script API and `trilut codegen`) all call [`generate`].

mod batch;
pub mod emit;
mod emit_batch;
mod emit_gemm;
mod error;
mod gemm;
pub mod lattice;
mod lower;
pub mod op;
mod plan;
mod spec;
pub mod spelling;

pub use batch::BatchPlan;
pub use emit::{Generated, module};
pub use emit_batch::{GeneratedBatch, emit_batch};
pub use emit_gemm::{GeneratedGemm, emit_gemm};
pub use error::Error;
pub use gemm::GemmPlan;
pub use plan::{Bank, Plan};
pub use spec::Spec;

/// Plans, lowers, spells and emits one kernel.
///
/// # Errors
/// When the spec is illegal; the error names the rule and the nearest legal values.
pub fn generate(spec: &Spec) -> Result<Generated, Error> {
    Ok(emit::emit(&Plan::new(spec)?))
}
