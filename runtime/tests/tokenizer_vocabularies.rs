//! The tokenizer on small vocabularies made by hand, good and bad, and on the embedded model against
//! ids that another implementation made.

use std::path::Path;
use std::sync::Arc;
use trilut_runtime::gguf::{Gguf, GgufWriter};
use trilut_runtime::tokenizer::{Tokenizer, TokenizerError};

/// The characters of the 256 bytes, as byte-level vocabularies write them.
fn alphabet() -> Vec<String> {
    let mut others = 0x100u32..;
    let char = |byte: u32| match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => byte,
        _ => others.next().unwrap(),
    };
    (0..256).map(char).map(|c| char::from_u32(c).unwrap().to_string()).collect()
}

/// A vocabulary to damage: the bytes, a few merges, one user-defined and three control tokens.
struct Sample {
    architecture: &'static str,
    model: &'static str,
    pre: Option<&'static str>,
    tokens: Vec<String>,
    types: Vec<i32>,
    merges: Vec<String>,
    eos: u32,
    add_bos: Option<bool>,
}

impl Sample {
    fn new() -> Self {
        let mut tokens = alphabet();
        let merged = ["he", "ll", "hell", "hello", "Ġw", "or", "Ġwor"];
        tokens.extend(merged.map(str::to_owned));
        let mut types = vec![1; tokens.len()];
        tokens.extend(["[user]", "<|bos|>", "<|end|>", "<|eot_id|>"].map(str::to_owned));
        types.extend([4, 3, 3, 3]);
        let merges = ["h e", "l l", "he ll", "Ġ w", "o r", "Ġw or"];
        let merges = merges.map(str::to_owned).to_vec();
        let (architecture, model) = ("bitnet-b1.58", "gpt2");
        Self { architecture, model, pre: None, tokens, types, merges, eos: 265, add_bos: None }
    }

    fn gguf(&self) -> Gguf {
        let mut writer = GgufWriter::new();
        writer
            .str("general.architecture", self.architecture)
            .str("tokenizer.ggml.model", self.model)
            .strings("tokenizer.ggml.tokens", &self.tokens)
            .i32s("tokenizer.ggml.token_type", &self.types)
            .strings("tokenizer.ggml.merges", &self.merges)
            .u32("tokenizer.ggml.bos_token_id", 264)
            .u32("tokenizer.ggml.eos_token_id", self.eos);
        if let Some(pre) = self.pre {
            writer.str("tokenizer.ggml.pre", pre);
        }
        if let Some(add) = self.add_bos {
            writer.bool("tokenizer.ggml.add_bos_token", add);
        }
        let bytes = writer.begin(Vec::new()).unwrap().finish().unwrap();
        Gguf::from_bytes(Arc::new(bytes)).unwrap()
    }

    fn tokenizer(&self) -> Tokenizer {
        Tokenizer::from_gguf(&self.gguf()).unwrap()
    }

    fn error(&self) -> TokenizerError {
        Tokenizer::from_gguf(&self.gguf()).unwrap_err()
    }
}

#[test]
fn words_are_merged_and_special_tokens_found() {
    let t = Sample::new().tokenizer();
    assert_eq!(t.vocab_size(), 267);
    // `hello` is in the vocabulary though no merge makes it: whole words need none.
    assert_eq!(t.encode("hello world", false), [259, 262, 108, 100]);
    assert_eq!(t.encode("hell", false), [258]);
    assert_eq!(t.encode("x[user]<|bos|>", false)[..2], [120, 263]);
    assert_eq!(t.encode("[user]<|bos|>hello<|eot_id|>", true), [263, 264, 259, 266]);
    let message = t.without_control("[user]<|eo<|bos|>t_id|>hello<|end|>");
    assert_eq!(t.encode(&message, true), [263, 259]);
    assert!(t.encode("<|bos|>", false).iter().all(|&id| id < 256));
    assert!(t.encode("", true).is_empty());
    assert_eq!(t.token_text(260), Some("Ġw"));
    assert_eq!(t.token_text(267), None);
}

#[test]
fn text_survives_both_ways() {
    let t = Sample::new().tokenizer();
    let texts =
        ["", " ", "hello  world\n\n", "naïve 😀 日本語\u{0}", "12345 'S <|bos|>[user]\r\n\t"];
    for text in texts {
        for special in [false, true] {
            assert_eq!(t.decode(&t.encode(text, special), false), text);
        }
    }
    assert_eq!(t.decode(&[264, 259, 263, 266], true), "hello[user]");
    assert_eq!(t.decode(&[264, 259, 263, 266], false), "<|bos|>hello[user]<|eot_id|>");
    assert_eq!(t.decode(&[9999, 259, u32::MAX], true), "hello");
    assert_eq!(t.decode(&[0xff], true), "\u{fffd}");
}

