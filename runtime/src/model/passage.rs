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
    /// The positions that it sees, of those that are given: neither end comes before that of an earlier
    /// token.
    pub(crate) sees: Range<usize>,
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
    /// positions x width, from a multiple of [`CHUNK`] on
    pub(crate) keys: &'a [f16],
    /// positions x width
    pub(crate) values: &'a [f16],
}

impl Passage<'_> {
    /// `out = softmax(scale * keys · q) · values` for each query head q of each token, over the positions
    /// that the token sees, at least one. Returns whether every score
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
            let (from, all) = (tokens[0].sees.start, tokens[tokens.len() - 1].sees.start);
            let blocks = (chunk..end).step_by(POSITIONS);
            let blocks = blocks.map(|start| start..end.min(start + POSITIONS));
            // Those that no token sees any more come first.
            let blocks = blocks.skip_while(|block| block.end <= from);
            // What the first token sees of the end and the last one of the beginning, all do.
            let is_seen = |block: &Range<usize>| tokens[0].sees.end >= block.end && all <= block.start;
            for block in blocks.clone() {
                let wide = &mut wide[..block.len() * width];
                elementwise::widen_f16(isa, &keys[block.start * width..block.end * width], wide);
                if is_seen(&block) {
                    let scores = &mut scores[block.start - chunk..];
                    attention::scores_f32(isa, wide, queries, width, scores, CHUNK);
                    continue;
                }
                let each = queries.chunks_exact(size).zip(scores.chunks_mut(heads * CHUNK));
                for (token, (queries, scores)) in tokens.iter().zip(each) {
                    let seen = token.of(&block);
                    let scores = &mut scores[seen.start - chunk..];
                    let rows = &wide[within(&seen, block.start, width)];
                    attention::scores_f32(isa, rows, queries, width, scores, CHUNK);
                }
            }
            let each = fresh.chunks_exact_mut(heads).zip(scores.chunks_exact_mut(heads * CHUNK));
            for (token, (fresh, scores)) in tokens.iter().zip(each) {
                let seen = token.of(&(chunk..end));
                if seen.is_empty() {
                    continue;
                }
                for (fresh, scores) in fresh.iter_mut().zip(scores.chunks_exact_mut(CHUNK)) {
                    let scores = &mut scores[within(&seen, chunk, 1)];
                    let Some(total) = exponentials(isa, scores, scale) else {
                        return false;
                    };
                    *fresh = total;
                }
            }
            partial.fill(0.0);
            for block in blocks {
                let wide = &mut wide[..block.len() * width];
                elementwise::widen_f16(isa, &values[block.start * width..block.end * width], wide);
                if is_seen(&block) {
                    let weights = &scores[block.start - chunk..];
                    attention::add_weighted_f32(isa, weights, CHUNK, wide, width, partial);
                    continue;
                }
                let each = partial.chunks_exact_mut(size).zip(scores.chunks(heads * CHUNK));
                for (token, (partial, weights)) in tokens.iter().zip(each) {
                    let seen = token.of(&block);
                    let weights = &weights[seen.start - chunk..];
                    let rows = &wide[within(&seen, block.start, width)];
                    attention::add_weighted_f32(isa, weights, CHUNK, rows, width, partial);
                }
            }
            let totals = totals.chunks_exact_mut(heads).zip(fresh.chunks_exact(heads));
            let each = totals.zip(partial.chunks_exact_mut(size));
            for (token, ((totals, fresh), partial)) in tokens.iter_mut().zip(each) {
                if token.of(&(chunk..end)).is_empty() {
                    continue;
                }
                if token.sees.start >= chunk {
                    token.out.copy_from_slice(partial);
                    totals.copy_from_slice(fresh);
                } else {
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

impl Token<'_> {
    /// What it sees of some positions; where that is nothing, an empty range among them.
    fn of(&self, positions: &Range<usize>) -> Range<usize> {
        let place = |at: usize| at.clamp(positions.start, positions.end);
        place(self.sees.start)..place(self.sees.end)
    }
}

/// The elements of positions in a buffer that begins with the position `first`, `width` of each.
fn within(positions: &Range<usize>, first: usize, width: usize) -> Range<usize> {
    (positions.start - first) * width..(positions.end - first) * width
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
        // Of windows some are shorter than a passage, and some begin at, before or after edges of chunks.
        for window in [usize::MAX, 1, 3, 40, 256, 300] {
            for (width, heads) in [(32, 4), (50, 3), (128, 1)] {
                for (tokens, last) in [(1, 1), (8, 8), (5, 37), (8, 256), (8, 259), (3, 700)] {
                    let size = heads * width;
                    let queries: Vec<f32> = (0..tokens * size).map(|i| wave(i, 0.7)).collect();
                    let halves = |f| -> Vec<f16> {
                        (0..last * width).map(|i| f16::from_f32(wave(i, f))).collect()
                    };
                    let (keys, values) = (halves(0.37), halves(1.3));
                    let sees = |t: usize| {
                        let end = last + 1 - tokens + t;
                        end.saturating_sub(window)..end
                    };
                    let base = sees(0).start / CHUNK * CHUNK;
                    let mut out = vec![7.0; queries.len()];
                    let pairs = queries.chunks_exact(size).zip(out.chunks_exact_mut(size));
                    let token = |(t, (queries, out))| {
                        let sees = sees(t).start - base..sees(t).end - base;
                        Token { queries, out, sees }
                    };
                    let mut passage: Vec<_> = pairs.enumerate().map(token).collect();
                    let (keys, values) = (&keys[base * width..], &values[base * width..]);
                    let shared = Passage { isa, width, scale: 0.3, keys, values };
                    assert!(shared.attend(&mut passage, &mut scratch));
                    for (t, (queries, out)) in
                        queries.chunks_exact(size).zip(out.chunks_exact(size)).enumerate()
                    {
                        let seen = within(&sees(t), base, width);
                        let (keys, values) = (&keys[seen.clone()], &values[seen]);
                        let (scores, partial) =
                            (&mut vec![0.0; heads * SCRATCH], &mut vec![0.0; size]);
                        let mut alone = vec![0.0; size];
                        let first = sees(t).start;
                        assert!(attend(
                            isa, queries, width, 0.3, first, keys, values, scores, partial,
                            &mut alone
                        ));
                        assert_eq!(out, alone, "{window} {width} {heads} {last}: {t}");
                    }
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
                Token { queries: &queries[..width], out: &mut first, sees: 0..n - 2 },
                Token { queries: &queries[width..], out: &mut second, sees: 0..n - 1 },
            ];
            let shared = Passage { isa, width, scale: 0.1, keys: &keys, values: &values };
            assert_eq!(shared.attend(&mut tokens, &mut PassageScratch::default()), at == n - 1);
        }
    }
}
