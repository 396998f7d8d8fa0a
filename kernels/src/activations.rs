//! One token's activations, in the forms that kernels read.

use crate::AlignedBytes;
use crate::packed::Tl2Split;

/// The form in which a kernel reads activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Activation {
    /// The int8 values, padded with 0 to whole pairs of blocks of 128 and of 160.
    Plain,
    /// TL1: per pair a table of 16 int16 sums (9 used) as 16 low bytes then 16 high bytes.
    PairTables,
    /// TL2: per triple a table of 16 int16 sums (14 used), then pair tables for the tail, as above.
    TripleTables,
    /// For 64-byte vectors over I2_S: of every two 128-value blocks, 32 values of the first, 32 of the
    /// second, and so on.
    WideI2s,
    /// For 64-byte vectors over base 3: the same with 160-value blocks.
    WideBase3,
}

impl Activation {
    /// Every form.
    pub const ALL: &[Self] =
        &[Self::Plain, Self::PairTables, Self::TripleTables, Self::WideI2s, Self::WideBase3];

    /// Bytes of the prepared form of `k` activations.
    pub const fn bytes(self, k: usize) -> usize {
        let (i2s, base3) = (k.next_multiple_of(256), k.next_multiple_of(320));
        match self {
            Self::Plain if i2s > base3 => i2s,
            Self::Plain | Self::WideBase3 => base3,
            Self::WideI2s => i2s,
            Self::PairTables => k.next_multiple_of(4) / 2 * 32,
            Self::TripleTables => {
                let Tl2Split { three, two } = Tl2Split::of(k);
                three / 3 * 32 + two / 2 * 32
            }
        }
    }
}

/// One token's quantised activations and the prepared forms made of them so far.
#[derive(Debug, Clone, Default)]
pub struct Activations {
    k: usize,
    sum: i32,
    /// By position in [`Activation::ALL`].
    forms: [AlignedBytes; Activation::ALL.len()],
    /// Which forms are current.
    ready: [bool; Activation::ALL.len()],
}

impl Activations {
    /// Empty activations; buffers grow on first use and are kept.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one token's int8 activations; earlier prepared forms are forgotten.
    pub fn set(&mut self, q: &[i8]) {
        self.begin(q.len()).copy_from_slice(q);
        self.finish(q.iter().map(|&q| i32::from(q)).sum());
    }

    /// Quantises one token's float activations in place of [`Activations::set`]; returns `amax`.
    /// Bit for bit [`crate::reference::quantise`], on every ISA.
    pub fn quantise(&mut self, isa: crate::Supported, x: &[f32]) -> f32 {
        let amax = crate::quantise::quantise(isa, x, self.begin(x.len()));
        self.finish(crate::quantise::sum(isa, self.q()));
        amax
    }

    /// Norms a token's activations into `normed` and quantises them; returns the mean square of `x` and
    /// `amax`: [`crate::quantise::norm_and_quantise`].
    pub fn norm_and_quantise(
        &mut self,
        isa: crate::Supported,
        x: &[f32],
        weight: &[f32],
        eps: f32,
        normed: &mut [f32],
    ) -> (f32, f32) {
        let q = self.begin(x.len());
        let both = crate::quantise::norm_and_quantise(isa, x, weight, eps, normed, q);
        self.finish(crate::quantise::sum(isa, self.q()));
        both
    }

    /// Resizes the plain buffer for `k` values, zeroes its padding and lends the values.
    fn begin(&mut self, k: usize) -> &mut [i8] {
        let bytes = Activation::Plain.bytes(k);
        let plain = &mut self.forms[Activation::Plain as usize];
        if plain.len() != bytes {
            plain.resize(bytes);
        }
        self.k = k;
        plain[k..].fill(0);
        as_i8_mut(&mut plain[..k])
    }

    /// Keeps the new values' sum and marks the plain form as the only current one.
    fn finish(&mut self, sum: i32) {
        self.sum = sum;
        self.ready = [false; Activation::ALL.len()];
        self.ready[Activation::Plain as usize] = true;
    }

    /// The int8 values.
    pub fn q(&self) -> &[i8] {
        as_i8(&self.forms[Activation::Plain as usize][..self.k])
    }

    /// The exact sum of the values.
    pub fn sum(&self) -> i32 {
        self.sum
    }

