//! Sums of linear layers, rows by tokens as gemm kernels leave them, to floats, tokens by rows.

use super::{Lanes, instantiate, padded};
use crate::transpose::transposed;

instantiate! {
    /// `out[token * m + row] = sums[row * stride + token] * (scales[row] * (amax[token] / 127))`: the `m`
    /// rows that `scales` has, the tokens that `amax` has, each as [`crate::reference::dequantise`] does it.
    ///
    /// # Panics
    /// When there are more tokens than `stride`, or `sums` and `out` have other lengths than follow from these.
    pub fn dequantise(sums: &[i32], stride: usize, scales: &[f32], amax: &[f32], out: &mut [f32]) = dequantise_body;
}

#[inline(always)]
fn dequantise_body<L: Lanes>(
    sums: &[i32],
    stride: usize,
    scales: &[f32],
    amax: &[f32],
    out: &mut [f32],
) {
    let m = scales.len();
    assert!(amax.len() <= stride, "{} tokens of {stride}", amax.len());
    assert_eq!(sums.len(), m * stride);
    assert_eq!(out.len(), m * amax.len());
    let mut block = [[0.0; 16]; 16];
    for (first_token, amax) in (0..).step_by(16).zip(amax.chunks(16)) {
        let factors = L::load(&padded(amax)).div(L::splat(127.0));
        for (first_row, scales) in (0..).step_by(16).zip(scales.chunks(16)) {
            for ((row, scale), floats) in (first_row..).zip(scales).zip(&mut block) {
                // Beyond the stride follow other rows' sums: columns that are not used.
                let sums = &sums[row * stride + first_token..];
                let sums = match sums.first_chunk() {
                    Some(sums) => L::round_i32(sums),
                    None => L::round_i32(&padded(sums)),
                };
                sums.mul(L::splat(*scale).mul(factors)).store(floats);
            }
            let columns = transposed(&block);
            for (token, column) in (first_token..).zip(&columns[..amax.len()]) {
                let out = &mut out[token * m + first_row..];
                match out.first_chunk_mut().filter(|_| scales.len() == 16) {
                    Some(out) => *out = *column,
                    None => out[..scales.len()].copy_from_slice(&column[..scales.len()]),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::float::tests::{isas, values};
    use crate::reference;

    #[test]
    fn equal_to_the_reference_at_every_size() {
        for (m, stride, tokens) in
            [(1, 1, 1), (5, 4, 3), (16, 16, 16), (33, 24, 24), (64, 64, 50), (17, 64, 1), (0, 8, 8)]
        {
            let sums: Vec<i32> =
                (0..m * stride).map(|i| (i as i32).wrapping_mul(-7_654_321) >> 6).collect();
            let (scales, amax) = (values(m, 1), values(tokens, 2));
            let wanted: Vec<u32> = (0..tokens * m)
                .map(|i| {
                    let (token, row) = (i / m, i % m);
                    let sum = sums[row * stride + token];
                    reference::dequantise(sum, scales[row], amax[token]).to_bits()
                })
                .collect();
            for isa in isas() {
                let mut out = vec![f32::NAN; m * tokens];
                dequantise(isa, &sums, stride, &scales, &amax, &mut out);
                let got: Vec<u32> = out.into_iter().map(f32::to_bits).collect();
                assert_eq!(got, wanted, "{:?} {m} x {stride}, {tokens} tokens", isa.isa());
            }
        }
    }
}
