//! Attention of a passage: some tokens of one text that follow each other, as in a prompt.
//!
//! Most of what they see they see together, so a few keys and values at a time are widened from f16 to f32
//! once and stay in the nearest cache while the heads of all tokens pass over them; integers are attended
//! to in [`super::fixed_passage`]. Each head's result is that of [`Past::attend`] for it alone, bit for bit.

use super::Row;
use super::attention::{CHUNK, Past, Total, chunks, divide, exponentials, merge, parts};
use super::buffer::Buffer;
use super::fixed_passage::{self, FixedScratch};
use crate::cache::{StoreParts, Stored};
use std::ops::Range;
use trilut_kernels::Supported;
use trilut_kernels::float::{attention, elementwise};

/// The most tokens of a passage over keys and values in f16.
const MOST_TOKENS: usize = 32;

/// Positions that are widened at a time.
const POSITIONS: usize = 32;

/// Passages for each thread that there should be: they are uneven work.
const PER_THREAD: usize = 8;

/// The most tokens of a passage over what is stored.
pub(crate) fn most_tokens(stored: &StoreParts<'_>) -> usize {
    match stored {
        StoreParts::F16(_) => MOST_TOKENS,
        StoreParts::Q16(_) | StoreParts::Q8(_) => fixed_passage::MOST_TOKENS,
    }
}

/// Cuts a batch into passages, none longer than leaves each of `threads` enough of them when there are
/// `kv_heads` for each, nor than `most`.
pub(crate) fn passages(
    rows: &[Row],
    kv_heads: usize,
    threads: usize,
    most: usize,
) -> Vec<Range<usize>> {
    let most = (rows.len() * kv_heads / (threads * PER_THREAD)).clamp(1, most);
    let mut passages = Vec::new();
    let mut start = 0;
    for text in rows.chunk_by(|a, b| a.sequence == b.sequence) {
        // As few as that allows, and these alike.
        let tokens = text.len().div_ceil(text.len().div_ceil(most));
        let end = start + text.len();
        passages.extend((start..end).step_by(tokens).map(|at| at..end.min(at + tokens)));
        start = end;
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
    /// The positions that it sees.
    pub(crate) seen: Range<usize>,
}

impl Token<'_> {
    /// Takes what its heads have found in a chunk of positions: how many these are for each head is in `fresh`,
    /// and `partial` has the weighted values, from one head to the next `stride`.
    pub(super) fn take(
        &mut self,
        isa: Supported,
        chunk: &Range<usize>,
        totals: &mut [Total],
        fresh: &[Total],
        partial: &mut [f32],
        stride: usize,
    ) {
        match self.sees(chunk) {
            Some(seen) if seen.start == self.seen.start => {
                let outs = self.out.chunks_exact_mut(self.out.len() / totals.len());
                for (out, partial) in outs.zip(partial.chunks(stride)) {
                    out.copy_from_slice(&partial[..out.len()]);
                }
                totals.copy_from_slice(fresh);
            }
            Some(_) => merge(isa, totals, fresh, self.out, partial, stride),
            None => {}
        }
    }

    /// Those of some positions that it sees, if there are any.
    pub(super) fn sees(&self, positions: &Range<usize>) -> Option<Range<usize>> {
        let seen = self.seen.start.max(positions.start)..self.seen.end.min(positions.end);
        Some(seen).filter(|seen| !seen.is_empty())
    }
}

/// What a worker needs to attend; kept from one passage to the next.
#[derive(Debug, Default)]
pub(crate) struct PassageScratch {
    /// [`POSITIONS`] x width
    wide: Buffer<f32>,
    /// tokens x heads x width
    queries: Buffer<f32>,
    /// tokens x heads x [`CHUNK`]
    scores: Buffer<f32>,
    /// tokens x heads x width: the weighted values of a chunk of positions
    partial: Buffer<f32>,
    /// tokens x heads, of the chunks so far
    totals: Vec<Total>,
    /// tokens x heads, of a chunk
    fresh: Vec<Total>,
    /// What attention in integers needs.
    fixed: FixedScratch,
}

