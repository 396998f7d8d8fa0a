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
//! * [`Named::emit`] wraps the result into a documented function and a registry entry.
//! * [`lattice`] lists the kernels that are compiled in.
//!
//! Gemm kernels go the same way from their name by a [`GemmPlan`], kernels of small batches by a
//! [`BatchPlan`]; a [`Named`] is a legal kernel of any kind, a [`Member`] its text.
//!
//! The three front doors (`kernels!`, the build-script API and `trilut codegen`) all describe a [`Set`]; its
//! module is a [`SetModule`].

mod batch;
mod emit;
mod emit_batch;
mod emit_gemm;
mod emit_gemv;
mod emit_set;
mod error;
mod gemm;
pub mod lattice;
mod lower;
mod named;
pub mod op;
mod plan;
mod set;
mod spec;
pub mod spelling;
mod stored;

pub use batch::BatchPlan;
pub use emit::{Kind, Member, module};
pub use emit_set::{Library, SetModule};
pub use error::Error;
pub use gemm::GemmPlan;
pub use named::Named;
pub use plan::{Bank, Plan};
pub use set::Set;
pub use spec::Spec;
