//! The pieces of responses.

use crate::app::now;
use crate::engine::{Done, TokenReport};
use crate::settings::random;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use trilut_runtime::Model;

/// What all parts of one response have in common.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    id: String,
    created: u64,
    model: String,
}

impl Head {
    pub(crate) fn new(prefix: &str, model: &str) -> Self {
        let id = format!("{prefix}-{:016x}{:016x}", random(), random());
        Self { id, created: now(), model: model.to_owned() }
    }

    /// An object of this response.
    pub(crate) fn object(&self, kind: &str, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        })
    }
}

/// The numbers of tokens of all answers of a call.
#[derive(Debug, Default, Clone)]
pub(crate) struct Usage {
    /// Tokens of each prompt and those that were cached, by the number of the prompt.
    prompts: BTreeMap<usize, (usize, usize)>,
    tokens: usize,
}

impl Usage {
    /// Counts an answer to a prompt.
    pub(crate) fn add(&mut self, prompt: usize, done: &Done) {
        let cached = self.prompts.get(&prompt).map_or(usize::MAX, |(_, cached)| *cached);
        // Several answers to one prompt read it once; the first one's share counts.
        let cached = cached.min(done.reused_tokens);
        self.prompts.insert(prompt, (done.prompt_tokens, cached));
        self.tokens += done.tokens;
    }

    pub(crate) fn json(&self) -> Value {
        let prompt: usize = self.prompts.values().map(|(tokens, _)| tokens).sum();
        let cached: usize = self.prompts.values().map(|(_, cached)| cached).sum();
        json!({
            "prompt_tokens": prompt,
            "completion_tokens": self.tokens,
            "total_tokens": prompt + self.tokens,
            "prompt_tokens_details": { "cached_tokens": cached },
        })
    }
}

/// Speeds of an answer, as llama.cpp's server reports them.
pub(crate) fn timings(done: &Done) -> Value {
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let rate = |tokens: usize, time: Duration| match time.is_zero() {
        true => 0.0,
        false => tokens as f64 / time.as_secs_f64(),
    };
    let read = done.prompt_tokens - done.reused_tokens;
    // The first token comes with the prompt.
    let decoded = done.tokens.saturating_sub(1);
    json!({
        "cache_n": done.reused_tokens,
        "prompt_n": read,
        "prompt_ms": milliseconds(done.prompt_time),
        "prompt_per_second": rate(read, done.prompt_time),
        "predicted_n": done.tokens,
        "predicted_ms": milliseconds(done.decode_time),
        "predicted_per_second": rate(decoded, done.decode_time),
        "queue_ms": milliseconds(done.queue_time),
    })
}

/// A token's text, as far as it is one.
fn text(model: &Model, id: u32) -> String {
    String::from_utf8_lossy(model.tokenizer().token_bytes(id)).into_owned()
}

/// `logprobs` of a chat.
pub(crate) fn chat_logprobs(model: &Model, tokens: &[TokenReport]) -> Value {
    let entry = |id: u32, logprob: f64| {
        json!({
            "token": text(model, id),
            "logprob": logprob,
            "bytes": model.tokenizer().token_bytes(id),
        })
    };
    let content: Vec<Value> = tokens
        .iter()
        .map(|token| {
            let top: Vec<Value> = token.top.iter().map(|(id, l)| entry(*id, *l)).collect();
            let mut value = entry(token.id, token.logprob);
            value["top_logprobs"] = top.into();
            value
        })
        .collect();
    json!({ "content": content, "refusal": null })
}

/// What stands for a token in lists and as a key: its text, or its bytes as OpenAI writes them where they are no whole
/// characters.
fn name(model: &Model, id: u32) -> String {
    let bytes = model.tokenizer().token_bytes(id);
    if std::str::from_utf8(bytes).is_ok() {
        return text(model, id);
    }
    let digits = bytes.iter().map(|byte| format!("\\x{byte:02x}"));
    format!("bytes:{}", digits.collect::<String>())
}

/// `logprobs` of a plain completion, whose answer begins behind `begin` characters.
pub(crate) fn text_logprobs(model: &Model, tokens: &[TokenReport], begin: usize) -> Value {
    let top = |token: &TokenReport| {
        let entries = token.top.iter().map(|(id, logprob)| (name(model, *id), json!(logprob)));
        Value::Object(entries.collect())
    };
    json!({
        "tokens": tokens.iter().map(|token| name(model, token.id)).collect::<Vec<_>>(),
        "token_logprobs": tokens.iter().map(|token| token.logprob).collect::<Vec<_>>(),
        "top_logprobs": tokens.iter().map(top).collect::<Vec<_>>(),
        "text_offset": tokens.iter().map(|token| begin + token.offset).collect::<Vec<_>>(),
    })
}
