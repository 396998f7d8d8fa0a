//! Rows of Q6_K times vectors of [integers](Integers): the LM head of most model files.
//!
//! A weight is `d` times an integer, `scale * code`, and a value of the vector is the scale of its block
//! times one. So the products of a block of 256 weights are summed up exactly, in an order that is free;
//! then the sums become floats, times `d` and the scale of the vector's block, and are added to those of
//! the blocks before. Sixteen weights at a time are half as many instructions as with floats, and so are
//! those that take a block apart. The vector is rounded to about the precision of f16, the weights are not
//! rounded at all.
//!
//! There are eight sums, sum `l` of the weights 4 l..4 l + 4 of each 32. Codes are bytes, and words are what
//! is multiplied: the even and the odd bytes of a register are its low and high halves of words. So the
//! integers of a vector lie in this order, 64 at a time: the even ones of the first 32, those of the other 32,
//! the odd ones of the first, those of the other.

use super::super::instantiate;
use super::super::lanes::{HalfLanes, Lanes, as_i8, part};
use super::super::matvec::{check, prefetch};
use super::super::stored::LENGTH_16;
use super::super::vectors::Integers;
use super::formats::half;

/// Weights of a block.
pub const BLOCK: usize = 256;

/// Bytes of a block.
const BYTES: usize = 210;

/// Bytes between what is read and what is fetched, for one vector; more of them take as much longer.
const AHEAD: usize = 8192;

// A sum is of 32 products. That is at most the length of the weights' part of it, whose values are at most
// 4096, times the length of the vector's block. No part of it is longer, in whatever order.
const _: () = {
    let length = LENGTH_16 as i64 + BLOCK.isqrt() as i64 / 2;
    assert!(length.pow(2) * (32 * 4096 * 4096) < (1 << 31) * (1 << 31));
};

instantiate! {
    /// `outs[t][r]` = row r times `xs[t]`. One vector streams the rows at the speed of memory.
    ///
    /// # Panics
    /// When vectors and outputs differ in number or length, or `rows` does not hold as many rows of whole
    /// blocks.
    pub fn rows(rows: &[u8], xs: &[Integers], outs: &mut [&mut [f32]]) = rows_body;
}

#[inline(always)]
fn rows_body<L: Lanes>(rows: &[u8], xs: &[Integers], outs: &mut [&mut [f32]]) {
    let (blocks, rest) = rows.as_chunks::<BYTES>();
    assert!(rest.is_empty());
    check(blocks.len(), 1, xs.iter().map(Integers::blocks), outs);
    let (fours, xs) = xs.as_chunks::<4>();
    let (four_outs, outs) = outs.as_chunks_mut::<4>();
    for (xs, outs) in fours.iter().zip(four_outs) {
        tile::<L, 4>(blocks, xs, outs);
    }
    let (twos, xs) = xs.as_chunks::<2>();
    let (two_outs, outs) = outs.as_chunks_mut::<2>();
    for (xs, outs) in twos.iter().zip(two_outs) {
        tile::<L, 2>(blocks, xs, outs);
    }
    let (ones, _) = xs.as_chunks::<1>();
    let (one_outs, _) = outs.as_chunks_mut::<1>();
    for (xs, outs) in ones.iter().zip(one_outs) {
        tile::<L, 1>(blocks, xs, outs);
    }
}

