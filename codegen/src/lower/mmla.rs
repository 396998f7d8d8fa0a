//! The register tile of gemm by 2 x 2 products of eight inputs each.
//!
//! The panel holds a row's codes as bytes, the token tile eight inputs of each token together. A vector of
//! codes is two rows, a vector of activations two tokens, and their four sums are one vector. At the end
//! the vectors of neighbouring tokens are sorted into rows. Codes are `t + 1`, so each token's sum of
//! activations is subtracted once.

use super::vlut::keep;
use crate::gemm::GemmPlan;
use crate::op::{Buffer, Builder, Half, Lane, Op, Source, Var};
use quote::{format_ident, quote};

/// Tokens of a vector.
const PAIR: usize = 2;

/// All rows of the panel, `tile` at a time, then two at a time; the last of an odd number is taken twice.
pub(super) fn rows(plan: &GemmPlan, tile: usize, b: &mut Builder) {
    b.scalar(quote! {
        let stride = groups * 8;
        let mut row = 0;
    });
    if tile > PAIR {
        b.repeat(quote!(row + #tile <= rows), |b| pass(plan, tile, b));
    }
    b.repeat(quote!(row < rows), |b| pass(plan, PAIR, b));
}

/// One pass over the token tile for `rows` rows.
fn pass(plan: &GemmPlan, rows: usize, b: &mut Builder) {
    let tokens = plan.name.tokens;
    let pairs = tokens / PAIR;
    for i in 0..rows {
        let (row, base) = (format_ident!("row{i}"), format_ident!("base{i}"));
        b.scalar(quote! {
            let #row = usize::min(row + #i, rows - 1);
            let #base = #row * stride;
        });
    }
    let sums = b.sums("sum", Lane::I32, rows / 2 * pairs);
    b.scalar(quote!(let mut step = 0;));
    b.repeat(quote!(step < groups), |b| {
        let load = |b: &mut Builder, pair: usize| {
            let part = pair * 16;
            let bytes = tokens * 8;
            let at = quote!(step * #bytes + #part);
            b.bind("q", Op::Load { from: Source::Activations, at })
        };
        let q: Vec<Var> = (0..pairs).map(|pair| load(b, pair)).collect();
        for (i, sums) in sums.chunks_exact(pairs).enumerate() {
            let bases = [2 * i, 2 * i + 1].map(|i| format_ident!("base{i}"));
            let at = bases.map(|base| quote!(#base + step * 8));
            let codes = b.bind("codes", Op::LoadTwo { at });
            for (acc, q) in sums.iter().zip(&q) {
                let (codes, q) = (codes.clone(), q.clone());
                b.set(acc, Op::MatMul { acc: acc.clone(), codes, q });
            }
        }
        b.scalar(quote!(step += 1;));
    });
    for (i, sums) in sums.chunks_exact(pairs).enumerate() {
        for (at, pair) in sums.chunks_exact(2).enumerate() {
            let part = at * 4;
            for (row, half) in [(2 * i, Half::Low), (2 * i + 1, Half::High)] {
                let op = Op::Join { a: pair[0].clone(), b: pair[1].clone(), half };
                let joined = b.bind("joined", op);
                let extra =
                    b.bind("extra", Op::LoadLanes { from: Buffer::TokenSums, at: quote!(#part) });
                let op = Op::Sub { lane: Lane::I32, a: joined, b: extra };
                let exact = b.bind("exact", op);
                let row = format_ident!("row{row}");
                keep(b, Buffer::Sums, quote!(#row * #tokens + #part), exact);
            }
        }
    }
    b.scalar(quote!(row += #rows;));
}
