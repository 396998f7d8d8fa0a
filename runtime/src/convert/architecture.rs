//! What a checkpoint's `config.json` says about the model, as a GGUF file says it.

use super::ConvertError;
use super::window::Window;
use crate::gguf::GgufWriter;
use serde_json::Value;

/// Where a size stops being credible; far above any model, far below an overflow.
const LARGEST: u64 = 1 << 24;

/// How the linear layers of a checkpoint are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Storage {
    /// Packed codes, and a scale that is the value of weight +1.
    Multiplier,
    /// Packed codes, and a scale that is the reciprocal of that.
    Reciprocal,
    /// The float weights of training, which are ternarised whenever they are used.
    Masters,
    /// Float weights of a model that was not trained to be ternary.
    Floats,
}

/// The families of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// BitNet b1.58 2B-4T: sub-norms, relu2.
    Bitnet2b,
    /// The models of 1bitLLM: sub-norms, SiLU.
    Bitnet,
    /// Llama with ternary layers: Llama3-8B-1.58, Falcon3, Falcon-E.
    Llama,
    /// BitNet embedding 0.6B.
    Qwen3,
    /// BitNet embedding 270M.
    Gemma3,
}

impl Family {
    /// `general.architecture`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Bitnet2b => "bitnet-b1.58",
            Self::Bitnet => "bitnet",
            Self::Llama => "llama",
            Self::Qwen3 => "qwen3",
            Self::Gemma3 => "gemma3",
        }
    }
}

/// A model's graph and sizes.
#[derive(Debug, Clone)]
pub(super) struct Architecture {
    pub(super) family: Family,
    pub(super) storage: Storage,
    pub(super) layers: usize,
    pub(super) hidden: usize,
    pub(super) ffn: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    /// Whether the file says how long a head is.
    explicit_head_dim: bool,
    pub(super) vocab: usize,
    context: usize,
    eps: f32,
    theta: f32,
    window: Option<Window>,
    pub(super) tied: bool,
    /// Whether each linear layer has a norm of its own.
    pub(super) inner_norms: bool,
}

/// A tensor of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// Its name in a GGUF file, without the block and `.weight`.
    pub(super) gguf: &'static str,
    /// Its names in checkpoints, without the layer and `.weight`.
    pub(super) hf: &'static [&'static str],
    pub(super) role: Role,
}

/// What a tensor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// A norm of `n` weights; `plus_one` where the checkpoint stores them less 1.
    Norm { n: usize, plus_one: bool },
    /// A ternary layer of m outputs and k inputs; `heads` of those whose rows a rope turns.
    Linear { m: usize, k: usize, heads: Option<usize> },
}

