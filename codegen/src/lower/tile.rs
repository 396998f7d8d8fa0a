//! The register tile of gemm: some rows by one tile of tokens, lanes are tokens.
//!
//! The panel holds a row's codes as bytes. Four codes of a row, repeated over a vector, meet the same
//! four inputs of as many tokens as a vector of int32 has lanes. Codes are `t + 1`, so each token's sum
//! of activations is subtracted once at the end.

use super::steps::{self, Level, Steps};
use crate::gemm::GemmPlan;
use crate::op::{Buffer, Builder, Lane, Op, Source, Stmt, Var};
use quote::{format_ident, quote};

/// All rows of the panel, `tile` at a time, then one at a time.
pub(super) fn rows(plan: &GemmPlan, tile: usize, b: &mut Builder) {
    b.scalar(quote! {
        let stride = groups * 4;
        let mut row = 0;
    });
    if tile > 1 {
        b.repeat(quote!(row + #tile <= rows), |b| pass(plan, tile, b));
    }
    b.repeat(quote!(row < rows), |b| pass(plan, 1, b));
}

/// One pass over the token tile for `rows` rows.
fn pass(plan: &GemmPlan, rows: usize, b: &mut Builder) {
    let (vectors, lanes, tokens) = (plan.vectors(), plan.width / 4, plan.name.tokens);
    for i in 0..rows {
        let base = format_ident!("base{i}");
        b.scalar(quote!(let #base = (row + #i) * stride;));
    }
    let sums = b.sums("sum", Lane::I32, rows * vectors);
    b.scalar(quote!(let mut step = 0;));
    let levels: Vec<Level> = plan
        .banks
        .iter()
        .map(|bank| Level {
            steps: bank.steps,
            hint: "bank",
            count: rows * vectors,
            lane: Lane::I16,
        })
        .collect();
    let steps = Tile { plan, rows, sums: &sums };
    steps::emit(b, &levels, quote!(groups), 1, &steps);
    for (i, sums) in sums.chunks_exact(vectors).enumerate() {
        for (vector, sum) in sums.iter().enumerate() {
            let part = vector * lanes;
            let at = quote!(#part);
            let extra = b.bind("extra", Op::LoadLanes { from: Buffer::TokenSums, at });
            let op = Op::Sub { lane: Lane::I32, a: sum.clone(), b: extra };
            let a = b.bind("exact", op);
            let at = quote!((row + #i) * #tokens + #part);
            b.push(Stmt::Keep { to: Buffer::Sums, at, a });
        }
    }
    b.scalar(quote!(row += #rows;));
}

/// The steps of one pass: four inputs each.
struct Tile<'a> {
    plan: &'a GemmPlan,
    rows: usize,
    /// int32 sums, by row and vector.
    sums: &'a [Var],
}

impl Steps for Tile<'_> {
    fn widen(&self, b: &mut Builder, _: usize, bank: &[Var]) {
        for (acc, a) in self.sums.iter().zip(bank) {
            b.set(acc, Op::WidenPairs { acc: acc.clone(), a: a.clone() });
        }
    }

    fn step(&self, b: &mut Builder, banks: &[Vec<Var>], _: usize) {
        let Self { plan, rows, sums } = *self;
        let (vectors, width) = (plan.vectors(), plan.width);
        let bytes = plan.name.tokens * 4;
        let q: Vec<Var> = (0..vectors)
            .map(|vector| {
                let part = vector * width;
                let at = quote!(step * #bytes + #part);
                b.bind("q", Op::Load { from: Source::Activations, at })
            })
            .collect();
        for i in 0..rows {
            let base = format_ident!("base{i}");
            let codes = b.bind("codes", Op::Broadcast { at: quote!(#base + step * 4) });
            for (vector, q) in q.iter().enumerate() {
                let (index, codes, q) = (i * vectors + vector, codes.clone(), q.clone());
                match banks.first() {
                    None => {
                        let acc = &sums[index];
                        b.set(acc, Op::Dot { acc: acc.clone(), codes, q });
                    }
                    Some(bank) => {
                        let pairs = b.bind("pairs", Op::MulAddPairs { codes, q });
                        steps::accumulate(b, &bank[index], pairs);
                    }
                }
            }
        }
    }
}
