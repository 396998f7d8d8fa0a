//! Rows of quantised blocks, as llama.cpp stores embeddings and heads.
//!
//! | format | weights | bytes of a block |
//! |---|---|---|
//! | `Q4_0` | 32 | d: f16, then 16 bytes of codes: weights 0..16 in the low nibbles, the others in the high ones |
//! | `Q4_1` | 32 | d: f16, offset: f16, then codes as Q4_0 |
//! | `Q5_0` | 32 | d: f16, the codes' high bits: u32, then their low bits as Q4_0 |
//! | `Q8_0` | 32 | d: f16, then 32 codes of 8 bits |
//! | `Q4_K` | 256 | d: f16, another: f16, 12 bytes of 8 scales and 8 offsets of 6 bits, 128 bytes of nibbles |
//! | `Q6_K` | 256 | 128 bytes of low nibbles, 64 bytes of high bit pairs, 16 scales of 8 bits, d: f16 |
//!
//! A weight is `(d * scale) * code`, where there is a scale for each 16 weights of Q6_K and it is 1
//! elsewhere. Both products are exact: d has 11 significant bits, a scale 7 (or is -128, a power of two),
//! a code of Q6_K, -32..=31, 5 (or is -32) and one of Q8_0 7 (or is -128), which is at most 23 of the 24
//! bits of an f32, at magnitudes between 2^-24 and 2^28. Q4_1 then adds its offset, and Q4_K subtracts its
//! (exact) product of the other d and the offset for each 32 weights: one rounding, of one sum. So a
//! weight is one number, however it is computed, and a row times a vector is the
//! [dot product](super::reduce::dot) with these numbers; but a row of Q6_K is multiplied with a vector of
//! [integers](q6_k).

pub(super) mod formats;
pub mod q6_k;

use super::lanes::part;
use super::vectors::{Integers, Vectors};
use super::{Lanes, instantiate, matvec};
use formats::{Block, Q4_0, Q4_1, Q4K, Q5_0, Q6K, Q8_0};
use half::f16;

/// A block format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockFormat {
    /// 32 weights of 4 bits with one scale.
    Q4_0,
    /// 32 weights of 4 bits with one scale and one offset.
    Q4_1,
    /// 32 weights of 5 bits with one scale.
    Q5_0,
    /// 32 weights of 8 bits with one scale.
    Q8_0,
    /// 256 weights of 4 bits with a scale and an offset for each 32.
    Q4K,
    /// 256 weights of 6 bits with a scale for each 16.
    Q6K,
}

impl BlockFormat {
    /// Every format.
    pub const ALL: &[Self] =
        &[Self::Q4_0, Self::Q4_1, Self::Q5_0, Self::Q8_0, Self::Q4K, Self::Q6K];