impl Architecture {
    /// Reads `config.json`. `has` tells whether the checkpoint has a tensor of the first layer.
    pub(super) fn read(config: &Value, has: impl Fn(&str) -> bool) -> Result<Self, ConvertError> {
        let family = family(config)?;
        let inner_norms = has("self_attn.q_proj.norm") || has("self_attn.q_proj.rms_norm");
        let storage = storage(config, family, inner_norms)?;
        let size = |key: &str| positive(config, key)?.ok_or_else(|| missing(key));
        let (hidden, heads) = (size("hidden_size")?, size("num_attention_heads")?);
        let head_dim = positive(config, "head_dim")?;
        if head_dim.is_none() && !hidden.is_multiple_of(heads) {
            let rule = format!("must divide `hidden_size`, {hidden}");
            return Err(ConvertError::config("num_attention_heads", heads, rule));
        }
        let kv_heads = positive(config, "num_key_value_heads")?.unwrap_or(heads);
        if !heads.is_multiple_of(kv_heads) {
            let rule = format!("must divide `num_attention_heads`, {heads}");
            return Err(ConvertError::config("num_key_value_heads", kv_heads, rule));
        }
        let rope = &config["rope_parameters"];
        let theta = float(&config["rope_theta"], "rope_theta")?
            .or(float(&rope["rope_theta"], "rope_theta")?)
            .or(float(&rope["full_attention"]["rope_theta"], "rope_theta")?);
        let each = ["full_attention", "sliding_attention"].map(|kind| &rope[kind]);
        for scaling in [&config["rope_scaling"], rope].into_iter().chain(each) {
            let kind = scaling["rope_type"].as_str().or(scaling["type"].as_str());
            if let Some(kind) = kind.filter(|&kind| kind != "default") {
                let rule = "is a scaling of positions that is not supported";
                return Err(ConvertError::config("rope_scaling", kind, rule));
            }
        }
        refuse_foreign(config)?;
        let layers = size("num_hidden_layers")?;
        let eps = float(&config["rms_norm_eps"], "rms_norm_eps")?;
        Ok(Self {
            family,
            storage,
            layers,
            hidden,
            ffn: size("intermediate_size")?,
            heads,
            kv_heads,
            explicit_head_dim: head_dim.is_some(),
            head_dim: head_dim.unwrap_or(hidden / heads),
            vocab: size("vocab_size")?,
            context: size("max_position_embeddings")?,
            eps: eps.ok_or_else(|| missing("rms_norm_eps"))?,
            theta: theta.unwrap_or(10_000.0),
            window: Window::read(config, family, inner_norms, layers)?,
            // Embedding models have no use for a head.
            tied: matches!(family, Family::Qwen3 | Family::Gemma3) && inner_norms
                || config["tie_word_embeddings"].as_bool().unwrap_or(family == Family::Gemma3),
            inner_norms,
        })
    }

