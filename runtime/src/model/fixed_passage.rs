//! Attention of a passage over keys and values that are stored as integers, in
//! [exact integer sums](trilut_kernels::float::fixed_attention).
//!
//! Each query is rounded to sixteen bits, and so are the weights of each chunk of positions; what is
//! computed from them in f32 belongs to one head of one token. So its result depends on neither the tokens
//! beside it nor the ISA.

use super::attention::{CHUNK, Past, Total, chunks, divide};
use super::buffer::Buffer;
use super::passage::Token;
use crate::cache::Fixed;
use std::ops::Range;
use trilut_kernels::float::fixed_attention::{
    LANES, MOST_POSITIONS, Panels, Rows, key_panels, products, value_panels, weigh,
};
use trilut_kernels::float::stored::store_i16;

const _: () = assert!(CHUNK == MOST_POSITIONS && CHUNK.is_multiple_of(LANES));

/// The most query heads of all tokens for which keys and values are read where they are stored.
const FEW_ROWS: usize = 8;

/// The most tokens of a passage: panels are laid out once for all of them.
pub(super) const MOST_TOKENS: usize = 128;

/// About how many query heads of all tokens pass over the panels of a chunk at a time: their queries stay in
/// the nearest cache, and their scores and weights in the next.
const TILE_ROWS: usize = 64;

/// What a worker needs to attend in integers; kept from one passage to the next.
#[derive(Debug, Default)]
pub(super) struct FixedScratch {
    /// tokens x heads x width, which is made a multiple of 32
    queries: Buffer<i16>,
    /// tokens x heads: what a query's integers stand for, times the scale of scores
    query_scales: Vec<f32>,
    /// tokens x heads, of the chunks so far
    totals: Vec<Total>,
    /// Of the keys of a chunk, and of the values.
    scales: Buffer<f32>,
    /// The keys of a chunk of positions, and the values.
    panels: Buffer<i16>,
    tile: TileScratch,
}

/// What some tokens of a passage need to attend to a chunk of positions.
#[derive(Debug, Default)]
struct TileScratch {
    /// tokens x heads x [`CHUNK`]
    scores: Buffer<f32>,
    /// tokens x heads x [`CHUNK`]
    weights: Buffer<i16>,
    /// tokens x heads: what a weight stands for
    weight_scales: Vec<f32>,
    /// tokens x heads x width, which is made a multiple of [`LANES`], when these are few
    sums: Buffer<i32>,
    /// tokens x heads x width, which is made a multiple of [`LANES`]: the weighted values of a chunk
    partial: Buffer<f32>,
    /// tokens x heads, of a chunk
    fresh: Vec<Total>,
}

