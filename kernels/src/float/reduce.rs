//! Reductions of one or two vectors to a number.

use super::{Lanes, instantiate, padded};

instantiate! {
    /// `sum_i x[i] * y[i]`.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn dot(x: &[f32], y: &[f32]) -> f32 = dot_body;

    /// `sum_i x[i]`.
    pub fn sum(x: &[f32]) -> f32 = sum_body;

    /// `sum_i x[i] * x[i]`; not finite when some `x[i]` is not.
    pub fn sum_of_squares(x: &[f32]) -> f32 = sum_of_squares_body;

    /// The largest of `x`, or -infinity when there is none; NaNs are passed over.
    pub fn largest(x: &[f32]) -> f32 = largest_body;

    /// Whether no value is infinite or NaN.
    pub fn all_finite(x: &[f32]) -> bool = all_finite_body;
}

#[inline(always)]
fn dot_body<L: Lanes>(x: &[f32], y: &[f32]) -> f32 {
    assert_eq!(x.len(), y.len());
    let ((xs, x_tail), (ys, y_tail)) = (x.as_chunks(), y.as_chunks());
    let mut sum = L::splat(0.0);
    for (x, y) in xs.iter().zip(ys) {
        sum = sum.add(L::load(x).mul(L::load(y)));
    }
    if !x_tail.is_empty() {
        sum = sum.add(L::load(&padded(x_tail)).mul(L::load(&padded(y_tail))));
    }
    sum.sum()
}

#[inline(always)]
fn sum_body<L: Lanes>(x: &[f32]) -> f32 {
    let (chunks, tail) = x.as_chunks();
    let mut sum = L::splat(0.0);
    for x in chunks {
        sum = sum.add(L::load(x));
    }
    if !tail.is_empty() {
        sum = sum.add(L::load(&padded(tail)));
    }
    sum.sum()
}

#[inline(always)]
pub(super) fn sum_of_squares_body<L: Lanes>(x: &[f32]) -> f32 {
    dot_body::<L>(x, x)
}

#[inline(always)]
fn largest_body<L: Lanes>(x: &[f32]) -> f32 {
    let (chunks, tail) = x.as_chunks();
    let mut largest = L::splat(f32::NEG_INFINITY);
    for x in chunks {
        largest = L::load(x).max(largest);
    }
    let mut largest = largest.largest();
    for &x in tail {
        largest = if x > largest { x } else { largest };
    }
    largest
}

#[inline(always)]
fn all_finite_body<L: Lanes>(x: &[f32]) -> bool {
    let (chunks, tail) = x.as_chunks();
    // x * 0 is a zero for finite x and NaN otherwise, and a NaN survives the additions.
    let mut zeros = L::splat(0.0);
    for x in chunks {
        zeros = zeros.add(L::load(x).mul(L::splat(0.0)));
    }
    zeros.sum() == 0.0 && tail.iter().all(|x| x.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::float::tests::{LENGTHS, isas, same_on_every_isa, values};

    #[test]
    fn the_same_on_every_isa() {
        for &n in LENGTHS {
            let (x, y) = (values(n, 1), values(n, 2));
            same_on_every_isa(|isa| {
                vec![dot(isa, &x, &y), sum(isa, &x), sum_of_squares(isa, &x), largest(isa, &x)]
            });
        }
    }

    #[test]
    fn the_order_is_sixteen_lanes_and_a_tree() {
        let x = values(39, 3);
        let mut lanes = [0f32; 16];
        for (i, x) in x.iter().enumerate() {
            lanes[i % 16] += x;
        }
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                lanes[i] += lanes[i + half];
            }
        }
        for isa in isas() {
            assert_eq!(sum(isa, &x), lanes[0]);
        }
    }

    #[test]
    fn one_bad_value_is_seen_anywhere() {
        for isa in isas() {
            for n in [1, 16, 50] {
                for at in 0..n {
                    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                        let mut x = vec![f32::MAX; n];
                        assert!(all_finite(isa, &x));
                        x[at] = bad;
                        assert!(!all_finite(isa, &x));
                        assert!(!sum_of_squares(isa, &x).is_finite());
                    }
                }
            }
        }
    }
}