    /// Weights of a block.
    pub const fn weights(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q8_0 => 32,
            Self::Q4K | Self::Q6K => 256,
        }
    }

    /// Bytes of a block.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q6K => 210,
        }
    }

    /// Where the f16 factors of a block are.
    const fn factors(self) -> &'static [usize] {
        match self {
            Self::Q4_0 | Self::Q5_0 | Self::Q8_0 => &[0],
            Self::Q4_1 | Self::Q4K => &[0, 2],
            Self::Q6K => &[208],
        }
    }

    /// The first of whole blocks with a factor that is infinite or NaN; all weights of the others are
    /// finite.
    ///
    /// # Panics
    /// When the length is not of whole blocks.
    pub fn first_not_finite(self, blocks: &[u8]) -> Option<usize> {
        assert!(blocks.len().is_multiple_of(self.bytes()));
        let is_finite = |block: &[u8], at| f16::from_le_bytes(*part(block, at)).is_finite();
        blocks
            .chunks_exact(self.bytes())
            .position(|block| !self.factors().iter().all(|&at| is_finite(block, at)))
    }

    /// Writes the weights of whole blocks.
    ///
    /// # Panics
    /// When the lengths differ or are not of whole blocks.
    pub fn widen(self, isa: crate::Supported, blocks: &[u8], out: &mut [f32]) {
        match self {
            Self::Q4_0 => widen_q4_0(isa, blocks, out),
            Self::Q4_1 => widen_q4_1(isa, blocks, out),
            Self::Q5_0 => widen_q5_0(isa, blocks, out),
            Self::Q8_0 => widen_q8_0(isa, blocks, out),
            Self::Q4K => widen_q4_k(isa, blocks, out),
            Self::Q6K => widen_q6_k(isa, blocks, out),
        }
    }

    /// Vectors in the form in which rows of this format are multiplied with them.
    ///
    /// # Panics
    /// When integers are wanted and they are not whole blocks.
    pub fn vectors<'a>(self, isa: crate::Supported, xs: &[&'a [f32]]) -> Vectors<'a> {
        match self {
            Self::Q6K => Vectors::Integers(xs.iter().map(|x| Integers::of(isa, x)).collect()),
            _ => Vectors::Floats(xs.to_vec()),
        }
    }

    /// `outs[t][r] = sum_i w[r * k + i] * xs[t][i]` for the weights of rows of `k`, and vectors of that
    /// length that [`BlockFormat::vectors`] made. One vector streams the rows at the speed of memory.
    ///
    /// # Panics
    /// When vectors and outputs differ in number or length, `rows` does not hold as many rows of whole
    /// blocks, or the vectors are not in the form for this format.
    pub fn rows(
        self,
        isa: crate::Supported,
        rows: &[u8],
        xs: &Vectors<'_>,
        outs: &mut [&mut [f32]],
    ) {
        match (self, xs) {
            (Self::Q4_0, Vectors::Floats(xs)) => matvec::rows_q4_0(isa, rows, xs, outs),
            (Self::Q4_1, Vectors::Floats(xs)) => matvec::rows_q4_1(isa, rows, xs, outs),
            (Self::Q5_0, Vectors::Floats(xs)) => matvec::rows_q5_0(isa, rows, xs, outs),
            (Self::Q8_0, Vectors::Floats(xs)) => matvec::rows_q8_0(isa, rows, xs, outs),
            (Self::Q4K, Vectors::Floats(xs)) => matvec::rows_q4_k(isa, rows, xs, outs),
            (Self::Q6K, Vectors::Integers(xs)) => q6_k::rows(isa, rows, xs, outs),
            (Self::Q6K, Vectors::Floats(_)) | (_, Vectors::Integers(_)) => {
                panic!("vectors in the form for another format")
            }
        }
    }
}

/// The operation of each format, its body, the type, chunks of 16 weights and bytes of a block.
macro_rules! formats {
    ($($widen:ident $widen_body:ident $ty:ident $chunks:literal $bytes:literal;)*) => {$(
        instantiate! {
            /// [`BlockFormat::widen`] of one format.
            ///
            /// # Panics
            /// When the lengths differ or are not of whole blocks.
            fn $widen(blocks: &[u8], out: &mut [f32]) = $widen_body;
        }

        #[inline(always)]
        fn $widen_body<L: Lanes>(blocks: &[u8], out: &mut [f32]) {
            widen::<L, $ty, $chunks, $bytes>(blocks, out);
        }
    )*};
}

formats! {
    widen_q4_0 widen_q4_0_body Q4_0 2 18;
    widen_q4_1 widen_q4_1_body Q4_1 2 20;
    widen_q5_0 widen_q5_0_body Q5_0 2 22;
    widen_q8_0 widen_q8_0_body Q8_0 2 34;
    widen_q4_k widen_q4_k_body Q4K 16 144;
    widen_q6_k widen_q6_k_body Q6K 16 210;
}