/// All rows with one tile of vectors.
#[inline(always)]
fn tile<L: Lanes, const T: usize>(
    blocks: &[[u8; BYTES]],
    xs: &[Integers; T],
    outs: &mut [&mut [f32]; T],
) {
    let count = xs[0].blocks();
    // No closures: they would not have the target features. One check of the lengths here instead of one
    // for every block.
    let (mut codes, mut scales) = ([&[][..]; T], [&[][..]; T]);
    for (t, x) in xs.iter().enumerate() {
        (codes[t], scales[t]) = (&x.codes[..count], &x.scales[..count]);
    }
    for r in 0..outs[0].len() {
        let row = &blocks[r * count..][..count];
        let mut totals = [L::Half::zero(); T];
        for (i, block) in row.iter().enumerate() {
            for line in (0..BYTES).step_by(64) {
                prefetch(block.as_ptr().wrapping_add(AHEAD / T + line));
            }
            let d = L::Half::widen(&[half(block, 208); 8]);
            let mut x = [&[0; BLOCK]; T];
            for (x, codes) in x.iter_mut().zip(&codes) {
                *x = &codes[i].0;
            }
            let sums = L::products_q6(block, x);
            for (t, total) in totals.iter_mut().enumerate() {
                let factor = d.mul(L::Half::splat(scales[t][i]));
                *total = total.add(L::Half::round_i32(&sums[t]).mul(factor));
            }
        }
        for (out, total) in outs.iter_mut().zip(totals) {
            out[r] = L::join(total, L::Half::zero()).sum();
        }
    }
}

/// The codes of a block, which stand for weights one after the other.
#[inline(always)]
pub(super) fn codes(block: &[u8; BYTES], codes: &mut [i8; BLOCK]) {
    for (half, codes) in codes.chunks_exact_mut(128).enumerate() {
        let low: &[u8; 64] = part(block, 64 * half);
        let high: &[u8; 32] = part(block, 128 + 32 * half);
        // Quarter `i` has its nibbles in half `i % 2` of `low`, its pairs at bit 2 i of `high`.
        for (i, codes) in codes.chunks_exact_mut(32).enumerate() {
            let low = &low[i % 2 * 32..][..32];
            for ((code, low), high) in codes.iter_mut().zip(low).zip(high) {
                *code = (low >> (i / 2 * 4) & 0x0F | (high >> (2 * i) & 3) << 4) as i8 - 32;
            }
        }
    }
}

/// The products of a block with each of some vectors, in eight sums.
#[inline(always)]
pub(in crate::float) fn products<const T: usize>(
    block: &[u8; BYTES],
    xs: [&[i16; BLOCK]; T],
) -> [[i32; 8]; T] {
    let mut unpacked = [0; BLOCK];
    codes(block, &mut unpacked);
    let scales = as_i8::<16>(part(block, 192));
    let mut weights = [0i16; BLOCK];
    for (i, (weight, code)) in weights.iter_mut().zip(unpacked).enumerate() {
        *weight = i16::from(scales[i / 16]) * i16::from(code);
    }
    let weights = arranged(&weights);
    let mut sums = [[0; 8]; T];
    for (sums, x) in sums.iter_mut().zip(xs) {
        let mut pairs = [0i32; 16];
        for (x, weights) in x.as_chunks::<16>().0.iter().zip(weights.as_chunks::<16>().0) {
            for ((pair, x), weight) in pairs.iter_mut().zip(x).zip(weights) {
                *pair += i32::from(*x) * i32::from(*weight);
            }
        }
        for (sum, pair) in sums.iter_mut().zip(pairs.as_chunks::<2>().0) {
            *sum = pair[0] + pair[1];
        }
    }
    sums
}

