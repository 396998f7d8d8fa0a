//! Token tiles: the activations of a few tokens, side by side, as gemm kernels read them.
//!
//! Lanes are tokens. For [`PanelForm::Indices`] the inputs of each group follow each other, one row of
//! tokens per input; for [`PanelForm::Codes`] each four inputs of a token stay together, for
//! [`PanelForm::Eights`] each eight; [`PanelForm::Mixed`] has rows and fours in turn. Tokens that a tile
//! lacks, and inputs beyond K, are 0.

use crate::float::{Lanes, instantiate};
use crate::panel::PanelForm;
use crate::transpose::{transposed, transposed_bytes};
use crate::{Activations, AlignedBytes, Supported};
use std::ops::Range;

/// The activations of up to a kernel's number of tokens. Buffers grow on first use and are kept.
#[derive(Debug, Clone, Default)]
pub struct TokenTile {
    form: Option<(PanelForm, usize)>,
    k: usize,
    bytes: AlignedBytes,
    sums: Vec<i32>,
}

impl TokenTile {
    /// An empty tile.
    pub fn new() -> Self {
        Self::default()
    }

    /// Arranges the activations of some tokens, at most `tokens`, all with the same number of inputs.
    ///
    /// # Panics
    /// When there is no token or no input, there are too many tokens, their lengths differ, or `tokens` is
    /// not a multiple of 4.
    pub fn arrange<'a, I>(&mut self, isa: Supported, form: PanelForm, tokens: usize, inputs: I)
    where
        I: ExactSizeIterator<Item = &'a Activations> + Clone,
    {
        let k = inputs.clone().next().expect("a tile has a token").q().len();
        assert!(k > 0, "a token has inputs");
        assert!(inputs.len() <= tokens && tokens.is_multiple_of(4), "{} tokens", inputs.len());
        assert!(inputs.clone().all(|a| a.q().len() == k), "tokens differ in their length");
        (self.form, self.k) = (Some((form, tokens)), k);
        let bytes = form.tile_bytes(tokens, k);
        if self.bytes.len() != bytes {
            self.bytes.resize(bytes);
        }
        if inputs.len() < tokens || form.inputs(k) > k {
            self.bytes.fill(0);
        }
        self.sums.clear();
        self.sums.extend(inputs.clone().map(Activations::sum));
        let inputs: Vec<&[u8]> = inputs.map(padded).collect();
        lay_out(isa, self, form, tokens, &inputs);
        self.sums.resize(tokens, 0);
    }

    /// Panel form and tokens that it was arranged for; `None` while it is empty.
    pub fn form(&self) -> Option<(PanelForm, usize)> {
        self.form
    }

