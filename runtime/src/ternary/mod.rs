//! Ternary matrices as model files store them: every codec that is read, and written.
//!
//! | codec | unit | weights and scale |
//! |---|---|---|
//! | `I2_S` | 128 weights, 32 bytes | byte j: weights j, j+32, j+64, j+96 from the high bits down; one f32 behind all |
//! | `I2_S`, ARM | 64 weights, 16 bytes | byte j: weights j, j+16, j+32, j+48 from the high bits down; one f32 behind all |
//! | `I2_S`, rows | 4 rows | byte c: column c of rows 0..4 from the high bits down; one f32 behind all |
//! | `TL1`, `TL2` | a tile of the build that wrote it | see [`Tile`]; one f32 behind all |
//! | `TQ1_0` | 256 weights, 54 bytes | base-3 bytes, then an f16 |
//! | `TQ2_0` | 256 weights, 66 bytes | byte j of 32: weights j, j+32, j+64, j+96 from the low bits up, twice; then an f16 |
//! | `Q2_0` | 64 or 128 weights | an f16; then four weights a byte from the low bits up |
//! | `IQ1_BN` | a row | an f16; then of 64 weights 13 base-3 bytes |
//! | `IQ2_BN` | a row | an f32; then of 64 weights 16 bytes, byte j: weights j, j+16, j+32, j+48 from the low bits up |
//! | `IQ2_BN_R4` | 4 rows | four f32; then of 64 weights of each 64 bytes |
//!
//! [`Codec::reader`] takes a tensor's bytes apart row by row, [`Codec::encode`] makes them. Weights are
//! -1, 0 and +1; what they are multiplied with ([`Scales`]) is one number for the tensor, one for each row,
//! or, in codecs that store a scale for each block, one for each block where those of a row differ.
//! Converters of BitNet models write equal ones; blocks without weights are free.

mod block;
mod bn;
mod error;
mod i2s;
mod scales;
mod tl;

pub use error::CodecError;
pub use i2s::I2sLayout;
pub use scales::Scales;
pub use tl::{Tile, TileError, Tiles};

use crate::gguf::TensorKind;
use trilut_presets::Shape;

/// How a file stores a ternary matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// 2-bit codes of bitnet.cpp.
    I2s(I2sLayout),
    /// Pair indices of bitnet.cpp, in the order of the tile.
    Tl1(Tile),
    /// Triple indices and signs of bitnet.cpp, in the order of the tile.
    Tl2(Tile),
    /// Base 3 of llama.cpp.
    Tq1_0,
    /// 2-bit codes of llama.cpp.
    Tq2_0,
    /// 2-bit codes with a scale for each `group` weights, 64 or 128.
    Q2_0 {
        /// Weights that share a scale.
        group: usize,
    },
    /// Base 3 of ik_llama.cpp.
    Iq1Bn,
    /// 2-bit codes of ik_llama.cpp.
    Iq2Bn,
    /// The same, four rows interleaved.
    Iq2BnR4,
}

