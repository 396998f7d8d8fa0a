//! The models people run, as data: one file per model in `presets/models`.
//!
//! A file says what a model's graph looks like; the matrix shapes follow from it. They are the shapes
//! that the tuner measures and, for models marked `specialise`, that get kernels of their own.
//!
//! Falcon-E 3B is left out: of its sizes, the base of its rotary embedding and its epsilon were found
//! nowhere but in its model files, which are opened like any other.

use crate::Shape;
use serde::{Deserialize, Serialize};
use std::sync::LazyLock;

/// The function between the gate and down projections of a feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `max(x, 0)^2`.
    Relu2,
    /// `x * sigmoid(x)`.
    Silu,
    /// The tanh form of GELU.
    Gelu,
}

impl Activation {
    /// Every activation, in order of declaration.
    pub const ALL: &[Self] = &[Self::Relu2, Self::Silu, Self::Gelu];

    /// The name in model files: `relu2`, `silu`, `gelu`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Relu2 => "relu2",
            Self::Silu => "silu",
            Self::Gelu => "gelu",
        }
    }
}

crate::named!(Activation, "activation");

/// The layers of a model that see only the last positions of a text.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowSpec {
    /// Positions that a token sees there, itself included.
    pub positions: usize,
    /// Of so many layers the last one sees all positions.
    pub period: usize,
    /// Base of the rotary embedding's wavelengths there.
    pub rope_theta: f32,
}

/// What a model's graph looks like: a file of `presets/models`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// The name on the command line, equal to the file's stem, such as `bitnet-2b-4t`.
    pub name: String,
    /// The name for people.
    pub title: String,
    /// The value of `general.architecture` in a GGUF file, such as `bitnet-b1.58`.
    pub architecture: String,
    /// Number of transformer blocks.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the feed-forward block.
    pub ffn: usize,
    /// Number of query heads.
    pub heads: usize,
    /// Number of key/value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head; `heads * head_dim` need not equal `hidden`.
    pub head_dim: usize,
    /// Number of tokens in the vocabulary.
    pub vocab: usize,
    /// Number of positions the model was trained for.
    pub context: usize,
    /// Base of the rotary embedding's wavelengths.
    pub rope_theta: f32,
    /// Added to the mean square in RMS norms.
    pub eps: f32,
    /// Whether the output matrix is the token embedding.
    pub tied: bool,
    /// Whether RMS norms precede the attention output and down projections.
    pub sub_norms: bool,
    /// The function inside the feed-forward block.
    pub activation: Activation,
    /// The layers that see only the last positions; absent where there are none.
    #[serde(default)]
    pub window: Option<WindowSpec>,
    /// Whether the model's shapes get kernels of their own.
    #[serde(default)]
    pub specialise: bool,
}

/// A model file that cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ModelError {
    /// Not TOML, or a key is missing, unknown or of the wrong type.
    #[error("the model file cannot be read")]
    Toml(#[from] toml::de::Error),
    /// A value is out of range or contradicts another.
    #[error("model `{model}`: {rule}")]
    Invalid {
        /// The model's name.
        model: String,
        /// The rule that is broken, naming the value.
        rule: String,
    },
}

impl ModelSpec {
    /// Reads a model file and checks that its sizes fit together.
    ///
    /// # Errors
    /// When the text is not a model file, or a size is 0, too large or contradicts another.
    pub fn from_toml(text: &str) -> Result<Self, ModelError> {
        let spec: Self = toml::from_str(text)?;
        spec.check().map_err(|rule| ModelError::Invalid { model: spec.name.clone(), rule })?;
        Ok(spec)
    }

    fn check(&self) -> Result<(), String> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
        if self.name.is_empty() || !self.name.chars().all(plain) {
            return Err("a name consists of a-z, 0-9, `-`, `.` and `_`".to_owned());
        }
        let sizes = [
            ("layers", self.layers),
            ("hidden", self.hidden),
            ("ffn", self.ffn),
            ("heads", self.heads),
            ("kv_heads", self.kv_heads),
            ("head_dim", self.head_dim),
            ("vocab", self.vocab),
            ("context", self.context),
        ];
        if let Some((key, size)) = sizes.iter().find(|(_, n)| !(1..Shape::MAX_K).contains(n)) {
            return Err(format!("{key} = {size}, must be at least 1 and below {}", Shape::MAX_K));
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            let Self { heads, kv_heads, .. } = self;
            return Err(format!("kv_heads = {kv_heads} does not divide heads = {heads}"));
        }
        if self.heads * self.head_dim >= Shape::MAX_K {
            return Err(format!("heads * head_dim must be below {}", Shape::MAX_K));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(format!(
                "head_dim = {} is odd; rotary embedding needs pairs",
                self.head_dim
            ));
        }
        if self.window.is_some_and(|window| window.positions.min(window.period) == 0) {
            return Err("a window's positions and period must be at least 1".to_owned());
        }
        let local = self.window.map_or(1.0, |window| window.rope_theta);
        for (key, value) in
            [("rope_theta", self.rope_theta), ("window.rope_theta", local), ("eps", self.eps)]
        {
            if !(value.is_finite() && value > 0.0) {
                return Err(format!("{key} = {value}, must be above 0"));
            }
        }
        Ok(())
    }

    /// The width of all query heads together.
    pub fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// The width of all key (or value) heads together.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// The distinct shapes of the ternary layers, in the order q, k and v, o, gate and up, down.
    pub fn shapes(&self) -> Vec<Shape> {
        let all = [
            Shape { m: self.q_width(), k: self.hidden },
            Shape { m: self.kv_width(), k: self.hidden },
            Shape { m: self.hidden, k: self.q_width() },
            Shape { m: self.ffn, k: self.hidden },
            Shape { m: self.hidden, k: self.ffn },
        ];
        let mut distinct = Vec::new();
        for shape in all {
            if !distinct.contains(&shape) {
                distinct.push(shape);
            }
        }
        distinct
    }

    /// The number of ternary weights in all layers.
    pub fn ternary_weights(&self) -> usize {
        let attention = 2 * self.hidden * (self.q_width() + self.kv_width());
        self.layers * (attention + 3 * self.hidden * self.ffn)
    }
}

