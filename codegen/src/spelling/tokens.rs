//! The ops of gemm kernels on x86-64, whose lanes are tokens: the same at 256 and 512 bits but for the
//! names.
//!
//! Loads and stores are the only unsafe expressions. `Gemm::check` has compared the lengths of all
//! slices with what the panel's form, its rows and the token tile need, and the loops run over that.

use super::buffer;
use crate::op::{Buffer, Lane, Op, Var};
use proc_macro2::{Ident, Span, TokenStream};
use quote::quote;

fn intrinsic(bits: u32, name: &str) -> Ident {
    Ident::new(&format!("_mm{bits}_{name}"), Span::call_site())
}

/// One of the ops that only gemm kernels use.
pub(super) fn op(bits: u32, op: &Op) -> TokenStream {
    let call = |name: &str| intrinsic(bits, name);
    match op {
        Op::Sub { lane: Lane::I16, a, b } => {
            let sub = call("sub_epi16");
            quote!(#sub(#a, #b))
        }
        Op::Sub { lane: Lane::I32, a, b } => {
            let sub = call("sub_epi32");
            quote!(#sub(#a, #b))
        }
        Op::LoadTokens { at } => {
            let widen = call("cvtepi8_epi16");
            let load = match bits {
                256 => quote!(_mm_loadu_si128),
                _ => quote!(_mm256_loadu_si256),
            };
            // SAFETY of the generated block: the offset is inside the slice, see above.
            quote!(#widen(unsafe { #load(q.as_ptr().add(#at).cast()) }))
        }
        Op::LoadLanes { from, at } => {
            let load = intrinsic(bits, &format!("loadu_si{bits}"));
            let from = buffer(*from);
            // SAFETY of the generated block: the element is inside the buffer, see above.
            quote!(unsafe { #load(#from.as_ptr().add(#at).cast()) })
        }
        Op::Broadcast { at } => {
            let splat = call("set1_epi32");
            // SAFETY of the generated block: the offset is inside the slice, see above.
            quote!(#splat(unsafe { weights.as_ptr().add(#at).cast::<i32>().read_unaligned() }))
        }
        _ => unreachable!("spelled by the table of the ISA"),
    }
}

/// Stores lanes to a buffer.
pub(super) fn keep(bits: u32, to: Buffer, at: &TokenStream, a: &Var) -> TokenStream {
    let store = intrinsic(bits, &format!("storeu_si{bits}"));
    let to = buffer(to);
    // SAFETY of the generated block: the element is inside the buffer, see above.
    quote!(unsafe { #store(#to.as_mut_ptr().add(#at).cast(), #a) };)
}
