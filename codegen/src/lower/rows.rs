//! Formats that store row after row in blocks of 32 bytes: the loops over rows and blocks.
//!
//! Every byte of a block holds one weight of each plane; plane `p` goes with the activations `32 p ..`
//! of the block. Vectors of 64 bytes take two blocks at a time, for which the activations of two blocks
//! are interleaved plane by plane when they are prepared; an odd last block is a half-filled vector. Padding and
//! the missing half hold code 0 or meet activations of 0.

use super::steps::{self, Level, Steps};
use crate::Plan;
use crate::op::{Builder, Lane, Op, Source, Stmt, Var};
use proc_macro2::TokenStream;
use quote::{format_ident, quote};

/// How the weights of a format are multiplied and summed.
pub(super) trait Codec {
    /// Planes of a block; it has 32 weights of each.
    fn planes(&self) -> usize;

    /// int32 sums that a row keeps through a whole pass.
    fn sums(&self) -> usize;

    /// The banks of `rows` rows: those of a row are neighbours.
    fn levels(&self, rows: usize) -> Vec<Level>;

    /// Adds the products of one vector of a row's weights to the row's banks (by level) or sums.
    fn multiply(&self, b: &mut Builder, codes: Var, q: &[Var], banks: &[&[Var]], sums: &[Var]);

    /// Adds a row's bank of level `level` to its sums.
    fn widen(&self, b: &mut Builder, level: usize, bank: &[Var], sums: &[Var]);

    /// What is added to a row's total: codes are t + 1.
    fn offset(&self) -> TokenStream {
        quote!(-call.sum)
    }

    /// A row's lanes, whose total is its sum of codes times activations.
    fn total(&self, b: &mut Builder, sums: &[Var]) -> Var;
}

/// All rows, `micro.rows` at a time, then one at a time.
pub(super) fn emit(plan: &Plan, codec: &dyn Codec, b: &mut Builder) {
    let block = codec.planes() * 32;
    b.scalar(quote! {
        let blocks = k.div_ceil(#block);
        let stride = blocks * 32;
        let end = call.rows.end;
        let mut row = call.rows.start;
    });
    let rows = plan.spec.name.micro.rows;
    if rows > 1 {
        b.repeat(quote!(row + #rows <= end), |b| pass(plan, codec, rows, b));
    }
    b.repeat(quote!(row < end), |b| pass(plan, codec, 1, b));
}

/// One pass over the activations for `rows` rows.
fn pass(plan: &Plan, codec: &dyn Codec, rows: usize, b: &mut Builder) {
    for i in 0..rows {
        let base = base(i);
        b.scalar(quote!(let #base = (row + #i) * stride;));
    }
    let sums: Vec<Vec<Var>> = (0..rows).map(|_| b.sums("sum", Lane::I32, codec.sums())).collect();
    let wide = plan.width == 64;
    let steps = if wide { quote!(blocks / 2) } else { quote!(blocks) };
    b.scalar(quote! {
        let steps = #steps;
        let mut step = 0;
    });
    let levels = codec.levels(rows);
    let whole = Rows { plan, codec, sums: &sums, half: false };
    steps::emit(b, &levels, quote!(steps), plan.spec.name.micro.unroll, &whole);
    if wide {
        let half = Rows { plan, codec, sums: &sums, half: true };
        b.when(quote!(blocks % 2 == 1), |b| {
            steps::emit(b, &levels, quote!(steps + 1), 1, &half);
        });
    }
    for (i, sums) in sums.iter().enumerate() {
        let total = codec.total(b, sums);
        let place = quote!(call.out[row - call.rows.start + #i]);
        b.push(Stmt::StoreSum { place, a: total, plus: codec.offset() });
    }
    b.scalar(quote!(row += #rows;));
}

/// The steps of one pass.
struct Rows<'a> {
    plan: &'a Plan,
    codec: &'a dyn Codec,
    /// int32 sums, by row.
    sums: &'a [Vec<Var>],
    /// Whether only the first block of a pair is there.
    half: bool,
}

impl Rows<'_> {
    /// A row's part of a bank that all rows share.
    fn part<'b>(&self, bank: &'b [Var], row: usize) -> &'b [Var] {
        let count = bank.len() / self.sums.len();
        &bank[row * count..][..count]
    }

    /// The activations of every plane at byte `part` of the blocks of a step.
    fn activations(&self, b: &mut Builder, step: &TokenStream, part: usize) -> Vec<Var> {
        let stored = self.plan.width.max(32);
        let planes = self.codec.planes();
        let block = planes * stored;
        let load = |plane| {
            let at = plane * stored + part;
            let op = Op::Load { from: Source::Activations, at: quote!(#step * #block + #at) };
            b.bind("q", op)
        };
        (0..planes).map(load).collect()
    }
}

impl Steps for Rows<'_> {
    fn widen(&self, b: &mut Builder, level: usize, bank: &[Var]) {
        for (row, sums) in self.sums.iter().enumerate() {
            self.codec.widen(b, level, self.part(bank, row), sums);
        }
    }

    /// One step: 32 bytes of each row (64 with wide vectors).
    fn step(&self, b: &mut Builder, banks: &[Vec<Var>], offset: usize) {
        let width = self.plan.width;
        let bytes = width.max(32);
        let step = if offset == 0 { quote!(step) } else { quote!((step + #offset)) };
        let rows = self.sums.len();
        // One prefetch per cache line of 64 bytes and row: kernels that take whole lines per iteration.
        let unrolled = self.plan.spec.name.micro.unroll >= 2;
        if unrolled && offset.is_multiple_of(64 / bytes) && !self.half {
            for i in 0..rows {
                let base = base(i);
                b.push(Stmt::Prefetch { at: quote!(#base + #step * #bytes + call.prefetch) });
            }
        }
        for part in (0..bytes).step_by(width) {
            let q = self.activations(b, &step, part);
            for (i, sums) in self.sums.iter().enumerate() {
                let base = base(i);
                let (from, at) = (Source::Weights, quote!(#base + #step * #bytes + #part));
                let load = if self.half { Op::LoadLow { from, at } } else { Op::Load { from, at } };
                let codes = b.bind("codes", load);
                let banks: Vec<&[Var]> = banks.iter().map(|bank| self.part(bank, i)).collect();
                self.codec.multiply(b, codes, &q, &banks, sums);
            }
        }
    }
}

/// One step alone, for counting: returns the weights it covers.
pub(super) fn counted_step(plan: &Plan, codec: &dyn Codec, b: &mut Builder) -> usize {
    let rows = plan.spec.name.micro.rows;
    let banks: Vec<Vec<Var>> =
        codec.levels(rows).iter().map(|level| b.sums("bank", level.lane, level.count)).collect();
    let sums: Vec<Vec<Var>> = (0..rows).map(|_| b.sums("sum", Lane::I32, codec.sums())).collect();
    Rows { plan, codec, sums: &sums, half: false }.step(b, &banks, 0);
    rows * plan.width.max(32) * codec.planes()
}

/// The byte offset of row `i` of the pass.
fn base(i: usize) -> proc_macro2::Ident {
    format_ident!("base{i}")
}
