//! How files store ternary weights: blocks of codes `t + 1`, packed and unpacked.
//!
//! | codec | weights | bytes of a block |
//! |---|---|---|
//! | `I2_S` | 128 | byte j holds codes j, j+32, j+64, j+96 from the high bits down; one f32 scale after all blocks, 28 bytes of padding |
//! | `TQ2_0` | 256 | two halves of 128: byte j holds codes j, j+32, j+64, j+96 from the low bits up; then d: f16 |
//! | `TQ1_0` | 256 | base 3, most significant digit first, as ceil(256 v / 243): 32 bytes with codes j + 32 n of 160, 16 with codes j + 16 n of 80, 4 with codes j + 4 n of 16 and a digit 0; then d: f16 |

use crate::gguf::TensorKind;
use half::f16;

/// A stored form of ternary weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Codec {
    /// Two bits per weight and one scale: what bitnet.cpp writes, and what is executed in place.
    #[default]
    I2S,
    /// 2.06 bits per weight, in blocks of 256.
    Tq2_0,
    /// 1.69 bits per weight, in blocks of 256.
    Tq1_0,
}

/// What a code stands for is one less: -1, 0, 1.
pub(super) const ZERO: u8 = 1;

impl Codec {
    /// Every codec.
    pub const ALL: &[Self] = &[Self::I2S, Self::Tq2_0, Self::Tq1_0];

    /// The codec of a tensor type.
    pub(super) fn of(kind: TensorKind) -> Option<Self> {
        Self::ALL.iter().copied().find(|codec| codec.kind() == kind)
    }

    /// The tensor type.
    pub fn kind(self) -> TensorKind {
        TensorKind::from_id(match self {
            Self::I2S => 36,
            Self::Tq2_0 => 35,
            Self::Tq1_0 => 34,
        })
    }

    /// The name of the type in ggml.
    pub const fn name(self) -> &'static str {
        match self {
            Self::I2S => "I2_S",
            Self::Tq2_0 => "TQ2_0",
            Self::Tq1_0 => "TQ1_0",
        }
    }

    /// `general.file_type` of a file whose linear layers are stored so.
    pub(super) const fn file_type(self) -> u32 {
        match self {
            Self::I2S => 40,
            Self::Tq2_0 => 37,
            Self::Tq1_0 => 36,
        }
    }

    /// Weights of a block.
    pub(super) const fn weights(self) -> usize {
        match self {
            Self::I2S => 128,
            Self::Tq2_0 | Self::Tq1_0 => 256,
        }
    }

    /// Bytes of a block.
    pub(super) const fn bytes(self) -> usize {
        match self {
            Self::I2S => 32,
            Self::Tq2_0 => 66,
            Self::Tq1_0 => 54,
        }
    }

    /// Bytes of a tensor of whole blocks, its scale and padding included.
    pub(super) const fn tensor_bytes(self, weights: usize) -> usize {
        let blocks = weights / self.weights() * self.bytes();
        match self {
            Self::I2S => blocks + 32,
            Self::Tq2_0 | Self::Tq1_0 => blocks,
        }
    }

    /// Rows of `k` weights that fill whole blocks: of I2_S, whose blocks run over the end of a row, some
    /// together; `None` when a row cannot be stored.
    pub(super) const fn rows(self, k: usize) -> Option<usize> {
        match self {
            // 128 / gcd(128, k)
            Self::I2S if k == 0 => None,
            Self::I2S => Some(128 >> if k.trailing_zeros() > 7 { 7 } else { k.trailing_zeros() }),
            Self::Tq2_0 | Self::Tq1_0 if k.is_multiple_of(256) && k > 0 => Some(1),
            Self::Tq2_0 | Self::Tq1_0 => None,
        }
    }

    /// Packs codes (0, 1, 2) that fill whole blocks; `factor` goes where a block has a place for it.
    pub(super) fn pack(self, codes: &[u8], factor: f16, out: &mut [u8]) {
        let blocks = codes.chunks_exact(self.weights()).zip(out.chunks_exact_mut(self.bytes()));
        for (codes, out) in blocks {
            match self {
                Self::I2S => {
                    for j in 0..32 {
                        out[j] =
                            codes[j] << 6 | codes[32 + j] << 4 | codes[64 + j] << 2 | codes[96 + j];
                    }
                }
                Self::Tq2_0 => {
                    for (codes, out) in codes.chunks_exact(128).zip(out.chunks_exact_mut(32)) {
                        for j in 0..32 {
                            out[j] = codes[j]
                                | codes[32 + j] << 2
                                | codes[64 + j] << 4
                                | codes[96 + j] << 6;
                        }
                    }
                    out[64..].copy_from_slice(&factor.to_le_bytes());
                }
                Self::Tq1_0 => {
                    for part in TQ1_PARTS {
                        for j in 0..part.bytes {
                            let digit =
                                |n| if n < part.digits { codes[part.code(j, n)] } else { 0 };
                            let value = (0..5).fold(0u16, |v, n| v * 3 + u16::from(digit(n)));
                            out[part.at + j] = (value * 256).div_ceil(243) as u8;
                        }
                    }
                    out[52..].copy_from_slice(&factor.to_le_bytes());
                }
            }
        }
    }

    /// Unpacks whole blocks. A code of 3, which stands for nothing, comes out as it is.
    pub(super) fn unpack(self, blocks: &[u8], codes: &mut [u8]) {
        let blocks = blocks.chunks_exact(self.bytes()).zip(codes.chunks_exact_mut(self.weights()));
        for (block, codes) in blocks {
            match self {
                Self::I2S => {
                    for (part, codes) in codes.chunks_exact_mut(32).enumerate() {
                        for (code, byte) in codes.iter_mut().zip(block) {
                            *code = byte >> (6 - 2 * part) & 3;
                        }
                    }
                }
                Self::Tq2_0 => {
                    for (half, codes) in codes.chunks_exact_mut(128).enumerate() {
                        let block = &block[half * 32..][..32];
                        for (part, codes) in codes.chunks_exact_mut(32).enumerate() {
                            for (code, byte) in codes.iter_mut().zip(block) {
                                *code = byte >> (2 * part) & 3;
                            }
                        }
                    }
                }
                Self::Tq1_0 => {
                    for part in TQ1_PARTS {
                        for j in 0..part.bytes {
                            let mut byte = block[part.at + j];
                            for n in 0..part.digits {
                                // The digit is the part above 1 of three times the fraction byte / 256.
                                codes[part.code(j, n)] = ((u16::from(byte) * 3) >> 8) as u8;
                                byte = byte.wrapping_mul(3);
                            }
                        }
                    }
                }
            }
            if self != Self::I2S && self.factor(block) == 0.0 {
                codes.fill(ZERO);
            }
        }
    }

    /// The factor of a block of TQ1_0 or TQ2_0.
    pub(super) fn factor(self, block: &[u8]) -> f32 {
        let [.., low, high] = *block else { return 0.0 };
        f16::from_le_bytes([low, high]).to_f32()
    }
}