    /// Builds a prepared form from the current values, unless it is there already.
    pub fn prepare(&mut self, form: Activation) {
        if self.ready[form as usize] {
            return;
        }
        let bytes = form.bytes(self.k);
        let mut out = std::mem::take(&mut self.forms[form as usize]);
        if out.len() != bytes {
            out.resize(bytes);
        }
        let plain = &self.forms[Activation::Plain as usize];
        match form {
            Activation::Plain => unreachable!("the plain form is always ready"),
            Activation::PairTables => write_tables(&mut out, as_i8(plain), 0),
            Activation::TripleTables => {
                write_tables(&mut out, as_i8(plain), Tl2Split::of(self.k).three);
            }
            Activation::WideI2s => interleave_blocks::<128>(&mut out, plain),
            Activation::WideBase3 => interleave_blocks::<160>(&mut out, plain),
        }
        self.forms[form as usize] = out;
        self.ready[form as usize] = true;
    }

    /// A prepared form of `k` values, if that is what is held and prepared.
    pub fn get(&self, form: Activation, k: usize) -> Option<&[u8]> {
        (self.k == k && self.ready[form as usize]).then_some(&*self.forms[form as usize])
    }
}

/// Tables of the first `three` values in triples, then of the rest in pairs. Reading a little past k is
/// reading zeros: `q` is padded.
fn write_tables(out: &mut [u8], q: &[i8], three: usize) {
    let (triples, pairs) = out.split_at_mut(three / 3 * 32);
    for (table, q) in triples.chunks_exact_mut(32).zip(q.chunks_exact(3)) {
        write_table(table, &triple_sums(q[0].into(), q[1].into(), q[2].into()));
    }
    let tail = pairs.len() / 32 * 2;
    let mut padded = [0i8; 8];
    let q = match q.get(three..three + tail) {
        Some(q) => q,
        None => {
            padded[..q.len() - three].copy_from_slice(&q[three..]);
            &padded[..tail]
        }
    };
    for (table, q) in pairs.chunks_exact_mut(32).zip(q.chunks_exact(2)) {
        write_table(table, &pair_sums(q[0].into(), q[1].into()));
    }
}

/// Of every two blocks of `BLOCK` values, 32 values of one and of the other in turn.
fn interleave_blocks<const BLOCK: usize>(out: &mut [u8], q: &[u8]) {
    for (out, pair) in out.chunks_exact_mut(2 * BLOCK).zip(q.chunks_exact(2 * BLOCK)) {
        let (first, second) = pair.split_at(BLOCK);
        let planes = first.chunks_exact(32).zip(second.chunks_exact(32));
        for (out, (first, second)) in out.chunks_exact_mut(64).zip(planes) {
            out[..32].copy_from_slice(first);
            out[32..].copy_from_slice(second);
        }
    }
}

/// Entry `3 * (t0 + 1) + (t1 + 1)` is `t0 * a + t1 * b`; |entry| <= 256.
pub(crate) fn pair_sums(a: i16, b: i16) -> [i16; 16] {
    [-a - b, -a, -a + b, -b, 0, b, a - b, a, a + b, 0, 0, 0, 0, 0, 0, 0]
}

/// Entry `v = 9 t0 + 3 t1 + t2` in 0..=13 is `t0 * a + t1 * b + t2 * c`; |entry| <= 384.
pub(crate) fn triple_sums(a: i16, b: i16, c: i16) -> [i16; 16] {
    [
        0,
        c,
        b - c,
        b,
        b + c,
        a - b - c,
        a - b,
        a - b + c,
        a - c,
        a,
        a + c,
        a + b - c,
        a + b,
        a + b + c,
        0,
        0,
    ]
}

/// Writes 16 int16 sums as 16 low bytes, then 16 high bytes.
fn write_table(table: &mut [u8], sums: &[i16; 16]) {
    let (low, high) = table.split_at_mut(16);
    for ((low, high), sum) in low.iter_mut().zip(high).zip(sums) {
        [*low, *high] = sum.to_le_bytes();
    }
}

fn as_i8(bytes: &[u8]) -> &[i8] {
    // SAFETY: u8 and i8 have the same size, alignment and validity.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) }
}

fn as_i8_mut(bytes: &mut [u8]) -> &mut [i8] {
    // SAFETY: as in `as_i8`; the borrow is unique.
    unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len()) }
}
