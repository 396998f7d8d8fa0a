//! Codecs of blocks with an f16 scale each: TQ1_0, TQ2_0 and Q2_0.

use super::{Codec, CodecError, Scales, is_scale};
use half::f16;
use trilut_presets::Shape;

/// Sections of a TQ1_0 block: first weight, weights of a plane, planes, first byte. Byte j of a section
/// holds weight j of each of its planes as base-3 digits.
const TQ1_SECTIONS: [(usize, usize, usize, usize); 3] =
    [(0, 32, 5, 0), (160, 16, 5, 32), (240, 4, 4, 48)];

/// Weights of a block, its bytes, and where the scale is.
const fn layout(codec: Codec) -> (usize, usize, usize) {
    match codec {
        Codec::Tq1_0 => (256, 54, 52),
        Codec::Tq2_0 => (256, 66, 64),
        Codec::Q2_0 { group } => (group, group / 4 + 2, 0),
        _ => unreachable!(),
    }
}

/// The blocks of a row.
fn blocks(codec: Codec, data: &[u8], row: usize, k: usize) -> impl Iterator<Item = &[u8]> {
    let (weights, bytes, _) = layout(codec);
    data.chunks_exact(bytes).skip(k / weights * row).take(k / weights)
}

fn scale_of(codec: Codec, block: &[u8]) -> f32 {
    let at = layout(codec).2;
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// The byte of a block that holds weight `i` as a 2-bit code, and the code's first bit.
fn two_bits(codec: Codec, i: usize) -> (usize, usize) {
    match codec {
        Codec::Tq2_0 => (i / 128 * 32 + i % 32, i % 128 / 32 * 2),
        _ => (2 + i / 4, i % 4 * 2),
    }
}

/// Writes a row's weights; the error is a code that stands for nothing.
pub(super) fn row(codec: Codec, data: &[u8], row: usize, out: &mut [i8]) -> Result<(), u8> {
    let k = out.len();
    let weights = layout(codec).0;
    for (block, out) in blocks(codec, data, row, k).zip(out.chunks_exact_mut(weights)) {
        if scale_of(codec, block) == 0.0 {
            // Whatever its codes, its weights are 0.
            out.fill(0);
        } else if codec == Codec::Tq1_0 {
            for (first, width, planes, at) in TQ1_SECTIONS {
                for j in 0..width {
                    let mut fraction = block[at + j];
                    for plane in 0..planes {
                        out[first + plane * width + j] = ((u16::from(fraction) * 3) >> 8) as i8 - 1;
                        fraction = fraction.wrapping_mul(3);
                    }
                }
            }
        } else {
            for (i, out) in out.iter_mut().enumerate() {
                let (byte, bit) = two_bits(codec, i);
                let code = block[byte] >> bit & 3;
                if code == 3 {
                    return Err(3);
                }
                *out = code as i8 - 1;
            }
        }
    }
    Ok(())
}

/// The scale of each block; `None` of one without weights.
pub(super) fn scales(
    codec: Codec,
    data: &[u8],
    shape: Shape,
) -> Result<Vec<Option<f32>>, CodecError> {
    let (weights, bytes, _) = layout(codec);
    let scale = |(index, block)| match scale_of(codec, block) {
        0.0 => Ok(None),
        scale if is_scale(scale) => Ok(Some(scale)),
        scale => Err(CodecError::Scale { row: index * weights / shape.k, scale }),
    };
    data.chunks_exact(bytes).enumerate().map(scale).collect()
}

pub(super) fn encode(codec: Codec, shape: Shape, weights: &[i8], scales: &Scales, out: &mut [u8]) {
    let (group, bytes, scale_at) = layout(codec);
    let pairs = weights.chunks_exact(group).zip(out.chunks_exact_mut(bytes));
    for (index, (weights, out)) in pairs.enumerate() {
        let scale = scales.at(index * group, shape.k);
        // As llama.cpp writes it: the largest magnitude, so 0 where there is none.
        let scale = if weights.iter().any(|t| *t != 0) { scale } else { 0.0 };
        out[scale_at..scale_at + 2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
        if codec != Codec::Tq1_0 {
            for (i, t) in weights.iter().enumerate() {
                let (byte, bit) = two_bits(codec, i);
                out[byte] |= ((t + 1) as u8) << bit;
            }
            continue;
        }
        for (first, width, planes, at) in TQ1_SECTIONS {
            for j in 0..width {
                let digit = |plane| (weights[first + plane * width + j] + 1) as u16;
                // Five digits always; those that are not there are 0.
                let number = (0..5).fold(0, |v, p| v * 3 + if p < planes { digit(p) } else { 0 });
                out[at + j] = (number * 256).div_ceil(243) as u8;
            }
        }
    }
}
