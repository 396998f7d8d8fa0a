//! Models of any size with random weights, for measuring speed where the real ones are not at hand.
//!
//! A dummy is a valid file of its family: official key and tensor names, a third each of -1, 0 and +1
//! (Gaussian weights give 31 % zeros), scales that keep activations near 1, norms near 1, and a vocabulary
//! that encodes any text. The same model, options and seed give the same bytes on every machine. Weights
//! are made and written piece by piece, so a model may be larger than memory.

pub(crate) mod random;
pub(crate) mod vocabulary;

use crate::gguf::{AtomicFile, GgufWriter, TensorKind, TensorWriter, WriteError};
use crate::ternary::{Codec, CodecError, I2sLayout, Scales};
use crate::{Config, Family};
use half::{bf16, f16};
use random::Stream;
use rayon::prelude::*;
use std::ops::ControlFlow;
use std::path::Path;
use trilut_kernels::float::blocks::BlockFormat;
use trilut_presets::Shape;
use trilut_presets::models::ModelSpec;
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
    /// The upper halves of 32-bit floats.
    BF16,
    /// 8-bit codes in blocks of 32.
    Q8_0,
    /// 6-bit codes in blocks of 256.
    Q6K,
    /// 5-bit codes in blocks of 32.
    Q5_0,
    /// 4-bit codes in blocks of 32.
    Q4_0,
    /// 4-bit codes with an offset in blocks of 32.
    Q4_1,
    /// 4-bit codes in blocks of 256.
    Q4K,
}

impl Head {
    fn kind(self) -> TensorKind {
        match self {
            Self::F16 => TensorKind::F16,
            Self::F32 => TensorKind::F32,
            Self::BF16 => TensorKind::BF16,
            Self::Q8_0 => TensorKind::Q8_0,
            Self::Q6K => TensorKind::Q6K,
            Self::Q5_0 => TensorKind::Q5_0,
            Self::Q4_0 => TensorKind::Q4_0,
            Self::Q4_1 => TensorKind::Q4_1,
            Self::Q4K => TensorKind::Q4K,
        }
    }
}

/// What may vary between dummies of one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DummyOptions {
    /// Where the random weights come from.
    pub seed: u64,
    /// How the token embedding is stored.
    pub head: Head,
    /// How the ternary weights are stored; not TL1 and TL2, whose files fit one build of one program.
    pub codec: Codec,
    /// Only the first of its blocks; the file says of how many. `None` makes all.
    pub layers: Option<usize>,
}

/// The key of a dummy of which only some blocks were made: the number of all.
pub const ALL_LAYERS: &str = "trilut.block_count";

impl Default for DummyOptions {
    fn default() -> Self {
        Self { seed: 0, head: Head::default(), codec: Codec::I2s(I2sLayout::X86), layers: None }
    }
}

/// A dummy that cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DummyError {
    /// The model cannot be described.
    #[error("`{model}` cannot be made")]
    Model {
        /// The model.
        model: String,
        /// Why.
        source: Box<crate::Error>,
    },
    /// The codec cannot store a matrix.
    #[error("{tensor} cannot be stored")]
    Codec {
        /// The tensor.
        tensor: String,
        /// Why.
        source: CodecError,
    },
    /// The codec's files cannot be made.
    #[error("dummies with {0} weights are not made: such files fit one build of one program")]
    Tiled(&'static str),
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
    /// An impossible number of blocks.
    #[error("{asked} layers cannot be made; the model has {most}")]
    Layers {
        /// The number that was asked for.
        asked: usize,
        /// Those of the model.
        most: usize,
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
            Self::Model { source, .. } => source.hint(),
            Self::Tiled(_) => Some("choose i2_s, and run it in another format".to_owned()),
            Self::Layers { .. } => Some("leave out --layers for all of them".to_owned()),
            _ => None,
        }
    }
}

/// What a tensor is filled with.
enum Fill {
    Norm,
    Ternary { codec: Codec, shape: Shape },
    Random { head: Head, deviation: f32 },
}

/// A tensor to be written.
struct Plan {
    name: String,
    dims: Vec<u64>,
    fill: Fill,
}

impl Fill {
    fn kind(&self) -> TensorKind {
        match *self {
            Self::Norm => TensorKind::F32,
            Self::Random { head, .. } => head.kind(),
            Self::Ternary { codec, .. } => codec.kind(),
        }
    }
}

