//! The arithmetic that every kernel must reproduce bit for bit, written to be obviously right.

use trilut_presets::Shape;

/// `out[i] = sum_k t[i][k] * q[k]` for ternary `t` (row-major, `m x k`) and int8 `q`, in int32.
///
/// # Panics
/// When the slices do not have `m * k` and `k` elements.
pub fn gemv(shape: Shape, ternary: &[i8], q: &[i8]) -> Vec<i32> {
    assert_eq!(ternary.len(), shape.weights());
    assert_eq!(q.len(), shape.k);
    ternary
        .chunks_exact(shape.k)
        .map(|row| row.iter().zip(q).map(|(&t, &q)| i32::from(t) * i32::from(q)).sum())
        .collect()
}

/// Quantises one token's activations: `q = clamp(round_half_even(x * (127 / amax)), -127, 127)` with
/// `amax = max(max |x|, 1e-5)`. Returns `(q, amax)`.
pub fn quantise(x: &[f32]) -> (Vec<i8>, f32) {
    let amax = x.iter().fold(1e-5f32, |a, v| a.max(v.abs()));
    let scale = 127f32 / amax;
    let q = x.iter().map(|v| (v * scale).round_ties_even().clamp(-127.0, 127.0) as i8).collect();
    (q, amax)
}

/// The float result of a linear layer whose weights have a scale for each group of inputs, from the exact
/// sum of each group: [`add_group`] for one after the other from 0 on, then [`dequantise_total`].
pub fn dequantise_groups(sums: &[i32], weight_scales: &[f32], amax: f32) -> f32 {
    let groups = sums.iter().zip(weight_scales);
    let total = groups.fold(0f32, |total, (&sum, &scale)| add_group(total, sum, scale));
    dequantise_total(total, amax)
}

/// A total with the next group added: `total + sum * weight_scale`, rounded twice.
#[inline]
pub fn add_group(total: f32, sum: i32, weight_scale: f32) -> f32 {
    total + sum as f32 * weight_scale
}

/// The float result of a linear layer from the total of its groups: `total * (amax / 127)`.
#[inline]
pub fn dequantise_total(total: f32, amax: f32) -> f32 {
    total * (amax / 127f32)
}

/// The float result of a linear layer from its exact sum: `sum * (weight_scale * (amax / 127))`.
#[inline]
pub fn dequantise(sum: i32, weight_scale: f32, amax: f32) -> f32 {
    sum as f32 * (weight_scale * (amax / 127f32))
}
