//! Tensors of a file: what is listed, and what can be computed with.

use super::tensor_kind::TypeFacts;
use super::{Gguf, GgufError, TensorKind};
use crate::ternary::{Codec, I2sLayout, Reader, Scales, Tiles};
use std::ops::Range;
use trilut_presets::Shape;

/// A tensor as the file lists it, of whatever type.
#[derive(Debug, Clone)]
pub struct TensorInfo {
    pub(super) name: String,
    pub(super) dims: Vec<u64>,
    pub(super) kind: TensorKind,
    pub(super) facts: TypeFacts,
    pub(super) bytes: Option<u64>,
    pub(super) range: Range<usize>,
}

impl TensorInfo {
    /// The name, such as `blk.0.attn_q.weight`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The dimensions, the innermost (inputs, K) first; 1 to 4 of them, none 0.
    pub fn dims(&self) -> &[u64] {
        &self.dims
    }

    /// How the elements are stored.
    pub fn kind(&self) -> TensorKind {
        self.kind
    }

    /// The type's name in ggml, such as `Q6_K`, or `unknown`.
    pub fn type_name(&self) -> &'static str {
        self.facts.name
    }

    /// The programs that write tensors of this type.
    pub fn writer(&self) -> &'static str {
        self.facts.writer
    }

    /// The number of elements.
    pub fn elements(&self) -> u64 {
        // The product was checked when the file was opened.
        self.dims.iter().product()
    }

    /// The number of bytes that are read, where the type tells; padding is not counted.
    pub fn bytes(&self) -> Option<u64> {
        self.bytes
    }
}

/// A tensor of a type that this runtime computes with, and its data.
#[derive(Debug, Clone, Copy)]
pub struct Tensor<'a> {
    info: &'a TensorInfo,
    data: &'a [u8],
}

impl<'a> Tensor<'a> {
    /// The name, such as `output_norm.weight`.
    pub fn name(&self) -> &'a str {
        &self.info.name
    }

    /// The dimensions, the innermost (inputs, K) first.
    pub fn dims(&self) -> &'a [u64] {
        &self.info.dims
    }

    /// How the elements are stored; never `Other`.
    pub fn kind(&self) -> TensorKind {
        self.info.kind
    }

    /// The type's name in ggml, such as `Q6_K`.
    pub fn type_name(&self) -> &'static str {
        self.info.facts.name
    }

    /// The data as it is in the file: little-endian, of I2_S and TL1 the codes and the scale, of TL2 and
    /// Q2_0 all up to the next tensor.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// Where [`data`](Self::data) lies in [`Gguf::shared`].
    pub fn range(&self) -> Range<usize> {
        self.info.range.clone()
    }

    /// The values of an F32, F16 or BF16 tensor.
    ///
    /// # Errors
    /// When the tensor is of another type.
    pub fn to_f32(&self) -> Result<Vec<f32>, GgufError> {
        let f32s = |b: &[u8]| f32::from_le_bytes(b.try_into().expect("chunks of 4"));
        let f16s = |b: &[u8]| half::f16::from_le_bytes(b.try_into().expect("chunks of 2")).to_f32();
        let bf16s =
            |b: &[u8]| half::bf16::from_le_bytes(b.try_into().expect("chunks of 2")).to_f32();
        match self.info.kind {
            TensorKind::F32 => Ok(self.data.chunks_exact(4).map(f32s).collect()),
            TensorKind::F16 => Ok(self.data.chunks_exact(2).map(f16s).collect()),
            TensorKind::BF16 => Ok(self.data.chunks_exact(2).map(bf16s).collect()),
            _ => Err(self.wrong_kind("F32, F16 or BF16")),
        }
    }

    /// The error of a tensor of a type that is of no use where it is.
    pub(crate) fn wrong_kind(&self, wants: &'static str) -> GgufError {
        let (tensor, found) = (self.info.name.clone(), self.info.facts.name);
        GgufError::WrongKind { tensor, wants, found }
    }

    /// Checks the dimensions, innermost first; ones at the end do not count.
    ///
    /// # Errors
    /// When they are not `wants`.
    pub fn expect_dims(&self, wants: &[u64]) -> Result<(), GgufError> {
        let trim = |dims: &'_ [u64]| {
            let used = dims.iter().rposition(|&d| d != 1).map_or(0, |last| last + 1);
            dims[..used].to_vec()
        };
        if trim(self.dims()) == trim(wants) {
            return Ok(());
        }
        Err(GgufError::WrongDims {
            tensor: self.info.name.clone(),
            wants: wants.to_vec(),
            found: self.info.dims.clone(),
        })
    }
}

