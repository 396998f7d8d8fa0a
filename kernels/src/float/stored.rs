//! Keys, values and queries as integers with a scale for each row, which is what a cache stores and what
//! [attention in integers](super::fixed_attention) reads; [vectors](super::vectors) for rows of Q6_K too.
//!
//! An integer of a row with scale `s` stands for `s` times it. Sixteen bits hold a row of a head to about
//! the precision of f16, and are used up to where sums of products still have room in 32 bits; eight bits
//! take half of the memory.

use super::reduce::sum_of_squares_body;
use super::{Lanes, instantiate, padded};

/// The largest width of rows for which sums of products are known to have room.
pub const MOST_WIDTH: usize = 1 << 16;

/// The largest 16-bit integer.
const MOST_16: f32 = 32767.0;
/// The largest length of a row of 16-bit integers as a vector, but for what rounding adds to it, at most
/// half the root of the width. The product of two such rows, or a part of it, is at most the product of
/// their lengths, which is below 2^31.
pub(super) const LENGTH_16: f32 = 46_000.0;
const _: () = {
    let half_root = (1 << 8) / 2;
    assert!((LENGTH_16 as i64 + half_root).pow(2) < 1 << 31);
    assert!((LENGTH_16 as i64 + half_root) * (MOST_8 as i64) * (1 << 8) < 1 << 31);
};
/// The largest 8-bit integer.
const MOST_8: f32 = 127.0;
/// Rows with a scale below this are zeros: the squares of smaller ones would not be normal numbers.
const LEAST_SCALE: f32 = 1e-22;

instantiate! {
    /// Stores rows of `width` values: the scale of a row is the least with which its integers are at most
    /// 32767 and its length at most 46000, an integer the value over the scale, rounded to nearest even.
    /// Rows of `codes` may be longer and end with zeros then. The scale of a row that is not finite, or
    /// beyond 1e19, is not finite either; its integers are zeros, as are those of a row below 1e-18.
    ///
    /// # Panics
    /// When `width` is 0, `x` is not whole rows of it, or `codes` is not a row of at least as many for
    /// each of `scales`.
    pub fn store_i16(x: &[f32], width: usize, codes: &mut [i16], scales: &mut [f32]) = store_i16_body;

    /// The same in eight bits: the scale of a row is its largest magnitude / 127, which is not finite when
    /// a value is not.
    ///
    /// # Panics
    /// As [`store_i16`].
    pub fn store_i8(x: &[f32], width: usize, codes: &mut [i8], scales: &mut [f32]) = store_i8_body;
}

/// What a value is stored as.
pub(super) trait Code: Copy + Default {
    /// The largest one.
    const MOST: f32;
    /// The scale of a row with this largest magnitude and sum of squares.
    fn scale(largest: f32, squares: f32) -> f32;
    /// Lanes within ±[`Code::MOST`], rounded to nearest even.
    fn round<L: Lanes>(x: L, out: &mut [Self; 16]);
    /// In sixteen bits.
    fn widen(self) -> i16;
}

impl Code for i16 {
    const MOST: f32 = MOST_16;

    #[inline(always)]
    fn scale(largest: f32, squares: f32) -> f32 {
        let (by_value, by_length) = (largest / MOST_16, squares.sqrt() / LENGTH_16);
        if by_value > by_length { by_value } else { by_length }
    }

    #[inline(always)]
    fn round<L: Lanes>(x: L, out: &mut [Self; 16]) {
        x.round_i16(out);
    }

    #[inline(always)]
    fn widen(self) -> i16 {
        self
    }
}

impl Code for i8 {
    const MOST: f32 = MOST_8;

    #[inline(always)]
    fn scale(largest: f32, _: f32) -> f32 {
        largest / MOST_8
    }

    #[inline(always)]
    fn round<L: Lanes>(x: L, out: &mut [Self; 16]) {
        x.round_i8(out);
    }

    #[inline(always)]
    fn widen(self) -> i16 {
        i16::from(self)
    }
}

/// Codes in sixteen bits.
#[inline(always)]
pub(super) fn widened<C: Code, const N: usize>(x: &[C; N]) -> [i16; N] {
    let mut wide = [0; N];
    for (wide, x) in wide.iter_mut().zip(x) {
        *wide = x.widen();
    }
    wide
}

/// `x * inverse` as integers, held to what there are.
#[inline(always)]
pub(super) fn round<L: Lanes, C: Code>(x: L, inverse: L, out: &mut [C; 16]) {
    C::round(x.mul(inverse).max(L::splat(-C::MOST)).min(L::splat(C::MOST)), out);
}

#[inline(always)]
fn store_i16_body<L: Lanes>(x: &[f32], width: usize, codes: &mut [i16], scales: &mut [f32]) {
    store::<L, i16>(x, width, codes, scales);
}

#[inline(always)]
fn store_i8_body<L: Lanes>(x: &[f32], width: usize, codes: &mut [i8], scales: &mut [f32]) {
    store::<L, i8>(x, width, codes, scales);
}

