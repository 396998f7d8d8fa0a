//! Token tiles: the activations of a few tokens, side by side, as gemm kernels read them.
//!
//! Lanes are tokens. For [`PanelForm::Indices`] the inputs of each group follow each other, one row of
//! tokens per input; for [`PanelForm::Codes`] each four inputs of a token stay together. Tokens that a
//! tile lacks, and inputs beyond K, are 0.

use crate::panel::PanelForm;
use crate::{Activations, AlignedBytes};

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
    /// When there is no token, there are too many, their lengths differ, or `tokens` is not a multiple of 4.
    pub fn arrange<'a, I>(&mut self, form: PanelForm, tokens: usize, inputs: I)
    where
        I: ExactSizeIterator<Item = &'a Activations> + Clone,
    {
        let k = inputs.clone().next().expect("a tile has a token").q().len();
        assert!(inputs.len() <= tokens && tokens.is_multiple_of(4), "{} tokens", inputs.len());
        assert!(inputs.clone().all(|a| a.q().len() == k), "tokens differ in their length");
        (self.form, self.k) = (Some((form, tokens)), k);
        let bytes = form.tile_bytes(tokens, k);
        if self.bytes.len() != bytes {
            self.bytes.resize(bytes);
        }
        self.sums.clear();
        self.sums.extend(inputs.clone().map(Activations::sum));
        self.sums.resize(tokens, 0);
        let count = inputs.len();
        if count < tokens || form.inputs(k) > k {
            self.bytes.fill(0);
        }
        match form {
            PanelForm::Codes => self.by_fours(tokens, inputs),
            PanelForm::Indices { group, .. } => self.by_groups(group, tokens, inputs),
        }
    }

    /// Each four inputs of each token.
    fn by_fours<'a>(&mut self, tokens: usize, inputs: impl Iterator<Item = &'a Activations>) {
        let (fours, _) = self.bytes.as_chunks_mut::<4>();
        for (token, activations) in inputs.enumerate() {
            let q = padded(activations);
            for (out, q) in fours[token..].iter_mut().step_by(tokens).zip(q.as_chunks::<4>().0) {
                *out = *q;
            }
        }
    }

    /// Input `i` of group `j` of planes `m`, for all tokens: a transposition of bytes, 8 by 8.
    fn by_groups<'a, I>(&mut self, group: usize, tokens: usize, inputs: I)
    where
        I: Iterator<Item = &'a Activations>,
    {
        let planes = self.k.div_ceil(32);
        let mut inputs = inputs.peekable();
        let mut first = 0;
        while inputs.peek().is_some() {
            let none: &[u8] = &[];
            let mut eight = [none; 8];
            // Filled one by one: an iterator that has ended leaves the rest empty, which reads as 0.
            for (slot, activations) in eight.iter_mut().zip(inputs.by_ref()) {
                *slot = padded(activations);
            }
            for plane in 0..planes {
                let (m, i) = (plane / group, plane % group);
                for part in 0..4 {
                    let from = plane * 32 + part * 8;
                    let block = eight.map(|q| {
                        q.get(from..from + 8)
                            .map_or(0, |q| u64::from_le_bytes(q.try_into().expect("8 bytes")))
                    });
                    for (j, row) in transposed(block).into_iter().enumerate() {
                        let at = ((m * 32 + part * 8 + j) * group + i) * tokens + first;
                        let width = (tokens - first).min(8);
                        self.bytes[at..at + width].copy_from_slice(&row.to_le_bytes()[..width]);
                    }
                }
            }
            first += 8;
        }
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

/// Rows become columns: byte `j` of word `i` goes to byte `i` of word `j`.
#[inline(always)]
fn transposed(mut words: [u64; 8]) -> [u64; 8] {
    // Blocks of 4, then 2, then 1 bytes change places across the diagonal.
    for (step, bits, mask) in [
        (4, 32, 0x0000_0000_ffff_ffffu64),
        (2, 16, 0x0000_ffff_0000_ffff),
        (1, 8, 0x00ff_00ff_00ff_00ff),
    ] {
        for low in (0..8).filter(|i| i & step == 0) {
            let (a, b) = (words[low], words[low + step]);
            words[low] = a & mask | (b & mask) << bits;
            words[low + step] = a >> bits & mask | b & !mask;
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let mut tile = TokenTile::new();
        for (count, room, k) in [(32, 32, 256), (5, 8, 100), (4, 4, 33), (1, 16, 1), (9, 64, 300)] {
            let tokens = tokens(count, k);
            let value = |token: usize, input: usize| {
                tokens.get(token).and_then(|a| a.q().get(input)).copied().unwrap_or(0)
            };
            for form in [
                PanelForm::Codes,
                PanelForm::Indices { group: 3, tables: 4 },
                PanelForm::Indices { group: 4, tables: 8 },
                PanelForm::Indices { group: 5, tables: 2 },
            ] {
                tile.arrange(form, room, tokens.iter());
                let width = if form == PanelForm::Codes { 4 } else { 1 };
                for (at, &byte) in tile.bytes().iter().enumerate() {
                    let token = at / width % room;
                    let input = match form {
                        PanelForm::Codes => at / width / room * 4 + at % 4,
                        PanelForm::Indices { group, .. } => {
                            let (n, i) = (at / room / group, at / room % group);
                            32 * (group * (n / 32) + i) + n % 32
                        }
                    };
                    assert_eq!(byte as i8, value(token, input), "{form:?} {count} {k} at {at}");
                }
                let sums: Vec<i32> =
                    (0..room).map(|t| (0..k).map(|i| i32::from(value(t, i))).sum()).collect();
                assert_eq!(tile.sums(), sums);
            }
        }
    }
}
