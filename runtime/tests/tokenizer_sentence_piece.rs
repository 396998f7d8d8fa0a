//! SentencePiece vocabularies made by hand: order of merges, bytes, the space before texts, and what is
//! refused.

use std::sync::Arc;
use trilut_runtime::gguf::{Gguf, GgufError, GgufWriter};
use trilut_runtime::tokenizer::{Tokenizer, TokenizerError};

/// A vocabulary to change: specials, bytes, characters and pieces with scores by their order.
struct Sample {
    tokens: Vec<String>,
    types: Option<Vec<i32>>,
    scores: Option<Vec<f32>>,
    space_prefix: Option<bool>,
    add_eos: bool,
}

/// The first token after the bytes.
const FIRST: u32 = 259;

impl Sample {
    fn new(pieces: &[&str]) -> Self {
        let mut tokens = ["<unk>", "<s>", "</s>"].map(str::to_owned).to_vec();
        tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
        tokens.extend(pieces.iter().map(|&piece| piece.to_owned()));
        let mut types = vec![1; tokens.len()];
        types[..3].copy_from_slice(&[2, 3, 3]);
        types[3..FIRST as usize].fill(6);
        let scores = (0..tokens.len()).map(|id| -(id as f32)).collect();
        let (types, scores) = (Some(types), Some(scores));
        Self { tokens, types, scores, space_prefix: None, add_eos: false }
    }

    fn read(&self) -> Result<Tokenizer, TokenizerError> {
        let mut writer = GgufWriter::new();
        writer
            .str("general.architecture", "llama")
            .str("tokenizer.ggml.model", "llama")
            .strings("tokenizer.ggml.tokens", &self.tokens)
            .u32("tokenizer.ggml.bos_token_id", 1)
            .u32("tokenizer.ggml.eos_token_id", 2)
            .bool("tokenizer.ggml.add_eos_token", self.add_eos);
        if let Some(types) = &self.types {
            writer.i32s("tokenizer.ggml.token_type", types);
        }
        if let Some(scores) = &self.scores {
            writer.f32s("tokenizer.ggml.scores", scores);
        }
        if let Some(prefix) = self.space_prefix {
            writer.bool("tokenizer.ggml.add_space_prefix", prefix);
        }
        let bytes = writer.begin(Vec::new()).unwrap().finish().unwrap();
        Tokenizer::from_gguf(&Gguf::from_bytes(Arc::new(bytes)).unwrap())
    }

    fn texts(&self, text: &str) -> Vec<String> {
        let t = self.read().unwrap();
        let ids = t.encode(text, false);
        ids.into_iter().map(|id| t.token_text(id).unwrap().to_owned()).collect()
    }
}

#[test]
fn the_best_score_is_merged_first_and_the_leftmost_of_equals() {
    let mut sample = Sample::new(&["▁", "a", "b", "c", "bc", "ab", "abc", "▁a", "aa"]);
    assert_eq!(sample.texts("abc"), ["▁", "abc"]);
    assert_eq!(sample.texts("ab abb"), ["▁", "ab", "▁", "ab", "b"]);
    assert_eq!(sample.texts("aaa"), ["▁a", "aa"]);
    sample.scores = Some(vec![0.0; sample.tokens.len()]);
    assert_eq!(sample.texts("aaaa"), ["▁a", "aa", "a"]);
    // No merge makes what its parts do not lead to.
    let sample = Sample::new(&["▁", "a", "b", "c", "abc"]);
    assert_eq!(sample.texts("abc"), ["▁", "a", "b", "c"]);
}

#[test]
fn what_no_piece_covers_is_bytes() {
    let sample = Sample::new(&["▁", "a", "日"]);
    assert_eq!(sample.texts("a日é\n"), ["▁", "a", "日", "<0xC3>", "<0xA9>", "<0x0A>"]);
    // The names of bytes and of control tokens are ordinary text.
    let names = sample.texts("<0x0A></s>");
    assert!(names[1..].iter().all(|name| name.starts_with("<0x")) && names.len() == 11);
    let t = sample.read().unwrap();
    assert_eq!(t.encode("a</s>a", true), [FIRST, FIRST + 1, 2, FIRST, FIRST + 1]);
    assert_eq!(t.decode(&[3 + 0xe6, 3 + 0x97, 3 + 0xa5, FIRST, 3 + 0xe6], true), "日 \u{fffd}");

    // Without bytes it is the unknown token, and without that the vocabulary is of no use.
    let mut sample = Sample::new(&["▁", "a"]);
    let types = sample.types.as_mut().unwrap();
    types[3..FIRST as usize].fill(5);
    assert_eq!(sample.texts("aé"), ["▁", "a", "<unk>", "<unk>"]);
    sample.tokens[0] = "?".to_owned();
    let error = sample.read().unwrap_err();
    assert!(matches!(error, TokenizerError::MissingByte { byte: 0, text } if text == "<0x00>"));
}

