//! I2_S by multiply-add: `madd`, `maddx4` and `dot`.
//!
//! A byte of a 128-weight block holds four 2-bit codes, one per plane; plane `p` goes with activations
//! `32 p ..` of the block. `madd` shifts every plane down. `maddx4` leaves two planes in place, so that
//! their codes count four times: one shift instead of three. `dot` shifts none (x1, x4, x16, x64).
//! Codes are `t + 1`, so the sum of the activations is subtracted once at the end.

use super::steps::{self, Level, Steps};
use crate::Plan;
use crate::op::{Builder, Lane, Op, Source, Stmt, Var};
use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use trilut_presets::Algorithm;

/// One plane: where its codes are in the byte, and the bank it is summed in.
struct Plane {
    shift: u32,
    mask: u8,
    bank: usize,
}

/// The planes of a block, from the high bits down, for an algorithm.
fn planes(algorithm: Algorithm) -> [Plane; 4] {
    let plane = |(shift, mask, bank)| Plane { shift, mask, bank };
    match algorithm {
        Algorithm::Madd => [(6, 3, 0), (4, 3, 0), (2, 3, 0), (0, 3, 0)],
        Algorithm::MaddX4 => [(4, 12, 1), (4, 3, 0), (0, 12, 1), (0, 3, 0)],
        Algorithm::Dot => [(0, 192, 3), (0, 48, 2), (0, 12, 1), (0, 3, 0)],
        Algorithm::Lut => unreachable!("the plan allows lut for lookup formats only"),
    }
    .map(plane)
}

/// Factor, as a power of two, by which each int32 sum is too large.
fn excess(algorithm: Algorithm) -> &'static [u32] {
    match algorithm {
        Algorithm::Madd => &[0],
        Algorithm::MaddX4 => &[0, 2],
        _ => &[0, 2, 4, 6],
    }
}

