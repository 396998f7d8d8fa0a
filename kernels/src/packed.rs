//! Weights as kernels read them: packing from and unpacking to plain ternary values.
//!
//! | layout | unit | bytes |
//! |---|---|---|
//! | `I2s` | row of K padded to 128 | per 128 weights 32 bytes; byte j holds weights j, j+32, j+64, j+96 from the high bits down, as codes t + 1 |
//! | `Base3` | row of K padded to 160 | per 160 weights 32 bytes; byte j holds weights j, j+32, .. j+128 as digits t + 1 of a base-3 number v, most significant first, stored as ceil(256 v / 243) |
//! | `Tl1` | group of 32 rows | per 4 weights 32 bytes; byte r holds row r's first pair index in its low nibble, the second in its high nibble |
//! | `Tl2` | group of 32 rows | triple indices (32 bytes per 6 weights, nibbles as TL1), sign words (4 bytes per triple, bit r = row r), pair indices as TL1 for the tail; after all groups one i32 per row: its number of negative triples |
//!
//! K is padded to whole units with weight 0 and M to whole groups with rows of zeros; activations are
//! padded with 0. `I2s` with K a multiple of 128 is byte for byte the tensor data of a GGUF file, so
//! such a tensor is executed in place.

use crate::pool::Pool;
use crate::{Activation, AlignedBytes};
use rayon::prelude::*;
use std::sync::{Arc, Mutex};
use trilut_presets::{Format, Shape};

/// The arrangement of packed weights in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Layout {
    /// Rows of 128-weight blocks of 2-bit codes.
    I2s,
    /// 32-row groups of pair indices.
    Tl1,
    /// 32-row groups of triple indices, signs and a pair tail.
    Tl2,
    /// Rows of 160-weight blocks, five base-3 digits to a byte.
    Base3,
}

/// Rows per group of the lookup layouts.
pub(crate) const GROUP: usize = 32;

/// How TL2 divides K: triples for as many whole byte steps (6 weights) as fit, then a pair tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tl2Split {
    /// Number of weights stored as triples, a multiple of 6.
    pub(crate) three: usize,
    /// Number of weights stored as pairs, padded to a multiple of 4; 0, 4 or 8.
    pub(crate) two: usize,
}

impl Tl2Split {
    /// The split of `k` weights.
    pub(crate) const fn of(k: usize) -> Self {
        let three = k / 6 * 6;
        Self { three, two: (k - three).next_multiple_of(4) }
    }
}

impl Layout {
    /// Every layout.
    pub const ALL: &[Self] = &[Self::I2s, Self::Tl1, Self::Tl2, Self::Base3];

    /// The stored codec that this layout arranges.
    pub const fn format(self) -> Format {
        match self {
            Self::I2s => Format::I2S,
            Self::Tl1 => Format::Tl1,
            Self::Tl2 => Format::Tl2,
            Self::Base3 => Format::Base3,
        }
    }

    /// The forms of activations that kernels of this layout read, each kernel one of them.
    pub const fn activations(self) -> &'static [Activation] {
        match self {
            Self::I2s => &[Activation::Plain, Activation::WideI2s],
            Self::Tl1 => &[Activation::PairTables],
            Self::Tl2 => &[Activation::TripleTables],
            Self::Base3 => &[Activation::Plain, Activation::WideBase3],
        }
    }

    /// Weights of a block of 32 bytes, for layouts that store row after row.
    const fn row_block(self) -> Option<usize> {
        match self {
            Self::I2s => Some(128),
            Self::Base3 => Some(160),
            Self::Tl1 | Self::Tl2 => None,
        }
    }

    /// Bytes of one unit: a row (`I2s`, `Base3`) or a group of 32 rows, without TL2's row constants.
    pub const fn unit_bytes(self, k: usize) -> usize {
        match self {
            Self::I2s => k.div_ceil(128) * 32,
            Self::Base3 => k.div_ceil(160) * 32,
            Self::Tl1 => k.div_ceil(4) * GROUP,
            Self::Tl2 => {
                let Tl2Split { three, two } = Tl2Split::of(k);
                three / 6 * GROUP + three / 3 * 4 + two / 4 * GROUP
            }
        }
    }

    /// Bytes of a whole packed matrix.
    pub const fn bytes(self, shape: Shape) -> usize {
        let unit = self.unit_bytes(shape.k);
        let groups = shape.m.div_ceil(GROUP);
        match self {
            Self::I2s | Self::Base3 => shape.m * unit,
            Self::Tl1 => groups * unit,
            Self::Tl2 => groups * (unit + GROUP * 4),
        }
    }
}

