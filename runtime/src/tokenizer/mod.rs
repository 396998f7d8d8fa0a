//! Text to tokens and back, from the vocabulary in a GGUF file.
//!
//! Two kinds of vocabulary: byte-level BPE (`byte_pairs`), which splits text into words by one of
//! several `rules` and merges the bytes of each, and SentencePiece (`sentence_piece`), which
//! merges characters by score. Special tokens, decoding and streaming are the same for both.

mod byte_level;
mod byte_pairs;
mod error;
mod merge;
mod rules;
mod sentence_piece;
mod special;
mod stream;
mod text_index;
mod vocabulary;
mod word_cache;
mod words;

pub(crate) use byte_level::char_of;
pub use error::TokenizerError;
pub use stream::TokenStream;

use crate::gguf::Gguf;
use byte_pairs::BytePairs;
use merge::Merger;
use rules::Rules;
use sentence_piece::SentencePiece;
use special::{Part, SpecialTokens};
use std::borrow::Cow;
use vocabulary::{Kind, Spelling, Vocabulary};
use word_cache::WordCache;

/// Architectures whose files may leave the pre-tokenizer out and mean the Llama-3 rules.
const LLAMA3_BY_DEFAULT: &[&str] = &["bitnet-b1.58", "bitnet-25"];

/// A file's tokenizer.
pub struct Tokenizer {
    vocabulary: Vocabulary,
    encoder: Encoder,
    /// Texts that are always one token.
    user_defined: SpecialTokens,
    /// Tokens without a text of their own, which only templates write.
    control: SpecialTokens,
    /// Both.
    all_special: SpecialTokens,
    bos: Option<u32>,
    add_bos: bool,
    eos: Option<u32>,
    add_eos: bool,
    stops: Vec<u32>,
    notes: Vec<String>,
}

/// How ordinary text becomes tokens.
enum Encoder {
    BytePairs(Box<BytePairs>),
    SentencePiece(Box<SentencePiece>),
}

