//! AVX-512 (F, BW, VL, VNNI, and VBMI for [`Op::Map`]): 64-byte vectors.
//!
//! Loads and stores are the only unsafe expressions; their offsets are inside the slices as argued for
//! AVX2, and for gemm kernels in `tokens`.

use super::{Spelling, map_table, slice, tokens};
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
            Op::LoadLow { from, at } => {
                let from = slice(*from);
                // SAFETY of the generated block: as for `Load`, half as long.
                quote!(_mm512_zextsi256_si512(unsafe {
                    _mm256_loadu_si256(#from.as_ptr().add(#at).cast())
                }))
            }
            Op::Field { a, shift: 0, mask } => {
                quote!(_mm512_and_si512(#a, _mm512_set1_epi8(#mask as i8)))
            }
            Op::Field { a, shift, mask } => {
                quote!(_mm512_and_si512(_mm512_srli_epi16::<#shift>(#a), _mm512_set1_epi8(#mask as i8)))
            }
            Op::Flip { a } => quote!(_mm512_xor_si512(#a, _mm512_set1_epi8(-128))),
            Op::Digit { a } => quote!(::trilut_kernels::lanes::zmm::digit(#a)),
            Op::Triple { a } => quote!(::trilut_kernels::lanes::zmm::triple(#a)),
            Op::Map { a, table } => {
                let table = map_table(table);
                quote!(::trilut_kernels::lanes::zmm::map(#a, &#table))
            }
            Op::Dot { acc, codes, q } => quote!(_mm512_dpbusd_epi32(#acc, #codes, #q)),
            Op::Add { lane: Lane::I16, a, b } => quote!(_mm512_add_epi16(#a, #b)),
            Op::Add { lane: Lane::I32, a, b } => quote!(_mm512_add_epi32(#a, #b)),
            Op::WidenHalf { acc, a, half } => {
                let half = match half {
                    Half::Low => quote!(_mm512_castsi512_si256(#a)),
                    Half::High => quote!(_mm512_extracti64x4_epi64::<1>(#a)),
                };
                quote!(_mm512_add_epi32(#acc, _mm512_cvtepi16_epi32(#half)))
            }
            Op::Sub { .. }
            | Op::LoadTokens { .. }
            | Op::LoadLanes { .. }
            | Op::Broadcast { .. } => tokens::op(512, op),
            Op::ShiftRight { a, bits } => quote!(_mm512_srai_epi32::<#bits>(#a)),
            other => unreachable!("no algorithm that the plan allows here needs {other:?}"),
        }
    }

    fn sum(&self, a: &Var) -> TokenStream {
        quote!(_mm512_reduce_add_epi32(#a))
    }

    fn store_sums(&self, at: &TokenStream, sums: &[Var], minus: &TokenStream) -> TokenStream {
        match sums {
            [a, b, c, d] => quote! {
                out[#at..][..4].copy_from_slice(&::trilut_kernels::lanes::zmm::sums(#a, #b, #c, #d, #minus));
            },
            _ => super::store_each(self, at, sums, minus),
        }
    }

    fn store(&self, _: usize, _: &Var) -> TokenStream {
        unreachable!("lanes of one row are summed")
    }

    fn keep(&self, to: Buffer, at: &TokenStream, a: &Var) -> TokenStream {
        tokens::keep(512, to, at, a)
    }

    fn prefetch(&self, at: &TokenStream) -> TokenStream {
        // A prefetch of any address is safe; the pointer is never dereferenced.
        quote!(_mm_prefetch::<_MM_HINT_T0>(weights.as_ptr().wrapping_add(#at).cast());)
    }

    fn instructions(&self, op: &Op) -> f64 {
        match op {
            Op::Zero(_) => 0.0,
            Op::Field { shift: 1.., .. } => 2.0,
            Op::Triple { .. } => 2.0,
            Op::Digit { .. } => 4.0,
            // Two maps of the same bytes share a mask.
            Op::Map { .. } => 3.5,
            _ => 1.0,
        }
    }
}
