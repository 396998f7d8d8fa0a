//! Text to tokens and back, from the vocabulary in a GGUF file.
//!
//! Byte-level BPE with the Llama-3 rules for splitting text into words, which is what the BitNet 2B-4T
//! and Llama-3 models use. Merging is done by the `tokenizers` crate; special tokens, decoding and
//! streaming are done here.

mod byte_level;
mod error;
mod special;
mod stream;
mod vocabulary;

pub(crate) use byte_level::char_of;
pub use error::TokenizerError;
pub use stream::TokenStream;

use crate::gguf::Gguf;
use special::{Part, SpecialTokens};
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::SplitDelimiterBehavior;
use vocabulary::{Kind, Vocabulary};

/// The names under which files ask for the Llama-3 rules.
const LLAMA3: &[&str] = &["llama-bpe", "llama3", "llama-v3"];

/// Architectures whose files may leave the pre-tokenizer out and mean the Llama-3 rules.
const LLAMA3_BY_DEFAULT: &[&str] = &["bitnet-b1.58", "bitnet-25"];

/// The Llama-3 rules: contractions, words, numbers of up to 3 digits, punctuation, white space.
const LLAMA3_WORDS: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// A file's tokenizer.
pub struct Tokenizer {
    bpe: tokenizers::Tokenizer,
    vocabulary: Vocabulary,
    /// Texts that are always one token.
    user_defined: SpecialTokens,
    /// Tokens without a text of their own, which only templates write.
    control: SpecialTokens,
    /// Both.
    all_special: SpecialTokens,
    bos: Option<u32>,
    add_bos: bool,
    stops: Vec<u32>,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokenizer({} tokens)", self.vocab_size())
    }
}

impl Tokenizer {
    /// Reads the tokenizer of a file.
    ///
    /// # Errors
    /// When the file has none, it is of a kind that is not supported, or its vocabulary contradicts
    /// itself.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, TokenizerError> {
        let model = gguf.str("tokenizer.ggml.model")?;
        if model != "gpt2" {
            return Err(TokenizerError::Model(model.to_owned()));
        }
        check_pre(gguf)?;
        let vocabulary = Vocabulary::from_gguf(gguf)?;
        let bpe = build_bpe(&vocabulary, gguf)?;

        let id = |key| match gguf.opt_u32(key)? {
            Some(id) if id as usize >= vocabulary.len() => {
                Err(TokenizerError::Id { key, id, tokens: vocabulary.len() })
            }
            id => Ok(id),
        };
        let bos = id("tokenizer.ggml.bos_token_id")?;
        let add_bos = gguf.opt_bool("tokenizer.ggml.add_bos_token")?.unwrap_or(true);
        let mut stops: Vec<u32> =
            [id("tokenizer.ggml.eos_token_id")?, id("tokenizer.ggml.eot_token_id")?]
                .into_iter()
                .flatten()
                .collect();
        let by_text = vocabulary.iter().filter(|(_, text, _)| special::ENDS.contains(text));
        stops.extend(by_text.map(|(id, ..)| id));
        stops.sort_unstable();
        stops.dedup();

