//! A made-up byte-level vocabulary: the bytes, words of two to four letters, control tokens. Longer
//! words are made in several ways, as many as it takes to have the number of merges of Llama 3.

use super::DummyError;
use crate::gguf::GgufWriter;
use crate::tokenizer::char_of;
use std::collections::HashSet;

/// What pairs are made of, roughly by frequency in English; a space comes only first in a word.
const FIRST: &str = "Ġetaoinshrdlcumwfgypbvkjxqz";
const REST: &str = "etaoinshrdlcumwfgypbvkjxqz";

/// The tokens at the end: begin of text, end of text, end of turn.
pub(crate) const CONTROL: [&str; 3] = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"];

/// Merges for 16 tokens: Llama 3 has 280147 for 128256.
const MERGES_OF_16: usize = 35;

/// Tokens, control tokens last, and the merges that make those that are not bytes.
pub(crate) struct Vocabulary {
    pub(crate) tokens: Vec<String>,
    pub(crate) merges: Vec<String>,
}

impl Vocabulary {
    /// A vocabulary of exactly `vocab` tokens.
    pub(crate) fn synthetic(vocab: usize) -> Result<Self, DummyError> {
        let letters = |text: &str| text.chars().map(String::from).collect::<Vec<_>>();
        let (first, rest) = (letters(FIRST), letters(REST));
        let pairs = diagonals(&first, &rest).collect::<Vec<_>>();
        let of_rest = diagonals(&rest, &rest).collect::<Vec<_>>();
        let triples = diagonals(&pairs, &rest).collect::<Vec<_>>();
        let quads = (pairs.len(), of_rest.len());

        let least = 256 + CONTROL.len();
        let most = least + pairs.len() + triples.len() + quads.0 * quads.1;
        if !(least..=most).contains(&vocab) {
            return Err(DummyError::Vocab { vocab, least, most });
        }
        let words = pairs.iter().cloned().chain(triples).chain(diagonals(&pairs, &of_rest));
        let words: Vec<String> = words.take(vocab - least).collect();
        let known: HashSet<&str> = words.iter().map(String::as_str).collect();
        let is_token = |text: &str| text.chars().count() == 1 || known.contains(text);
        let mut merges: Vec<String> = Vec::new();
        // Every word in one way, then in the others.
        for way in 0..3 {
            for word in &words {
                let places = word.char_indices().skip(1).map(|(at, _)| word.split_at(at));
                let mut ways = places.filter(|(left, right)| is_token(left) && is_token(right));
                if way > 0 && merges.len() >= vocab / 16 * MERGES_OF_16 {
                    break;
                }
                merges.extend(ways.nth(way).map(|(left, right)| format!("{left} {right}")));
            }
        }
        let mut tokens: Vec<String> = (0..=255).map(|byte| char_of(byte).to_string()).collect();
        tokens.extend(words);
        tokens.extend(CONTROL.map(str::to_owned));
        Ok(Self { tokens, merges })
    }

    /// Sets the tokenizer's keys of a file.
    pub(crate) fn write(&self, writer: &mut GgufWriter) {
        let ordinary = self.tokens.len() - CONTROL.len();
        let mut types = vec![1; ordinary];
        types.extend([3; CONTROL.len()]);
        let [bos, eos, eot] = [0, 1, 2].map(|i| (ordinary + i) as u32);
        writer
            .str("tokenizer.ggml.model", "gpt2")
            .str("tokenizer.ggml.pre", "llama-bpe")
            .strings("tokenizer.ggml.tokens", &self.tokens)
            .i32s("tokenizer.ggml.token_type", &types)
            .strings("tokenizer.ggml.merges", &self.merges)
            .u32("tokenizer.ggml.bos_token_id", bos)
            .u32("tokenizer.ggml.eos_token_id", eos)
            .u32("tokenizer.ggml.eot_token_id", eot)
            .u32("tokenizer.ggml.padding_token_id", eos)
            .bool("tokenizer.ggml.add_bos_token", true);
    }
}

/// Every text of `left` before every text of `right`; by diagonals, so that the first ones have the
/// frequent letters on both sides.
fn diagonals(left: &[String], right: &[String]) -> impl Iterator<Item = String> {
    let places = (0..left.len() + right.len()).flat_map(|sum| (0..=sum).map(move |i| (i, sum - i)));
    places.filter_map(|(i, j)| Some(format!("{}{}", left.get(i)?, right.get(j)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vocabularies_have_their_size_and_no_duplicates() {
        for vocab in [259, 260, 1000, 32002, 128_256] {
            let Ok(Vocabulary { tokens, merges }) = Vocabulary::synthetic(vocab) else {
                panic!("{vocab} can be made")
            };
            assert_eq!(tokens.len(), vocab);
            assert!(merges.len() >= vocab - 259 && merges.len() <= vocab / 16 * 35);
            let all: HashSet<&str> = tokens.iter().map(String::as_str).collect();
            for merge in &merges {
                let (left, right) = merge.split_once(' ').unwrap();
                assert!([left, right, &format!("{left}{right}")].iter().all(|t| all.contains(t)));
            }
            assert_eq!(merges.iter().collect::<HashSet<_>>().len(), merges.len());
            assert_eq!(all.len(), vocab);
        }
        assert_eq!(Vocabulary::synthetic(128_256).ok().map(|v| v.merges.len()), Some(280_560));
        for vocab in [0, 258, 1 << 22] {
            assert!(matches!(Vocabulary::synthetic(vocab), Err(DummyError::Vocab { .. })));
        }
    }
}