/// What encoding one text needs besides the vocabulary.
struct Work<'t> {
    text: &'t str,
    cache: WordCache<'t>,
    merger: Merger,
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
        let mut notes = Vec::new();
        let (vocabulary, encoder, add_bos) = match gguf.str("tokenizer.ggml.model")? {
            "gpt2" => {
                let vocabulary = Vocabulary::from_gguf(gguf, Spelling::ByteLevel)?;
                let rules = rules_of(gguf, &vocabulary, &mut notes)?;
                let encoder = BytePairs::from_gguf(gguf, &vocabulary, rules)?;
                notes.extend(encoder.note());
                (vocabulary, Encoder::BytePairs(Box::new(encoder)), rules.add_bos)
            }
            "llama" => {
                let vocabulary = Vocabulary::from_gguf(gguf, Spelling::SentencePiece)?;
                let encoder = SentencePiece::from_gguf(gguf, &vocabulary)?;
                (vocabulary, Encoder::SentencePiece(Box::new(encoder)), true)
            }
            other => return Err(TokenizerError::Model(other.to_owned())),
        };

        let id = |key| match gguf.opt_u32(key)? {
            Some(id) if id as usize >= vocabulary.len() => {
                Err(TokenizerError::Id { key, id, tokens: vocabulary.len() })
            }
            id => Ok(id),
        };
        let flag = |key, default| Ok::<_, TokenizerError>(gguf.opt_bool(key)?.unwrap_or(default));
        let bos = id("tokenizer.ggml.bos_token_id")?;
        let eos = id("tokenizer.ggml.eos_token_id")?;
        let eot = id("tokenizer.ggml.eot_token_id")?;
        let add_bos = flag("tokenizer.ggml.add_bos_token", add_bos)? && bos.is_some();
        let add_eos = flag("tokenizer.ggml.add_eos_token", false)? && eos.is_some();
        let stops = stops(&vocabulary, eos, eot, &mut notes);

        let of = |wanted: &[Kind]| SpecialTokens::new(vocabulary.of(wanted));
        let user_defined = of(&[Kind::UserDefined])?;
        let control = of(&[Kind::Control])?;
        let all_special = of(&[Kind::UserDefined, Kind::Control])?;
        Ok(Self {
            vocabulary,
            encoder,
            user_defined,
            control,
            all_special,
            bos,
            add_bos,
            eos,
            add_eos,
            stops,
            notes,
        })
    }

    /// The tokens of a text as a model reads it: behind the begin-of-text token, if the model wants one and
    /// the text does not begin with it. `parse_special` is that of [`encode`](Self::encode).
    pub fn encode_text(&self, text: &str, parse_special: bool) -> Vec<u32> {
        let mut ids = self.encode(text, parse_special);
        if let Some(bos) = self.begin_of_text().filter(|bos| ids.first() != Some(bos)) {
            ids.insert(0, bos);
        }
        ids
    }

    /// The tokens of a text that continues another one: without the begin-of-text token.
    /// With `parse_special` the names of control tokens in the text become those tokens; text from
    /// users should be encoded without, or pass [`without_control`](Self::without_control) before it
    /// becomes part of the text of a template.
    pub fn encode(&self, text: &str, parse_special: bool) -> Vec<u32> {
        let special = if parse_special { &self.all_special } else { &self.user_defined };
        let text = self.normalised(text);
        let mut work =
            Work { text: &text, cache: WordCache::new(&text), merger: Merger::default() };
        let mut ids = Vec::with_capacity(text.len() / 3);
        let (vocabulary, mut first) = (&self.vocabulary, true);
        special.split(&text, |part| {
            first = match (part, &self.encoder) {
                (Part::Token(id), _) => {
                    ids.push(id);
                    true
                }
                (Part::Text(part), Encoder::BytePairs(encoder)) => {
                    encoder.encode(vocabulary, &mut work, part, &mut ids);
                    false
                }
                (Part::Text(part), Encoder::SentencePiece(encoder)) => {
                    encoder.encode(vocabulary, &mut work, part, first, &mut ids);
                    false
                }
            };
        });
        ids
    }

    /// A text without the names of control tokens. What a person writes must go through here before a
    /// chat template puts it between its own control tokens, because the whole is then encoded with
    /// `parse_special`: a message that contains `<|eot_id|>` would end itself and begin another one.
    /// Nor does the removal of a name leave another one behind.
    pub fn without_control(&self, text: &str) -> String {
        self.control.removed(&self.normalised(text))
    }

    /// A text as its tokens see it.
    fn normalised<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match &self.encoder {
            Encoder::BytePairs(_) => Cow::Borrowed(text),
            Encoder::SentencePiece(_) => sentence_piece::normalised(text),
        }
    }

    /// The text of tokens. Ids outside the vocabulary give nothing; bytes that are not UTF-8 give
    /// U+FFFD. With `skip_special`, control tokens give nothing, otherwise their names. The space that
    /// SentencePiece puts before a text is taken away again.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let mut bytes = Vec::new();
        for &id in ids.iter().filter(|&&id| !(skip_special && self.is_control(id))) {
            bytes.extend_from_slice(self.vocabulary.bytes(id));
        }
        let prefixed = self.space_prefix() && bytes.first() == Some(&b' ');
        String::from_utf8_lossy(&bytes[usize::from(prefixed)..]).into_owned()
    }

    /// A decoder for tokens that arrive one by one, from the beginning of a text.
    pub fn stream(&self) -> TokenStream<'_> {
        TokenStream::new(self, self.space_prefix())
    }

    /// As [`stream`](Self::stream), for what continues a text that ends with the token `last`. Only
    /// after a control token is it a beginning; elsewhere a space is part of the text.
    pub fn stream_after(&self, last: Option<u32>) -> TokenStream<'_> {
        let first = last.is_none_or(|id| self.is_control(id));
        TokenStream::new(self, first && self.space_prefix())
    }

    /// The begin-of-text token.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// Whether a prompt should begin with [`bos`](Self::bos); never without one.
    pub fn add_bos(&self) -> bool {
        self.add_bos
    }

    /// The token that prompts begin with; `None` where the model wants none.
    pub fn begin_of_text(&self) -> Option<u32> {
        self.bos.filter(|_| self.add_bos)
    }

    /// The token that the file says ends a text. Answers may end with others: see
    /// [`stops`](Self::stops).
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Whether a text should end with [`eos`](Self::eos), as models that embed texts may want; never
    /// without one.
    pub fn add_eos(&self) -> bool {
        self.add_eos
    }

    /// The tokens that end an answer, in order: the file's end of text and end of turn, and those that
    /// are known by their names.
    pub fn stops(&self) -> &[u32] {
        &self.stops
    }

    /// Whether a token ends an answer.
    pub fn is_stop(&self, id: u32) -> bool {
        self.stops.binary_search(&id).is_ok()
    }

    /// What was not taken from the file as it stands, each a sentence for a person.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The number of tokens; ids are below it.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.len()
    }

    /// A token's text as the vocabulary has it: in byte-level characters (`Ġ` for a space), with `▁`
    /// for spaces, or a special token's name.
    pub fn token_text(&self, id: u32) -> Option<&str> {
        self.vocabulary.text(id)
    }

    /// Whether a token has no text of its own, as those that templates write.
    pub fn is_control(&self, id: u32) -> bool {
        self.vocabulary.kind(id) == Some(Kind::Control)
    }

    /// Whether texts are encoded with a space before them, so that the tokens of a text are not those of
    /// its parts.
    pub fn space_prefix(&self) -> bool {
        match &self.encoder {
            Encoder::BytePairs(_) => false,
            Encoder::SentencePiece(encoder) => encoder.space_prefix(),
        }
    }

    /// The bytes that a token stands for, which need not be whole characters; the name of a control
    /// token, nothing for an id outside the vocabulary.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.vocabulary.bytes(id)
    }
}

