//! What a cache's memory holds: rows of keys and of values, as f16 or as integers with a scale for each row.

use super::CacheType;
use half::f16;
use std::ops::Range;
use trilut_kernels::Supported;
use trilut_kernels::float::fixed_attention::{
    Rows, lay_out_keys_i8, lay_out_keys_i16, lay_out_values_i8, lay_out_values_i16,
};
use trilut_kernels::float::fixed_rows::{scores_i8, scores_i16, weighted_i8, weighted_i16};
use trilut_kernels::float::{elementwise, stored};
use trilut_kernels::pool::Parts;

/// Keys and values, in this order. Bits of f16 are kept as integers: a vector of integer zeros comes from
/// the system as untouched zero pages.
#[derive(Debug)]
pub(super) enum Store {
    F16([Vec<u16>; 2]),
    Q16([Integers<i16>; 2]),
    Q8([Integers<i8>; 2]),
}

/// Rows of integers and the scale of each.
#[derive(Debug)]
pub(super) struct Integers<T> {
    /// A few that are not used, then the rows, from a cache line on.
    memory: Vec<T>,
    start: usize,
    scales: Vec<f32>,
}

/// Bytes of a cache line.
const LINE: usize = 64;

/// `len` zeros, or nothing when the system refuses that much.
fn zeros<T: bytemuck::Zeroable>(len: usize) -> Option<Vec<T>> {
    bytemuck::try_zeroed_vec(len).ok()
}

impl<T: Copy + bytemuck::Zeroable> Integers<T> {
    fn zeros(rows: usize, width: usize) -> Option<Self> {
        let memory: Vec<T> = zeros(rows * width + LINE / size_of::<T>())?;
        let start = memory.as_ptr().align_offset(LINE);
        Some(Self { memory, start, scales: zeros(rows)? })
    }

    fn codes(&mut self) -> &mut [T] {
        &mut self.memory[self.start..]
    }

    fn copy(&mut self, from: Range<usize>, to: usize, width: usize) {
        self.codes().copy_within(from.start * width..from.end * width, to * width);
        self.scales.copy_within(from, to);
    }

    fn parts(&mut self) -> IntegerParts<'_, T> {
        let codes = Parts::new(&mut self.memory[self.start..]);
        IntegerParts { codes, scales: Parts::new(&mut self.scales) }
    }
}

impl Store {
    /// Zeros for `rows` rows of a head, or nothing when the system refuses that much.
    pub(super) fn zeros(of: CacheType, rows: usize, width: usize) -> Option<Self> {
        Some(match of {
            CacheType::F16 => Self::F16([zeros(rows * width)?, zeros(rows * width)?]),
            CacheType::Q16 => {
                Self::Q16([Integers::zeros(rows, width)?, Integers::zeros(rows, width)?])
            }
            CacheType::Q8 => {
                Self::Q8([Integers::zeros(rows, width)?, Integers::zeros(rows, width)?])
            }
        })
    }

    /// Copies rows to where `to` rows lie before them.
    pub(super) fn copy(&mut self, from: &Range<usize>, to: usize, width: usize) {
        match self {
            Self::F16(both) => {
                for all in both {
                    all.copy_within(from.start * width..from.end * width, to * width);
                }
            }
            Self::Q16(both) => both.iter_mut().for_each(|all| all.copy(from.clone(), to, width)),
            Self::Q8(both) => both.iter_mut().for_each(|all| all.copy(from.clone(), to, width)),
        }
    }

    pub(super) fn parts(&mut self) -> StoreParts<'_> {
        match self {
            Self::F16(both) => StoreParts::F16(
                both.each_mut().map(|all| Parts::new(bytemuck::cast_slice_mut(all))),
            ),
            Self::Q16(both) => StoreParts::Q16(both.each_mut().map(Integers::parts)),
            Self::Q8(both) => StoreParts::Q8(both.each_mut().map(Integers::parts)),
        }
    }
}

