//! Panels: some rows of one or more matrices, made ready for a gemm kernel.
//!
//! A panel is filled from the stored copy of any format, once for all tokens that pass over it. Its rows
//! are either plain codes or indices into the tables of the vector lookup:
//!
//! * [`PanelForm::Codes`]: a byte `t + 1` per input, in order, padded to a multiple of 4;
//!   [`PanelForm::Eights`] to a multiple of 8.
//! * [`PanelForm::Indices`]: inputs are taken as planes of 32; `g` planes make 32 groups, group `j` of
//!   planes `m` having the inputs `32 (g m + i) + j` for `i < g`. A group's index is the sum of
//!   `3^i (t_i + 1)`. The bytes of `tables` groups of all rows lie side by side, since a pass of the
//!   kernel reads those. For I2_S and g = 4 a group is exactly one stored byte.
//! * [`PanelForm::Mixed`]: inputs in order, pass by pass; in each, first those that are looked up, as one
//!   index per 4 inputs, then the codes of those that are multiplied.

use crate::float::{Lanes, instantiate};
use crate::packed::{Layout, PackedView, Tl2Split};
use crate::{AlignedBytes, Supported};
use std::ops::Range;

/// What the rows of a panel, and the tokens of a tile, look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PanelForm {
    /// Indices of groups of inputs, for the vector lookup.
    Indices {
        /// Inputs per group.
        group: usize,
        /// Groups that a kernel's pass takes at a time.
        tables: usize,
    },
    /// One code per input, for register tiles.
    Codes,
    /// The same, for register tiles that take eight inputs at a time.
    Eights,
    /// Both in turn: per pass, `tables` indices of 4 inputs, then `steps` times 4 codes.
    Mixed {
        /// Groups of 4 inputs that are looked up in a pass.
        tables: usize,
        /// Groups of 4 inputs that are multiplied in a pass.
        steps: usize,
    },
}

impl PanelForm {
    /// Groups of inputs of a row: of `group` inputs, or of 4 or 8; of a mixed one, passes.
    pub const fn groups(self, k: usize) -> usize {
        match self {
            Self::Indices { group, .. } => k.div_ceil(32 * group) * 32,
            Self::Codes => k.div_ceil(4),
            Self::Eights => k.div_ceil(8),
            Self::Mixed { tables, steps } => k.div_ceil(4 * (tables + steps)),
        }
    }

    /// Inputs of a row with padding.
    pub const fn inputs(self, k: usize) -> usize {
        match self {
            Self::Indices { group, .. } => self.groups(k) * group,
            Self::Codes => self.groups(k) * 4,
            Self::Eights => self.groups(k) * 8,
            Self::Mixed { tables, steps } => self.groups(k) * 4 * (tables + steps),
        }
    }

    /// Bytes of a panel.
    pub const fn panel_bytes(self, rows: usize, k: usize) -> usize {
        match self {
            Self::Indices { .. } => rows * self.groups(k),
            Self::Codes | Self::Eights => rows * self.inputs(k),
            Self::Mixed { tables, steps } => rows * self.groups(k) * (tables + 4 * steps),
        }
    }

    /// Bytes of a tile of `tokens` tokens.
    pub const fn tile_bytes(self, tokens: usize, k: usize) -> usize {
        self.inputs(k) * tokens
    }

    /// int16 lanes that a kernel needs for tables and sums.
    pub const fn scratch_len(self, rows: usize, tokens: usize) -> usize {
        match self {
            // Behind the first entry of the last table there is room for any index byte.
            Self::Indices { group, tables } => {
                ((tables - 1) * 3usize.pow(group as u32) + 256 + rows) * tokens
            }
            Self::Mixed { tables, steps: _ } => {
                Self::Indices { group: 4, tables }.scratch_len(rows, tokens)
            }
            Self::Codes | Self::Eights => 0,
        }
    }
}

/// Rows that are unpacked before they are put into their places, which are far apart for one row, but side
/// by side for several.
const BLOCK: usize = 8;

/// Rows `at..at + count` of a panel of `rows`.
#[derive(Debug, Clone, Copy)]
struct Place {
    rows: usize,
    at: usize,
    count: usize,
}

/// Rows of a packed matrix.
#[derive(Debug, Clone)]
pub struct Segment<'a> {
    /// The matrix.
    pub weights: PackedView<'a>,
    /// The rows of it.
    pub rows: Range<usize>,
}

