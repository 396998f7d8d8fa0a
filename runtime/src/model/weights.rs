//! The weights of a model, taken from its file: ternary matrices packed for their kernels (or executed
//! in place), norms as f32, embedding and head as they are stored.

use super::ModelOptions;
use super::config::Config;
use super::groups::Groups;
use super::linear::{Choice, Linear};
use super::matrix::Matrix;
use crate::Error;
use crate::gguf::{Gguf, GgufError, Ternary};
use crate::ternary::{Codec, I2sLayout, Scales};
use rayon::prelude::*;
use std::collections::HashSet;
use std::sync::{Mutex, OnceLock};
use trilut_kernels::pool::Pool;
use trilut_kernels::{Cpu, Layout, Packed, Shape, check_i2s_file};

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
    /// The most matrices that a linear layer is run as.
    pub(crate) groups: usize,
}

/// One transformer block.
#[derive(Debug)]
pub(crate) struct Block {
    /// q_len x hidden, kv_len x hidden twice: of one input, or each of its own
    pub(crate) qkv: Vec<Entry>,
    /// head_dim twice: norms of query and key heads
    pub(crate) head_norms: Option<[Vec<f32>; 2]>,
    /// hidden x q_len
    pub(crate) attn_output: Entry,
    /// hidden
    pub(crate) attn_post_norm: Option<Vec<f32>>,
    /// ffn x hidden twice: of one input, or each of its own
    pub(crate) gate_up: Vec<Entry>,
    /// hidden x ffn
    pub(crate) down: Entry,
    /// hidden
    pub(crate) ffn_post_norm: Option<Vec<f32>>,
}

/// Linear layers with one input, and the norms on its way to them.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Of [`Config::stacks`], the one that these layers are.
    pub(crate) stack: usize,
    /// What it is called there.
    pub(crate) name: &'static str,
    /// In order; perhaps none.
    pub(crate) norms: Vec<Vec<f32>>,
    pub(crate) linears: Vec<Linear>,
}

/// Where weights come from.
struct Source<'a> {
    gguf: &'a Gguf,
    config: &'a Config,
    /// One per entry of [`Config::linears`].
    choices: &'a [Choice; 7],
    threads: usize,
    cpu: &'a Cpu,
    options: &'a ModelOptions<'a>,
    /// The tensors that were taken.
    taken: Mutex<HashSet<String>>,
}

impl Weights {
    /// Loads all tensors that `config` calls for; `choices` holds one choice per entry of
    /// [`Config::linears`]. Blocks are read in parallel.
    ///
    /// # Errors
    /// When a tensor is missing or unusable, or the file has one that the graph has no place for.
    pub(crate) fn load(
        gguf: &Gguf,
        config: &Config,
        choices: &[Choice; 7],
        threads: usize,
        cpu: &Cpu,
        options: &ModelOptions<'_>,
    ) -> Result<Self, Error> {
        let partial = gguf.opt_arch_u32("block_count")? != Some(config.layers as u32);
        let source =
            Source { gguf, config, choices, threads, cpu, options, taken: Mutex::default() };
        let matrix = |name: &str| {
            source.take(name);
            Matrix::load(gguf, name, config.vocab, config.hidden, options.load)
        };
        let output = match gguf.opt_tensor("output.weight")? {
            Some(_) => Some(matrix("output.weight")?),
            None => None,
        };
        let blocks = (0..config.layers).into_par_iter();
        let embedding = matrix("token_embd.weight")?;
        let blocks: Vec<Block> =
            blocks.map(|layer| source.block(layer)).collect::<Result<_, _>>()?;
        let linears = blocks.iter().flat_map(Block::linears);
        let groups = linears.filter_map(|linear| linear.groups().map(Groups::count)).max();
        let weights = Self {
            embedding,
            blocks,
            groups: groups.unwrap_or(1),
            output_norm: source.norm("output_norm", config.hidden)?,
            output,
        };
        let taken = source.taken.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        // Those of blocks that were left out on purpose are no surprise.
        let is_left_out = |name: &str| {
            let layer = name.strip_prefix("blk.").and_then(|rest| rest.split('.').next());
            layer.and_then(|n| n.parse().ok()).is_some_and(|n: usize| partial && n >= config.layers)
        };
        let is_foreign = |name: &str| !taken.contains(name) && !is_left_out(name);
        match gguf.tensors().iter().find(|tensor| is_foreign(tensor.name())) {
            None => Ok(weights),
            Some(tensor) => Err(Error::ForeignTensor {
                tensor: tensor.name().to_owned(),
                architecture: gguf.architecture()?.to_owned(),
            }),
        }
    }