/// A [`Store`], lent to the workers of a region.
pub(crate) enum StoreParts<'a> {
    F16([Parts<'a, f16>; 2]),
    Q16([IntegerParts<'a, i16>; 2]),
    Q8([IntegerParts<'a, i8>; 2]),
}

/// [`Integers`], lent to the workers of a region.
pub(crate) struct IntegerParts<'a, T> {
    codes: Parts<'a, T>,
    scales: Parts<'a, f32>,
}

impl<T> IntegerParts<'_, T> {
    /// Some rows of keys and of values.
    ///
    /// # Safety
    /// As [`Parts::get`].
    unsafe fn both<'a>(
        both: &'a [Self; 2],
        rows: &Range<usize>,
        width: usize,
        codes: fn(&'a [T]) -> Codes<'a>,
    ) -> Stored<'a> {
        let place = rows.start * width..rows.end * width;
        let [keys, values] = both.each_ref().map(|all| {
            // SAFETY: the caller's promise.
            let (some, scales) =
                unsafe { (all.codes.get(place.clone()), all.scales.get(rows.clone())) };
            Fixed { codes: codes(some), scales }
        });
        Stored::Fixed { keys, values }
    }

    /// Stores a key and a value.
    ///
    /// # Safety
    /// As [`Parts::get_mut`].
    unsafe fn set(
        both: &[Self; 2],
        row: usize,
        rows: [&[f32]; 2],
        store: impl Fn(&[f32], &mut [T], &mut [f32]),
    ) {
        for (all, x) in both.iter().zip(rows) {
            let place = row * x.len()..(row + 1) * x.len();
            // SAFETY: the caller's promise.
            unsafe { store(x, all.codes.get_mut(place), all.scales.get_mut(row..row + 1)) };
        }
    }
}

impl StoreParts<'_> {
    /// Some rows of `width`.
    ///
    /// # Safety
    /// As [`Parts::get`].
    pub(crate) unsafe fn get(&self, rows: Range<usize>, width: usize) -> Stored<'_> {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::F16(both) => {
                    let place = rows.start * width..rows.end * width;
                    let [keys, values] = both.each_ref().map(|all| all.get(place.clone()));
                    Stored::F16 { keys, values }
                }
                Self::Q16(both) => IntegerParts::both(both, &rows, width, Codes::I16),
                Self::Q8(both) => IntegerParts::both(both, &rows, width, Codes::I8),
            }
        }
    }

    /// Stores a key and a value.
    ///
    /// # Safety
    /// As [`Parts::get_mut`].
    pub(crate) unsafe fn set(&self, isa: Supported, row: usize, key: &[f32], value: &[f32]) {
        let width = key.len();
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::F16(both) => {
                    for (all, x) in both.iter().zip([key, value]) {
                        let place = row * width..(row + 1) * width;
                        elementwise::narrow_f16(isa, x, all.get_mut(place));
                    }
                }
                Self::Q16(both) => {
                    IntegerParts::set(both, row, [key, value], |x, codes, scales| {
                        stored::store_i16(isa, x, width, codes, scales);
                    })
                }
                Self::Q8(both) => IntegerParts::set(both, row, [key, value], |x, codes, scales| {
                    stored::store_i8(isa, x, width, codes, scales);
                }),
            }
        }
    }
}

/// Rows of keys and of values of a head.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stored<'a> {
    F16 { keys: &'a [f16], values: &'a [f16] },
    Fixed { keys: Fixed<'a>, values: Fixed<'a> },
}

/// Rows of integers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fixed<'a> {
    pub(crate) codes: Codes<'a>,
    /// Of each row.
    pub(crate) scales: &'a [f32],
}

/// The integers of rows.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Codes<'a> {
    I16(&'a [i16]),
    I8(&'a [i8]),
}

impl Stored<'_> {
    /// How many rows of `width` there are.
    pub(crate) fn rows(self, width: usize) -> usize {
        match self {
            Self::F16 { keys, .. } => keys.len() / width,
            Self::Fixed { keys, .. } => keys.scales.len(),
        }
    }
}

impl Fixed<'_> {
    /// Lays out all rows, which are keys, as panels.
    pub(crate) fn lay_out_keys(self, isa: Supported, width: usize, out: &mut [i16]) {
        match self.codes {
            Codes::I16(codes) => lay_out_keys_i16(isa, codes, width, out),
            Codes::I8(codes) => lay_out_keys_i8(isa, codes, width, out),
        }
    }

    /// Lays out all rows, which are values, as panels.
    pub(crate) fn lay_out_values(self, isa: Supported, width: usize, out: &mut [i16]) {
        match self.codes {
            Codes::I16(codes) => lay_out_values_i16(isa, codes, width, out),
            Codes::I8(codes) => lay_out_values_i8(isa, codes, width, out),
        }
    }

    /// The scores of all rows, which are keys, for a few queries.
    pub(crate) fn scores(
        self,
        isa: Supported,
        queries: Rows<'_>,
        width: usize,
        out: &mut [f32],
        stride: usize,
    ) {
        match self.codes {
            Codes::I16(codes) => scores_i16(isa, queries, codes, width, self.scales, out, stride),
            Codes::I8(codes) => scores_i8(isa, queries, codes, width, self.scales, out, stride),
        }
    }

    /// The sums of all rows, which are values, with a few rows of weights.
    pub(crate) fn weighted(
        self,
        isa: Supported,
        weights: Rows<'_>,
        width: usize,
        sums: &mut [i32],
        out: &mut [f32],
    ) {
        match self.codes {
            Codes::I16(codes) => weighted_i16(isa, weights, codes, width, sums, out),
            Codes::I8(codes) => weighted_i8(isa, weights, codes, width, sums, out),
        }
    }

    /// Some of the rows.
    pub(crate) fn part(self, rows: Range<usize>, width: usize) -> Self {
        let place = rows.start * width..rows.end * width;
        let codes = match self.codes {
            Codes::I16(codes) => Codes::I16(&codes[place]),
            Codes::I8(codes) => Codes::I8(&codes[place]),
        };
        Self { codes, scales: &self.scales[rows] }
    }

    /// What the integers of a row stand for, rounded to f32.
    pub(crate) fn values(self, row: usize, width: usize) -> Vec<f32> {
        let (scale, place) = (self.scales[row], row * width..(row + 1) * width);
        match self.codes {
            Codes::I16(codes) => codes[place].iter().map(|&x| scale * f32::from(x)).collect(),
            Codes::I8(codes) => codes[place].iter().map(|&x| scale * f32::from(x)).collect(),
        }
    }
}
