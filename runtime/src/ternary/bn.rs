//! The BitNet types of ik_llama.cpp: IQ1_BN, IQ2_BN and its four-row form. The scale of a row is in front
//! of its weights, or, of four rows, in front of theirs.

use super::{Codec, CodecError, Scales, is_scale};
use half::f16;
use trilut_presets::Shape;

/// Weights of a block.
const BLOCK: usize = 64;

/// Bytes in front of a row's weights, and bytes of a block.
const fn layout(codec: Codec) -> (usize, usize) {
    match codec {
        Codec::Iq1Bn => (2, 13),
        _ => (4, 16),
    }
}

/// Bytes of a row with its scale.
pub(super) const fn row_bytes(codec: Codec, k: usize) -> usize {
    let (scale, block) = layout(codec);
    scale + k / BLOCK * block
}

fn row_of(codec: Codec, data: &[u8], row: usize, k: usize) -> (&[u8], &[u8]) {
    let bytes = row_bytes(codec, k);
    data[row * bytes..][..bytes].split_at(layout(codec).0)
}

/// The scale of a row.
pub(super) fn scale(
    codec: Codec,
    data: &[u8],
    row: usize,
    k: usize,
) -> Result<Option<f32>, CodecError> {
    let scale = match codec {
        Codec::Iq1Bn => {
            let (scale, _) = row_of(codec, data, row, k);
            f16::from_le_bytes([scale[0], scale[1]]).to_f32()
        }
        Codec::Iq2Bn => float(row_of(codec, data, row, k).0),
        _ => float(&data[row / 4 * 4 * row_bytes(codec, k) + row % 4 * 4..]),
    };
    match scale {
        // The largest magnitude of a row without weights.
        0.0 => Ok(None),
        _ if is_scale(scale) => Ok(Some(scale)),
        _ => Err(CodecError::Scale { row, scale }),
    }
}

fn float(bytes: &[u8]) -> f32 {
    f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// The bytes and digits of IQ1_BN's block that hold weight `i`: of 16 weights, 15 in three bytes of five
/// digits, and of all four sixteenths one digit in the last byte.
const fn base3(i: usize) -> (usize, usize) {
    match i % 16 {
        15 => (12, i / 16),
        within => (i / 16 * 3 + within / 5, within % 5),
    }
}

/// Writes a row's weights; the error is a code that stands for nothing.
pub(super) fn row(codec: Codec, data: &[u8], row: usize, out: &mut [i8]) -> Result<(), u8> {
    let (scale, blocks) = row_of(codec, data, row, out.len());
    let is_empty = scale.iter().all(|byte| *byte == 0);
    let bytes = layout(codec).1;
    for (block, out) in blocks.chunks_exact(bytes).zip(out.chunks_exact_mut(BLOCK)) {
        for (i, out) in out.iter_mut().enumerate() {
            let code = if codec == Codec::Iq1Bn {
                // The least digit is the first: it is reached by multiplying with 81.
                let (byte, digit) = base3(i);
                let fraction = block[byte].wrapping_mul([81, 27, 9, 3, 1][digit]);
                ((u16::from(fraction) * 3) >> 8) as u8
            } else {
                block[i % 16] >> (i / 16 * 2) & 3
            };
            if code == 3 {
                return Err(3);
            }
            *out = if is_empty { 0 } else { code as i8 - 1 };
        }
    }
    Ok(())
}

pub(super) fn encode(codec: Codec, shape: Shape, weights: &[i8], scales: &Scales, out: &mut [u8]) {
    let (scale_bytes, bytes) = layout(codec);
    let rows = weights.chunks_exact(shape.k).zip(out.chunks_exact_mut(row_bytes(codec, shape.k)));
    for (row, (weights, out)) in rows.enumerate() {
        let (scale, blocks) = out.split_at_mut(scale_bytes);
        match codec {
            Codec::Iq1Bn => {
                scale.copy_from_slice(
                    &f16::from_f32(scales.at(row * shape.k, shape.k)).to_le_bytes(),
                );
            }
            _ => scale.copy_from_slice(&scales.at(row * shape.k, shape.k).to_le_bytes()),
        }
        for (weights, out) in weights.chunks_exact(BLOCK).zip(blocks.chunks_exact_mut(bytes)) {
            let codes = weights.iter().map(|t| (t + 1) as u8).enumerate();
            if codec == Codec::Iq1Bn {
                let mut numbers = [0u16; 13];
                for (i, code) in codes {
                    let (byte, digit) = base3(i);
                    numbers[byte] += u16::from(code) * [1, 3, 9, 27, 81][digit];
                }
                for (out, number) in out.iter_mut().zip(numbers) {
                    *out = (number * 256).div_ceil(243) as u8;
                }
            } else {
                codes.for_each(|(i, code)| out[i % 16] |= code << (i / 16 * 2));
            }
        }
    }
}

/// The byte of four rows' block that holds weight `i` of row `row`, and the code's first bit.
const fn four_rows(row: usize, i: usize) -> (usize, usize) {
    (i / 16 * 16 + row * 4 + i % 4, i % 16 / 4 * 2)
}

/// [`row`] of IQ2_BN_R4.
pub(super) fn row_r4(data: &[u8], row: usize, out: &mut [i8]) -> Result<(), u8> {
    let group = &data[row / 4 * 4 * row_bytes(Codec::Iq2BnR4, out.len())..];
    let (scales, blocks) = group.split_at(16);
    let row = row % 4;
    let is_empty = float(&scales[row * 4..]) == 0.0;
    for (block, out) in blocks.chunks_exact(4 * 16).zip(out.chunks_exact_mut(BLOCK)) {
        for (i, out) in out.iter_mut().enumerate() {
            let (byte, bit) = four_rows(row, i);
            let code = block[byte] >> bit & 3;
            if code == 3 {
                return Err(3);
            }
            *out = if is_empty { 0 } else { code as i8 - 1 };
        }
    }
    Ok(())
}

/// [`encode`] of IQ2_BN_R4.
pub(super) fn encode_r4(shape: Shape, weights: &[i8], scales: &Scales, out: &mut [u8]) {
    let group = 4 * row_bytes(Codec::Iq2BnR4, shape.k);
    for (row, weights) in weights.chunks_exact(shape.k).enumerate() {
        let (rows, blocks) = out[row / 4 * group..][..group].split_at_mut(16);
        rows[row % 4 * 4..][..4].copy_from_slice(&scales.at(row * shape.k, shape.k).to_le_bytes());
        for (weights, out) in weights.chunks_exact(BLOCK).zip(blocks.chunks_exact_mut(4 * 16)) {
            for (i, t) in weights.iter().enumerate() {
                let (byte, bit) = four_rows(row % 4, i);
                out[byte] |= ((t + 1) as u8) << bit;
            }
        }
    }
}
