//! The weights of a model, taken from its file: ternary matrices packed for their kernels (or executed
//! in place), norms as f32, embedding and head as they are stored.

use super::config::Config;
use super::linear::{Choice, Linear};
use crate::Error;
use crate::gguf::{Gguf, SharedBytes, TensorKind};
use half::f16;
use rayon::prelude::*;
use std::ops::Range;
use trilut_kernels::{Layout, Packed, check_i2s_file, float};

/// Everything a forward pass reads.
#[derive(Debug)]
pub(crate) struct Weights {
    /// vocab x hidden
    pub(crate) embedding: Matrix,
    pub(crate) blocks: Vec<Block>,
    /// hidden
    pub(crate) output_norm: Vec<f32>,
    /// vocab x hidden; `None` when the head is tied to the embedding
    pub(crate) output: Option<Matrix>,
}

/// One transformer block.
#[derive(Debug)]
pub(crate) struct Block {
    /// hidden
    pub(crate) attn_norm: Vec<f32>,
    /// q_len x hidden
    pub(crate) q: Linear,
    /// kv_len x hidden
    pub(crate) k: Linear,
    /// kv_len x hidden
    pub(crate) v: Linear,
    /// q_len
    pub(crate) attn_sub_norm: Vec<f32>,
    /// hidden x q_len
    pub(crate) attn_output: Linear,
    /// hidden
    pub(crate) ffn_norm: Vec<f32>,
    /// ffn x hidden
    pub(crate) gate: Linear,
    /// ffn x hidden
    pub(crate) up: Linear,
    /// ffn
    pub(crate) ffn_sub_norm: Vec<f32>,
    /// hidden x ffn
    pub(crate) down: Linear,
}

impl Weights {
    /// Loads all tensors that `config` calls for; `choices` holds one choice per entry of
    /// [`Config::linears`]. Blocks are read in parallel.
    pub(crate) fn load(gguf: &Gguf, config: &Config, choices: &[Choice; 7]) -> Result<Self, Error> {
        let (hidden, vocab) = (config.hidden, config.vocab);
        let output = match gguf.opt_tensor("output.weight")? {
            Some(_) => Some(Matrix::load(gguf, "output.weight", vocab, hidden)?),
            None => None,
        };
        let blocks = (0..config.layers).into_par_iter();
        Ok(Self {
            embedding: Matrix::load(gguf, "token_embd.weight", vocab, hidden)?,
            blocks: blocks
                .map(|layer| Block::load(gguf, config, choices, layer))
                .collect::<Result<_, _>>()?,
            output_norm: norm(gguf, "output_norm.weight", hidden)?,
            output,
        })
    }

    /// The matrix that turns the last hidden state into logits.
    pub(crate) fn head(&self) -> &Matrix {
        self.output.as_ref().unwrap_or(&self.embedding)
    }

    /// Bytes that decoding one token reads.
    pub(crate) fn bytes_per_token(&self) -> usize {
        self.head().bytes() + self.blocks.iter().map(Block::bytes).sum::<usize>()
    }
}

impl Block {
    fn load(
        gguf: &Gguf,
        config: &Config,
        choices: &[Choice; 7],
        layer: usize,
    ) -> Result<Self, Error> {
        let linear = |index: usize| {
            let (name, _) = config.linears()[index];
            load_linear(gguf, &format!("blk.{layer}.{name}.weight"), &choices[index])
        };
        let norm = |name: &str, n| norm(gguf, &format!("blk.{layer}.{name}.weight"), n);
        Ok(Self {
            attn_norm: norm("attn_norm", config.hidden)?,
            q: linear(0)?,
            k: linear(1)?,
            v: linear(2)?,
            attn_sub_norm: norm("attn_sub_norm", config.q_len())?,
            attn_output: linear(3)?,
            ffn_norm: norm("ffn_norm", config.hidden)?,
            gate: linear(4)?,
            up: linear(5)?,
            ffn_sub_norm: norm("ffn_sub_norm", config.ffn)?,
            down: linear(6)?,
        })
    }
}

impl Block {
    /// Bytes of the ternary weights.
    fn bytes(&self) -> usize {
        let Self { q, k, v, attn_output, gate, up, down, .. } = self;
        [q, k, v, attn_output, gate, up, down].into_iter().map(Linear::bytes).sum()
    }
}

