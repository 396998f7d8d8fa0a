//! The tokenizer against the Hugging Face library: ids of some thousand texts in eight vocabularies.
//!
//! A golden file holds, of a vocabulary, every token and merge that some way of merging its texts could
//! come across, with their own ids and in their own order; what is left out cannot change a result, so
//! the ids are those of the whole vocabulary. `tools/tokenizer-golden` writes the files, and the whole
//! vocabularies too: with `TRILUT_TOKENIZERS` naming the folder of those, they are used instead.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use trilut_runtime::gguf::{Gguf, GgufWriter};
use trilut_runtime::tokenizer::Tokenizer;

/// A golden file.
#[derive(serde::Deserialize)]
struct Golden {
    model: String,
    pre: Option<String>,
    size: usize,
    meta: std::collections::BTreeMap<String, serde_json::Value>,
    tokens: Vec<Vec<(usize, String, i32)>>,
    scores: Option<Vec<Vec<f32>>>,
    merges: Option<Vec<Vec<String>>>,
    encode: Vec<Encode>,
    decode: Vec<Decode>,
}

/// A text and its ids, without and with the names of control tokens parsed.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Encode {
    Both(String, Vec<u32>),
    Each(String, Vec<u32>, Vec<u32>),
}

/// Ids and their text, without and with control tokens.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Decode {
    Both(Vec<u32>, String),
    Each(Vec<u32>, String, String),
}

impl Golden {
    fn read(family: &str) -> Self {
        let path = format!("tests/golden/tokenizer/{family}.json");
        let text = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// The part of the vocabulary in the file, or all of it.
    fn tokenizer(&self, family: &str) -> Tokenizer {
        let gguf = match std::env::var_os("TRILUT_TOKENIZERS") {
            Some(folder) => Gguf::open(PathBuf::from(folder).join(format!("{family}.gguf"))),
            None => self.gguf_of("llama"),
        };
        Tokenizer::from_gguf(&gguf.unwrap()).unwrap()
    }

    /// The part of the vocabulary in the file, as a model file has it.
    fn gguf_of(&self, architecture: &str) -> Result<Gguf, trilut_runtime::gguf::GgufError> {
        let mut tokens: Vec<String> = (0..self.size).map(|id| format!("[PAD{id}]")).collect();
        let (mut types, mut scores) = (vec![5; self.size], vec![-1e9; self.size]);
        let given = self.scores.iter().flatten().flatten().copied();
        let listed =
            self.tokens.iter().flatten().zip(given.map(Some).chain(std::iter::repeat(None)));
        for ((id, text, kind), score) in listed {
            tokens[*id].clone_from(text);
            types[*id] = *kind;
            scores[*id] = score.unwrap_or_default();
        }
        let mut writer = GgufWriter::new();
        writer
            .str("general.architecture", architecture)
            .str("tokenizer.ggml.model", &self.model)
            .strings("tokenizer.ggml.tokens", &tokens)
            .i32s("tokenizer.ggml.token_type", &types);
        if let Some(pre) = &self.pre {
            writer.str("tokenizer.ggml.pre", pre);
        }
        if let Some(merges) = &self.merges {
            writer.strings("tokenizer.ggml.merges", merges.concat());
        }
        if self.scores.is_some() {
            writer.f32s("tokenizer.ggml.scores", &scores);
        }
        for (key, value) in &self.meta {
            let key = format!("tokenizer.ggml.{key}");
            match value.as_bool() {
                Some(value) => writer.bool(&key, value),
                None => writer.u32(&key, value.as_u64().unwrap() as u32),
            };
        }
        Gguf::from_bytes(Arc::new(writer.begin(Vec::new()).unwrap().finish().unwrap()))
    }
}

/// Checks a family: ids, texts, streams, and the tokens that end answers.
fn check(family: &str, stops: &[&str]) {
    let golden = Golden::read(family);
    let t = golden.tokenizer(family);
    assert_eq!(t.vocab_size(), golden.size);
    assert!(golden.encode.len() > 1500 && golden.decode.len() >= 300);
    for case in &golden.encode {
        let (text, plain, special) = match case {
            Encode::Both(text, ids) => (text, ids, ids),
            Encode::Each(text, plain, special) => (text, plain, special),
        };
        assert_eq!(&t.encode(text, false), plain, "{family}: {text:?}");
        assert_eq!(&t.encode(text, true), special, "{family}, parsed: {text:?}");
        let mut wanted = text.clone();
        if golden.model == "llama" {
            // SentencePiece takes its own sign for a space.
            wanted = wanted.replace('\u{2581}', " ");
        }
        if family == "smollm2" {
            // A byte that this vocabulary has no token for.
            wanted = wanted.replace('\u{4}', "");
        }
        assert_eq!(t.decode(plain, false), wanted, "{family}");
    }
    for case in &golden.decode {
        let (ids, skipped, kept) = match case {
            Decode::Both(ids, text) => (ids, text, text),
            Decode::Each(ids, skipped, kept) => (ids, skipped, kept),
        };
        assert_eq!(&t.decode(ids, true), skipped, "{family}: {ids:?}");
        assert_eq!(&t.decode(ids, false), kept, "{family}: {ids:?}");
        let mut stream = t.stream();
        let mut streamed: String = ids.iter().filter_map(|&id| stream.push(id)).collect();
        streamed.extend(stream.finish());
        assert_eq!(&streamed, skipped, "{family}, streamed: {ids:?}");
    }
    let names: Vec<&str> = t.stops().iter().filter_map(|&id| t.token_text(id)).collect();
    assert_eq!(names, stops, "{family}");
}

/// Files of the 2B-4T model have neither `tokenizer.ggml.pre` nor the right end token.
#[test]
fn vocabularies_are_recognised() {
    for (family, architecture) in [
        ("llama3", "bitnet-b1.58"),
        ("llama3", "llama"),
        ("qwen3", "qwen3"),
        ("smollm2", "llama"),
        ("gpt2", "gpt2"),
    ] {
        for pre in [None, Some("default".to_owned())] {
            let mut golden = Golden::read(family);
            golden.pre = pre;
            let gguf = golden.gguf_of(architecture).unwrap();
            let t = Tokenizer::from_gguf(&gguf).unwrap();
            for case in &golden.encode {
                let (Encode::Both(text, ids) | Encode::Each(text, ids, _)) = case;
                assert_eq!(&t.encode(text, false), ids, "{family}: {text:?}");
            }
            let told = |what: &str| t.notes().iter().any(|note| note.contains(what));
            assert!(told("its vocabulary is that of"), "{:?}", t.notes());
            if family == "llama3" {
                assert!(t.add_bos() && t.is_stop(128_001) && t.is_stop(128_009));
                assert!(told("`<|eot_id|>` ends answers too"), "{:?}", t.notes());
            }
        }
    }
}

#[test]
fn llama3() {
    check("llama3", &["<|end_of_text|>", "<|eot_id|>"]);
}

#[test]
fn llama2() {
    check("llama2", &["</s>"]);
}

#[test]
fn qwen3() {
    check("qwen3", &["<|endoftext|>", "<|im_end|>"]);
}

#[test]
fn gemma3() {
    check("gemma3", &["<eos>", "<end_of_turn>"]);
}

#[test]
fn gpt2() {
    check("gpt2", &["<|endoftext|>"]);
}

#[test]
fn smollm2() {
    check("smollm2", &["<|endoftext|>", "<|im_end|>"]);
}

#[test]
fn falcon() {
    check("falcon", &["<|endoftext|>"]);
}

#[test]
fn the_default_rules() {
    check("default", &["<|endoftext|>"]);
}
