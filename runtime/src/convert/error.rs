//! What can go wrong in a conversion.

use crate::gguf::{GgufError, WriteError};
use safetensors::SafeTensorError;
use std::path::{Path, PathBuf};

/// A model that cannot be converted. No file is left under the name that was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// A file of the source cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file of the source is not what its name says.
    #[error("{} is not valid JSON", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A weight file is broken, or its header lies.
    #[error("{} is not a whole safetensors file", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// Why.
        source: SafeTensorError,
    },
    /// The source is a GGUF file that cannot be used.
    #[error("the model file cannot be used")]
    Gguf(#[from] GgufError),
    /// The source is of a model that cannot be run.
    #[error("the model cannot be used")]
    Model(#[source] Box<crate::Error>),
    /// The tokenizer that was written cannot be read back.
    #[error("the tokenizer cannot be used")]
    Tokenizer(#[from] crate::tokenizer::TokenizerError),
    /// Something that a model needs is not there.
    #[error("{} has no {what}", dir.display())]
    Missing {
        /// The directory.
        dir: PathBuf,
        /// What was looked for.
        what: String,
    },
    /// Weight files that the checkpoint names are not there.
    #[error("weight files are missing: {}", missing.join(", "))]
    Shards {
        /// Their names.
        missing: Vec<String>,
    },
    /// A value of a configuration file is impossible, unknown or contradicts another.
    #[error("`{key}` is {value}: it {rule}")]
    Config {
        /// The key.
        key: String,
        /// The value found.
        value: String,
        /// What the value must fulfil.
        rule: String,
    },
    /// A tensor that does not fit the model.
    #[error("the tensor `{tensor}` {rule}")]
    Tensor {
        /// Its name in the source.
        tensor: String,
        /// What is wrong with it.
        rule: String,
    },
    /// A model whose weights are floats and were not trained to be ternary.
    #[error("`{tensor}` holds ordinary float weights: this is no ternary model")]
    NotTernary {
        /// The first such tensor.
        tensor: String,
    },
    /// The tokenizer's files contradict themselves or the model.
    #[error("the tokenizer cannot be converted: {0}")]
    Vocabulary(String),
    /// An option that changes nothing about this source: what was meant by it would not be done.
    #[error("--{option} changes nothing here: {why}")]
    Idle {
        /// Its name, as [`Options`](super::Options) and the command line have it.
        option: &'static str,
        /// Why it has no meaning.
        why: &'static str,
    },
    /// A directory that is to be written holds a checkpoint: the files of both would mix.
    #[error("{} holds a checkpoint already: {file}", dir.display())]
    Occupied {
        /// The directory.
        dir: PathBuf,
        /// A file of the checkpoint.
        file: String,
    },
    /// What was written is not what was read.
    #[error("the written tensor `{tensor}` differs: {rule}")]
    Differs {
        /// The tensor.
        tensor: String,
        /// How it differs.
        rule: String,
    },
    /// The caller broke off.
    #[error("the model was not written: interrupted")]
    Cancelled,
    /// The file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl ConvertError {
    /// A helpful next step, where there is one.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Gguf(error) => return error.hint(),
            Self::Model(error) => return error.hint(),
            Self::Tokenizer(error) => return error.hint(),
            Self::Safetensors { .. } => {
                "the file is cut short or damaged: compare its size and checksum with the publisher's"
            }
            Self::Shards { .. } => "download them into the same directory",
            Self::NotTernary { .. } => {
                "trilut quantize ternarises it (the quality is not kept without training)"
            }
            Self::Vocabulary(what) if what.contains("pre-tokenizer") => {
                "say which one it is: trilut convert SRC DST --pre llama-bpe"
            }
            Self::Idle { option, .. } => return Some(format!("leave out --{option}")),
            Self::Occupied { .. } => "name another directory, or empty this one",
            Self::Differs { .. } => {
                "nothing was left; run it again, and check the disk and the memory"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }

    /// Wrong contents of a tensor.
    pub(super) fn tensor(tensor: &str, rule: impl Into<String>) -> Self {
        Self::Tensor { tensor: tensor.to_owned(), rule: rule.into() }
    }

    /// A wrong value of a configuration file.
    pub(super) fn config(key: &str, value: impl ToString, rule: impl Into<String>) -> Self {
        Self::Config { key: key.to_owned(), value: value.to_string(), rule: rule.into() }
    }

    /// A file that cannot be read.
    pub(super) fn read(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Read { path, source }
    }
}
