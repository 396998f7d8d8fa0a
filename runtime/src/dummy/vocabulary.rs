//! A made-up byte-level vocabulary: the bytes, pairs of letters, pairs of pairs, control tokens.

use super::DummyError;
use crate::gguf::GgufWriter;
use crate::tokenizer::char_of;

/// What pairs are made of, roughly by frequency in English; a space comes only first in a word.
const FIRST: &str = "Ġetaoinshrdlcumwfgypbvkjxqz";
const REST: &str = "etaoinshrdlcumwfgypbvkjxqz";

/// The tokens at the end: begin of text, end of text, end of turn.
const CONTROL: [&str; 3] = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"];

/// Tokens, control tokens last, and the merges that make those that are not bytes.
pub(super) struct Vocabulary {
    tokens: Vec<String>,
    merges: Vec<String>,
}

impl Vocabulary {
    /// A vocabulary of exactly `vocab` tokens.
    pub(super) fn synthetic(vocab: usize) -> Result<Self, DummyError> {
        let product = |left: &str, right: &str| -> Vec<(String, String)> {
            let pairs = left.chars().flat_map(|a| right.chars().map(move |b| (a, b)));
            pairs.map(|(a, b)| (a.to_string(), b.to_string())).collect()
        };
        let join = |(a, b): &(String, String)| format!("{a}{b}");
        let pairs = product(FIRST, REST);
        let first: Vec<String> = pairs.iter().map(join).collect();
        let rest: Vec<String> = product(REST, REST).iter().map(join).collect();
        // By diagonals, so that a vocabulary of any size has the frequent letters on both sides.
        let (height, width) = (first.len(), rest.len());
        let quads = (0..height + width)
            .flat_map(|sum| (0..=sum).map(move |i| (i, sum - i)))
            .filter(|&(i, j)| i < height && j < width)
            .map(|(i, j)| (first[i].clone(), rest[j].clone()));

        let least = 256 + CONTROL.len();
        let most = least + pairs.len() + height * width;
        if !(least..=most).contains(&vocab) {
            return Err(DummyError::Vocab { vocab, least, most });
        }
        let mut tokens: Vec<String> = (0..=255).map(|byte| char_of(byte).to_string()).collect();
        let mut merges = Vec::new();
        for (left, right) in pairs.iter().cloned().chain(quads).take(vocab - least) {
            tokens.push(format!("{left}{right}"));
            merges.push(format!("{left} {right}"));
        }
        tokens.extend(CONTROL.map(str::to_owned));
        Ok(Self { tokens, merges })
    }

    /// Sets the tokenizer's keys of a file.
    pub(super) fn write(&self, writer: &mut GgufWriter) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vocabularies_have_their_size_and_no_duplicates() {
        for vocab in [259, 260, 1000, 32002, 128_256] {
            let Ok(Vocabulary { tokens, merges }) = Vocabulary::synthetic(vocab) else {
                panic!("{vocab} can be made")
            };
            assert_eq!((tokens.len(), merges.len()), (vocab, vocab - 259));
            let distinct: std::collections::HashSet<_> = tokens.iter().collect();
            assert_eq!(distinct.len(), vocab);
        }
        for vocab in [0, 258, 1 << 22] {
            assert!(matches!(Vocabulary::synthetic(vocab), Err(DummyError::Vocab { .. })));
        }
    }
}
