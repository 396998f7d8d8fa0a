//! AVX-512 (F, BW, VL, VNNI): 64-byte vectors of `core::arch::x86_64`.

use super::{Spelling, slice, tokens};
use crate::op::{Buffer, Half, Lane, Op, Var};
use proc_macro2::TokenStream;
use quote::quote;

/// The AVX-512 table.
pub(super) struct Avx512;

impl Spelling for Avx512 {
    fn prelude(&self) -> TokenStream {
        quote!(
            use ::core::arch::x86_64::*;
        )
    }

    fn op(&self, op: &Op) -> TokenStream {
        match op {
            Op::Zero(_) => quote!(_mm512_setzero_si512()),
            Op::Load { from, at } => {
                let from = slice(*from);
                // SAFETY of the generated block: the offset is inside the slice, see above.
                quote!(unsafe { _mm512_loadu_si512(#from.as_ptr().add(#at).cast()) })
            }
            Op::MulAddPairs { codes, q } => quote!(_mm512_maddubs_epi16(#codes, #q)),
            Op::Dot { acc, codes, q } => quote!(_mm512_dpbusd_epi32(#acc, #codes, #q)),
            Op::Add { lane: Lane::I16, a, b } => quote!(_mm512_add_epi16(#a, #b)),
            Op::Add { lane: Lane::I32, a, b } => quote!(_mm512_add_epi32(#a, #b)),
            Op::WidenPairs { acc, a } => {
                quote!(_mm512_add_epi32(#acc, _mm512_madd_epi16(#a, _mm512_set1_epi16(1))))
            }
            Op::WidenHalf { acc, a, half } => {
                let half = match half {
                    Half::Low => quote!(_mm512_castsi512_si256(#a)),
                    Half::High => quote!(_mm512_extracti64x4_epi64::<1>(#a)),
                };
                quote!(_mm512_add_epi32(#acc, _mm512_cvtepi16_epi32(#half)))
            }
            _ => tokens::op(512, op),
        }
    }

    fn sum(&self, a: &Var) -> TokenStream {
        quote!(_mm512_reduce_add_epi32(#a))
    }

    fn store(&self, at: usize, a: &Var) -> TokenStream {
        // SAFETY of the generated block: `sums` has a vector's room at every `at` that is lowered.
        quote!(unsafe { _mm512_storeu_si512(sums.as_mut_ptr().add(#at).cast(), #a) };)
    }

    fn keep(&self, to: Buffer, at: &TokenStream, a: &Var) -> TokenStream {
        tokens::keep(512, to, at, a)
    }

    fn prefetch(&self, at: &TokenStream) -> TokenStream {
        quote!(_mm_prefetch::<_MM_HINT_T0>(weights.as_ptr().wrapping_add(#at).cast());)
    }

    fn instructions(&self, op: &Op) -> f64 {
        match op {
            Op::Zero(_) => 0.0,
            Op::WidenPairs { .. } => 2.0,
            Op::WidenHalf { .. } => 2.5,
            _ => 1.0,
        }
    }
}
