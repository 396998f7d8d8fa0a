//! One token's activations, in the forms that kernels read.

use crate::AlignedBytes;
use crate::packed::Tl2Split;

/// The form in which a kernel reads activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Activation {
    /// The int8 values, padded with 0 to a multiple of 256.
    Plain,
    /// TL1: per pair a table of 16 int16 sums (9 used) as 16 low bytes then 16 high bytes.
    PairTables,
    /// TL2: per triple a table of 16 int16 sums (14 used), then pair tables for the tail, as above.
    TripleTables,
}

impl Activation {
    /// Every form.
    pub const ALL: &[Self] = &[Self::Plain, Self::PairTables, Self::TripleTables];

    /// Bytes of the prepared form of `k` activations.
    pub const fn bytes(self, k: usize) -> usize {
        match self {
            Self::Plain => k.next_multiple_of(256),
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
    plain: AlignedBytes,
    pair: AlignedBytes,
    triple: AlignedBytes,
    /// Which forms are current, by position in [`Activation::ALL`].
    ready: [bool; 3],
}

impl Activations {
    /// Empty activations; buffers grow on first use and are kept.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one token's int8 activations; earlier prepared forms are forgotten.
    pub fn set(&mut self, q: &[i8]) {
        self.begin(q.len()).copy_from_slice(q);
        self.finish();
    }

    /// Quantises one token's float activations in place of [`Activations::set`]; returns `amax`.
    /// Bit for bit [`crate::reference::quantise`], on every ISA.
    pub fn quantise(&mut self, isa: crate::Supported, x: &[f32]) -> f32 {
        let amax = crate::quantise::quantise(isa, x, self.begin(x.len()));
        self.finish();
        amax
    }

    /// Resizes the plain buffer for `k` values, zeroes its padding and lends the values.
    fn begin(&mut self, k: usize) -> &mut [i8] {
        let bytes = Activation::Plain.bytes(k);
        if self.plain.len() != bytes {
            self.plain.resize(bytes);
        }
        self.k = k;
        self.plain[k..].fill(0);
        as_i8_mut(&mut self.plain[..k])
    }

    /// Sums the new values and marks the plain form as the only current one.
    fn finish(&mut self) {
        self.sum = self.q().iter().map(|&q| i32::from(q)).sum();
        self.ready = [true, false, false];
    }

    /// The int8 values.
    pub fn q(&self) -> &[i8] {
        as_i8(&self.plain[..self.k])
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
        let out = match form {
            Activation::Plain => return,
            Activation::PairTables => &mut self.pair,
            Activation::TripleTables => &mut self.triple,
        };
        if out.len() != bytes {
            out.resize(bytes);
        }
        // Reading a little past k is reading zeros: the plain form is padded to 256.
        let q = as_i8(&self.plain);
        let three = match form {
            Activation::TripleTables => Tl2Split::of(self.k).three,
            _ => 0,
        };
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
        self.ready[form as usize] = true;
    }

    /// A prepared form of `k` values, if that is what is held and prepared.
    pub fn get(&self, form: Activation, k: usize) -> Option<&[u8]> {
        let bytes = match form {
            Activation::Plain => &self.plain,
            Activation::PairTables => &self.pair,
            Activation::TripleTables => &self.triple,
        };
        (self.k == k && self.ready[form as usize]).then_some(&**bytes)
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