impl Gguf {
    /// A tensor to compute with, `None` when the file has none of this name.
    ///
    /// # Errors
    /// When its type is none of [`TensorKind`]'s own.
    pub fn opt_tensor(&self, name: &str) -> Result<Option<Tensor<'_>>, GgufError> {
        let Some(&index) = self.header.names.get(name) else { return Ok(None) };
        let info = &self.header.tensors[index];
        if let TensorKind::Other(id) = info.kind {
            return Err(GgufError::Unsupported {
                tensor: name.to_owned(),
                id,
                type_name: info.facts.name,
                writer: info.facts.writer,
            });
        }
        // The range was checked when the file was opened.
        let data = self.file().get(info.range.clone()).unwrap_or_default();
        Ok(Some(Tensor { info, data }))
    }

    /// A tensor to compute with.
    ///
    /// # Errors
    /// When there is none of this name, or its type is none of [`TensorKind`]'s own.
    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>, GgufError> {
        self.opt_tensor(name)?.ok_or_else(|| GgufError::MissingTensor(name.to_owned()))
    }

    /// A ternary matrix of `shape`, to be read row by row.
    ///
    /// # Errors
    /// When it is missing, of another type or size, its codec cannot store the size, or the tile of its
    /// TL1 or TL2 form is not known.
    pub fn ternary(
        &self,
        name: &str,
        shape: Shape,
        layouts: &TernaryLayouts,
    ) -> Result<Ternary<'_>, GgufError> {
        let tensor = self.tensor(name)?;
        tensor.expect_dims(&[shape.k as u64, shape.m as u64])?;
        let wrong = |source| GgufError::Codec { tensor: name.to_owned(), source };
        let codec = layouts.codec(&tensor, shape)?;
        let reader = codec.reader(shape, tensor.data).map_err(wrong)?;
        let scales = reader.scales().map_err(wrong)?;
        Ok(Ternary { reader, scales, range: tensor.range() })
    }
}

/// What files do not say about their ternary tensors, and a person may.
#[derive(Debug, Clone, Default)]
pub struct TernaryLayouts {
    /// The arrangement of I2_S codes.
    pub i2s: I2sLayout,
    /// The tiles of TL1 and TL2 matrices.
    pub tiles: Tiles,
}

impl TernaryLayouts {
    /// The codec of a ternary tensor.
    fn codec(&self, tensor: &Tensor<'_>, shape: Shape) -> Result<Codec, GgufError> {
        let kind = tensor.type_name();
        let tile = || {
            let unknown = || GgufError::Tile { tensor: tensor.name().to_owned(), kind, shape };
            self.tiles.find(shape).ok_or_else(unknown)
        };
        Ok(match tensor.kind() {
            TensorKind::I2S => Codec::I2s(self.i2s),
            TensorKind::Tl1 => Codec::Tl1(tile()?),
            TensorKind::Tl2 => Codec::Tl2(tile()?),
            TensorKind::Tq1_0 => Codec::Tq1_0,
            TensorKind::Tq2_0 => Codec::Tq2_0,
            TensorKind::Q2_0 => {
                // llama.cpp has blocks of 64, its fork that began with this type blocks of 128; the room up
                // to the next tensor tells.
                let small = Codec::Q2_0 { group: 64 };
                let fits = small.bytes(shape).is_ok_and(|bytes| bytes <= tensor.data.len());
                if fits { small } else { Codec::Q2_0 { group: 128 } }
            }
            TensorKind::Iq1Bn => Codec::Iq1Bn,
            TensorKind::Iq2Bn => Codec::Iq2Bn,
            TensorKind::Iq2BnR4 => Codec::Iq2BnR4,
            _ => return Err(tensor.wrong_kind("a ternary type")),
        })
    }
}

/// A ternary matrix of a file.
#[derive(Debug, Clone)]
pub struct Ternary<'a> {
    /// Its weights.
    pub reader: Reader<'a>,
    /// What they are multiplied with.
    pub scales: Scales,
    /// Where its bytes lie in [`Gguf::shared`].
    pub range: Range<usize>,
}
