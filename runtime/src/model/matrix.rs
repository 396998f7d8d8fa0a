//! Embedding and head: a float or block-quantised matrix as the file stores it, row by row.

use super::weights::Load;
use crate::Error;
use crate::gguf::{Gguf, GgufError, SharedBytes, Tensor, TensorKind};
use half::f16;
use rayon::prelude::*;
use std::ops::Range;
use trilut_kernels::float::blocks::BlockFormat;
use trilut_kernels::float::vectors::Vectors;
use trilut_kernels::float::{elementwise, matvec};
use trilut_kernels::pool::Pool;
use trilut_kernels::{AlignedBytes, Supported};

/// Bytes that one task copies, letting the file's pages behind them go, or checks.
const PART: usize = 1 << 20;

/// A matrix that the forward pass takes rows of and multiplies with.
pub(crate) struct Matrix {
    /// Weights of a row.
    k: usize,
    elements: Elements,
    store: Store,
}

/// How a weight is stored.
#[derive(Debug, Clone, Copy)]
enum Elements {
    F32,
    F16,
    BF16,
    Blocks(BlockFormat),
}

impl Elements {
    /// Bytes of `k` weights, which are whole blocks.
    fn bytes(self, k: usize) -> usize {
        match self {
            Self::F32 => k * 4,
            Self::F16 | Self::BF16 => k * 2,
            Self::Blocks(format) => k / format.weights() * format.bytes(),
        }
    }

    /// What the address of the first weight must be a multiple of.
    fn alignment(self) -> usize {
        match self {
            Self::F32 => align_of::<f32>(),
            Self::F16 | Self::BF16 => align_of::<f16>(),
            Self::Blocks(_) => 1,
        }
    }
}

/// Where the bytes are.
enum Store {
    /// In the file.
    Shared(SharedBytes, Range<usize>),
    Owned(AlignedBytes),
}

impl std::fmt::Debug for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = match self.store {
            Store::Shared(..) => "in place",
            Store::Owned(_) => "owned",
        };
        write!(f, "Matrix({:?} {place}, rows of {})", self.elements, self.k)
    }
}

impl Matrix {
    /// Moves bytes of its own near to the threads that read them, each an even share of the rows.
    pub(crate) fn settle(&mut self, pool: &Pool) {
        let row = self.elements.bytes(self.k);
        if let Store::Owned(bytes) = &mut self.store {
            let rows = bytes.len() / row.max(1);
            bytes.settle(pool, rows, 0);
        }
    }

    /// The tensor `name` of `m` rows of `k` weights: in place where that is asked for and its address
    /// allows, else copied.
    ///
    /// # Errors
    /// When it is missing, of another type or size, or a block's factor is not a finite number.
    pub(crate) fn load(
        gguf: &Gguf,
        name: &str,
        m: usize,
        k: usize,
        load: Load,
    ) -> Result<Self, Error> {
        let tensor = gguf.tensor(name)?;
        tensor.expect_dims(&[k as u64, m as u64])?;
        let elements = match tensor.kind() {
            TensorKind::F32 => Elements::F32,
            TensorKind::F16 => Elements::F16,
            TensorKind::BF16 => Elements::BF16,
            kind => match kind.block_format() {
                Some(format) => Elements::Blocks(format),
                None => return Err(tensor.wrong_kind("a type of floats").into()),
            },
        };
        if let Elements::Blocks(format) = elements {
            check_blocks(&tensor, format, k)?;
        }
        let data = tensor.data();
        let aligned = data.as_ptr().addr().is_multiple_of(elements.alignment());
        let store = if load == Load::Map && aligned {
            Store::Shared(gguf.shared(), tensor.range())
        } else {
            let mut bytes = AlignedBytes::zeroed(data.len());
            let start = tensor.range().start;
            bytes.par_chunks_mut(PART).zip(data.par_chunks(PART)).enumerate().for_each(
                |(index, (to, from))| {
                    to.copy_from_slice(from);
                    let at = start + index * PART;
                    gguf.release(at..at + from.len());
                },
            );
            Store::Owned(bytes)
        };
        Ok(Self { k, elements, store })
    }

    fn data(&self) -> &[u8] {
        match &self.store {
            Store::Shared(bytes, range) => &(**bytes).as_ref()[range.clone()],
            Store::Owned(bytes) => bytes,
        }
    }

    /// The bytes of some rows.
    fn rows(&self, rows: Range<usize>) -> &[u8] {
        let row = self.elements.bytes(self.k);
        &self.data()[rows.start * row..rows.end * row]
    }

    /// One row as f32.
    pub(crate) fn row(&self, isa: Supported, row: usize, out: &mut [f32]) {
        let bytes = self.rows(row..row + 1);
        match self.elements {
            Elements::F32 => out.copy_from_slice(bytemuck::cast_slice(bytes)),
            Elements::F16 => elementwise::widen_f16(isa, bytemuck::cast_slice(bytes), out),
            Elements::BF16 => elementwise::widen_bf16(isa, bytemuck::cast_slice(bytes), out),
            Elements::Blocks(format) => format.widen(isa, bytes, out),
        }
    }

    /// Vectors in the form in which the rows are multiplied with them.
    pub(crate) fn vectors<'a>(&self, isa: Supported, xs: Vec<&'a [f32]>) -> Vectors<'a> {
        match self.elements {
            Elements::Blocks(format) => format.vectors(isa, &xs),
            Elements::F32 | Elements::F16 | Elements::BF16 => Vectors::Floats(xs),
        }
    }

    /// `outs[t][i]` = row `rows.start + i` times vector `t`, for vectors that [`Matrix::vectors`] made.
    pub(crate) fn rows_times(
        &self,
        isa: Supported,
        rows: Range<usize>,
        xs: &Vectors<'_>,
        outs: &mut [&mut [f32]],
    ) {
        let bytes = self.rows(rows);
        let floats = || match xs {
            Vectors::Floats(xs) => &xs[..],
            Vectors::Integers(_) => panic!("float rows are multiplied with floats"),
        };
        match self.elements {
            Elements::F32 => matvec::rows_f32(isa, bytemuck::cast_slice(bytes), floats(), outs),
            Elements::F16 => matvec::rows_f16(isa, bytemuck::cast_slice(bytes), floats(), outs),
            Elements::BF16 => matvec::rows_bf16(isa, bytemuck::cast_slice(bytes), floats(), outs),
            Elements::Blocks(format) => format.rows(isa, bytes, xs, outs),
        }
    }

    /// Bytes that one pass over all rows reads.
    pub(crate) fn bytes(&self) -> usize {
        self.data().len()
    }
}

/// Refuses rows that are not whole blocks, and blocks whose factor is infinite or NaN; any other bytes
/// are finite weights.
fn check_blocks(tensor: &Tensor<'_>, format: BlockFormat, k: usize) -> Result<(), Error> {
    let block = format.weights();
    let name = || tensor.name().to_owned();
    if !k.is_multiple_of(block) {
        let kind = tensor.type_name();
        return Err(GgufError::Rows { tensor: name(), k, kind, block }.into());
    }
    let part = PART / format.bytes();
    let parts = tensor.data().par_chunks(part * format.bytes()).enumerate();
    let bad = parts.find_map_first(|(index, blocks)| {
        format.first_not_finite(blocks).map(|at| (index * part + at) * block)
    });
    match bad {
        None => Ok(()),
        Some(index) => Err(Error::NotFiniteWeight { tensor: name(), index }),
    }
}