/// Weights that cannot be packed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// The number of values or bytes does not match the shape.
    #[error("{shape} needs {wants} {what}, got {given}")]
    Length {
        /// The matrix's size.
        shape: Shape,
        /// What is counted: `weights` or `bytes`.
        what: &'static str,
        /// The count that is needed.
        wants: usize,
        /// The count that was given.
        given: usize,
    },
    /// A value is not -1, 0 or 1.
    #[error("weight {index} is {value}; ternary weights are -1, 0 or 1")]
    NotTernary {
        /// The position in row-major order.
        index: usize,
        /// The value found.
        value: i8,
    },
    /// A 2-bit code is 3, which stands for nothing.
    #[error("weight {index} has code 3; I2_S codes are 0, 1 and 2")]
    Code3 {
        /// The position in file order.
        index: usize,
    },
    /// The flattened file form needs a whole number of 128-weight blocks.
    #[error("{shape} has {} weights, not a multiple of 128: I2_S cannot store it", shape.weights())]
    Straddle {
        /// The matrix's size.
        shape: Shape,
    },
}

/// Where a packed matrix keeps its bytes.
#[derive(Clone)]
enum Store {
    Owned(AlignedBytes),
    /// A range of something shared and immutable, such as a mapped file.
    Shared(Arc<dyn AsRef<[u8]> + Send + Sync>, std::ops::Range<usize>),
}

/// A packed weight matrix.
#[derive(Clone)]
pub struct Packed {
    layout: Layout,
    shape: Shape,
    store: Store,
}

impl std::fmt::Debug for Packed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = match self.store {
            Store::Owned(_) => "owned",
            Store::Shared(..) => "shared",
        };
        write!(f, "Packed({:?} {} {place})", self.layout, self.shape)
    }
}

/// A borrowed packed matrix: what kernels take.
#[derive(Debug, Clone, Copy)]
pub struct PackedView<'a> {
    layout: Layout,
    shape: Shape,
    bytes: &'a [u8],
}

impl<'a> PackedView<'a> {
    /// A matrix of `shape` in bytes that are already in `layout`.
    ///
    /// # Errors
    /// When there are fewer bytes than the layout needs; more are ignored.
    pub fn new(layout: Layout, shape: Shape, bytes: &'a [u8]) -> Result<Self, PackError> {
        let wants = layout.bytes(shape);
        let bytes = bytes.get(..wants).ok_or(PackError::Length {
            shape,
            what: "bytes",
            wants,
            given: bytes.len(),
        })?;
        Ok(Self { layout, shape, bytes })
    }

    /// The arrangement of the bytes.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The matrix's size.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The packed bytes, exactly as many as the layout needs.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

impl Packed {
    /// Packs plain ternary values (row-major, `m * k` of them).
    ///
    /// # Errors
    /// When the count does not match the shape, or a value is not -1, 0 or 1.
    pub fn pack(layout: Layout, shape: Shape, ternary: &[i8]) -> Result<Self, PackError> {
        if ternary.len() != shape.weights() {
            let (wants, given) = (shape.weights(), ternary.len());
            return Err(PackError::Length { shape, what: "weights", wants, given });
        }
        if let Some(index) = ternary.iter().position(|t| !(-1..=1).contains(t)) {
            return Err(PackError::NotTernary { index, value: ternary[index] });
        }
        let mut bytes = AlignedBytes::zeroed(layout.bytes(shape));
        fill(layout, shape, &mut bytes, &|row, out| {
            out.copy_from_slice(&ternary[row * shape.k..][..shape.k]);
        });
        Ok(Self { layout, shape, store: Store::Owned(bytes) })
    }

    /// Packs from the flattened 128-block I2_S form of GGUF files (`m * k / 4` bytes, scale not
    /// included), straight into `layout`, on all of rayon's threads.
    ///
    /// # Errors
    /// When the bytes do not match the shape, `m * k` is not a multiple of 128, or a code is 3.
    pub fn from_i2s_file(layout: Layout, shape: Shape, file: &[u8]) -> Result<Self, PackError> {
        check_i2s_file(shape, file)?;
        let mut bytes = AlignedBytes::zeroed(layout.bytes(shape));
        if layout == Layout::I2s && shape.k.is_multiple_of(128) {
            bytes.copy_from_slice(file);
        } else {
            fill(layout, shape, &mut bytes, &|row, out| read_file(file, row * shape.k, out));
        }
        Ok(Self { layout, shape, store: Store::Owned(bytes) })
    }