/// Rows made ready for a gemm kernel. Buffers grow on first use and are kept.
#[derive(Debug, Clone, Default)]
pub struct Panel {
    form: Option<PanelForm>,
    rows: usize,
    k: usize,
    bytes: AlignedBytes,
    /// The codes of a block of rows, padded.
    codes: Vec<u8>,
    /// The indices of a block of rows.
    indices: Vec<u8>,
}

impl Panel {
    /// Workers and panels begin at multiples of this many rows: whole register tiles of every kernel.
    pub const ROW_QUANTUM: usize = 24;

    /// An empty panel.
    pub fn new() -> Self {
        Self::default()
    }

    /// Rows from one panel to the next of a worker's `share`: equal pieces of at most about `most` rows
    /// of `width` matrices side by side each. Never 0, also for an empty share.
    pub fn step(share: usize, width: usize, most: usize) -> usize {
        let pieces = (share * width).div_ceil(most.max(1)).max(1);
        share.div_ceil(pieces).max(1).next_multiple_of(Self::ROW_QUANTUM)
    }

    /// Fills the panel with the rows of all segments, one after the other.
    ///
    /// # Panics
    /// When there is no segment, the segments differ in their number of inputs, rows are outside their
    /// matrix, or no kernel reads the form.
    pub fn fill(&mut self, isa: Supported, form: PanelForm, segments: &[Segment<'_>]) {
        let k = segments[0].weights.shape().k;
        assert!(segments.iter().all(|s| s.weights.shape().k == k), "segments share their inputs");
        assert!(segments.iter().all(|s| s.rows.end <= s.weights.shape().m), "rows of the matrix");
        self.rows = segments.iter().map(|s| s.rows.len()).sum();
        (self.form, self.k) = (Some(form), k);
        let bytes = form.panel_bytes(self.rows, k);
        if self.bytes.len() < bytes {
            self.bytes.resize(bytes);
        }
        self.codes.clear();
        // Inputs that do not exist weigh 0.
        self.codes.resize(BLOCK * form.inputs(k), 1);
        self.indices.resize(BLOCK * form.groups(k), 0);
        fill_rows(isa, self, form, segments);
    }

    /// What it was filled for; `None` while it is empty.
    pub fn form(&self) -> Option<PanelForm> {
        self.form
    }

    /// Its rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs of a row.
    pub fn k(&self) -> usize {
        self.k
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

instantiate! {
    /// Unpacks the rows of all segments and puts them where the form has them. Integers alone: the lanes say
    /// which instructions the compiler may use.
    fn fill_rows(panel: &mut Panel, form: PanelForm, segments: &[Segment<'_>]) = fill_rows_body;
}

#[inline(always)]
fn fill_rows_body<L: Lanes>(panel: &mut Panel, form: PanelForm, segments: &[Segment<'_>]) {
    let Panel { rows, k, bytes, codes, indices, .. } = panel;
    let (rows, k) = (*rows, *k);
    let mut all = segments.iter().flat_map(|s| s.rows.clone().map(move |row| (s.weights, row)));
    let stride = form.inputs(k);
    if matches!(form, PanelForm::Codes | PanelForm::Eights) {
        for ((weights, row), out) in all.zip(bytes.chunks_exact_mut(stride)) {
            let (codes, padding) = out.split_at_mut(k);
            unpack_codes(weights, row, codes);
            padding.fill(1);
        }
        return;
    }
    for at in (0..rows).step_by(BLOCK) {
        let count = BLOCK.min(rows - at);
        for ((weights, row), codes) in all.by_ref().take(count).zip(codes.chunks_mut(stride)) {
            unpack_codes(weights, row, &mut codes[..k]);
        }
        let place = Place { rows, at, count };
        match form {
            PanelForm::Codes | PanelForm::Eights => unreachable!("returned above"),
            PanelForm::Indices { group, tables } => {
                match group {
                    3 => join::<3>(codes, indices),
                    4 => join::<4>(codes, indices),
                    5 => join::<5>(codes, indices),
                    _ => panic!("no kernel reads {form:?}"),
                }
                match tables {
                    2 => deal::<2>(indices, place, bytes),
                    4 => deal::<4>(indices, place, bytes),
                    8 => deal::<8>(indices, place, bytes),
                    16 => deal::<16>(indices, place, bytes),
                    32 => deal::<32>(indices, place, bytes),
                    1 => deal::<1>(indices, place, bytes),
                    _ => panic!("no kernel reads {form:?}"),
                }
            }
            PanelForm::Mixed { tables, steps } => match steps {
                4 => mix::<16>(codes, tables, place, bytes),
                8 => mix::<32>(codes, tables, place, bytes),
                12 => mix::<48>(codes, tables, place, bytes),
                16 => mix::<64>(codes, tables, place, bytes),
                20 => mix::<80>(codes, tables, place, bytes),
                24 => mix::<96>(codes, tables, place, bytes),
                _ => panic!("no kernel reads {form:?}"),
            },
        }
    }
}

/// Joins the codes of `G` planes of 32 into indices, eight at a time; `codes` holds whole groups of planes.
#[inline(always)]
fn join<const G: usize>(codes: &[u8], indices: &mut [u8]) {
    for (planes, out) in codes.chunks_exact(32 * G).zip(indices.as_chunks_mut::<32>().0) {
        let (planes, _) = planes.as_chunks::<8>();
        for (at, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            // Horner's scheme, the last input first. Codes 0..=2 stay below 3^5 <= 256, so no byte
            // carries into its neighbour; codes of 3, which loading refuses, would give wrong indices.
            let mut index = 0u64;
            for plane in (0..G).rev() {
                let codes = u64::from_le_bytes(planes[plane * 4 + at]);
                index = index.wrapping_mul(3).wrapping_add(codes);
            }
            *out = index.to_le_bytes();
        }
    }
}

/// The index of four neighbouring inputs: the top byte of a product whose digits are 27, 9, 3 and 1.
/// No digit sum reaches 256, so none carries.
#[inline(always)]
fn join_four(codes: [u8; 4]) -> u8 {
    (u32::from_le_bytes(codes).wrapping_mul(0x0103_091b) >> 24) as u8
}

/// Puts the indices of some rows where the passes of `P` groups read them.
#[inline(always)]
fn deal<const P: usize>(indices: &[u8], place: Place, panel: &mut [u8]) {
    let Place { rows, at, count } = place;
    let passes = indices.len() / BLOCK / P;
    let (indices, _) = indices.as_chunks::<P>();
    let (panel, _) = panel.as_chunks_mut::<P>();
    for pass in 0..passes {
        for (row, out) in panel[pass * rows + at..][..count].iter_mut().enumerate() {
            *out = indices[row * passes + pass];
        }
    }
}

/// Puts some rows where the passes of mixed kernels read them: `tables` indices, then `N` codes.
#[inline(always)]
fn mix<const N: usize>(codes: &[u8], tables: usize, place: Place, panel: &mut [u8]) {
    let Place { rows, at, count } = place;
    let (inputs, unit) = (4 * tables + N, tables + N);
    let stride = codes.len() / BLOCK;
    for pass in 0..stride / inputs {
        let out = &mut panel[(pass * rows + at) * unit..][..count * unit];
        for (row, out) in out.chunks_exact_mut(unit).enumerate() {
            let codes = &codes[row * stride + pass * inputs..][..inputs];
            let (looked_up, multiplied) = codes.split_at(4 * tables);
            let (indices, out) = out.split_at_mut(tables);
            for (index, codes) in indices.iter_mut().zip(looked_up.as_chunks::<4>().0) {
                *index = join_four(*codes);
            }
            out.as_chunks_mut::<N>().0[0] = multiplied.as_chunks::<N>().0[0];
        }
    }
}

/// The codes `t + 1` of one row.
#[inline(always)]
#[expect(clippy::redundant_closure, reason = "functions as arguments would not be inlined")]
fn unpack_codes(weights: PackedView<'_>, row: usize, out: &mut [u8]) {
    let k = out.len();
    let unit = weights.layout().unit_bytes(k);
    match weights.layout() {
        Layout::I2s => blocks(
            &weights.bytes()[row * unit..][..unit],
            out,
            #[inline(always)]
            |bytes, out| i2s_block(bytes, out),
        ),
        Layout::Base3 => blocks(
            &weights.bytes()[row * unit..][..unit],
            out,
            #[inline(always)]
            |bytes, out| base3_block(bytes, out),
        ),
        Layout::Tl1 => pairs(&weights.bytes()[row / 32 * unit..], row % 32, out),
        Layout::Tl2 => {
            let Tl2Split { three, .. } = Tl2Split::of(k);
            let group = &weights.bytes()[row / 32 * unit..];
            let (indices, rest) = group.split_at(three / 6 * 32);
            let (signs, tail) = rest.split_at(three / 3 * 4);
            let row = row % 32;
            let (triples, rest) = out.split_at_mut(three);
            for (triple, out) in triples.as_chunks_mut::<3>().0.iter_mut().enumerate() {
                let index = indices[triple / 2 * 32 + row] >> (4 * (triple % 2)) & 15;
                let sign = signs[triple * 4 + row / 8] >> (row % 8) & 1;
                *out = TRIPLES[usize::from(index | sign << 4)];
            }
            pairs(tail, row, rest);
        }
    }
}

/// A row stored as blocks of 32 bytes that hold `N` weights each.
#[inline(always)]
fn blocks<const N: usize>(row: &[u8], out: &mut [u8], block: impl Fn(&[u8; 32], &mut [u8; N])) {
    let (whole, rest) = out.as_chunks_mut::<N>();
    let (bytes, _) = row.as_chunks::<32>();
    for (bytes, out) in bytes.iter().zip(whole.iter_mut()) {
        block(bytes, out);
    }
    if !rest.is_empty() {
        let mut last = [0; N];
        block(&bytes[whole.len()], &mut last);
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

/// The five planes of 32 bytes of base 3: each digit is the integer part of three times the fraction that
/// is left.
#[inline(always)]
fn base3_block(bytes: &[u8; 32], out: &mut [u8; 160]) {
    // In 16 bits, so that three times a byte has room; even and odd bytes by themselves, since joining two
    // costs less than narrowing each.
    let (mut even, mut odd) = ([0u16; 16], [0u16; 16]);
    for ((even, odd), bytes) in even.iter_mut().zip(&mut odd).zip(bytes.as_chunks::<2>().0) {
        let both = u16::from_le_bytes(*bytes);
        (*even, *odd) = (both & 0xff, both >> 8);
    }
    for plane in out.as_chunks_mut::<32>().0 {
        let pairs = plane.as_chunks_mut::<2>().0.iter_mut();
        for (out, (even, odd)) in pairs.zip(even.iter_mut().zip(&mut odd)) {
            (*even, *odd) = (*even * 3, *odd * 3);
            *out = (*even >> 8 | *odd & 0xff00).to_le_bytes();
            (*even, *odd) = (*even & 0xff, *odd & 0xff);
        }
    }
}

/// The four planes of 32 bytes of I2_S, two bytes at a time, as above: the compiler takes single bytes one by
/// one, and spreads words of 64 bits over several blocks.
#[inline(always)]
fn i2s_block(bytes: &[u8; 32], out: &mut [u8; 128]) {
    let mut pairs = [0u16; 16];
    for (pair, bytes) in pairs.iter_mut().zip(bytes.as_chunks::<2>().0) {
        *pair = u16::from_le_bytes(*bytes);
    }
    for (plane, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        for (out, pair) in out.as_chunks_mut::<2>().0.iter_mut().zip(&pairs) {
            *out = (pair >> (6 - 2 * plane) & 0x0303).to_le_bytes();
        }
    }
}

/// One row's pairs of a group of 32 rows.
#[inline(always)]
fn pairs(group: &[u8], row: usize, out: &mut [u8]) {
    for (out, bytes) in out.chunks_mut(4).zip(group.chunks_exact(32)) {
        out.copy_from_slice(&PAIRS[usize::from(bytes[row])][..out.len()]);
    }
}

/// The four codes of a byte of two pair indices.
static PAIRS: [[u8; 4]; 256] = {
    let mut table = [[1; 4]; 256];
    let mut byte = 0;
    while byte < 256 {
        let (low, high) = (byte & 15, byte >> 4);
        // Indices above 8 mean nothing; they read as pairs of zeros.
        if low < 9 && high < 9 {
            let (low, high) = (low as u8, high as u8);
            table[byte] = [low / 3, low % 3, high / 3, high % 3];
        }
        byte += 1;
    }
    table
};

/// The three codes of a triple: magnitude in the low four bits, sign above.
static TRIPLES: [[u8; 3]; 32] = {
    let mut table = [[1; 3]; 32];
    let mut index = 0;
    while index < 32 {
        let magnitude = (index & 15) as u8;
        // As above for magnitudes beyond 13.
        if magnitude < 14 {
            let digits = if index < 16 { 13 + magnitude } else { 13 - magnitude };
            table[index] = [digits / 9, digits / 3 % 3, digits % 3];
        }
        index += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::float::tests::isas;
    use crate::{Packed, Shape};

    /// The codes of all inputs of a panel's rows, whatever its form.
    fn codes(panel: &Panel) -> Vec<Vec<u8>> {
        let (form, k) = (panel.form().unwrap(), panel.k());
        let row = |row: usize| match form {
            PanelForm::Codes | PanelForm::Eights => {
                panel.bytes()[row * form.inputs(k)..][..form.inputs(k)].to_vec()
            }
            PanelForm::Indices { group, tables } => {
                let mut codes = vec![9; form.inputs(k)];
                for n in 0..form.groups(k) {
                    let at = (n / tables * panel.rows() + row) * tables + n % tables;
                    let mut index = panel.bytes()[at];
                    for i in 0..group {
                        codes[32 * (group * (n / 32) + i) + n % 32] = index % 3;
                        index /= 3;
                    }
                    assert_eq!(index, 0);
                }
                codes
            }
            PanelForm::Mixed { tables, steps } => {
                let unit = tables + 4 * steps;
                let pass = |pass: usize| {
                    let bytes = &panel.bytes()[(pass * panel.rows() + row) * unit..][..unit];
                    let digits = |&index: &u8| {
                        assert!(index < 81);
                        [index % 3, index / 3 % 3, index / 9 % 3, index / 27]
                    };
                    [bytes[..tables].iter().flat_map(digits).collect(), bytes[tables..].to_vec()]
                        .concat()
                };
                (0..form.groups(k)).flat_map(pass).collect()
            }
        };
        (0..panel.rows()).map(row).collect()
    }

    #[test]
    fn shares_are_cut_into_equal_pieces() {
        assert_eq!(Panel::step(6912, 1, 480), 480);
        assert_eq!(Panel::step(1000, 1, 480), 336);
        assert_eq!(Panel::step(1000, 2, 480), 216);
        assert_eq!(Panel::step(100, 1, 4096), 120);
        assert_eq!((Panel::step(0, 1, 480), Panel::step(5, 1, 0)), (24, 24));
    }

    #[test]
    fn every_form_holds_the_codes_of_every_layout() {
        isas().into_iter().for_each(holds_the_codes);
    }

    fn holds_the_codes(isa: Supported) {
        for k in [1, 31, 128, 130, 384, 500] {
            let shape = Shape::new(70, k).unwrap();
            let ternary: Vec<i8> =
                (0..shape.weights()).map(|i| (i * 7 / 3 % 3) as i8 - 1).collect();
            for &layout in Layout::ALL {
                let packed = Packed::pack(layout, shape, &ternary).unwrap();
                let mut panel = Panel::new();
                let tables = [1, 2, 4, 8, 16, 32].into_iter();
                let indices = tables
                    .flat_map(|tables| [3, 4, 5].map(|group| PanelForm::Indices { group, tables }));
                let steps = [4, 8, 12, 16, 20, 24].into_iter();
                let mixed =
                    steps.flat_map(|steps| [4, 8].map(|tables| PanelForm::Mixed { tables, steps }));
                for form in indices.chain(mixed).chain([PanelForm::Codes, PanelForm::Eights]) {
                    let segments =
                        [32..70, 0..5].map(|rows| Segment { weights: packed.view(), rows });
                    panel.fill(isa, form, &segments);
                    assert_eq!(panel.rows(), 43);
                    let wanted = (32..70).chain(0..5).map(|row| &ternary[row * k..][..k]);
                    for (got, wanted) in codes(&panel).iter().zip(wanted) {
                        let got: Vec<i8> = got.iter().map(|&c| c as i8 - 1).collect();
                        assert_eq!(&got[..k], wanted, "{layout:?} {form:?} k={k}");
                        assert!(got[k..].iter().all(|&t| t == 0));
                    }
                }
            }
        }
    }
}
