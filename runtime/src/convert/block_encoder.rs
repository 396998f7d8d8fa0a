//! Floats to blocks of Q8_0 and Q6_K: byte for byte what the reference encoders of ggml write.

use half::f16;
use trilut_kernels::float::blocks::BlockFormat;

/// Below this a group counts as zeros.
const TINY: f32 = 1e-15;

/// Encodes whole blocks of finite values.
///
/// # Panics
/// When the lengths are not of whole blocks.
pub(super) fn encode(format: BlockFormat, values: &[f32], out: &mut [u8]) {
    assert!(values.len().is_multiple_of(format.weights()));
    assert_eq!(values.len() / format.weights() * format.bytes(), out.len());
    let blocks = values.chunks_exact(format.weights()).zip(out.chunks_exact_mut(format.bytes()));
    for (values, out) in blocks {
        match format {
            BlockFormat::Q8_0 => q8_0(values, out),
            BlockFormat::Q6K => q6_k(values, out),
            #[allow(
                unreachable_patterns,
                reason = "formats that are read but not written may be added"
            )]
            _ => unreachable!("no head is written in this format"),
        }
    }
}

fn q8_0(values: &[f32], out: &mut [u8]) {
    let largest = values.iter().fold(0f32, |max, v| max.max(v.abs()));
    let d = largest / 127.0;
    let inverse = if d > 0.0 { 1.0 / d } else { 0.0 };
    out[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    for (out, value) in out[2..].iter_mut().zip(values) {
        *out = (value * inverse).round() as i8 as u8;
    }
}

fn q6_k(values: &[f32], out: &mut [u8]) {
    // Codes from 0 to 63, of which 32 is the weight 0.
    let mut codes = [0u8; 256];
    let mut scales = [0f32; 16];
    for ((values, codes), scale) in
        values.chunks_exact(16).zip(codes.chunks_exact_mut(16)).zip(&mut scales)
    {
        *scale = scale_of(values, codes);
    }
    let largest =
        scales.iter().copied().fold(0f32, |max, s| if s.abs() > max.abs() { s } else { max });
    out.fill(0);
    if largest.abs() < TINY {
        return;
    }
    let inverse = -128.0 / largest;
    let d = f16::from_f32(1.0 / inverse);
    out[208..].copy_from_slice(&d.to_le_bytes());
    for (group, scale) in scales.iter().enumerate() {
        let scale = (inverse * scale).round_ties_even().min(127.0) as i8;
        out[192 + group] = scale as u8;
        let step = d.to_f32() * f32::from(scale);
        if step == 0.0 {
            // Any codes will do; ggml leaves those of the search.
            continue;
        }
        let place = group * 16..(group + 1) * 16;
        for (code, value) in codes[place.clone()].iter_mut().zip(&values[place]) {
            *code = (nearest(value / step) + 32) as u8;
        }
    }
    for (i, code) in codes.iter().enumerate() {
        let (half, quarter, at) = (i / 128, i % 128 / 32, i % 32);
        out[half * 64 + quarter % 2 * 32 + at] |= (code & 15) << (quarter / 2 * 4);
        out[128 + half * 32 + at] |= (code >> 4) << (quarter * 2);
    }
}

fn nearest(value: f32) -> i8 {
    value.round_ties_even().clamp(-32.0, 31.0) as i8
}

/// The scale of 16 values with codes from -32 to 31 that makes the error, weighted by the values'
/// squares, the least among 19 candidates; and those codes.
fn scale_of(values: &[f32], codes: &mut [u8]) -> f32 {
    let largest =
        values.iter().copied().fold(0f32, |max, v| if v.abs() > max.abs() { v } else { max });
    if largest.abs() < TINY {
        codes.fill(0);
        return 0.0;
    }
    let fit = |inverse: f32| {
        let (mut product, mut square) = (0f32, 0f32);
        for &value in values {
            let code = f32::from(nearest(inverse * value));
            let weight = value * value;
            product += weight * value * code;
            square += weight * code * code;
        }
        (product, square)
    };
    let mut chosen = -32.0 / largest;
    let (product, square) = fit(chosen);
    let mut scale = if square > 0.0 { product / square } else { 0.0 };
    let mut best = scale * product;
    for step in (-9..=9).filter(|&step| step != 0) {
        let inverse = -(32.0 + 0.1 * step as f32) / largest;
        let (product, square) = fit(inverse);
        if square > 0.0 && product * product > best * square {
            chosen = inverse;
            scale = product / square;
            best = scale * product;
        }
    }
    for (code, value) in codes.iter_mut().zip(values) {
        *code = (nearest(chosen * value) + 32) as u8;
    }
    scale
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 2_654_435_761) % 10_007) as f32 / 5003.0 - 1.0).collect()
    }

    fn error(format: BlockFormat, values: &[f32]) -> f64 {
        let mut out = vec![0; values.len() / format.weights() * format.bytes()];
        encode(format, values, &mut out);
        assert_eq!(format.first_not_finite(&out), None);
        let mut back = vec![0.0; values.len()];
        format.widen(trilut_kernels::Cpu::detect().best(), &out, &mut back);
        let square = |x: f32| f64::from(x) * f64::from(x);
        let wrong: f64 = values.iter().zip(&back).map(|(a, b)| square(a - b)).sum();
        let all: f64 = values.iter().map(|&a| square(a)).sum();
        if all == 0.0 { wrong } else { (wrong / all).sqrt() }
    }

    #[test]
    fn what_is_encoded_is_close_to_what_was_given() {
        let values = values(256 * 9);
        assert!(error(BlockFormat::Q8_0, &values) < 0.005);
        let q6 = error(BlockFormat::Q6K, &values);
        assert!(q6 > 0.0 && q6 < 0.02, "{q6}");
        let uneven: Vec<f32> =
            values.iter().enumerate().map(|(i, v)| v * (i / 16) as f32).collect();
        assert!(error(BlockFormat::Q6K, &uneven) < 0.02);
    }

    /// Values, then what `quantize_row_q8_0_ref` and `quantize_row_q6_K_ref` of llama.cpp make of them: two
    /// blocks of the demo model's embedding, random ones of equal and uneven groups, zeros, a lone value,
    /// halves, large ones with zeros, and ones that f16 cannot scale.
    const GOLDEN: &[u8] = include_bytes!("../../tests/golden/head_blocks.bin");

    #[test]
    fn bytes_are_those_of_ggml() {
        let (values, rest) = GOLDEN.split_at(9 * 256 * 4);
        let values: Vec<f32> = values
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
            .collect();
        let (q8_0, q6_k) = rest.split_at(values.len() / 32 * 34);
        for (format, golden) in [(BlockFormat::Q8_0, q8_0), (BlockFormat::Q6K, q6_k)] {
            let mut out = vec![0; golden.len()];
            encode(format, &values, &mut out);
            let wrong: Vec<usize> = (0..out.len()).filter(|&at| out[at] != golden[at]).collect();
            assert!(wrong.is_empty(), "{format:?}: bytes {wrong:?}");
        }
    }

    #[test]
    fn zeros_and_lone_values_are_kept() {
        for format in [BlockFormat::Q8_0, BlockFormat::Q6K] {
            let mut values = vec![0.0; 512];
            assert_eq!(error(format, &values), 0.0);
            values[300] = -3.0;
            assert!(error(format, &values) < 1e-3, "{format:?}");
        }
    }
}
