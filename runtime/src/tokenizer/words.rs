//! Splits text into the words that merges stay within, by the rules of [`super::rules`].
//!
//! The rules are regular expressions without look-ahead, so that a lazily built automaton runs them in
//! linear time and never gives up. The one look-ahead that vocabularies use, `\s+(?!\S)`, is a rule
//! of its own: see [`Pass::spaces`].

use super::rules::{Pass, Rules};
use regex_automata::meta::{Cache, Regex};
use regex_automata::util::pool::Pool;
use regex_automata::{Anchored, Input};

type Caches = Pool<Vec<Cache>, Box<dyn Fn() -> Vec<Cache> + Send + Sync>>;

/// A [`Rules`] ready to run.
pub(super) struct Splitter {
    passes: Vec<Compiled>,
    /// The automata as far as they have been built, one set for each thread at work.
    caches: Caches,
}

/// A [`Pass`] ready to run.
struct Compiled {
    regex: Regex,
    /// The number of the alternative `\s+` whose last character belongs to the next word.
    spaces: Option<usize>,
    /// Whether every character is matched, so that a match begins wherever the last one ended.
    anchored: Anchored,
}

impl Compiled {
    fn new(pass: &Pass) -> Self {
        let spaces = pass.spaces.then_some(pass.alternatives.len());
        let patterns: Vec<&str> =
            pass.alternatives.iter().copied().chain(pass.spaces.then_some(r"\s+")).collect();
        let regex = Regex::new_many(&patterns).expect("the rules are legal expressions");
        let anchored = if pass.covers { Anchored::Yes } else { Anchored::No };
        Self { regex, spaces, anchored }
    }

    /// Calls `part` with the matches in a text and with what is between them, in order.
    fn split<'t>(&self, cache: &mut Cache, text: &'t str, part: &mut dyn FnMut(&'t str)) {
        let mut at = 0;
        while at < text.len() {
            let input = Input::new(text).range(at..).anchored(self.anchored);
            let Some(found) = self.regex.search_with(cache, &input).filter(|m| !m.is_empty())
            else {
                break;
            };
            let mut end = found.end();
            if self.spaces == Some(found.pattern().as_usize()) && end < text.len() {
                // White space before a word: its last character goes with the word, unless it is all.
                let last = text[found.range()].chars().next_back().map_or(0, char::len_utf8);
                if last < found.len() {
                    end -= last;
                }
            }
            if at < found.start() {
                part(&text[at..found.start()]);
            }
            part(&text[found.start()..end]);
            at = end;
        }
        if at < text.len() {
            part(&text[at..]);
        }
    }
}

impl Splitter {
    pub(super) fn new(rules: &Rules) -> Self {
        let passes: Vec<Compiled> = rules.passes.iter().map(Compiled::new).collect();
        let regexes: Vec<Regex> = passes.iter().map(|pass| pass.regex.clone()).collect();
        let caches = Pool::new(Box::new(move || regexes.iter().map(Regex::create_cache).collect())
            as Box<dyn Fn() -> Vec<Cache> + Send + Sync>);
        Self { passes, caches }
    }

    /// Calls `word` with the words of a text, in order; together they are the text.
    pub(super) fn split<'t>(&self, text: &'t str, mut word: impl FnMut(&'t str)) {
        let mut caches = self.caches.get();
        run(&self.passes, &mut caches, text, &mut word);
    }
}

/// Splits by the first pass and what comes out by those after it.
fn run<'t>(
    passes: &[Compiled],
    caches: &mut [Cache],
    text: &'t str,
    word: &mut dyn FnMut(&'t str),
) {
    let (Some((pass, passes)), Some((cache, caches))) =
        (passes.split_first(), caches.split_first_mut())
    else {
        return word(text);
    };
    if passes.is_empty() {
        pass.split(cache, text, word);
    } else {
        pass.split(cache, text, &mut |part| run(passes, caches, part, word));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::rules;
    use proptest::prelude::*;

    fn split<'t>(pre: &str, text: &'t str) -> Vec<&'t str> {
        let mut words = Vec::new();
        Splitter::new(rules::by_name(pre).unwrap()).split(text, |word| words.push(word));
        words
    }

    #[test]
    fn llama3_words() {
        let words = split("llama-bpe", "It's 12345 is  it?\n\n  \tI'LL see... \r\n x  ");
        let wanted = [
            "It", "'s", " ", "123", "45", " is", " ", " it", "?\n\n", "  ", "\tI", "'LL", " see",
            "...", " \r\n", " x", "  ",
        ];
        assert_eq!(words, wanted);
        assert_eq!(split("llama-bpe", "a\u{3000}\u{3000}b"), ["a", "\u{3000}", "\u{3000}b"]);
        assert_eq!(split("llama-bpe", "\n \n x"), ["\n \n", " x"]);
        assert_eq!(split("llama-bpe", ""), [""; 0]);
    }

    #[test]
    fn digits_tell_the_families_apart() {
        let text = "a 1234";
        assert_eq!(split("llama3", text), ["a", " ", "123", "4"]);
        assert_eq!(split("qwen2", text), ["a", " ", "1", "2", "3", "4"]);
        assert_eq!(split("gpt-2", text), ["a", " 1234"]);
        assert_eq!(split("smollm", text), ["a", " ", "1", "2", "3", "4"]);
        assert_eq!(split("falcon", text), ["a", " ", "123", "4"]);
        assert_eq!(split("falcon", "a 12"), ["a", " 12"]);
        assert_eq!(split("default", text), ["a", " ", "123", "4"]);
    }

    #[test]
    fn punctuation_and_newlines_tell_them_apart_too() {
        let text = "x=`a`\n\n b";
        assert_eq!(split("llama3", text), ["x", "=`", "a", "`\n\n", " b"]);
        assert_eq!(split("gpt-2", text), ["x", "=`", "a", "`", "\n\n", " b"]);
        assert_eq!(split("falcon", text), ["x", "=`", "a", "`", "\n\n", " b"]);
        assert_eq!(split("falcon", "(a.b)!x 'll"), ["(", "a", ".", "b", ")!", "x", " ", "'", "ll"]);
        assert_eq!(split("default", "a `+b"), ["a", " `", "+", "b"]);
    }

    proptest! {
        #[test]
        fn no_text_is_lost(text in r"(\PC|[ \r\n\t]|'[st]|[0-9]{1,5}){0,40}") {
            for rules in rules::ALL {
                let mut words = Vec::new();
                Splitter::new(rules).split(&text, |word| words.push(word));
                prop_assert!(words.iter().all(|word| !word.is_empty()));
                prop_assert_eq!(words.concat(), text.as_str());
            }
        }
    }
}
