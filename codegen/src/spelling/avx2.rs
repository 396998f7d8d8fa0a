//! AVX2: 32-byte vectors of `core::arch::x86_64`.
//!
//! Loads and stores are the only unsafe expressions. The offsets they use stay inside the
//! slices because `Gemv::check` has compared the slices' lengths with the layout of the shape, and the
//! loops run over that layout.

use super::{Spelling, slice, tokens};
use crate::op::{Buffer, Half, Lane, Op, Var};
use proc_macro2::TokenStream;
use quote::quote;

/// The AVX2 table.
pub(super) struct Avx2;

impl Spelling for Avx2 {
    fn prelude(&self) -> TokenStream {
        quote!(
            use ::core::arch::x86_64::*;
        )
    }

    fn op(&self, op: &Op) -> TokenStream {
        match op {
            Op::Zero(_) => quote!(_mm256_setzero_si256()),
            Op::Load { from, at } => {
                let from = slice(*from);
                // SAFETY of the generated block: the offset is inside the slice, see above.
                quote!(unsafe { _mm256_loadu_si256(#from.as_ptr().add(#at).cast()) })
            }
            Op::LoadLow { .. } | Op::LoadTwo { .. } | Op::SignsTwo { .. } | Op::Map { .. } => {
                unreachable!("only kernels with 64-byte vectors need it")
            }
            // SAFETY of the generated block: the offset is inside the slice, see above.
            Op::Table { at } => quote!(unsafe {
                _mm256_broadcastsi128_si256(_mm_loadu_si128(q.as_ptr().add(#at).cast()))
            }),
            // SAFETY of the generated block: the offset is inside the slice, see above.
            Op::Signs { at } => quote!(::trilut_kernels::lanes::avx2::expand_bits(unsafe {
                weights.as_ptr().add(#at).cast::<i32>().read_unaligned()
            })),
            Op::Field { a, shift: 0, mask } => {
                quote!(_mm256_and_si256(#a, _mm256_set1_epi8(#mask as i8)))
            }
            Op::Field { a, shift, mask } => {
                let shift = *shift as i32;
                quote!(_mm256_and_si256(_mm256_srli_epi16::<#shift>(#a), _mm256_set1_epi8(#mask as i8)))
            }
            Op::Triple { a } => quote!(::trilut_kernels::lanes::avx2::triple(#a)),
            Op::Flip { a } => quote!(_mm256_xor_si256(#a, _mm256_set1_epi8(-128))),
            // x > 85 and x > 170 of x = a ^ 0x80, as signed comparisons; each gives -1.
            Op::Digit { a } => quote!(_mm256_abs_epi8(_mm256_add_epi8(
                _mm256_cmpgt_epi8(#a, _mm256_set1_epi8(-43)),
                _mm256_cmpgt_epi8(#a, _mm256_set1_epi8(42))
            ))),
            Op::MulAddPairs { codes, q } | Op::MulAddAny { codes, q } => {
                quote!(_mm256_maddubs_epi16(#codes, #q))
            }
            Op::Dot { .. } => unreachable!("the plan refuses `dot` on AVX2"),
            Op::MatMul { .. } | Op::Join { .. } | Op::LoadPair { .. } => {
                unreachable!("the plan refuses `mmla` on AVX2")
            }
            Op::Lookup { table, index } => quote!(_mm256_shuffle_epi8(#table, #index)),
            Op::Xor { a, b } => quote!(_mm256_xor_si256(#a, #b)),
            Op::Interleave { low, high, half: Half::Low } => {
                quote!(_mm256_unpacklo_epi8(#low, #high))
            }
            Op::Interleave { low, high, half: Half::High } => {
                quote!(_mm256_unpackhi_epi8(#low, #high))
            }
            Op::Add { lane: Lane::I16, a, b } => quote!(_mm256_add_epi16(#a, #b)),
            Op::Add { lane: Lane::I32, a, b } => quote!(_mm256_add_epi32(#a, #b)),
            Op::WidenPairs { acc, a } => {
                quote!(_mm256_add_epi32(#acc, _mm256_madd_epi16(#a, _mm256_set1_epi16(1))))
            }
            Op::WidenHalf { acc, a, half } => {
                let half = match half {
                    Half::Low => quote!(_mm256_castsi256_si128(#a)),
                    Half::High => quote!(_mm256_extracti128_si256::<1>(#a)),
                };
                quote!(_mm256_add_epi32(#acc, _mm256_cvtepi16_epi32(#half)))
            }
            Op::Sub { .. }
            | Op::LoadTokens { .. }
            | Op::LoadLanes { .. }
            | Op::Broadcast { .. } => tokens::op(256, op),
            Op::ShiftRight { a, bits } => {
                let bits = *bits as i32;
                quote!(_mm256_srai_epi32::<#bits>(#a))
            }
        }
    }

    fn sum(&self, a: &Var) -> TokenStream {
        quote!(::trilut_kernels::lanes::avx2::sum(#a))
    }

    fn store_sums(&self, at: &TokenStream, sums: &[Var], minus: &TokenStream) -> TokenStream {
        match sums {
            [a, b, c, d] => quote! {
                out[#at..][..4].copy_from_slice(&::trilut_kernels::lanes::avx2::sums(#a, #b, #c, #d, #minus));
            },
            _ => super::store_each(self, at, sums, minus),
        }
    }

    fn store(&self, at: usize, a: &Var) -> TokenStream {
        // SAFETY of the generated block: `sums` has a vector's room at every `at` that is lowered.
        quote!(unsafe { _mm256_storeu_si256(sums.as_mut_ptr().add(#at).cast(), #a) };)
    }

    fn keep(&self, to: Buffer, at: &TokenStream, a: &Var) -> TokenStream {
        tokens::keep(256, to, at, a)
    }

    fn prefetch(&self, at: &TokenStream) -> TokenStream {
        // A prefetch of any address is safe; the pointer is never dereferenced.
        quote!(_mm_prefetch::<_MM_HINT_T0>(weights.as_ptr().wrapping_add(#at).cast());)
    }

    fn instructions(&self, op: &Op) -> f64 {
        match op {
            // Folded into the instruction that uses it, mostly.
            Op::Zero(_) => 0.0,
            Op::Field { shift: 0, .. } => 1.0,
            // The shifted vector is shared by two masks.
            Op::Field { .. } => 1.5,
            Op::Signs { .. } | Op::Digit { .. } => 4.0,
            Op::Triple { .. } => 2.0,
            Op::WidenPairs { .. } => 2.0,
            Op::WidenHalf { .. } => 2.5,
            _ => 1.0,
        }
    }
}
