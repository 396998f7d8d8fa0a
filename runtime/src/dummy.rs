//! Models of any size with random weights, for measuring speed where the real ones are not at hand.
//!
//! A dummy is a valid I2_S file: official key and tensor names, a third each of -1, 0 and +1 (Gaussian
//! weights give 31 % zeros), scales that keep activations near 1, and a vocabulary that encodes any
//! text. The same model, options and seed give the same bytes on every machine.

mod random;
mod vocabulary;

use crate::gguf::{AtomicFile, GgufWriter, TensorKind, TensorWriter, WriteError};
use half::f16;
use random::Stream;
use rayon::prelude::*;
use std::ops::ControlFlow;
use std::path::Path;
use trilut_kernels::float::blocks::BlockFormat;
use trilut_presets::models::{Activation, ModelSpec};
use vocabulary::Vocabulary;

/// Bytes that one stream of random numbers fills.
const CHUNK: usize = 1 << 20;
/// Bytes that are made at once, by all threads, and then written.
const BUFFER: usize = 16 * CHUNK;
/// The standard deviation of the logits, given a normalised last layer.
const LOGIT_SPREAD: f32 = 2.0;

/// How the token embedding, which is also the head of tied models, is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Head {
    /// 16-bit floats, as official files have.
    #[default]
    F16,
    /// 32-bit floats.
    F32,
    /// 8-bit codes in blocks of 32.
    Q8_0,
    /// 6-bit codes in blocks of 256.
    Q6K,
}

impl Head {
    fn kind(self) -> TensorKind {
        match self {
            Self::F16 => TensorKind::F16,
            Self::F32 => TensorKind::F32,
            Self::Q8_0 => TensorKind::Q8_0,
            Self::Q6K => TensorKind::Q6K,
        }
    }
}

/// What may vary between dummies of one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DummyOptions {
    /// Where the random weights come from.
    pub seed: u64,
    /// How the token embedding is stored.
    pub head: Head,
}

/// A dummy that cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DummyError {
    /// The architecture's files cannot be made yet.
    #[error("dummies of `{model}` cannot be made: its architecture is `{architecture}`")]
    Architecture {
        /// The model.
        model: String,
        /// Its architecture.
        architecture: String,
    },
    /// The model's graph is not what its architecture stands for.
    #[error("`{model}` is no {architecture} model: {rule}")]
    Graph {
        /// The model.
        model: String,
        /// Its architecture.
        architecture: String,
        /// What the architecture asks for.
        rule: &'static str,
    },
    /// A matrix has rows that are not whole blocks.
    #[error("{tensor} has {k} inputs, not a multiple of {block}: {kind} cannot hold its rows")]
    Blocks {
        /// The tensor.
        tensor: String,
        /// Its number of inputs.
        k: usize,
        /// Inputs of a block.
        block: usize,
        /// The name of the type.
        kind: &'static str,
    },
    /// No vocabulary of this size can be made.
    #[error("no vocabulary of {vocab} tokens can be made; {least} to {most} can")]
    Vocab {
        /// The size asked for.
        vocab: usize,
        /// The smallest that can be made.
        least: usize,
        /// The largest that can be made.
        most: usize,
    },
    /// The caller broke off; no file was left.
    #[error("the model was not written: interrupted")]
    Cancelled,
    /// The file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl DummyError {
    /// A helpful next step, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Architecture { .. } => {
                Some("models of architecture bitnet-b1.58 can be made, such as dummy-1b".to_owned())
            }
            _ => None,
        }
    }
}

/// What a tensor is filled with.
enum Fill {
    Ones,
    Ternary { k: usize },
    Random { head: Head, deviation: f32 },
}

/// A tensor to be written.
struct Plan {
    name: String,
    dims: Vec<u64>,
    fill: Fill,
}

impl Plan {
    fn kind(&self) -> TensorKind {
        match self.fill {
            Fill::Ones => TensorKind::F32,
            Fill::Random { head, .. } => head.kind(),
            Fill::Ternary { .. } => TensorKind::I2S,
        }
    }

    fn elements(&self) -> usize {
        self.dims.iter().product::<u64>() as usize
    }
}

