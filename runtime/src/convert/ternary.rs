//! A ternary matrix of the source: its scale, and its rows.

use super::ConvertError;
use super::floats::Floats;
use crate::ternary::Reader;
use rayon::prelude::*;
use trilut_kernels::Supported;

/// The least scale of ternarised weights, as in training.
const LEAST_SCALE: f32 = 1e-5;

/// Rows that are summed up side by side: the next number of a sum waits for the one before it.
const ROWS: usize = 8;

/// Where the weights of a matrix come from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin<'a> {
    /// Float weights that are ternarised by their mean magnitude; with `exact`, only such as are ternary
    /// already, all zeros or of one magnitude.
    Floats { floats: Floats<'a>, exact: bool },
    /// Hugging Face's packing: byte (r, c) holds the codes of rows r, r + m/4, .. of column c, from the
    /// low bits up.
    Quarters { bytes: &'a [u8], scale: f32 },
    /// A tensor of a GGUF file in one of its codecs.
    Stored { reader: Reader<'a>, scale: f32 },
}

/// A ternary matrix of the source.
#[derive(Debug, Clone)]
pub(super) struct Ternary<'a> {
    /// Its name in the source.
    pub(super) name: String,
    pub(super) m: usize,
    pub(super) k: usize,
    pub(super) origin: Origin<'a>,
    /// The number of heads whose rows are to be reordered from the halves of a NEOX rope to the pairs of
    /// a NORM rope; `None` leaves the order.
    pub(super) interleave: Option<usize>,
}

/// What a first look at a matrix tells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Measure {
    /// The value of weight +1.
    pub(super) scale: f32,
    /// What float weights are multiplied with before they are rounded.
    inverse: f32,
}

/// Space that reading rows needs.
#[derive(Default)]
pub(super) struct Space {
    floats: Vec<f32>,
}

/// What was seen of some rows.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Seen {
    /// Weights that are 0.
    pub(super) zeros: u64,
    /// Sum of the squares of the float weights, if it was float weights.
    pub(super) square: f64,
    /// Sum of the squares of their differences from the ternary ones.
    pub(super) error: f64,
}

impl std::ops::AddAssign for Seen {
    fn add_assign(&mut self, other: Self) {
        self.zeros += other.zeros;
        self.square += other.square;
        self.error += other.error;
    }
}

