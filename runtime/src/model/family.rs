//! What distinguishes the graphs of the model families: each is this data, and one forward pass follows it.

use super::window::Alternation;
use crate::Error;
use crate::gguf::{Gguf, Value};
use trilut_kernels::float::rope::Form;
use trilut_presets::models::Activation;

/// The choices in which graphs differ. All are made by the file's architecture and tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// The function between the gate and down projections.
    pub activation: Activation,
    /// Which dimensions of a head rope turns together.
    pub rope: Form,
    /// Whether what enters the attention output and down projections is normed first.
    pub sub_norms: bool,
    /// Whether every linear layer norms its own input, besides the block's norms.
    pub input_norms: bool,
    /// Whether each query and key head is normed before rope.
    pub head_norms: bool,
    /// Whether what attention and feed-forward network add to the residual stream is normed first.
    pub post_norms: bool,
    /// Whether embeddings are multiplied with the square root of their length.
    pub scaled_embedding: bool,
    /// Which layers have the file's window, where the file does not say.
    pub alternation: Option<Alternation>,
}

/// A graph without any of the choices: that of Llama.
const PLAIN: Family = Family {
    activation: Activation::Silu,
    rope: Form::Neox,
    sub_norms: false,
    input_norms: false,
    head_norms: false,
    post_norms: false,
    scaled_embedding: false,
    alternation: None,
};

/// The families by architecture, as far as that tells.
///
/// BitNet b1.58 2B-4T alone has relu²; the models of 1bitLLM, whose architecture is `bitnet`, have SiLU.
/// Files of architecture `llama` have their query and key rows in an order that goes with interleaved
/// rope. Gemma's own norms are stored with the 1 that it adds to them, by llama.cpp's converter (`norm_shift`
/// in conversion/gemma.py) as by that of the BitNet embedding models
/// (utils/convert-bitnet-embedding-to-gguf.py), which leaves the norms inside linear layers as they are.
const FAMILIES: &[(&str, Family)] = &[
    ("bitnet-b1.58", Family { activation: Activation::Relu2, sub_norms: true, ..PLAIN }),
    ("bitnet-25", Family { activation: Activation::Relu2, sub_norms: true, ..PLAIN }),
    ("bitnet", Family { sub_norms: true, ..PLAIN }),
    ("llama", Family { rope: Form::Interleaved, ..PLAIN }),
    ("qwen3", Family { head_norms: true, ..PLAIN }),
    (
        "gemma3",
        Family {
            activation: Activation::Gelu,
            head_norms: true,
            post_norms: true,
            scaled_embedding: true,
            alternation: Some(Alternation { period: 6, rope_base: 10_000 }),
            ..PLAIN
        },
    ),
];

/// Keys, without the architecture, that change a graph in ways that are not computed, and the values that
/// do not.
const FOREIGN: &[(&str, Foreign)] = &[
    ("attention.causal", Foreign::Unless(1.0)),
    ("attention.scale", Foreign::Unless(0.0)),
    ("attn_logit_softcapping", Foreign::Unless(0.0)),
    ("final_logit_softcapping", Foreign::Unless(0.0)),
    ("expert_count", Foreign::Unless(0.0)),
    ("logit_scale", Foreign::Unless(0.0)),
    ("residual_scale", Foreign::Unless(0.0)),
    ("embedding_scale", Foreign::Unless(0.0)),
    ("rope.scaling.factor", Foreign::Unless(1.0)),
    ("rope.scaling.attn_factor", Foreign::Unless(1.0)),
    ("rope.scaling.type", Foreign::UnlessWord("none")),
];

/// When a key is of no consequence, besides when it is absent.
enum Foreign {
    /// When it has this value.
    Unless(f64),
    /// When it is this word.
    UnlessWord(&'static str),
}

impl Family {
    /// The architectures that are known, in the order of their mention.
    pub fn architectures() -> impl Iterator<Item = &'static str> {
        FAMILIES.iter().map(|(name, _)| *name)
    }

    /// The family of a file.
    ///
    /// # Errors
    /// When the architecture is not known, or a key asks for a graph that is not computed.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, Error> {
        let mut family = Self::of(gguf.architecture()?)?;
        // Qwen and Gemma as BitNet models have them, and may be without.
        family.input_norms = gguf.opt_tensor("blk.0.attn_q_norm_in.weight")?.is_some();
        for (key, harmless) in FOREIGN {
            let full = gguf.arch_key(key)?;
            let Some(value) = gguf.value(&full) else { continue };
            let is_harmless = match (harmless, number(value)) {
                (Foreign::Unless(neutral), Some(value)) => value == *neutral,
                (Foreign::UnlessWord(word), None) => matches!(value, Value::Str(v) if v == *word),
                // Of a type that nobody is known to write.
                _ => false,
            };
            if !is_harmless {
                let rule = "asks for a graph that is not computed";
                let value = match (number(value), value) {
                    (Some(value), _) => value.to_string(),
                    (None, Value::Str(text)) => format!("`{text}`"),
                    (None, _) => "of an unexpected type".to_owned(),
                };
                return Err(Error::Config { key, value, rule });
            }
        }
        Ok(family)
    }

    /// The family of models of an architecture, as they are known: Qwen 3 and Gemma 3 as the BitNet
    /// embedding models have them.
    ///
    /// # Errors
    /// When the architecture is not known.
    pub fn of(architecture: &str) -> Result<Self, Error> {
        let found = FAMILIES.iter().find(|(name, _)| *name == architecture);
        let (_, family) =
            found.ok_or_else(|| Error::Architecture { found: architecture.to_owned() })?;
        Ok(Self { input_norms: matches!(architecture, "qwen3" | "gemma3"), ..*family })
    }
}

/// What a key that changes the graph is compared by.
fn number(value: Value<'_>) -> Option<f64> {
    match value {
        Value::Int(value) => Some(value as f64),
        Value::Float(value) => Some(value),
        Value::Bool(value) => Some(f64::from(u8::from(value))),
        Value::Str(_) | Value::Array(_) => None,
    }
}