/// Writes a dummy of `spec` to `path`, which gets its name when the file is complete. `progress` is
/// called with the bytes written so far and in all; when it breaks, no file is left.
///
/// # Errors
/// When the model's architecture is not bitnet-b1.58, its sizes cannot be stored as I2_S, no
/// vocabulary of its size can be made, or the file cannot be written.
pub fn write_dummy(
    spec: &ModelSpec,
    options: DummyOptions,
    path: &Path,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<(), DummyError> {
    check(spec)?;
    let tensors = plan(spec, options)?;
    let mut writer = GgufWriter::new();
    write_metadata(spec, &mut writer)?;
    for tensor in &tensors {
        writer.tensor(&tensor.name, &tensor.dims, tensor.kind());
    }
    let mut out = Output {
        total: writer.data_bytes(),
        done: 0,
        file: writer.create(path)?,
        buffer: vec![0; BUFFER],
        progress,
    };
    for (index, tensor) in tensors.iter().enumerate() {
        out.tensor(tensor, options.seed, index as u64)?;
    }
    out.report(out.total)?;
    Ok(out.file.commit()?)
}

/// Refuses graphs that a file of the architecture cannot describe.
fn check(spec: &ModelSpec) -> Result<(), DummyError> {
    let (model, architecture) = (spec.name.clone(), spec.architecture.clone());
    if architecture != "bitnet-b1.58" {
        return Err(DummyError::Architecture { model, architecture });
    }
    let rule = match spec {
        ModelSpec { sub_norms: false, .. } => "it has no sub-norms",
        ModelSpec { activation: Activation::Relu2, .. } => return Ok(()),
        _ => "its activation is not relu2",
    };
    Err(DummyError::Graph { model, architecture, rule })
}

/// The tensors of the file, in its order.
fn plan(spec: &ModelSpec, options: DummyOptions) -> Result<Vec<Plan>, DummyError> {
    let norm =
        |name: String, width: usize| Plan { name, dims: vec![width as u64], fill: Fill::Ones };
    let ternary = |name: String, m: usize, k: usize| {
        if !k.is_multiple_of(128) {
            return Err(DummyError::Blocks { tensor: name, k, block: 128, kind: "I2_S" });
        }
        Ok(Plan { name, dims: vec![k as u64, m as u64], fill: Fill::Ternary { k } })
    };
    let (hidden, ffn) = (spec.hidden, spec.ffn);
    let embedding = |name: &str| {
        let (head, tensor) = (options.head, name.to_owned());
        let block = head.kind().block_format().map_or(1, BlockFormat::weights);
        if !hidden.is_multiple_of(block) {
            let kind = head.kind().name();
            return Err(DummyError::Blocks { tensor, k: hidden, block, kind });
        }
        let deviation = LOGIT_SPREAD / (hidden as f32).sqrt();
        let fill = Fill::Random { head, deviation };
        Ok(Plan { name: tensor, dims: vec![hidden as u64, spec.vocab as u64], fill })
    };
    let (q, kv) = (spec.q_width(), spec.kv_width());
    let mut tensors = vec![embedding("token_embd.weight")?];
    for layer in 0..spec.layers {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        tensors.extend([
            norm(name("attn_norm"), hidden),
            ternary(name("attn_q"), q, hidden)?,
            ternary(name("attn_k"), kv, hidden)?,
            ternary(name("attn_v"), kv, hidden)?,
            norm(name("attn_sub_norm"), q),
            ternary(name("attn_output"), hidden, q)?,
            norm(name("ffn_norm"), hidden),
            ternary(name("ffn_gate"), ffn, hidden)?,
            ternary(name("ffn_up"), ffn, hidden)?,
            norm(name("ffn_sub_norm"), ffn),
            ternary(name("ffn_down"), hidden, ffn)?,
        ]);
    }
    tensors.push(norm("output_norm.weight".to_owned(), hidden));
    if !spec.tied {
        tensors.push(embedding("output.weight")?);
    }
    Ok(tensors)
}

fn write_metadata(spec: &ModelSpec, writer: &mut GgufWriter) -> Result<(), DummyError> {
    // Sizes are below 2^24: the model file was checked.
    let key = |key: &str| format!("{}.{key}", spec.architecture);
    writer
        .str("general.architecture", &spec.architecture)
        .str("general.name", &format!("{} (random weights)", spec.title))
        .u32("general.file_type", 40)
        .u32(&key("block_count"), spec.layers as u32)
        .u32(&key("context_length"), spec.context as u32)
        .u32(&key("embedding_length"), spec.hidden as u32)
        .u32(&key("feed_forward_length"), spec.ffn as u32)
        .u32(&key("attention.head_count"), spec.heads as u32)
        .u32(&key("attention.head_count_kv"), spec.kv_heads as u32)
        .f32(&key("attention.layer_norm_rms_epsilon"), spec.eps)
        .u32(&key("rope.dimension_count"), spec.head_dim as u32)
        .f32(&key("rope.freq_base"), spec.rope_theta)
        .u32(&key("vocab_size"), spec.vocab as u32);
    if spec.q_width() != spec.hidden {
        writer.u32(&key("attention.key_length"), spec.head_dim as u32);
        writer.u32(&key("attention.value_length"), spec.head_dim as u32);
    }
    Vocabulary::synthetic(spec.vocab)?.write(writer);
    Ok(())
}

/// A file that is being written.
struct Output<'a> {
    file: TensorWriter<AtomicFile>,
    buffer: Vec<u8>,
    done: u64,
    total: u64,
    progress: &'a mut dyn FnMut(u64, u64) -> ControlFlow<()>,
}