impl Ternary<'_> {
    /// The bytes that are read.
    pub(super) fn bytes(&self) -> &[u8] {
        match &self.origin {
            Origin::Floats { floats, .. } => floats.bytes,
            Origin::Quarters { bytes, .. } => bytes,
            Origin::Stored { reader, .. } => reader.codes(),
        }
    }

    /// Finds the scale; of float weights that takes a look at all of them.
    pub(super) fn measure(&self, isa: Supported) -> Result<Measure, ConvertError> {
        let measure = match self.origin {
            Origin::Floats { floats, exact } => self.measure_floats(isa, floats, exact)?,
            Origin::Quarters { scale, .. } | Origin::Stored { scale, .. } => {
                Measure { scale, inverse: 1.0 }
            }
        };
        if !(measure.scale.is_finite() && measure.scale > 0.0) {
            let rule = format!("has the scale {}: it must be a number above 0", measure.scale);
            return Err(ConvertError::tensor(&self.name, rule));
        }
        Ok(measure)
    }

    fn measure_floats(
        &self,
        isa: Supported,
        floats: Floats<'_>,
        exact: bool,
    ) -> Result<Measure, ConvertError> {
        // Row by row, summed up in their order: the same on any number of threads.
        let of_rows = |space: &mut Space, group: usize| {
            let first = group * ROWS;
            let count = ROWS.min(self.m - first);
            space.floats.clear();
            space.floats.resize(ROWS * self.k, 0.0);
            let values = space.floats.chunks_exact_mut(self.k).take(count);
            values.zip(first..).for_each(|(values, row)| floats.row(isa, row, values));
            let sums = sums_of_magnitudes(&space.floats, self.k);
            let mut seen: [_; ROWS] = sums.map(|sum| (sum, 0f32, false));
            for ((_, largest, uneven), values) in seen.iter_mut().zip(space.floats.chunks(self.k)) {
                *largest = largest_magnitude(values);
                *uneven = values.iter().any(|&v| v != 0.0 && v.abs() != *largest);
            }
            seen.into_iter().take(count)
        };
        let groups = (0..self.m.div_ceil(ROWS)).into_par_iter();
        let rows: Vec<_> = groups.map_init(Space::default, of_rows).flatten_iter().collect();
        if let Some(row) = rows.iter().position(|(sum, ..)| !sum.is_finite()) {
            let rule = format!("has a weight in row {row} that is infinite or not a number");
            return Err(ConvertError::tensor(&self.name, rule));
        }
        let largest = rows.iter().fold(0f32, |max, row| max.max(row.1));
        if largest == 0.0 {
            return Err(ConvertError::tensor(&self.name, "holds nothing but zeros"));
        }
        let one = rows.iter().all(|&(_, max, uneven)| !uneven && (max == 0.0 || max == largest));
        if one {
            return Ok(Measure { scale: largest, inverse: 1.0 / largest });
        }
        if exact {
            return Err(ConvertError::NotTernary { tensor: self.name.clone() });
        }
        let mean = rows.iter().map(|row| row.0).sum::<f64>() / (self.m as f64 * self.k as f64);
        let scale = (mean as f32).max(LEAST_SCALE);
        Ok(Measure { scale, inverse: 1.0 / scale })
    }

    /// Writes the weights, -1, 0 and 1, of the rows from `first` on, as many as `out` holds.
    pub(super) fn rows(
        &self,
        isa: Supported,
        measure: &Measure,
        first: usize,
        out: &mut [i8],
        space: &mut Space,
    ) -> Result<Seen, ConvertError> {
        let mut seen = Seen::default();
        match self.origin {
            Origin::Stored { reader, .. } => {
                for (row, out) in (first..).zip(out.chunks_exact_mut(self.k)) {
                    let read = reader.row(row, out);
                    read.map_err(|error| {
                        ConvertError::tensor(&self.name, format!("is broken: {error}"))
                    })?;
                }
            }
            Origin::Quarters { bytes, .. } => {
                let quarter = self.m / 4;
                for (row, out) in (first..).zip(out.chunks_exact_mut(self.k)) {
                    let row = self.source_row(row);
                    let (bytes, part) = (&bytes[row % quarter * self.k..], row / quarter);
                    for (out, byte) in out.iter_mut().zip(bytes) {
                        *out = (byte >> (2 * part) & 3) as i8 - 1;
                    }
                }
            }
            Origin::Floats { floats, .. } => {
                space.floats.resize(self.k, 0.0);
                for (row, out) in (first..).zip(out.chunks_exact_mut(self.k)) {
                    floats.row(isa, self.source_row(row), &mut space.floats);
                    seen += ternarise(&space.floats, measure, out);
                }
            }
        }
        if let Some(bad) = out.iter().position(|&weight| weight > 1) {
            let rule =
                format!("has code 3, which stands for nothing, in row {}", first + bad / self.k);
            return Err(ConvertError::tensor(&self.name, rule));
        }
        seen.zeros = out.iter().filter(|&&weight| weight == 0).count() as u64;
        Ok(seen)
    }

    /// The row of the source that becomes row `row`.
    fn source_row(&self, row: usize) -> usize {
        let Some(heads) = self.interleave else { return row };
        let width = self.m / heads;
        let (head, at) = (row / width, row % width);
        head * width + at % 2 * (width / 2) + at / 2
    }
}

/// The sums of the magnitudes in rows of `k` values, each in the order of its values.
fn sums_of_magnitudes(values: &[f32], k: usize) -> [f64; ROWS] {
    let rows: [&[f32]; ROWS] = std::array::from_fn(|row| &values[row * k..][..k]);
    let mut sums = [0.0; ROWS];
    for column in 0..k {
        for (sum, row) in sums.iter_mut().zip(rows) {
            *sum += f64::from(row[column].abs());
        }
    }
    sums
}

/// The largest magnitude of some numbers. Those of magnitudes are ordered as their bits are.
fn largest_magnitude(values: &[f32]) -> f32 {
    let bits = values.iter().map(|value| (value.to_bits() & 0x7fff_ffff) as i32);
    f32::from_bits(bits.fold(0, i32::max) as u32)
}

/// `t = clamp(round_half_even(w / scale), -1, 1)`: 0 up to a half, and beyond it the sign.
fn ternarise(weights: &[f32], measure: &Measure, out: &mut [i8]) -> Seen {
    // Sums of every eighth number, none of which waits for the one before it.
    let (mut square, mut error) = ([0.0; 8], [0.0; 8]);
    for (out, weights) in out.chunks_mut(8).zip(weights.chunks(8)) {
        for (lane, (out, &weight)) in out.iter_mut().zip(weights).enumerate() {
            let share = weight * measure.inverse;
            *out = i8::from(share > 0.5) - i8::from(share < -0.5);
            let wrong = f64::from(weight - f32::from(*out) * measure.scale);
            square[lane] += f64::from(weight) * f64::from(weight);
            error[lane] += wrong * wrong;
        }
    }
    Seen { zeros: 0, square: square.iter().sum(), error: error.iter().sum() }
}

#[cfg(test)]
mod tests {
    use super::super::floats::FloatType;
    use super::*;

