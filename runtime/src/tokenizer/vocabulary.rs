//! The tokens of a file by id: their texts, kinds and bytes.

use super::byte_level::{byte_of, char_of};
use super::{TokenizerError, special};
use crate::gguf::Gguf;

/// How SentencePiece vocabularies write a space.
pub(super) const SPACE: &str = "\u{2581}";

/// How the texts of ordinary tokens stand for bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// One printable character for each byte.
    ByteLevel,
    /// UTF-8 with [`SPACE`] for spaces; single bytes as `<0x0A>`.
    SentencePiece,
}

/// What a token is for (`tokenizer.ggml.token_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Made by merges.
    Normal,
    /// Steers the model; matched in texts only where asked for, hidden in answers.
    Control,
    /// Text that is always one token.
    UserDefined,
    /// Fills the vocabulary up; never made.
    Unused,
    /// One byte of what no other token covers.
    Byte,
}

/// The tokens by id.
pub(super) struct Vocabulary {
    /// All texts, one after the other, and the end of each.
    texts: String,
    text_ends: Vec<u32>,
    /// What all stand for, one after the other, and the end of each.
    bytes: Vec<u8>,
    byte_ends: Vec<u32>,
    kinds: Vec<Kind>,
}

impl Vocabulary {
    pub(super) fn from_gguf(gguf: &Gguf, spelling: Spelling) -> Result<Self, TokenizerError> {
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
        let mut this = Self {
            texts: String::with_capacity(count * 8),
            text_ends: Vec::with_capacity(count),
            bytes: Vec::with_capacity(count * 8),
            byte_ends: Vec::with_capacity(count),
            kinds: Vec::with_capacity(count),
        };
        for (id, text) in tokens.enumerate() {
            let given = types.as_ref().map(|types| types[id]);
            this.push(id as u32, text, kind(given, text, spelling), spelling)?;
        }
        Ok(this)
    }

    fn push(
        &mut self,
        id: u32,
        text: &str,
        kind: Kind,
        spelling: Spelling,
    ) -> Result<(), TokenizerError> {
        let owned = || text.to_owned();
        match (kind, spelling) {
            (Kind::Normal, Spelling::ByteLevel) => {
                if !decode_byte_level(text, &mut self.bytes) {
                    return Err(TokenizerError::NotByteLevel { id, text: owned() });
                }
            }
            (Kind::Byte, _) => match byte_token(text) {
                Some(byte) => self.bytes.push(byte),
                None => return Err(TokenizerError::NotByte { id, text: owned() }),
            },
            (Kind::Normal | Kind::UserDefined, Spelling::SentencePiece) => {
                push_with_spaces(text, &mut self.bytes);
            }
            _ => self.bytes.extend_from_slice(text.as_bytes()),
        }
        self.texts.push_str(text);
        let end = |length: usize| u32::try_from(length).map_err(|_| TokenizerError::TooLarge);
        self.text_ends.push(end(self.texts.len())?);
        self.byte_ends.push(end(self.bytes.len())?);
        self.kinds.push(kind);
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.kinds.len()
    }

    /// A token's text as the vocabulary has it.
    pub(super) fn text(&self, id: u32) -> Option<&str> {
        part(&self.text_ends, id).map(|range| &self.texts[range])
    }

    /// What a token stands for; nothing for ids outside the vocabulary.
    pub(super) fn bytes(&self, id: u32) -> &[u8] {
        part(&self.byte_ends, id).map_or(&[], |range| &self.bytes[range])
    }

    pub(super) fn kind(&self, id: u32) -> Option<Kind> {
        self.kinds.get(id as usize).copied()
    }

    /// Every token with its id.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &str, Kind)> {
        (0..).zip(&self.kinds).filter_map(|(id, &kind)| Some((id, self.text(id)?, kind)))
    }

    /// The tokens of some kinds, with what they stand for.
    pub(super) fn of<'a>(&'a self, wanted: &'a [Kind]) -> impl Iterator<Item = (&'a [u8], u32)> {
        let ids = (0..).zip(&self.kinds).filter(|(_, kind)| wanted.contains(kind));
        ids.map(|(id, _)| (self.bytes(id), id))
    }
}

/// Where a token lies among all.
fn part(ends: &[u32], id: u32) -> Option<std::ops::Range<usize>> {
    let id = id as usize;
    let end = *ends.get(id)? as usize;
    Some(id.checked_sub(1).map_or(0, |before| ends[before] as usize)..end)
}

/// What a token is for: what the file says, but for the tokens that end answers by their names.
fn kind(given: Option<i32>, text: &str, spelling: Spelling) -> Kind {
    match given {
        // Old converters list these as ordinary tokens.
        _ if special::ENDS.contains(&text) => Kind::Control,
        // 2 is the unknown token.
        Some(2 | 3) => Kind::Control,
        Some(4) => Kind::UserDefined,
        Some(5) => Kind::Unused,
        Some(6) if spelling == Spelling::SentencePiece => Kind::Byte,
        // Files without types: SentencePiece names these the same everywhere.
        None if spelling == Spelling::SentencePiece && byte_token(text).is_some() => Kind::Byte,
        None if spelling == Spelling::SentencePiece && ["<unk>", "<s>", "</s>"].contains(&text) => {
            Kind::Control
        }
        _ => Kind::Normal,
    }
}

/// Appends the bytes of a text in byte-level characters; whether it is one.
pub(super) fn decode_byte_level(text: &str, out: &mut Vec<u8>) -> bool {
    text.chars().all(|char| byte_of(char).map(|byte| out.push(byte)).is_some())
}

/// The byte of a token such as `<0x0A>`.
fn byte_token(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let hexadecimal = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    hexadecimal.then(|| u8::from_str_radix(digits, 16).ok())?
}

/// Appends a text with spaces for what SentencePiece writes for them.
fn push_with_spaces(text: &str, out: &mut Vec<u8>) {
    for (index, part) in text.split(SPACE).enumerate() {
        if index > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(part.as_bytes());
    }
}

/// How messages write a byte.
pub(super) fn byte_text(byte: u8, spelling: Spelling) -> String {
    match spelling {
        Spelling::ByteLevel => char_of(byte).to_string(),
        Spelling::SentencePiece => format!("<0x{byte:02X}>"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_tokens_are_two_digits() {
        assert_eq!(byte_token("<0x0A>"), Some(10));
        assert_eq!(byte_token("<0xff>"), Some(255));
        for text in ["<0xA>", "<0x0A", "0x0A>", "<0x+A>", "<0x0AA>", "<0xé>", "", "<0x>"] {
            assert_eq!(byte_token(text), None, "{text}");
        }
    }

    #[test]
    fn types_are_overruled_only_for_ends() {
        use Spelling::{ByteLevel, SentencePiece};
        assert_eq!(kind(Some(1), "<|eot_id|>", ByteLevel), Kind::Control);
        assert_eq!(kind(Some(1), "</s>", ByteLevel), Kind::Normal);
        assert_eq!(kind(None, "</s>", SentencePiece), Kind::Control);
        assert_eq!(kind(None, "<0x41>", ByteLevel), Kind::Normal);
        assert_eq!(kind(Some(6), "<0x41>", SentencePiece), Kind::Byte);
    }
}