    /// Packs weights that `read(row, out)` gives row by row, on all of rayon's threads and in no
    /// particular order.
    ///
    /// # Errors
    /// When a value is not -1, 0 or 1.
    pub fn from_rows(
        layout: Layout,
        shape: Shape,
        read: &(impl Fn(usize, &mut [i8]) + Sync),
    ) -> Result<Self, PackError> {
        let mut bytes = AlignedBytes::zeroed(layout.bytes(shape));
        // The first in row-major order, whatever the order of reading.
        let bad: Mutex<Option<(usize, i8)>> = Mutex::new(None);
        fill(layout, shape, &mut bytes, &|row, out| {
            read(row, out);
            let wrong = out.iter().position(|t| !(-1..=1).contains(t));
            if let Some(at) = wrong {
                let found = (row * shape.k + at, out[at]);
                let mut bad = bad.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                *bad = Some(bad.map_or(found, |other| other.min(found)));
                out.fill(0);
            }
        });
        match bad.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()) {
            Some((index, value)) => Err(PackError::NotTernary { index, value }),
            None => Ok(Self { layout, shape, store: Store::Owned(bytes) }),
        }
    }

    /// A matrix whose bytes are a range of something shared, already in `layout`: a tensor of a mapped
    /// file, executed in place.
    ///
    /// # Errors
    /// When the range is outside the bytes or shorter than the layout needs.
    pub fn shared(
        layout: Layout,
        shape: Shape,
        bytes: Arc<dyn AsRef<[u8]> + Send + Sync>,
        range: std::ops::Range<usize>,
    ) -> Result<Self, PackError> {
        let given = (*bytes).as_ref().get(range.clone()).map_or(0, <[u8]>::len);
        let wants = layout.bytes(shape);
        if given < wants {
            return Err(PackError::Length { shape, what: "bytes", wants, given });
        }
        Ok(Self { layout, shape, store: Store::Shared(bytes, range) })
    }

    /// Moves bytes of its own near to the threads that read them with such tasks:
    /// [`AlignedBytes::settle`]. Bytes that are shared stay where they are.
    pub fn settle(&mut self, pool: &Pool, rows_per_task: usize) {
        if let Store::Owned(bytes) = &mut self.store {
            bytes.settle(pool, self.shape.m, rows_per_task);
        }
    }

    /// The matrix as kernels take it.
    pub fn view(&self) -> PackedView<'_> {
        let bytes: &[u8] = match &self.store {
            Store::Owned(bytes) => bytes,
            Store::Shared(bytes, range) => &(**bytes).as_ref()[range.clone()],
        };
        PackedView::new(self.layout, self.shape, bytes).expect("checked when it was made")
    }

    /// The arrangement of the bytes.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The matrix's size.
    pub fn shape(&self) -> Shape {
        self.shape
    }
}

impl PackedView<'_> {
    /// The plain ternary values, row-major.
    pub fn unpack(&self) -> Vec<i8> {
        let k = self.shape.k;
        let mut ternary = vec![0; self.shape.weights()];
        let rows = ternary.chunks_exact_mut(k).enumerate();
        rows.for_each(|(row, out)| match self.layout {
            Layout::I2s => unpack_i2s(self.bytes, row, out),
            Layout::Tl1 => {
                let group = &self.bytes[row / GROUP * self.layout.unit_bytes(k)..];
                unpack_pairs(group, row % GROUP, out);
            }
            Layout::Tl2 => unpack_tl2(self.bytes, k, row, out),
            Layout::Base3 => unpack_base3(self.bytes, row, out),
        });
        ternary
    }
}

