//! The hyper-parameters of a model, read from the metadata of its file and checked against each other.

use super::family::Family;
use super::window::Window;
use crate::Error;
use crate::gguf::Gguf;
use trilut_presets::Shape;
use trilut_presets::models::ModelSpec;

/// Sizes, constants and graph of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// What distinguishes its graph.
    pub family: Family,
    /// Transformer blocks.
    pub layers: usize,
    /// Length of the residual stream.
    pub hidden: usize,
    /// Length of the feed-forward product.
    pub ffn: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Length of one head; need not be `hidden / heads`.
    pub head_dim: usize,
    /// Leading dimensions of a head that rope turns.
    pub rope_dims: usize,
    /// Base of the rope frequencies.
    pub rope_base: f64,
    /// The layers that see only the last positions, if there are any.
    pub window: Option<Window>,
    /// Epsilon of the norms.
    pub eps: f32,
    /// Tokens in the vocabulary.
    pub vocab: usize,
    /// The most positions that the model was made for.
    pub context: usize,
}

/// Where a size of a model file stops being credible; far above any model, far below an overflow.
const LARGEST: usize = 1 << 24;

impl Config {
    /// Reads the keys under the file's architecture.
    ///
    /// # Errors
    /// When the architecture is not supported, a key is missing, or values contradict each other.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, Error> {
        let family = Family::from_gguf(gguf)?;
        let size = |key: &str| -> Result<usize, Error> { Ok(gguf.arch_u32(key)? as usize) };
        let optional = |key: &str| -> Result<Option<usize>, Error> {
            Ok(gguf.opt_arch_u32(key)?.map(|value| value as usize))
        };
        let hidden = size("embedding_length")?;
        let heads = size("attention.head_count")?;
        let dimension_count = optional("rope.dimension_count")?;
        let head_dim = match optional("attention.key_length")?.or(dimension_count) {
            Some(head_dim) => head_dim,
            None if heads > 0 && hidden.is_multiple_of(heads) => hidden / heads,
            None => return Err(refuse("attention.head_count", heads, "must divide the embedding")),
        };
        let vocab = match optional("vocab_size")? {
            Some(vocab) => vocab,
            None => gguf.strings("tokenizer.ggml.tokens")?.len(),
        };
        let layers = size("block_count")?;
        let rope_base = gguf.opt_arch_f32("rope.freq_base")?.map_or(10_000.0, f64::from);
        // One truth value for each layer: of a credible number.
        let window = match layers {
            1..LARGEST => Window::from_gguf(gguf, &family, layers, rope_base)?,
            _ => None,
        };
        let config = Self {
            family,
            layers,
            hidden,
            ffn: size("feed_forward_length")?,
            heads,
            kv_heads: optional("attention.head_count_kv")?.unwrap_or(heads),
            head_dim,
            rope_dims: dimension_count.unwrap_or(head_dim),
            rope_base,
            window,
            eps: gguf.arch_f32("attention.layer_norm_rms_epsilon")?,
            vocab,
            context: size("context_length")?,
        };
        config.check()?;
        if let Some(value_length) = optional("attention.value_length")?
            && value_length != head_dim
        {
            let rule = "must equal the key length";
            return Err(refuse("attention.value_length", value_length, rule));
        }
        Ok(config)
    }

    /// The sizes of a known model, for which there need be no file.
    ///
    /// # Errors
    /// When its architecture is not known, or its sizes are beyond those of the kernels.
    pub fn from_spec(spec: &ModelSpec) -> Result<Self, Error> {
        let config = Self {
            family: Family::of(&spec.architecture)?,
            layers: spec.layers,
            hidden: spec.hidden,
            ffn: spec.ffn,
            heads: spec.heads,
            kv_heads: spec.kv_heads,
            head_dim: spec.head_dim,
            rope_dims: spec.head_dim,
            rope_base: f64::from(spec.rope_theta),
            window: spec.window.map(|window| Window::from_spec(&window, spec.layers)),
            eps: spec.eps,
            vocab: spec.vocab,
            context: spec.context,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), Error> {
        let sizes = [
            ("block_count", self.layers),
            ("embedding_length", self.hidden),
            ("feed_forward_length", self.ffn),
            ("attention.head_count", self.heads),
            ("attention.head_count_kv", self.kv_heads),
            ("attention.key_length", self.head_dim),
            ("vocab_size", self.vocab),
            ("context_length", self.context),
        ];
        for (key, value) in sizes {
            if !(1..LARGEST).contains(&value) {
                return Err(refuse(key, value, "must be at least 1 and below 2^24"));
            }
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            let rule = "must divide the number of query heads";
            return Err(refuse("attention.head_count_kv", self.kv_heads, rule));
        }
        if self.heads.checked_mul(self.head_dim).is_none_or(|length| length >= LARGEST) {
            let rule = "times the number of heads must be below 2^24";
            return Err(refuse("attention.key_length", self.head_dim, rule));
        }
        for (layer, shape) in self.linears() {
            if Shape::new(shape.m, shape.k).is_err() {
                let rule = "may have 2^24 outputs and 2^20 inputs at most";
                return Err(refuse(layer, shape, rule));
            }
        }
        if !self.rope_dims.is_multiple_of(2) || self.rope_dims > self.head_dim {
            let rule = "must be even and at most the head's length";
            return Err(refuse("rope.dimension_count", self.rope_dims, rule));
        }
        let local = self.window.as_ref().map(|window| ("rope.freq_base_swa", window.rope_base));
        for (key, base) in [("rope.freq_base", self.rope_base)].into_iter().chain(local) {
            if !(base.is_finite() && base > 0.0) {
                return Err(refuse(key, base, "must be above 0"));
            }
        }
        if !(self.eps.is_finite() && self.eps > 0.0) {
            let rule = "must be above 0";
            return Err(refuse("attention.layer_norm_rms_epsilon", self.eps, rule));
        }
        Ok(())
    }

    /// Length of all query heads together.
    pub fn q_len(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Length of all key (or value) heads together.
    pub fn kv_len(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Whether a layer sees only the last positions.
    pub fn is_local(&self, layer: usize) -> bool {
        self.window.as_ref().is_some_and(|window| window.layers[layer])
    }

    /// The first position that a token at `position` sees in a layer.
    pub fn first_seen(&self, layer: usize, position: usize) -> usize {
        match &self.window {
            Some(window) if window.layers[layer] => (position + 1).saturating_sub(window.positions),
            _ => 0,
        }
    }

    /// The linear layers of a block: tensor name and size, in the order of their use.
    pub fn linears(&self) -> [(&'static str, Shape); 7] {
        let shape = |m, k| Shape { m, k };
        [
            ("attn_q", shape(self.q_len(), self.hidden)),
            ("attn_k", shape(self.kv_len(), self.hidden)),
            ("attn_v", shape(self.kv_len(), self.hidden)),
            ("attn_output", shape(self.hidden, self.q_len())),
            ("ffn_gate", shape(self.ffn, self.hidden)),
            ("ffn_up", shape(self.ffn, self.hidden)),
            ("ffn_down", shape(self.hidden, self.ffn)),
        ]
    }

    /// The stacks of a block, linear layers that share one input: what they are called and the size of
    /// each as one matrix, in the order of their use. Prompts are multiplied stack by stack.
    pub fn stacks(&self) -> Vec<(&'static str, Shape)> {
        if self.family.input_norms {
            // Every layer has an input of its own.
            return self.linears().to_vec();
        }
        let shape = |m, k| Shape { m, k };
        vec![
            ("attn_qkv", shape(self.q_len() + 2 * self.kv_len(), self.hidden)),
            ("attn_output", shape(self.hidden, self.q_len())),
            ("ffn_gate_up", shape(2 * self.ffn, self.hidden)),
            ("ffn_down", shape(self.hidden, self.ffn)),
        ]
    }
}

fn refuse(key: &'static str, value: impl ToString, rule: &'static str) -> Error {
    Error::Config { key, value: value.to_string(), rule }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config {
            family: Family::of("bitnet-b1.58").unwrap(),
            layers: 30,
            hidden: 2560,
            ffn: 6912,
            heads: 20,
            kv_heads: 5,
            head_dim: 128,
            rope_dims: 128,
            rope_base: 500_000.0,
            window: None,
            eps: 1e-5,
            vocab: 128_256,
            context: 4096,
        }
    }

    #[test]
    fn the_sizes_of_2b_4t_are_accepted() {
        config().check().unwrap();
        assert_eq!(config().linears()[6].1.to_string(), "2560x6912");
    }

    #[test]
    fn every_known_model_has_its_layers_and_stacks() {
        for spec in trilut_presets::models::all() {
            let config = Config::from_spec(spec).unwrap();
            let linears = config.linears().map(|(_, shape)| shape);
            assert!(linears.iter().all(|shape| spec.shapes().contains(shape)), "{}", spec.name);
            let weights = |shapes: &[Shape]| shapes.iter().map(|s| s.weights()).sum::<usize>();
            let stacks: Vec<_> = config.stacks().into_iter().map(|(_, shape)| shape).collect();
            assert_eq!(weights(&stacks), weights(&linears));
            assert_eq!(weights(&stacks) * spec.layers, spec.ternary_weights());
        }
    }

    #[test]
    fn contradictions_are_refused_by_key() {
        type Case = (&'static str, fn(&mut Config));
        let cases: [Case; 13] = [
            ("block_count", |c| c.layers = 0),
            ("attention.head_count_kv", |c| c.kv_heads = 6),
            ("attention.head_count_kv", |c| c.kv_heads = 0),
            ("attention.key_length", |c| c.head_dim = 1 << 23),
            ("attention.key_length", |c| (c.heads, c.kv_heads) = (5 << 20, 5)),
            ("`attn_q` is 2560x1048704", |c| c.hidden = (1 << 20) + 128),
            ("`attn_output` is 2560x1310720", |c| c.heads = 10_240),
            ("`ffn_down` is 2560x1048577", |c| c.ffn = (1 << 20) + 1),
            ("rope.dimension_count", |c| c.rope_dims = 130),
            ("rope.dimension_count", |c| c.rope_dims = 63),
            ("rope.freq_base", |c| c.rope_base = f64::NAN),
            ("rope.freq_base_swa", |c| {
                c.window = Some(Window { positions: 8, rope_base: 0.0, layers: vec![true; 30] });
            }),
            ("attention.layer_norm_rms_epsilon", |c| c.eps = 0.0),
        ];
        for (key, spoil) in cases {
            let mut config = config();
            spoil(&mut config);
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
    }
}