    /// The tensors of a block, in the order of their use.
    pub(super) fn block(&self) -> Vec<Part> {
        let Self { hidden, ffn, head_dim, .. } = *self;
        let (q, kv) = (self.heads * head_dim, self.kv_heads * head_dim);
        let gemma = self.family == Family::Gemma3;
        let norm = |gguf, hf, n| Part { gguf, hf, role: Role::Norm { n, plus_one: gemma } };
        let mut parts = vec![norm("attn_norm", &["input_layernorm"], hidden)];
        let mut linear = |gguf, inner, hf: &'static [&'static str], m, k, heads| {
            if self.inner_norms {
                // Only the norms that Gemma itself has are stored less 1.
                let role = Role::Norm { n: k, plus_one: false };
                parts.push(Part { gguf: inner, hf: &hf[1..], role });
            }
            parts.push(Part { gguf, hf: &hf[..1], role: Role::Linear { m, k, heads } });
        };
        macro_rules! layer {
            ($gguf:literal, $hf:literal, $m:expr, $k:expr, $heads:expr) => {
                linear(
                    $gguf,
                    concat!($gguf, "_norm_in"),
                    &[$hf, concat!($hf, ".norm"), concat!($hf, ".rms_norm")],
                    $m,
                    $k,
                    $heads,
                )
            };
        }
        // A NORM rope turns neighbours, checkpoints hold what a NEOX rope turns.
        let turned = |heads| (self.family == Family::Llama).then_some(heads);
        layer!("attn_q", "self_attn.q_proj", q, hidden, turned(self.heads));
        layer!("attn_k", "self_attn.k_proj", kv, hidden, turned(self.kv_heads));
        layer!("attn_v", "self_attn.v_proj", kv, hidden, None);
        layer!("attn_output", "self_attn.o_proj", hidden, q, None);
        layer!("ffn_gate", "mlp.gate_proj", ffn, hidden, None);
        layer!("ffn_up", "mlp.up_proj", ffn, hidden, None);
        layer!("ffn_down", "mlp.down_proj", hidden, ffn, None);
        match self.family {
            Family::Bitnet2b | Family::Bitnet => parts.extend([
                norm("attn_sub_norm", &["self_attn.attn_sub_norm", "self_attn.inner_attn_ln"], q),
                norm("ffn_norm", &["post_attention_layernorm"], hidden),
                norm("ffn_sub_norm", &["mlp.ffn_sub_norm", "mlp.ffn_layernorm"], ffn),
            ]),
            Family::Llama => parts.push(norm("ffn_norm", &["post_attention_layernorm"], hidden)),
            Family::Qwen3 => parts.extend([
                norm("attn_q_norm", &["self_attn.q_norm"], head_dim),
                norm("attn_k_norm", &["self_attn.k_norm"], head_dim),
                norm("ffn_norm", &["post_attention_layernorm"], hidden),
            ]),
            Family::Gemma3 => parts.extend([
                norm("attn_q_norm", &["self_attn.q_norm"], head_dim),
                norm("attn_k_norm", &["self_attn.k_norm"], head_dim),
                norm("post_attention_norm", &["post_attention_layernorm"], hidden),
                norm("ffn_norm", &["pre_feedforward_layernorm"], hidden),
                norm("post_ffw_norm", &["post_feedforward_layernorm"], hidden),
            ]),
        }
        parts
    }

    /// The norm before the head.
    pub(super) fn output_norm(&self) -> Role {
        Role::Norm { n: self.hidden, plus_one: self.family == Family::Gemma3 }
    }

    /// Sets the keys of the model's sizes.
    pub(super) fn write(&self, name: &str, file_type: u32, writer: &mut GgufWriter) {
        let key = |key: &str| format!("{}.{key}", self.family.name());
        // Sizes are below 2^24.
        writer
            .str("general.architecture", self.family.name())
            .str("general.name", name)
            .u32("general.file_type", file_type)
            .u32(&key("block_count"), self.layers as u32)
            .u32(&key("context_length"), self.context as u32)
            .u32(&key("embedding_length"), self.hidden as u32)
            .u32(&key("feed_forward_length"), self.ffn as u32)
            .u32(&key("attention.head_count"), self.heads as u32)
            .u32(&key("attention.head_count_kv"), self.kv_heads as u32)
            .f32(&key("attention.layer_norm_rms_epsilon"), self.eps)
            .u32(&key("rope.dimension_count"), self.head_dim as u32)
            .f32(&key("rope.freq_base"), self.theta)
            .u32(&key("vocab_size"), self.vocab as u32);
        if self.explicit_head_dim {
            writer.u32(&key("attention.key_length"), self.head_dim as u32);
            writer.u32(&key("attention.value_length"), self.head_dim as u32);
        }
        if let Some(window) = &self.window {
            window.write(self.family.name(), writer);
        }
    }
}

fn missing(key: &str) -> ConvertError {
    ConvertError::config(key, "absent", "must be given in config.json")
}

/// A size that may be absent or null.
fn positive(config: &Value, key: &str) -> Result<Option<usize>, ConvertError> {
    match &config[key] {
        Value::Null => Ok(None),
        value => match value.as_u64().filter(|size| (1..LARGEST).contains(size)) {
            Some(size) => Ok(Some(size as usize)),
            None => Err(ConvertError::config(key, value, "must be at least 1 and below 2^24")),
        },
    }
}

/// A number above 0 that may be absent or null.
pub(super) fn float(value: &Value, key: &str) -> Result<Option<f32>, ConvertError> {
    match value {
        Value::Null => Ok(None),
        value => match value.as_f64().map(|v| v as f32).filter(|v| v.is_finite() && *v > 0.0) {
            Some(number) => Ok(Some(number)),
            None => Err(ConvertError::config(key, value, "must be a number above 0")),
        },
    }
}