/// Refuses tensor data that is not an I2_S matrix of `shape`.
///
/// # Errors
/// When the length is wrong, the blocks do not fit, or a code is 3.
pub fn check_i2s_file(shape: Shape, file: &[u8]) -> Result<(), PackError> {
    if !shape.weights().is_multiple_of(128) {
        return Err(PackError::Straddle { shape });
    }
    let wants = shape.weights() / 4;
    if file.len() != wants {
        return Err(PackError::Length { shape, what: "bytes", wants, given: file.len() });
    }
    // Code 3 has both bits of a pair set.
    let is_bad = |b: &u8| b & (b >> 1) & 0x55 != 0;
    let bad = file.par_chunks(1 << 20).enumerate().find_map_first(|(chunk, bytes)| {
        // The fold has no early exit, so it runs at the speed of memory.
        let any = bytes.iter().fold(0, |any, b| any | (b & (b >> 1) & 0x55)) != 0;
        any.then(|| (chunk << 20) + bytes.iter().position(is_bad).expect("found by the fold"))
    });
    match bad {
        None => Ok(()),
        Some(byte) => {
            let plane = (0..4).find(|p| file[byte] >> (6 - 2 * p) & 3 == 3).expect("a code is 3");
            Err(PackError::Code3 { index: byte / 32 * 128 + plane * 32 + byte % 32 })
        }
    }
}

/// Weight `index` of the flattened file form.
fn file_weight(file: &[u8], index: usize) -> i8 {
    let byte = file[index / 128 * 32 + index % 32];
    (byte >> (6 - 2 * (index % 128 / 32)) & 3) as i8 - 1
}

/// Weights of the flattened file form from `first` on.
fn read_file(file: &[u8], first: usize, out: &mut [i8]) {
    if !first.is_multiple_of(128) || !out.len().is_multiple_of(128) {
        for (index, t) in (first..).zip(out) {
            *t = file_weight(file, index);
        }
        return;
    }
    // Whole blocks, plane by plane: a loop that the compiler makes vectors of.
    let blocks = file[first / 4..].chunks_exact(32).zip(out.chunks_exact_mut(128));
    for (block, out) in blocks {
        for (plane, out) in out.chunks_exact_mut(32).enumerate() {
            for (byte, t) in block.iter().zip(out) {
                *t = (byte >> (6 - 2 * plane) & 3) as i8 - 1;
            }
        }
    }
}

/// Fills packed bytes unit by unit, on all of rayon's threads; `read(row, out)` gives a row's weights.
fn fill(layout: Layout, shape: Shape, bytes: &mut [u8], read: &(impl Fn(usize, &mut [i8]) + Sync)) {
    let Shape { m, k } = shape;
    let unit = layout.unit_bytes(k);
    if let Some(block) = layout.row_block() {
        let pack = if layout == Layout::I2s { pack_i2s } else { pack_base3 };
        bytes.par_chunks_exact_mut(unit).enumerate().for_each_init(
            || vec![0i8; k.next_multiple_of(block)],
            |weights, (row, out)| {
                read(row, &mut weights[..k]);
                pack(weights, out);
            },
        );
        return;
    }
    let groups = m.div_ceil(GROUP);
    let (units, negatives) = bytes.split_at_mut(groups * unit);
    // TL1 has no row constants: pair each of its groups with an empty slice.
    let constants = negatives.len() / groups;
    let negatives: Vec<&mut [u8]> = match constants {
        0 => (0..groups).map(|_| &mut [][..]).collect(),
        n => negatives.chunks_exact_mut(n).collect(),
    };
    units.par_chunks_exact_mut(unit).zip(negatives).enumerate().for_each_init(
        || vec![0i8; GROUP * k],
        |weights, (group, (out, negatives))| {
            weights.fill(0);
            for row in 0..GROUP.min(m - group * GROUP) {
                read(group * GROUP + row, &mut weights[row * k..][..k]);
            }
            let rows = weights.chunks_exact(k).enumerate();
            match layout {
                Layout::I2s | Layout::Base3 => unreachable!("packed by rows above"),
                Layout::Tl1 => rows.for_each(|(row, weights)| pack_pairs(weights, row, out)),
                Layout::Tl2 => rows.for_each(|(row, weights)| {
                    let count = pack_tl2(weights, row, out);
                    negatives[row * 4..][..4].copy_from_slice(&count.to_le_bytes());
                }),
            }
        },
    );
}

/// One row of whole 128-weight blocks.
fn pack_i2s(weights: &[i8], out: &mut [u8]) {
    for (block, out) in weights.chunks_exact(128).zip(out.chunks_exact_mut(32)) {
        for (j, byte) in out.iter_mut().enumerate() {
            *byte = (0..4).fold(0, |b, plane| b << 2 | (block[plane * 32 + j] + 1) as u8);
        }
    }
}

fn unpack_i2s(bytes: &[u8], row: usize, out: &mut [i8]) {
    let row = &bytes[row * Layout::I2s.unit_bytes(out.len())..];
    for (index, t) in out.iter_mut().enumerate() {
        *t = file_weight(row, index);
    }
}

