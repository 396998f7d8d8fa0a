//! What can be wrong with a GGUF file.

use crate::ternary::CodecError;
use std::path::PathBuf;
use trilut_presets::{Shape, models, nearest};

/// A GGUF file that cannot be read, or lacks what was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// The file cannot be opened or mapped.
    #[error("cannot open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file does not begin with `GGUF`.
    #[error("not a GGUF file: {}", match begins.as_slice() {
        [] => "it is empty".to_owned(),
        begins => format!("it begins with `{}`", begins.escape_ascii()),
    })]
    Magic {
        /// The first bytes, at most 4.
        begins: Vec<u8>,
    },
    /// The numbers in the file are big-endian.
    #[error("the file is a big-endian GGUF; only little-endian files are read")]
    BigEndian,
    /// A version other than 2 and 3.
    #[error("the file is GGUF version {0}; versions 2 and 3 are read")]
    Version(u32),
    /// The header goes on past the end of the file.
    #[error("the file ends inside {what}: {missing} more bytes are needed at byte {at}")]
    Truncated {
        /// What was being read.
        what: String,
        /// The position in the file.
        at: usize,
        /// The number of bytes that are not there.
        missing: u64,
    },
    /// A count that the rest of the file cannot hold.
    #[error("the file claims {count} {what}, but its {left} remaining bytes cannot hold so many")]
    Count {
        /// What is counted.
        what: String,
        /// The claim.
        count: u64,
        /// Bytes from there to the end of the file.
        left: usize,
    },
    /// A name or text is not UTF-8.
    #[error("{what} is not UTF-8 text (byte {at} of the file)")]
    Utf8 {
        /// The text that is broken.
        what: String,
        /// The position of the text in the file.
        at: usize,
    },
    /// A key appears twice.
    #[error("the key `{0}` appears twice")]
    DuplicateKey(String),
    /// Two tensors have one name.
    #[error("the tensor `{0}` appears twice")]
    DuplicateTensor(String),
    /// An array of arrays.
    #[error("the key `{0}` is an array of arrays, which no model needs")]
    NestedArray(String),
    /// A value type that GGUF does not define.
    #[error("the key `{key}` has the unknown value type {id}")]
    ValueType {
        /// The key.
        key: String,
        /// The type's number.
        id: u32,
    },
    /// A truth value that is neither 0 nor 1.
    #[error("the key `{key}` holds the truth value {value}; only 0 and 1 are legal")]
    Bool {
        /// The key.
        key: String,
        /// The byte found.
        value: u8,
    },
    /// `general.alignment` is unusable.
    #[error("general.alignment is {0}, not a power of two")]
    Alignment(u64),
    /// A tensor's dimensions are unusable.
    #[error("the tensor `{tensor}` has {reason}")]
    Dims {
        /// The tensor.
        tensor: String,
        /// What is wrong, as the object of "has".
        reason: String,
    },
    /// A tensor's data does not begin at a multiple of the alignment.
    #[error("the data of `{tensor}` is at offset {offset}, not a multiple of {alignment}")]
    Misaligned {
        /// The tensor.
        tensor: String,
        /// Its offset from the start of the tensor data.
        offset: u64,
        /// `general.alignment`, or 32.
        alignment: u64,
    },
    /// A tensor's data goes on past the end of the file.
    #[error("the file is cut short: {missing} bytes of the tensor `{tensor}` are missing")]
    PastEnd {
        /// The first tensor (in file order) that is incomplete.
        tensor: String,
        /// The number of its bytes that are not there.
        missing: u64,
    },
    /// A key that is needed is not there.
    #[error("the file has no key `{0}`")]
    MissingKey(String),
    /// A key has a value of another type.
    #[error("the key `{key}` is {found}, expected {wants}")]
    WrongType {
        /// The key.
        key: String,
        /// The type that is needed.
        wants: &'static str,
        /// The type that is there.
        found: String,
    },
    /// An integer that does not fit the type that is needed.
    #[error("the key `{key}` is {value}, which is not {wants}")]
    OutOfRange {
        /// The key.
        key: String,
        /// The value found.
        value: i128,
        /// The type that is needed.
        wants: &'static str,
    },
    /// A tensor that is needed is not there.
    #[error("the file has no tensor `{0}`")]
    MissingTensor(String),
    /// A tensor's type is one that this runtime does not compute with.
    #[error("the tensor `{tensor}` has type {id} ({type_name}), written by {writer}")]
    Unsupported {
        /// The tensor.
        tensor: String,
        /// The type's number in the file.
        id: u32,
        /// The type's name, or `unknown`.
        type_name: &'static str,
        /// The programs that write it.
        writer: &'static str,
    },
    /// A tensor has a supported type, but not the one that is needed here.
    #[error("the tensor `{tensor}` is {found}, expected {wants}")]
    WrongKind {
        /// The tensor.
        tensor: String,
        /// The type that is needed.
        wants: &'static str,
        /// The type that is there.
        found: &'static str,
    },
    /// A tensor has other dimensions than the model's sizes ask for.
    #[error("the tensor `{tensor}` is {found:?}, expected {wants:?} (inputs first)")]
    WrongDims {
        /// The tensor.
        tensor: String,
        /// The dimensions that are needed, inputs first.
        wants: Vec<u64>,
        /// The dimensions that are there.
        found: Vec<u64>,
    },
    /// A ternary matrix cannot be read.
    #[error("the tensor `{tensor}` cannot be used")]
    Codec {
        /// The tensor.
        tensor: String,
        /// Why.
        source: CodecError,
    },
    /// Nothing tells how a TL1 or TL2 matrix is arranged.
    #[error(
        "the tensor `{tensor}` is {kind}, whose order depends on the build that wrote it, and no tile \
         is given for {shape}"
    )]
    Tile {
        /// The tensor.
        tensor: String,
        /// The type's name.
        kind: &'static str,
        /// Its size.
        shape: Shape,
    },
    /// A matrix has rows that are not whole blocks of its type.
    #[error("the tensor `{tensor}` has rows of {k} weights, not whole {kind} blocks of {block}")]
    Rows {
        /// The tensor.
        tensor: String,
        /// Weights of a row.
        k: usize,
        /// The type's name.
        kind: &'static str,
        /// Weights of a block.
        block: usize,
    },
}