impl Plan {
    fn elements(&self) -> usize {
        self.dims.iter().product::<u64>() as usize
    }
}

/// Writes a dummy of `spec` to `path`, which gets its name when the file is complete. `progress` is
/// called with the bytes written so far and in all; when it breaks, no file is left.
///
/// # Errors
/// When the model's architecture is not known, its sizes cannot be stored in the codec, no vocabulary of
/// its size can be made, or the file cannot be written.
pub fn write_dummy(
    spec: &ModelSpec,
    options: DummyOptions,
    path: &Path,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<(), DummyError> {
    let layers = options.layers.unwrap_or(spec.layers);
    if !(1..=spec.layers).contains(&layers) {
        return Err(DummyError::Layers { asked: layers, most: spec.layers });
    }
    let part = &ModelSpec { layers, ..spec.clone() };
    let tensors = plan(part, options)?;
    let mut writer = GgufWriter::new();
    write_metadata(part, options.codec, &mut writer)?;
    if layers < spec.layers {
        writer.u32(ALL_LAYERS, spec.layers as u32);
    }
    for Plan { name, dims, fill } in &tensors {
        match fill {
            // Of a type whose size depends on the group.
            Fill::Ternary { codec: codec @ Codec::Q2_0 { .. }, shape } => {
                let bytes = codec.bytes(*shape).expect("planned");
                writer.sized_tensor(name, dims, codec.kind(), bytes as u64);
            }
            _ => _ = writer.tensor(name, dims, fill.kind()),
        }
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

/// The model's sizes and graph; refuses graphs that a file of the architecture cannot describe.
fn config(spec: &ModelSpec) -> Result<Config, DummyError> {
    let (model, architecture) = (spec.name.clone(), spec.architecture.clone());
    let config = Config::from_spec(spec)
        .map_err(|source| DummyError::Model { model: model.clone(), source: Box::new(source) })?;
    let rule = match config.family {
        family if family.sub_norms && !spec.sub_norms => "it has no sub-norms",
        family if spec.sub_norms && !family.sub_norms => "it has sub-norms",
        family if family.activation != spec.activation => "its activation is another one",
        _ => return Ok(config),
    };
    Err(DummyError::Graph { model, architecture, rule })
}

/// The tensors of the file, in its order.
fn plan(spec: &ModelSpec, options: DummyOptions) -> Result<Vec<Plan>, DummyError> {
    let config = config(spec)?;
    let DummyOptions { codec, .. } = options;
    if matches!(codec, Codec::Tl1(_) | Codec::Tl2(_)) {
        return Err(DummyError::Tiled(codec.name()));
    }
    let norm =
        |name: String, width: usize| Plan { name, dims: vec![width as u64], fill: Fill::Norm };
    let ternary = |name: String, shape: Shape| {
        let tensor = name.clone();
        codec.bytes(shape).map_err(|source| DummyError::Codec { tensor, source })?;
        let dims = vec![shape.k as u64, shape.m as u64];
        Ok::<_, DummyError>(Plan { name, dims, fill: Fill::Ternary { codec, shape } })
    };
    let (hidden, family) = (spec.hidden, config.family);
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
    let mut tensors = vec![embedding("token_embd.weight")?];
    for layer in 0..spec.layers {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        for (linear, shape) in config.linears() {
            // What stands before and after a layer, where the family has it.
            let before = match linear {
                "attn_q" => Some(("attn_norm", true)),
                "attn_output" => Some(("attn_sub_norm", family.sub_norms)),
                "ffn_gate" => Some(("ffn_norm", true)),
                "ffn_down" => Some(("ffn_sub_norm", family.sub_norms)),
                _ => None,
            };
            tensors.extend(before.filter(|b| b.1).map(|(part, _)| norm(name(part), shape.k)));
            if family.input_norms {
                tensors.push(norm(name(&format!("{linear}_norm_in")), shape.k));
            }
            tensors.push(ternary(name(linear), shape)?);
            let after = match linear {
                "attn_q" => Some(("attn_q_norm", family.head_norms, spec.head_dim)),
                "attn_k" => Some(("attn_k_norm", family.head_norms, spec.head_dim)),
                "attn_output" => Some(("post_attention_norm", family.post_norms, hidden)),
                "ffn_down" => Some(("post_ffw_norm", family.post_norms, hidden)),
                _ => None,
            };
            tensors.extend(after.filter(|a| a.1).map(|(part, _, width)| norm(name(part), width)));
        }
    }
    tensors.push(norm("output_norm.weight".to_owned(), hidden));
    if !spec.tied {
        tensors.push(embedding("output.weight")?);
    }
    Ok(tensors)
}

/// What `general.file_type` is for a codec, where a program gave it a number.
fn file_type(codec: Codec) -> Option<u32> {
    match codec {
        Codec::I2s(_) => Some(40),
        Codec::Tq1_0 => Some(36),
        Codec::Tq2_0 => Some(37),
        Codec::Iq1Bn => Some(136),
        Codec::Iq2Bn => Some(137),
        Codec::Iq2BnR4 => Some(337),
        Codec::Q2_0 { .. } | Codec::Tl1(_) | Codec::Tl2(_) => None,
    }
}

fn write_metadata(
    spec: &ModelSpec,
    codec: Codec,
    writer: &mut GgufWriter,
) -> Result<(), DummyError> {
    // Sizes are below 2^24: the model file was checked.
    let key = |key: &str| format!("{}.{key}", spec.architecture);
    writer
        .str("general.architecture", &spec.architecture)
        .str("general.name", &format!("{} (random weights)", spec.title))
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
    if let Some(window) = spec.window {
        writer
            .u32(&key("attention.sliding_window"), window.positions as u32)
            .u32(&key("attention.sliding_window_pattern"), window.period as u32)
            .f32(&key("rope.freq_base_swa"), window.rope_theta);
    }
    if Family::of(&spec.architecture).is_ok_and(|family| family.input_norms) {
        // The embedding models: the state of the last token.
        writer.u32(&key("pooling_type"), 3);
    }
    if let Some(number) = file_type(codec) {
        writer.u32("general.file_type", number);
    }
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
            Fill::Norm => {
                let mut bytes = vec![0; elements * 4];
                Stream::new(seed, index, 0).norm(&mut bytes);
                self.part(&tensor.name, &bytes)
            }
            Fill::Ternary { codec, shape } => {
                // The variance of a weight is 2/3, so each output has about its input's magnitude.
                let scale = (1.5 / shape.k as f32).sqrt();
                if let Codec::I2s(_) = codec {
                    let fill = |mut stream: Stream, out: &mut [u8]| stream.codes(out);
                    self.random(&tensor.name, elements / 4, CHUNK, seed, index, fill)?;
                    let mut tail = [0; 32];
                    tail[..4].copy_from_slice(&scale.to_le_bytes());
                    return self.part(&tensor.name, &tail);
                }
                self.encoded(&tensor.name, codec, shape, scale, seed, index)
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
                    Head::BF16 => {
                        let table = random::gaussian(deviation);
                        let table = table.map(|v| bf16::from_f32(v).to_le_bytes());
                        let fill = |mut s: Stream, out: &mut [u8]| s.gaussian(&table, out);
                        self.random(name, elements * 2, CHUNK, seed, index, fill)
                    }
                    quantised => {
                        let format = quantised.kind().block_format().expect("a type of blocks");
                        let fill = |mut s: Stream, out: &mut [u8]| s.blocks(format, deviation, out);
                        self.blocks(name, format, elements, seed, index, fill)
                    }
                }
            }
        }
    }

    /// [`Output::random`] of a ternary matrix in a codec of rows.
    fn encoded(
        &mut self,
        name: &str,
        codec: Codec,
        shape: Shape,
        scale: f32,
        seed: u64,
        index: u64,
    ) -> Result<(), DummyError> {
        let wrong = |source| DummyError::Codec { tensor: name.to_owned(), source };
        let bytes = codec.bytes(shape).map_err(wrong)?;
        let row = bytes / shape.m;
        // Whole groups of four rows.
        let rows = (CHUNK / row / 4 * 4).max(4);
        let fill = |mut stream: Stream, out: &mut [u8]| {
            let part = Shape { m: out.len() / row, k: shape.k };
            let mut codes = vec![0; part.weights().div_ceil(4)];
            stream.codes(&mut codes);
            let weights: Vec<i8> =
                (0..part.weights()).map(|i| (codes[i / 4] >> (i % 4 * 2) & 3) as i8 - 1).collect();
            let encoded = codec.encode(part, &weights, &Scales::One(scale));
            out.copy_from_slice(&encoded.expect("the size was checked, the weights are ternary"));
        };
        self.random(name, bytes, row * rows, seed, index, fill)
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
