//! Attention of the query heads that share a key/value head over the cached positions, in a fixed order.
//!
//! A query sees a range of positions: those up to its own, or the last of them where a layer has a window.
//! Positions are taken in chunks of [`CHUNK`] that end at absolute multiples of it. Each chunk has
//! its own softmax; chunks are merged in ascending order. So a token's result does not depend on the
//! batch, the prefill blocks or the threads, nor on the heads that are taken together; and scores need
//! the memory of one chunk, however long the text.

use super::passage::{PassageScratch, Token};
use crate::cache::Stored;
use std::ops::Range;
use trilut_kernels::Supported;
use trilut_kernels::float::{attention, elementwise, softmax};

/// Positions per chunk.
pub(super) const CHUNK: usize = 256;

/// Values of scratch space for each query head: its scores, and four that are kept beside them.
pub(crate) const SCRATCH: usize = CHUNK + 4;

/// How many of the `shared` query heads of a key/value head one task takes, when there are `tokens *
/// kv_heads` of these for `threads`: a divisor of `shared`. More heads widen keys and values less
/// often, fewer are divided more evenly.
pub(crate) fn heads_per_task(shared: usize, heads: usize, threads: usize) -> usize {
    // Widening f16 costs about half of what a head then does with it; integers, less.
    let time = |n: usize| (heads * (shared / n)).div_ceil(threads) * (2 * n + 1);
    let divisors = (1..=shared).filter(|n| shared.is_multiple_of(*n));
    divisors.min_by_key(|&n| (time(n), std::cmp::Reverse(n))).unwrap_or(1)
}

/// Cached keys and values of one head, and how they are attended to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Past<'a> {
    pub(crate) isa: Supported,
    /// Of a head.
    pub(crate) width: usize,
    pub(crate) scale: f32,
    /// The position of the first of them.
    pub(crate) first: usize,
    /// positions x width, twice
    pub(crate) stored: Stored<'a>,
}

impl Past<'_> {
    /// `out = softmax(scale * keys · q) · values` for each query head q in `queries`, over all positions:
    /// at least one. `scores` holds [`SCRATCH`] values for each head, `partial` as many as `queries`;
    /// keys and values that are integers need `passage`.
    /// Returns whether every score is finite, or leaves `out` unfinished: softmax would give one that is
    /// not (a key beyond the range of f16) a weight of 0 or 1, and nothing after it could tell.
    pub(crate) fn attend(
        self,
        queries: &[f32],
        scores: &mut [f32],
        partial: &mut [f32],
        passage: &mut PassageScratch,
        out: &mut [f32],
    ) -> bool {
        let Self { isa, width, scale, first, stored } = self;
        let Stored::F16 { keys, values } = stored else {
            let seen = first..first + stored.rows(width);
            return self.attend_each(&mut [Token { queries, out, seen }], passage);
        };
        let heads = queries.len() / width;
        let partial = &mut partial[..queries.len()];
        // By head: of the chunks so far, and of one.
        let (totals, scores) = scores[..heads * SCRATCH].split_at_mut(4 * heads);
        let (totals, fresh) = totals.as_chunks_mut::<2>().0.split_at_mut(heads);
        for chunk in chunks(first..first + keys.len() / width) {
            let n = chunk.len();
            let rows = (chunk.start - first) * width..(chunk.end - first) * width;
            let scores = &mut scores[..heads * n];
            attention::scores_f16(isa, &keys[rows.clone()], queries, width, scores);
            for (fresh, scores) in fresh.iter_mut().zip(scores.chunks_exact_mut(n)) {
                let Some(total) = exponentials(isa, scores, scale) else { return false };
                *fresh = total;
            }
            if chunk.start == first {
                attention::weighted_sums_f16(isa, scores, &values[rows], width, out);
                totals.copy_from_slice(fresh);
                continue;
            }
            attention::weighted_sums_f16(isa, scores, &values[rows], width, partial);
            merge(isa, totals, fresh, out, partial, width);
        }
        divide(isa, totals, out);
        true
    }
}

/// The chunks of a range of positions; the first and the last may be parts of one.
pub(super) fn chunks(positions: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    parts(positions, CHUNK)
}

/// A range cut at the multiples of `size`.
pub(super) fn parts(range: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    let starts = (range.start / size * size..range.end).step_by(size);
    starts.map(move |start| start.max(range.start)..range.end.min(start + size))
}

/// The largest score, and the sum of the exponentials relative to it.
pub(super) type Total = [f32; 2];

/// Turns a head's scores of a chunk into the exponentials that weigh its values; `None` when one is not
/// finite.
pub(super) fn exponentials(isa: Supported, scores: &mut [f32], scale: f32) -> Option<Total> {
    let largest = softmax::scale_largest(isa, scores, scale)?;
    Some([largest, softmax::exp_shifted(isa, scores, largest)])
}

/// Joins a chunk's totals and sums, one for each head, to those of the chunks before it; from one head's
/// `partial` sums to the next it is `stride`.
pub(super) fn merge(
    isa: Supported,
    totals: &mut [Total],
    fresh: &[Total],
    out: &mut [f32],
    partial: &mut [f32],
    stride: usize,
) {
    let width = out.len() / totals.len();
    let partial = partial.chunks_mut(stride).map(|partial| &mut partial[..width]);
    let sums = out.chunks_exact_mut(width).zip(partial);
    for (([most, total], &[largest, sum]), (out, partial)) in totals.iter_mut().zip(fresh).zip(sums)
    {
        // Both sides are brought to the larger of the two maxima.
        let merged = if largest > *most { largest } else { *most };
        let mut factors = [*most - merged, largest - merged];
        softmax::exp(isa, &mut factors);
        let [old, new] = factors;
        elementwise::scale(isa, out, old);
        elementwise::scale(isa, partial, new);
        elementwise::add(isa, out, partial);
        *total = *total * old + sum * new;
        *most = merged;
    }
}