#[inline(always)]
fn store<L: Lanes, C: Code>(x: &[f32], width: usize, codes: &mut [C], scales: &mut [f32]) {
    let rows = x.len() / width;
    assert!(x.len() == rows * width && scales.len() == rows);
    if rows == 0 {
        return;
    }
    let stride = codes.len() / rows;
    assert!(codes.len() == rows * stride && stride >= width);
    let each = x.chunks_exact(width).zip(codes.chunks_exact_mut(stride));
    for ((x, codes), scale) in each.zip(scales) {
        let (mut largest, mut zeros) = (L::splat(0.0), L::splat(0.0));
        for x in x.chunks(16) {
            let x = L::load(&padded(x));
            largest = x.abs().max(largest);
            // A zero for finite values and NaN otherwise; a maximum passes over NaNs.
            zeros = zeros.add(x.mul(L::splat(0.0)));
        }
        let squares = sum_of_squares_body::<L>(x);
        *scale = C::scale(largest.largest(), squares) + zeros.sum();
        if !scale.is_finite() || *scale < LEAST_SCALE {
            codes.fill(C::default());
            continue;
        }
        let inverse = L::splat(1.0 / *scale);
        let (codes, rest) = codes.split_at_mut(width);
        for (x, codes) in x.chunks(16).zip(codes.chunks_mut(16)) {
            let mut last = [C::default(); 16];
            round(L::load(&padded(x)), inverse, &mut last);
            codes.copy_from_slice(&last[..codes.len()]);
        }
        rest.fill(C::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Supported;
    use crate::float::tests::{isas, same_on_every_isa, values};

    /// Integers in sixteen bits, and in eight, each with their scales.
    fn stored(isa: Supported, x: &[f32], width: usize) -> [(Vec<i16>, Vec<f32>); 2] {
        let rows = x.len() / width;
        let (mut words, mut bytes) = (vec![99; rows * (width + 3)], vec![99; x.len()]);
        let mut scales = [vec![7.0; rows], vec![7.0; rows]];
        store_i16(isa, x, width, &mut words, &mut scales[0]);
        store_i8(isa, x, width, &mut bytes, &mut scales[1]);
        let cut = |row: &[i16]| {
            assert_eq!(row[width..], [0; 3]);
            row[..width].to_vec()
        };
        let words = words.chunks_exact(width + 3).flat_map(cut).collect();
        let [words_scales, bytes_scales] = scales;
        [(words, words_scales), (bytes.into_iter().map(i16::from).collect(), bytes_scales)]
    }

    #[test]
    fn the_same_on_every_isa_and_near() {
        for width in [1, 16, 30, 32, 50, 64, 100, 128] {
            for n in [0, 1, 3, 8] {
                let x = values(n * width, 3);
                same_on_every_isa(|isa| {
                    let both = stored(isa, &x, width);
                    for ((codes, scales), most) in both.iter().zip([32767, 127]) {
                        for row in codes.chunks_exact(width) {
                            let largest = row.iter().map(|&code| i32::from(code).abs()).max();
                            let squares: f64 = row.iter().map(|&c| f64::from(c).powi(2)).sum();
                            // No finer scale has room.
                            assert!(largest >= Some(most - 1) || squares.sqrt() > 45_900.0);
                        }
                        let rows = x.chunks_exact(width).zip(codes.chunks_exact(width));
                        for ((x, codes), scale) in rows.zip(scales) {
                            for (x, code) in x.iter().zip(codes) {
                                let near = scale * f32::from(*code);
                                assert!((x - near).abs() <= scale * 0.51, "{x} {near}");
                            }
                        }
                    }
                    for row in both[0].0.chunks_exact(width) {
                        let squares: i64 = row.iter().map(|&c| i64::from(c).pow(2)).sum();
                        assert!(squares < 1 << 31);
                    }
                    let floats = |codes: Vec<i16>| codes.into_iter().map(f32::from);
                    let [words, bytes] = both;
                    floats(words.0).chain(floats(bytes.0)).chain(words.1).chain(bytes.1).collect()
                });
            }
        }
    }

    #[test]
    fn small_rows_are_zeros_and_what_is_not_finite_stays_so() {
        for isa in isas() {
            for x in [0.0, f32::from_bits(1), 1e-38, 1e-30, 1e-25, 1e-21] {
                for (codes, _) in stored(isa, &[x; 128], 128) {
                    assert_eq!(codes, [0; 128]);
                }
            }
            for (codes, _) in stored(isa, &[1e-17; 128], 128) {
                let squares: i64 = codes.iter().map(|&c| i64::from(c).pow(2)).sum();
                assert!(squares > 0 && squares < 1 << 31);
            }
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for at in [0, 31, 39] {
                    let mut x = [1.0; 80];
                    x[at] = bad;
                    for (codes, scales) in stored(isa, &x, 40) {
                        assert_eq!(codes[..40], [0; 40]);
                        assert!(!scales[0].is_finite() && scales[1].is_finite(), "{bad} {at}");
                    }
                }
            }
        }
    }
}
