//! Finds special tokens inside a text.

use super::TokenizerError;
use aho_corasick::{AhoCorasick, MatchKind};
use std::ops::Range;

/// Texts of the tokens that end an answer, whatever the file says is its end token. They are made by
/// no merges, so that their names alone tell what they are.
pub(super) const ENDS: &[&str] = &[
    "<|eot_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|im_end|>",
    "<|eom_id|>",
    "<end_of_turn>",
    "<end_of_utterance>",
];

/// More of them, whose texts are so plain (`</s>` also ends what HTML strikes out) that the file must
/// call them control tokens.
pub(super) const CONTROL_ENDS: &[&str] = &["</s>", "<eos>", "<|end|>", "<EOT>", "[EOT]", "[EOS]"];

/// The most bytes of special tokens' texts; large vocabularies have some ten thousand.
const MOST_BYTES: usize = 16 << 20;

/// A set of texts, each with its token.
pub(super) struct SpecialTokens {
    /// Finds the longest at the leftmost place.
    automaton: Option<AhoCorasick>,
    /// The tokens, in the order of the automaton.
    ids: Vec<u32>,
    /// The texts by their last byte.
    by_end: Vec<Vec<Vec<u8>>>,
}

impl SpecialTokens {
    /// Empty texts are left out.
    ///
    /// # Errors
    /// When the texts have more than [`MOST_BYTES`].
    pub(super) fn new<'a>(
        tokens: impl Iterator<Item = (&'a [u8], u32)>,
    ) -> Result<Self, TokenizerError> {
        let (texts, ids): (Vec<&[u8]>, Vec<u32>) =
            tokens.filter(|(text, _)| !text.is_empty()).unzip();
        if texts.iter().map(|text| text.len()).sum::<usize>() > MOST_BYTES {
            return Err(TokenizerError::TooLarge);
        }
        let mut by_end = vec![Vec::new(); 256];
        for text in &texts {
            by_end[usize::from(text[text.len() - 1])].push(text.to_vec());
        }
        let mut builder = AhoCorasick::builder();
        builder.match_kind(MatchKind::LeftmostLongest);
        let build = || builder.build(&texts).map_err(|_| TokenizerError::TooLarge);
        let automaton = (!texts.is_empty()).then(build).transpose()?;
        Ok(Self { automaton, ids, by_end })
    }

    /// The text without the tokens, also without those that appear when others are removed.
    pub(super) fn removed(&self, text: &str) -> String {
        let mut kept = String::with_capacity(text.len());
        for char in text.chars() {
            kept.push(char);
            // What was kept before contains no token, so that a new one is at the end.
            let bytes = kept.as_bytes();
            let ends = &self.by_end[usize::from(bytes[bytes.len() - 1])];
            let found = ends.iter().filter(|token| bytes.ends_with(token));
            if let Some(longest) = found.map(Vec::len).max() {
                kept.truncate(kept.len() - longest);
            }
        }
        kept
    }

    /// Calls `part` with the special tokens of `text` and with what is between them, in order.
    pub(super) fn split(&self, text: &str, mut part: impl FnMut(Part)) {
        let mut start = 0;
        for found in self.automaton.iter().flat_map(|automaton| automaton.find_iter(text)) {
            if start < found.start() {
                part(Part::Text(start..found.start()));
            }
            part(Part::Token(self.ids[found.pattern().as_usize()]));
            start = found.end();
        }
        if start < text.len() {
            part(Part::Text(start..text.len()));
        }
    }
}

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// Where ordinary text is; not empty.
    Text(Range<usize>),
    /// A special token.
    Token(u32),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(tokens: &[(&'static str, u32)]) -> SpecialTokens {
        SpecialTokens::new(tokens.iter().map(|&(text, id)| (text.as_bytes(), id))).unwrap()
    }

    fn split<'t>(tokens: &[(&'static str, u32)], text: &'t str) -> Vec<Result<u32, &'t str>> {
        let mut parts = Vec::new();
        set(tokens).split(text, |part| {
            parts.push(match part {
                Part::Text(place) => Err(&text[place]),
                Part::Token(id) => Ok(id),
            });
        });
        parts
    }

    #[test]
    fn the_longest_token_wins_and_nothing_is_lost() {
        use Result::{Err as Text, Ok as Token};
        let tokens = [("<a>", 1), ("<a><b>", 2), ("", 3), ("é", 4)];
        assert_eq!(split(&tokens, ""), []);
        assert_eq!(split(&tokens, "no < token >"), [Text("no < token >")]);
        assert_eq!(split(&tokens, "<a>"), [Token(1)]);
        let parts = [Text("x"), Token(2), Text("ü"), Token(4), Token(1), Text("<a")];
        assert_eq!(split(&tokens, "x<a><b>üé<a><a"), parts);
        assert_eq!(split(&[], "<a>"), [Text("<a>")]);
    }

    #[test]
    fn nothing_is_left_of_removed_tokens() {
        let special = set(&[("<a>", 1), ("<a><b>", 2), ("é", 3)]);
        for (text, kept) in [
            ("", ""),
            ("no < token >", "no < token >"),
            ("x<a>y<a><b>z", "xy<b>z"),
            ("<<a>a>", ""),
            ("<<<a>a>a>ü<aéé>", "ü"),
            ("<a", "<a"),
        ] {
            assert_eq!(special.removed(text), kept, "{text}");
        }
    }
}
