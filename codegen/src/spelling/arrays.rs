//! Vectors as arrays: calls into the modules of `trilut_kernels::lanes`.
//!
//! `portable` is the scalar ISA. `neon` and `avx512` do with arrays what those ISAs' instructions do,
//! so that their op sequences are executed on every host (the emulated ISA).

use super::{Spelling, buffer, map_table, slice};
use crate::op::{Buffer, Half, Lane, Op, Var};
use proc_macro2::{Ident, Span, TokenStream};
use quote::quote;

/// The table for vectors of `width` bytes spelled by the functions of `module`.
pub(super) struct Arrays {
    pub(super) module: &'static str,
    pub(super) width: usize,
}

impl Spelling for Arrays {
    fn prelude(&self) -> TokenStream {
        let module = Ident::new(self.module, Span::call_site());
        quote!(use ::trilut_kernels::lanes::#module as v;)
    }

    fn op(&self, op: &Op) -> TokenStream {
        let w = self.width;
        let (h, d) = (w / 2, w / 4);
        let is_high = |half: &Half| *half == Half::High;
        match op {
            Op::Zero(Lane::I16) => quote!([0i16; #h]),
            Op::Zero(Lane::I32) => quote!([0i32; #d]),
            Op::Load { from, at } => {
                let from = slice(*from);
                quote!(v::load::<#w>(#from, #at))
            }
            Op::LoadLow { from, at } => {
                let from = slice(*from);
                quote!(v::load_low::<#w>(#from, #at))
            }
            Op::LoadTwo { at: [a, b] } => quote!(v::load_two::<#w>(weights, #a, #b)),
            Op::LoadPair { from: [low, high], at } => {
                let (low, high) = (slice(*low), slice(*high));
                quote!(v::load_pair::<#w>(#low, #high, #at))
            }
            Op::SignsTwo { at: [a, b] } => quote!(v::expand_two::<#w>(weights, #a, #b)),
            Op::Table { at } => quote!(v::table::<#w>(q, #at)),
            Op::Signs { at } => quote!(v::expand_bits::<#w>(weights, #at)),
            Op::Field { a, shift, mask } => quote!(v::field::<#w>(#a, #shift, #mask)),
            Op::Triple { a } => quote!(v::triple::<#w>(#a)),
            Op::Flip { a } => quote!(v::flip::<#w>(#a)),
            Op::Digit { a } => quote!(v::digit::<#w>(#a)),
            Op::Map { a, table } => {
                let table = map_table(table);
                quote!(v::map::<#w>(#a, &#table))
            }
            Op::MulAddPairs { codes, q } => quote!(v::mul_add_pairs::<#w, #h>(#codes, #q)),
            Op::MulAddAny { codes, q } => quote!(v::mul_add_any::<#w, #h>(#codes, #q)),
            Op::MatMul { acc, codes, q } => quote!(v::mat_mul::<#w, #d>(#acc, #codes, #q)),
            Op::Join { a, b, half } => {
                let half = is_high(half);
                quote!(v::join::<#d>(#a, #b, #half))
            }
            Op::Dot { acc, codes, q } => quote!(v::dot::<#w, #d>(#acc, #codes, #q)),
            Op::Lookup { table, index } => quote!(v::lookup::<#w>(#table, #index)),
            Op::Xor { a, b } => quote!(v::xor::<#w>(#a, #b)),
            Op::Interleave { low, high, half } => {
                let half = is_high(half);
                quote!(v::interleave::<#w, #h>(#low, #high, #half))
            }
            Op::Add { lane: Lane::I16, a, b } => quote!(v::add_i16::<#h>(#a, #b)),
            Op::Add { lane: Lane::I32, a, b } => quote!(v::add_i32::<#d>(#a, #b)),
            Op::WidenPairs { acc, a } => quote!(v::widen_pairs::<#h, #d>(#acc, #a)),
            Op::WidenHalf { acc, a, half } => {
                let half = is_high(half);
                quote!(v::widen_half::<#h, #d>(#acc, #a, #half))
            }
            Op::Sub { lane: Lane::I16, a, b } => quote!(v::sub_i16::<#h>(#a, #b)),
            Op::Sub { lane: Lane::I32, a, b } => quote!(v::sub_i32::<#d>(#a, #b)),
            Op::LoadTokens { at } => quote!(v::load_tokens::<#h>(q, #at)),
            Op::LoadLanes { from, at } => {
                let lanes = if *from == Buffer::Scratch { h } else { d };
                let from = buffer(*from);
                quote!(v::load_lanes::<_, #lanes>(#from, #at))
            }
            Op::Broadcast { at } => quote!(v::broadcast::<#w>(weights, #at)),
            Op::ShiftRight { a, bits } => quote!(v::shift_right::<#d>(#a, #bits)),
        }
    }

    fn sum(&self, a: &Var) -> TokenStream {
        let d = self.width / 4;
        quote!(v::sum::<#d>(#a))
    }

    fn store(&self, at: usize, a: &Var) -> TokenStream {
        quote!(v::store_rows(&mut sums[#at..], &#a);)
    }

    fn keep(&self, to: Buffer, at: &TokenStream, a: &Var) -> TokenStream {
        let lanes = if to == Buffer::Scratch { self.width / 2 } else { self.width / 4 };
        let to = buffer(to);
        quote!(#to[#at..][..#lanes].copy_from_slice(&#a);)
    }

    fn prefetch(&self, _: &TokenStream) -> TokenStream {
        // Portable Rust has no prefetch.
        TokenStream::new()
    }

    fn instructions(&self, op: &Op) -> f64 {
        match op {
            Op::Zero(_) => 0.0,
            // Table lookups go byte by byte.
            Op::Lookup { .. } | Op::Signs { .. } | Op::SignsTwo { .. } | Op::Map { .. } => {
                2.0 * self.width as f64
            }
            Op::MulAddPairs { .. } | Op::MulAddAny { .. } | Op::Dot { .. } | Op::MatMul { .. } => {
                8.0
            }
            Op::Triple { .. } | Op::Digit { .. } => 4.0,
            _ => 2.0,
        }
    }
}
