//! NEON: 16-byte vectors of `core::arch::aarch64`, and what the dot-product and matrix extensions add.
//!
//! Bytes are `uint8x16_t` also where their meaning is signed; sums are `int16x8_t` and `int32x4_t`.
//!
//! Loads and stores are the only unsafe expressions; their offsets are inside the slices as argued for
//! AVX2, and for gemm kernels in `tokens`.

use super::{Spelling, buffer, slice};
use crate::op::{Buffer, Half, Lane, Op, Var};
use proc_macro2::{Ident, Span, TokenStream};
use quote::quote;

/// The NEON table.
pub(super) struct Neon {
    /// The module of `trilut_kernels::lanes` with the instructions that an extension adds.
    pub(super) extension: Option<&'static str>,
}

impl Neon {
    fn extension(&self) -> Ident {
        let module = self.extension.expect("the plan refuses products to int32 on plain NEON");
        Ident::new(module, Span::call_site())
    }
}

/// A load of lanes of 16 or 32 bits.
fn load_lanes(lane: Lane) -> TokenStream {
    match lane {
        Lane::I16 => quote!(vld1q_s16),
        Lane::I32 => quote!(vld1q_s32),
    }
}

/// The element type of a buffer.
fn lane(buffer: Buffer) -> Lane {
    match buffer {
        Buffer::Scratch => Lane::I16,
        Buffer::Sums | Buffer::TokenSums => Lane::I32,
    }
}

impl Spelling for Neon {
    fn prelude(&self) -> TokenStream {
        quote!(
            use ::core::arch::aarch64::*;
        )
    }

