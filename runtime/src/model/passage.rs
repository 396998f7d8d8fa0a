//! Attention of a passage: some tokens of one text that follow each other, as in a prompt.
//!
//! Most of what they see they see together, so a few keys and values at a time are widened to f32 once
//! and stay in the nearest cache while the heads of all tokens pass over them. Each head's result is
//! that of [`attend`](super::attention::attend) for it alone, bit for bit.

use super::Row;
use super::attention::{CHUNK, Total, divide, exponentials, merge};
use bytemuck::cast_slice_mut;
use half::f16;
use std::ops::Range;
use trilut_kernels::float::{attention, elementwise};
use trilut_kernels::{AlignedBytes, Supported};

/// The most tokens of a passage.
const MOST_TOKENS: usize = 32;

/// Positions that are widened at a time.
const POSITIONS: usize = 32;

/// Passages for each thread that there should be: they are uneven work.
const PER_THREAD: usize = 8;

/// Cuts a batch into passages, none longer than leaves each of `threads` enough of them when there are
/// `kv_heads` for each.
pub(crate) fn passages(rows: &[Row], kv_heads: usize, threads: usize) -> Vec<Range<usize>> {
    let most = (rows.len() * kv_heads / (threads * PER_THREAD)).clamp(1, MOST_TOKENS);
    let mut passages: Vec<Range<usize>> = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        match passages.last_mut() {
            Some(last) if last.len() < most && rows[last.start].sequence == row.sequence => {
                last.end = index + 1;
            }
            _ => passages.push(index..index + 1),
        }
    }
    passages
}

/// One token's query heads of one key/value head.
#[derive(Debug)]
pub(crate) struct Token<'a> {
    /// Each head's query.
    pub(crate) queries: &'a [f32],
    /// Each head's result.
    pub(crate) out: &'a mut [f32],
    /// The positions that it sees, of those that are given.
    pub(crate) seen: usize,
}

/// What a worker needs to attend; kept from one passage to the next. All begin at cache lines: loads that
/// cross them would cost as much as the arithmetic.
#[derive(Debug, Default)]
pub(crate) struct PassageScratch {
    /// [`POSITIONS`] x width
    wide: AlignedBytes,
    /// tokens x heads x width
    queries: AlignedBytes,
    /// tokens x heads x [`CHUNK`]
    scores: AlignedBytes,
    /// tokens x heads x width: the weighted values of a chunk of positions
    partial: AlignedBytes,
    /// tokens x heads, of the chunks so far
    totals: Vec<Total>,
    /// tokens x heads, of a chunk
    fresh: Vec<Total>,
}

/// `len` values in a buffer that is kept.
fn floats(buffer: &mut AlignedBytes, len: usize) -> &mut [f32] {
    let bytes = len * size_of::<f32>();
    if buffer.len() != bytes {
        buffer.resize(bytes);
    }
    cast_slice_mut(buffer)
}

/// The operands of attention that all passages share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Passage<'a> {
    pub(crate) isa: Supported,
    /// Of a head.
    pub(crate) width: usize,
    pub(crate) scale: f32,
    /// positions x width
    pub(crate) keys: &'a [f16],
    /// positions x width
    pub(crate) values: &'a [f16],
}