/// The rules for words that a file names, or that its vocabulary is known to need.
fn rules_of(
    gguf: &Gguf,
    vocabulary: &Vocabulary,
    notes: &mut Vec<String>,
) -> Result<&'static Rules, TokenizerError> {
    let pre = gguf.opt_str("tokenizer.ggml.pre")?;
    let given = match pre {
        Some(name) => Some(rules::by_name(name).ok_or_else(|| TokenizerError::Pre {
            given: name.to_owned(),
            supported: rules::names().collect(),
        })?),
        None => None,
    };
    // `default` is what converters write that did not know the vocabulary.
    if let Some(given) = given.filter(|_| pre != Some("default")) {
        return Ok(given);
    }
    let says =
        pre.map_or("does not name its pre-tokenizer", |_| "calls its pre-tokenizer `default`");
    if let Some((owner, name)) = rules::recognise(vocabulary)
        && let Some(rules) = rules::by_name(name)
    {
        notes.push(format!("the file {says}; its vocabulary is that of {owner}: `{name}` is used"));
        return Ok(rules);
    }
    if let Some(given) = given {
        notes.push(format!("the file {says}: text may be split otherwise than in training"));
        return Ok(given);
    }
    let architecture = gguf.architecture()?;
    if LLAMA3_BY_DEFAULT.contains(&architecture) {
        notes
            .push(format!("the file {says}: `llama-bpe` is used, as in all {architecture} models"));
        return Ok(&rules::LLAMA3);
    }
    Err(TokenizerError::NoPre(architecture.to_owned()))
}

/// The tokens that end an answer, in order.
fn stops(
    vocabulary: &Vocabulary,
    eos: Option<u32>,
    eot: Option<u32>,
    notes: &mut Vec<String>,
) -> Vec<u32> {
    let by_name = |(id, text, kind): (u32, &str, Kind)| {
        let ends = special::ENDS.contains(&text)
            || kind == Kind::Control && special::CONTROL_ENDS.contains(&text);
        ends.then_some(id)
    };
    let mut stops: Vec<u32> = vocabulary.iter().filter_map(by_name).collect();
    // The end of a turn, which chats need; files that name only the end of the text are common.
    let turn = stops.iter().copied().find(|&id| {
        Some(id) != eos && matches!(vocabulary.text(id), Some("<|eot_id|>" | "<end_of_turn>"))
    });
    if let (Some(turn), None) = (turn, eot) {
        let name = |id| vocabulary.text(id).unwrap_or_default();
        let says = eos.map_or("the file names no end token".to_owned(), |eos| {
            format!("the file's end token is `{}`", name(eos))
        });
        notes.push(format!("{says}; `{}` ends answers too", name(turn)));
    }
    stops.extend(eos.into_iter().chain(eot));
    stops.sort_unstable();
    stops.dedup();
    stops
}
