//! The rules for splitting text into words, by the names that files give them.
//!
//! The names are those of `tokenizer.ggml.pre`. Several names mean the same rules where the
//! vocabularies were trained with the same ones.

use super::vocabulary::Vocabulary;

/// How a family of vocabularies splits text into words.
#[derive(Debug)]
pub(super) struct Rules {
    /// The values of `tokenizer.ggml.pre` that mean these rules.
    pub(super) names: &'static [&'static str],
    /// One after the other, each splitting what the one before left.
    pub(super) passes: &'static [Pass],
    /// Whether a word that is a token needs no merges.
    pub(super) whole_words: bool,
    /// Whether prompts begin with the begin-of-text token when the file does not say.
    pub(super) add_bos: bool,
}

/// One way through the text. Each match becomes a part, and so does what lies between matches.
#[derive(Debug)]
pub(super) struct Pass {
    /// Regular expressions; where several match, the first counts.
    pub(super) alternatives: &'static [&'static str],
    /// Whether `\s+(?!\S)|\s+` comes last: white space before a word without its last character,
    /// which goes with the word.
    pub(super) spaces: bool,
    /// Whether every character is matched by some alternative.
    pub(super) covers: bool,
}

/// Parts of their own for the matches of one expression.
const fn isolate(alternatives: &'static [&'static str]) -> Pass {
    Pass { alternatives, spaces: false, covers: false }
}

/// GPT-2: contractions, words, numbers, punctuation, each with the space before it; white space.
const GPT2: Pass = Pass {
    alternatives: &["'(?:s|t|re|ve|m|ll|d)", r" ?\p{L}+", r" ?\p{N}+", r" ?[^\s\p{L}\p{N}]+"],
    spaces: true,
    covers: true,
};

/// The rules that are known.
pub(super) const ALL: &[Rules] = &[LLAMA3, QWEN2, SMOLLM, FALCON, GPT_2, DEFAULT];

/// Llama 3: contractions in any case, words with one character before, numbers of up to 3 digits,
/// punctuation with the newlines after it.
pub(super) const LLAMA3: Rules = Rules {
    names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon_e", "falcon-h1"],
    passes: &[Pass {
        alternatives: &[
            "(?i:'s|'t|'re|'ve|'m|'ll|'d)",
            r"[^\r\n\p{L}\p{N}]?\p{L}+",
            r"\p{N}{1,3}",
            r" ?[^\s\p{L}\p{N}]+[\r\n]*",
            r"\s*[\r\n]+",
        ],
        spaces: true,
        covers: true,
    }],
    whole_words: true,
    add_bos: true,
};

/// Qwen 2 and 3: as Llama 3, with each digit on its own.
const QWEN2: Rules = Rules {
    names: &["qwen2", "deepseek-r1-qwen"],
    passes: &[Pass {
        alternatives: &[
            "(?i:'s|'t|'re|'ve|'m|'ll|'d)",
            r"[^\r\n\p{L}\p{N}]?\p{L}+",
            r"\p{N}",
            r" ?[^\s\p{L}\p{N}]+[\r\n]*",
            r"\s*[\r\n]+",
        ],
        spaces: true,
        covers: true,
    }],
    whole_words: false,
    add_bos: false,
};

/// SmolLM and StarCoder: each digit on its own, then as GPT-2.
const SMOLLM: Rules = Rules {
    names: &["smollm", "starcoder", "refact", "command-r"],
    passes: &[isolate(&[r"\p{N}"]), GPT2],
    whole_words: false,
    add_bos: false,
};

/// Falcon: runs of punctuation, then as GPT-2, then digits in threes.
const FALCON: Rules = Rules {
    names: &["falcon"],
    passes: &[isolate(&[r"[\p{P}$+<=>^`|~]+"]), GPT2, isolate(&["[0-9][0-9][0-9]"])],
    whole_words: false,
    add_bos: false,
};

/// GPT-2.
const GPT_2: Rules = Rules {
    names: &["gpt-2", "phi-2", "mpt", "olmo"],
    passes: &[GPT2],
    whole_words: false,
    add_bos: false,
};

/// What converters write for vocabularies that they do not know. No vocabulary was trained so.
const DEFAULT: Rules = Rules {
    names: &["default"],
    passes: &[
        isolate(&[r"[\p{P}$+<=>^~|]+"]),
        GPT2,
        isolate(&[r"\p{N}+"]),
        isolate(&["[0-9][0-9][0-9]"]),
    ],
    whole_words: false,
    add_bos: false,
};

/// The rules that a file calls by `name`.
pub(super) fn by_name(name: &str) -> Option<&'static Rules> {
    ALL.iter().find(|rules| rules.names.contains(&name))
}

/// Every name of rules.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().flat_map(|rules| rules.names).copied()
}

/// A vocabulary that can be told by tokens that it has.
struct Signature {
    /// Whose vocabulary it is, for people.
    owner: &'static str,
    /// The name of its rules.
    pre: &'static str,
    /// Tokens it has, with their ids where they have always been the same.
    tokens: &'static [(&'static str, Option<u32>)],
}

/// The vocabularies that ternary models use.
const SIGNATURES: &[Signature] = &[
    Signature {
        owner: "Llama 3",
        pre: "llama-bpe",
        tokens: &[("<|begin_of_text|>", None), ("<|end_of_text|>", None)],
    },
    Signature {
        owner: "Qwen",
        pre: "qwen2",
        tokens: &[("<|endoftext|>", Some(151_643)), ("<|im_start|>", Some(151_644))],
    },
    Signature {
        owner: "Falcon 3",
        pre: "falcon3",
        tokens: &[("<|endoftext|>", Some(11)), ("<|pad|>", Some(2023))],
    },
    Signature {
        owner: "Falcon",
        pre: "falcon",
        tokens: &[("<|endoftext|>", Some(11)), (">>TITLE<<", Some(0))],
    },
    Signature {
        owner: "SmolLM",
        pre: "smollm",
        tokens: &[("<|endoftext|>", Some(0)), ("<repo_name>", None)],
    },
    Signature { owner: "GPT-2", pre: "gpt-2", tokens: &[("<|endoftext|>", Some(50_256))] },
];

/// Whose vocabulary this is and the name of its rules, if it can be told.
pub(super) fn recognise(vocabulary: &Vocabulary) -> Option<(&'static str, &'static str)> {
    let has = |&(text, id): &(&str, Option<u32>)| match id {
        Some(id) => vocabulary.text(id) == Some(text),
        None => vocabulary.iter().any(|(_, other, _)| other == text),
    };
    let signature = SIGNATURES.iter().find(|signature| signature.tokens.iter().all(has))?;
    Some((signature.owner, signature.pre))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_one_thing() {
        let mut all: Vec<&str> = names().collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        assert!(by_name("falcon_e").is_some_and(|rules| rules.whole_words));
        assert!(by_name("").is_none() && by_name("bert-bge").is_none());
        assert!(SIGNATURES.iter().all(|signature| by_name(signature.pre).is_some()));
    }
}
