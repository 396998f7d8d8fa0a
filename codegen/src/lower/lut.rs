//! TL1 and TL2 by table lookup: lanes are rows, 32 to a group; a vector of 64 bytes is two groups.
//!
//! Each step reads one byte per row: two 4-bit indices. An index selects one of 16 int16 sums of the
//! activations, stored as two byte tables. TL2 complements the entry where the triple's value is
//! negative (`-v = !v + 1`) and adds the row's count of negative triples at the end; the weights that
//! do not fill a byte of triples are pairs, as in TL1.

use super::steps::{self, Level, Steps};
use crate::Plan;
use crate::op::{Builder, Half, Lane, Op, Source, Stmt, Var};
use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use trilut_presets::Format;

/// Rows per group.
const GROUP: usize = 32;

/// A run of steps of one kind: triples with signs, or pairs.
struct Section {
    /// Index of its bank in the plan.
    bank: usize,
    /// Expression: number of steps.
    steps: TokenStream,
    /// Expression: byte offset of its tables in the activations.
    tables: TokenStream,
    /// Expression: byte offset of its indices within a group.
    indices: TokenStream,
    /// Expression: byte offset of its signs within a group, for triples.
    signs: Option<TokenStream>,
}

fn sections(plan: &Plan) -> Vec<Section> {
    let pairs =
        |bank, steps, tables, indices| Section { bank, steps, tables, indices, signs: None };
    if plan.spec.name.format == Format::Tl1 {
        return vec![pairs(0, quote!(k.div_ceil(4)), quote!(0), quote!(0))];
    }
    let triples = Section {
        bank: 0,
        steps: quote!(triple_steps),
        tables: quote!(0),
        indices: quote!(0),
        signs: Some(quote!(triple_steps * 32)),
    };
    let tail = pairs(1, quote!(pair_steps), quote!(triple_steps * 64), quote!(triple_steps * 40));
    vec![triples, tail]
}

