//! SentencePiece vocabularies (`tokenizer.ggml.model` = `llama`): characters are merged, the pair
//! whose token has the best score first; what no token covers is written byte by byte.

use super::merge::{Joined, Merger, Symbol};
use super::text_index::TextIndex;
use super::vocabulary::{Kind, SPACE, Spelling, Vocabulary, byte_text};
use super::{TokenizerError, Work};
use crate::gguf::{Gguf, GgufError, Value};
use hashbrown::HashSet;
use std::borrow::Cow;
use std::ops::Range;

/// The key of the tokens' scores.
const SCORES: &str = "tokenizer.ggml.scores";

/// The key of the token that stands for what has none.
const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";

/// The id of a character that is no token.
const NONE: u32 = u32::MAX;

/// The scores of a vocabulary and what else its texts need.
pub(super) struct SentencePiece {
    index: TextIndex,
    /// The place of each token in the order of scores, from the best; equal scores are one place.
    ranks: Vec<u32>,
    /// The tokens of the bytes, or the unknown token.
    bytes: [u32; 256],
    /// Characters that some token has before a space. After all others a space begins a word that
    /// can be merged on its own.
    before_space: HashSet<char>,
    /// Whether a space is put before a text, so that its first word is as those within.
    space_prefix: bool,
}

impl SentencePiece {
    /// Reads and checks the scores of a file.
    pub(super) fn from_gguf(gguf: &Gguf, vocabulary: &Vocabulary) -> Result<Self, TokenizerError> {
        let index = TextIndex::new(vocabulary)?;
        let tokens = vocabulary.len();
        let unknown = match gguf.opt_u32(UNKNOWN)? {
            Some(id) if id as usize >= tokens => {
                return Err(TokenizerError::Id { key: UNKNOWN, id, tokens });
            }
            Some(id) => Some(id),
            None => vocabulary.iter().find(|(_, text, _)| *text == "<unk>").map(|(id, ..)| id),
        };
        let mut named = [None; 256];
        for (byte, id) in vocabulary.of(&[Kind::Byte]) {
            named[usize::from(byte[0])].get_or_insert(id);
        }
        let mut bytes = [0; 256];
        for byte in 0..=u8::MAX {
            bytes[usize::from(byte)] = named[usize::from(byte)].or(unknown).ok_or_else(|| {
                let text = byte_text(byte, Spelling::SentencePiece);
                TokenizerError::MissingByte { byte, text }
            })?;
        }
        let mut before_space = HashSet::new();
        for (_, text, _) in vocabulary.iter().filter(|(.., kind)| *kind == Kind::Normal) {
            let before = text.match_indices(SPACE).filter_map(|(at, _)| text[..at].chars().last());
            before_space.extend(before);
        }
        // A run of spaces is not cut, nor are texts that consist of them.
        before_space.extend([' ', '\u{2581}']);
        let space_prefix = gguf.opt_bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
        let ranks = ranks(&scores(gguf, tokens)?);
        Ok(Self { index, ranks, bytes, before_space, space_prefix })
    }

    /// Whether texts get a space put before them.
    pub(super) fn space_prefix(&self) -> bool {
        self.space_prefix
    }

    /// Appends the tokens of a part of a [`normalised`] text, which stands at the beginning or after a
    /// special token if `first`.
    pub(super) fn encode(
        &self,
        vocabulary: &Vocabulary,
        work: &mut Work<'_>,
        part: Range<usize>,
        first: bool,
        ids: &mut Vec<u32>,
    ) {
        let Work { text, cache, merger } = work;
        let start = part.start;
        self.split(&text[part], |word| {
            let place = start + word.start..start + word.end;
            if first && self.space_prefix && word.start == 0 {
                let word = format!(" {}", &text[place]);
                self.encode_word(vocabulary, word.as_bytes(), merger, ids);
            } else {
                cache.append(place, ids, |word, ids| {
                    self.encode_word(vocabulary, word, merger, ids);
                });
            }
        });
    }

    /// Calls `word` with the places of the parts that can be merged on their own.
    fn split(&self, text: &str, mut word: impl FnMut(Range<usize>)) {
        let mut start = 0;
        for (at, _) in text.match_indices(' ') {
            let before = text[..at].chars().next_back();
            if before.is_some_and(|char| !self.before_space.contains(&char)) {
                word(start..at);
                start = at;
            }
        }
        if start < text.len() {
            word(start..text.len());
        }
    }

