//! AVX-VNNI: the AVX2 table, and its own 32-byte `vpdpbusd`.

use super::Spelling;
use super::avx2::Avx2;
use crate::op::{Buffer, Op, Var};
use proc_macro2::TokenStream;
use quote::quote;

/// The AVX-VNNI table.
pub(super) struct AvxVnni;

impl Spelling for AvxVnni {
    fn prelude(&self) -> TokenStream {
        Avx2.prelude()
    }

    fn op(&self, op: &Op) -> TokenStream {
        match op {
            Op::Dot { acc, codes, q } => quote!(_mm256_dpbusd_avx_epi32(#acc, #codes, #q)),
            shared => Avx2.op(shared),
        }
    }

    fn sum(&self, a: &Var) -> TokenStream {
        Avx2.sum(a)
    }

    fn store_sums(&self, at: &TokenStream, sums: &[Var], minus: &TokenStream) -> TokenStream {
        Avx2.store_sums(at, sums, minus)
    }

    fn store(&self, at: usize, a: &Var) -> TokenStream {
        Avx2.store(at, a)
    }

    fn keep(&self, to: Buffer, at: &TokenStream, a: &Var) -> TokenStream {
        Avx2.keep(to, at, a)
    }

    fn prefetch(&self, at: &TokenStream) -> TokenStream {
        Avx2.prefetch(at)
    }

    fn instructions(&self, op: &Op) -> f64 {
        Avx2.instructions(op)
    }
}
