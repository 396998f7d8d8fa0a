//! Quantisation of one token's activations to int8, equal to [`crate::reference::quantise`] bit for bit.

use crate::float::norm::norm_and_visit;
use crate::float::{Lanes, instantiate, padded};

instantiate! {
    /// Writes `q[i] = clamp(round_half_even(x[i] * (127 / amax)), -127, 127)` and returns
    /// `amax = max(max |x|, 1e-5)`.
    ///
    /// Infinite or NaN inputs give some values within -127..=127; an infinity makes `amax` infinite,
    /// a NaN does not show: callers check the norm that precedes this.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn quantise(x: &[f32], q: &mut [i8]) -> f32 = quantise_body;

    /// [`rms_norm`](crate::float::norm::rms_norm) into `normed`, then [`quantise`] of that, in two passes over the
    /// row behind the one for its mean square. Returns the mean square and `amax`.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn norm_and_quantise(x: &[f32], weight: &[f32], eps: f32, normed: &mut [f32], q: &mut [i8]) -> (f32, f32) = norm_and_quantise_body;

    /// The sum of all values, which is exact.
    pub fn sum(q: &[i8]) -> i32 = sum_body;
}

/// Integers alone: the lanes say which instructions the compiler may use.
#[inline(always)]
fn sum_body<L: Lanes>(q: &[i8]) -> i32 {
    let mut sum = 0;
    for &q in q {
        sum += i32::from(q);
    }
    sum
}

#[inline(always)]
fn quantise_body<L: Lanes>(x: &[f32], q: &mut [i8]) -> f32 {
    assert_eq!(x.len(), q.len());
    let (chunks, tail) = x.as_chunks();
    let tail_chunk = padded(tail);
    // Four at a time, which hides the latency: the largest is the same in any order.
    let (groups, rest) = chunks.as_chunks::<4>();
    let mut parts = [L::splat(1e-5); 4];
    for group in groups {
        for (part, x) in parts.iter_mut().zip(group) {
            *part = L::load(x).abs().max(*part);
        }
    }
    let mut largest = parts[0].max(parts[1]).max(parts[2].max(parts[3]));
    for x in rest {
        largest = L::load(x).abs().max(largest);
    }
    let amax = L::load(&tail_chunk).abs().max(largest).largest();
    round::<L>(x, amax, q);
    amax
}

#[inline(always)]
fn norm_and_quantise_body<L: Lanes>(
    x: &[f32],
    weight: &[f32],
    eps: f32,
    normed: &mut [f32],
    q: &mut [i8],
) -> (f32, f32) {
    assert_eq!(x.len(), q.len());
    let mut largest = L::splat(1e-5);
    let mean = norm_and_visit(
        x,
        weight,
        eps,
        normed,
        #[inline(always)]
        |normed: L| largest = normed.abs().max(largest),
    );
    let amax = largest.largest();
    round::<L>(normed, amax, q);
    (mean, amax)
}

/// The int8 values for a magnitude of `amax`.
#[inline(always)]
fn round<L: Lanes>(x: &[f32], amax: f32, q: &mut [i8]) {
    let (chunks, tail) = x.as_chunks();
    let scale = L::splat(127f32 / amax);
    // Clamping before the rounding is the same as after it, since the limits are integers.
    let (least, most) = (L::splat(-127.0), L::splat(127.0));
    let (outs, out_tail) = q.as_chunks_mut();
    for (x, out) in chunks.iter().zip(outs) {
        L::load(x).mul(scale).max(least).min(most).round_i8(out);
    }
    let mut last = [0; 16];
    L::load(&padded(tail)).mul(scale).max(least).min(most).round_i8(&mut last);
    out_tail.copy_from_slice(&last[..tail.len()]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::float::tests::{LENGTHS, isas, values};
    use crate::reference;
    use proptest::prelude::*;

    fn check(x: &[f32]) {
        let (wanted, wanted_amax) = reference::quantise(x);
        for isa in isas() {
            let mut q = vec![99; x.len()];
            let amax = quantise(isa, x, &mut q);
            assert_eq!(amax.to_bits(), wanted_amax.to_bits(), "{:?}", isa.isa());
            assert_eq!(q, wanted, "{:?}", isa.isa());
            assert_eq!(sum(isa, &q), wanted.iter().map(|&q| i32::from(q)).sum());
        }
    }

    #[test]
    fn equal_to_the_reference_at_every_length() {
        for &n in LENGTHS {
            check(&values(n, n as u64));
        }
    }

    #[test]
    fn normed_and_quantised_at_once_is_the_same() {
        for &n in LENGTHS {
            let (x, weight) = (values(n, 5), values(n, 6));
            for isa in isas() {
                let (mut normed, mut q) = (vec![0.0; n], vec![99; n]);
                let mean = crate::float::norm::rms_norm(isa, &x, &weight, 1e-5, &mut normed);
                let amax = quantise(isa, &normed, &mut q);
                let (mut normed_too, mut q_too) = (vec![0.0; n], vec![99; n]);
                let both = norm_and_quantise(isa, &x, &weight, 1e-5, &mut normed_too, &mut q_too);
                assert_eq!((mean.to_bits(), amax.to_bits()), (both.0.to_bits(), both.1.to_bits()));
                assert_eq!((normed, q), (normed_too, q_too), "{:?}", isa.isa());
            }
        }
    }

    #[test]
    fn halves_zeros_and_extremes() {
        // 127 makes the scale 1, so that halves stay halves.
        let halves: Vec<f32> = (-254..=254).map(|i| i as f32 / 2.0).collect();
        check(&halves);
        check(&[0.0; 40]);
        check(&[-0.0; 17]);
        check(&[1e-6, -3e-6, 1e-45, 0.0]);
        check(&[f32::MAX, f32::MIN, 1.0, -0.0, f32::MIN_POSITIVE]);
    }

    #[test]
    fn non_finite_values_stay_in_range() {
        for isa in isas() {
            let mut x = values(37, 4);
            (x[3], x[20], x[36]) = (f32::NAN, f32::INFINITY, f32::NAN);
            let mut q = vec![0; 37];
            assert_eq!(quantise(isa, &x, &mut q), f32::INFINITY);
            assert!(q.iter().all(|q| (-127..=127).contains(q)));
        }
    }

    proptest! {
        #[test]
        fn equal_to_the_reference(x in proptest::collection::vec(-1e3f32..1e3, 0..200), e in -30i32..30) {
            let factor = 2f32.powi(e);
            check(&x.iter().map(|x| x * factor).collect::<Vec<_>>());
        }
    }
}
