//! What a converted file will hold: each tensor, and where it comes from.

use super::ConvertError;
use super::checkpoint::Checkpoint;
use super::floats::Floats;
use super::ternary::{Measure, Ternary};
use crate::gguf::{Gguf, GgufWriter, TensorKind};
use crate::ternary::{Codec, I2sLayout};
use half::f16;
use trilut_kernels::Supported;
use trilut_presets::Shape;

/// Where a conversion reads.
pub(super) enum Source {
    Checkpoint(Checkpoint),
    Gguf(Gguf),
}

impl Source {
    /// Lets the pages of bytes go that were handed out.
    pub(super) fn release(&self, bytes: &[u8]) {
        match self {
            Self::Checkpoint(checkpoint) => checkpoint.release(bytes),
            Self::Gguf(gguf) => {
                let whole = gguf.shared();
                if let Some(range) = super::checkpoint::place((*whole).as_ref(), bytes) {
                    gguf.release(range);
                }
            }
        }
    }
}

/// Everything that is to be written.
pub(super) struct Plan<'a> {
    pub(super) header: GgufWriter,
    pub(super) items: Vec<Item<'a>>,
    /// What a person should know.
    pub(super) notes: Vec<String>,
}

/// A tensor of the file.
pub(super) struct Item<'a> {
    pub(super) name: String,
    /// The innermost first.
    pub(super) dims: Vec<u64>,
    pub(super) content: Content<'a>,
}

/// What a tensor is made of.
pub(super) enum Content<'a> {
    /// Bytes as they are, with zeros up to `size`.
    Bytes { bytes: &'a [u8], kind: TensorKind, size: u64 },
    /// Floats in another type, each increased by `plus`.
    Floats { floats: Floats<'a>, m: usize, kind: TensorKind, plus: f32 },
    /// A ternary matrix.
    Ternary { ternary: Ternary<'a>, codec: Codec, measure: Measure },
    /// The scale of the ternary matrix before it, whose blocks cannot hold it exactly.
    Scale(f32),
}

impl Item<'_> {
    /// Declares the tensor.
    pub(super) fn declare(&self, header: &mut GgufWriter) {
        match &self.content {
            Content::Bytes { kind, size, .. } => {
                header.sized_tensor(&self.name, &self.dims, *kind, *size);
            }
            Content::Floats { kind, .. } => {
                header.tensor(&self.name, &self.dims, *kind);
            }
            Content::Ternary { codec, .. } => {
                header.tensor(&self.name, &self.dims, codec.kind());
            }
            Content::Scale(_) => {
                header.tensor(&self.name, &self.dims, TensorKind::F32);
            }
        }
    }
}

impl<'a> Plan<'a> {
    pub(super) fn new() -> Self {
        Self { header: GgufWriter::new(), items: Vec::new(), notes: Vec::new() }
    }

    /// Adds a ternary matrix and finds its scale. Blocks of TQ codecs hold a scale as f16; one that this
    /// would change goes into a tensor of its own, as llama.cpp knows them.
    pub(super) fn ternary(
        &mut self,
        isa: Supported,
        name: &str,
        ternary: Ternary<'a>,
        codec: Codec,
        source: &Source,
    ) -> Result<Measure, ConvertError> {
        let (m, k) = (ternary.m, ternary.k);
        codec.bytes(Shape { m, k }).map_err(|error| {
            ConvertError::tensor(&ternary.name, format!("cannot be stored: {error}"))
        })?;
        let measure = ternary.measure(isa)?;
        source.release(ternary.bytes());
        let dims = vec![k as u64, m as u64];
        let content = Content::Ternary { ternary, codec, measure };
        self.items.push(Item { name: format!("{name}.weight"), dims, content });
        if factor(codec, &measure) != measure.scale {
            let content = Content::Scale(measure.scale);
            self.items.push(Item { name: format!("{name}.scale"), dims: vec![1], content });
        }
        Ok(measure)
    }
}

/// What the blocks of a codec hold as their scale: the scale if an f16 holds it exactly, else 1.
pub(super) fn factor(codec: Codec, measure: &Measure) -> f32 {
    let near = f16::from_f32(measure.scale).to_f32();
    if is_i2s(codec) || near == measure.scale { measure.scale } else { 1.0 }
}

/// Whether it is I2_S as published files have it, whose scale is an f32.
pub(super) fn is_i2s(codec: Codec) -> bool {
    codec == Codec::I2s(I2sLayout::X86)
}

/// Rows of `k` weights that fill whole blocks: of I2_S, whose blocks run over the end of a row, some
/// together.
pub(super) fn rows_of_blocks(codec: Codec, k: usize) -> usize {
    if is_i2s(codec) { 128 >> k.trailing_zeros().min(7) } else { 1 }
}