/// Divides each head's weighted sums by the sum of its weights.
pub(super) fn divide(isa: Supported, totals: &[Total], out: &mut [f32]) {
    let width = out.len() / totals.len();
    for (&[_, total], out) in totals.iter().zip(out.chunks_exact_mut(width)) {
        elementwise::scale(isa, out, 1.0 / total);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;
    use trilut_kernels::Cpu;

    #[test]
    fn close_to_float64_across_chunks() {
        let isa = Cpu::detect().best();
        let width = 32;
        let wave = |i: usize, f: f64| ((i as f64 * f).sin() * 2.0) as f32;
        for n in [1, 5, 255, 256, 257, 700] {
            let q: Vec<f32> = (0..width).map(|i| wave(i, 0.7)).collect();
            let halves =
                |f| -> Vec<f16> { (0..n * width).map(|i| f16::from_f32(wave(i, f))).collect() };
            let (keys, values) = (halves(0.37), halves(1.3));
            let mut out = vec![0.0; width];
            let (mut scores, mut partial) = (vec![0.0; SCRATCH], vec![0.0; width]);
            let (scores, partial) = (&mut scores, &mut partial);
            let past = Past {
                isa,
                width,
                scale: 0.3,
                first: 0,
                stored: Stored::F16 { keys: &keys, values: &values },
            };
            assert!(past.attend(&q, scores, partial, &mut PassageScratch::default(), &mut out));

            let dot = |row: &[f16]| -> f64 {
                row.iter().zip(&q).map(|(k, q)| k.to_f64() * f64::from(*q)).sum()
            };
            let scores: Vec<f64> = keys.chunks(width).map(|row| 0.3 * dot(row)).collect();
            let most = scores.iter().copied().fold(f64::MIN, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
            let total: f64 = weights.iter().sum();
            for (c, out) in out.into_iter().enumerate() {
                let rows = weights.iter().zip(values.chunks(width));
                let exact: f64 = rows.map(|(w, row)| w * row[c].to_f64()).sum::<f64>() / total;
                assert!((f64::from(out) - exact).abs() < 1e-5, "{n} positions: {out} {exact}");
            }
        }
    }

    #[test]
    fn chunks_end_at_absolute_multiples() {
        let of = |positions| -> Vec<(usize, usize)> {
            chunks(positions).map(|chunk| (chunk.start, chunk.end)).collect()
        };
        assert_eq!(of(0..1), [(0, 1)]);
        assert_eq!(of(0..600), [(0, 256), (256, 512), (512, 600)]);
        assert_eq!(of(255..513), [(255, 256), (256, 512), (512, 513)]);
        assert_eq!(of(300..310), [(300, 310)]);
        assert!(of(512..512).is_empty());
    }

    #[test]
    fn heads_together_are_as_each_by_itself() {
        let isa = Cpu::detect().best();
        for width in [32, 50] {
            for heads in 1..=6 {
                for n in [1, 255, 256, 700] {
                    let wave = |i: usize, f: f32| (i as f32 * f).sin() * 2.0;
                    let q: Vec<f32> = (0..heads * width).map(|i| wave(i, 0.7)).collect();
                    let halves =
                        |f| (0..n * width).map(|i| f16::from_f32(wave(i, f))).collect::<Vec<_>>();
                    let (keys, values) = (halves(0.37), halves(1.3));
                    let stored = Stored::F16 { keys: &keys, values: &values };
                    let past = Past { isa, width, scale: 0.3, first: 100, stored };
                    let run = |q: &[f32]| {
                        let mut out = vec![0.0; q.len()];
                        let mut scores = vec![0.0; q.len() / width * SCRATCH];
                        let (scores, partial) = (&mut scores, &mut vec![0.0; q.len()]);
                        assert!(past.attend(
                            q,
                            scores,
                            partial,
                            &mut PassageScratch::default(),
                            &mut out
                        ));
                        out
                    };
                    let alone: Vec<f32> = q.chunks_exact(width).flat_map(run).collect();
                    assert_eq!(run(&q), alone);
                }
            }
        }
    }

    #[test]
    fn tasks_take_as_many_heads_as_threads_leave() {
        // A prompt, and one token of a model with 5 key/value heads for 20 heads.
        assert_eq!(heads_per_task(4, 512 * 5, 8), 4);
        assert_eq!([1, 2, 5, 20].map(|threads| heads_per_task(4, 5, threads)), [4, 2, 4, 1]);
        assert_eq!(heads_per_task(1, 8, 3), 1);
    }

    #[test]
    fn keys_beyond_f16_are_reported() {
        let isa = Cpu::detect().best();
        let (width, n) = (32, 300);
        let values = vec![f16::ONE; n * width];
        let (scores, partial) = (&mut vec![0.0; SCRATCH], &mut vec![0.0; width]);
        let mut out = vec![0.0; width];
        for at in [0, 17, 255, 256, 299] {
            for bad in [f16::INFINITY, f16::NEG_INFINITY, f16::NAN] {
                let mut keys = vec![f16::ONE; n * width];
                keys[at * width + 5] = bad;
                let q = vec![1.0; width];
                let stored = Stored::F16 { keys: &keys, values: &values };
                let past = Past { isa, width, scale: 0.1, first: 0, stored };
                assert!(!past.attend(
                    &q,
                    scores,
                    partial,
                    &mut PassageScratch::default(),
                    &mut out
                ));
            }
        }
    }
}