    fn isa() -> Supported {
        trilut_kernels::Cpu::detect().best()
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    fn matrix<'a>(m: usize, k: usize, bytes: &'a [u8], exact: bool) -> Ternary<'a> {
        let floats = Floats { kind: FloatType::F32, bytes, k };
        let origin = Origin::Floats { floats, exact };
        Ternary { name: "w".to_owned(), m, k, origin, interleave: None }
    }

    fn weights(ternary: &Ternary<'_>) -> Vec<i8> {
        let measure = ternary.measure(isa()).unwrap();
        let mut out = vec![0; ternary.m * ternary.k];
        ternary.rows(isa(), &measure, 0, &mut out, &mut Space::default()).unwrap();
        out
    }

    #[test]
    fn floats_are_ternarised_by_their_mean_magnitude() {
        // The mean magnitude is 2, so that halves of it are ties.
        let bytes = floats(&[1.0, -1.0, 3.0, -3.0, 0.0, 4.0, -2.0, 2.0]);
        let ternary = matrix(2, 4, &bytes, false);
        assert_eq!(ternary.measure(isa()).unwrap().scale, 2.0);
        assert_eq!(weights(&ternary), [0, 0, 1, -1, 0, 1, -1, 1]);
        let refused = matrix(2, 4, &bytes, true).measure(isa()).unwrap_err();
        assert!(matches!(refused, ConvertError::NotTernary { .. }));
    }

    #[test]
    fn rows_are_measured_as_one_by_one() {
        // No whole groups of rows, and sums that depend on their order.
        let (m, k) = (ROWS + 3, 37);
        let value =
            |i: usize| ((i * 7919 % 1009) as f32 - 504.0) * 1.7e-3 * 10f32.powi(i as i32 % 9);
        let values: Vec<f32> = (0..m * k).map(value).collect();
        let bytes = floats(&values);
        let sum = |row: &[f32]| row.iter().map(|v| f64::from(v.abs())).sum::<f64>();
        let mean = values.chunks(k).map(sum).sum::<f64>() / (m * k) as f64;
        let ternary = matrix(m, k, &bytes, false);
        assert_eq!(ternary.measure(isa()).unwrap().scale, mean as f32);
        let inverse = 1.0 / mean as f32;
        let rounded = values.iter().map(|v| (v * inverse).round_ties_even().clamp(-1.0, 1.0) as i8);
        assert_eq!(weights(&ternary), rounded.collect::<Vec<_>>());
    }

    #[test]
    fn weights_that_are_ternary_already_keep_their_scale() {
        let bytes = floats(&[0.5, 0.0, 0.0, -0.5, 0.0, 0.0]);
        for exact in [true, false] {
            let ternary = matrix(2, 3, &bytes, exact);
            assert_eq!(ternary.measure(isa()).unwrap().scale, 0.5);
            assert_eq!(weights(&ternary), [1, 0, 0, -1, 0, 0]);
        }
    }

    #[test]
    fn weights_that_mean_nothing_are_refused() {
        for (values, word) in
            [([f32::NAN, 1.0], "row 0"), ([1.0, f32::INFINITY], "row 1"), ([0.0, 0.0], "zeros")]
        {
            let bytes = floats(&values);
            let error = matrix(2, 1, &bytes, false).measure(isa()).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        for scale in [f32::NAN, f32::INFINITY, 0.0, -1.0] {
            let origin = Origin::Quarters { bytes: &[0], scale };
            let ternary = Ternary { name: "w".to_owned(), m: 4, k: 1, origin, interleave: None };
            assert!(ternary.measure(isa()).unwrap_err().to_string().contains("scale"));
        }
    }

    #[test]
    fn quarters_of_rows_share_bytes_from_the_low_bits_up() {
        // Two bytes for eight rows of one column: rows 0, 2, 4, 6 and 1, 3, 5, 7.
        let bytes = [0b10_01_00_10, 0b00_00_01_01];
        let origin = Origin::Quarters { bytes: &bytes, scale: 1.0 };
        let mut ternary = Ternary { name: "w".to_owned(), m: 8, k: 1, origin, interleave: None };
        assert_eq!(weights(&ternary), [1, 0, -1, 0, 0, -1, 1, -1]);
        // One head of 8: first halves and second halves alternate.
        ternary.interleave = Some(1);
        assert_eq!(weights(&ternary), [1, 0, 0, -1, -1, 1, 0, -1]);
        let broken = [0b11_00_00_00, 0];
        ternary.origin = Origin::Quarters { bytes: &broken, scale: 1.0 };
        let measure = ternary.measure(isa()).unwrap();
        let rows = ternary.rows(isa(), &measure, 0, &mut [0; 8], &mut Space::default());
        assert!(rows.unwrap_err().to_string().contains("code 3"));
    }
}
