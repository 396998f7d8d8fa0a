//! Small batches by 2 x 2 products: two rows by two tokens, eight inputs each.
//!
//! Half a vector is of one row, the other half of the next one: they are loaded together, and unpacked as one
//! (see [`super::batch`]). A vector of activations is eight of one token and eight of the next one. The four
//! sums of a vector are those of both rows with both tokens. Where a row or a token has no neighbour it is its
//! own, so there is a copy of the loop for each number of pairs of tokens.

use super::batch::{Unpacked, base, planes};
use super::steps::{self, Steps};
use crate::batch::BatchPlan;
use crate::op::{Builder, Lane, Op, Source, Stmt, Var};
use proc_macro2::TokenStream;
use quote::{format_ident, quote};

/// Rows and tokens of a vector.
const PAIR: usize = 2;

/// int32 sums of a vector.
const LANES: usize = PAIR * PAIR;

/// Inputs of a vector, which are neighbours in memory.
const INPUTS: usize = 8;

/// One pass over the activations of `size` tokens from `first` on for `rows` rows; `tokens` is their number
/// rounded up to pairs.
pub(super) fn pass(plan: &BatchPlan, rows: usize, tokens: usize, b: &mut Builder) {
    for t in 0..tokens {
        let token = format_ident!("token{t}");
        b.scalar(quote!(let #token = tokens[first + usize::min(#t, size - 1)];));
    }
    let tile = Tile::new(plan, rows, tokens, b);
    b.scalar(quote! {
        let steps = blocks;
        let mut step = 0;
    });
    steps::emit(b, &[], quote!(steps), 1, &tile);
    let count = tile.sums.len() * LANES;
    b.scalar(quote!(let mut sums = [0i32; #count];));
    for (i, sum) in tile.sums.iter().enumerate() {
        b.push(Stmt::StoreLanes { at: i * LANES, a: sum.clone() });
    }
    // Four sums of a pair of rows with a pair of tokens are neighbours, by row.
    let pairs = tokens / PAIR;
    b.each(quote!(t in 0..size), |b| {
        b.scalar(quote! {
            let out = &mut out[(first + t) * width + (row - start)..][..#rows];
        });
        b.each(quote!((i, out) in out.iter_mut().enumerate()), |b| {
            // Codes are t + 1.
            b.scalar(quote! {
                let at = (i / #PAIR * #pairs + t / #PAIR) * #LANES + i % #PAIR * #PAIR + t % #PAIR;
                *out = sums[at] - token_sums[first + t];
            });
        });
    });
}

/// The steps of one pass.
struct Tile<'a> {
    plan: &'a BatchPlan,
    rows: usize,
    tokens: usize,
    /// int32 sums, by pair of rows and pair of tokens.
    sums: Vec<Var>,
}

impl<'a> Tile<'a> {
    fn new(plan: &'a BatchPlan, rows: usize, tokens: usize, b: &mut Builder) -> Self {
        let count = rows.div_ceil(PAIR) * tokens / PAIR;
        Self { plan, rows, tokens, sums: b.sums("sum", Lane::I32, count) }
    }

    /// The next 32 bytes of each row.
    fn prefetch(&self, b: &mut Builder) {
        if self.plan.name.isa.target_arch().is_some() {
            for i in 0..self.rows {
                let base = base(i);
                b.push(Stmt::Prefetch { at: quote!(#base + step * 32 + prefetch) });
            }
        }
    }

    /// Some neighbours of every plane of a step, from byte `part` of the rows' 32 on.
    fn part(&self, b: &mut Builder, part: &TokenStream) {
        let Self { plan, rows, tokens, .. } = *self;
        let planes = planes(plan);
        let block = planes * 32;
        let pairs = tokens / PAIR;
        let mut unpacked: Vec<Unpacked> = (0..rows)
            .step_by(PAIR)
            .map(|i| {
                let bases = [i, (i + 1).min(rows - 1)].map(base);
                let at = bases.map(|base| quote!(#base + step * 32 + #part));
                Unpacked::new(plan, Op::LoadTwo { at }, b)
            })
            .collect();
        for plane in 0..planes {
            let place = plane * 32;
            let codes: Vec<Var> = unpacked.iter_mut().map(|u| u.plane(plane, b)).collect();
            for t in 0..pairs {
                let from = [PAIR * t, PAIR * t + 1].map(Source::Token);
                let at = quote!(step * #block + #place + #part);
                let q = b.bind("q", Op::LoadPair { from, at });
                for (i, codes) in codes.iter().enumerate() {
                    let acc = &self.sums[i * pairs + t];
                    let (codes, q) = (codes.clone(), q.clone());
                    b.set(acc, Op::MatMul { acc: acc.clone(), codes, q });
                }
            }
        }
    }
}

impl Steps for Tile<'_> {
    fn widen(&self, _: &mut Builder, _: usize, _: &[Var]) {
        unreachable!("products go straight to int32")
    }

    /// One step: 32 bytes of each row.
    fn step(&self, b: &mut Builder, _: &[Vec<Var>], _: usize) {
        self.prefetch(b);
        b.scalar(quote!(let mut part = 0;));
        b.repeat(quote!(part < 32), |b| {
            self.part(b, &quote!(part));
            b.scalar(quote!(part += #INPUTS;));
        });
    }
}

/// One step of a full tile alone, for counting: without the loop.
pub(super) fn counted_step(plan: &BatchPlan, b: &mut Builder) {
    let tile = Tile::new(plan, plan.name.rows, plan.name.tokens, b);
    tile.prefetch(b);
    for part in (0..32usize).step_by(INPUTS) {
        tile.part(b, &quote!(#part));
    }
}