/// A part of a TQ1_0 block: bytes of base-3 digits.
struct Tq1Part {
    at: usize,
    bytes: usize,
    digits: usize,
    first: usize,
}

impl Tq1Part {
    /// The place of digit `n` of byte `j` among the block's codes.
    const fn code(&self, j: usize, n: usize) -> usize {
        self.first + n * self.bytes + j
    }
}

const TQ1_PARTS: [Tq1Part; 3] = [
    Tq1Part { at: 0, bytes: 32, digits: 5, first: 0 },
    Tq1Part { at: 32, bytes: 16, digits: 5, first: 160 },
    Tq1Part { at: 48, bytes: 4, digits: 4, first: 240 },
];

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(n: usize) -> Vec<u8> {
        (0..n).map(|i| (i * i / 7 + i / 3) as u8 % 3).collect()
    }

    #[test]
    fn every_codec_gives_back_what_it_was_given() {
        let codes = codes(1024);
        for &codec in Codec::ALL {
            let mut packed = vec![0xAA; 1024 / codec.weights() * codec.bytes()];
            codec.pack(&codes, f16::ONE, &mut packed);
            let mut back = vec![9; 1024];
            codec.unpack(&packed, &mut back);
            assert_eq!(back, codes, "{codec:?}");
        }
    }

    #[test]
    fn blocks_are_laid_out_as_documented() {
        let codes = codes(256);
        let mut out = [0; 66];
        Codec::I2S.pack(&codes[..128], f16::ONE, &mut out[..32]);
        let first = codes[0] << 6 | codes[32] << 4 | codes[64] << 2 | codes[96];
        assert_eq!(out[0], first);
        Codec::Tq2_0.pack(&codes, f16::from_f32(0.5), &mut out);
        let second_half = codes[133] | codes[165] << 2 | codes[197] << 4 | codes[229] << 6;
        assert_eq!((out[37], &out[64..]), (second_half, &f16::from_f32(0.5).to_le_bytes()[..]));
        Codec::Tq1_0.pack(&codes, f16::ONE, &mut out[..54]);
        let of = |places: [usize; 5]| places.iter().fold(0u32, |v, &i| v * 3 + u32::from(codes[i]));
        assert_eq!(u32::from(out[3]), (of([3, 35, 67, 99, 131]) * 256).div_ceil(243));
        assert_eq!(u32::from(out[33]), (of([161, 177, 193, 209, 225]) * 256).div_ceil(243));
        let last = [242, 246, 250, 254].iter().fold(0u32, |v, &i| v * 3 + u32::from(codes[i])) * 3;
        assert_eq!(u32::from(out[50]), (last * 256).div_ceil(243));
    }

    #[test]
    fn rows_fill_blocks_together() {
        for (k, rows) in [(128, 1), (2560, 1), (8640, 2), (100, 32), (7, 128), (96, 4)] {
            assert_eq!(Codec::I2S.rows(k), Some(rows), "{k}");
            assert!((rows * k).is_multiple_of(128));
        }
        assert_eq!((Codec::Tq1_0.rows(512), Codec::Tq2_0.rows(640)), (Some(1), None));
    }

    #[test]
    fn blocks_with_a_factor_of_zero_are_zeros() {
        let mut packed = vec![0; 66];
        Codec::Tq2_0.pack(&codes(256), f16::ZERO, &mut packed);
        let mut back = vec![9; 256];
        Codec::Tq2_0.unpack(&packed, &mut back);
        assert!(back.iter().all(|&code| code == ZERO));
    }
}