impl Codec {
    /// The name in ggml, such as `TQ2_0`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::I2s(_) => "I2_S",
            Self::Tl1(_) => "TL1",
            Self::Tl2(_) => "TL2",
            Self::Tq1_0 => "TQ1_0",
            Self::Tq2_0 => "TQ2_0",
            Self::Q2_0 { .. } => "Q2_0",
            Self::Iq1Bn => "IQ1_BN",
            Self::Iq2Bn => "IQ2_BN",
            Self::Iq2BnR4 => "IQ2_BN_R4",
        }
    }

    /// The type of its tensors in a file.
    pub const fn kind(self) -> TensorKind {
        match self {
            Self::I2s(_) => TensorKind::I2S,
            Self::Tl1(_) => TensorKind::Tl1,
            Self::Tl2(_) => TensorKind::Tl2,
            Self::Tq1_0 => TensorKind::Tq1_0,
            Self::Tq2_0 => TensorKind::Tq2_0,
            Self::Q2_0 { .. } => TensorKind::Q2_0,
            Self::Iq1Bn => TensorKind::Iq1Bn,
            Self::Iq2Bn => TensorKind::Iq2Bn,
            Self::Iq2BnR4 => TensorKind::Iq2BnR4,
        }
    }

    /// The bytes that are read of a matrix, without padding at its end.
    ///
    /// # Errors
    /// When the codec cannot store a matrix of this size.
    pub fn bytes(self, shape: Shape) -> Result<usize, CodecError> {
        let Shape { m, k } = shape;
        let whole = |what: usize, unit: usize, rule: &'static str| match what.is_multiple_of(unit) {
            true => Ok(()),
            false => Err(CodecError::Size { codec: self.name(), shape, rule }),
        };
        Ok(match self {
            Self::I2s(layout) => {
                let (what, unit, rule) = match layout {
                    I2sLayout::X86 => (m * k, 128, "the weights must be whole blocks of 128"),
                    I2sLayout::Arm => (m * k, 64, "the weights must be whole blocks of 64"),
                    I2sLayout::Rows => (m, 4, "the outputs must be whole groups of 4"),
                };
                whole(what, unit, rule)?;
                m * k / 4 + 4
            }
            Self::Tl1(tile) => tile.check_tl1(shape)?,
            Self::Tl2(tile) => tile.check_tl2(shape)?,
            Self::Tq1_0 | Self::Tq2_0 => {
                whole(k, 256, "the inputs must be whole blocks of 256")?;
                m * k / 256 * if self == Self::Tq1_0 { 54 } else { 66 }
            }
            Self::Q2_0 { group } => {
                whole(k, group, "the inputs must be whole blocks")?;
                m * k / group * (group / 4 + 2)
            }
            Self::Iq1Bn | Self::Iq2Bn | Self::Iq2BnR4 => {
                whole(k, 64, "the inputs must be whole blocks of 64")?;
                if self == Self::Iq2BnR4 {
                    whole(m, 4, "the outputs must be whole groups of 4")?;
                }
                m * bn::row_bytes(self, k)
            }
        })
    }

    /// Takes apart the bytes of a matrix.
    ///
    /// # Errors
    /// When the codec cannot store a matrix of this size, or bytes are missing.
    pub fn reader(self, shape: Shape, data: &[u8]) -> Result<Reader<'_>, CodecError> {
        let wants = self.bytes(shape)?;
        let Some(data) = data.get(..wants) else {
            let given = data.len();
            return Err(CodecError::Length { codec: self.name(), shape, wants, given });
        };
        Ok(Reader { codec: self, shape, data })
    }

    /// The bytes of a matrix, as its tensor has them in a file: with the padding at the end that the
    /// programs that read the codec expect.
    ///
    /// `weights` are row-major and -1, 0 or +1.
    ///
    /// # Errors
    /// When the codec cannot store a matrix of this size, a weight is not ternary, the counts of weights
    /// or scales do not fit the shape, a scale is not a positive number, or the codec has fewer scales than
    /// there are.
    pub fn encode(
        self,
        shape: Shape,
        weights: &[i8],
        scales: &Scales,
    ) -> Result<Vec<u8>, CodecError> {
        let mut out = vec![0; self.bytes(shape)?];
        self.check_input(shape, weights, scales)?;
        match self {
            Self::I2s(layout) => layout.encode(shape, weights, &mut out),
            Self::Tl1(tile) => tile.encode_tl1(shape, weights, &mut out),
            Self::Tl2(tile) => tile.encode_tl2(shape, weights, &mut out),
            Self::Tq1_0 | Self::Tq2_0 | Self::Q2_0 { .. } => {
                block::encode(self, shape, weights, scales, &mut out);
            }
            Self::Iq1Bn | Self::Iq2Bn => bn::encode(self, shape, weights, scales, &mut out),
            Self::Iq2BnR4 => bn::encode_r4(shape, weights, scales, &mut out),
        }
        if self.has_one_scale() {
            let at = out.len() - 4;
            out[at..].copy_from_slice(&scales.at(0, shape.k).to_le_bytes());
            out.resize(at + 32, 0);
        }
        Ok(out)
    }

    /// Whether there is one scale, an f32 behind the weights.
    const fn has_one_scale(self) -> bool {
        matches!(self, Self::I2s(_) | Self::Tl1(_) | Self::Tl2(_))
    }

    /// Weights that share a scale, where that is not a whole row.
    const fn group(self) -> Option<usize> {
        match self {
            Self::Tq1_0 | Self::Tq2_0 => Some(256),
            Self::Q2_0 { group } => Some(group),
            _ => None,
        }
    }

    fn check_input(self, shape: Shape, weights: &[i8], scales: &Scales) -> Result<(), CodecError> {
        let codec = self.name();
        if weights.len() != shape.weights() {
            let (wants, given) = (shape.weights(), weights.len());
            return Err(CodecError::Count { shape, what: "weights", wants, given });
        }
        if let Some(index) = weights.iter().position(|t| !(-1..=1).contains(t)) {
            let (row, value) = (index / shape.k, weights[index]);
            return Err(CodecError::NotTernary { row, value });
        }
        let (all, group) = (scales.all(), self.group());
        // Scales, and how many belong to a row.
        let (wants, each) = match scales {
            Scales::One(_) => (1, 1),
            Scales::Rows(_) => (shape.m, 1),
            Scales::Groups { inputs, .. } => {
                if group.is_none_or(|group| !inputs.is_multiple_of(group)) {
                    return Err(CodecError::Groups { codec, inputs: *inputs });
                }
                let each = shape.k.div_ceil(*inputs);
                (shape.m * each, each)
            }
        };
        if all.len() != wants {
            let given = all.len();
            return Err(CodecError::Count { shape, what: "scales", wants, given });
        }
        if let Some(index) = all.iter().position(|scale| !is_scale(*scale)) {
            return Err(CodecError::Scale { row: index / each, scale: all[index] });
        }
        if self.has_one_scale() && all.iter().any(|scale| *scale != all[0]) {
            return Err(CodecError::OneScale { codec });
        }
        // A scale that is rounded away would leave nothing of its weights.
        let is_half = matches!(self, Self::Tq1_0 | Self::Tq2_0 | Self::Q2_0 { .. } | Self::Iq1Bn);
        let lost = |scale: &f32| !is_scale(half::f16::from_f32(*scale).to_f32());
        match all.iter().position(lost).filter(|_| is_half) {
            Some(index) => Err(CodecError::Scale { row: index / each, scale: all[index] }),
            None => Ok(()),
        }
    }
}