#[inline(always)]
fn widen<L: Lanes, B: Block<L, CHUNKS, BYTES>, const CHUNKS: usize, const BYTES: usize>(
    blocks: &[u8],
    out: &mut [f32],
) {
    let (blocks, rest) = blocks.as_chunks::<BYTES>();
    let (out, out_rest) = out.as_chunks_mut().0.as_chunks_mut::<CHUNKS>();
    assert!(rest.is_empty() && out_rest.is_empty() && blocks.len() == out.len());
    let mut unpacked = B::Unpacked::default();
    for (block, out) in blocks.iter().zip(out) {
        B::unpack(block, &mut unpacked);
        for (chunk, out) in out.iter_mut().enumerate() {
            // A zero of any sign and +0 make +0.
            B::weights(&unpacked, chunk).add(L::splat(0.0)).store(out);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::float::reduce::dot;
    use crate::float::tests::{isas, same_on_every_isa, values};

    /// Random blocks; every bit pattern but a `d` that is not finite.
    pub(in crate::float) fn blocks(format: BlockFormat, count: usize, seed: u64) -> Vec<u8> {
        let bytes = count * format.bytes();
        let noise = values(bytes, seed);
        let mut blocks: Vec<u8> =
            noise.iter().map(|x| (x.to_bits() ^ x.to_bits() >> 11) as u8).collect();
        for block in blocks.chunks_exact_mut(format.bytes()) {
            format.factors().iter().for_each(|at| block[at + 1] &= 0xBF);
        }
        blocks
    }

    /// A block of Q6_K with one scale and factor; codes are 0..64, which stand for -32..32.
    pub(super) fn q6_k(code: impl Fn(usize) -> u8, scale: i8, d: u16) -> [u8; 210] {
        let mut block = [0; 210];
        for i in 0..256 {
            let (half, quarter, at) = (i / 128, i % 128 / 32, i % 32);
            block[half * 64 + quarter % 2 * 32 + at] |= (code(i) & 15) << (quarter / 2 * 4);
            block[128 + half * 32 + at] |= (code(i) >> 4) << (quarter * 2);
        }
        block[192..208].fill(scale as u8);
        block[208..].copy_from_slice(&d.to_le_bytes());
        block
    }

    /// The weights by the definition of the format, in f64.
    pub(super) fn plain(format: BlockFormat, blocks: &[u8]) -> Vec<f64> {
        let mut out = Vec::new();
        for block in blocks.chunks_exact(format.bytes()) {
            let half = |at: usize| f16::from_le_bytes([block[at], block[at + 1]]).to_f64();
            let d = half(format.factors()[0]);
            let nibble = |at: usize, i: usize| f64::from(block[at + i % 16] >> (i / 16 * 4) & 15);
            match format {
                BlockFormat::Q4_0 => out.extend((0..32).map(|i| d * (nibble(2, i) - 8.0))),
                BlockFormat::Q4_1 => out.extend((0..32).map(|i| d * nibble(4, i) + half(2))),
                BlockFormat::Q5_0 => out.extend((0..32).map(|i| {
                    let high = f64::from(block[2 + i / 8] >> (i % 8) & 1);
                    d * (nibble(6, i) + 16.0 * high - 16.0)
                })),
                BlockFormat::Q4K => out.extend((0..256).map(|i| {
                    let (group, packed) = (i / 32, &block[4..16]);
                    let (scale, offset) = if group < 4 {
                        (packed[group] % 64, packed[group + 4] % 64)
                    } else {
                        let (low, at) = (packed[group + 4], group - 4);
                        (low % 16 + packed[at] / 64 * 16, low / 16 + packed[at + 4] / 64 * 16)
                    };
                    let byte = block[16 + i / 64 * 32 + i % 32];
                    let code = if i % 64 < 32 { byte % 16 } else { byte / 16 };
                    d * f64::from(scale) * f64::from(code) - half(2) * f64::from(offset)
                })),
                BlockFormat::Q8_0 => out.extend(block[2..].iter().map(|&b| d * f64::from(b as i8))),
                BlockFormat::Q6K => out.extend((0..256).map(|i| {
                    let (half, quarter, at) = (i / 128, i % 128 / 32, i % 32);
                    let low = block[half * 64 + quarter % 2 * 32 + at] >> (quarter / 2 * 4) & 15;
                    let high = block[128 + half * 32 + at] >> (quarter * 2) & 3;
                    let scale = f64::from(block[192 + i / 16] as i8);
                    d * scale * (f64::from(low | high << 4) - 32.0)
                })),
            }
        }
        out
    }

    #[test]
    fn weights_are_exactly_what_the_format_says() {
        for &format in BlockFormat::ALL {
            let blocks = blocks(format, 41, 5);
            // What is not exact, sums of two f16, is rounded once.
            let exact: Vec<f32> = plain(format, &blocks).iter().map(|w| *w as f32).collect();
            for isa in isas() {
                let mut out = vec![0.0; exact.len()];
                format.widen(isa, &blocks, &mut out);
                assert_eq!(out, exact, "{format:?}");
            }
        }
    }

    #[test]
    fn weights_are_exact_at_the_extremes() {
        // The largest and the smallest factors, of both signs, with the scales of the most and the
        // fewest bits, and every code in each place of a block that is unpacked in its own way.
        for d in [0x7BFF, 0xFBFF, 0x0001, 0x8001, 0x03FF, 0x8401] {
            for scale in [-128, -127, -1, 0, 1, 127] {
                for shift in [0, 16, 32, 48] {
                    let block = q6_k(|i| ((i + shift) % 64) as u8, scale, d);
                    let exact = plain(BlockFormat::Q6K, &block);
                    // Bit for bit: a NaN or the sign of a zero would not show otherwise.
                    same_on_every_isa(|isa| {
                        let mut weights = vec![0.0; 256];
                        BlockFormat::Q6K.widen(isa, &block, &mut weights);
                        assert!(weights.iter().zip(&exact).all(|(a, b)| f64::from(*a) == *b));
                        weights
                    });
                }
            }
        }
    }

    #[test]
    fn every_row_is_a_dot_product_on_every_isa() {
        for &format in BlockFormat::ALL.iter().filter(|&&format| format != BlockFormat::Q6K) {
            for count in [1, 2, 3, 10] {
                let k = count * format.weights();
                for m in [0, 1, 3, 4, 5, 9] {
                    let (rows, x) = (blocks(format, m * count, 7), values(k, 1));
                    let mut wide = vec![0.0; m * k];
                    format.widen(isas()[0], &rows, &mut wide);
                    same_on_every_isa(|isa| {
                        let mut out = vec![0.0; m];
                        format.rows(isa, &rows, &format.vectors(isa, &[&x]), &mut [&mut out]);
                        let dots: Vec<f32> =
                            wide.chunks_exact(k).map(|row| dot(isa, row, &x)).collect();
                        assert_eq!(out, dots);
                        out
                    });
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "the form for another format")]
    fn vectors_for_another_format_are_refused() {
        let vectors = BlockFormat::Q8_0.vectors(isas()[0], &[&[1.0; 256]]);
        BlockFormat::Q6K.rows(isas()[0], &[0; 210], &vectors, &mut [&mut [0.0]]);
    }

    #[test]
    fn factors_that_are_not_finite_are_found() {
        for &format in BlockFormat::ALL {
            for factor in format.factors() {
                let mut blocks = blocks(format, 9, 5);
                assert_eq!(format.first_not_finite(&blocks), None);
                for at in [8, 3] {
                    blocks[at * format.bytes() + factor + 1] = 0xFC;
                    assert_eq!(format.first_not_finite(&blocks), Some(at));
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "rest.is_empty()")]
    fn parts_of_blocks_are_refused() {
        BlockFormat::Q6K.widen(isas()[0], &[0; 209], &mut [0.0; 256]);
    }
}
