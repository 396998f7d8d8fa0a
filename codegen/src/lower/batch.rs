//! Small batches: the stored rows of I2_S and base 3 times several tokens at once.
//!
//! A register tile is some rows by some tokens. Each plane of a row's block is unpacked once, with its
//! codes `t + 1` at the bottom of their bytes, and multiplied with that plane of every token; a row has one
//! sum per token. Whatever the number of tokens, they are cut into tiles of nearly equal size, and there is
//! a copy of the loop for each size. Rows that do not fill a tile go one by one with one token at a time.
//!
//! ISAs with 2 x 2 products take rows and tokens in pairs instead, see [`super::pairs`].
//!
//! Rows lie in memory, and activations are prepared, as for gemv (see [`super::rows`]).

use super::pairs;
use super::steps::{self, Level, Steps};
use crate::batch::BatchPlan;
use crate::op::{Builder, Lane, Op, Source, Stmt, Var};
use quote::{format_ident, quote};
use trilut_presets::{Algorithm, Format};

/// Planes of a block; it has 32 weights of each.
pub(super) fn planes(plan: &BatchPlan) -> usize {
    match plan.name.format {
        Format::Base3 => 5,
        _ => 4,
    }
}

/// All rows, a tile at a time, then one at a time.
pub(super) fn rows(plan: &BatchPlan, b: &mut Builder) {
    let block = planes(plan) * 32;
    let (rows, most) = (plan.name.rows, plan.name.tokens);
    let in_pairs = plan.name.algorithm == Algorithm::Mmla;
    b.scalar(quote! {
        let blocks = k.div_ceil(#block);
        let stride = blocks * 32;
        let count = tokens.len();
        let pieces = count.div_ceil(#most);
        let end = start + width;
        let mut row = start;
    });
    b.repeat(quote!(row + #rows <= end), |b| {
        b.each(quote!(piece in 0..pieces), |b| {
            b.scalar(quote! {
                let first = piece * count / pieces;
                let size = (piece + 1) * count / pieces - first;
            });
            for tokens in sizes(plan) {
                let fits = match in_pairs {
                    true => quote!(size.next_multiple_of(2) == #tokens),
                    false => quote!(size == #tokens),
                };
                b.when(fits, |b| pass(plan, rows, tokens, b));
            }
        });
        b.scalar(quote!(row += #rows;));
    });
    if rows > 1 {
        b.repeat(quote!(row < end), |b| {
            b.each(quote!(first in 0..count), |b| {
                let least = if in_pairs { 2 } else { 1 };
                if in_pairs {
                    b.scalar(quote!(let size = 1;));
                }
                pass(plan, 1, least, b);
            });
            b.scalar(quote!(row += 1;));
        });
    }
}

/// The numbers of tokens that there is a copy of the loop for.
fn sizes(plan: &BatchPlan) -> impl Iterator<Item = usize> {
    let step = if plan.name.algorithm == Algorithm::Mmla { 2 } else { 1 };
    (step..=plan.name.tokens).step_by(step)
}

/// One pass over the activations of `tokens` tokens from `first` on for `rows` rows.
fn pass(plan: &BatchPlan, rows: usize, tokens: usize, b: &mut Builder) {
    for i in 0..rows {
        let base = base(i);
        b.scalar(quote!(let #base = (row + #i) * stride;));
    }
    if plan.name.algorithm == Algorithm::Mmla {
        return pairs::pass(plan, rows, tokens, b);
    }
    for t in 0..tokens {
        let token = format_ident!("token{t}");
        b.scalar(quote!(let #token = tokens[first + #t];));
    }
    let sums = b.sums("sum", Lane::I32, rows * tokens);
    let wide = plan.width == 64;
    let steps = if wide { quote!(blocks / 2) } else { quote!(blocks) };
    b.scalar(quote! {
        let steps = #steps;
        let mut step = 0;
    });
    let levels: Vec<Level> = plan
        .banks
        .iter()
        .map(|bank| Level {
            steps: bank.steps,
            hint: "bank",
            lane: Lane::I16,
            count: rows * tokens,
        })
        .collect();
    let whole = Tile { plan, rows, tokens, sums: &sums, half: false };
    steps::emit(b, &levels, quote!(steps), 1, &whole);
    if wide {
        let half = Tile { half: true, ..whole };
        b.when(quote!(blocks % 2 == 1), |b| {
            steps::emit(b, &levels, quote!(steps + 1), 1, &half);
        });
    }
    for t in 0..tokens {
        // Codes are t + 1.
        let at = quote!((first + #t) * width + (row - start));
        let minus = quote!(token_sums[first + #t]);
        let sums = (0..rows).map(|i| sums[i * tokens + t].clone()).collect();
        b.push(Stmt::StoreSums { at, sums, minus });
    }
}

/// The steps of one pass.
struct Tile<'a> {
    plan: &'a BatchPlan,
    rows: usize,
    tokens: usize,
    /// int32 sums, by row and token.
    sums: &'a [Var],
    /// Whether only the first block of a pair is there.
    half: bool,
}

impl Steps for Tile<'_> {
    fn widen(&self, b: &mut Builder, _: usize, bank: &[Var]) {
        for (acc, a) in self.sums.iter().zip(bank) {
            b.set(acc, Op::WidenPairs { acc: acc.clone(), a: a.clone() });
        }
    }

    /// One step: 32 bytes of each row (64 with wide vectors).
    fn step(&self, b: &mut Builder, banks: &[Vec<Var>], _: usize) {
        let Self { plan, rows, tokens, sums, half } = *self;
        let (width, planes) = (plan.width, planes(plan));
        let bytes = width.max(32);
        if !half && plan.name.isa.target_arch().is_some() {
            for i in 0..rows {
                let base = base(i);
                b.push(Stmt::Prefetch { at: quote!(#base + step * #bytes + prefetch) });
            }
        }
        let block = planes * bytes;
        for part in (0..bytes).step_by(width) {
            let mut unpacked: Vec<Unpacked> = (0..rows)
                .map(|i| {
                    let base = base(i);
                    let (from, at) = (Source::Weights, quote!(#base + step * #bytes + #part));
                    let load = if half { Op::LoadLow { from, at } } else { Op::Load { from, at } };
                    Unpacked::new(plan, load, b)
                })
                .collect();
            for plane in 0..planes {
                // One plane of all rows at a time: more would not stay in registers.
                let codes: Vec<Var> = unpacked.iter_mut().map(|u| u.plane(plane, b)).collect();
                for t in 0..tokens {
                    let place = plane * bytes + part;
                    let at = quote!(step * #block + #place);
                    let q = b.bind("q", Op::Load { from: Source::Token(t), at });
                    for (i, codes) in codes.iter().enumerate() {
                        let (index, codes, q) = (i * tokens + t, codes.clone(), q.clone());
                        match banks.first() {
                            None => {
                                let acc = &sums[index];
                                b.set(acc, Op::Dot { acc: acc.clone(), codes, q });
                            }
                            Some(bank) => {
                                let pairs = b.bind("pairs", Op::MulAddAny { codes, q });
                                steps::accumulate(b, &bank[index], pairs);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A vector of a row's weights on its way to codes, plane by plane in their order.
pub(super) enum Unpacked {
    /// 2-bit codes, the first plane in the high bits.
    Fields(Var),
    /// Base-3 digits that come out on top one after the other.
    Digits(Var),
    /// Base 3 by tables: four 2-bit codes, and the last digit.
    Mapped { four: Var, last: Var },
}

impl Unpacked {
    pub(super) fn new(plan: &BatchPlan, load: Op, b: &mut Builder) -> Self {
        let a = b.bind("codes", load);
        match (plan.name.format, plan.name.algorithm) {
            (Format::Base3, Algorithm::Lut) => {
                let four = b.bind("four", Op::Map { a: a.clone(), table: "FIRST_FOUR" });
                Self::Mapped { four, last: b.bind("last", Op::Map { a, table: "LAST" }) }
            }
            (Format::Base3, _) => Self::Digits(b.bind("x", Op::Flip { a })),
            _ => Self::Fields(a),
        }
    }

    /// The codes of a plane, at the bottom of their bytes.
    pub(super) fn plane(&mut self, plane: usize, b: &mut Builder) -> Var {
        let field = |b: &mut Builder, a: &Var, shift| {
            b.bind("field", Op::Field { a: a.clone(), shift, mask: 3 })
        };
        match self {
            Self::Fields(codes) => field(b, codes, 6 - 2 * plane as u32),
            Self::Mapped { last, .. } if plane == 4 => last.clone(),
            Self::Mapped { four, .. } => field(b, four, 2 * plane as u32),
            Self::Digits(x) => {
                let digit = b.bind("digit", Op::Digit { a: x.clone() });
                // The flip of the top bit survives the triple: 3 * 128 = 128 mod 256.
                if plane < 4 {
                    *x = b.bind("x", Op::Triple { a: x.clone() });
                }
                digit
            }
        }
    }
}

/// One step of a full tile alone, for counting: returns the products it covers.
pub(super) fn counted_step(plan: &BatchPlan, b: &mut Builder) -> usize {
    let (rows, tokens) = (plan.name.rows, plan.name.tokens);
    let products = rows * tokens * plan.width.max(32) * planes(plan);
    if plan.name.algorithm == Algorithm::Mmla {
        pairs::counted_step(plan, b);
        return products;
    }
    let sums = b.sums("sum", Lane::I32, rows * tokens);
    let banks: Vec<Vec<Var>> =
        plan.banks.iter().map(|_| b.sums("bank", Lane::I16, rows * tokens)).collect();
    Tile { plan, rows, tokens, sums: &sums, half: false }.step(b, &banks, 0);
    products
}

/// The byte offset of row `i` of the tile.
pub(super) fn base(i: usize) -> proc_macro2::Ident {
    format_ident!("base{i}")
}