    /// Inputs of a token.
    pub fn k(&self) -> usize {
        self.k
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn sums(&self) -> &[i32] {
        &self.sums
    }
}

/// A token's int8 values as bytes, with zeros up to a multiple of 32 at least.
fn padded(activations: &Activations) -> &[u8] {
    activations.get(crate::Activation::Plain, activations.q().len()).expect("always there")
}

instantiate! {
    /// Puts the inputs of all tokens where the form has them. Integers alone: the lanes say which
    /// instructions the compiler may use.
    fn lay_out(tile: &mut TokenTile, form: PanelForm, tokens: usize, inputs: &[&[u8]]) = lay_out_body;
}

#[inline(always)]
fn lay_out_body<L: Lanes>(tile: &mut TokenTile, form: PanelForm, tokens: usize, inputs: &[&[u8]]) {
    let (k, bytes) = (tile.k, &mut *tile.bytes);
    match form {
        PanelForm::Codes => fours(inputs, tokens, 0..form.inputs(k), bytes),
        PanelForm::Eights => blocks::<8>(inputs, 0, tokens, 0..form.inputs(k), bytes),
        PanelForm::Indices { group, .. } => {
            for from in (0..k).step_by(8) {
                let (plane, j) = (from / 32, from % 32);
                let first = (plane / group * 32 + j) * group + plane % group;
                rows(inputs, tokens, from, (first, group), bytes);
            }
        }
        PanelForm::Mixed { tables, steps } => {
            let (looked_up, all) = (4 * tables, 4 * (tables + steps));
            for start in (0..form.inputs(k)).step_by(all) {
                let middle = start + looked_up;
                for from in (start..middle).step_by(8) {
                    rows(inputs, tokens, from, (from, 1), bytes);
                    // Only codes need their inputs' sum.
                    for (sum, q) in tile.sums.iter_mut().zip(inputs) {
                        let q = q.get(from..from + 8).unwrap_or_default();
                        *sum -= q.iter().map(|&q| i32::from(q as i8)).sum::<i32>();
                    }
                }
                fours(inputs, tokens, middle..start + all, bytes);
            }
        }
    }
}

/// Each four of a range of inputs of each token, 16 tokens and 64 inputs at a time as far as that goes: four
/// bytes are moved as one f32, whatever it may stand for.
#[inline(always)]
fn fours(inputs: &[&[u8]], tokens: usize, range: Range<usize>, bytes: &mut [u8]) {
    for (at, inputs) in (0..).step_by(16).zip(inputs.chunks(16)) {
        let mut start = range.start;
        if let Ok(inputs) = <&[&[u8]; 16]>::try_from(inputs) {
            let shortest = inputs.iter().map(|q| q.len()).min().unwrap_or_default();
            while start + 64 <= range.end.min(shortest) {
                let mut block = [[0.0; 16]; 16];
                for (fours, q) in block.iter_mut().zip(inputs) {
                    for (four, q) in fours.iter_mut().zip(q[start..start + 64].as_chunks().0) {
                        *four = f32::from_ne_bytes(*q);
                    }
                }
                for (step, fours) in transposed(&block).iter().enumerate() {
                    let out = &mut bytes[(start + 4 * step) * tokens + 4 * at..][..64];
                    for (out, four) in out.as_chunks_mut().0.iter_mut().zip(fours) {
                        *out = four.to_ne_bytes();
                    }
                }
                start += 64;
            }
        }
        blocks::<4>(inputs, at, tokens, start..range.end, bytes);
    }
}

/// Each `N` of a range of inputs of each token, the first of which is token `at` of the tile.
#[inline(always)]
fn blocks<const N: usize>(
    inputs: &[&[u8]],
    at: usize,
    tokens: usize,
    range: Range<usize>,
    bytes: &mut [u8],
) {
    let (out, _) = bytes[range.start * tokens..range.end * tokens].as_chunks_mut::<N>();
    for (token, q) in (at..).zip(inputs) {
        let q = q.get(range.start..range.end.min(q.len())).unwrap_or_default();
        let out = out.get_mut(token..).unwrap_or_default();
        for (out, q) in out.iter_mut().step_by(tokens).zip(q.as_chunks::<N>().0) {
            *out = *q;
        }
    }
}

/// Eight inputs from `from` on, for all tokens, to rows of tokens: the first row and the distance of the
/// others. A transposition of bytes, 8 by 8.
#[inline(always)]
fn rows(
    inputs: &[&[u8]],
    tokens: usize,
    from: usize,
    (first, stride): (usize, usize),
    bytes: &mut [u8],
) {
    for (eight, inputs) in inputs.chunks(8).enumerate() {
        let mut block = [0; 8];
        for (word, q) in block.iter_mut().zip(inputs) {
            // Beyond the padding there are only inputs that do not exist.
            let q = q.get(from..from + 8).and_then(|q| q.try_into().ok());
            *word = q.map_or(0, u64::from_le_bytes);
        }
        for (j, row) in transposed_bytes(block).into_iter().enumerate() {
            let at = (first + j * stride) * tokens + eight * 8;
            let width = (tokens - eight * 8).min(8);
            bytes[at..at + width].copy_from_slice(&row.to_le_bytes()[..width]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::float::tests::isas;

    fn tokens(count: usize, k: usize) -> Vec<Activations> {
        let token = |t: usize| {
            let mut activations = Activations::new();
            activations.set(&(0..k).map(|i| (i * 31 + t * 17) as i8).collect::<Vec<_>>());
            activations
        };
        (0..count).map(token).collect()
    }

    #[test]
    fn every_input_of_every_token_has_its_place() {
        isas().into_iter().for_each(has_its_place);
    }

    fn has_its_place(isa: Supported) {
        let mut tile = TokenTile::new();
        for (count, room, k) in [(32, 32, 256), (5, 8, 100), (4, 4, 33), (1, 16, 1), (9, 64, 300)] {
            let tokens = tokens(count, k);
            let value = |token: usize, input: usize| {
                tokens.get(token).and_then(|a| a.q().get(input)).copied().unwrap_or(0)
            };
            for form in [
                PanelForm::Codes,
                PanelForm::Eights,
                PanelForm::Indices { group: 3, tables: 4 },
                PanelForm::Indices { group: 4, tables: 8 },
                PanelForm::Indices { group: 5, tables: 2 },
                PanelForm::Mixed { tables: 8, steps: 16 },
                PanelForm::Mixed { tables: 4, steps: 4 },
            ] {
                tile.arrange(isa, form, room, tokens.iter());
                // Whether an input is multiplied.
                let is_code = |input: usize| match form {
                    PanelForm::Codes | PanelForm::Eights => true,
                    PanelForm::Indices { .. } => false,
                    PanelForm::Mixed { tables, steps } => {
                        input % (4 * (tables + steps)) >= 4 * tables
                    }
                };
                for (at, &byte) in tile.bytes().iter().enumerate() {
                    let row = at / room;
                    let (token, input) = match form {
                        PanelForm::Indices { group, .. } => {
                            let (n, i) = (row / group, row % group);
                            (at % room, 32 * (group * (n / 32) + i) + n % 32)
                        }
                        PanelForm::Eights => (at / 8 % room, row / 8 * 8 + at % 8),
                        // A step of four inputs takes as many bytes as four rows do.
                        _ if is_code(row) => (at / 4 % room, row / 4 * 4 + at % 4),
                        _ => (at % room, row),
                    };
                    assert_eq!(byte as i8, value(token, input), "{form:?} {count} {k} at {at}");
                }
                let is_summed =
                    |&i: &usize| is_code(i) || matches!(form, PanelForm::Indices { .. });
                let sum = |t| (0..k).filter(is_summed).map(|i| i32::from(value(t, i))).sum();
                let sums: Vec<i32> = (0..room).map(sum).collect();
                assert_eq!(tile.sums(), sums);
            }
        }
    }
}