/// Whether a number can be a scale.
fn is_scale(scale: f32) -> bool {
    scale.is_finite() && scale > 0.0
}

/// The bytes of a ternary matrix.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    codec: Codec,
    shape: Shape,
    data: &'a [u8],
}

impl<'a> Reader<'a> {
    /// The codec.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// The matrix's size.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The bytes of the codes, without a scale behind them.
    pub fn codes(&self) -> &'a [u8] {
        let scale = if self.codec.has_one_scale() { 4 } else { 0 };
        &self.data[..self.data.len() - scale]
    }

    /// Writes the weights of a row, each -1, 0 or +1.
    ///
    /// # Errors
    /// When a code stands for nothing.
    ///
    /// # Panics
    /// When there is no such row, or `out` has another length.
    pub fn row(&self, row: usize, out: &mut [i8]) -> Result<(), CodecError> {
        let Self { codec, shape, data } = *self;
        assert!(row < shape.m && out.len() == shape.k);
        let bad = match codec {
            Codec::I2s(layout) => layout.row(shape, data, row, out),
            Codec::Tl1(tile) => tile.row_tl1(shape, data, row, out),
            Codec::Tl2(tile) => tile.row_tl2(shape, data, row, out),
            Codec::Tq1_0 | Codec::Tq2_0 | Codec::Q2_0 { .. } => block::row(codec, data, row, out),
            Codec::Iq1Bn | Codec::Iq2Bn => bn::row(codec, data, row, out),
            Codec::Iq2BnR4 => bn::row_r4(data, row, out),
        };
        bad.map_err(|code| CodecError::Code { codec: codec.name(), row, code })
    }

    /// The scales: one where all weights agree, else one for each row where those of each row do, else one
    /// for each block.
    ///
    /// # Errors
    /// When one is not a positive number.
    pub fn scales(&self) -> Result<Scales, CodecError> {
        let Self { codec, shape, data } = *self;
        if codec.has_one_scale() {
            let (_, scale) = data.split_last_chunk::<4>().expect("the length was checked");
            let scale = f32::from_le_bytes(*scale);
            return match is_scale(scale) {
                true => Ok(Scales::One(scale)),
                false => Err(CodecError::Scale { row: 0, scale }),
            };
        }
        // None where a row, or a block, has no weights.
        let each: Vec<Option<f32>> = match codec.group() {
            None => (0..shape.m)
                .map(|row| bn::scale(codec, data, row, shape.k))
                .collect::<Result<_, _>>()?,
            Some(_) => block::scales(codec, data, shape)?,
        };
        let agreed = |scales: &[Option<f32>]| {
            let mut given = scales.iter().flatten();
            let first = given.next().copied();
            given.all(|scale| Some(*scale) == first).then_some(first)
        };
        let free = each.iter().flatten().next().copied().unwrap_or(1.0);
        let any =
            |scales: Vec<Option<f32>>| scales.into_iter().map(|s| s.unwrap_or(free)).collect();
        if agreed(&each).is_some() {
            return Ok(Scales::One(free));
        }
        let rows = each.chunks_exact(each.len() / shape.m).map(agreed);
        Ok(match (rows.collect::<Option<Vec<Option<f32>>>>(), codec.group()) {
            (None, Some(inputs)) => Scales::Groups { inputs, scales: any(each) },
            (rows, _) => Scales::Rows(any(rows.unwrap_or(each))),
        })
    }
}

#[cfg(test)]
mod tests;
