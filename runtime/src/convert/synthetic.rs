//! Checkpoints with random weights, as Hugging Face publishes them, for measuring and testing conversions.

use super::ConvertError;
use super::architecture::{Architecture, Part, Role};
use super::checkpoint;
use super::pre_tokenizer::LLAMA3;
use crate::dummy::DummyError;
use crate::dummy::random::{Stream, gaussian};
use crate::dummy::vocabulary::{CONTROL, Vocabulary};
use crate::gguf::{AtomicFile, WriteError};
use rayon::prelude::*;
use serde_json::{Map, Value, json};
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::Path;
use trilut_presets::models::{Activation, ModelSpec};

/// Bytes that one stream of random numbers fills.
const CHUNK: usize = 1 << 20;

/// Bytes that are made at once and then written.
const BUFFER: usize = 16 * CHUNK;

/// How the weights of a synthetic checkpoint are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CheckpointWeights {
    /// Packed codes with a scale.
    #[default]
    Packed,
    /// The bf16 weights of training.
    Masters,
}

/// What may vary between synthetic checkpoints of one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CheckpointOptions {
    /// How the weights are stored.
    pub weights: CheckpointWeights,
    /// Where the random weights come from.
    pub seed: u64,
    /// Weight files; 0 is as 1.
    pub shards: usize,
}

/// What a tensor is filled with.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fill {
    /// bf16 ones.
    Ones,
    /// Packed codes.
    Codes,
    /// One bf16 number.
    Number(f32),
    /// bf16 values of a deviation.
    Gaussian(f32),
}

struct Tensor {
    name: String,
    shape: Vec<usize>,
    fill: Fill,
}

impl Tensor {
    fn bytes(&self) -> usize {
        let elements: usize = self.shape.iter().product();
        if self.fill == Fill::Codes { elements } else { 2 * elements }
    }
}

/// Writes a checkpoint of `spec` to the directory `dir`, which is made. `progress` is told the bytes
/// written so far and in all, and may break off; no file is left then.
///
/// # Errors
/// When checkpoints of the model's architecture are not known, no vocabulary of its size can be made, the
/// directory holds a checkpoint, or a file cannot be written.
pub fn write_checkpoint(
    spec: &ModelSpec,
    options: CheckpointOptions,
    dir: &Path,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<(), ConvertError> {
    let config = config(spec, options.weights)?;
    let architecture = Architecture::read(&config, |_| is_embedding(spec))?;
    let tensors = tensors(&architecture, options.weights);
    std::fs::create_dir_all(dir).map_err(ConvertError::read(dir))?;
    if let Some(file) = checkpoint::first_file(dir)? {
        return Err(ConvertError::Occupied { dir: dir.to_owned(), file });
    }
    // None gets its name before all are whole; the last is the one without which there is no checkpoint.
    let mut files = Vec::new();
    let total: usize = tensors.iter().map(Tensor::bytes).sum();
    let each = tensors.len().div_ceil(options.shards.clamp(1, tensors.len()));
    // Full ones may be fewer than were asked for.
    let shards = tensors.len().div_ceil(each);
    let mut map = Map::new();
    let mut done = 0;
    for (index, tensors) in tensors.chunks(each).enumerate() {
        let file = match shards {
            1 => "model.safetensors".to_owned(),
            _ => format!("model-{:05}-of-{shards:05}.safetensors", index + 1),
        };
        let seed = options.seed.wrapping_add(index as u64);
        let mut each = |bytes: usize| {
            done += bytes;
            match progress(done as u64, total as u64) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(ConvertError::Cancelled),
            }
        };
        files.push(write_shard(&dir.join(&file), tensors, seed, &mut each)?);
        map.extend(tensors.iter().map(|tensor| (tensor.name.clone(), json!(file))));
    }
    if shards > 1 {
        let index = json!({"metadata": {"total_size": total}, "weight_map": map});
        files.push(write_json(dir, "model.safetensors.index.json", &index)?);
    }
    files.extend(write_tokenizer(spec, dir)?);
    if is_embedding(spec) {
        let pooling = dir.join("1_Pooling");
        std::fs::create_dir_all(&pooling).map_err(ConvertError::read(&pooling))?;
        let mode = json!({"pooling_mode_lasttoken": true});
        files.push(write_json(&pooling, "config.json", &mode)?);
        let kind = "sentence_transformers.models.Pooling";
        let modules = json!([{"path": "1_Pooling", "type": kind}]);
        files.push(write_json(dir, "modules.json", &modules)?);
    }
    files.push(write_json(dir, "config.json", &config)?);
    files.into_iter().try_for_each(AtomicFile::commit).map_err(failed)
}