impl GgufError {
    /// A helpful next step, where there is one.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Open { path, source } if source.kind() == std::io::ErrorKind::NotFound => {
                // What looks like no path may be the name of a known model, or nearly so.
                let name = path.to_str().filter(|name| !name.contains(['/', '\\']));
                let name = name.filter(|name| !name.to_lowercase().ends_with(".gguf"));
                let names = || models::all().iter().map(|spec| spec.name.as_str());
                let Some(near) = name.and_then(|name| nearest(name, names())) else {
                    return Some("give the path of a model file".to_owned());
                };
                return Some(format!(
                    "give the path of a model file; {near} is a name for trilut tune -m {near} and trilut dummy \
                     --model {near}"
                ));
            }
            Self::Magic { begins } if begins.starts_with(b"vers") => {
                "this is a Git LFS pointer, not the model: fetch the file itself"
            }
            Self::Magic { .. } => "give a model file whose name ends in .gguf",
            Self::BigEndian => "get the little-endian file of this model",
            Self::Version(0 | 1) => "the file is from 2023: convert the model again",
            Self::Version(_) => "the file is newer than this program",
            Self::Truncated { .. } | Self::PastEnd { .. } | Self::Count { .. } => {
                "the download is probably incomplete: fetch the file again and compare its size"
            }
            Self::Unsupported { .. } => {
                "ternary types (I2_S, TL1, TL2, TQ1_0, TQ2_0, Q2_0, IQ1_BN, IQ2_BN) and, for embeddings and \
                 heads, F32, F16, BF16, Q8_0, Q6_K, Q5_0, Q4_0, Q4_1 and Q4_K are supported"
            }
            Self::WrongKind { wants: "a ternary type", .. } => {
                "the weights are not ternary in this file: use the model's I2_S file"
            }
            Self::Tile { .. } => {
                "give the kernel_config.ini of that build with --tl-config, or a tile with --tl-tile"
            }
            Self::Codec { source: CodecError::Code { codec: "I2_S", .. }, .. } => {
                "the file is corrupt, or its codes are arranged in another way: try --i2s-layout arm, as \
                 ARM builds of bitnet.cpp write them"
            }
            Self::Codec { source: CodecError::Code { codec: "TL1" | "TL2", .. }, .. } => {
                "the file is corrupt, or was written with other tiles"
            }
            Self::Codec { source: CodecError::Scale { .. }, .. } => {
                "the file was written by a quantiser that damages scales, or is corrupt"
            }
            Self::Codec { source: CodecError::Groups { .. }, .. } => {
                "use a file of this model with one scale for each tensor, such as its I2_S file"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}
