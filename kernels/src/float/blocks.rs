//! Rows of quantised blocks, as llama.cpp stores embeddings and heads: Q8_0 and Q6_K.
//!
//! | format | weights | bytes of a block |
//! |---|---|---|
//! | `Q8_0` | 32 | d: f16, then 32 codes of 8 bits |
//! | `Q6_K` | 256 | 128 bytes of low nibbles, 64 bytes of high bit pairs, 16 scales of 8 bits, d: f16 |
//!
//! A weight is `(d * scale) * code`, where Q8_0's scale is 1 and Q6_K has one scale for each 16 weights.
//! Both products are exact: d has 11 significant bits, a scale 7 (or is -128, a power of two), a code
//! of Q6_K, -32..=31, 5 (or is -32) and one of Q8_0 7 (or is -128), which is at most 23 of the 24 bits
//! of an f32, at magnitudes between 2^-24 and 2^28. So a weight is one number, however it is computed,
//! and a row times a vector is the [dot product](super::reduce::dot) with these numbers.

use super::lanes::{as_i8, part};
use super::matvec::prefetch;
use super::{Lanes, instantiate, several};
use half::f16;

/// A block format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockFormat {
    /// 32 weights of 8 bits with one scale.
    Q8_0,
    /// 256 weights of 6 bits with a scale for each 16.
    Q6K,
}

impl BlockFormat {
    /// Weights of a block.
    pub const fn weights(self) -> usize {
        match self {
            Self::Q8_0 => 32,
            Self::Q6K => 256,
        }
    }

    /// Bytes of a block.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Q8_0 => 34,
            Self::Q6K => 210,
        }
    }

    /// The first of whole blocks whose factor `d` is infinite or NaN; all weights of the others are
    /// finite.
    ///
    /// # Panics
    /// When the length is not of whole blocks.
    pub fn first_not_finite(self, blocks: &[u8]) -> Option<usize> {
        match self {
            Self::Q8_0 => first_not_finite::<34>(blocks, 0),
            Self::Q6K => first_not_finite::<210>(blocks, 208),
        }
    }

    /// Writes the weights of whole blocks.
    ///
    /// # Panics
    /// When the lengths differ or are not of whole blocks.
    pub fn widen(self, isa: crate::Supported, blocks: &[u8], out: &mut [f32]) {
        match self {
            Self::Q8_0 => widen_q8_0(isa, blocks, out),
            Self::Q6K => widen_q6_k(isa, blocks, out),
        }
    }

    /// `out[r] = sum_i w[r * x.len() + i] * x[i]` for the weights of `rows`, in the order of
    /// [`super::reduce::dot`]. Streams the rows at the speed of memory.
    ///
    /// # Panics
    /// When `rows` does not hold `out.len()` rows of `x.len()` weights, or these are not whole blocks.
    pub fn rows(self, isa: crate::Supported, rows: &[u8], x: &[f32], out: &mut [f32]) {
        match self {
            Self::Q8_0 => rows_q8_0(isa, rows, x, out),
            Self::Q6K => rows_q6_k(isa, rows, x, out),
        }
    }
}

impl BlockFormat {
    /// [`BlockFormat::rows`] for several vectors at once, each with its output.
    ///
    /// # Panics
    /// When vectors and outputs differ in number or length, or `rows` does not hold as many rows of whole
    /// blocks.
    pub fn rows_for(
        self,
        isa: crate::Supported,
        rows: &[u8],
        xs: &[&[f32]],
        outs: &mut [&mut [f32]],
    ) {
        match self {
            Self::Q8_0 => several::rows_q8_0(isa, rows, xs, outs),
            Self::Q6K => several::rows_q6_k(isa, rows, xs, outs),
        }
    }
}

fn first_not_finite<const BYTES: usize>(blocks: &[u8], factor: usize) -> Option<usize> {
    let (blocks, rest) = blocks.as_chunks::<BYTES>();
    assert!(rest.is_empty());
    blocks.iter().position(|block| !f16::from_le_bytes(*part(block, factor)).is_finite())
}

instantiate! {
    /// [`BlockFormat::widen`] of Q8_0.
    ///
    /// # Panics
    /// When the lengths differ or are not of whole blocks.
    pub fn widen_q8_0(blocks: &[u8], out: &mut [f32]) = widen_q8_0_body;

    /// [`BlockFormat::widen`] of Q6_K.
    ///
    /// # Panics
    /// When the lengths differ or are not of whole blocks.
    pub fn widen_q6_k(blocks: &[u8], out: &mut [f32]) = widen_q6_k_body;

    /// [`BlockFormat::rows`] of Q8_0.
    ///
    /// # Panics
    /// When `rows` does not hold `out.len()` rows of `x.len()` weights, or these are not whole blocks.
    pub fn rows_q8_0(rows: &[u8], x: &[f32], out: &mut [f32]) = rows_q8_0_body;

    /// [`BlockFormat::rows`] of Q6_K.
    ///
    /// # Panics
    /// When `rows` does not hold `out.len()` rows of `x.len()` weights, or these are not whole blocks.
    pub fn rows_q6_k(rows: &[u8], x: &[f32], out: &mut [f32]) = rows_q6_k_body;
}

