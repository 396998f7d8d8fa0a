//! The vector lookup of gemm: lanes are tokens, a table holds all 3^g signed sums of g inputs.
//!
//! The panel holds one index byte per row and group, the groups of a pass side by side. Each pass builds
//! the tables of its groups, then every row adds one entry of each to its int16 sums: one addition per
//! group and vector of tokens. The sums are widened to int32 after as many passes as int16 allows.
//!
//! An index byte above 3^g would read past its table; the scratch buffer holds enough entries behind the
//! last table that this stays inside the buffer, so memory safety does not rest on the panel's content.

use crate::gemm::GemmPlan;
use crate::op::{Buffer, Builder, Half, Lane, Op, Var};
use proc_macro2::TokenStream;
use quote::quote;

/// The sizes that the lowered code is made of.
pub(super) struct Sizes {
    /// Inputs per group.
    pub(super) group: usize,
    /// Tables per pass.
    pub(super) tables: usize,
    /// Inputs of a pass that are multiplied, behind those that are looked up.
    pub(super) multiplied: usize,
    /// Tokens.
    pub(super) tokens: usize,
    /// int16 lanes of a vector.
    pub(super) lanes: usize,
    /// Vectors of tokens.
    pub(super) vectors: usize,
    /// Entries of a table.
    pub(super) entries: usize,
}

impl Sizes {
    pub(super) fn new(plan: &GemmPlan, group: usize, tables: usize, multiplied: usize) -> Self {
        Self {
            group,
            tables,
            multiplied,
            tokens: plan.name.tokens,
            lanes: plan.width / 2,
            vectors: plan.vectors(),
            entries: 3usize.pow(group as u32),
        }
    }

    /// Where the int16 sums begin in the scratch buffer.
    pub(super) fn first_sum(&self) -> usize {
        ((self.tables - 1) * self.entries + 256) * self.tokens
    }
}

