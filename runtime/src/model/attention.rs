//! Attention of one query head over the cached positions, in a fixed order.
//!
//! Positions are taken in chunks of [`CHUNK`] that begin at absolute multiples of it. Each chunk has
//! its own softmax; chunks are merged in ascending order. So a token's result does not depend on the
//! batch, the prefill blocks or the threads.

use half::f16;
use trilut_kernels::Supported;
use trilut_kernels::float::{elementwise, matvec, reduce, softmax};

/// Positions per chunk.
pub(crate) const CHUNK: usize = 256;

/// `out = softmax(scale * keys · q) · values`, for keys and values of `n >= 1` positions
/// (`n x head_dim`). `scores` holds [`CHUNK`] values of scratch space, `partial` as many as `q`.
/// Returns whether every score is finite: softmax would give one that is not (a key beyond the range
/// of f16) a weight of 0 or 1, and nothing after it could tell.
#[expect(clippy::too_many_arguments, reason = "the operands of one formula")]
pub(crate) fn attend(
    isa: Supported,
    q: &[f32],
    scale: f32,
    keys: &[f16],
    values: &[f16],
    scores: &mut [f32],
    partial: &mut [f32],
    out: &mut [f32],
) -> bool {
    let width = q.len();
    let chunks = keys.chunks(CHUNK * width).zip(values.chunks(CHUNK * width));
    let (mut most, mut total, mut finite) = (0.0, 0.0, true);
    for (index, (keys, values)) in chunks.enumerate() {
        let scores = &mut scores[..keys.len() / width];
        matvec::rows_f16(isa, keys, q, scores);
        elementwise::scale(isa, scores, scale);
        finite &= reduce::all_finite(isa, scores);
        let largest = reduce::largest(isa, scores);
        let sum = softmax::exp_shifted(isa, scores, largest);
        if index == 0 {
            softmax::weighted_sum_f16(isa, scores, values, out);
            (most, total) = (largest, sum);
            continue;
        }
        softmax::weighted_sum_f16(isa, scores, values, partial);
        // Both sides are brought to the larger of the two maxima.
        let merged = if largest > most { largest } else { most };
        let mut factors = [most - merged, largest - merged];
        softmax::exp(isa, &mut factors);
        let [old, new] = factors;
        elementwise::scale(isa, out, old);
        elementwise::scale(isa, partial, new);
        elementwise::add(isa, out, partial);
        total = total * old + sum * new;
        most = merged;
    }
    elementwise::scale(isa, out, 1.0 / total);
    finite
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
        for n in [1, 5, 255, 256, 257, 700] {
            let q: Vec<f32> = (0..width).map(|i| wave(i, 0.7)).collect();
            let halves =
                |f| -> Vec<f16> { (0..n * width).map(|i| f16::from_f32(wave(i, f))).collect() };
            let (keys, values) = (halves(0.37), halves(1.3));
            let mut out = vec![0.0; width];
            let (mut scores, mut partial) = (vec![0.0; CHUNK], vec![0.0; width]);
            assert!(attend(isa, &q, 0.3, &keys, &values, &mut scores, &mut partial, &mut out));

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
    fn keys_beyond_f16_are_reported() {
        let isa = Cpu::detect().best();
        let (width, n) = (32, 300);
        let values = vec![f16::ONE; n * width];
        let (mut scores, mut partial) = (vec![0.0; CHUNK], vec![0.0; width]);
        let mut out = vec![0.0; width];
        for at in [0, 17, 255, 256, 299] {
            for bad in [f16::INFINITY, f16::NEG_INFINITY, f16::NAN] {
                let mut keys = vec![f16::ONE; n * width];
                keys[at * width + 5] = bad;
                let q = vec![1.0; width];
                assert!(!attend(isa, &q, 0.1, &keys, &values, &mut scores, &mut partial, &mut out));
            }
        }
    }
}
