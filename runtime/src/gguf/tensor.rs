//! Tensors of a file: what is listed, and what can be computed with.

use super::tensor_kind::TypeFacts;
use super::{Gguf, GgufError, TensorKind};
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

    /// The data as it is in the file: little-endian, of I2_S the codes and the scale.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// Where [`data`](Self::data) lies in [`Gguf::shared`].
    pub fn range(&self) -> Range<usize> {
        self.info.range.clone()
    }

    /// The values of an F32 or F16 tensor.
    ///
    /// # Errors
    /// When the tensor is of another type.
    pub fn to_f32(&self) -> Result<Vec<f32>, GgufError> {
        let f32s = |b: &[u8]| f32::from_le_bytes(b.try_into().expect("chunks of 4"));
        let f16s = |b: &[u8]| half::f16::from_le_bytes(b.try_into().expect("chunks of 2")).to_f32();
        match self.info.kind {
            TensorKind::F32 => Ok(self.data.chunks_exact(4).map(f32s).collect()),
            TensorKind::F16 => Ok(self.data.chunks_exact(2).map(f16s).collect()),
            _ => Err(self.wrong_kind("F32 or F16")),
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

/// A ternary matrix in the flattened 128-block form.
#[derive(Debug, Clone)]
pub struct I2sTensor<'a> {
    /// Two bits per weight, `m * k / 4` bytes. That no code is 3 is not checked here.
    pub codes: &'a [u8],
    /// The value of weight +1; finite and above 0.
    pub scale: f32,
    /// Where `codes` lies in [`Gguf::shared`].
    pub range: Range<usize>,
}

impl Gguf {
    /// A tensor to compute with, `None` when the file has none of this name.
    ///
    /// # Errors
    /// When its type is not F32, F16, Q8_0, Q6_K or I2_S.
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
    /// When there is none of this name, or its type is not F32, F16, Q8_0, Q6_K or I2_S.
    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>, GgufError> {
        self.opt_tensor(name)?.ok_or_else(|| GgufError::MissingTensor(name.to_owned()))
    }

    /// A ternary matrix of `shape`.
    ///
    /// # Errors
    /// When it is missing, of another type or size, does not fill whole blocks of 128 weights, or has
    /// a scale that is not a positive number.
    pub fn i2s(&self, name: &str, shape: Shape) -> Result<I2sTensor<'_>, GgufError> {
        let tensor = self.tensor(name)?;
        let name = || name.to_owned();
        if tensor.kind() != TensorKind::I2S {
            return Err(tensor.wrong_kind("I2_S"));
        }
        tensor.expect_dims(&[shape.k as u64, shape.m as u64])?;
        if !shape.weights().is_multiple_of(128) {
            return Err(GgufError::Blocks { tensor: name(), shape });
        }
        let (codes, scale) = tensor.data.split_at(shape.weights() / 4);
        let scale = f32::from_le_bytes(scale[..4].try_into().expect("4 bytes"));
        if !(scale.is_finite() && scale > 0.0) {
            return Err(GgufError::Scale { tensor: name(), scale });
        }
        let start = tensor.info.range.start;
        Ok(I2sTensor { codes, scale, range: start..start + codes.len() })
    }
}
