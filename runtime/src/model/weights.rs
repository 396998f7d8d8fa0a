//! The weights of a model, taken from its file: ternary matrices packed for their kernels (or executed
//! in place), norms as f32, embedding and head as they are stored.

use super::config::Config;
use super::linear::{Choice, Linear};
use super::matrix::Matrix;
use crate::Error;
use crate::gguf::{Gguf, GgufError, Ternary, TernaryLayouts};
use crate::ternary::{Codec, I2sLayout};
use rayon::prelude::*;
use std::sync::OnceLock;
use trilut_kernels::{Layout, Packed, check_i2s_file};

/// Where a model's weights are kept. It changes no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Load {
    /// In the pages of the mapped file, where their layout is the one that is executed.
    #[default]
    Map,
    /// In memory of the process; the file's pages are let go.
    Copy,
}

impl std::fmt::Display for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Map => "map",
            Self::Copy => "copy",
        })
    }
}

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
    pub(crate) fn load(
        gguf: &Gguf,
        config: &Config,
        choices: &[Choice; 7],
        load: Load,
        layouts: &TernaryLayouts,
    ) -> Result<Self, Error> {
        let (hidden, vocab) = (config.hidden, config.vocab);
        let output = match gguf.opt_tensor("output.weight")? {
            Some(_) => Some(Matrix::load(gguf, "output.weight", vocab, hidden, load)?),
            None => None,
        };
        let blocks = (0..config.layers).into_par_iter();
        Ok(Self {
            embedding: Matrix::load(gguf, "token_embd.weight", vocab, hidden, load)?,
            blocks: blocks
                .map(|layer| Block::load(gguf, config, choices, layer, load, layouts))
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
        load: Load,
        layouts: &TernaryLayouts,
    ) -> Result<Self, Error> {
        let linear = |index: usize| {
            let (name, _) = config.linears()[index];
            load_linear(gguf, &format!("blk.{layer}.{name}"), &choices[index], load, layouts)
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

/// A ternary tensor for the chosen kernel: in place where that is asked for and its layout is the
/// file's, else repacked, after which the file's pages are let go.
fn load_linear(
    gguf: &Gguf,
    name: &str,
    choice: &Choice,
    load: Load,
    layouts: &TernaryLayouts,
) -> Result<Linear, Error> {
    let (shape, layout) = (choice.shape, choice.kernel.layout());
    let tensor_name = format!("{name}.weight");
    let Ternary { reader, scales, range } = gguf.ternary(&tensor_name, shape, layouts)?;
    let is_canonical = reader.codec() == Codec::I2s(I2sLayout::X86);
    let in_place = is_canonical && layout == Layout::I2s && shape.k.is_multiple_of(128);
    let refused = |source| Error::Weights { tensor: tensor_name.clone(), source };
    let weights = if load == Load::Map && in_place {
        let codes = range.start..range.start + shape.weights() / 4;
        // Repacking checks the codes by itself.
        check_i2s_file(shape, reader.codes()).map_err(refused)?;
        Packed::shared(layout, shape, gguf.shared(), codes).map_err(refused)?
    } else if is_canonical {
        let packed = Packed::from_i2s_file(layout, shape, reader.codes());
        gguf.release(range);
        packed.map_err(refused)?
    } else {
        let first_error = OnceLock::new();
        let packed = Packed::from_rows(layout, shape, &|row, out: &mut [i8]| {
            if let Err(error) = reader.row(row, out) {
                // Any of them will do; a weight of 0 cannot be an error of its own.
                first_error.get_or_init(|| error);
                out.fill(0);
            }
        });
        gguf.release(range);
        if let Some(source) = first_error.into_inner() {
            return Err(GgufError::Codec { tensor: tensor_name, source }.into());
        }
        packed.map_err(refused)?
    };
    // What llama.cpp multiplies with when the weights' own scale is 1.
    let scales = match gguf.opt_tensor(&format!("{name}.scale"))? {
        None => scales,
        Some(factor) => {
            factor.expect_dims(&[1])?;
            let factor = factor.to_f32()?[0];
            if !(factor.is_finite() && factor > 0.0) {
                return Err(Error::NotFiniteWeight { tensor: format!("{name}.scale"), index: 0 });
            }
            scales.times(factor)
        }
    };
    Ok(Linear::new(weights, scales, choice))
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