impl Past<'_> {
    /// [`Past::attend`] for each token, over the positions that it sees: at least one of those that are
    /// given, and neither beginning nor ending before those of the token before it. Returns whether every
    /// score is finite, or leaves the results unfinished.
    pub(crate) fn attend_each(
        self,
        tokens: &mut [Token<'_>],
        scratch: &mut PassageScratch,
    ) -> bool {
        let Self { isa, width, scale, first, stored } = self;
        let (keys, values) = match stored {
            Stored::F16 { keys, values } => (keys, values),
            Stored::Fixed { keys, values } => {
                return self.attend_fixed(keys, values, tokens, &mut scratch.fixed);
            }
        };
        let size = tokens[0].queries.len();
        let heads = size / width;
        let PassageScratch { wide, queries, scores, partial, totals, fresh, .. } = scratch;
        let wide = wide.resize(POSITIONS * width);
        let queries = queries.resize(tokens.len() * size);
        let scores = scores.resize(tokens.len() * heads * CHUNK);
        let partial = partial.resize(tokens.len() * size);
        totals.resize(tokens.len() * heads, [0.0; 2]);
        fresh.resize(tokens.len() * heads, [0.0; 2]);
        for (token, queries) in tokens.iter().zip(queries.chunks_exact_mut(size)) {
            queries.copy_from_slice(token.queries);
        }
        // What the last token sees first and the first one last, all see.
        let (begin, end) = (tokens[0].seen.start, tokens[tokens.len() - 1].seen.end);
        let (all_from, all_to) = (tokens[tokens.len() - 1].seen.start, tokens[0].seen.end);
        let rows = |part: &Range<usize>| (part.start - first) * width..(part.end - first) * width;
        let by_all = |part: &Range<usize>| all_from <= part.start && part.end <= all_to;
        for chunk in chunks(begin..end) {
            // Scores lie where their position is in the chunk.
            let origin = chunk.start / CHUNK * CHUNK;
            for part in parts(chunk.clone(), POSITIONS) {
                let wide = &mut wide[..part.len() * width];
                elementwise::widen_f16(isa, &keys[rows(&part)], wide);
                if by_all(&part) {
                    let scores = &mut scores[part.start - origin..];
                    attention::scores_f32(isa, wide, queries, width, scores, CHUNK);
                    continue;
                }
                let each = queries.chunks_exact(size).zip(scores.chunks_exact_mut(heads * CHUNK));
                for (token, (queries, scores)) in tokens.iter().zip(each) {
                    let Some(seen) = token.sees(&part) else { continue };
                    let wide = &wide[(seen.start - part.start) * width..][..seen.len() * width];
                    let scores = &mut scores[seen.start - origin..];
                    attention::scores_f32(isa, wide, queries, width, scores, CHUNK);
                }
            }
            let each = fresh.chunks_exact_mut(heads).zip(scores.chunks_exact_mut(heads * CHUNK));
            for (token, (fresh, scores)) in tokens.iter().zip(each) {
                let Some(seen) = token.sees(&chunk) else { continue };
                for (fresh, scores) in fresh.iter_mut().zip(scores.chunks_exact_mut(CHUNK)) {
                    let scores = &mut scores[seen.start - origin..seen.end - origin];
                    let Some(total) = exponentials(isa, scores, scale) else { return false };
                    *fresh = total;
                }
            }
            partial.fill(0.0);
            for part in parts(chunk.clone(), POSITIONS) {
                let wide = &mut wide[..part.len() * width];
                elementwise::widen_f16(isa, &values[rows(&part)], wide);
                if by_all(&part) {
                    let weights = &scores[part.start - origin..];
                    attention::add_weighted_f32(isa, weights, CHUNK, wide, width, partial);
                    continue;
                }
                let each = partial.chunks_exact_mut(size).zip(scores.chunks_exact(heads * CHUNK));
                for (token, (partial, weights)) in tokens.iter().zip(each) {
                    let Some(seen) = token.sees(&part) else { continue };
                    let rows = &wide[(seen.start - part.start) * width..][..seen.len() * width];
                    let weights = &weights[seen.start - origin..];
                    attention::add_weighted_f32(isa, weights, CHUNK, rows, width, partial);
                }
            }
            let totals = totals.chunks_exact_mut(heads).zip(fresh.chunks_exact(heads));
            let each = totals.zip(partial.chunks_exact_mut(size));
            for (token, ((totals, fresh), partial)) in tokens.iter_mut().zip(each) {
                token.take(isa, &chunk, totals, fresh, partial, width);
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
    use crate::model::attention::SCRATCH;
    use half::f16;
    use trilut_kernels::Cpu;

    fn row(sequence: usize, position: usize) -> Row {
        Row { sequence, position, token: 0, logits: false }
    }

    #[test]
    fn passages_are_of_one_sequence_and_enough_for_the_threads() {
        let prompt: Vec<_> = (0..50).map(|position| row(0, position)).collect();
        let lengths = |rows: &[Row], threads| -> Vec<usize> {
            passages(rows, 5, threads, 32).iter().map(ExactSizeIterator::len).collect()
        };
        assert_eq!(lengths(&prompt, 1), [25, 25]);
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
            // A passage ends at a position; its tokens see the last so many.
            for (tokens, last, window) in [
                (1, 1, 999),
                (8, 8, 999),
                (5, 37, 999),
                (8, 256, 999),
                (8, 259, 999),
                (3, 700, 999),
                (8, 30, 1),
                (32, 300, 3),
                (8, 259, 20),
                (32, 700, 256),
                (32, 600, 90),
                (2, 1000, 513),
            ] {
                let queries: Vec<f32> = (0..tokens * heads * width).map(|i| wave(i, 0.7)).collect();
                let halves = |f| -> Vec<f16> {
                    (0..last * width).map(|i| f16::from_f32(wave(i, f))).collect()
                };
                let (keys, values) = (halves(0.37), halves(1.3));
                let mut out = vec![7.0; queries.len()];
                let size = heads * width;
                let pairs = queries.chunks_exact(size).zip(out.chunks_exact_mut(size));
                let seen = |token| {
                    let end: usize = last + 1 - tokens + token;
                    end.saturating_sub(window)..end
                };
                let mut passage: Vec<_> = pairs
                    .enumerate()
                    .map(|(index, (queries, out))| Token { queries, out, seen: seen(index) })
                    .collect();
                let past = |seen: Range<usize>| {
                    let rows = seen.start * width..seen.end * width;
                    let (keys, values) = (&keys[rows.clone()], &values[rows]);
                    let stored = Stored::F16 { keys, values };
                    Past { isa, width, scale: 0.3, first: seen.start, stored }
                };
                let all = seen(0).start..seen(tokens - 1).end;
                assert!(past(all).attend_each(&mut passage, &mut scratch));
                for (index, (queries, out)) in
                    queries.chunks_exact(size).zip(out.chunks_exact(size)).enumerate()
                {
                    let (mut scores, mut partial) = (vec![0.0; heads * SCRATCH], vec![0.0; size]);
                    let mut alone = vec![0.0; size];
                    let past = past(seen(index));
                    let other = &mut PassageScratch::default();
                    assert!(past.attend(queries, &mut scores, &mut partial, other, &mut alone));
                    assert_eq!(out, alone, "{width} {heads} {last} {window}: {index}");
                }
            }
        }
    }

    #[test]
    fn only_keys_that_are_seen_must_be_finite() {
        let isa = Cpu::detect().best();
        let (width, n) = (32, 300);
        let values = &vec![f16::ONE; n * width];
        let queries = vec![1.0; 2 * width];
        for at in [0, 40, 255, 256, 298, 299] {
            for begin in [0, 50] {
                let mut keys = vec![f16::ONE; n * width];
                keys[at * width + 5] = f16::INFINITY;
                let (mut first, mut second) = (vec![0.0; width], vec![0.0; width]);
                let mut tokens = [
                    Token { queries: &queries[..width], out: &mut first, seen: begin..n - 2 },
                    Token { queries: &queries[width..], out: &mut second, seen: begin..n - 1 },
                ];
                let stored = Stored::F16 { keys: &keys, values };
                let past = Past { isa, width, scale: 0.1, first: 0, stored };
                let finite = past.attend_each(&mut tokens, &mut PassageScratch::default());
                assert_eq!(finite, at == n - 1 || at < begin);
            }
        }
    }
}