        let of = |wanted: &[Kind]| {
            let tokens = vocabulary.iter().filter(|(_, _, kind)| wanted.contains(kind));
            SpecialTokens::new(tokens.map(|(id, text, _)| (text, id)))
        };
        let user_defined = of(&[Kind::UserDefined]);
        let control = of(&[Kind::Control]);
        let all_special = of(&[Kind::UserDefined, Kind::Control]);
        let add_bos = add_bos && bos.is_some();
        Ok(Self { bpe, vocabulary, user_defined, control, all_special, bos, add_bos, stops })
    }

    /// The tokens of a text. The begin-of-text token is not added: see [`add_bos`](Self::add_bos).
    /// With `parse_special` the names of control tokens in the text become those tokens; text from
    /// users should be encoded without, or pass [`without_control`](Self::without_control) before it
    /// becomes part of the text of a template.
    pub fn encode(&self, text: &str, parse_special: bool) -> Vec<u32> {
        let special = if parse_special { &self.all_special } else { &self.user_defined };
        let mut ids = Vec::with_capacity(text.len() / 3);
        special.split(text, |part| match part {
            Part::Token(id) => ids.push(id),
            Part::Text(text) => self.encode_plain(text, &mut ids),
        });
        ids
    }

    /// A text without the names of control tokens. What a person writes must go through here before a
    /// chat template puts it between its own control tokens, because the whole is then encoded with
    /// `parse_special`: a message that contains `<|eot_id|>` would end itself and begin another one.
    /// Nor does the removal of a name leave another one behind.
    pub fn without_control(&self, text: &str) -> String {
        self.control.removed(text)
    }

    fn encode_plain(&self, text: &str, ids: &mut Vec<u32>) {
        match self.bpe.encode_fast(text, false) {
            Ok(encoding) => ids.extend(encoding.get_ids()),
            // Every byte has a token and the pattern is legal, so what is left is the pattern's limit
            // of backtracking; a text beyond it still has its bytes.
            Err(_) => {
                let id = |b| self.bpe.token_to_id(char_of(b).encode_utf8(&mut [0; 4]));
                ids.extend(text.bytes().filter_map(id));
            }
        }
    }

    /// The text of tokens. Ids outside the vocabulary give nothing; bytes that are not UTF-8 give
    /// U+FFFD. With `skip_special`, control tokens give nothing, otherwise their names.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let mut bytes = Vec::new();
        for &id in ids.iter().filter(|&&id| !(skip_special && self.is_control(id))) {
            self.push_bytes(id, &mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A decoder for tokens that arrive one by one.
    pub fn stream(&self) -> TokenStream<'_> {
        TokenStream::new(self)
    }

    /// The begin-of-text token.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// Whether a prompt should begin with [`bos`](Self::bos); never without one.
    pub fn add_bos(&self) -> bool {
        self.add_bos
    }

    /// Whether a token ends an answer.
    pub fn is_stop(&self, id: u32) -> bool {
        self.stops.binary_search(&id).is_ok()
    }

    /// The number of tokens; ids are below it.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.len()
    }

    /// A token's text as the vocabulary has it: in byte-level characters (`Ġ` for a space), or a
    /// special token's name.
    pub fn token_text(&self, id: u32) -> Option<&str> {
        self.vocabulary.text(id)
    }

    fn is_control(&self, id: u32) -> bool {
        self.vocabulary.kind(id) == Some(Kind::Control)
    }

    fn push_bytes(&self, id: u32, out: &mut Vec<u8>) {
        self.vocabulary.push_bytes(id, out);
    }
}

/// Refuses files whose text is to be split by rules that are not known.
fn check_pre(gguf: &Gguf) -> Result<(), TokenizerError> {
    match gguf.opt_str("tokenizer.ggml.pre")? {
        Some(pre) if LLAMA3.contains(&pre) => Ok(()),
        Some(pre) => Err(TokenizerError::Pre { given: pre.to_owned(), supported: LLAMA3 }),
        None => match gguf.architecture()? {
            name if LLAMA3_BY_DEFAULT.contains(&name) => Ok(()),
            name => Err(TokenizerError::NoPre(name.to_owned())),
        },
    }
}

/// Sets the BPE library up with the ordinary tokens and the merges, which are checked first.
fn build_bpe(
    vocabulary: &Vocabulary,
    gguf: &Gguf,
) -> Result<tokenizers::Tokenizer, TokenizerError> {
    let ids = vocabulary.ordinary()?;
    let mut merges = Vec::new();
    for (index, merge) in gguf.strings("tokenizer.ggml.merges")?.enumerate() {
        // A space inside a token is written `Ġ`, so the only space is the separator.
        let Some((left, right)) = merge.split_once(' ') else {
            return Err(TokenizerError::Merge { index, text: merge.to_owned() });
        };
        let made = format!("{left}{right}");
        if let Some(token) = [left, right, &made].into_iter().find(|&t| !ids.contains_key(t)) {
            let (merge, token) = (merge.to_owned(), token.to_owned());
            return Err(TokenizerError::MergeToken { index, merge, token });
        }
        merges.push((left.to_owned(), right.to_owned()));
    }
    let library = |error: tokenizers::Error| TokenizerError::Library(error.to_string());
    let vocab: Vec<_> = ids.into_iter().map(|(text, id)| (text.to_owned(), id)).collect();
    let bpe = BPE::builder()
        .vocab_and_merges(vocab.into_iter().collect::<tokenizers::models::bpe::Vocab>(), merges)
        .ignore_merges(true)
        .build()
        .map_err(library)?;
    let words = SplitPattern::Regex(LLAMA3_WORDS.to_owned());
    let words = Split::new(words, SplitDelimiterBehavior::Isolated, false).map_err(library)?;
    let mut tokenizer = tokenizers::Tokenizer::new(bpe);
    tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![
        words.into(),
        ByteLevel::new(false, false, false).into(),
    ])));
    Ok(tokenizer)
}