/// Integers in the order in which they are multiplied.
#[inline(always)]
pub(in crate::float) fn arranged(x: &[i16; BLOCK]) -> [i16; BLOCK] {
    let mut out = [0; BLOCK];
    for (out, x) in out.chunks_exact_mut(64).zip(x.chunks_exact(64)) {
        for (i, x) in x.as_chunks::<2>().0.iter().enumerate() {
            (out[i], out[32 + i]) = (x[0], x[1]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::tests::{blocks, plain, q6_k};
    use super::*;
    use crate::float::blocks::BlockFormat;
    use crate::float::tests::{isas, same_on_every_isa, values};

    /// The products of some rows with one vector.
    fn times(isa: crate::Supported, bytes: &[u8], x: &[f32]) -> Vec<f32> {
        let mut out = vec![7.0; bytes.len() / BYTES * BLOCK / x.len()];
        rows(isa, bytes, &[Integers::of(isa, x)], &mut [&mut out]);
        out
    }

    #[test]
    fn every_row_is_near_its_exact_product() {
        for count in [1, 2, 3, 10] {
            for m in [1, 2, 3, 4, 5, 9] {
                let (bytes, x) = (blocks(BlockFormat::Q6K, m * count, 7), values(count * BLOCK, 1));
                let exact = plain(BlockFormat::Q6K, &bytes);
                same_on_every_isa(|isa| {
                    let found = times(isa, &bytes, &x);
                    for (row, found) in exact.chunks_exact(x.len()).zip(&found) {
                        let products = row.iter().zip(&x).map(|(w, x)| w * f64::from(*x));
                        let wanted: f64 = products.sum();
                        // Half a unit of the largest value's last place, for every weight.
                        let each = row.chunks_exact(BLOCK).zip(x.chunks_exact(BLOCK));
                        let bound: f64 = each
                            .map(|(row, x)| {
                                let most = x.iter().fold(0.0f64, |m, x| m.max(f64::from(*x).abs()));
                                let length = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
                                let unit = f64::max(most / 32767.0, length.sqrt() / 46000.0);
                                row.iter().map(|w| w.abs()).sum::<f64>() * unit * 0.51
                            })
                            .sum();
                        assert!((f64::from(*found) - wanted).abs() <= bound, "{found} {wanted}");
                    }
                    found
                });
            }
        }
    }

    #[test]
    fn integers_are_multiplied_exactly() {
        // A vector of integers that its scale leaves as they are, with the largest magnitude there is,
        // and a factor of 1: every sum is then an integer below 2^24.
        let x: Vec<f32> =
            (0..BLOCK).map(|i| if i == 77 { 32767.0 } else { (i % 5) as f32 - 2.0 }).collect();
        for scale in [-128, -127, -1, 0, 1, 127] {
            for shift in [0, 16, 32, 48] {
                let code = |i: usize| if i == 77 { 33 } else { ((i + shift) % 64) as u8 };
                let block = q6_k(code, scale, 0x3C00);
                let exact: f64 = plain(BlockFormat::Q6K, &block)
                    .iter()
                    .zip(&x)
                    .map(|(w, x)| w * f64::from(*x))
                    .sum();
                for isa in isas() {
                    assert_eq!(f64::from(times(isa, &block, &x)[0]), exact, "{scale} {shift}");
                }
            }
        }
    }

    #[test]
    fn the_largest_products_have_room() {
        // Every product has the same sign and is as large as it can be.
        for (code, scale) in [(0, -128), (63, 127)] {
            let block = q6_k(|_| code, scale, 0x3C00);
            let most = plain(BlockFormat::Q6K, &block)[0];
            let x = [1.0f32; BLOCK];
            same_on_every_isa(|isa| {
                let found = times(isa, &block, &x);
                assert!((f64::from(found[0]) / (most * 256.0) - 1.0).abs() < 1e-4, "{found:?}");
                found
            });
        }
        // As much of the vector as there can be in the weights of one sum: the first four of each 32.
        let block = q6_k(|_| 0, -128, 0x3C00);
        let x: Vec<f32> = (0..BLOCK).map(|i| if i % 32 < 4 { 1.0 } else { 0.0 }).collect();
        same_on_every_isa(|isa| {
            let found = times(isa, &block, &x);
            assert!((f64::from(found[0]) / (4096.0 * 32.0) - 1.0).abs() < 1e-4, "{found:?}");
            found
        });
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        let block = q6_k(|i| (i % 64) as u8, 3, 0x3C00);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = [1.0; BLOCK];
            x[200] = bad;
            for isa in isas() {
                assert!(!times(isa, &block, &x)[0].is_finite());
            }
        }
    }
}