/// Keys and values of a chunk of positions.
struct Chunk<'a> {
    positions: Range<usize>,
    keys: Fixed<'a>,
    values: Fixed<'a>,
    /// Those of keys, behind whose last there may be anything up to a multiple of [`LANES`]; those of values.
    scales: [&'a [f32]; 2],
    /// Both as panels; none for few query heads.
    panels: Option<[&'a [i16]; 2]>,
}

impl Past<'_> {
    /// [`Past::attend_each`] over these keys and values.
    pub(super) fn attend_fixed(
        self,
        keys: Fixed<'_>,
        values: Fixed<'_>,
        tokens: &mut [Token<'_>],
        scratch: &mut FixedScratch,
    ) -> bool {
        let Self { isa, width, scale, first, .. } = self;
        let heads = tokens[0].queries.len() / width;
        let rows = tokens.len() * heads;
        // Panels cost as much as they save when few rows share them.
        let few = rows <= FEW_ROWS;
        let stride = width.next_multiple_of(2 * LANES);
        let FixedScratch { query_scales, totals, tile, .. } = scratch;
        let queries = scratch.queries.resize(rows * stride);
        let most = if few { 0 } else { key_panels(CHUNK, width) };
        let panels = scratch.panels.resize(most + if few { 0 } else { value_panels(CHUNK, width) });
        let (key_codes, value_codes) = panels.split_at_mut(most);
        let (key_scales, value_scales) = scratch.scales.resize(2 * CHUNK).split_at_mut(CHUNK);
        query_scales.resize(rows, 0.0);
        totals.resize(rows, [0.0; 2]);

        let each = queries.chunks_exact_mut(heads * stride);
        let each = tokens.iter().zip(each.zip(query_scales.chunks_exact_mut(heads)));
        for (token, (codes, scales)) in each {
            store_i16(isa, token.queries, width, codes, scales);
            scales.iter_mut().for_each(|x| *x *= scale);
        }
        // Few rows are one tile.
        let tile_tokens = (TILE_ROWS / heads).max(1);
        for positions in chunks(tokens[0].seen.start..tokens[tokens.len() - 1].seen.end) {
            let (n, stored) = (positions.len(), positions.start - first..positions.end - first);
            let (keys, values) = (keys.part(stored.clone(), width), values.part(stored, width));
            key_scales[..n].copy_from_slice(keys.scales);
            value_scales[..n].copy_from_slice(values.scales);
            let panels = (!few).then(|| {
                let key_codes = &mut key_codes[..key_panels(n, width)];
                let value_codes = &mut value_codes[..value_panels(n, width)];
                keys.lay_out_keys(isa, width, key_codes);
                values.lay_out_values(isa, width, value_codes);
                [&*key_codes, &*value_codes]
            });
            let scales = [&*key_scales, &value_scales[..n]];
            let chunk = Chunk { positions, keys, values, scales, panels };
            let tiles = tokens.chunks_mut(tile_tokens);
            let queries = queries.chunks(tile_tokens * heads * stride);
            let scales = query_scales.chunks(tile_tokens * heads);
            let totals = totals.chunks_mut(tile_tokens * heads);
            for (tokens, ((codes, scales), totals)) in tiles.zip(queries.zip(scales).zip(totals)) {
                let queries = Rows { codes, stride, scales };
                if !self.attend_chunk(&chunk, queries, tokens, totals, tile) {
                    return false;
                }
            }
        }
        for (token, totals) in tokens.iter_mut().zip(totals.chunks_exact(heads)) {
            divide(isa, totals, token.out);
        }
        true
    }

    /// Adds what some tokens find in a chunk of positions to their results; returns whether it is finite.
    fn attend_chunk(
        self,
        chunk: &Chunk<'_>,
        queries: Rows<'_>,
        tokens: &mut [Token<'_>],
        totals: &mut [Total],
        scratch: &mut TileScratch,
    ) -> bool {
        let Self { isa, width, .. } = self;
        let (rows, origin) = (queries.scales.len(), chunk.positions.start);
        let heads = rows / tokens.len();
        let end = tokens[tokens.len() - 1].seen.end.min(chunk.positions.end);
        if end <= tokens[0].seen.start.max(origin) {
            return true;
        }
        // What is behind the last token's positions is left out.
        let n = end - origin;
        let out_stride = width.next_multiple_of(LANES);
        let TileScratch { weight_scales, fresh, .. } = scratch;
        let scores = scratch.scores.resize(rows * CHUNK);
        let weights = scratch.weights.resize(rows * CHUNK);
        let partial = scratch.partial.resize(rows * out_stride);
        weight_scales.resize(rows, 0.0);
        fresh.resize(rows, [0.0; 2]);

        let [key_scales, value_scales] = chunk.scales;
        match chunk.panels {
            None => chunk.keys.scores(isa, queries, width, scores, CHUNK),
            Some([keys, _]) => {
                let scales = Some(&key_scales[..n.next_multiple_of(LANES)]);
                let (codes, pairs) = (&keys[..key_panels(n, width)], width.div_ceil(2));
                let panels = Panels { codes, pairs, used: pairs, scales };
                products(isa, queries, panels, scores, CHUNK);
            }
        }

        // Weights of what a token does not see are 0.
        let used = n.div_ceil(2);
        let each = scores.chunks_exact_mut(CHUNK).zip(weights.chunks_exact_mut(CHUNK));
        for (row, (scores, weights)) in each.enumerate() {
            let Some(seen) = tokens[row / heads].sees(&chunk.positions) else {
                weights[..2 * used].fill(0);
                continue;
            };
            let seen = seen.start - origin..seen.end - origin;
            weights[..seen.start].fill(0);
            weights[seen.end..2 * used].fill(0);
            let scales = &value_scales[seen.clone()];
            let weighed = weigh(isa, &mut scores[seen.clone()], scales, &mut weights[seen]);
            let Some([largest, sum, common]) = weighed else { return false };
            (fresh[row], weight_scales[row]) = ([largest, sum], common);
        }

        let weights = Rows { codes: weights, stride: CHUNK, scales: weight_scales };
        match chunk.panels {
            None => {
                let sums = scratch.sums.resize(rows * out_stride);
                chunk.values.weighted(isa, weights, width, sums, partial);
            }
            Some([_, codes]) => {
                let pairs = chunk.positions.len().div_ceil(2);
                let panels = Panels { codes, pairs, used, scales: None };
                products(isa, weights, panels, partial, out_stride);
            }
        }
        let each = totals.chunks_exact_mut(heads).zip(fresh.chunks_exact(heads));
        let each = each.zip(partial.chunks_exact_mut(heads * out_stride));
        for (token, ((totals, fresh), partial)) in tokens.iter_mut().zip(each) {
            token.take(isa, &chunk.positions, totals, fresh, partial, out_stride);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{Codes, Stored};
    use crate::model::passage::PassageScratch;
    use trilut_kernels::float::stored::store_i8;
    use trilut_kernels::{Cpu, Isa, Supported};

    /// About one over the root of the widths.
    const SCALE: f32 = 0.1;

    fn wave(n: usize, f: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * f).sin() * 2.0).collect()
    }

    /// Rows of a width in sixteen bits and in eight.
    struct Rounded {
        words: Vec<i16>,
        bytes: Vec<i8>,
        scales: [Vec<f32>; 2],
    }

    impl Rounded {
        fn new(isa: Supported, x: &[f32], width: usize) -> Self {
            let (mut words, mut bytes) = (vec![0; x.len()], vec![0; x.len()]);
            let mut scales = [vec![0.0; x.len() / width], vec![0.0; x.len() / width]];
            store_i16(isa, x, width, &mut words, &mut scales[0]);
            store_i8(isa, x, width, &mut bytes, &mut scales[1]);
            Self { words, bytes, scales }
        }

        fn rows(&self, width: usize, rows: &Range<usize>, eight: bool) -> Fixed<'_> {
            let place = rows.start * width..rows.end * width;
            let codes = match eight {
                false => Codes::I16(&self.words[place]),
                true => Codes::I8(&self.bytes[place]),
            };
            Fixed { codes, scales: &self.scales[usize::from(eight)][rows.clone()] }
        }
    }

    #[test]
    fn tokens_together_are_as_each_by_itself_and_near_to_float64() {
        let isa = Cpu::detect().best();
        let mut scratch = PassageScratch::default();
        for (width, heads) in [(32, 4), (50, 3), (128, 2), (7, 1)] {
            // A passage ends at a position; its tokens see the last so many.
            for (tokens, last, window) in [
                (1, 1, 999),
                (8, 8, 999),
                (5, 37, 999),
                (8, 259, 999),
                (3, 700, 999),
                (8, 30, 1),
                (32, 300, 3),
                (32, 700, 256),
                (32, 600, 90),
                (2, 1000, 513),
            ] {
                let size = heads * width;
                let queries = wave(tokens * size, 0.7);
                let (keys, values) = (wave(last * width, 0.37), wave(last * width, 1.3));
                let rounded = [&keys, &values].map(|x| Rounded::new(isa, x, width));
                let seen = |token| {
                    let end: usize = last + 1 - tokens + token;
                    end.saturating_sub(window)..end
                };
                for eight in [false, true] {
                    let past = |isa, seen: &Range<usize>| {
                        let [keys, values] =
                            rounded.each_ref().map(|rounded| rounded.rows(width, seen, eight));
                        let stored = Stored::Fixed { keys, values };
                        Past { isa, width, scale: SCALE, first: seen.start, stored }
                    };
                    let mut out = vec![7.0; queries.len()];
                    let mut passage: Vec<_> = queries
                        .chunks_exact(size)
                        .zip(out.chunks_exact_mut(size))
                        .enumerate()
                        .map(|(index, (queries, out))| Token { queries, out, seen: seen(index) })
                        .collect();
                    let all = seen(0).start..seen(tokens - 1).end;
                    assert!(past(isa, &all).attend_each(&mut passage, &mut scratch));
                    let each = queries.chunks_exact(size).zip(out.chunks_exact(size));
                    for (index, (queries, out)) in each.enumerate() {
                        let seen = seen(index);
                        for isa in [isa, Supported::detect(Isa::Scalar).unwrap()] {
                            let mut alone = vec![0.0; size];
                            let past = past(isa, &seen);
                            assert!(past.attend(
                                queries,
                                &mut [],
                                &mut [],
                                &mut scratch,
                                &mut alone
                            ));
                            assert_eq!(out, alone, "{width} {heads} {last} {window}: {index}");
                        }
                        let limit = if eight { 0.1 } else { 1e-3 };
                        for (query, out) in queries.chunks_exact(width).zip(out.chunks_exact(width))
                        {
                            let far = distance(query, out, &keys, &values, seen.clone());
                            assert!(far < limit, "{width} {heads} {last} {window}: {far}");
                        }
                    }
                }
            }
        }
    }

    /// How far a head's result is from that of float64 without any rounding.
    fn distance(
        query: &[f32],
        out: &[f32],
        keys: &[f32],
        values: &[f32],
        seen: Range<usize>,
    ) -> f64 {
        let width = query.len();
        let score = |position: usize| -> f64 {
            let key = &keys[position * width..][..width];
            f64::from(SCALE)
                * key.iter().zip(query).map(|(k, q)| f64::from(*k) * f64::from(*q)).sum::<f64>()
        };
        let scores: Vec<f64> = seen.clone().map(score).collect();
        let most = scores.iter().copied().fold(f64::MIN, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
        let total: f64 = weights.iter().sum();
        let column = |c: usize| -> f64 {
            let values = seen.clone().map(|position| f64::from(values[position * width + c]));
            weights.iter().zip(values).map(|(w, x)| w * x).sum::<f64>() / total
        };
        out.iter()
            .enumerate()
            .map(|(c, out)| (f64::from(*out) - column(c)).abs())
            .fold(0.0, f64::max)
    }

    #[test]
    fn only_what_is_seen_must_be_finite() {
        let best = Cpu::detect().best();
        let (width, n) = (32, 300);
        for isa in [best, Supported::detect(Isa::Scalar).unwrap()] {
            // A few rows, which are read where they are stored, and more, for which panels are laid out.
            for (heads, eight, bad_values) in
                [(1, false, false), (1, true, true), (6, true, false), (6, false, true)]
            {
                let queries = vec![1.0; 2 * heads * width];
                for (at, begin) in
                    [(0, 0), (0, 50), (40, 0), (40, 50), (255, 0), (256, 0), (298, 0), (299, 50)]
                {
                    let (mut bad, good) = (vec![1.0; n * width], vec![1.0; n * width]);
                    bad[at * width + 5] = f32::INFINITY;
                    let mut both = [bad, good].map(|x| Rounded::new(isa, &x, width));
                    if bad_values {
                        both.reverse();
                    }
                    let [keys, values] =
                        both.each_ref().map(|rounded| rounded.rows(width, &(0..n), eight));
                    let mut out = vec![0.0; 2 * heads * width];
                    let (first, second) = out.split_at_mut(heads * width);
                    let (of_first, of_second) = queries.split_at(heads * width);
                    let mut tokens = [
                        Token { queries: of_first, out: first, seen: begin..n - 2 },
                        Token { queries: of_second, out: second, seen: begin..n - 1 },
                    ];
                    let stored = Stored::Fixed { keys, values };
                    let past = Past { isa, width, scale: SCALE, first: 0, stored };
                    let finite = past.attend_each(&mut tokens, &mut PassageScratch::default());
                    assert_eq!(finite, at == n - 1 || at < begin, "{heads} {eight} {at} {begin}");
                }
            }
        }
    }
}
