//! The fields of requests, and what they mean.

use crate::app::App;
use crate::error::ApiError;
use crate::input::{Input, Passage, Texts, check_tokens};
use crate::prompt;
use crate::settings::{Format, Settings};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use trilut_runtime::chat::Message;

/// Tokens of a completion that does not say how many it wants, as OpenAI has it.
const DEFAULT_TOKENS: usize = 16;

/// The fields of chats and plain completions; each has some that the other ignores. Fields that nobody
/// knows are ignored too, as clients expect.
#[derive(Debug, Deserialize)]
pub(crate) struct Fields {
    pub(crate) model: Option<String>,
    pub(crate) messages: Option<Vec<ChatMessage>>,
    pub(crate) prompt: Option<Input>,
    pub(crate) echo: Option<bool>,
    pub(crate) suffix: Option<String>,
    pub(crate) tools: Option<Vec<Value>>,
    pub(crate) functions: Option<Vec<Value>>,
    pub(crate) modalities: Option<Vec<String>>,
    pub(crate) best_of: Option<usize>,
    /// A truth value in chats, a number in completions.
    pub(crate) logprobs: Option<Value>,
    pub(crate) top_logprobs: Option<usize>,
    pub(crate) max_tokens: Option<usize>,
    pub(crate) max_completion_tokens: Option<usize>,
    pub(crate) temperature: Option<f32>,
    pub(crate) top_p: Option<f32>,
    pub(crate) top_k: Option<usize>,
    pub(crate) min_p: Option<f32>,
    pub(crate) seed: Option<i64>,
    pub(crate) stop: Option<Texts>,
    /// Whether the model may not end its answer.
    pub(crate) ignore_eos: Option<bool>,
    /// Whether a plain completion names its tokens.
    pub(crate) return_token_ids: Option<bool>,
    pub(crate) n: Option<usize>,
    pub(crate) presence_penalty: Option<f32>,
    pub(crate) frequency_penalty: Option<f32>,
    pub(crate) repeat_penalty: Option<f32>,
    pub(crate) logit_bias: Option<BTreeMap<String, f32>>,
    pub(crate) response_format: Option<Value>,
    pub(crate) stream: Option<bool>,
    pub(crate) stream_options: Option<StreamOptions>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct StreamOptions {
    pub(crate) include_usage: Option<bool>,
}

impl Fields {
    /// Whether a stream ends with the numbers of tokens.
    pub(crate) fn include_usage(&self) -> bool {
        self.stream_options.as_ref().is_some_and(|options| options.include_usage == Some(true))
    }

    /// How answers are chosen, but for what chats and completions say differently.
    pub(crate) fn settings(self) -> Result<Settings, ApiError> {
        Ok(Settings {
            max_tokens: self.max_completion_tokens.or(self.max_tokens),
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            seed: self.seed,
            stop: self.stop.map_or_else(Vec::new, Vec::from),
            endless: self.ignore_eos == Some(true),
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            repeat_penalty: self.repeat_penalty,
            bias: biases(self.logit_bias.unwrap_or_default())?,
            logprobs: None,
            format: self.response_format.map_or(Ok(Format::Text), format)?,
            ..Settings::default()
        })
    }
}

fn biases(entries: BTreeMap<String, f32>) -> Result<Vec<(u32, f32)>, ApiError> {
    let entry = |(token, bias): (String, f32)| match token.parse() {
        Ok(token) => Ok((token, bias)),
        Err(_) => {
            let token: String = token.chars().take(40).collect();
            let message = format!("`{token}` in `logit_bias` is not the number of a token");
            Err(ApiError::field("logit_bias", message))
        }
    };
    entries.into_iter().map(entry).collect()
}

/// What `response_format` asks for.
fn format(value: Value) -> Result<Format, ApiError> {
    let refuse = |message: &str| Err(ApiError::field("response_format", message));
    match value.get("type").and_then(Value::as_str) {
        Some("text") => Ok(Format::Text),
        Some("json_object") => Ok(Format::Object),
        Some("json_schema") => match value.pointer("/json_schema/schema") {
            Some(schema) => Ok(Format::Schema(schema.clone())),
            None => refuse("`response_format.json_schema.schema` is missing"),
        },
        _ => refuse("`response_format.type` must be text, json_object or json_schema"),
    }
}

/// A message as it is sent.
#[derive(Debug, Deserialize)]
pub(crate) struct ChatMessage {
    role: String,
    content: Option<Value>,
}

/// The tokens of a completion's prompt and its text.
pub(crate) fn prompt(app: &App, passage: Passage) -> Result<(Vec<u32>, String), ApiError> {
    match passage {
        Passage::Text(text) => Ok((prompt::encoded(app, &text, false), text)),
        Passage::Tokens(tokens) => {
            check_tokens(app, "prompt", &tokens)?;
            let text = app.model.tokenizer().decode(&tokens, true);
            Ok((tokens, text))
        }
    }
}

/// The prompts of a completion.
pub(crate) fn prompts(fields: &mut Fields) -> Result<Vec<Passage>, ApiError> {
    let missing = || ApiError::field("prompt", "`prompt` is missing");
    let prompts = Vec::from(fields.prompt.take().ok_or_else(missing)?);
    if prompts.is_empty() {
        Err(ApiError::field("prompt", "`prompt` is empty"))
    } else {
        Ok(prompts)
    }
}

/// How a completion is chosen.
pub(crate) fn completion(fields: Fields) -> Result<Settings, ApiError> {
    if fields.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
        let message = "`suffix` is not supported: the model only goes on behind a text";
        return Err(ApiError::field("suffix", message));
    }
    if fields.best_of.is_some_and(|best| best > fields.n.unwrap_or(1)) {
        let message = "`best_of` is not supported beyond `n`: answers are not ranked";
        return Err(ApiError::field("best_of", message));
    }
    let logprobs = match &fields.logprobs {
        None | Some(Value::Null | Value::Bool(false)) => None,
        Some(value) => match value.as_u64() {
            Some(most) => Some(usize::try_from(most).unwrap_or(usize::MAX)),
            None => return Err(ApiError::field("logprobs", "`logprobs` must be a number")),
        },
    };
    if logprobs.is_some() && fields.echo == Some(true) && fields.max_tokens == Some(0) {
        let message = "`logprobs` are those of the answer: the prompt's are not kept";
        return Err(ApiError::field("logprobs", message));
    }
    let mut settings = Settings { logprobs, ..fields.settings()? };
    settings.max_tokens.get_or_insert(DEFAULT_TOKENS);
    Ok(settings)
}