/// A ternary tensor for the chosen kernel: in place where its layout is the file's, else repacked,
/// after which the file's pages are let go.
fn load_linear(gguf: &Gguf, name: &str, choice: &Choice) -> Result<Linear, Error> {
    let (shape, layout) = (choice.shape, choice.kernel.layout());
    let tensor = gguf.i2s(name, shape)?;
    let weights = if layout == Layout::I2s && shape.k.is_multiple_of(128) {
        // Repacking checks the codes by itself.
        check_i2s_file(shape, tensor.codes)
            .and_then(|()| Packed::shared(layout, shape, gguf.shared(), tensor.range.clone()))
    } else {
        let packed = Packed::from_i2s_file(layout, shape, tensor.codes);
        gguf.release(tensor.range.clone());
        packed
    };
    let weights = weights.map_err(|source| Error::Weights { tensor: name.to_owned(), source })?;
    Ok(Linear::new(weights, tensor.scale, choice))
}

/// A norm's `n` weights.
fn norm(gguf: &Gguf, name: &str, n: usize) -> Result<Vec<f32>, Error> {
    let tensor = gguf.tensor(name)?;
    tensor.expect_dims(&[n as u64])?;
    let weights = tensor.to_f32()?;
    match weights.iter().position(|w| !w.is_finite()) {
        None => Ok(weights),
        Some(index) => Err(Error::NotFiniteWeight { tensor: name.to_owned(), index }),
    }
}

/// A float matrix as the file stores it, row by row.
pub(crate) struct Matrix {
    k: usize,
    store: Store,
}

enum Store {
    /// f16 executed in place.
    Mapped(SharedBytes, Range<usize>),
    F32(Vec<f32>),
    /// f16 that does not lie at an even address in the file.
    F16(Vec<f16>),
}

impl std::fmt::Debug for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match &self.store {
            Store::Mapped(..) => "f16 in place",
            Store::F32(_) => "f32",
            Store::F16(_) => "f16",
        };
        write!(f, "Matrix({kind}, rows of {})", self.k)
    }
}

impl Matrix {
    fn load(gguf: &Gguf, name: &str, m: usize, k: usize) -> Result<Self, Error> {
        let tensor = gguf.tensor(name)?;
        tensor.expect_dims(&[k as u64, m as u64])?;
        let store = match tensor.kind() {
            TensorKind::F16 => match bytemuck::try_cast_slice::<u8, f16>(tensor.data()) {
                Ok(_) => Store::Mapped(gguf.shared(), tensor.range()),
                Err(_) => {
                    let bytes = tensor.data().chunks_exact(2);
                    Store::F16(bytes.map(bytemuck::pod_read_unaligned).collect())
                }
            },
            _ => Store::F32(tensor.to_f32()?),
        };
        Ok(Self { k, store })
    }

    fn halves(&self) -> &[f16] {
        match &self.store {
            Store::Mapped(bytes, range) => bytemuck::cast_slice(&(**bytes).as_ref()[range.clone()]),
            Store::F16(values) => values,
            Store::F32(_) => &[],
        }
    }

    /// One row as f32.
    pub(crate) fn row(&self, isa: trilut_kernels::Supported, row: usize, out: &mut [f32]) {
        let range = row * self.k..(row + 1) * self.k;
        match &self.store {
            Store::F32(values) => out.copy_from_slice(&values[range]),
            _ => float::elementwise::widen_f16(isa, &self.halves()[range], out),
        }
    }

    /// `out[i]` = row `rows.start + i` times `x`.
    pub(crate) fn rows_times(
        &self,
        isa: trilut_kernels::Supported,
        rows: Range<usize>,
        x: &[f32],
        out: &mut [f32],
    ) {
        let range = rows.start * self.k..rows.end * self.k;
        match &self.store {
            Store::F32(values) => float::matvec::rows_f32(isa, &values[range], x, out),
            _ => float::matvec::rows_f16(isa, &self.halves()[range], x, out),
        }
    }

    /// Bytes that one pass over all rows reads.
    pub(crate) fn bytes(&self) -> usize {
        match &self.store {
            Store::Mapped(_, range) => range.len(),
            Store::F16(values) => values.len() * 2,
            Store::F32(values) => values.len() * 4,
        }
    }
}