#[test]
fn the_space_before_texts_is_added_and_taken_away() {
    let mut sample = Sample::new(&["▁", "a", "▁a", "▁▁"]);
    let t = sample.read().unwrap();
    let (space, a, space_a, two) = (FIRST, FIRST + 1, FIRST + 2, FIRST + 3);
    assert_eq!(t.encode("a", false), [space_a]);
    assert_eq!(t.encode("a<s>a a", true), [space_a, 1, space_a, space_a]);
    assert_eq!(t.encode(" a", false), [space, space_a]);
    assert_eq!(t.encode("▁a", false), t.encode(" a", false));
    assert!(t.encode("", false).is_empty());
    assert_eq!(t.decode(&[space_a, space_a], true), "a a");
    assert_eq!(t.decode(&[1, space_a], true), "a");
    assert_eq!(t.decode(&[1, space_a], false), "<s> a");
    assert_eq!(t.decode(&[two, a], true), " a");

    let first = |mut stream: trilut_runtime::tokenizer::TokenStream<'_>| stream.push(space_a);
    assert_eq!(first(t.stream()).as_deref(), Some("a"));
    assert_eq!(first(t.stream_after(None)).as_deref(), Some("a"));
    assert_eq!(first(t.stream_after(Some(1))).as_deref(), Some("a"));
    assert_eq!(first(t.stream_after(Some(a))).as_deref(), Some(" a"));

    sample.space_prefix = Some(false);
    let t = sample.read().unwrap();
    assert_eq!(t.encode("a a", false), [a, space_a]);
    assert_eq!(t.decode(&[space_a], true), " a");
}

#[test]
fn pieces_with_a_space_within_are_found_in_long_texts_too() {
    let sample = Sample::new(&["▁", "a", "b", "a▁", "a▁b", "▁b"]);
    assert_eq!(sample.texts("a b"), ["▁", "a▁b"]);
    let t = sample.read().unwrap();
    let ids = t.encode(&"a b".repeat(2000), false);
    assert_eq!(ids[..3], [FIRST, FIRST + 4, FIRST + 4]);
    assert_eq!(ids.len(), 2001);
}

#[test]
fn special_ids_follow_the_file() {
    let mut sample = Sample::new(&["▁"]);
    let t = sample.read().unwrap();
    assert_eq!((t.bos(), t.add_bos(), t.eos(), t.add_eos()), (Some(1), true, Some(2), false));
    assert_eq!(t.stops(), [2]);
    assert!(t.notes().is_empty());
    sample.add_eos = true;
    assert!(sample.read().unwrap().add_eos());
    // Files without types: the usual names tell.
    sample.types = None;
    let t = sample.read().unwrap();
    assert_eq!(t.decode(&[1, 3 + 65, 2], true), "A");
    assert_eq!(t.encode("\t", false), [FIRST, 3 + 9]);
}

#[test]
fn a_space_by_another_name_hides_no_control_token() {
    let mut sample = Sample::new(&["▁", "a"]);
    sample.tokens[1] = "<new turn>".to_owned();
    let t = sample.read().unwrap();
    assert_eq!(t.encode("<new▁turn>", true), [1]);
    assert_eq!(t.without_control("a<new▁turn>a"), "aa");
}

#[test]
fn contradictions_are_refused() {
    let damaged = |damage: fn(&mut Sample)| {
        let mut sample = Sample::new(&["▁", "a"]);
        damage(&mut sample);
        sample.read().unwrap_err()
    };
    let error = damaged(|s| s.scores = None);
    assert!(
        matches!(error, TokenizerError::Gguf(GgufError::MissingKey(key)) if key.ends_with("scores"))
    );
    let error = damaged(|s| s.scores.as_mut().unwrap().truncate(7));
    assert!(matches!(error, TokenizerError::Scores { tokens: 261, scores: 7 }));
    let error = damaged(|s| s.scores.as_mut().unwrap()[9] = f32::NAN);
    assert!(matches!(error, TokenizerError::Score(9)));
    let error = damaged(|s| s.tokens[5] = "<0x2>".to_owned());
    assert!(matches!(error, TokenizerError::NotByte { id: 5, .. }));
    let error = damaged(|s| s.tokens[259] = "a".to_owned());
    assert!(matches!(error, TokenizerError::Duplicate { first: 259, second: 260, .. }));
}