/// The conversation of a chat, and how its answer is chosen.
pub(crate) fn chat(mut fields: Fields) -> Result<(Vec<Message>, Settings), ApiError> {
    for (name, tools) in [("tools", &fields.tools), ("functions", &fields.functions)] {
        if tools.as_ref().is_some_and(|tools| !tools.is_empty()) {
            let message = format!("{name} are not supported: ask for JSON with `response_format`");
            return Err(ApiError::field(name, message));
        }
    }
    let is_other = |modality: &String| modality != "text";
    if fields.modalities.as_ref().is_some_and(|wanted| wanted.iter().any(is_other)) {
        return Err(ApiError::field("modalities", "only `text` is supported"));
    }
    let messages = fields.messages.take().unwrap_or_default();
    if messages.is_empty() {
        return Err(ApiError::field("messages", "`messages` is empty"));
    }
    let messages: Vec<Message> =
        messages.into_iter().enumerate().map(message).collect::<Result<_, _>>()?;
    let logprobs = match (&fields.logprobs, fields.top_logprobs) {
        (Some(Value::Bool(true)), most) => Some(most.unwrap_or(0)),
        (None | Some(Value::Null | Value::Bool(false)), None | Some(0)) => None,
        (None | Some(Value::Null | Value::Bool(false)), Some(_)) => {
            let message = "`top_logprobs` needs `logprobs` to be true";
            return Err(ApiError::field("top_logprobs", message));
        }
        _ => return Err(ApiError::field("logprobs", "`logprobs` must be true or false")),
    };
    Ok((messages, Settings { logprobs, ..fields.settings()? }))
}

/// A message with its content as one text.
pub(crate) fn message((index, message): (usize, ChatMessage)) -> Result<Message, ApiError> {
    let refuse = |field: &str, what: String| {
        Err(ApiError::field(format!("messages[{index}].{field}"), what))
    };
    let role = match message.role.as_str() {
        "developer" => "system",
        role @ ("system" | "user" | "assistant" | "tool") => role,
        _ => {
            let what = "a message's role must be system, developer, user, assistant or tool";
            return refuse("role", what.to_owned());
        }
    };
    let content = match message.content {
        None | Some(Value::Null) if role == "assistant" => String::new(),
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => {
            let mut content = String::new();
            for (place, part) in parts.iter().enumerate() {
                let kind = part.get("type").and_then(Value::as_str).unwrap_or("none");
                let text = part.get("text").and_then(Value::as_str);
                let Some(text) = text.filter(|_| kind == "text") else {
                    let kind: String = kind.chars().take(40).collect();
                    let what = format!("only parts of type text are supported, not `{kind}`");
                    return refuse(&format!("content[{place}]"), what);
                };
                content.push_str(text);
            }
            content
        }
        _ => return refuse("content", "a message's content must be a string or parts".to_owned()),
    };
    Ok(Message::new(role, content))
}