/// Refuses keys that ask for a graph that no family computes.
fn refuse_foreign(config: &Value) -> Result<(), ConvertError> {
    let rule = "asks for a graph that is not computed";
    for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
        if !config[key].is_null() {
            return Err(ConvertError::config(key, &config[key], rule));
        }
    }
    let rope = &config["rope_parameters"];
    let kinds = ["full_attention", "sliding_attention"];
    let is_known =
        |(kind, value): (&String, &Value)| !value.is_object() || kinds.contains(&&**kind);
    if !rope.as_object().is_none_or(|rope| rope.iter().all(is_known)) {
        return Err(ConvertError::config("rope_parameters", "one for each type of layer", rule));
    }
    Ok(())
}

fn family(config: &Value) -> Result<Family, ConvertError> {
    let model_type = config["model_type"].as_str().unwrap_or_default();
    let class = config["architectures"][0].as_str().unwrap_or_default();
    let activation = config["hidden_act"].as_str().or(config["hidden_activation"].as_str());
    let wants = |family, wanted: &[&str]| match activation {
        Some(found) if !wanted.contains(&found) => {
            let rule = format!("must be {} in a model of this family", wanted.join(" or "));
            Err(ConvertError::config("hidden_act", found, rule))
        }
        _ => Ok(family),
    };
    // The first models call themselves `llama` and are told by their class.
    if model_type == "bitnet" || class.eq_ignore_ascii_case("BitNetForCausalLM") {
        return match activation {
            Some("relu2") => Ok(Family::Bitnet2b),
            Some("silu") => Ok(Family::Bitnet),
            other => {
                let found = other.unwrap_or("absent");
                Err(ConvertError::config("hidden_act", found, "must be relu2 or silu"))
            }
        };
    }
    match model_type {
        "llama" | "mistral" => wants(Family::Llama, &["silu"]),
        "qwen3" => wants(Family::Qwen3, &["silu"]),
        "gemma3_text" => wants(Family::Gemma3, &["gelu_pytorch_tanh"]),
        other => Err(ConvertError::config(
            "model_type",
            if other.is_empty() { "absent" } else { other },
            "must be bitnet, llama, mistral, qwen3 or gemma3_text",
        )),
    }
}

