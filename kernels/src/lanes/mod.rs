//! What generated kernels call where an ISA has no single instruction for an op, or no instructions at
//! all: [`portable`] vectors as arrays, the same with the op sequences of [`neon`] and [`avx512`], a few
//! sequences of `avx2` and `zmm` (AVX-512), of `asimd` (NEON), `dotprod` and `i8mm`, each on its
//! architecture, and the tables of [`base3`].
//!
//! These functions are part of the contract between the generator and its output, public because
//! `kernels!` expands in other crates.

#[cfg(target_arch = "aarch64")]
pub mod asimd;
#[cfg(target_arch = "x86_64")]
pub mod avx2;
pub mod avx512;
pub mod base3;
#[cfg(target_arch = "aarch64")]
pub mod dotprod;
#[cfg(target_arch = "aarch64")]
pub mod i8mm;
pub mod neon;
pub mod portable;
#[cfg(target_arch = "x86_64")]
pub mod zmm;
