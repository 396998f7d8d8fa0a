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

    /// `out[token * m + row] = totals[row * stride + token] * (amax[token] / 127)`, the same for sums that
    /// have been multiplied with their scales: [`crate::reference::dequantise_total`].
    ///
    /// # Panics
    /// As above.
    pub fn dequantise_totals(totals: &[f32], stride: usize, amax: &[f32], out: &mut [f32]) = totals_body;
}

#[inline(always)]
fn dequantise_body<L: Lanes>(
    sums: &[i32],
    stride: usize,
    scales: &[f32],
    amax: &[f32],
    out: &mut [f32],
) {
    assert_eq!(sums.len(), scales.len() * stride);
    turn(
        (scales.len(), stride),
        amax,
        out,
        #[inline(always)]
        |row, at, factors: L| {
            L::round_i32(&chunk(&sums[at..])).mul(L::splat(scales[row]).mul(factors))
        },
    );
}

#[inline(always)]
fn totals_body<L: Lanes>(totals: &[f32], stride: usize, amax: &[f32], out: &mut [f32]) {
    assert_eq!(totals.len() % stride, 0);
    turn(
        (totals.len() / stride, stride),
        amax,
        out,
        #[inline(always)]
        |_, at, factors: L| L::load(&chunk(&totals[at..])).mul(factors),
    );
}

/// The first 16 elements, with zeros where there are fewer.
#[inline(always)]
fn chunk<T: Copy + Default>(x: &[T]) -> [T; 16] {
    x.first_chunk().copied().unwrap_or_else(|| padded(x))
}

/// Writes `float(row, row * stride + token, amax / 127)` for `m` rows and 16 tokens at a time to floats by
/// token. Beyond the stride follow other rows' sums: columns that are not used.
#[inline(always)]
fn turn<L: Lanes>(
    (m, stride): (usize, usize),
    amax: &[f32],
    out: &mut [f32],
    float: impl Fn(usize, usize, L) -> L,
) {
    assert!(amax.len() <= stride, "{} tokens of {stride}", amax.len());
    assert_eq!(out.len(), m * amax.len());
    let mut block = [[0.0; 16]; 16];
    for (first_token, amax) in (0..).step_by(16).zip(amax.chunks(16)) {
        let factors = L::load(&padded(amax)).div(L::splat(127.0));
        for first_row in (0..m).step_by(16) {
            let count = (m - first_row).min(16);
            for (row, floats) in (first_row..).zip(&mut block[..count]) {
                float(row, row * stride + first_token, factors).store(floats);
            }
            let columns = transposed(&block);
            for (token, column) in (first_token..).zip(&columns[..amax.len()]) {
                let out = &mut out[token * m + first_row..];
                match out.first_chunk_mut().filter(|_| count == 16) {
                    Some(out) => *out = *column,
                    None => out[..count].copy_from_slice(&column[..count]),
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
                let got: Vec<u32> = out.iter().map(|x| x.to_bits()).collect();
                assert_eq!(got, wanted, "{:?} {m} x {stride}, {tokens} tokens", isa.isa());

                let totals: Vec<f32> = (0..m * stride)
                    .map(|i| reference::add_group(0.0, sums[i], scales[i / stride]))
                    .collect();
                dequantise_totals(isa, &totals, stride, &amax, &mut out);
                for (i, got) in out.iter().enumerate() {
                    let (token, row) = (i / m, i % m);
                    let total = totals[row * stride + token];
                    let wanted = reference::dequantise_total(total, amax[token]);
                    assert_eq!(got.to_bits(), wanted.to_bits(), "totals, {:?}", isa.isa());
                }
            }
        }
    }
}