    fn encode_word(
        &self,
        vocabulary: &Vocabulary,
        word: &[u8],
        merger: &mut Merger,
        ids: &mut Vec<u32>,
    ) {
        let mut start = 0;
        let symbols = std::iter::from_fn(|| {
            let &lead = word.get(start)?;
            let end = (start + width(lead)).min(word.len());
            let id = self.index.get(vocabulary, &word[start..end]).unwrap_or(NONE);
            let symbol = Symbol { id, start, end };
            start = end;
            Some(symbol)
        });
        let join = |left: Symbol, right: Symbol| {
            let id = self.index.get(vocabulary, &word[left.start..right.end])?;
            Some(Joined { rank: self.ranks[id as usize], id })
        };
        for symbol in merger.run(symbols, join) {
            match symbol.id {
                NONE => {
                    let bytes = &word[symbol.start..symbol.end];
                    ids.extend(bytes.iter().map(|&byte| self.bytes[usize::from(byte)]));
                }
                id => ids.push(id),
            }
        }
    }
}

/// A text as its tokens see it: the sign for a space means a space in a text, too.
pub(super) fn normalised(text: &str) -> Cow<'_, str> {
    match text.contains(SPACE) {
        true => Cow::Owned(text.replace(SPACE, " ")),
        false => Cow::Borrowed(text),
    }
}

/// The bytes of the character that begins with this one.
fn width(lead: u8) -> usize {
    match lead {
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0.. => 4,
        _ => 1,
    }
}

/// The scores of all tokens.
fn scores(gguf: &Gguf, tokens: usize) -> Result<Vec<f32>, TokenizerError> {
    let wrong = |found: &str| GgufError::WrongType {
        key: SCORES.to_owned(),
        wants: "an array of floats",
        found: found.to_owned(),
    };
    let array = match gguf.value(SCORES) {
        Some(Value::Array(array)) => array,
        Some(_) => return Err(wrong("another value").into()),
        None => return Err(GgufError::MissingKey(SCORES.to_owned()).into()),
    };
    let score = |value| match value {
        Value::Float(score) => Ok(score as f32),
        _ => Err(wrong(&format!("an array of {}", array.type_name()))),
    };
    let scores = array.iter().map(score).collect::<Result<Vec<f32>, _>>()?;
    if scores.len() != tokens {
        return Err(TokenizerError::Scores { tokens, scores: scores.len() });
    }
    match scores.iter().position(|score| score.is_nan()) {
        Some(id) => Err(TokenizerError::Score(id as u32)),
        None => Ok(scores),
    }
}

/// The places of scores in their order from the best.
fn ranks(scores: &[f32]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..scores.len() as u32).collect();
    let score = |id: u32| scores[id as usize];
    order.sort_unstable_by(|&a, &b| score(b).total_cmp(&score(a)));
    let mut ranks = vec![0; scores.len()];
    let mut rank = 0;
    for at in 1..order.len() {
        // Not a count of places: both zeros are one score.
        rank += u32::from(score(order[at]) != score(order[at - 1]));
        ranks[order[at] as usize] = rank;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::GgufWriter;
    use std::sync::Arc;

    #[test]
    fn an_unknown_token_outside_the_vocabulary_is_refused() {
        let bytes: Vec<String> = (0..=u8::MAX).map(|b| format!("<0x{b:02X}>")).collect();
        // With and without tokens that would do without it.
        for tokens in [bytes, vec!["<unk>".to_owned(), "a".to_owned()]] {
            let count = tokens.len();
            let read = |unknown: u32| {
                let mut writer = GgufWriter::new();
                writer
                    .str("general.architecture", "llama")
                    .strings("tokenizer.ggml.tokens", &tokens)
                    .f32s(SCORES, &vec![0.0; count])
                    .u32(UNKNOWN, unknown);
                let file = writer.begin(Vec::new()).unwrap().finish().unwrap();
                let gguf = Gguf::from_bytes(Arc::new(file)).unwrap();
                let vocabulary = Vocabulary::from_gguf(&gguf, Spelling::SentencePiece).unwrap();
                SentencePiece::from_gguf(&gguf, &vocabulary)
            };
            assert!(read(count as u32 - 1).is_ok());
            for unknown in [count as u32, u32::MAX] {
                let Err(error) = read(unknown) else { panic!("{unknown} of {count} was accepted") };
                let TokenizerError::Id { key, id, tokens } = error else { panic!("{error}") };
                assert_eq!((key, id, tokens), (UNKNOWN, unknown, count));
            }
        }
    }

    #[test]
    fn equal_scores_share_a_place() {
        assert_eq!(ranks(&[]), [0; 0]);
        let scores = [0.0, -2.0, f32::INFINITY, -0.0, -1.0, -2.0, f32::NEG_INFINITY];
        assert_eq!(ranks(&scores), [1, 3, 0, 1, 2, 3, 4]);
    }

    #[test]
    fn widths_are_those_of_characters() {
        for char in ['a', 'é', '▁', '😀', '\0', '\u{7ff}', '\u{ffff}'] {
            assert_eq!(width(char.encode_utf8(&mut [0; 4]).as_bytes()[0]), char.len_utf8());
        }
    }
}