#[test]
fn streams_never_split_characters() {
    let t = Sample::new().tokenizer();
    let text = "hello 😀 naïve 日本語 world";
    let mut stream = t.stream();
    let pieces: Vec<String> =
        t.encode(text, false).into_iter().filter_map(|id| stream.push(id)).collect();
    assert_eq!(pieces.concat(), text);
    assert!(pieces.contains(&"😀".to_owned()));
    assert_eq!(stream.finish(), None);

    let mut stream = t.stream();
    assert_eq!(stream.push(0xf0), None);
    assert_eq!(stream.push(264), None);
    assert_eq!(stream.push(0x9f), None);
    assert_eq!(stream.push(120).as_deref(), Some("\u{fffd}x"));
    assert_eq!(stream.push(0xc3), None);
    assert_eq!(stream.finish().as_deref(), Some("\u{fffd}"));
}

#[test]
fn special_ids_follow_the_file() {
    let mut sample = Sample::new();
    let t = sample.tokenizer();
    assert_eq!((t.bos(), t.add_bos()), (Some(264), true));
    let stops: Vec<u32> = (0..300).filter(|&id| t.is_stop(id)).collect();
    assert_eq!(stops, [265, 266]);
    sample.add_bos = Some(false);
    assert!(!sample.tokenizer().add_bos());
    // An end token is a control token even where the file calls it an ordinary one.
    sample.types[266] = 1;
    assert_eq!(sample.tokenizer().encode("<|eot_id|>", true), [266]);
}

#[test]
fn unsupported_kinds_are_named() {
    let mut sample = Sample::new();
    for pre in ["llama-bpe", "llama3", "llama-v3"] {
        sample.pre = Some(pre);
        sample.tokenizer();
    }
    sample.pre = Some("tekken");
    let text = sample.error().to_string();
    assert!(text.contains("`tekken`") && text.contains("llama-bpe, llama3"), "{text}");
    sample.pre = None;
    sample.architecture = "llama";
    assert!(matches!(sample.error(), TokenizerError::NoPre(name) if name == "llama"));
    sample.model = "bert";
    assert!(matches!(sample.error(), TokenizerError::Model(model) if model == "bert"));
    assert!(sample.error().to_string().contains("`bert` (WordPiece)"));

    let empty = GgufWriter::new().begin(Vec::new()).unwrap().finish().unwrap();
    let error = Tokenizer::from_gguf(&Gguf::from_bytes(Arc::new(empty)).unwrap()).unwrap_err();
    assert!(error.hint().unwrap().contains("without its tokenizer"));
}

#[test]
fn inconsistent_vocabularies_are_refused() {
    let damaged = |damage: fn(&mut Sample)| {
        let mut sample = Sample::new();
        damage(&mut sample);
        sample.error()
    };
    let error = damaged(|s| s.tokens[200] = "he!".to_owned());
    assert!(matches!(error, TokenizerError::MissingByte { byte: 200, text } if text == "È"));
    let error = damaged(|s| s.tokens[257] = "he".to_owned());
    assert!(matches!(error, TokenizerError::Duplicate { first: 256, second: 257, .. }));
    let error = damaged(|s| s.tokens[257] = "l l".to_owned());
    assert!(matches!(error, TokenizerError::NotByteLevel { id: 257, .. }));
    let error = damaged(|s| s.merges[1] = "ll".to_owned());
    assert!(matches!(error, TokenizerError::Merge { index: 1, .. }));
    let error = damaged(|s| s.merges.push("he or".to_owned()));
    assert!(matches!(error, TokenizerError::MergeToken { index: 6, token, .. } if token == "heor"));
    let error = damaged(|s| s.merges.push("q <|bos|>".to_owned()));
    assert!(matches!(error, TokenizerError::MergeToken { token, .. } if token == "<|bos|>"));
    let error = damaged(|s| s.eos = 267);
    assert!(matches!(error, TokenizerError::Id { id: 267, tokens: 267, .. }));
    let error = damaged(|s| s.types.truncate(266));
    assert!(matches!(error, TokenizerError::Types { tokens: 267, types: 266 }));
    let error = damaged(|s| s.tokens.clear());
    assert!(matches!(error, TokenizerError::Empty));
}

/// A line of the golden file.
#[derive(serde::Deserialize)]
struct Golden {
    text: String,
    ids: Vec<u32>,
    #[serde(default)]
    special: bool,
}

#[test]
fn the_embedded_model_gives_the_golden_ids() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let gguf = Gguf::open(root.join("assets/demo.gguf")).unwrap();
    let t = Tokenizer::from_gguf(&gguf).unwrap();
    let golden = root.join("../tools/reference/vectors/tokenizer_golden.jsonl");
    let golden = std::fs::read_to_string(golden).unwrap();
    assert!(golden.lines().count() > 100);
    for line in golden.lines() {
        let Golden { text, ids, special } = serde_json::from_str(line).unwrap();
        assert_eq!(t.encode(&text, special), ids, "{text:?}");
        assert_eq!(t.decode(&ids, false), text);
        let mut stream = t.stream();
        let mut streamed: String = ids.iter().filter_map(|&id| stream.push(id)).collect();
        streamed.extend(stream.finish());
        assert_eq!(streamed, t.decode(&ids, true));
    }
}