    /// Moves what is in memory of the process near to the threads that read it, on machines where that
    /// matters.
    pub(crate) fn settle(&mut self, pool: &Pool) {
        if !pool.spans_nodes() {
            return;
        }
        for Block { qkv, attn_output, gate_up, down, .. } in &mut self.blocks {
            let entries = qkv.iter_mut().chain(gate_up).chain([attn_output, down]);
            entries.flat_map(|entry| &mut entry.linears).for_each(|linear| linear.settle(pool));
        }
        self.output.as_mut().unwrap_or(&mut self.embedding).settle(pool);
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
    /// The linear layers, in the order of [`Config::linears`].
    pub(crate) fn linears(&self) -> impl Iterator<Item = &Linear> {
        let Self { qkv, attn_output, gate_up, down, .. } = self;
        let entries = qkv.iter().chain([attn_output]).chain(gate_up).chain([down]);
        entries.flat_map(|entry| &entry.linears)
    }

    /// Bytes of the ternary weights.
    fn bytes(&self) -> usize {
        self.linears().map(Linear::bytes).sum()
    }
}

impl Source<'_> {
    fn take(&self, name: &str) {
        let mut taken = self.taken.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        taken.insert(name.to_owned());
    }

    fn block(&self, layer: usize) -> Result<Block, Error> {
        let Config { hidden, ffn, head_dim, family, .. } = *self.config;
        let norm = |name: &str, n| self.norm(&format!("blk.{layer}.{name}"), n);
        let optional = |wanted: bool, name: &str, n| match wanted {
            true => norm(name, n).map(Some),
            false => Ok(None),
        };
        let stacks = self.config.stacks();
        // The layers from `first` on, `count` of them, behind the norms of their input.
        let entry = |stack: usize, first: usize, count: usize, outer: Option<Vec<f32>>| {
            let (linears, (name, _)) = (self.config.linears(), stacks[stack]);
            let mut norms: Vec<Vec<f32>> = outer.into_iter().collect();
            if family.input_norms {
                let (linear, shape) = linears[first];
                norms.push(norm(&format!("{linear}_norm_in"), shape.k)?);
            }
            let stored = (first..first + count).map(|index| {
                let name = format!("blk.{layer}.{}", linears[index].0);
                let stored = self.stored(&name, &self.choices[index])?;
                Ok((name, stored, &self.choices[index]))
            });
            let stored = stored.collect::<Result<Vec<_>, Error>>()?;
            // Layers of one input are cut alike; groups of files are 64, 128 or 256 inputs.
            let group = |ternary: &Ternary<'_>| match ternary.scales {
                Scales::Groups { inputs, .. } => Some(inputs),
                _ => None,
            };
            let inputs = stored.iter().filter_map(|(_, ternary, _)| group(ternary)).min();
            let linears = stored.into_iter().map(|(name, ternary, choice)| match inputs {
                None => self.linear(&name, ternary, choice),
                Some(inputs) => self.grouped(&name, ternary, inputs, choice.shape),
            });
            let linears = linears.collect::<Result<Vec<_>, Error>>()?;
            Ok::<_, Error>(Entry { stack, name, norms, linears })
        };
        // Of the layers with one input, one entry, or, where each has a norm of its own, one for each.
        let entries =
            |stack: usize, first: usize, count: usize, outer: Vec<f32>| match family.input_norms {
                false => Ok(vec![entry(stack, first, count, Some(outer))?]),
                true => (0..count)
                    .map(|i| entry(stack + i, first + i, 1, Some(outer.clone())))
                    .collect::<Result<Vec<_>, Error>>(),
            };
        let qkv = entries(0, 0, 3, norm("attn_norm", hidden)?)?;
        let next = qkv.len();
        let sub_norm = optional(family.sub_norms, "attn_sub_norm", self.config.q_len())?;
        let attn_output = entry(next, 3, 1, sub_norm)?;
        let gate_up = entries(next + 1, 4, 2, norm("ffn_norm", hidden)?)?;
        let sub_norm = optional(family.sub_norms, "ffn_sub_norm", ffn)?;
        let down = entry(next + 1 + gate_up.len(), 6, 1, sub_norm)?;
        let head_norms = match family.head_norms {
            true => Some([norm("attn_q_norm", head_dim)?, norm("attn_k_norm", head_dim)?]),
            false => None,
        };
        Ok(Block {
            qkv,
            head_norms,
            attn_output,
            attn_post_norm: optional(family.post_norms, "post_attention_norm", hidden)?,
            gate_up,
            down,
            ffn_post_norm: optional(family.post_norms, "post_ffw_norm", hidden)?,
        })
    }

    /// A norm's `n` weights.
    fn norm(&self, name: &str, n: usize) -> Result<Vec<f32>, Error> {
        let name = format!("{name}.weight");
        self.take(&name);
        let tensor = self.gguf.tensor(&name)?;
        tensor.expect_dims(&[n as u64])?;
        let weights = tensor.to_f32()?;
        match weights.iter().position(|w| !w.is_finite()) {
            None => Ok(weights),
            Some(index) => Err(Error::NotFiniteWeight { tensor: name, index }),
        }
    }

    /// A ternary tensor of the file, its scales complete.
    fn stored(&self, name: &str, choice: &Choice) -> Result<Ternary<'_>, Error> {
        let tensor = format!("{name}.weight");
        self.take(&tensor);
        let mut ternary = self.gguf.ternary(&tensor, choice.shape, &self.options.layouts)?;
        // The scale behind the weights once more, as converters to TL1 and TL2 write it.
        if let Some((beside, given)) = self.number(&format!("{name}.weight_scale"))? {
            let scale = ternary.scales.all()[0];
            // As far as 16 bits tell.
            if ternary.scales.all().len() > 1 || (given - scale).abs() > scale / 128.0 {
                return Err(Error::WeightScale { tensor: beside, given, weights: tensor, scale });
            }
        }
        // What llama.cpp multiplies with when the weights' own scale is 1.
        if let Some((_, factor)) = self.number(&format!("{name}.scale"))? {
            ternary.scales = ternary.scales.times(factor);
        }
        Ok(ternary)
    }

    /// The name and value of a tensor of one positive number, if the file has it.
    fn number(&self, name: &str) -> Result<Option<(String, f32)>, Error> {
        self.take(name);
        let Some(tensor) = self.gguf.opt_tensor(name)? else { return Ok(None) };
        tensor.expect_dims(&[1])?;
        match tensor.to_f32()?[0] {
            number if number.is_finite() && number > 0.0 => Ok(Some((name.to_owned(), number))),
            _ => Err(Error::NotFiniteWeight { tensor: name.to_owned(), index: 0 }),
        }
    }

    /// A ternary tensor for the chosen kernel: in place where that is asked for and its layout is the
    /// file's, else repacked, after which the file's pages are let go.
    fn linear(&self, name: &str, ternary: Ternary<'_>, choice: &Choice) -> Result<Linear, Error> {
        let (gguf, load) = (self.gguf, self.options.load);
        let (shape, layout) = (choice.shape, choice.kernel.layout());
        let Ternary { reader, scales, range } = ternary;
        let is_canonical = reader.codec() == Codec::I2s(I2sLayout::X86);
        let in_place = is_canonical && layout == Layout::I2s && shape.k.is_multiple_of(128);
        let refused = |source| Error::Weights { tensor: format!("{name}.weight"), source };
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
                return Err(GgufError::Codec { tensor: format!("{name}.weight"), source }.into());
            }
            packed.map_err(refused)?
        };
        Ok(Linear::new(weights, scales, choice))
    }

    /// A ternary tensor with scales for each group of `inputs` inputs, or run as if it had.
    fn grouped(
        &self,
        name: &str,
        ternary: Ternary<'_>,
        inputs: usize,
        shape: Shape,
    ) -> Result<Linear, Error> {
        let Ternary { reader, scales, range } = ternary;
        let mut weights = vec![0; shape.weights()];
        let rows = weights.par_chunks_exact_mut(shape.k).enumerate();
        let read = rows.map(|(row, out)| reader.row(row, out)).collect::<Result<(), _>>();
        self.gguf.release(range);
        let tensor = format!("{name}.weight");
        read.map_err(|source| GgufError::Codec { tensor: tensor.clone(), source })?;
        let format = self.options.format;
        let choice = Choice::of_groups(shape, inputs, format, self.threads, self.cpu);
        let groups = Groups::new(shape, inputs, &weights, &scales, choice);
        Ok(Linear::of_groups(groups.map_err(|source| Error::Weights { tensor, source })?))
    }
}
