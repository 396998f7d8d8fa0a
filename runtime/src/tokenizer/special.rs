//! Finds special tokens inside a text.

/// Texts of the tokens that end an answer, whatever the file says is its end token.
pub(super) const ENDS: &[&str] = &["<|eot_id|>", "<|end_of_text|>", "<|im_end|>", "<|eom_id|>"];

/// A set of texts, each with its token.
pub(super) struct SpecialTokens {
    /// Longest first, so that the first match is the longest.
    tokens: Vec<(String, u32)>,
    /// Whether a token begins with the byte.
    begins: [bool; 256],
    /// Whether a token ends with the byte.
    ends: [bool; 256],
}

impl SpecialTokens {
    pub(super) fn new<'a>(tokens: impl Iterator<Item = (&'a str, u32)>) -> Self {
        let named = tokens.filter(|(text, _)| !text.is_empty());
        let mut tokens: Vec<_> = named.map(|(text, id)| (text.to_owned(), id)).collect();
        tokens.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        let (mut begins, mut ends) = ([false; 256], [false; 256]);
        for (text, _) in &tokens {
            begins[usize::from(text.as_bytes()[0])] = true;
            ends[usize::from(text.as_bytes()[text.len() - 1])] = true;
        }
        Self { tokens, begins, ends }
    }

    /// The text without the tokens, also without those that appear when others are removed.
    pub(super) fn removed(&self, text: &str) -> String {
        let mut kept = String::with_capacity(text.len());
        for char in text.chars() {
            kept.push(char);
            // What was kept before contains no token, so that a new one is at the end.
            if self.ends[usize::from(kept.as_bytes()[kept.len() - 1])]
                && let Some((token, _)) = self.tokens.iter().find(|(t, _)| kept.ends_with(t))
            {
                kept.truncate(kept.len() - token.len());
            }
        }
        kept
    }

    /// Calls `part` with the special tokens of `text` and with what is between them, in order.
    pub(super) fn split<'t>(&self, text: &'t str, mut part: impl FnMut(Part<'t>)) {
        let (mut start, mut at) = (0, 0);
        while let Some(&byte) = text.as_bytes().get(at) {
            let found = self.begins[usize::from(byte)].then(|| self.at(&text.as_bytes()[at..]));
            let Some((length, id)) = found.flatten() else {
                at += 1;
                continue;
            };
            if start < at {
                part(Part::Text(&text[start..at]));
            }
            part(Part::Token(id));
            at += length;
            start = at;
        }
        if start < at {
            part(Part::Text(&text[start..]));
        }
    }

    /// The longest token that the bytes begin with, and its length.
    fn at(&self, bytes: &[u8]) -> Option<(usize, u32)> {
        let token = self.tokens.iter().find(|(text, _)| bytes.starts_with(text.as_bytes()));
        token.map(|(text, id)| (text.len(), *id))
    }
}

/// A part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part<'t> {
    /// Ordinary text, not empty.
    Text(&'t str),
    /// A special token.
    Token(u32),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split<'t>(tokens: &[(&'static str, u32)], text: &'t str) -> Vec<Part<'t>> {
        let mut parts = Vec::new();
        SpecialTokens::new(tokens.iter().copied()).split(text, |part| parts.push(part));
        parts
    }

    #[test]
    fn the_longest_token_wins_and_nothing_is_lost() {
        use Part::{Text, Token};
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
        let special = SpecialTokens::new([("<a>", 1), ("<a><b>", 2), ("é", 3)].into_iter());
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
