//! What can go wrong in the runtime.

use crate::gguf::GgufError;
use trilut_kernels::{PackError, RegistryError};
use trilut_presets::preset::PresetError;

/// An error of the runtime: `Display` says what failed, `source` why, [`Error::hint`] what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model file is unreadable, or lacks something.
    #[error("the model file cannot be used")]
    Gguf(#[from] GgufError),
    /// The tokenizer in the model file is unusable.
    #[error("the model's tokenizer cannot be used")]
    Tokenizer(#[from] crate::tokenizer::TokenizerError),
    /// The model has a graph that this runtime does not compute.
    #[error("the architecture `{found}` is not supported")]
    Architecture {
        /// The value of `general.architecture`.
        found: String,
    },
    /// A hyper-parameter is impossible or contradicts another.
    #[error("the model's `{key}` is {value}: it {rule}")]
    Config {
        /// The key, without the architecture, or the linear layer.
        key: &'static str,
        /// The value found.
        value: String,
        /// What the value must fulfil.
        rule: &'static str,
    },
    /// A ternary tensor cannot be packed.
    #[error("the tensor `{tensor}` cannot be used")]
    Weights {
        /// The tensor.
        tensor: String,
        /// Why.
        source: PackError,
    },
    /// The file has a tensor that its graph does not use: the result would not be the model's.
    #[error(
        "the tensor `{tensor}` has no place in the graph of {architecture} models as it is known here"
    )]
    ForeignTensor {
        /// The tensor.
        tensor: String,
        /// The architecture.
        architecture: String,
    },
    /// A norm has an infinite or NaN weight.
    #[error("weight {index} of the tensor `{tensor}` is not a finite number")]
    NotFiniteWeight {
        /// The tensor.
        tensor: String,
        /// The position in it.
        index: usize,
    },
    /// The tokenizer knows other tokens than the model.
    #[error("the tokenizer has {tokenizer} tokens, the model {model}")]
    Vocabulary {
        /// Tokens of the tokenizer.
        tokenizer: usize,
        /// Rows of the embedding.
        model: usize,
    },
    /// Kernels that were added may not be used.
    #[error(transparent)]
    Kernels(#[from] RegistryError),
    /// The preset file that was asked for cannot be used.
    #[error(transparent)]
    Preset(#[from] PresetError),
    /// A scale is given twice, differently.
    #[error("`{tensor}` says {given}, but the scale behind the weights of `{weights}` is {scale}")]
    WeightScale {
        /// The tensor of the scale.
        tensor: String,
        /// Its value.
        given: f32,
        /// The tensor of the weights.
        weights: String,
        /// Their first scale.
        scale: f32,
    },
    /// An impossible number of threads.
    #[error("{threads} threads cannot be used; 1 to {most} can")]
    Threads {
        /// The number that was asked for.
        threads: usize,
        /// The largest number that is accepted.
        most: usize,
    },
    /// An impossible context length.
    #[error("a context of {asked} positions cannot be used; the model was made for 1 to {most}")]
    Context {
        /// The number that was asked for.
        asked: usize,
        /// The model's own limit.
        most: usize,
    },
    /// An impossible number of blocks.
    #[error("{asked} layers cannot be run; 1 to {most} can")]
    Layers {
        /// The number that was asked for.
        asked: usize,
        /// Those of the file.
        most: usize,
    },
    /// A cache that the machine's memory does not hold.
    #[error("the cache of {sequences} x {context} positions is larger than this machine's memory")]
    CacheSize {
        /// Sequences asked for.
        sequences: usize,
        /// Positions of each.
        context: usize,
    },
    /// A token that the model does not have.
    #[error("token {token} does not exist; the vocabulary has {vocab} tokens")]
    Token {
        /// The token.
        token: u32,
        /// The number of tokens of the vocabulary.
        vocab: usize,
    },
    /// A sequence that the cache does not have.
    #[error("sequence {sequence} does not exist; the cache has {sequences}")]
    Sequence {
        /// The sequence.
        sequence: usize,
        /// The number of sequences of the cache.
        sequences: usize,
    },
    /// A position that does not continue its sequence.
    #[error("sequence {sequence} continues at position {next}, not at {position}")]
    Position {
        /// The sequence.
        sequence: usize,
        /// The position that was given.
        position: usize,
        /// The position that comes next.
        next: usize,
    },
    /// The tokens do not fit into the context.
    #[error("{tokens} more tokens do not fit: {used} of {context} positions are used")]
    ContextFull {
        /// Tokens to be added.
        tokens: usize,
        /// Positions in use.
        used: usize,
        /// All positions.
        context: usize,
    },
    /// A cache or state of another model.
    #[error("the state was made for another model")]
    ForeignState,
    /// There is nothing to continue.
    #[error("the session is empty: there is no token to continue from")]
    Empty,
    /// The computation left the finite numbers.
    #[error("{what} is not a finite number")]
    NotFinite {
        /// What was seen to be infinite or NaN.
        what: &'static str,
    },
    /// A sampling option is out of range.
    #[error("the sampling option `{name}` is {value}: it {rule}")]
    Sampling {
        /// The option.
        name: &'static str,
        /// The value given.
        value: String,
        /// What the value must fulfil.
        rule: &'static str,
    },
}

impl Error {
    /// A helpful next step, where there is one.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Gguf(error) => return error.hint(),
            Self::Tokenizer(error) => return error.hint(),
            Self::Architecture { .. } => {
                "bitnet-b1.58, bitnet-25, bitnet, llama, qwen3 and gemma3 models are supported"
            }
            Self::ForeignTensor { .. } => {
                "the model is of a newer or another kind: use one of the published ternary models"
            }
            Self::Preset(error) => return error.hint(),
            Self::Kernels(_) => {
                "generate the kernels anew with this version of trilut, and run their `check_all`"
            }
            Self::Weights { source: PackError::Code3 { .. }, .. } => {
                "the file is corrupt, or its codes are arranged in another way: try --i2s-layout arm, as \
                 ARM builds of bitnet.cpp write them"
            }
            Self::NotFiniteWeight { .. } | Self::NotFinite { .. } => {
                "the file is probably corrupt: compare its checksum with the publisher's"
            }
            Self::WeightScale { .. } => {
                "the file is corrupt, or its tensors come from different conversions: convert the model anew"
            }
            Self::Context { .. } => "leave out --ctx for the model's own context",
            Self::Layers { .. } => "leave out --layers to run all of them",
            Self::ContextFull { .. } => "shorten the prompt, or raise the context with --ctx",
            Self::CacheSize { .. } => "lower the context with --ctx",
            Self::Threads { .. } => "leave out --threads to use every core",
            _ => return None,
        };
        Some(text.to_owned())
    }
}