/// All groups, `micro.rows` at a time, then one at a time.
pub(super) fn groups(plan: &Plan, b: &mut Builder) {
    let group_bytes = if plan.spec.name.format == Format::Tl1 {
        quote!(k.div_ceil(4) * 32)
    } else {
        b.scalar(quote! {
            let triple_steps = k / 6;
            let pair_steps = (k - triple_steps * 6).div_ceil(4);
        });
        quote!(triple_steps * 40 + pair_steps * 32)
    };
    b.scalar(quote! {
        let stride = #group_bytes;
        let end = call.rows.end;
        let mut row = call.rows.start;
    });
    let groups = plan.spec.name.micro.rows;
    if groups > 1 {
        let rows = groups * GROUP;
        b.repeat(quote!(row + #rows <= end), |b| pass(plan, groups, b));
    }
    b.repeat(quote!(row < end), |b| pass(plan, 1, b));
}

/// Vectors that hold `groups` groups. A single one fills half of a vector of two: it is taken twice.
fn vectors(plan: &Plan, groups: usize) -> usize {
    (groups * GROUP).div_ceil(plan.width)
}

/// One pass over the tables for `groups` groups.
fn pass(plan: &Plan, groups: usize, b: &mut Builder) {
    let vectors = vectors(plan, groups);
    for i in 0..groups {
        let base = base(i);
        b.scalar(quote!(let #base = (row / 32 + #i) * stride;));
    }
    // Four int32 vectors per vector of indices: two halves, each widened in two.
    let sums: Vec<Var> = b.sums("sum", Lane::I32, vectors * 4);
    for section in sections(plan) {
        let limit = &section.steps;
        b.scalar(quote! {
            let steps = #limit;
            let mut step = 0;
        });
        let bank = plan.banks[section.bank];
        let level = Level { steps: bank.steps, hint: "bank", lane: Lane::I16, count: vectors * 2 };
        // The tail is at most two steps: not worth unrolling.
        let unroll = if section.bank == 0 { plan.spec.name.micro.unroll } else { 1 };
        let steps = Groups { plan, section, groups, sums: &sums };
        steps::emit(b, &[level], quote!(steps), unroll, &steps);
    }
    store(plan, groups, &sums, b);
    let rows = groups * GROUP;
    b.scalar(quote!(row += #rows;));
}

/// The steps of one section of one pass.
struct Groups<'a> {
    plan: &'a Plan,
    section: Section,
    groups: usize,
    /// int32 sums, two for each int16 bank variable.
    sums: &'a [Var],
}

impl Steps for Groups<'_> {
    fn widen(&self, b: &mut Builder, _: usize, bank: &[Var]) {
        for (pair, a) in self.sums.chunks_exact(2).zip(bank) {
            for (acc, half) in pair.iter().zip([Half::Low, Half::High]) {
                b.set(acc, Op::WidenHalf { acc: acc.clone(), a: a.clone(), half });
            }
        }
    }

    fn step(&self, b: &mut Builder, banks: &[Vec<Var>], offset: usize) {
        step(self.plan, &self.section, self.groups, &banks[0], offset, b);
    }
}

/// One step: one byte per row, two indices.
fn step(
    plan: &Plan,
    section: &Section,
    groups: usize,
    bank: &[Var],
    offset: usize,
    b: &mut Builder,
) {
    let Section { tables, indices, signs, .. } = section;
    let width = plan.width;
    let step = if offset == 0 { quote!(step) } else { quote!((step + #offset)) };
    if plan.spec.name.micro.unroll >= 2 && offset.is_multiple_of(2) && section.bank == 0 {
        for i in 0..groups {
            let base = base(i);
            b.push(Stmt::Prefetch { at: quote!(#base + #step * 32 + call.prefetch) });
        }
    }
    // The groups of vector `n`, and where in them it begins.
    let place = |n: usize| match width {
        64 => ([base(2 * n), base((2 * n + 1).min(groups - 1))], 0),
        _ => ([n * width / GROUP; 2].map(base), n * width % GROUP),
    };
    let loaded: Vec<Var> = (0..vectors(plan, groups))
        .map(|n| {
            let (bases, part) = place(n);
            let at = bases.map(|base| quote!(#base + #indices + #step * 32 + #part));
            let op = match (width, at) {
                (64, at) => Op::LoadTwo { at },
                (_, [at, _]) => Op::Load { from: Source::Weights, at },
            };
            b.bind("indices", op)
        })
        .collect();
    for nibble in 0..2usize {
        let at = nibble * 32;
        let low = b.bind("low", Op::Table { at: quote!(#tables + #step * 64 + #at) });
        let at = at + 16;
        let high = b.bind("high", Op::Table { at: quote!(#tables + #step * 64 + #at) });
        for (n, loaded) in loaded.iter().enumerate() {
            let shift = 4 * nibble as u32;
            let index = b.bind("index", Op::Field { a: loaded.clone(), shift, mask: 15 });
            let look = |b: &mut Builder, table: &Var| {
                b.bind("entry", Op::Lookup { table: table.clone(), index: index.clone() })
            };
            let (mut low, mut high) = (look(b, &low), look(b, &high));
            if let Some(signs) = signs {
                let (bases, part) = place(n);
                let part = nibble * 4 + part / 8;
                let at = bases.map(|base| quote!(#base + #signs + #step * 8 + #part));
                let op = match (width, at) {
                    (64, at) => Op::SignsTwo { at },
                    (_, [at, _]) => Op::Signs { at },
                };
                let sign = b.bind("sign", op);
                low = b.bind("entry", Op::Xor { a: low, b: sign.clone() });
                high = b.bind("entry", Op::Xor { a: high, b: sign });
            }
            for (h, half) in [Half::Low, Half::High].into_iter().enumerate() {
                let op = Op::Interleave { low: low.clone(), high: high.clone(), half };
                let sums = b.bind("sums", op);
                steps::accumulate(b, &bank[n * 2 + h], sums);
            }
        }
    }
}

/// Stores the int32 sums in row order and copies the rows that exist.
fn store(plan: &Plan, groups: usize, sums: &[Var], b: &mut Builder) {
    let rows = groups * GROUP;
    let room = vectors(plan, groups) * plan.width;
    b.scalar(quote!(let mut sums = [0i32; #room];));
    // Interleaving a half of every 16-byte lane puts 8 rows of each lane side by side; widening takes
    // the lower and upper half of that: with lanes of 16 rows, vector v, half h and widened half w begin at:
    let mut next = sums.iter();
    for vector in 0..vectors(plan, groups) {
        for half in 0..2 {
            for widened in 0..2 {
                let at = vector * plan.width
                    + half * 8
                    + if plan.width == 16 { widened * 4 } else { widened * plan.width / 2 };
                let a = next.next().expect("four sums per vector").clone();
                b.push(Stmt::StoreLanes { at, a });
            }
        }
    }
    if plan.spec.name.format == Format::Tl2 {
        b.scalar(quote! {
            let negatives = &weights[call.shape.m.div_ceil(32) * stride + row * 4..];
            for (sum, count) in sums.iter_mut().zip(negatives.chunks_exact(4)) {
                let count = i32::from_le_bytes([count[0], count[1], count[2], count[3]]);
                *sum = sum.wrapping_add(count);
            }
        });
    }
    b.scalar(quote! {
        let first = row - call.rows.start;
        let count = usize::min(#rows, end - row);
        call.out[first..first + count].copy_from_slice(&sums[..count]);
    });
}

/// One step of the main section alone, for counting: returns the weights it covers.
pub(super) fn counted_step(plan: &Plan, b: &mut Builder) -> usize {
    let groups = plan.spec.name.micro.rows;
    let section = &sections(plan)[0];
    let bank = b.sums("bank", Lane::I16, vectors(plan, groups) * 2);
    step(plan, section, groups, &bank, 0, b);
    let weights = if section.signs.is_some() { 6 } else { 4 };
    groups * GROUP * weights
}

/// The byte offset of group `i` of the pass.
fn base(i: usize) -> proc_macro2::Ident {
    format_ident!("base{i}")
}