#[inline(always)]
fn widen_q8_0_body<L: Lanes>(blocks: &[u8], out: &mut [f32]) {
    widen::<L, Q8_0, 2, 34>(blocks, out);
}

#[inline(always)]
fn widen_q6_k_body<L: Lanes>(blocks: &[u8], out: &mut [f32]) {
    widen::<L, Q6K, 16, 210>(blocks, out);
}

#[inline(always)]
fn rows_q8_0_body<L: Lanes>(rows: &[u8], x: &[f32], out: &mut [f32]) {
    times::<L, Q8_0, 2, 34>(rows, x, out);
}

#[inline(always)]
fn rows_q6_k_body<L: Lanes>(rows: &[u8], x: &[f32], out: &mut [f32]) {
    times::<L, Q6K, 16, 210>(rows, x, out);
}

/// How a block of `BYTES` bytes holds `CHUNKS` chunks of 16 weights.
pub(super) trait Block<L: Lanes, const CHUNKS: usize, const BYTES: usize> {
    /// A block on its way to weights.
    type Unpacked: Copy + Default;
    /// Does what is done once for a block.
    fn unpack(block: &[u8; BYTES], unpacked: &mut Self::Unpacked);
    /// The weights of a chunk; the sign of a zero may be any.
    fn weights(unpacked: &Self::Unpacked, chunk: usize) -> L;
}

pub(super) struct Q8_0;

impl<L: Lanes> Block<L, 2, 34> for Q8_0 {
    /// d and the codes
    type Unpacked = (f16, [[i8; 16]; 2]);

    #[inline(always)]
    fn unpack(block: &[u8; 34], (d, codes): &mut Self::Unpacked) {
        *d = f16::from_le_bytes(*part(block, 0));
        *codes = [*as_i8(part(block, 2)), *as_i8(part(block, 18))];
    }

    #[inline(always)]
    fn weights((d, codes): &Self::Unpacked, chunk: usize) -> L {
        L::splat_f16(*d).mul(L::widen_i8(&codes[chunk]))
    }
}

pub(super) struct Q6K;

impl<L: Lanes> Block<L, 16, 210> for Q6K {
    type Unpacked = L::Q6;

    #[inline(always)]
    fn unpack(block: &[u8; 210], unpacked: &mut L::Q6) {
        L::unpack_q6(block, unpacked);
    }

