//! The root-mean-square norm.

use super::reduce::sum_of_squares_body;
use super::{Lanes, instantiate, padded};

instantiate! {
    /// `out[i] = (x[i] * (1 / sqrt(mean(x^2) + eps))) * weight[i]`, each a single operation in this
    /// order. Returns the mean square, which is not finite when some `x[i]` is not.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) -> f32 = rms_norm_body;
}

#[inline(always)]
fn rms_norm_body<L: Lanes>(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) -> f32 {
    norm_and_visit(
        x,
        weight,
        eps,
        out,
        #[inline(always)]
        |_: L| (),
    )
}

/// [`rms_norm`], which shows what it writes, sixteen values at a time, behind the last ones +0.
#[inline(always)]
pub(crate) fn norm_and_visit<L: Lanes>(
    x: &[f32],
    weight: &[f32],
    eps: f32,
    out: &mut [f32],
    mut visit: impl FnMut(L),
) -> f32 {
    assert!(x.len() == weight.len() && x.len() == out.len());
    let mean = sum_of_squares_body::<L>(x) / x.len().max(1) as f32;
    let factor = L::splat(1.0 / (mean + eps).sqrt());
    let ((xs, x_tail), (ws, w_tail)) = (x.as_chunks(), weight.as_chunks());
    let (outs, out_tail) = out.as_chunks_mut();
    for ((x, w), out) in xs.iter().zip(ws).zip(outs) {
        let normed = L::load(x).mul(factor).mul(L::load(w));
        normed.store(out);
        visit(normed);
    }
    let mut last = [0.0; 16];
    let normed = L::load(&padded(x_tail)).mul(factor).mul(L::load(&padded(w_tail)));
    normed.store(&mut last);
    visit(normed);
    out_tail.copy_from_slice(&last[..out_tail.len()]);
    mean
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::float::tests::{LENGTHS, isas, same_on_every_isa, values};

    #[test]
    fn the_same_on_every_isa() {
        for &n in LENGTHS {
            let (x, w) = (values(n, 1), values(n, 2));
            same_on_every_isa(|isa| {
                let mut out = vec![0.0; n];
                let mean = rms_norm(isa, &x, &w, 1e-5, &mut out);
                out.push(mean);
                out
            });
        }
    }

    #[test]
    fn close_to_float64() {
        let (x, w) = (values(640, 1), values(640, 2));
        let mean = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / 640.0;
        let mut out = vec![0.0; 640];
        rms_norm(isas()[0], &x, &w, 1e-5, &mut out);
        for ((x, w), out) in x.iter().zip(&w).zip(out) {
            let exact = f64::from(*x) * f64::from(*w) / (mean + 1e-5).sqrt();
            assert!((f64::from(out) - exact).abs() <= 1e-6 * exact.abs());
        }
    }
}
