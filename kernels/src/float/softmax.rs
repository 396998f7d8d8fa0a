//! The pieces of softmax: exp, with the sum that weights are divided by, and the scaling that finds the
//! largest score.

use super::lanes::MAGIC;
use super::{Lanes, instantiate, padded};

instantiate! {
    /// `x[i] = exp(x[i])`, within 1 ulp of the exact value for results that are normal numbers:
    /// -87.33 <= x <= 88.02. Below that the result is +0, above it exp(88.02), and a NaN gives +0.
    pub fn exp(x: &mut [f32]) = exp_body;

    /// `x[i] = exp(x[i] - shift)`; returns the sum of the new values.
    pub fn exp_shifted(x: &mut [f32], shift: f32) -> f32 = exp_shifted_body;

    /// `x[i] = x[i] * scale`; returns the largest of the new values, or `None` when one of them is infinite
    /// or NaN.
    pub fn scale_largest(x: &mut [f32], scale: f32) -> Option<f32> = scale_largest_body;
}

/// The smallest argument whose exponential is a normal number: ln(2^-126), rounded up.
const LOWEST: f32 = -87.33654;
/// Above this the power of two would need the exponent 128.
const HIGHEST: f32 = 88.02;

/// `exp(x) = 2^n * exp(r)` with `n = round(x / ln 2)` and |r| <= ln 2 / 2; exp(r) by a polynomial.
#[inline(always)]
pub(super) fn exp_lanes<L: Lanes>(x: L) -> L {
    // ln 2 in two parts: n * HIGH is exact because HIGH has nine significant bits.
    const HIGH: f32 = 355.0 / 512.0;
    const LOW: f32 = -2.121_944_4e-4;
    // Minimax coefficients of (exp(r) - 1 - r) / r^2 (Cephes expf), highest power first.
    const P: [f32; 6] =
        [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    let key = x;
    let x = x.max(L::splat(LOWEST)).min(L::splat(HIGHEST));
    let biased = x.mul(L::splat(std::f32::consts::LOG2_E)).add(L::splat(MAGIC));
    let n = biased.sub(L::splat(MAGIC));
    let r = x.sub(n.mul(L::splat(HIGH))).sub(n.mul(L::splat(LOW)));
    let mut p = L::splat(P[0]);
    for c in &P[1..] {
        p = p.mul(r).add(L::splat(*c));
    }
    let e = p.mul(r.mul(r)).add(r).add(L::splat(1.0));
    e.mul(biased.power_of_two()).keep_at_least(key, LOWEST)
}

/// Below this [`weight_lanes`] does not fall any more: about 2^-115.
const LEAST_WEIGHT: f32 = -80.0;

/// `exp(x)` for x <= 0 as weights of 16 bits need it: within 2^-17 of the exact value, which is at
/// most half of what rounding does to the largest of them. `exp(x) = 2^n * 2^f` with |f| <= 1/2, the latter by
/// a polynomial; exactly 1 for 0.
#[inline(always)]
pub(super) fn weight_lanes<L: Lanes>(x: L) -> L {
    // Minimax coefficients of the relative error of 2^f, highest power first; the last is 1.
    const P: [f32; 4] = [9.582_853e-3, 5.590_642_6e-2, 0.240_240_99, 0.693_124_2];
    let x = x.max(L::splat(LEAST_WEIGHT)).mul(L::splat(std::f32::consts::LOG2_E));
    let biased = x.add(L::splat(MAGIC));
    let f = x.sub(biased.sub(L::splat(MAGIC)));
    let mut p = L::splat(P[0]);
    for c in &P[1..] {
        p = p.mul(f).add(L::splat(*c));
    }
    p.mul(f).add(L::splat(1.0)).mul(biased.power_of_two())
}

#[inline(always)]
fn exp_body<L: Lanes>(x: &mut [f32]) {
    exp_shifted_body::<L>(x, 0.0);
}

#[inline(always)]
fn exp_shifted_body<L: Lanes>(x: &mut [f32], shift: f32) -> f32 {
    let shift = L::splat(shift);
    let (chunks, tail) = x.as_chunks_mut();
    let mut sum = L::splat(0.0);
    for x in chunks {
        let e = exp_lanes(L::load(x).sub(shift));
        e.store(x);
        sum = sum.add(e);
    }
    if !tail.is_empty() {
        let mut last = [0.0; 16];
        exp_lanes(L::load(&padded(tail)).sub(shift)).store(&mut last);
        tail.copy_from_slice(&last[..tail.len()]);
        sum = sum.add(L::load(&padded(tail)));
    }
    sum.sum()
}

#[inline(always)]
fn scale_largest_body<L: Lanes>(x: &mut [f32], scale: f32) -> Option<f32> {
    let (chunks, tail) = x.as_chunks_mut();
    let factor = L::splat(scale);
    let mut largest = L::splat(f32::NEG_INFINITY);
    // x * 0 is a zero for finite x and NaN otherwise, and a NaN survives the additions.
    let mut zeros = L::splat(0.0);
    for x in chunks {
        let scaled = L::load(x).mul(factor);
        scaled.store(x);
        largest = scaled.max(largest);
        zeros = zeros.add(scaled.mul(L::splat(0.0)));
    }
    let (mut largest, mut finite) = (largest.largest(), zeros.sum() == 0.0);
    for x in tail {
        *x *= scale;
        finite &= x.is_finite();
        largest = if *x > largest { *x } else { largest };
    }
    finite.then_some(largest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::float::lanes::Array;
    use crate::float::tests::{LENGTHS, isas, same_on_every_isa, values};

    #[test]
    fn the_same_on_every_isa() {
        for &n in LENGTHS {
            same_on_every_isa(|isa| {
                let mut x = values(n, 1);
                let sum = exp_shifted(isa, &mut x, 12.5);
                x.push(sum);
                x
            });
        }
    }

    #[test]
    fn scaling_finds_the_largest_and_what_is_not_finite() {
        for &n in LENGTHS {
            for isa in isas() {
                let x = values(n, 1);
                let mut scaled = x.clone();
                let largest = scale_largest(isa, &mut scaled, 0.3);
                assert!(scaled.iter().zip(&x).all(|(scaled, x)| *scaled == x * 0.3));
                assert_eq!(largest, Some(crate::float::reduce::largest(isa, &scaled)));
                for at in 0..n {
                    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                        let mut x = x.clone();
                        x[at] = bad;
                        assert_eq!(scale_largest(isa, &mut x, 0.3), None);
                    }
                }
            }
        }
    }

    #[test]
    fn exp_is_within_one_ulp() {
        let isa = *isas().last().unwrap();
        let mut worst = 0f64;
        // Every 1021st float of the range on both sides of zero.
        let positive = (0..HIGHEST.to_bits()).step_by(1021).map(f32::from_bits);
        let negative = (0..LOWEST.abs().to_bits()).step_by(1021).map(|b| -f32::from_bits(b));
        let x: Vec<f32> = positive.chain(negative).collect();
        let mut y = x.clone();
        exp(isa, &mut y);
        for (x, y) in x.into_iter().zip(y) {
            let exact = libm::exp(f64::from(x));
            let ulp = f64::from((exact as f32).next_up()) - f64::from(exact as f32);
            worst = worst.max((f64::from(y) - exact).abs() / ulp);
        }
        assert!(worst <= 1.0, "{worst} ulp");
    }

    #[test]
    fn weights_are_near_and_one_for_zero() {
        let weight = |x: f32| {
            let mut lanes = [0.0; 16];
            weight_lanes(Array::splat(x)).store(&mut lanes);
            f64::from(lanes[0])
        };
        assert_eq!(weight(0.0), 1.0);
        // Every 1021st float down to where weights end.
        let all = (0..LEAST_WEIGHT.abs().to_bits()).step_by(1021).map(|b| -f32::from_bits(b));
        let far = |x: f32| (weight(x) / libm::exp(f64::from(x)) - 1.0).abs();
        let worst = all.map(far).fold(0.0, f64::max);
        assert!(worst <= 2f64.powi(-17), "{worst}");
        assert_eq!(weight(f32::NEG_INFINITY), weight(LEAST_WEIGHT));
    }

    #[test]
    fn exp_at_the_ends() {
        for isa in isas() {
            let mut x = [0.0, -0.0, -100.0, f32::NEG_INFINITY, f32::NAN, 200.0, f32::INFINITY];
            exp(isa, &mut x);
            assert_eq!(x[..5], [1.0, 1.0, 0.0, 0.0, 0.0]);
            assert!(x[5].is_finite() && x[5] == x[6]);
        }
    }
}
