//! How blocks of each format are taken apart into weights.

use super::q6_k;
use crate::float::Lanes;
use crate::float::lanes::{as_i8, part};
use half::f16;

/// How a block of `BYTES` bytes holds `CHUNKS` chunks of 16 weights.
pub(in crate::float) trait Block<L: Lanes, const CHUNKS: usize, const BYTES: usize> {
    /// A block on its way to weights.
    type Unpacked: Copy + Default;
    /// Does what is done once for a block.
    fn unpack(block: &[u8; BYTES], unpacked: &mut Self::Unpacked);
    /// The weights of a chunk; the sign of a zero may be any.
    fn weights(unpacked: &Self::Unpacked, chunk: usize) -> L;
}

#[inline(always)]
pub(super) fn half<const BYTES: usize>(block: &[u8; BYTES], at: usize) -> f16 {
    f16::from_le_bytes(*part(block, at))
}

pub(in crate::float) struct Q8_0;

impl<L: Lanes> Block<L, 2, 34> for Q8_0 {
    /// d and the codes
    type Unpacked = (f16, [[i8; 16]; 2]);

    #[inline(always)]
    fn unpack(block: &[u8; 34], (d, codes): &mut Self::Unpacked) {
        *d = half(block, 0);
        *codes = [*as_i8(part(block, 2)), *as_i8(part(block, 18))];
    }

    #[inline(always)]
    fn weights((d, codes): &Self::Unpacked, chunk: usize) -> L {
        L::splat_f16(*d).mul(L::widen_i8(&codes[chunk]))
    }
}

/// The low and the high nibbles of 16 bytes.
#[inline(always)]
fn nibbles(bytes: &[u8; 16]) -> [[i8; 16]; 2] {
    [bytes.map(|b| (b & 15) as i8), bytes.map(|b| (b >> 4) as i8)]
}

pub(in crate::float) struct Q4_0;

impl<L: Lanes> Block<L, 2, 18> for Q4_0 {
    /// d and the codes
    type Unpacked = (f16, [[i8; 16]; 2]);

    #[inline(always)]
    fn unpack(block: &[u8; 18], (d, codes): &mut Self::Unpacked) {
        *d = half(block, 0);
        *codes = nibbles(part(block, 2)).map(|codes| codes.map(|code| code - 8));
    }

    #[inline(always)]
    fn weights((d, codes): &Self::Unpacked, chunk: usize) -> L {
        L::splat_f16(*d).mul(L::widen_i8(&codes[chunk]))
    }
}

pub(in crate::float) struct Q4_1;

impl<L: Lanes> Block<L, 2, 20> for Q4_1 {
    /// d, the offset, and the codes
    type Unpacked = (f16, f16, [[i8; 16]; 2]);

    #[inline(always)]
    fn unpack(block: &[u8; 20], (d, offset, codes): &mut Self::Unpacked) {
        (*d, *offset) = (half(block, 0), half(block, 2));
        *codes = nibbles(part(block, 4));
    }

    #[inline(always)]
    fn weights((d, offset, codes): &Self::Unpacked, chunk: usize) -> L {
        L::splat_f16(*d).mul(L::widen_i8(&codes[chunk])).add(L::splat_f16(*offset))
    }
}

pub(in crate::float) struct Q5_0;

impl<L: Lanes> Block<L, 2, 22> for Q5_0 {
    /// d and the codes
    type Unpacked = (f16, [[i8; 16]; 2]);

    #[inline(always)]
    fn unpack(block: &[u8; 22], (d, codes): &mut Self::Unpacked) {
        *d = half(block, 0);
        let high = u32::from_le_bytes(*part(block, 2));
        *codes = nibbles(part(block, 6));
        for (chunk, codes) in codes.iter_mut().enumerate() {
            for (i, code) in codes.iter_mut().enumerate() {
                let high = (high >> (16 * chunk + i) & 1) as i8;
                *code += 16 * high - 16;
            }
        }
    }

    #[inline(always)]
    fn weights((d, codes): &Self::Unpacked, chunk: usize) -> L {
        L::splat_f16(*d).mul(L::widen_i8(&codes[chunk]))
    }
}

pub(in crate::float) struct Q4K;

/// A block of Q4_K on its way to weights.
#[derive(Clone, Copy, Default)]
pub(in crate::float) struct UnpackedQ4K {
    codes: [[i8; 16]; 16],
    /// By 32 weights: `d * scale`.
    scales: [f32; 8],
    /// By 32 weights: the other `d` times the offset.
    offsets: [f32; 8],
}

impl<L: Lanes> Block<L, 16, 144> for Q4K {
    type Unpacked = UnpackedQ4K;

    #[inline(always)]
    fn unpack(block: &[u8; 144], out: &mut UnpackedQ4K) {
        let (d, least) = (half(block, 0).to_f32(), half(block, 2).to_f32());
        let packed: &[u8; 12] = part(block, 4);
        for i in 0..8 {
            // Six bits each: of the first four in the low bits of bytes 0..8; of the others in nibbles of
            // bytes 8..12 and, for the high bits, at the top of bytes 0..8.
            let (scale, offset) = match i {
                0..4 => (packed[i] & 63, packed[i + 4] & 63),
                _ => (
                    (packed[i + 4] & 15) | (packed[i - 4] >> 6 << 4),
                    (packed[i + 4] >> 4) | (packed[i] >> 6 << 4),
                ),
            };
            (out.scales[i], out.offsets[i]) = (d * f32::from(scale), least * f32::from(offset));
        }
        // Of 64 weights, 32 bytes: the first half in the low nibbles.
        for (quarter, codes) in out.codes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let [a, c] = nibbles(part(block, 16 + 32 * quarter));
            let [b, d] = nibbles(part(block, 32 + 32 * quarter));
            *codes = [a, b, c, d];
        }
    }

    #[inline(always)]
    fn weights(unpacked: &UnpackedQ4K, chunk: usize) -> L {
        let scale = L::splat(unpacked.scales[chunk / 2]);
        let offset = L::splat(unpacked.offsets[chunk / 2]);
        scale.mul(L::widen_i8(&unpacked.codes[chunk])).sub(offset)
    }
}

pub(in crate::float) struct Q6K;

impl<L: Lanes> Block<L, 16, 210> for Q6K {
    /// `d * scale` for each 16, and the codes
    type Unpacked = ([f32; 16], [[i8; 16]; 16]);

    #[inline(always)]
    fn unpack(block: &[u8; 210], (scales, codes): &mut Self::Unpacked) {
        let scale = L::splat_f16(half(block, 208)).mul(L::widen_i8(as_i8(part(block, 192))));
        scale.store(scales);
        q6_k::codes(block, codes.as_flattened_mut().as_mut_array().expect("256 codes"));
    }

    #[inline(always)]
    fn weights((scales, codes): &Self::Unpacked, chunk: usize) -> L {
        L::splat(scales[chunk]).mul(L::widen_i8(&codes[chunk]))
    }
}
