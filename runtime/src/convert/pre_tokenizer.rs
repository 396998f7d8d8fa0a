//! The name of the rules by which a tokenizer.json cuts texts into words.

use serde_json::{Map, Value};

/// How Llama 3 cuts texts.
pub(super) const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Expressions of `Split` parts, with the name that GGUF files give to the rules.
const SPLITS: &[(&str, &str)] = &[
    (LLAMA3, "llama-bpe"),
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        "qwen2",
    ),
];

/// Vocabularies that are told by tokens and their ids.
const SIGNATURES: &[(&str, &[(&str, u64)])] = &[
    ("falcon3", &[("<|endoftext|>", 11), ("<|pad|>", 2023)]),
    ("falcon", &[("<|endoftext|>", 11), (">>TITLE<<", 0)]),
];

/// The name, `None` when the rules are not known.
pub(super) fn name(rules: &Value, vocab: &Map<String, Value>) -> Option<&'static str> {
    let has = |(text, id): &(&str, u64)| vocab.get(*text).and_then(Value::as_u64) == Some(*id);
    if let Some((name, _)) = SIGNATURES.iter().find(|(_, tokens)| tokens.iter().all(has)) {
        return Some(name);
    }
    let alone = [rules.clone()];
    let parts = rules["pretokenizers"].as_array().map_or(&alone[..], Vec::as_slice);
    let kinds: Vec<&str> = parts.iter().filter_map(|part| part["type"].as_str()).collect();
    let splits: Vec<&str> =
        parts.iter().filter_map(|part| part["pattern"]["Regex"].as_str()).collect();
    match (&kinds[..], &splits[..]) {
        (["Split", "ByteLevel"], [split]) => {
            SPLITS.iter().find(|(expression, _)| expression == split).map(|(_, name)| *name)
        }
        (["Digits", "ByteLevel"], []) if parts[0]["individual_digits"] == true => Some("smollm"),
        (["Punctuation", "ByteLevel", "Digits", "Split"], _) => Some("falcon"),
        (["ByteLevel"], []) if parts[0]["use_regex"] != false => Some("gpt-2"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules_are_told_by_their_parts_or_by_the_vocabulary() {
        let vocab = Map::new();
        let llama = json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": SPLITS[0].0}, "behavior": "Isolated"},
            {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]});
        assert_eq!(name(&llama, &vocab), Some("llama-bpe"));
        let gpt = json!({"type": "ByteLevel", "add_prefix_space": false});
        assert_eq!(name(&gpt, &vocab), Some("gpt-2"));
        let digits = json!({"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": true}, {"type": "ByteLevel"}]});
        assert_eq!(name(&digits, &vocab), Some("smollm"));
        let other = json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": r"\w+"}}, {"type": "ByteLevel"}]});
        assert_eq!(name(&other, &vocab), None);
        let falcon = json!({"<|endoftext|>": 11, "<|pad|>": 2023});
        assert_eq!(name(&other, falcon.as_object().unwrap()), Some("falcon3"));
    }
}