fn config(spec: &ModelSpec, weights: CheckpointWeights) -> Result<Value, ConvertError> {
    let unknown = || {
        let rule = match is_embedding(spec) {
            true => "has no packed checkpoints, only such of float weights",
            false => "has no checkpoints that are known",
        };
        ConvertError::config("architecture", &spec.architecture, rule)
    };
    let (model_type, class, convention) = match spec.architecture.as_str() {
        "bitnet-b1.58" => ("bitnet", "BitNetForCausalLM", "autobitlinear"),
        "bitnet" => ("bitnet", "BitnetForCausalLM", "bitlinear"),
        "llama" => ("llama", "LlamaForCausalLM", "bitlinear"),
        "qwen3" if weights == CheckpointWeights::Masters => ("qwen3", "Qwen3Model", ""),
        "gemma3" if weights == CheckpointWeights::Masters => ("gemma3_text", "Gemma3TextModel", ""),
        _ => return Err(unknown()),
    };
    let mode = match weights {
        CheckpointWeights::Packed => "offline",
        CheckpointWeights::Masters => "online",
    };
    let class_of_linears = match weights {
        CheckpointWeights::Packed => convention,
        CheckpointWeights::Masters => "autobitlinear",
    };
    let activation = match spec.activation {
        Activation::Relu2 => "relu2",
        Activation::Silu => "silu",
        Activation::Gelu => "gelu_pytorch_tanh",
    };
    let [bos, eos] = [3, 2].map(|back| spec.vocab.saturating_sub(back));
    Ok(json!({
        "architectures": [class],
        "model_type": model_type,
        "hidden_act": activation,
        "hidden_size": spec.hidden,
        "intermediate_size": spec.ffn,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.kv_heads,
        "head_dim": (spec.q_width() != spec.hidden).then_some(spec.head_dim),
        "max_position_embeddings": spec.context,
        "rms_norm_eps": spec.eps,
        "rope_theta": spec.rope_theta,
        "vocab_size": spec.vocab,
        "tie_word_embeddings": spec.tied,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "quantization_config": (!is_embedding(spec)).then(|| json!({
            "quant_method": "bitnet",
            "linear_class": class_of_linears,
            "quantization_mode": mode,
        })),
    }))
}

/// Whether it is a model that makes vectors of texts, with a norm before each linear layer.
fn is_embedding(spec: &ModelSpec) -> bool {
    matches!(spec.architecture.as_str(), "qwen3" | "gemma3")
}

/// The tensors in the order of a checkpoint.
fn tensors(architecture: &Architecture, weights: CheckpointWeights) -> Vec<Tensor> {
    let Architecture { vocab, hidden, .. } = *architecture;
    let embedding = |name: &str| Tensor {
        name: name.to_owned(),
        shape: vec![vocab, hidden],
        fill: Fill::Gaussian(2.0 / (hidden as f32).sqrt()),
    };
    let mut tensors = vec![embedding("model.embed_tokens.weight")];
    for layer in 0..architecture.layers {
        for Part { hf, role, .. } in architecture.block() {
            let name = format!("model.layers.{layer}.{}.weight", hf[0]);
            match (role, weights) {
                (Role::Norm { n, .. }, _) => {
                    tensors.push(Tensor { name, shape: vec![n], fill: Fill::Ones });
                }
                (Role::Linear { m, k, .. }, CheckpointWeights::Masters) => {
                    let fill = Fill::Gaussian(1.0 / (k as f32).sqrt());
                    tensors.push(Tensor { name, shape: vec![m, k], fill });
                }
                (Role::Linear { m, k, .. }, CheckpointWeights::Packed) => {
                    // Keeps activations near 1, as the mean magnitude of such weights does.
                    let scale = (1.5 / k as f32).sqrt();
                    let reciprocal =
                        architecture.storage == super::architecture::Storage::Reciprocal;
                    let fill = Fill::Number(if reciprocal { 1.0 / scale } else { scale });
                    let scale = Tensor { name: format!("{name}_scale"), shape: vec![1], fill };
                    tensors.push(Tensor { name, shape: vec![m / 4, k], fill: Fill::Codes });
                    tensors.push(scale);
                }
            }
        }
    }
    let norm = "model.norm.weight".to_owned();
    tensors.push(Tensor { name: norm, shape: vec![hidden], fill: Fill::Ones });
    if !architecture.tied {
        tensors.push(embedding("lm_head.weight"));
    }
    tensors
}