    #[inline(always)]
    fn weights(unpacked: &L::Q6, chunk: usize) -> L {
        L::weights_q6(unpacked, chunk)
    }
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

/// Rows per pass, as for [float rows](super::matvec).
const ROWS: usize = 4;

/// Chunks that are unrolled.
const GROUP: usize = 4;

#[inline(always)]
fn times<L: Lanes, B: Block<L, CHUNKS, BYTES>, const CHUNKS: usize, const BYTES: usize>(
    rows: &[u8],
    x: &[f32],
    out: &mut [f32],
) {
    let (rows, rest) = rows.as_chunks::<BYTES>();
    let (chunks, tail) = x.as_chunks();
    let (x, x_rest) = chunks.as_chunks::<CHUNKS>();
    assert!(rest.is_empty() && tail.is_empty() && x_rest.is_empty());
    assert_eq!(rows.len(), out.len() * x.len());
    let row = |r: usize| &rows[r * x.len()..][..x.len()];
    let (groups, singles) = out.as_chunks_mut::<ROWS>();
    for (group, out) in groups.iter_mut().enumerate() {
        let [a, b, c, d] = [0, 1, 2, 3].map(|r| group * ROWS + r);
        *out = dots::<L, B, CHUNKS, BYTES, ROWS>([row(a), row(b), row(c), row(d)], x);
    }
    let done = groups.len() * ROWS;
    for (r, out) in singles.iter_mut().enumerate() {
        [*out] = dots::<L, B, CHUNKS, BYTES, 1>([row(done + r)], x);
    }
}

/// The dot products of some rows with `x`; all have its number of blocks.
#[inline(always)]
fn dots<
    L: Lanes,
    B: Block<L, CHUNKS, BYTES>,
    const CHUNKS: usize,
    const BYTES: usize,
    const N: usize,
>(
    rows: [&[[u8; BYTES]]; N],
    x: &[[[f32; 16]; CHUNKS]],
) -> [f32; N] {
    let mut sums = [L::splat(0.0); N];
    let mut unpacked = [B::Unpacked::default(); N];
    for (i, x) in x.iter().enumerate() {
        for r in 0..N {
            let block = &rows[r][i];
            // The same place of the row that this lane of the pass takes next.
            for line in (0..BYTES).step_by(64) {
                prefetch(block.as_ptr().wrapping_add(N * size_of_val(rows[0]) + line));
            }
            B::unpack(block, &mut unpacked[r]);
        }
        // In groups, inside which the compiler knows the place of a chunk.
        for group in (0..CHUNKS).step_by(GROUP) {
            for chunk in group..group + GROUP.min(CHUNKS) {
                let x = L::load(&x[chunk]);
                for (sum, unpacked) in sums.iter_mut().zip(&unpacked) {
                    *sum = sum.add(B::weights(unpacked, chunk).mul(x));
                }
            }
        }
    }
    let mut out = [0.0; N];
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = sum.sum();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::float::reduce::dot;
    use crate::float::tests::{isas, same_on_every_isa, values};

    const FORMATS: [BlockFormat; 2] = [BlockFormat::Q8_0, BlockFormat::Q6K];

    /// Random blocks; every bit pattern but a `d` that is not finite.
    fn blocks(format: BlockFormat, count: usize, seed: u64) -> Vec<u8> {
        let bytes = count * format.bytes();
        let noise = values(bytes, seed);
        let mut blocks: Vec<u8> =
            noise.iter().map(|x| (x.to_bits() ^ x.to_bits() >> 11) as u8).collect();
        for block in blocks.chunks_exact_mut(format.bytes()) {
            let high = match format {
                BlockFormat::Q8_0 => 1,
                BlockFormat::Q6K => 209,
            };
            block[high] &= 0xBF;
        }
        blocks
    }

    /// A block of Q6_K with one scale and factor; codes are 0..64, which stand for -32..32.
    fn q6_k(code: impl Fn(usize) -> u8, scale: i8, d: u16) -> [u8; 210] {
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
    fn plain(format: BlockFormat, blocks: &[u8]) -> Vec<f64> {
        let mut out = Vec::new();
        for block in blocks.chunks_exact(format.bytes()) {
            let factor = if format == BlockFormat::Q8_0 { 0 } else { 208 };
            let d = f16::from_le_bytes([block[factor], block[factor + 1]]).to_f64();
            match format {
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
        for format in FORMATS {
            let blocks = blocks(format, 41, 5);
            let exact = plain(format, &blocks);
            for isa in isas() {
                let mut out = vec![0.0; exact.len()];
                format.widen(isa, &blocks, &mut out);
                assert!(out.iter().zip(&exact).all(|(out, exact)| f64::from(*out) == *exact));
            }
        }
    }

    #[test]
    fn products_are_exact_at_the_extremes() {
        let x = values(256, 3);
        // The largest and the smallest factors, of both signs, with the scales of the most and the
        // fewest bits, and every code in each place of a block that is unpacked in its own way.
        for d in [0x7BFF, 0xFBFF, 0x0001, 0x8001, 0x03FF, 0x8401] {
            for scale in [-128, -127, -1, 0, 1, 127] {
                for shift in [0, 16, 32, 48] {
                    let block = q6_k(|i| ((i + shift) % 64) as u8, scale, d);
                    let exact = plain(BlockFormat::Q6K, &block);
                    // Bit for bit: a NaN or the sign of a zero would not show otherwise.
                    same_on_every_isa(|isa| {
                        let (mut weights, mut product) = (vec![0.0; 256], [0.0]);
                        BlockFormat::Q6K.widen(isa, &block, &mut weights);
                        assert!(weights.iter().zip(&exact).all(|(a, b)| f64::from(*a) == *b));
                        BlockFormat::Q6K.rows(isa, &block, &x, &mut product);
                        [&weights[..], &product].concat()
                    });
                }
            }
        }
    }

    #[test]
    fn every_row_is_a_dot_product_on_every_isa() {
        for format in FORMATS {
            for count in [1, 2, 3, 10] {
                let k = count * format.weights();
                for m in [0, 1, 3, 4, 5, 9] {
                    let (rows, x) = (blocks(format, m * count, 7), values(k, 1));
                    let mut wide = vec![0.0; m * k];
                    format.widen(isas()[0], &rows, &mut wide);
                    same_on_every_isa(|isa| {
                        let mut out = vec![0.0; m];
                        format.rows(isa, &rows, &x, &mut out);
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
    fn factors_that_are_not_finite_are_found() {
        for (format, high) in [(BlockFormat::Q8_0, 1), (BlockFormat::Q6K, 209)] {
            let mut blocks = blocks(format, 9, 5);
            assert_eq!(format.first_not_finite(&blocks), None);
            for at in [8, 3] {
                blocks[at * format.bytes() + high] = 0xFC;
                assert_eq!(format.first_not_finite(&blocks), Some(at));
            }
        }
    }

    #[test]
    #[should_panic(expected = "rest.is_empty()")]
    fn parts_of_blocks_are_refused() {
        BlockFormat::Q6K.widen(isas()[0], &[0; 209], &mut [0.0; 256]);
    }
}