    fn op(&self, op: &Op) -> TokenStream {
        match op {
            Op::Zero(Lane::I16) => quote!(vdupq_n_s16(0)),
            Op::Zero(Lane::I32) => quote!(vdupq_n_s32(0)),
            Op::Load { from, at } => {
                let from = slice(*from);
                // SAFETY of the generated block: the offset is inside the slice, see above.
                quote!(unsafe { vld1q_u8(#from.as_ptr().add(#at)) })
            }
            Op::LoadTwo { at: [low, high] } => {
                // SAFETY of the generated block: both offsets are inside the slice, see above.
                quote!(unsafe {
                    vcombine_u8(
                        vld1_u8(weights.as_ptr().add(#low)),
                        vld1_u8(weights.as_ptr().add(#high)),
                    )
                })
            }
            Op::LoadPair { from: [low, high], at } => {
                let (low, high) = (slice(*low), slice(*high));
                // SAFETY of the generated block: the offset is inside both slices, see above.
                quote!(unsafe {
                    vcombine_u8(vld1_u8(#low.as_ptr().add(#at)), vld1_u8(#high.as_ptr().add(#at)))
                })
            }
            Op::LoadLow { .. } | Op::SignsTwo { .. } | Op::Map { .. } => {
                unreachable!("only kernels with 64-byte vectors need it")
            }
            // SAFETY of the generated block: the offset is inside the slice, see above.
            Op::Table { at } => quote!(unsafe { vld1q_u8(q.as_ptr().add(#at)) }),
            // SAFETY of the generated block: the offset is inside the slice, see above.
            Op::Signs { at } => quote!(::trilut_kernels::lanes::asimd::expand_bits(unsafe {
                weights.as_ptr().add(#at).cast::<u16>().read_unaligned()
            })),
            Op::Field { a, shift: 0, mask } => quote!(vandq_u8(#a, vdupq_n_u8(#mask))),
            Op::Field { a, shift, mask } => {
                let bits = *shift as i32;
                let shifted = quote!(vshrq_n_u8::<#bits>(#a));
                match 0xff >> shift {
                    // Nothing but the field is left.
                    rest if rest == *mask => shifted,
                    _ => quote!(vandq_u8(#shifted, vdupq_n_u8(#mask))),
                }
            }
            Op::Triple { a } => quote!(vaddq_u8(vaddq_u8(#a, #a), #a)),
            Op::Flip { a } => quote!(veorq_u8(#a, vdupq_n_u8(0x80))),
            Op::Digit { a } => quote!(::trilut_kernels::lanes::asimd::digit(#a)),
            Op::MulAddPairs { codes, q } => {
                quote!(::trilut_kernels::lanes::asimd::mul_add_pairs(#codes, #q))
            }
            Op::MulAddAny { codes, q } => {
                quote!(::trilut_kernels::lanes::asimd::mul_add_any(#codes, #q))
            }
            Op::Dot { acc, codes, q } => {
                let module = self.extension();
                quote!(::trilut_kernels::lanes::#module::dot(#acc, #codes, #q))
            }
            Op::MatMul { acc, codes, q } => {
                let module = self.extension();
                quote!(::trilut_kernels::lanes::#module::mat_mul(#acc, #codes, #q))
            }
            Op::Join { a, b, half: Half::Low } => {
                quote!(vcombine_s32(vget_low_s32(#a), vget_low_s32(#b)))
            }
            Op::Join { a, b, half: Half::High } => {
                quote!(vcombine_s32(vget_high_s32(#a), vget_high_s32(#b)))
            }
            Op::Lookup { table, index } => quote!(vqtbl1q_u8(#table, #index)),
            Op::Xor { a, b } => quote!(veorq_u8(#a, #b)),
            Op::Interleave { low, high, half: Half::Low } => {
                quote!(vreinterpretq_s16_u8(vzip1q_u8(#low, #high)))
            }
            Op::Interleave { low, high, half: Half::High } => {
                quote!(vreinterpretq_s16_u8(vzip2q_u8(#low, #high)))
            }
            Op::Add { lane: Lane::I16, a, b } => quote!(vaddq_s16(#a, #b)),
            Op::Add { lane: Lane::I32, a, b } => quote!(vaddq_s32(#a, #b)),
            Op::Sub { lane: Lane::I16, a, b } => quote!(vsubq_s16(#a, #b)),
            Op::Sub { lane: Lane::I32, a, b } => quote!(vsubq_s32(#a, #b)),
            Op::WidenPairs { acc, a } => quote!(vpadalq_s16(#acc, #a)),
            Op::WidenHalf { acc, a, half: Half::Low } => quote!(vaddw_s16(#acc, vget_low_s16(#a))),
            Op::WidenHalf { acc, a, half: Half::High } => quote!(vaddw_high_s16(#acc, #a)),
            // SAFETY of the generated block: the offset is inside the slice, see above.
            Op::LoadTokens { at } => {
                quote!(vmovl_s8(unsafe { vld1_s8(q.as_ptr().add(#at).cast()) }))
            }
            Op::LoadLanes { from, at } => {
                let load = load_lanes(lane(*from));
                let from = buffer(*from);
                // SAFETY of the generated block: the element is inside the buffer, see above.
                quote!(unsafe { #load(#from.as_ptr().add(#at)) })
            }
            // SAFETY of the generated block: the offset is inside the slice, see above.
            Op::Broadcast { at } => quote!(vreinterpretq_u8_u32(vdupq_n_u32(unsafe {
                weights.as_ptr().add(#at).cast::<u32>().read_unaligned()
            }))),
            Op::ShiftRight { a, bits } => {
                let bits = *bits as i32;
                quote!(vshrq_n_s32::<#bits>(#a))
            }
        }
    }

    fn sum(&self, a: &Var) -> TokenStream {
        quote!(vaddvq_s32(#a))
    }

    fn store(&self, at: usize, a: &Var) -> TokenStream {
        // SAFETY of the generated block: `sums` has a vector's room at every `at` that is lowered.
        quote!(unsafe { vst1q_s32(sums.as_mut_ptr().add(#at), #a) };)
    }

    fn keep(&self, to: Buffer, at: &TokenStream, a: &Var) -> TokenStream {
        let store = match lane(to) {
            Lane::I16 => quote!(vst1q_s16),
            Lane::I32 => quote!(vst1q_s32),
        };
        let to = buffer(to);
        // SAFETY of the generated block: the element is inside the buffer, see above.
        quote!(unsafe { #store(#to.as_mut_ptr().add(#at), #a) };)
    }

    fn prefetch(&self, at: &TokenStream) -> TokenStream {
        quote!(::trilut_kernels::lanes::asimd::prefetch(weights.as_ptr().wrapping_add(#at));)
    }

    fn instructions(&self, op: &Op) -> f64 {
        match op {
            Op::Zero(_) => 0.0,
            // The add that follows is part of a multiply-accumulate.
            Op::MulAddAny { .. } => 1.0,
            Op::Field { shift: 1.., mask, .. } if *mask != 3 => 2.0,
            Op::Triple { .. } | Op::LoadTwo { .. } | Op::LoadPair { .. } => 2.0,
            Op::MulAddPairs { .. } | Op::Signs { .. } => 3.0,
            Op::Digit { .. } => 4.0,
            _ => 1.0,
        }
    }
}
