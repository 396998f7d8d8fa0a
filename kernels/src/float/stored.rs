//! Keys and values as a cache stores them in eight bits: a row of `width` values is blocks of
//! 32, the last one maybe shorter, each with a scale.
//!
//! A scale is an f16 and a code at most 127, so their product is an f32 without rounding: what is stored
//! has one exact value, whatever reads it.

use super::{Lanes, instantiate, padded};
use half::f16;

/// Values that share a scale.
pub const BLOCK: usize = 32;

/// Scales of a row.
pub const fn scales_of(width: usize) -> usize {
    width.div_ceil(BLOCK)
}

instantiate! {
    /// Stores rows: the scale of a block is its largest magnitude / 127, rounded to f16, a code the value
    /// over that scale, rounded to nearest even and held to -127..=127. The scale of a block that is not
    /// finite, or beyond the range of f16, is not finite either.
    ///
    /// # Panics
    /// When `width` is 0, `x` is not whole rows of it, or `codes` or `scales` have another length.
    pub fn store_q8(x: &[f32], width: usize, codes: &mut [i8], scales: &mut [f16]) = store_body;

    /// `out[i] = scale * codes[i]`, which is exact.
    ///
    /// # Panics
    /// When `width` is 0, `codes` are not whole rows of it, or `scales` or `out` have another length.
    pub fn widen_q8(codes: &[i8], scales: &[f16], width: usize, out: &mut [f32]) = widen_body;
}

#[inline(always)]
fn store_body<L: Lanes>(x: &[f32], width: usize, codes: &mut [i8], scales: &mut [f16]) {
    let per_row = scales_of(width);
    assert!(x.len() == codes.len() && x.len() == x.len() / width * width);
    assert_eq!(scales.len(), x.len() / width * per_row);
    let rows = x.chunks_exact(width).zip(codes.chunks_exact_mut(width));
    for ((x, codes), scales) in rows.zip(scales.chunks_exact_mut(per_row)) {
        let blocks = x.chunks(BLOCK).zip(codes.chunks_mut(BLOCK));
        for ((x, codes), scale) in blocks.zip(scales) {
            let (mut largest, mut zeros) = (L::splat(0.0), L::splat(0.0));
            for x in x.chunks(16) {
                let x = L::load(&padded(x));
                largest = x.abs().max(largest);
                // A zero for finite values and NaN otherwise; a maximum passes over NaNs.
                zeros = zeros.add(x.mul(L::splat(0.0)));
            }
            *scale = f16::from_f32_const(largest.largest() / 127.0 + zeros.sum());
            let wide = scale.to_f32_const();
            let inverse = L::splat(if wide == 0.0 { 0.0 } else { 1.0 / wide });
            for (x, codes) in x.chunks(16).zip(codes.chunks_mut(16)) {
                let mut last = [0; 16];
                let scaled = L::load(&padded(x)).mul(inverse);
                scaled.max(L::splat(-127.0)).min(L::splat(127.0)).round_i8(&mut last);
                codes.copy_from_slice(&last[..codes.len()]);
            }
        }
    }
}

#[inline(always)]
fn widen_body<L: Lanes>(codes: &[i8], scales: &[f16], width: usize, out: &mut [f32]) {
    let per_row = scales_of(width);
    assert!(codes.len() == out.len() && codes.len() == codes.len() / width * width);
    assert_eq!(scales.len(), codes.len() / width * per_row);
    // Rows of whole blocks are one run of them.
    let row = if width.is_multiple_of(BLOCK) { codes.len().max(1) } else { width };
    let per_row = scales_of(row);
    let rows = codes.chunks_exact(row).zip(out.chunks_exact_mut(row));
    for ((codes, out), scales) in rows.zip(scales.chunks_exact(per_row)) {
        let (whole, codes) = codes.as_chunks::<16>();
        let (whole_out, out) = out.as_chunks_mut::<16>();
        for (i, (codes, out)) in whole.iter().zip(whole_out).enumerate() {
            L::splat_f16(scales[i / 2]).mul(L::widen_i8(codes)).store(out);
        }
        if !codes.is_empty() {
            let mut last = [0.0; 16];
            L::splat_f16(scales[per_row - 1]).mul(L::widen_i8(&padded(codes))).store(&mut last);
            out.copy_from_slice(&last[..out.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::float::tests::{isas, same_on_every_isa, values};

    fn stored(isa: crate::Supported, x: &[f32], width: usize) -> (Vec<i8>, Vec<f16>, Vec<f32>) {
        let mut codes = vec![99; x.len()];
        let mut scales = vec![f16::ONE; x.len() / width * scales_of(width)];
        store_q8(isa, x, width, &mut codes, &mut scales);
        let mut out = vec![7.0; x.len()];
        widen_q8(isa, &codes, &scales, width, &mut out);
        (codes, scales, out)
    }

    #[test]
    fn the_same_on_every_isa_and_near() {
        for width in [1, 16, 30, 32, 50, 64, 100, 128] {
            for n in [0, 1, 3, 8] {
                let x = values(n * width, 3);
                same_on_every_isa(|isa| {
                    let (codes, scales, out) = stored(isa, &x, width);
                    for (row, (x, out)) in
                        x.chunks_exact(width).zip(out.chunks_exact(width)).enumerate()
                    {
                        for (block, (x, out)) in x.chunks(BLOCK).zip(out.chunks(BLOCK)).enumerate()
                        {
                            let scale = scales[row * scales_of(width) + block].to_f32();
                            let largest = x.iter().fold(0f32, |m, x| m.max(x.abs()));
                            assert!((scale * 127.0 - largest).abs() <= largest / 1024.0 + 1e-5);
                            for (i, (x, out)) in x.iter().zip(out).enumerate() {
                                assert!((x - out).abs() <= scale * 0.57 + 1e-7, "{x} {out}");
                                let code = codes[row * width + block * BLOCK + i];
                                assert_eq!(*out, scale * f32::from(code));
                            }
                        }
                    }
                    let codes = codes.into_iter().map(f32::from);
                    codes.chain(scales.into_iter().map(f32::from)).chain(out).collect()
                });
            }
        }
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        for isa in isas() {
            let zeros = stored(isa, &[0.0; 40], 40);
            assert_eq!(zeros.2, [0.0; 40]);
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e9] {
                for at in [0, 31, 39] {
                    let mut x = [1.0; 40];
                    x[at] = bad;
                    let (_, _, out) = stored(isa, &x, 40);
                    let block = at / BLOCK * BLOCK;
                    assert!(out[block..].iter().take(BLOCK).all(|x| !x.is_finite()), "{bad} {at}");
                }
            }
        }
    }
}
