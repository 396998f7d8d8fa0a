//! The tokens of a file by id: their texts, kinds and bytes.

use super::byte_level::{byte_of, char_of};
use super::{TokenizerError, special};
use crate::gguf::Gguf;
use std::collections::HashMap;

/// What a token is for (`tokenizer.ggml.token_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Made by merges from bytes.
    Normal,
    /// Steers the model; matched in texts only where asked for, hidden in answers.
    Control,
    /// Text that is always one token.
    UserDefined,
    /// Fills the vocabulary up; never made.
    Unused,
}

/// The tokens by id.
pub(super) struct Vocabulary {
    /// All texts, one after the other.
    texts: String,
    /// The end of each token's text.
    ends: Vec<usize>,
    kinds: Vec<Kind>,
}

impl Vocabulary {
    pub(super) fn from_gguf(gguf: &Gguf) -> Result<Self, TokenizerError> {
        let tokens = gguf.strings("tokenizer.ggml.tokens")?;
        let types = gguf.opt_i32s("tokenizer.ggml.token_type")?;
        let count = tokens.len();
        match count {
            0 => return Err(TokenizerError::Empty),
            // Ids are u32.
            _ if u32::try_from(count).is_err() => return Err(TokenizerError::TooMany(count)),
            _ => {}
        }
        if let Some(types) = types.as_ref().filter(|types| types.len() != count) {
            return Err(TokenizerError::Types { tokens: count, types: types.len() });
        }
        let mut this = Self { texts: String::new(), ends: Vec::new(), kinds: Vec::new() };
        for (id, text) in tokens.enumerate() {
            this.texts.push_str(text);
            this.ends.push(this.texts.len());
            let kind = match types.as_ref().map_or(1, |types| types[id]) {
                // Old converters list these as ordinary tokens.
                _ if special::ENDS.contains(&text) => Kind::Control,
                // 2 is the unknown token, which byte-level vocabularies have no use for.
                2 | 3 => Kind::Control,
                4 => Kind::UserDefined,
                5 => Kind::Unused,
                _ => Kind::Normal,
            };
            this.kinds.push(kind);
        }
        Ok(this)
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// A token's text as the vocabulary has it.
    pub(super) fn text(&self, id: u32) -> Option<&str> {
        let id = id as usize;
        let &end = self.ends.get(id)?;
        let start = id.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.texts[start..end])
    }

    pub(super) fn kind(&self, id: u32) -> Option<Kind> {
        self.kinds.get(id as usize).copied()
    }

    /// Every token with its id.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &str, Kind)> {
        (0..).zip(&self.kinds).filter_map(|(id, &kind)| Some((id, self.text(id)?, kind)))
    }

    /// Appends the bytes that a token stands for; nothing for ids outside the vocabulary.
    pub(super) fn push_bytes(&self, id: u32, out: &mut Vec<u8>) {
        match (self.text(id), self.kind(id)) {
            (Some(text), Some(Kind::Normal)) => out.extend(text.chars().filter_map(byte_of)),
            (Some(text), _) => out.extend(text.as_bytes()),
            (None, _) => {}
        }
    }

    /// The ids of the ordinary tokens by text, checked to cover every byte.
    pub(super) fn ordinary(&self) -> Result<HashMap<&str, u32>, TokenizerError> {
        let mut ids = HashMap::with_capacity(self.len());
        for (id, text, kind) in self.iter() {
            if kind != Kind::Normal {
                continue;
            }
            if !text.chars().all(|c| byte_of(c).is_some()) {
                return Err(TokenizerError::NotByteLevel { id, text: text.to_owned() });
            }
            if let Some(first) = ids.insert(text, id) {
                let text = text.to_owned();
                return Err(TokenizerError::Duplicate { first, second: id, text });
            }
        }
        let missing =
            |byte: &u8| !ids.contains_key(char_of(*byte).encode_utf8(&mut [0; 4]) as &str);
        match (0..=255).find(missing) {
            Some(byte) => Err(TokenizerError::MissingByte { byte, text: char_of(byte) }),
            None => Ok(ids),
        }
    }
}
