//! Operations on each element by itself.

use super::softmax::exp_lanes;
use super::{Lanes, instantiate, padded};
use half::{bf16, f16};

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

    /// `out[i] = x[i]`, which is exact.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn widen_bf16(x: &[bf16], out: &mut [f32]) = widen_bf16_body;

    /// `gate[i] = silu(gate[i]) * up[i]` with `silu(x) = x / (1 + exp(-x))`.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn silu_mul(gate: &mut [f32], up: &[f32]) = silu_mul_body;

    /// `gate[i] = gelu(gate[i]) * up[i]` with the tanh form of GELU,
    /// `gelu(x) = x / (1 + exp(-2 sqrt(2 / pi) (x + 0.044715 x^3)))`.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn gelu_mul(gate: &mut [f32], up: &[f32]) = gelu_mul_body;

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
fn silu_mul_body<L: Lanes>(gate: &mut [f32], up: &[f32]) {
    update(
        gate,
        up,
        #[inline(always)]
        |gate: L, up| sigmoid_gate(gate, L::splat(0.0).sub(gate)).mul(up),
    );
}

#[inline(always)]
fn gelu_mul_body<L: Lanes>(gate: &mut [f32], up: &[f32]) {
    // 2 sqrt(2 / pi)
    const FACTOR: f32 = 1.595_769;
    update(
        gate,
        up,
        #[inline(always)]
        |gate: L, up| {
            let cube = gate.mul(gate).mul(gate).mul(L::splat(0.044_715));
            let inner = gate.add(cube).mul(L::splat(-FACTOR));
            sigmoid_gate(gate, inner).mul(up)
        },
    );
}

/// `x / (1 + exp(y))`.
#[inline(always)]
fn sigmoid_gate<L: Lanes>(x: L, y: L) -> L {
    x.div(exp_lanes(y).add(L::splat(1.0)))
}

#[inline(always)]
fn widen_bf16_body<L: Lanes>(x: &[bf16], out: &mut [f32]) {
    assert_eq!(x.len(), out.len());
    for (x, out) in x.iter().zip(out) {
        *out = f32::from_bits(u32::from(x.to_bits()) << 16);
    }
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
    fn gates_are_close_to_float64_and_the_same_on_every_isa() {
        for &n in LENGTHS {
            let (x, y) = (values(n, 3), values(n, 4));
            same_on_every_isa(|isa| {
                let (mut silu, mut gelu) = (x.clone(), x.clone());
                silu_mul(isa, &mut silu, &y);
                gelu_mul(isa, &mut gelu, &y);
                for i in 0..n {
                    let (x, y) = (f64::from(x[i]), f64::from(y[i]));
                    let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
                    let exact =
                        [x / (1.0 + libm::exp(-x)) * y, 0.5 * x * (1.0 + libm::tanh(inner)) * y];
                    // A relative error of exp's argument is one of its value times that argument.
                    let bound = 2e-6 * (x * y).abs() + 1e-30;
                    for (ours, exact) in [silu[i], gelu[i]].into_iter().zip(exact) {
                        assert!(
                            (f64::from(ours) - exact).abs() <= bound,
                            "{x} {y}: {ours} {exact}"
                        );
                    }
                }
                [silu, gelu].concat()
            });
        }
    }

    #[test]
    fn gates_far_from_zero_are_the_input_or_nothing() {
        for isa in isas() {
            let mut x = [-1e30, -200.0, -0.0, 0.0, 200.0, 1e30];
            let mut y = x;
            silu_mul(isa, &mut x, &[1.0; 6]);
            gelu_mul(isa, &mut y, &[1.0; 6]);
            for z in [x, y] {
                assert!(z[0].abs() < 1e-7 && z[1].abs() < 1e-30 && z[2..4] == [0.0; 2]);
                assert_eq!(z[4..], [200.0, 1e30]);
            }
            let mut bad = [f32::NAN; 2];
            silu_mul(isa, &mut bad[..1], &[1.0]);
            gelu_mul(isa, &mut bad[1..], &[1.0]);
            assert!(bad.iter().all(|x| x.is_nan()));
        }
    }

    #[test]
    fn brief_floats_are_widened() {
        let brief: Vec<bf16> =
            (0..=u16::MAX).map(bf16::from_bits).filter(|b| !b.is_nan()).collect();
        for isa in isas() {
            let mut wide = vec![0.0; brief.len()];
            widen_bf16(isa, &brief, &mut wide);
            assert!(brief.iter().zip(&wide).all(|(b, w)| b.to_f32().to_bits() == w.to_bits()));
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