/// One row of whole 160-weight blocks.
fn pack_base3(weights: &[i8], out: &mut [u8]) {
    for (block, out) in weights.chunks_exact(160).zip(out.chunks_exact_mut(32)) {
        for (j, byte) in out.iter_mut().enumerate() {
            let number = (0..5).fold(0, |v, plane| v * 3 + (block[plane * 32 + j] + 1) as u16);
            // Rounded up, so that no digit is lost: it comes out as the integer part of 3 x / 256.
            *byte = (number * 256).div_ceil(243) as u8;
        }
    }
}

fn unpack_base3(bytes: &[u8], row: usize, out: &mut [i8]) {
    let row = &bytes[row * Layout::Base3.unit_bytes(out.len())..];
    for (index, t) in out.iter_mut().enumerate() {
        let fraction = (0..index % 160 / 32)
            .fold(row[index / 160 * 32 + index % 32], |x, _| x.wrapping_mul(3));
        *t = ((u16::from(fraction) * 3) >> 8) as i8 - 1;
    }
}

/// The pair index `3 (t0 + 1) + (t1 + 1)` of weights `at` and `at + 1`, missing ones being 0.
fn pair_index(weights: &[i8], at: usize) -> u8 {
    let t = |i| weights.get(i).copied().unwrap_or(0);
    (3 * t(at) + t(at + 1) + 4) as u8
}

/// One row's pair indices into its column of a group.
fn pack_pairs(weights: &[i8], row: usize, out: &mut [u8]) {
    for step in 0..weights.len().div_ceil(4) {
        let (first, second) = (pair_index(weights, step * 4), pair_index(weights, step * 4 + 2));
        out[step * GROUP + row] = first | second << 4;
    }
}

fn unpack_pairs(group: &[u8], row: usize, out: &mut [i8]) {
    for (step, out) in out.chunks_mut(4).enumerate() {
        let byte = group[step * GROUP + row];
        for (t, code) in
            out.iter_mut().zip([(byte & 15) / 3, (byte & 15) % 3, (byte >> 4) / 3, (byte >> 4) % 3])
        {
            *t = code as i8 - 1;
        }
    }
}

/// The magnitude index (0..=13) and sign of the triple at `at`.
fn triple_index(weights: &[i8], at: usize) -> (u8, bool) {
    let value = 9 * weights[at] + 3 * weights[at + 1] + weights[at + 2];
    (value.unsigned_abs(), value < 0)
}

/// One row's triples, signs and pair tail into its column of a group; returns its negative triples.
fn pack_tl2(weights: &[i8], row: usize, out: &mut [u8]) -> i32 {
    let Tl2Split { three, .. } = Tl2Split::of(weights.len());
    let (indices, rest) = out.split_at_mut(three / 6 * GROUP);
    let (signs, pairs) = rest.split_at_mut(three / 3 * 4);
    let mut negatives = 0;
    for triple in 0..three / 3 {
        let (index, negative) = triple_index(weights, triple * 3);
        indices[triple / 2 * GROUP + row] |= index << (4 * (triple % 2));
        signs[triple * 4 + row / 8] |= u8::from(negative) << (row % 8);
        negatives += i32::from(negative);
    }
    pack_pairs(&weights[three..], row, pairs);
    negatives
}

fn unpack_tl2(bytes: &[u8], k: usize, row: usize, out: &mut [i8]) {
    let Tl2Split { three, .. } = Tl2Split::of(k);
    let group = &bytes[row / GROUP * Layout::Tl2.unit_bytes(k)..];
    let (indices, rest) = group.split_at(three / 6 * GROUP);
    let (signs, pairs) = rest.split_at(three / 3 * 4);
    let row = row % GROUP;
    for (triple, out) in out[..three].chunks_exact_mut(3).enumerate() {
        let index = indices[triple / 2 * GROUP + row] >> (4 * (triple % 2)) & 15;
        let negative = signs[triple * 4 + row / 8] >> (row % 8) & 1 == 1;
        let value = if negative { -(index as i8) } else { index as i8 };
        // Balanced ternary digits of the value, most significant first.
        let digits = value + 13;
        out.copy_from_slice(&[digits / 9 - 1, digits / 3 % 3 - 1, digits % 3 - 1]);
    }
    unpack_pairs(pairs, row, &mut out[three..]);
}