impl Passage<'_> {
    /// `out = softmax(scale * keys · q) · values` for each query head q of each token, over the positions
    /// that the token sees: at least one, and more than the tokens before it. Returns whether every score
    /// is finite, or leaves the results unfinished.
    pub(crate) fn attend(self, tokens: &mut [Token<'_>], scratch: &mut PassageScratch) -> bool {
        let Self { isa, width, scale, keys, values } = self;
        let size = tokens[0].queries.len();
        let heads = size / width;
        let PassageScratch { wide, queries, scores, partial, totals, fresh } = scratch;
        let (wide, queries) =
            (floats(wide, POSITIONS * width), floats(queries, tokens.len() * size));
        let scores = floats(scores, tokens.len() * heads * CHUNK);
        let partial = floats(partial, tokens.len() * size);
        totals.resize(tokens.len() * heads, [0.0; 2]);
        fresh.resize(tokens.len() * heads, [0.0; 2]);
        for (token, queries) in tokens.iter().zip(queries.chunks_exact_mut(size)) {
            queries.copy_from_slice(token.queries);
        }
        for chunk in (0..keys.len() / width).step_by(CHUNK) {
            let end = (keys.len() / width).min(chunk + CHUNK);
            // How many of the positions from `start` on a token sees.
            let seen = |token: &Token<'_>, start: usize| token.seen.saturating_sub(start);
            for start in (chunk..end).step_by(POSITIONS) {
                let stop = end.min(start + POSITIONS);
                let wide = &mut wide[..(stop - start) * width];
                elementwise::widen_f16(isa, &keys[start * width..stop * width], wide);
                let scores = &mut scores[start - chunk..];
                // What the first token sees whole, all do.
                if tokens[0].seen >= stop {
                    attention::scores_f32(isa, wide, queries, width, scores, CHUNK);
                    continue;
                }
                let each = queries.chunks_exact(size).zip(scores.chunks_mut(heads * CHUNK));
                for (token, (queries, scores)) in tokens.iter().zip(each) {
                    let n = seen(token, start).min(stop - start);
                    attention::scores_f32(isa, &wide[..n * width], queries, width, scores, CHUNK);
                }
            }
            let each = fresh.chunks_exact_mut(heads).zip(scores.chunks_exact_mut(heads * CHUNK));
            for (token, (fresh, scores)) in tokens.iter().zip(each) {
                let n = seen(token, chunk).min(CHUNK);
                if n == 0 {
                    continue;
                }
                for (fresh, scores) in fresh.iter_mut().zip(scores.chunks_exact_mut(CHUNK)) {
                    let Some(total) = exponentials(isa, &mut scores[..n], scale) else {
                        return false;
                    };
                    *fresh = total;
                }
            }
            partial.fill(0.0);
            for start in (chunk..end).step_by(POSITIONS) {
                let stop = end.min(start + POSITIONS);
                let wide = &mut wide[..(stop - start) * width];
                elementwise::widen_f16(isa, &values[start * width..stop * width], wide);
                let weights = &scores[start - chunk..];
                if tokens[0].seen >= stop {
                    attention::add_weighted_f32(isa, weights, CHUNK, wide, width, partial);
                    continue;
                }
                let each = partial.chunks_exact_mut(size).zip(weights.chunks(heads * CHUNK));
                for (token, (partial, weights)) in tokens.iter().zip(each) {
                    let n = seen(token, start).min(stop - start);
                    let rows = &wide[..n * width];
                    attention::add_weighted_f32(isa, weights, CHUNK, rows, width, partial);
                }
            }
            let totals = totals.chunks_exact_mut(heads).zip(fresh.chunks_exact(heads));
            let each = totals.zip(partial.chunks_exact_mut(size));
            for (token, ((totals, fresh), partial)) in tokens.iter_mut().zip(each) {
                if chunk == 0 {
                    token.out.copy_from_slice(partial);
                    totals.copy_from_slice(fresh);
                } else if token.seen > chunk {
                    merge(isa, totals, fresh, token.out, partial);
                }
            }
        }
        for (token, totals) in tokens.iter_mut().zip(totals.chunks_exact(heads)) {
            divide(isa, totals, token.out);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::attention::{SCRATCH, attend};
    use trilut_kernels::Cpu;

    fn row(sequence: usize, position: usize) -> Row {
        Row { sequence, position, token: 0, logits: false }
    }

    #[test]
    fn passages_are_of_one_sequence_and_enough_for_the_threads() {
        let prompt: Vec<_> = (0..50).map(|position| row(0, position)).collect();
        let lengths = |rows: &[Row], threads| -> Vec<usize> {
            passages(rows, 5, threads).iter().map(ExactSizeIterator::len).collect()
        };
        assert_eq!(lengths(&prompt, 1), [31, 19]);
        assert_eq!(lengths(&prompt, 8).len(), 17);
        assert_eq!(lengths(&prompt, 64), [1; 50]);
        let rows: Vec<_> =
            prompt[..20].iter().copied().chain((3..25).map(|at| row(1, at))).collect();
        assert_eq!(lengths(&rows, 1), [20, 22]);
        let rows: Vec<_> = (0..30).map(|at| row(at % 2, at / 2)).collect();
        assert_eq!(lengths(&rows, 1), [1; 30]);
        assert_eq!(lengths(&[], 1), [0; 0]);
    }

    #[test]
    fn tokens_together_are_as_each_by_itself() {
        let isa = Cpu::detect().best();
        let wave = |i: usize, f: f32| (i as f32 * f).sin() * 2.0;
        let mut scratch = PassageScratch::default();
        for (width, heads) in [(32, 4), (50, 3), (128, 1)] {
            for (tokens, last) in [(1, 1), (8, 8), (5, 37), (8, 256), (8, 259), (3, 700)] {
                let queries: Vec<f32> = (0..tokens * heads * width).map(|i| wave(i, 0.7)).collect();
                let halves = |f| -> Vec<f16> {
                    (0..last * width).map(|i| f16::from_f32(wave(i, f))).collect()
                };
                let (keys, values) = (halves(0.37), halves(1.3));
                let mut out = vec![7.0; queries.len()];
                let size = heads * width;
                let pairs = queries.chunks_exact(size).zip(out.chunks_exact_mut(size));
                let mut passage: Vec<_> = pairs
                    .zip(last + 1 - tokens..)
                    .map(|((queries, out), seen)| Token { queries, out, seen })
                    .collect();
                let shared = Passage { isa, width, scale: 0.3, keys: &keys, values: &values };
                assert!(shared.attend(&mut passage, &mut scratch));
                for (index, (queries, out)) in
                    queries.chunks_exact(size).zip(out.chunks_exact(size)).enumerate()
                {
                    let seen = (last + 1 - tokens + index) * width;
                    let (keys, values) = (&keys[..seen], &values[..seen]);
                    let (mut scores, mut partial) = (vec![0.0; heads * SCRATCH], vec![0.0; size]);
                    let (scores, partial) = (&mut scores, &mut partial);
                    let mut alone = vec![0.0; size];
                    assert!(attend(
                        isa, queries, width, 0.3, keys, values, scores, partial, &mut alone
                    ));
                    assert_eq!(out, alone, "{width} {heads} {last}: {index}");
                }
            }
        }
    }

    #[test]
    fn only_keys_that_are_seen_must_be_finite() {
        let isa = Cpu::detect().best();
        let (width, n) = (32, 300);
        let values = vec![f16::ONE; n * width];
        let queries = vec![1.0; 2 * width];
        for at in [0, 40, 255, 256, 298, 299] {
            let mut keys = vec![f16::ONE; n * width];
            keys[at * width + 5] = f16::INFINITY;
            let (mut first, mut second) = (vec![0.0; width], vec![0.0; width]);
            let mut tokens = [
                Token { queries: &queries[..width], out: &mut first, seen: n - 2 },
                Token { queries: &queries[width..], out: &mut second, seen: n - 1 },
            ];
            let shared = Passage { isa, width, scale: 0.1, keys: &keys, values: &values };
            assert_eq!(shared.attend(&mut tokens, &mut PassageScratch::default()), at == n - 1);
        }
    }
}
