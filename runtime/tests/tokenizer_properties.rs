//! What holds of every text, every sequence of ids and every file: texts come back, control tokens
//! never come from plain text, streams say what decoding says, and no metadata makes it panic.

use proptest::prelude::*;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use trilut_runtime::gguf::{Gguf, GgufWriter};
use trilut_runtime::tokenizer::Tokenizer;

static BYTE_LEVEL: LazyLock<Tokenizer> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo.gguf");
    Tokenizer::from_gguf(&Gguf::open(path).unwrap()).unwrap()
});

/// Bytes, then pieces with and without spaces, one of them with a space within, and specials.
static SENTENCE_PIECE: LazyLock<Tokenizer> = LazyLock::new(|| {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).to_vec();
    tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    let pieces = "▁ a b é ▁a ab ▁ab ▁▁ b▁a ▁▁▁▁ aa aaaa < s > </ /s 日 日本 <s / x x▁ x▁▁a 0 0x <0";
    tokens.extend(pieces.split(' ').map(str::to_owned));
    let scores: Vec<f32> = (0..tokens.len()).map(|id| -(id as f32 * 7.0 % 31.0)).collect();
    let mut types = vec![1; tokens.len()];
    types[..3].copy_from_slice(&[2, 3, 3]);
    types[3..259].fill(6);
    let mut writer = GgufWriter::new();
    writer
        .str("general.architecture", "llama")
        .str("tokenizer.ggml.model", "llama")
        .strings("tokenizer.ggml.tokens", &tokens)
        .f32s("tokenizer.ggml.scores", &scores)
        .i32s("tokenizer.ggml.token_type", &types)
        .u32("tokenizer.ggml.bos_token_id", 1)
        .u32("tokenizer.ggml.eos_token_id", 2);
    Tokenizer::from_gguf(&gguf(&writer)).unwrap()
});

fn gguf(writer: &GgufWriter) -> Gguf {
    Gguf::from_bytes(Arc::new(writer.begin(Vec::new()).unwrap().finish().unwrap())).unwrap()
}

