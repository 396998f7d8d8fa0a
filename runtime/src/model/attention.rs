//! Attention of the query heads that share a key/value head over the cached positions, in a fixed order.
//!
//! Positions are taken in chunks of [`CHUNK`] that begin at absolute multiples of it. Each chunk has
//! its own softmax; chunks are merged in ascending order. So a token's result does not depend on the
//! batch, the prefill blocks or the threads, nor on the heads that are taken together.

use half::f16;
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
    // Widening costs about half of what a head then does with it.
    let time = |n: usize| (heads * (shared / n)).div_ceil(threads) * (2 * n + 1);
    let divisors = (1..=shared).filter(|n| shared.is_multiple_of(*n));
    divisors.min_by_key(|&n| (time(n), std::cmp::Reverse(n))).unwrap_or(1)
}

/// `out = softmax(scale * keys · q) · values` for each query head q of `width` in `queries`, for keys
/// and values of `n >= 1` positions (`n x width`) from the absolute position `first` on. `scores` holds [`SCRATCH`] values for each
/// head, `partial` as many as `queries`.
/// Returns whether every score is finite, or leaves `out` unfinished: softmax would give one that is not
/// (a key beyond the range of f16) a weight of 0 or 1, and nothing after it could tell.
#[expect(clippy::too_many_arguments, reason = "the operands of one formula")]
pub(crate) fn attend(
    isa: Supported,
    queries: &[f32],
    width: usize,
    scale: f32,
    first: usize,
    keys: &[f16],
    values: &[f16],
    scores: &mut [f32],
    partial: &mut [f32],
    out: &mut [f32],
) -> bool {
    let heads = queries.len() / width;
    let partial = &mut partial[..queries.len()];
    // By head: of the chunks so far, and of one.
    let (totals, scores) = scores[..heads * SCRATCH].split_at_mut(4 * heads);
    let (totals, fresh) = totals.as_chunks_mut::<2>().0.split_at_mut(heads);
    let (end, mut start) = (keys.len() / width, 0);
    while start < end {
        // To the next multiple.
        let n = (CHUNK - (first + start) % CHUNK).min(end - start);
        let part = start * width..(start + n) * width;
        let (keys, values) = (&keys[part.clone()], &values[part]);
        let is_first = start == 0;
        start += n;
        let scores = &mut scores[..heads * n];
        attention::scores_f16(isa, keys, queries, width, scores);
        for (fresh, scores) in fresh.iter_mut().zip(scores.chunks_exact_mut(n)) {
            let Some(total) = exponentials(isa, scores, scale) else { return false };
            *fresh = total;
        }
        if is_first {
            attention::weighted_sums_f16(isa, scores, values, width, out);
            totals.copy_from_slice(fresh);
            continue;
        }
        attention::weighted_sums_f16(isa, scores, values, width, partial);
        merge(isa, totals, fresh, out, partial);
    }
    divide(isa, totals, out);
    true
}

/// The largest score, and the sum of the exponentials relative to it.
pub(super) type Total = [f32; 2];

/// Turns a head's scores of a chunk into the exponentials that weigh its values; `None` when one is not
/// finite.
pub(super) fn exponentials(isa: Supported, scores: &mut [f32], scale: f32) -> Option<Total> {
    let largest = softmax::scale_largest(isa, scores, scale)?;
    Some([largest, softmax::exp_shifted(isa, scores, largest)])
}

/// Joins a chunk's totals and sums, one for each head, to those of the chunks before it.
pub(super) fn merge(
    isa: Supported,
    totals: &mut [Total],
    fresh: &[Total],
    out: &mut [f32],
    partial: &mut [f32],
) {
    let width = out.len() / totals.len();
    let sums = out.chunks_exact_mut(width).zip(partial.chunks_exact_mut(width));
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
    use trilut_kernels::Cpu;

    #[test]
    fn close_to_float64_across_chunks() {
        let isa = Cpu::detect().best();
        let width = 32;
        let wave = |i: usize, f: f64| ((i as f64 * f).sin() * 2.0) as f32;
        // Positions, and where they begin.
        let cases = [1, 5, 255, 256, 257, 700].map(|n| (n, 0));
        for (n, first) in cases.into_iter().chain([(1, 255), (40, 230), (257, 511), (600, 3)]) {
            let q: Vec<f32> = (0..width).map(|i| wave(i, 0.7)).collect();
            let halves =
                |f| -> Vec<f16> { (0..n * width).map(|i| f16::from_f32(wave(i, f))).collect() };
            let (keys, values) = (halves(0.37), halves(1.3));
            let mut out = vec![0.0; width];
            let (mut scores, mut partial) = (vec![0.0; SCRATCH], vec![0.0; width]);
            let (scores, partial) = (&mut scores, &mut partial);
            assert!(attend(
                isa, &q, width, 0.3, first, &keys, &values, scores, partial, &mut out
            ));

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
                    let run = |q: &[f32]| {
                        let mut out = vec![0.0; q.len()];
                        let mut scores = vec![0.0; q.len() / width * SCRATCH];
                        let (scores, partial) = (&mut scores, &mut vec![0.0; q.len()]);
                        assert!(attend(
                            isa, q, width, 0.3, 0, &keys, &values, scores, partial, &mut out
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
                assert!(!attend(isa, &q, width, 0.1, 0, &keys, &values, scores, partial, &mut out));
            }
        }
    }
}