pub(super) fn rows(plan: &GemmPlan, group: usize, tables: usize, b: &mut Builder) {
    let sizes = Sizes::new(plan, group, tables, 0);
    let (tokens, first_sum) = (sizes.tokens, sizes.first_sum());
    let interval = plan.banks[0].steps as usize;
    b.scalar(quote! {
        let partial = #first_sum;
        scratch[partial..][..rows * #tokens].fill(0);
        sums[..rows * #tokens].fill(0);
        let passes = groups / #tables;
        let mut since = 0;
    });
    b.each(quote!(pass in 0..passes), |b| {
        build(&sizes, b);
        accumulate(&sizes, b);
        b.scalar(quote!(since += 1;));
        b.when(quote!(since == #interval || pass + 1 == passes), |b| {
            widen(&sizes, b);
            b.scalar(quote!(since = 0;));
        });
    });
}

/// Fills the tables of a pass: entry `sum of 3^i (t_i + 1)` is `sum of t_i q_i`, for every token.
pub(super) fn build(sizes: &Sizes, b: &mut Builder) {
    let &Sizes { group, tables, multiplied, tokens, lanes, vectors, entries } = sizes;
    let inputs = group * tables + multiplied;
    b.each(quote!(table in 0..#tables), |b| {
        b.scalar(quote! {
            let inputs = (pass * #inputs + table * #group) * #tokens;
            let table = table * #entries * #tokens;
        });
        for vector in 0..vectors {
            let part = vector * lanes;
            let q: Vec<Var> = (0..group)
                .map(|i| {
                    let at = i * tokens + part;
                    b.bind("q", Op::LoadTokens { at: quote!(inputs + #at) })
                })
                .collect();
            let mut least = b.bind("least", Op::Zero(Lane::I16));
            for q in &q {
                least = b.bind("least", Op::Sub { lane: Lane::I16, a: least, b: q.clone() });
            }
            keep(b, Buffer::Scratch, quote!(table + #part), least);
            // Entries with t_i = 0 and 1 from those with t_i = -1, input by input.
            let mut have = 1usize;
            for q in q {
                b.each(quote!(entry in 0..#have), |b| {
                    let at = |more: usize| quote!(table + (entry + #more) * #tokens + #part);
                    let op = Op::LoadLanes { from: Buffer::Scratch, at: at(0) };
                    let mut entry = b.bind("entry", op);
                    for more in [have, 2 * have] {
                        let op = Op::Add { lane: Lane::I16, a: entry, b: q.clone() };
                        entry = b.bind("entry", op);
                        keep(b, Buffer::Scratch, at(more), entry.clone());
                    }
                });
                have *= 3;
            }
        }
    });
}

/// Adds the entries that the pass's indices select to the int16 sums of every row.
fn accumulate(sizes: &Sizes, b: &mut Builder) {
    let tables = sizes.tables;
    // Indices come as the bytes of one integer: few loads, since the tables need the load ports.
    let bytes = tables.min(8);
    let words = tables / bytes;
    b.scalar(quote! {
        let indices = weights[pass * rows * #tables..][..rows * #tables].as_chunks::<#bytes>().0;
    });
    b.each(quote!((row, words) in indices.chunks_exact(#words).enumerate()), |b| {
        let row = Row::load(sizes, quote!(row), b);
        for word in 0..words {
            let load = word_load(word, bytes);
            b.scalar(quote!(let word: u64 = #load;));
            row.add_entries(sizes, word * bytes, bytes, b);
        }
        row.keep(sizes, b);
    });
}

/// The int16 sums of one row in variables.
pub(super) struct Row {
    at: TokenStream,
    sums: Vec<Var>,
}

impl Row {
    /// Loads the sums of row `row`.
    pub(super) fn load(sizes: &Sizes, row: TokenStream, b: &mut Builder) -> Self {
        let tokens = sizes.tokens;
        let at = quote!(partial + #row * #tokens);
        let load = |vector: usize| {
            let part = vector * sizes.lanes;
            b.bind_mut("partial", Op::LoadLanes { from: Buffer::Scratch, at: quote!(#at + #part) })
        };
        let sums = (0..sizes.vectors).map(load).collect();
        Self { at, sums }
    }

    /// Adds the entries that the `bytes` bytes of the variable `word` select, from table `first` on.
    pub(super) fn add_entries(&self, sizes: &Sizes, first: usize, bytes: usize, b: &mut Builder) {
        let &Sizes { tokens, lanes, entries, .. } = sizes;
        for byte in 0..bytes {
            let (offset, table) = (entry(byte, tokens), (first + byte) * entries * tokens);
            b.scalar(quote!(let entry = #table + #offset;));
            for (vector, sum) in self.sums.iter().enumerate() {
                let part = vector * lanes;
                let at = quote!(entry + #part);
                let entry = b.bind("entry", Op::LoadLanes { from: Buffer::Scratch, at });
                b.add(Lane::I16, sum, entry);
            }
        }
    }

    /// Stores the sums again.
    pub(super) fn keep(self, sizes: &Sizes, b: &mut Builder) {
        let Self { at, sums } = self;
        for (vector, sum) in sums.into_iter().enumerate() {
            let part = vector * sizes.lanes;
            keep(b, Buffer::Scratch, quote!(#at + #part), sum);
        }
    }
}

/// The `bytes` bytes of word `word` as an integer.
fn word_load(word: usize, bytes: usize) -> TokenStream {
    match bytes {
        8 => quote!(u64::from_le_bytes(words[#word])),
        4 => quote!(u32::from_le_bytes(words[#word]).into()),
        2 => quote!(u16::from_le_bytes(words[#word]).into()),
        _ => quote!(words[#word][0].into()),
    }
}

/// Byte `byte` of `word` times the tokens of an entry, as one rotation and one mask.
fn entry(byte: usize, tokens: usize) -> TokenStream {
    let shift = tokens.ilog2();
    let turn = (8 * byte as u32 + 64 - shift) % 64;
    let mask = 0xffu64 << shift;
    quote!((word.rotate_right(#turn) & #mask) as usize)
}

/// Adds the int16 sums of every row to its int32 sums and clears them.
pub(super) fn widen(sizes: &Sizes, b: &mut Builder) {
    let &Sizes { tokens, lanes, vectors, .. } = sizes;
    b.each(quote!(row in 0..rows), |b| {
        for vector in 0..vectors {
            let part = vector * lanes;
            let at = quote!(partial + row * #tokens + #part);
            let narrow = b.bind("narrow", Op::LoadLanes { from: Buffer::Scratch, at: at.clone() });
            for (index, half) in [Half::Low, Half::High].into_iter().enumerate() {
                let part = part + index * lanes / 2;
                let at = quote!(row * #tokens + #part);
                let acc = b.bind("wide", Op::LoadLanes { from: Buffer::Sums, at: at.clone() });
                let wide = b.bind("wide", Op::WidenHalf { acc, a: narrow.clone(), half });
                keep(b, Buffer::Sums, at, wide);
            }
            let zero = b.bind("zero", Op::Zero(Lane::I16));
            keep(b, Buffer::Scratch, at, zero);
        }
    });
}

pub(super) fn keep(b: &mut Builder, to: Buffer, at: TokenStream, a: Var) {
    b.push(crate::op::Stmt::Keep { to, at, a });
}