/// Texts with what matters to one of the two.
fn texts() -> impl Strategy<Value = String> {
    let pieces = proptest::sample::select(vec![
        " ",
        "  ",
        "a",
        "ab",
        "b a",
        "x  a",
        "日本",
        "é",
        "<s>",
        "</s>",
        "<unk>",
        "<0x0A>",
        "\n\n",
        "<|eot_id|>",
        "<|end_of_text|>",
        "<|",
        "'ll",
        "123456",
        "😀",
        "\u{0}",
        "Once upon",
    ]);
    let piece = prop_oneof![3 => pieces.prop_map(str::to_owned), 1 => any::<String>()];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

fn streamed(t: &Tokenizer, ids: &[u32]) -> (Vec<String>, String) {
    let mut stream = t.stream();
    let pieces: Vec<String> = ids.iter().filter_map(|&id| stream.push(id)).collect();
    let rest = stream.finish().unwrap_or_default();
    (pieces, rest)
}

proptest! {
    #[test]
    fn byte_level_texts_come_back(text in texts(), parse in any::<bool>()) {
        let t = &*BYTE_LEVEL;
        prop_assert_eq!(t.decode(&t.encode(&text, parse), false), text.as_str());
    }

    #[test]
    fn sentence_piece_texts_come_back(text in texts()) {
        let t = &*SENTENCE_PIECE;
        let wanted = text.replace('▁', " ");
        prop_assert_eq!(t.decode(&t.encode(&text, false), true), wanted);
    }

    #[test]
    fn plain_text_makes_no_control_tokens(text in texts()) {
        for t in [&*BYTE_LEVEL, &*SENTENCE_PIECE] {
            let ids = t.encode(&text, false);
            prop_assert_eq!(t.decode(&ids, true), t.decode(&ids, false));
            let ids = t.encode(&t.without_control(&text), true);
            prop_assert_eq!(t.decode(&ids, true), t.decode(&ids, false));
        }
    }

    #[test]
    fn streams_say_what_decoding_says(ids in proptest::collection::vec(0u32..2000, 0..40)) {
        for t in [&*BYTE_LEVEL, &*SENTENCE_PIECE] {
            let (pieces, rest) = streamed(t, &ids);
            prop_assert!(pieces.iter().all(|piece| !piece.is_empty()));
            let half = rest.is_empty() || rest == "\u{fffd}";
            prop_assert!(half);
            prop_assert_eq!(pieces.concat() + &rest, t.decode(&ids, true));
        }
    }

    #[test]
    fn streams_hold_back_what_is_not_whole(text in texts()) {
        for t in [&*BYTE_LEVEL, &*SENTENCE_PIECE] {
            let ids = t.encode(&text, false);
            let (pieces, rest) = streamed(t, &ids);
            // The only U+FFFD are the text's own.
            let own = text.matches('\u{fffd}').count();
            prop_assert_eq!(pieces.concat().matches('\u{fffd}').count(), own);
            prop_assert_eq!(rest, "");
        }
    }

    #[test]
    fn no_metadata_makes_it_panic(values in proptest::collection::vec(value(), KEYS.len())) {
        let mut writer = GgufWriter::new();
        writer.str("general.architecture", "llama");
        for (key, value) in KEYS.iter().zip(&values) {
            value.write(key, &mut writer);
        }
        match Tokenizer::from_gguf(&gguf(&writer)) {
            Ok(t) => {
                let ids = t.encode("a b <s> hello\n", true);
                prop_assert!(ids.iter().all(|&id| (id as usize) < t.vocab_size()));
                t.decode(&ids, false);
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn no_vocabulary_makes_it_panic(
        sentence_piece in any::<bool>(),
        tokens in proptest::collection::vec("[abĠ▁<é]{0,4}", 0..40),
        types in proptest::collection::vec(0i32..8, 0..40),
        scores in proptest::collection::vec(any::<f32>(), 0..400),
        merges in proptest::collection::vec("[abĠ ]{0,6}", 0..40),
        bytes in prop_oneof![9 => Just(true), 1 => Just(false)],
        ids in proptest::collection::vec(any::<u32>(), 4),
        text in texts(),
    ) {
        let mut all: Vec<String> = Vec::new();
        let mut kinds = Vec::new();
        if bytes && sentence_piece {
            all.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
            kinds.resize(256, 6);
        } else if bytes {
            let t = &*BYTE_LEVEL;
            all.extend((0..256).map(|id| t.token_text(id).unwrap().to_owned()));
            kinds.resize(256, 1);
        }
        all.extend(tokens);
        kinds.extend(types);
        kinds.resize(all.len(), 1);
        let mut scores = scores;
        scores.resize(all.len(), 0.0);
        let mut writer = GgufWriter::new();
        writer
            .str("general.architecture", "bitnet-b1.58")
            .str("tokenizer.ggml.model", if sentence_piece { "llama" } else { "gpt2" })
            .strings("tokenizer.ggml.tokens", &all)
            .f32s("tokenizer.ggml.scores", &scores)
            .i32s("tokenizer.ggml.token_type", &kinds)
            .strings("tokenizer.ggml.merges", &merges)
            .u32("tokenizer.ggml.unknown_token_id", ids[0] % 400)
            .u32("tokenizer.ggml.eos_token_id", ids[1] % 400);
        if let Ok(t) = Tokenizer::from_gguf(&gguf(&writer)) {
            for parse in [false, true] {
                let ids = t.encode(&text, parse);
                prop_assert!(ids.iter().all(|&id| (id as usize) < t.vocab_size()));
                t.decode(&ids, parse);
            }
            streamed(&t, &ids);
        }
    }
}

/// The keys that the tokenizer reads.
const KEYS: [&str; 13] = [
    "tokenizer.ggml.model",
    "tokenizer.ggml.pre",
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.scores",
    "tokenizer.ggml.merges",
    "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.unknown_token_id",
    "tokenizer.ggml.add_bos_token",
    "tokenizer.ggml.add_eos_token",
    "tokenizer.ggml.add_space_prefix",
];

/// A value of any type, or none.
#[derive(Debug, Clone)]
enum Any {
    None,
    Str(String),
    U32(u32),
    Bool(bool),
    F32(f32),
    Strings(Vec<String>),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
}

fn value() -> impl Strategy<Value = Any> {
    let words = vec!["gpt2", "llama", "bert", "default", "falcon", "qwen2", "<unk>", "", "a b"];
    prop_oneof![
        Just(Any::None),
        proptest::sample::select(words).prop_map(|word| Any::Str(word.to_owned())),
        any::<u32>().prop_map(Any::U32),
        (0u32..4).prop_map(Any::U32),
        any::<bool>().prop_map(Any::Bool),
        any::<f32>().prop_map(Any::F32),
        proptest::collection::vec(any::<String>(), 0..5).prop_map(Any::Strings),
        Just(Any::Strings(["<unk>", "a", "<0x0A>"].map(str::to_owned).to_vec())),
        proptest::collection::vec(-1i32..8, 0..5).prop_map(Any::I32s),
        proptest::collection::vec(any::<f32>(), 3).prop_map(Any::F32s),
    ]
}

impl Any {
    fn write(&self, key: &str, writer: &mut GgufWriter) {
        match self {
            Self::None => return,
            Self::Str(value) => writer.str(key, value),
            Self::U32(value) => writer.u32(key, *value),
            Self::Bool(value) => writer.bool(key, *value),
            Self::F32(value) => writer.f32(key, *value),
            Self::Strings(values) => writer.strings(key, values),
            Self::I32s(values) => writer.i32s(key, values),
            Self::F32s(values) => writer.f32s(key, values),
        };
    }
}