fn storage(config: &Value, family: Family, inner_norms: bool) -> Result<Storage, ConvertError> {
    let quantization = &config["quantization_config"];
    let method = quantization["quant_method"].as_str();
    if let Some(method) = method.filter(|&method| method != "bitnet") {
        return Err(ConvertError::config("quant_method", method, "must be bitnet"));
    }
    let trained = matches!(family, Family::Bitnet2b | Family::Bitnet)
        || inner_norms
        || config["weight_bits"].as_u64() == Some(1);
    if method.is_none() {
        return Ok(if trained { Storage::Masters } else { Storage::Floats });
    }
    let class = quantization["linear_class"].as_str();
    match (class, quantization["quantization_mode"].as_str()) {
        (Some("autobitlinear"), Some("online")) => Ok(Storage::Masters),
        (Some("autobitlinear"), None | Some("offline")) => Ok(Storage::Multiplier),
        (None | Some("bitlinear"), _) => Ok(Storage::Reciprocal),
        (Some("autobitlinear"), Some(mode)) => {
            let rule = "must be online or offline";
            Err(ConvertError::config("quantization_mode", mode, rule))
        }
        (Some(class), _) => {
            let rule = "must be bitlinear or autobitlinear";
            Err(ConvertError::config("linear_class", class, rule))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config() -> Value {
        json!({
            "model_type": "bitnet", "architectures": ["BitNetForCausalLM"], "hidden_act": "relu2",
            "hidden_size": 256, "intermediate_size": 384, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
            "rope_theta": 500000.0, "vocab_size": 300, "max_position_embeddings": 64,
            "tie_word_embeddings": true,
        })
    }

    fn read(change: &[(&str, Value)]) -> Result<Architecture, ConvertError> {
        let mut config = config();
        for (key, value) in change {
            config[*key] = value.clone();
        }
        Architecture::read(&config, |_| false)
    }

    #[test]
    fn families_are_told_by_class_type_and_activation() {
        assert_eq!(read(&[]).unwrap().family, Family::Bitnet2b);
        assert_eq!(read(&[("hidden_act", json!("silu"))]).unwrap().family, Family::Bitnet);
        let first = [
            ("model_type", json!("llama")),
            ("architectures", json!(["BitnetForCausalLM"])),
            ("hidden_act", json!("silu")),
        ];
        let first = read(&first).unwrap();
        assert_eq!((first.family, first.storage), (Family::Bitnet, Storage::Masters));
        let llama = [
            ("model_type", json!("llama")),
            ("architectures", json!(["LlamaForCausalLM"])),
            ("hidden_act", json!("silu")),
            ("head_dim", json!(128)),
        ];
        let llama = read(&llama).unwrap();
        assert_eq!((llama.family, llama.storage), (Family::Llama, Storage::Floats));
        assert_eq!(llama.head_dim, 128);
        let q = llama.block().into_iter().find(|part| part.gguf == "attn_q").unwrap();
        assert_eq!(q.role, Role::Linear { m: 512, k: 256, heads: Some(4) });
    }

    #[test]
    fn the_meaning_of_scales_follows_from_class_and_mode() {
        let of = |quantization| read(&[("quantization_config", quantization)]).map(|a| a.storage);
        let auto = |mode: &str| json!({"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": mode});
        assert_eq!(of(auto("offline")).unwrap(), Storage::Multiplier);
        assert_eq!(of(auto("online")).unwrap(), Storage::Masters);
        assert_eq!(of(json!({"quant_method": "bitnet"})).unwrap(), Storage::Reciprocal);
        let plain = json!({"quant_method": "bitnet", "linear_class": "bitlinear"});
        assert_eq!(of(plain).unwrap(), Storage::Reciprocal);
        for wrong in [
            auto("sometimes"),
            json!({"quant_method": "gptq"}),
            json!({"quant_method": "bitnet", "linear_class": "other"}),
        ] {
            assert!(of(wrong).is_err());
        }
    }

    #[test]
    fn inner_norms_come_before_their_layers() {
        let mut config = config();
        config["model_type"] = json!("gemma3_text");
        config["architectures"] = json!(["Gemma3Model"]);
        config["hidden_act"] = json!("gelu_pytorch_tanh");
        let gemma = Architecture::read(&config, |name| name == "self_attn.q_proj.norm").unwrap();
        let parts = gemma.block();
        let role = |name| parts.iter().find(|part| part.gguf == name).unwrap().role;
        assert_eq!(role("attn_norm"), Role::Norm { n: 256, plus_one: true });
        assert_eq!(role("ffn_down_norm_in"), Role::Norm { n: 384, plus_one: false });
        assert_eq!((gemma.storage, gemma.tied), (Storage::Masters, true));
    }

    #[test]
    fn impossible_values_are_refused_by_key() {
        let cases: [(&str, Value); 12] = [
            ("sliding_window", json!(16)),
            ("final_logit_softcapping", json!(30.0)),
            ("rope_parameters", json!({"other_attention": {"rope_theta": 1e6}})),
            ("hidden_size", json!(-256)),
            ("hidden_size", json!(1u64 << 40)),
            ("num_hidden_layers", json!(0)),
            ("num_attention_heads", json!(3)),
            ("num_key_value_heads", json!(3)),
            ("rms_norm_eps", json!(-1.0)),
            ("vocab_size", json!("many")),
            ("hidden_act", json!("gelu")),
            ("rope_scaling", json!({"rope_type": "yarn"})),
        ];
        for (key, value) in cases {
            let error = read(&[(key, value)]).unwrap_err().to_string();
            assert!(error.contains(key), "{key}: {error}");
        }
        let local = json!({"sliding_attention": {"rope_type": "linear", "rope_theta": 1e4}});
        let error = read(&[("rope_parameters", local)]).unwrap_err().to_string();
        assert!(error.contains("rope_scaling"), "{error}");
    }
}