/// Pairs every file's stem with its text.
macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../models/", $name, ".toml")))),*]
    };
}

const FILES: &[(&str, &str)] = files![
    "demo",
    "bitnet-2b-4t",
    "bitnet-large",
    "bitnet-3b",
    "llama3-8b",
    "falcon3-1b",
    "falcon3-3b",
    "falcon3-7b",
    "falcon3-10b",
    "falcon-e-1b",
    "embedding-0.6b",
    "embedding-270m",
    "dummy-125m",
    "dummy-350m",
    "dummy-1b",
    "dummy-1.5b",
    "dummy-2.7b",
    "dummy-3.8b",
    "dummy-7b",
    "dummy-13b",
    "dummy-30b",
    "dummy-70b",
    "dummy-100b",
];

static ALL: LazyLock<Vec<ModelSpec>> = LazyLock::new(|| {
    let read = |(name, text): &(&str, &str)| {
        // The files are part of this crate and its tests read each of them.
        ModelSpec::from_toml(text).unwrap_or_else(|e| panic!("models/{name}.toml: {e:?}"))
    };
    FILES.iter().map(read).collect()
});

/// Every model of `presets/models`: the demo, the published models, the dummies by size.
pub fn all() -> &'static [ModelSpec] {
    &ALL
}

/// The model of this name.
pub fn find(name: &str) -> Option<&'static ModelSpec> {
    all().iter().find(|spec| spec.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_listed_and_named_after_its_model() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
        let mut stems: Vec<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == "toml"))
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        let mut listed: Vec<_> = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
        let named: Vec<_> = all().iter().map(|spec| spec.name.clone()).collect();
        assert_eq!(listed, named);
        stems.sort();
        listed.sort();
        assert_eq!(listed, stems);
        assert!(named.iter().all(|name| find(name).is_some()));
        assert!(find("no-such-model").is_none());
    }

    #[test]
    fn the_2b_model_has_its_known_shapes_and_size() {
        let spec = find("bitnet-2b-4t").unwrap();
        let shapes: Vec<_> = spec.shapes().iter().map(ToString::to_string).collect();
        assert_eq!(shapes, ["2560x2560", "640x2560", "6912x2560", "2560x6912"]);
        assert_eq!(spec.ternary_weights(), 2_084_044_800);
        assert!(spec.specialise && spec.tied && spec.sub_norms);
    }

    /// The published I2_S file of Falcon-E 1B has 666324256 bytes: these, and some 1.1 MB of metadata.
    #[test]
    fn falcon_e_has_the_size_of_its_published_file() {
        let spec = find("falcon-e-1b").unwrap();
        let ternary = spec.ternary_weights() / 4;
        let embedding_and_head = 2 * 2 * spec.vocab * spec.hidden;
        let norms = 4 * (2 * spec.layers + 1) * spec.hidden;
        let metadata = 666_324_256 - ternary - embedding_and_head - norms;
        assert!((1_000_000..1_200_000).contains(&metadata), "{metadata}");
    }

    #[test]
    fn query_width_may_differ_from_hidden() {
        let shapes = find("embedding-0.6b").unwrap().shapes();
        assert!(shapes.contains(&Shape { m: 2048, k: 1024 }));
        assert!(shapes.contains(&Shape { m: 1024, k: 2048 }));
    }

    #[test]
    fn dummies_fit_whole_i2s_blocks() {
        for spec in all().iter().filter(|s| s.name.starts_with("dummy-")) {
            assert_eq!(spec.q_width(), spec.hidden, "{}", spec.name);
            assert!(spec.shapes().iter().all(|s| s.k.is_multiple_of(128)), "{}", spec.name);
        }
    }

    #[test]
    fn wrong_files_are_refused_with_the_rule() {
        let good = FILES[1].1;
        let refuse = |from: &str, to: &str| {
            assert!(good.contains(from), "{from}");
            ModelSpec::from_toml(&good.replace(from, to)).unwrap_err().to_string()
        };
        assert!(refuse("kv_heads = 5", "kv_heads = 6").contains("does not divide"));
        assert!(refuse("layers = 30", "layers = 0").contains("layers = 0"));
        assert!(refuse("head_dim = 128", "head_dim = 127").contains("odd"));
        assert!(refuse("eps = 1e-5", "eps = nan").contains("eps"));
        assert!(refuse("\"relu2\"", "\"swish\"").contains("cannot be read"));
        assert!(refuse("tied = true", "tide = true").contains("cannot be read"));
        let source = ModelSpec::from_toml(&good.replace("\"relu2\"", "\"swish\"")).unwrap_err();
        let cause = std::error::Error::source(&source).unwrap().to_string();
        assert!(cause.contains("relu2, silu, gelu"), "{cause}");
    }

    #[test]
    fn a_spec_survives_writing() {
        for spec in all() {
            let text = toml::to_string(spec).unwrap();
            assert_eq!(&ModelSpec::from_toml(&text).unwrap(), spec);
        }
    }
}