/// All rows, `micro.rows` at a time, then one at a time.
pub(super) fn rows(plan: &Plan, b: &mut Builder) {
    b.scalar(quote! {
        let blocks = k.div_ceil(128);
        let stride = blocks * 32;
        let end = call.rows.end;
        let mut row = call.rows.start;
    });
    let rows = plan.spec.name.micro.rows;
    if rows > 1 {
        b.repeat(quote!(row + #rows <= end), |b| pass(plan, rows, b));
    }
    b.repeat(quote!(row < end), |b| pass(plan, 1, b));
}

/// One pass over the activations for `rows` rows.
fn pass(plan: &Plan, rows: usize, b: &mut Builder) {
    let algorithm = plan.spec.name.algorithm;
    let banks = excess(algorithm).len();
    for i in 0..rows {
        let base = base(i);
        b.scalar(quote!(let #base = (row + #i) * stride;));
    }
    // sums[row][bank]
    let sums: Vec<Vec<Var>> = (0..rows).map(|_| b.sums("sum", Lane::I32, banks)).collect();
    // Two blocks fill one 64-byte vector; an odd last block is a half-filled one.
    let wide = plan.width == 64;
    let steps = if wide { quote!(blocks / 2) } else { quote!(blocks) };
    b.scalar(quote! {
        let steps = #steps;
        let mut step = 0;
    });
    run(plan, rows, &sums, quote!(steps), plan.spec.name.micro.unroll, false, b);
    if wide {
        b.when(quote!(blocks % 2 == 1), |b| {
            run(plan, rows, &sums, quote!(steps + 1), 1, true, b);
        });
    }
    for (i, sums) in sums.iter().enumerate() {
        let mut total = sums[0].clone();
        for (sum, &bits) in sums.iter().zip(excess(algorithm)).skip(1) {
            let exact = b.bind("exact", Op::ShiftRight { a: sum.clone(), bits });
            total = b.bind("total", Op::Add { lane: Lane::I32, a: total, b: exact });
        }
        let place = quote!(call.out[row - call.rows.start + #i]);
        b.push(Stmt::StoreSum { place, a: total, plus: quote!(-call.sum) });
    }
    b.scalar(quote!(row += #rows;));
}

/// The loop over steps up to `limit`; `half` loads only the first block of each pair.
fn run(
    plan: &Plan,
    rows: usize,
    sums: &[Vec<Var>],
    limit: TokenStream,
    unroll: usize,
    half: bool,
    b: &mut Builder,
) {
    let levels: Vec<Level> = plan
        .banks
        .iter()
        .zip(["bank", "bank_x4_"])
        .map(|(bank, hint)| Level { steps: bank.steps, hint, count: rows })
        .collect();
    steps::emit(b, &levels, limit, unroll, &Rows { plan, rows, sums, half });
}

/// The steps of one pass.
struct Rows<'a> {
    plan: &'a Plan,
    rows: usize,
    /// int32 sums, by row and bank.
    sums: &'a [Vec<Var>],
    /// Whether only the first block of each pair is there.
    half: bool,
}

impl Steps for Rows<'_> {
    fn widen(&self, b: &mut Builder, level: usize, bank: &[Var]) {
        for (sums, a) in self.sums.iter().zip(bank) {
            let acc = &sums[level];
            b.set(acc, Op::WidenPairs { acc: acc.clone(), a: a.clone() });
        }
    }

    fn step(&self, b: &mut Builder, banks: &[Vec<Var>], offset: usize) {
        let Self { plan, rows, sums, half } = *self;
        step(plan, rows, banks, sums, offset, half, b);
    }
}

/// One step: 32 bytes of each row (64 with wide vectors).
fn step(
    plan: &Plan,
    rows: usize,
    banks: &[Vec<Var>],
    sums: &[Vec<Var>],
    offset: usize,
    half: bool,
    b: &mut Builder,
) {
    let width = plan.width;
    let name = plan.spec.name;
    let step = if offset == 0 { quote!(step) } else { quote!((step + #offset)) };
    // One prefetch per cache line of 64 bytes and row: kernels that take whole lines per iteration.
    let line_steps = 64 / width.max(32);
    if name.micro.unroll >= 2 && offset.is_multiple_of(line_steps) && !half {
        for i in 0..rows {
            let base = base(i);
            let bytes = width.max(32);
            b.push(Stmt::Prefetch { at: quote!(#base + #step * #bytes + call.prefetch) });
        }
    }
    for load in 0..32usize.div_ceil(width) {
        let part = load * width;
        let q: Vec<Var> = (0..4usize)
            .map(|plane| {
                let at = plane * 32 + part;
                let op = if width == 64 {
                    Op::LoadTwoBlocks { at: quote!(#step * 256 + #at) }
                } else {
                    Op::Load { from: Source::Activations, at: quote!(#step * 128 + #at) }
                };
                b.bind("q", op)
            })
            .collect();
        for i in 0..rows {
            let base = base(i);
            let bytes = width.max(32);
            let at = quote!(#base + #step * #bytes + #part);
            let from = Source::Weights;
            let codes = b
                .bind("codes", if half { Op::LoadLow { from, at } } else { Op::Load { from, at } });
            for (q, plane) in q.iter().zip(planes(name.algorithm)) {
                let Plane { shift, mask, bank } = plane;
                let field = b.bind("field", Op::Field { a: codes.clone(), shift, mask });
                let (codes, q) = (field, q.clone());
                if name.algorithm == Algorithm::Dot {
                    let acc = &sums[i][bank];
                    b.set(acc, Op::Dot { acc: acc.clone(), codes, q });
                } else {
                    let pairs = b.bind("pairs", Op::MulAddPairs { codes, q });
                    steps::accumulate(b, &banks[bank][i], pairs);
                }
            }
        }
    }
}

/// One step alone, for counting: returns the weights it covers.
pub(super) fn counted_step(plan: &Plan, b: &mut Builder) -> usize {
    let rows = plan.spec.name.micro.rows;
    let banks: Vec<Vec<Var>> = (0..2).map(|_| b.sums("bank", Lane::I16, rows)).collect();
    let sums: Vec<Vec<Var>> = (0..rows).map(|_| b.sums("sum", Lane::I32, 4)).collect();
    step(plan, rows, &banks, &sums, 0, false, b);
    rows * plan.width.max(32) * 4
}

/// The byte offset of row `i` of the pass.
fn base(i: usize) -> proc_macro2::Ident {
    format_ident!("base{i}")
}
