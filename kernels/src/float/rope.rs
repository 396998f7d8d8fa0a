//! Rotary position embedding: every dimension turns together with another one.

use super::{Lanes, instantiate, padded};

/// Which dimensions turn together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Dimension `i` with dimension `i + half`, as in GPT-NeoX and most models of today.
    Neox,
    /// Dimension `2 i` with dimension `2 i + 1`, as in files of Llama models.
    Interleaved,
}

/// The cosines and sines of the positions in use, computed in float64 by a pure-Rust library and rounded
/// once, so that they are the same on every platform.
#[derive(Debug, Clone)]
pub struct Rope {
    half: usize,
    form: Form,
    /// The angle between two positions, by dimension: half
    frequencies: Vec<f64>,
    /// positions x half
    cos: Vec<f32>,
    /// positions x half
    sin: Vec<f32>,
}

impl Rope {
    /// Tables of the NEOX form for `positions` positions that turn the first `dims` dimensions of a head (an even
    /// number; the last one is left alone otherwise) by `position * base^(-2 i / dims)`.
    pub fn new(positions: usize, dims: usize, base: f64) -> Self {
        let half = dims / 2;
        let frequency = |i| libm::pow(base, -2.0 * i as f64 / dims as f64);
        let frequencies = (0..half).map(frequency).collect();
        let form = Form::Neox;
        let mut rope = Self { half, form, frequencies, cos: Vec::new(), sin: Vec::new() };
        rope.grow(positions);
        rope
    }

    /// The same tables for another form.
    pub fn form(mut self, form: Form) -> Self {
        self.form = form;
        self
    }

    /// Adds what is missing up to `positions` positions.
    pub fn grow(&mut self, positions: usize) {
        for position in self.positions()..positions {
            let angles = self.frequencies.iter().map(|f| position as f64 * f);
            self.cos.extend(angles.clone().map(|a| libm::cos(a) as f32));
            self.sin.extend(angles.map(|a| libm::sin(a) as f32));
        }
    }

    /// The number of positions in the tables.
    pub fn positions(&self) -> usize {
        self.cos.len().checked_div(self.half).unwrap_or(usize::MAX)
    }

    /// Turns one head's vector at `position`.
    ///
    /// # Panics
    /// When the position is not in the tables or `head` has fewer dimensions than they turn.
    pub fn rotate(&self, isa: crate::Supported, position: usize, head: &mut [f32]) {
        let row = position * self.half..(position + 1) * self.half;
        let (cos, sin) = (&self.cos[row.clone()], &self.sin[row]);
        let head = &mut head[..2 * self.half];
        match self.form {
            Form::Neox => {
                let (low, high) = head.split_at_mut(self.half);
                turn(isa, cos, sin, low, high);
            }
            Form::Interleaved => turn_pairs(isa, cos, sin, head),
        }
    }
}

instantiate! {
    /// `(low[i], high[i]) = (low[i] * cos[i] - high[i] * sin[i], low[i] * sin[i] + high[i] * cos[i])`.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn turn(cos: &[f32], sin: &[f32], low: &mut [f32], high: &mut [f32]) = turn_body;

    /// The same of `low[i] = pairs[2 * i]` and `high[i] = pairs[2 * i + 1]`.
    ///
    /// # Panics
    /// When there are not as many pairs as cosines and sines.
    pub fn turn_pairs(cos: &[f32], sin: &[f32], pairs: &mut [f32]) = turn_pairs_body;
}

#[inline(always)]
fn turn_pairs_body<L: Lanes>(cos: &[f32], sin: &[f32], pairs: &mut [f32]) {
    let (mut low, mut high) = ([0.0; 16], [0.0; 16]);
    assert_eq!(pairs.len(), 2 * cos.len());
    let chunks = cos.chunks(16).zip(sin.chunks(16)).zip(pairs.chunks_mut(32));
    for ((cos, sin), pairs) in chunks {
        let (low, high) = (&mut low[..cos.len()], &mut high[..cos.len()]);
        for (pair, (low, high)) in pairs.chunks_exact(2).zip(low.iter_mut().zip(&mut *high)) {
            (*low, *high) = (pair[0], pair[1]);
        }
        turn_body::<L>(cos, sin, low, high);
        for (pair, (low, high)) in pairs.chunks_exact_mut(2).zip(low.iter().zip(&*high)) {
            (pair[0], pair[1]) = (*low, *high);
        }
    }
}

#[inline(always)]
fn turn_body<L: Lanes>(cos: &[f32], sin: &[f32], low: &mut [f32], high: &mut [f32]) {
    let n = cos.len();
    assert!(sin.len() == n && low.len() == n && high.len() == n);
    for at in (0..n).step_by(16) {
        let end = n.min(at + 16);
        // No closure: it would not have the target features, and its loads would be calls.
        let (cos, sin) = (L::load(&padded(&cos[at..end])), L::load(&padded(&sin[at..end])));
        let (a, b) = (L::load(&padded(&low[at..end])), L::load(&padded(&high[at..end])));
        let mut chunk = [0.0; 16];
        a.mul(cos).sub(b.mul(sin)).store(&mut chunk);
        low[at..end].copy_from_slice(&chunk[..end - at]);
        a.mul(sin).add(b.mul(cos)).store(&mut chunk);
        high[at..end].copy_from_slice(&chunk[..end - at]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::float::tests::{isas, same_on_every_isa, values};

    #[test]
    fn the_same_on_every_isa() {
        for dims in [2, 6, 32, 34, 96, 100, 128] {
            let rope = Rope::new(50, dims, 500_000.0);
            assert_eq!(rope.positions(), 50);
            let mut grown = Rope::new(0, dims, 500_000.0);
            for positions in [3, 2, 50] {
                grown.grow(positions);
            }
            assert_eq!((&grown.cos, &grown.sin), (&rope.cos, &rope.sin));
            same_on_every_isa(|isa| {
                let mut head = values(dims + 3, 1);
                rope.rotate(isa, 49, &mut head);
                assert_eq!(head[dims..], values(dims + 3, 1)[dims..]);
                head
            });
        }
    }

    #[test]
    fn interleaved_pairs_turn_as_halves_do() {
        for dims in [2, 34, 100, 128] {
            let rope = Rope::new(50, dims, 10_000.0);
            let before = values(dims + 2, 3);
            same_on_every_isa(|isa| {
                let (mut pairs, mut halves) = (before.clone(), before.clone());
                for i in 0..dims / 2 {
                    (halves[i], halves[i + dims / 2]) = (before[2 * i], before[2 * i + 1]);
                }
                rope.clone().form(Form::Interleaved).rotate(isa, 17, &mut pairs);
                rope.rotate(isa, 17, &mut halves);
                for i in 0..dims / 2 {
                    assert_eq!(pairs[2 * i..][..2], [halves[i], halves[i + dims / 2]]);
                }
                assert_eq!(pairs[dims..], before[dims..]);
                pairs
            });
        }
    }

    #[test]
    fn position_zero_changes_nothing_and_lengths_are_kept() {
        let rope = Rope::new(2000, 64, 10_000.0);
        let before = values(64, 2);
        let norm = |x: &[f32]| x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
        let mut head = before.clone();
        rope.rotate(isas()[0], 0, &mut head);
        assert_eq!(head, before);
        rope.rotate(isas()[0], 1999, &mut head);
        assert!((norm(&head) / norm(&before) - 1.0).abs() < 1e-6);
        assert_ne!(head, before);
    }
}
