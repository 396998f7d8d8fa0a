//! Rows of stored floats.

use half::f16;
use safetensors::Dtype;
use trilut_kernels::Supported;
use trilut_kernels::float::elementwise;

/// How floats are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FloatType {
    F32,
    F16,
    Bf16,
}

impl FloatType {
    /// The type of a checkpoint's tensor, if it is one of floats.
    pub(super) fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F32 => Some(Self::F32),
            Dtype::F16 => Some(Self::F16),
            Dtype::BF16 => Some(Self::Bf16),
            _ => None,
        }
    }

    /// The type with this number in a GGUF file.
    pub(super) fn from_id(id: u32) -> Option<Self> {
        match id {
            0 => Some(Self::F32),
            1 => Some(Self::F16),
            30 => Some(Self::Bf16),
            _ => None,
        }
    }

    /// Bytes of one.
    pub(super) const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// A matrix of stored floats, row after row, little-endian; the bytes need not be aligned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Floats<'a> {
    pub(super) kind: FloatType,
    pub(super) bytes: &'a [u8],
    /// Values of a row.
    pub(super) k: usize,
}

impl<'a> Floats<'a> {
    /// The bytes of some rows.
    pub(super) fn rows(&self, start: usize, count: usize) -> &'a [u8] {
        let row = self.k * self.kind.bytes();
        &self.bytes[start * row..(start + count) * row]
    }

    /// Writes the values of row `row`.
    pub(super) fn row(&self, isa: Supported, row: usize, out: &mut [f32]) {
        let bytes = self.rows(row, 1);
        match self.kind {
            FloatType::F32 => {
                let values = bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b));
                out.iter_mut().zip(values).for_each(|(out, value)| *out = value);
            }
            FloatType::Bf16 => {
                let bits = bytes.as_chunks().0.iter().map(|&b| u16::from_le_bytes(b));
                let values = bits.map(|b| f32::from_bits(u32::from(b) << 16));
                out.iter_mut().zip(values).for_each(|(out, value)| *out = value);
            }
            FloatType::F16 => {
                let mut part = [f16::ZERO; 256];
                for (bytes, out) in bytes.chunks(512).zip(out.chunks_mut(256)) {
                    let part = &mut part[..out.len()];
                    let bits = bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b));
                    part.iter_mut().zip(bits).for_each(|(part, value)| *part = value);
                    elementwise::widen_f16(isa, part, out);
                }
            }
        }
    }
}
