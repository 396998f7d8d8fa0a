//! Float rows times a vector: the LM head over the vocabulary.

use super::{Lanes, instantiate, padded};
use half::{bf16, f16};

instantiate! {
    /// `out[r] = sum_i rows[r * x.len() + i] * x[i]` for f16 rows, each widened exactly first; the
    /// order of [`super::reduce::dot`]. Streams the rows at the speed of memory.
    ///
    /// # Panics
    /// When `rows` does not hold `out.len()` rows of `x.len()` values.
    pub fn rows_f16(rows: &[f16], x: &[f32], out: &mut [f32]) = rows_f16_body;

    /// The same of bf16 rows.
    ///
    /// # Panics
    /// When `rows` does not hold `out.len()` rows of `x.len()` values.
    pub fn rows_bf16(rows: &[bf16], x: &[f32], out: &mut [f32]) = rows_bf16_body;

    /// `out[r] = sum_i rows[r * x.len() + i] * x[i]` for f32 rows, in the order of
    /// [`super::reduce::dot`].
    ///
    /// # Panics
    /// When `rows` does not hold `out.len()` rows of `x.len()` values.
    pub fn rows_f32(rows: &[f32], x: &[f32], out: &mut [f32]) = rows_f32_body;
}

/// Rows per pass: their sums are independent, which hides the latency of addition, and they share
/// the loads of `x`.
const ROWS: usize = 4;

#[inline(always)]
fn rows_f16_body<L: Lanes>(rows: &[f16], x: &[f32], out: &mut [f32]) {
    rows_body::<L, f16>(rows, x, out);
}

#[inline(always)]
fn rows_bf16_body<L: Lanes>(rows: &[bf16], x: &[f32], out: &mut [f32]) {
    rows_body::<L, bf16>(rows, x, out);
}

#[inline(always)]
fn rows_f32_body<L: Lanes>(rows: &[f32], x: &[f32], out: &mut [f32]) {
    rows_body::<L, f32>(rows, x, out);
}

/// A type that rows are stored in.
pub(super) trait Element: Copy + Default {
    fn load<L: Lanes>(x: &[Self; 16]) -> L;
}

impl Element for f16 {
    #[inline(always)]
    fn load<L: Lanes>(x: &[Self; 16]) -> L {
        L::widen(x)
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn load<L: Lanes>(x: &[Self; 16]) -> L {
        // The upper half of an f32.
        L::load(&x.map(|x| f32::from_bits(u32::from(x.to_bits()) << 16)))
    }
}

impl Element for f32 {
    #[inline(always)]
    fn load<L: Lanes>(x: &[Self; 16]) -> L {
        L::load(x)
    }
}

#[inline(always)]
fn rows_body<L: Lanes, E: Element>(rows: &[E], x: &[f32], out: &mut [f32]) {
    let k = x.len();
    assert_eq!(rows.len(), out.len() * k);
    let (blocks, rest) = out.as_chunks_mut::<ROWS>();
    for (block, out) in blocks.iter_mut().enumerate() {
        let row = |r: usize| &rows[(block * ROWS + r) * k..][..k];
        *out = dots::<L, E, ROWS>([row(0), row(1), row(2), row(3)], x);
    }
    let done = blocks.len() * ROWS;
    for (r, out) in rest.iter_mut().enumerate() {
        [*out] = dots::<L, E, 1>([&rows[(done + r) * k..][..k]], x);
    }
}

/// The dot products of some rows with `x`; all slices have its length.
#[inline(always)]
fn dots<L: Lanes, E: Element, const N: usize>(rows: [&[E]; N], x: &[f32]) -> [f32; N] {
    let (xs, x_tail) = x.as_chunks();
    let mut chunks = [&[][..]; N];
    for (chunks, row) in chunks.iter_mut().zip(rows) {
        // One check of the length here instead of one in every step.
        *chunks = &row.as_chunks().0[..xs.len()];
    }
    let mut sums = [L::splat(0.0); N];
    for (i, x) in xs.iter().enumerate() {
        let x = L::load(x);
        for (sum, row) in sums.iter_mut().zip(&chunks) {
            // The same place of the row that this lane of the pass takes next.
            prefetch(row[i].as_ptr().wrapping_add(N * xs.len() * 16));
            *sum = sum.add(E::load::<L>(&row[i]).mul(x));
        }
    }
    if !x_tail.is_empty() {
        let x = L::load(&padded(x_tail));
        for (sum, row) in sums.iter_mut().zip(rows) {
            *sum = sum.add(E::load::<L>(&padded(&row[xs.len() * 16..])).mul(x));
        }
    }
    let mut out = [0.0; N];
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = sum.sum();
    }
    out
}

/// Asks for a cache line that will be read soon; any address is allowed.
#[inline(always)]
pub(super) fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of x86-64, and a prefetch accesses nothing.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::float::reduce::dot;
    use crate::float::tests::{LENGTHS, isas, same_on_every_isa, values};

    #[test]
    fn every_row_is_a_dot_product_on_every_isa() {
        for &k in LENGTHS {
            for m in [0, 1, 3, 4, 5, 9] {
                let x = values(k, 1);
                let half: Vec<f16> = values(m * k, 2).into_iter().map(f16::from_f32).collect();
                let wide: Vec<f32> = half.iter().map(|w| w.to_f32()).collect();
                let brief: Vec<bf16> = half.iter().map(|w| bf16::from_f32(w.to_f32())).collect();
                let as_wide: Vec<f32> = brief.iter().map(|w| w.to_f32()).collect();
                for isa in isas() {
                    let (mut from_brief, mut from_as_wide) = (vec![0.0; m], vec![0.0; m]);
                    rows_bf16(isa, &brief, &x, &mut from_brief);
                    rows_f32(isa, &as_wide, &x, &mut from_as_wide);
                    assert_eq!(from_brief, from_as_wide);
                    let (mut from_half, mut from_wide) = (vec![0.0; m], vec![0.0; m]);
                    rows_f16(isa, &half, &x, &mut from_half);
                    rows_f32(isa, &wide, &x, &mut from_wide);
                    let dots: Vec<f32> =
                        (0..m).map(|r| dot(isa, &wide[r * k..][..k], &x)).collect();
                    assert_eq!(from_half, dots);
                    assert_eq!(from_wide, dots);
                }
                same_on_every_isa(|isa| {
                    let mut out = vec![0.0; m];
                    rows_f16(isa, &half, &x, &mut out);
                    out
                });
            }
        }
    }
}
