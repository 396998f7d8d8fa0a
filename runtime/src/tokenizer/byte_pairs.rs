//! Byte-level vocabularies (`tokenizer.ggml.model` = `gpt2`): words become bytes, bytes are merged.

use super::merge::{Joined, Merger, Symbol};
use super::rules::Rules;
use super::text_index::TextIndex;
use super::vocabulary::{Spelling, Vocabulary, byte_text, decode_byte_level};
use super::words::Splitter;
use super::{TokenizerError, Work};
use crate::gguf::Gguf;
use hashbrown::HashMap;
use std::ops::Range;

/// The merges of a vocabulary and its rules for words.
pub(super) struct BytePairs {
    splitter: Splitter,
    /// Whether a word that is a token needs no merges.
    whole_words: bool,
    index: TextIndex,
    /// The tokens of the bytes. Bytes that no one writes may have none, and are left out of texts.
    bytes: [Option<u32>; 256],
    /// What two tokens make, by both ids.
    merges: HashMap<u64, Joined>,
}

impl BytePairs {
    /// Reads and checks the merges of a file.
    pub(super) fn from_gguf(
        gguf: &Gguf,
        vocabulary: &Vocabulary,
        rules: &Rules,
    ) -> Result<Self, TokenizerError> {
        let index = TextIndex::new(vocabulary)?;
        let mut bytes = [None; 256];
        for byte in 0..=u8::MAX {
            bytes[usize::from(byte)] = index.get(vocabulary, &[byte]);
            if bytes[usize::from(byte)].is_none() && is_needed(byte) {
                let text = byte_text(byte, Spelling::ByteLevel);
                return Err(TokenizerError::MissingByte { byte, text });
            }
        }
        let merges = read_merges(gguf, vocabulary, &index)?;
        let splitter = Splitter::new(rules);
        Ok(Self { splitter, whole_words: rules.whole_words, index, bytes, merges })
    }

    /// What a person should know of the vocabulary.
    pub(super) fn note(&self) -> Option<String> {
        let missing = self.bytes.iter().filter(|id| id.is_none()).count();
        (missing > 0).then(|| {
            format!(
                "the vocabulary has no token for {missing} rare bytes, which are left out of texts"
            )
        })
    }

    /// Appends the tokens of a part of a text.
    pub(super) fn encode(
        &self,
        vocabulary: &Vocabulary,
        work: &mut Work<'_>,
        part: Range<usize>,
        ids: &mut Vec<u32>,
    ) {
        let Work { text, cache, merger } = work;
        let mut at = part.start;
        self.splitter.split(&text[part], |word| {
            let place = at..at + word.len();
            at = place.end;
            if let &[byte] = word.as_bytes() {
                return ids.extend(self.bytes[usize::from(byte)]);
            }
            cache.append(place, ids, |word, ids| self.encode_word(vocabulary, word, merger, ids));
        });
    }

    fn encode_word(
        &self,
        vocabulary: &Vocabulary,
        word: &[u8],
        merger: &mut Merger,
        ids: &mut Vec<u32>,
    ) {
        if self.whole_words
            && let Some(id) = self.index.get(vocabulary, word)
        {
            return ids.push(id);
        }
        let symbols = word.iter().enumerate().filter_map(|(at, &byte)| {
            Some(Symbol { id: self.bytes[usize::from(byte)]?, start: at, end: at + 1 })
        });
        let join = |left: Symbol, right: Symbol| self.merges.get(&pair(left.id, right.id)).copied();
        ids.extend(merger.run(symbols, join).map(|symbol| symbol.id));
    }
}

/// Whether texts need a byte: what is printable, white space, and what all scripts are written with.
/// Some vocabularies lack the others: they take only bytes that occurred in training.
fn is_needed(byte: u8) -> bool {
    matches!(byte, b' '..=b'~' | b'\t' | b'\n' | 0x80..=0xbf | 0xc2..=0xf0)
}

/// Two ids as one key.
fn pair(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

/// The merges by pair. Of merges of one pair the first counts.
fn read_merges(
    gguf: &Gguf,
    vocabulary: &Vocabulary,
    index: &TextIndex,
) -> Result<HashMap<u64, Joined>, TokenizerError> {
    let texts = gguf.strings("tokenizer.ggml.merges")?;
    let mut merges = HashMap::with_capacity(texts.len());
    let mut bytes = Vec::new();
    // `u32::MAX` is no rank; a file with as many merges would have 36 GiB of them.
    for (rank, text) in (0..u32::MAX).zip(texts) {
        // A space inside a token is written `Ġ`, so the only space is the separator.
        let parts = text
            .split_once(' ')
            .filter(|(left, right)| !left.is_empty() && !right.is_empty() && !right.contains(' '));
        let Some((left, right)) = parts else {
            return Err(TokenizerError::Merge { index: rank as usize, text: text.to_owned() });
        };
        bytes.clear();
        let mut legal = decode_byte_level(left, &mut bytes);
        let middle = bytes.len();
        legal &= decode_byte_level(right, &mut bytes);
        let get = |bytes: &[u8]| index.get(vocabulary, bytes);
        match (legal, get(&bytes[..middle]), get(&bytes[middle..]), get(&bytes)) {
            (true, Some(left), Some(right), Some(id)) => {
                merges.entry(pair(left, right)).or_insert(Joined { rank, id });
            }
            _ => {
                let made = format!("{left}{right}");
                let known = |text: &str| {
                    let mut bytes = Vec::new();
                    decode_byte_level(text, &mut bytes) && get(&bytes).is_some()
                };
                let missing = [left, right, &made].into_iter().find(|text| !known(text));
                let token = missing.unwrap_or(&made).to_owned();
                let (index, merge) = (rank as usize, text.to_owned());
                return Err(TokenizerError::MergeToken { index, merge, token });
            }
        }
    }
    Ok(merges)
}
