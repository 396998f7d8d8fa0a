//! Attention of a passage: some tokens of one text that follow each other, as in a prompt.
//!
//! Most of what they see they see together, so a few keys and values at a time are widened to f32 once
//! and stay in the nearest cache while the heads of all tokens pass over them. Each head's result is
//! that of [`Past::attend`] for it alone, bit for bit.

use super::Row;
use super::attention::{CHUNK, Past, Total, chunks, divide, exponentials, merge, parts};
use bytemuck::cast_slice_mut;
use std::ops::Range;
use trilut_kernels::AlignedBytes;
use trilut_kernels::float::attention;

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
    /// The positions that it sees.
    pub(crate) seen: Range<usize>,
}

impl Token<'_> {
    /// Those of some positions that it sees, if there are any.
    fn sees(&self, positions: &Range<usize>) -> Option<Range<usize>> {
        let seen = self.seen.start.max(positions.start)..self.seen.end.min(positions.end);
        Some(seen).filter(|seen| !seen.is_empty())
    }
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

impl Past<'_> {
    /// [`Past::attend`] for each token, over the positions that it sees: at least one of those that are
    /// given, and neither beginning nor ending before those of the token before it. Returns whether every
    /// score is finite, or leaves the results unfinished.
    pub(crate) fn attend_each(
        self,
        tokens: &mut [Token<'_>],
        scratch: &mut PassageScratch,
    ) -> bool {
        let Self { isa, width, scale, first, keys, values } = self;
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
        // What the last token sees first and the first one last, all see.
        let (begin, end) = (tokens[0].seen.start, tokens[tokens.len() - 1].seen.end);
        let (all_from, all_to) = (tokens[tokens.len() - 1].seen.start, tokens[0].seen.end);
        let by_all = |part: &Range<usize>| all_from <= part.start && part.end <= all_to;
        for chunk in chunks(begin..end) {
            // Scores lie where their position is in the chunk.
            let origin = chunk.start / CHUNK * CHUNK;
            for part in parts(chunk.clone(), POSITIONS) {
                let wide = &mut wide[..part.len() * width];
                keys.widen(isa, part.start - first..part.end - first, width, wide);
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
                values.widen(isa, part.start - first..part.end - first, width, wide);
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
                match token.sees(&chunk) {
                    Some(seen) if seen.start == token.seen.start => {
                        token.out.copy_from_slice(partial);
                        totals.copy_from_slice(fresh);
                    }
                    Some(_) => merge(isa, totals, fresh, token.out, partial),
                    None => {}
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
    use crate::cache::Stored;
    use crate::model::attention::SCRATCH;
    use half::f16;
    use trilut_kernels::Cpu;
    use trilut_kernels::float::stored;

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
                    let (keys, values) = (Stored::F16(keys), Stored::F16(values));
                    Past { isa, width, scale: 0.3, first: seen.start, keys, values }
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
    fn eight_bits_are_attended_to_as_their_exact_values() {
        let isa = Cpu::detect().best();
        let wave =
            |n: usize, f: f32| -> Vec<f32> { (0..n).map(|i| (i as f32 * f).sin() * 2.0).collect() };
        for (width, heads, n) in [(32, 4, 5), (50, 3, 300), (128, 2, 700)] {
            let queries = wave(heads * width, 0.7);
            // Values of which both ways of storing lose nothing: small integers, one of them 127.
            let whole = |f| -> Vec<f32> {
                let mut x: Vec<f32> =
                    wave(n * width, f).iter().map(|x| (x * 40.0).round()).collect();
                x.chunks_mut(width).flat_map(|row| row.chunks_mut(32)).for_each(|b| b[0] = 127.0);
                x
            };
            let (keys, values) = (whole(0.37), whole(1.3));
            let halves = |x: &[f32]| x.iter().map(|x| f16::from_f32(*x)).collect::<Vec<_>>();
            let eighths = |x: &[f32]| {
                let mut codes = vec![0; x.len()];
                let mut scales = vec![f16::ZERO; n * stored::scales_of(width)];
                stored::store_q8(isa, x, width, &mut codes, &mut scales);
                (codes, scales)
            };
            let run = |keys: Stored<'_>, values: Stored<'_>| {
                let past = Past { isa, width, scale: 0.003, first: 0, keys, values };
                let (mut scores, mut partial) =
                    (vec![0.0; heads * SCRATCH], vec![0.0; heads * width]);
                let mut out = vec![0.0; heads * width];
                let other = &mut PassageScratch::default();
                assert!(past.attend(&queries, &mut scores, &mut partial, other, &mut out));
                out
            };
            let (half_keys, half_values) = (halves(&keys), halves(&values));
            let (key_codes, key_scales) = eighths(&keys);
            let (value_codes, value_scales) = eighths(&values);
            assert_eq!(
                run(Stored::F16(&half_keys), Stored::F16(&half_values)),
                run(
                    Stored::Q8 { codes: &key_codes, scales: &key_scales },
                    Stored::Q8 { codes: &value_codes, scales: &value_scales },
                )
            );
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
                let (keys, values) = (Stored::F16(&keys), Stored::F16(values));
                let past = Past { isa, width, scale: 0.1, first: 0, keys, values };
                let finite = past.attend_each(&mut tokens, &mut PassageScratch::default());
                assert_eq!(finite, at == n - 1 || at < begin);
            }
        }
    }
}
