//! Operations on each element by itself.

use super::{Lanes, instantiate, padded};
use half::f16;

instantiate! {
    /// `x[i] += y[i]`.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn add(x: &mut [f32], y: &[f32]) = add_body;

    /// `x[i] *= factor`.
    pub fn scale(x: &mut [f32], factor: f32) = scale_body;

    /// `gate[i] = (relu(gate[i]) * relu(gate[i])) * up[i]`.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn relu2_mul(gate: &mut [f32], up: &[f32]) = relu2_mul_body;

    /// `out[i] = x[i]`, which is exact.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn widen_f16(x: &[f16], out: &mut [f32]) = widen_f16_body;

    /// `out[i] = x[i]`, rounded to nearest even.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn narrow_f16(x: &[f32], out: &mut [f16]) = narrow_f16_body;
}

/// Replaces each chunk of `x`, given the chunk of `y` at the same place.
#[inline(always)]
fn update<L: Lanes>(x: &mut [f32], y: &[f32], f: impl Fn(L, L) -> L) {
    assert_eq!(x.len(), y.len());
    let ((xs, x_tail), (ys, y_tail)) = (x.as_chunks_mut(), y.as_chunks());
    for (x, y) in xs.iter_mut().zip(ys) {
        f(L::load(x), L::load(y)).store(x);
    }
    if !x_tail.is_empty() {
        let mut last = [0.0; 16];
        f(L::load(&padded(x_tail)), L::load(&padded(y_tail))).store(&mut last);
        x_tail.copy_from_slice(&last[..x_tail.len()]);
    }
}

#[inline(always)]
fn add_body<L: Lanes>(x: &mut [f32], y: &[f32]) {
    update(
        x,
        y,
        #[inline(always)]
        |x: L, y| x.add(y),
    );
}

#[inline(always)]
fn scale_body<L: Lanes>(x: &mut [f32], factor: f32) {
    let factor = L::splat(factor);
    let (chunks, tail) = x.as_chunks_mut();
    for x in chunks {
        L::load(x).mul(factor).store(x);
    }
    let mut last = [0.0; 16];
    L::load(&padded(tail)).mul(factor).store(&mut last);
    tail.copy_from_slice(&last[..tail.len()]);
}

#[inline(always)]
fn relu2_mul_body<L: Lanes>(gate: &mut [f32], up: &[f32]) {
    update(
        gate,
        up,
        #[inline(always)]
        |gate: L, up| {
            let relu = gate.max(L::splat(0.0));
            relu.mul(relu).mul(up)
        },
    );
}

#[inline(always)]
fn widen_f16_body<L: Lanes>(x: &[f16], out: &mut [f32]) {
    assert_eq!(x.len(), out.len());
    let ((xs, x_tail), (outs, out_tail)) = (x.as_chunks(), out.as_chunks_mut());
    for (x, out) in xs.iter().zip(outs) {
        L::widen(x).store(out);
    }
    let mut last = [0.0; 16];
    L::widen(&padded(x_tail)).store(&mut last);
    out_tail.copy_from_slice(&last[..out_tail.len()]);
}

#[inline(always)]
fn narrow_f16_body<L: Lanes>(x: &[f32], out: &mut [f16]) {
    assert_eq!(x.len(), out.len());
    let ((xs, x_tail), (outs, out_tail)) = (x.as_chunks(), out.as_chunks_mut());
    for (x, out) in xs.iter().zip(outs) {
        L::load(x).narrow(out);
    }
    let mut last = [f16::ZERO; 16];
    L::load(&padded(x_tail)).narrow(&mut last);
    out_tail.copy_from_slice(&last[..out_tail.len()]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::float::tests::{LENGTHS, isas, same_on_every_isa, values};

    #[test]
    fn the_same_on_every_isa() {
        for &n in LENGTHS {
            let (x, y) = (values(n, 1), values(n, 2));
            same_on_every_isa(|isa| {
                let (mut sum, mut scaled, mut gated) = (x.clone(), x.clone(), x.clone());
                add(isa, &mut sum, &y);
                scale(isa, &mut scaled, 0.3);
                relu2_mul(isa, &mut gated, &y);
                for i in 0..n {
                    assert_eq!(sum[i], x[i] + y[i]);
                    assert_eq!(scaled[i], x[i] * 0.3);
                    assert_eq!(gated[i], x[i].max(0.0) * x[i].max(0.0) * y[i]);
                }
                [sum, scaled, gated].concat()
            });
        }
    }

    #[test]
    fn every_half_survives_the_round_trip() {
        let halves: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).filter(|h| !h.is_nan()).collect();
        for isa in isas() {
            let mut wide = vec![0.0; halves.len()];
            widen_f16(isa, &halves, &mut wide);
            assert!(halves.iter().zip(&wide).all(|(h, w)| h.to_f32().to_bits() == w.to_bits()));
            let mut back = vec![f16::ZERO; halves.len()];
            narrow_f16(isa, &wide, &mut back);
            assert!(halves.iter().zip(&back).all(|(h, b)| h.to_bits() == b.to_bits()));
        }
    }

    #[test]
    fn narrowing_rounds_to_nearest_even() {
        // Every float exponent, with mantissas around the ties of f16.
        let mantissas = [0, 1, 0xFFF, 0x1000, 0x1001, 0x2FFF, 0x3000, 0x3001, 0x7F_FFFF];
        let x: Vec<f32> = (0..255u32)
            .flat_map(|e| mantissas.map(|m| f32::from_bits(e << 23 | m)))
            .flat_map(|x| [x, -x])
            .collect();
        for isa in isas() {
            let mut out = vec![f16::ZERO; x.len()];
            narrow_f16(isa, &x, &mut out);
            for (x, out) in x.iter().zip(out) {
                assert_eq!(f16::from_f32_const(*x).to_bits(), out.to_bits(), "{x:e}");
            }
        }
    }
}