impl Output<'_> {
    fn tensor(&mut self, tensor: &Plan, seed: u64, index: u64) -> Result<(), DummyError> {
        let elements = tensor.elements();
        match tensor.fill {
            Fill::Ones => self.part(&tensor.name, &1f32.to_le_bytes().repeat(elements)),
            Fill::Ternary { k } => {
                let fill = |mut stream: Stream, out: &mut [u8]| stream.codes(out);
                self.random(&tensor.name, elements / 4, CHUNK, seed, index, fill)?;
                // The variance of a weight is 2/3, so each output has about its input's magnitude.
                let mut tail = [0; 32];
                tail[..4].copy_from_slice(&(1.5 / k as f32).sqrt().to_le_bytes());
                self.part(&tensor.name, &tail)
            }
            Fill::Random { head, deviation } => {
                let name = &tensor.name;
                match head {
                    Head::F16 => {
                        let table = random::gaussian(deviation);
                        let table = table.map(|v| f16::from_f32(v).to_le_bytes());
                        let fill = |mut s: Stream, out: &mut [u8]| s.gaussian(&table, out);
                        self.random(name, elements * 2, CHUNK, seed, index, fill)
                    }
                    Head::F32 => {
                        let table = random::gaussian(deviation).map(f32::to_le_bytes);
                        let fill = |mut s: Stream, out: &mut [u8]| s.gaussian(&table, out);
                        self.random(name, elements * 4, CHUNK, seed, index, fill)
                    }
                    Head::Q8_0 => {
                        let fill = |mut s: Stream, out: &mut [u8]| {
                            s.blocks(BlockFormat::Q8_0, deviation, out)
                        };
                        self.blocks(name, BlockFormat::Q8_0, elements, seed, index, fill)
                    }
                    Head::Q6K => {
                        let fill = |mut s: Stream, out: &mut [u8]| {
                            s.blocks(BlockFormat::Q6K, deviation, out)
                        };
                        self.blocks(name, BlockFormat::Q6K, elements, seed, index, fill)
                    }
                }
            }
        }
    }

    /// [`Output::random`] of `elements` weights in whole blocks.
    fn blocks(
        &mut self,
        name: &str,
        format: BlockFormat,
        elements: usize,
        seed: u64,
        index: u64,
        fill: impl Fn(Stream, &mut [u8]) + Sync,
    ) -> Result<(), DummyError> {
        let block = format.bytes();
        let bytes = elements / format.weights() * block;
        self.random(name, bytes, CHUNK / block * block, seed, index, fill)
    }

    /// Writes `bytes` random bytes of tensor `index`, made on all threads in chunks of `size` bytes, at
    /// most [`CHUNK`].
    fn random(
        &mut self,
        name: &str,
        bytes: usize,
        size: usize,
        seed: u64,
        index: u64,
        fill: impl Fn(Stream, &mut [u8]) + Sync,
    ) -> Result<(), DummyError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let step = BUFFER / CHUNK * size;
        for start in (0..bytes).step_by(step) {
            let part = &mut buffer[..step.min(bytes - start)];
            part.par_chunks_mut(size).enumerate().for_each(|(chunk, out)| {
                let chunk = start / size + chunk;
                fill(Stream::new(seed, index, chunk as u64), out);
            });
            self.part(name, part)?;
        }
        self.buffer = buffer;
        Ok(())
    }

    fn part(&mut self, name: &str, bytes: &[u8]) -> Result<(), DummyError> {
        self.file.write(name, bytes)?;
        self.report(self.done + bytes.len() as u64)
    }

    /// Tells how much is done; the listener may break off.
    fn report(&mut self, done: u64) -> Result<(), DummyError> {
        self.done = done;
        match (self.progress)(done, self.total) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(DummyError::Cancelled),
        }
    }
}