fn failed(error: io::Error) -> ConvertError {
    ConvertError::Write(WriteError::Io(error))
}

fn write_shard(
    path: &Path,
    tensors: &[Tensor],
    seed: u64,
    each: &mut dyn FnMut(usize) -> Result<(), ConvertError>,
) -> Result<AtomicFile, ConvertError> {
    let mut header = Map::new();
    let mut end = 0;
    for tensor in tensors {
        let start = end;
        end += tensor.bytes();
        let dtype = if tensor.fill == Fill::Codes { "U8" } else { "BF16" };
        let entry = json!({"dtype": dtype, "shape": tensor.shape, "data_offsets": [start, end]});
        header.insert(tensor.name.clone(), entry);
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = AtomicFile::create(path).map_err(failed)?;
    let mut write = |bytes: &[u8]| file.write_all(bytes).map_err(failed);
    write(&(header.len() as u64).to_le_bytes())?;
    write(&header)?;
    let mut buffer = vec![0; BUFFER];
    for (index, tensor) in tensors.iter().enumerate() {
        let table = match tensor.fill {
            Fill::Gaussian(deviation) => Some(gaussian(deviation).map(bf16)),
            _ => None,
        };
        for start in (0..tensor.bytes()).step_by(BUFFER) {
            let part = &mut buffer[..BUFFER.min(tensor.bytes() - start)];
            part.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, out)| {
                let mut stream = Stream::new(seed, index as u64, (start / CHUNK + chunk) as u64);
                match (tensor.fill, &table) {
                    (Fill::Codes, _) => stream.codes(out),
                    (Fill::Gaussian(_), Some(table)) => stream.gaussian(table, out),
                    (Fill::Number(number), _) => out.copy_from_slice(&bf16(number)),
                    _ => out.chunks_exact_mut(2).for_each(|out| out.copy_from_slice(&bf16(1.0))),
                }
            });
            write(part)?;
            each(part.len())?;
        }
    }
    Ok(file)
}

/// The upper half of a float.
fn bf16(value: f32) -> [u8; 2] {
    let [_, _, low, high] = value.to_le_bytes();
    [low, high]
}

fn write_json(dir: &Path, name: &str, value: &Value) -> Result<AtomicFile, ConvertError> {
    let mut file = AtomicFile::create(&dir.join(name)).map_err(failed)?;
    file.write_all(value.to_string().as_bytes()).map_err(failed)?;
    Ok(file)
}

fn write_tokenizer(spec: &ModelSpec, dir: &Path) -> Result<[AtomicFile; 2], ConvertError> {
    let Vocabulary { tokens, merges } = Vocabulary::synthetic(spec.vocab)
        .map_err(|error: DummyError| ConvertError::Vocabulary(error.to_string()))?;
    let ordinary = tokens.len() - CONTROL.len();
    let vocab: Map<String, Value> =
        tokens[..ordinary].iter().zip(0..).map(|(text, id)| (text.clone(), json!(id))).collect();
    let added: Vec<Value> = (ordinary..)
        .zip(CONTROL)
        .map(|(id, text)| json!({"id": id, "content": text, "special": true}))
        .collect();
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    let token = |name: &str| json!({"SpecialToken": {"id": name, "type_id": 0}});
    let around = match is_embedding(spec) {
        true => [text, token(CONTROL[1])],
        false => [token(CONTROL[0]), text],
    };
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": added,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": LLAMA3}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false},
        ]},
        "post_processor": {"type": "TemplateProcessing", "single": around},
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    });
    let tokenizer = write_json(dir, "tokenizer.json", &tokenizer)?;
    let template = "{{ bos_token }}{% for message in messages %}{{ message['role'] | capitalize }}: \
        {{ message['content'] | trim }}<|eot_id|>{% endfor %}\
        {% if add_generation_prompt %}Assistant: {% endif %}";
    let config = json!({
        "bos_token": CONTROL[0],
        "eos_token": CONTROL[1],
        "chat_template": template,
    });
    Ok([tokenizer, write_json(dir, "tokenizer_config.json", &config)?])
}
