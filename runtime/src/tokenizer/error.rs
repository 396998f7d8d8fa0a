//! Why a file's tokenizer cannot be used.

use crate::gguf::GgufError;

/// A vocabulary that is missing, contradicts itself, or is of a kind that is not supported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// A key is missing or of the wrong type.
    #[error("the file's tokenizer cannot be read")]
    Gguf(#[from] GgufError),
    /// `tokenizer.ggml.model` is of another kind.
    #[error(
        "the tokenizer model `{0}`{kind} is not supported; `gpt2` (byte-level BPE) and `llama` \
         (SentencePiece) are",
        kind = kind_of_model(.0)
    )]
    Model(String),
    /// `tokenizer.ggml.pre` names rules for splitting text that are not known.
    #[error("the pre-tokenizer `{given}` is not supported; {} are", supported.join(", "))]
    Pre {
        /// The name in the file.
        given: String,
        /// The names that are.
        supported: Vec<&'static str>,
    },
    /// `tokenizer.ggml.pre` is absent, and neither vocabulary nor architecture tell what is meant.
    #[error("the file does not name its pre-tokenizer, and none is known for `{0}` models")]
    NoPre(String),
    /// There are no tokens.
    #[error("the vocabulary is empty")]
    Empty,
    /// There are more tokens than ids.
    #[error("the vocabulary has {0} tokens, more than ids can count")]
    TooMany(usize),
    /// Token types that do not go with the tokens.
    #[error("the vocabulary has {tokens} tokens but {types} token types")]
    Types {
        /// Number of tokens.
        tokens: usize,
        /// Number of types.
        types: usize,
    },
    /// The texts of the tokens are longer than any vocabulary's.
    #[error("the vocabulary's texts are too large")]
    TooLarge,
    /// Two ordinary tokens have one text.
    #[error("the tokens {first} and {second} are both `{text}`")]
    Duplicate {
        /// The smaller id.
        first: u32,
        /// The larger id.
        second: u32,
        /// Their text.
        text: String,
    },
    /// A byte has no token, so some texts could not be encoded.
    #[error("the vocabulary has no token for the byte {byte:#04x} (`{text}`)")]
    MissingByte {
        /// The byte.
        byte: u8,
        /// How the vocabulary would write it.
        text: String,
    },
    /// A byte token does not name a byte.
    #[error("the token {id} (`{text}`) is said to be a byte but is not written like `<0x0A>`")]
    NotByte {
        /// The token.
        id: u32,
        /// Its text.
        text: String,
    },
    /// Scores that do not go with the tokens.
    #[error("the vocabulary has {tokens} tokens but {scores} scores")]
    Scores {
        /// Number of tokens.
        tokens: usize,
        /// Number of scores.
        scores: usize,
    },
    /// A score that has no order.
    #[error("the score of the token {0} is not a number")]
    Score(u32),
    /// An ordinary token has a character that stands for no byte.
    #[error("the token {id} (`{text}`) is not written in byte-level characters")]
    NotByteLevel {
        /// The token.
        id: u32,
        /// Its text.
        text: String,
    },
    /// A merge is not two texts with a space between.
    #[error("merge {index} (`{text}`) is not two tokens with a space between")]
    Merge {
        /// The position in the list of merges.
        index: usize,
        /// The text found.
        text: String,
    },
    /// A merge takes or makes a text that is no token.
    #[error("merge {index} (`{merge}`) needs the token `{token}`, which is not in the vocabulary")]
    MergeToken {
        /// The position in the list of merges.
        index: usize,
        /// The merge.
        merge: String,
        /// The text that is no token.
        token: String,
    },
    /// A special token's id is not in the vocabulary.
    #[error("{key} is {id}, but the vocabulary has {tokens} tokens")]
    Id {
        /// The key that holds the id.
        key: &'static str,
        /// The id.
        id: u32,
        /// Number of tokens.
        tokens: usize,
    },
}

impl TokenizerError {
    /// A helpful next step, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Gguf(GgufError::MissingKey(key)) if key.starts_with("tokenizer.") => Some(
                "the file was written without its tokenizer: convert the model again".to_owned(),
            ),
            Self::Gguf(error) => error.hint(),
            Self::NoPre(_) => {
                Some("convert the model again: newer converters write tokenizer.ggml.pre".into())
            }
            _ => None,
        }
    }
}

/// What a value of `tokenizer.ggml.model` stands for, for those that are known but not supported.
fn kind_of_model(model: &str) -> &'static str {
    match model {
        "bert" => " (WordPiece)",
        "t5" => " (Unigram)",
        "rwkv" => " (RWKV)",
        "gemma4" => " (SentencePiece with merges)",
        "no_vocab" | "none" => " (no vocabulary)",
        _ => "",
    }
}
