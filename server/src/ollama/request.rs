//! The fields of requests, and what they mean.

use crate::app::App;
use crate::error::ApiError;
use crate::settings::{Format, Settings};
use serde::Deserialize;
use serde_json::Value;
use trilut_runtime::chat::Message;

/// The fields of `generate` and `chat`. Unknown ones are ignored, as clients expect.
#[derive(Debug, Deserialize)]
pub(crate) struct Fields {
    pub(crate) model: Option<String>,
    pub(crate) prompt: Option<String>,
    pub(crate) system: Option<String>,
    pub(crate) messages: Option<Vec<ChatMessage>>,
    pub(crate) stream: Option<bool>,
    pub(crate) raw: Option<bool>,
    suffix: Option<String>,
    images: Option<Vec<Value>>,
    tools: Option<Vec<Value>>,
    think: Option<Value>,
    context: Option<Vec<u32>>,
    template: Option<String>,
    format: Option<Value>,
    options: Option<Options>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ChatMessage {
    role: String,
    content: Option<String>,
    images: Option<Vec<Value>>,
}

/// `options`.
#[derive(Debug, Default, Deserialize)]
struct Options {
    num_predict: Option<i64>,
    num_ctx: Option<u64>,
    temperature: Option<f32>,
    top_k: Option<usize>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    seed: Option<i64>,
    stop: Option<Vec<String>>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    repeat_penalty: Option<f32>,
}

impl Fields {
    /// Checks the model's name and refuses what is not supported rather than leave it out silently.
    pub(crate) fn check(&self, app: &App) -> Result<(), ApiError> {
        if self.model.as_deref().is_none_or(str::is_empty) {
            return Err(ApiError::field("model", "model is required"));
        }
        app.check_model(self.model.as_deref())?;
        if let Some(wanted) = self.options.as_ref().and_then(|options| options.num_ctx) {
            app.check_context(wanted);
        }
        let has = |values: &Option<Vec<Value>>| values.as_ref().is_some_and(|v| !v.is_empty());
        let texts = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        let messages = self.messages.iter().flatten();
        let unsupported = [
            ("images", has(&self.images) || messages.clone().any(|m| has(&m.images))),
            ("tools", has(&self.tools)),
            ("suffix", texts(&self.suffix)),
            ("template", texts(&self.template)),
            ("context", self.context.as_ref().is_some_and(|tokens| !tokens.is_empty())),
            ("think", !matches!(self.think, None | Some(Value::Null | Value::Bool(false)))),
        ];
        match unsupported.into_iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((name, _)) => {
                Err(ApiError::field(name, format!("`{name}` is not supported by this server")))
            }
        }
    }

    /// The conversation; that of `generate` is its prompt.
    pub(crate) fn conversation(&mut self) -> Result<Vec<Message>, ApiError> {
        let system = self.system.take().filter(|text| !text.is_empty());
        let mut conversation: Vec<Message> =
            system.map(|text| Message::new("system", text)).into_iter().collect();
        if let Some(prompt) = self.prompt.take().filter(|_| self.messages.is_none()) {
            conversation.push(Message::new("user", prompt));
        }
        for message in self.messages.take().unwrap_or_default() {
            if !["system", "user", "assistant", "tool"].contains(&message.role.as_str()) {
                let what = "a message's role must be system, user, assistant or tool";
                return Err(ApiError::field("messages", what));
            }
            conversation.push(Message::new(message.role, message.content.unwrap_or_default()));
        }
        Ok(conversation)
    }

    /// How the answer is chosen.
    pub(crate) fn settings(self) -> Result<Settings, ApiError> {
        let options = self.options.unwrap_or_default();
        Ok(Settings {
            // Negative numbers are Ollama's for "as many as there is room for".
            max_tokens: options.num_predict.and_then(|most| usize::try_from(most).ok()),
            temperature: options.temperature,
            top_k: options.top_k,
            top_p: options.top_p,
            min_p: options.min_p,
            // -1 is Ollama's for a new one each time.
            seed: options.seed.filter(|&seed| seed != -1),
            stop: options.stop.unwrap_or_default(),
            presence_penalty: options.presence_penalty,
            frequency_penalty: options.frequency_penalty,
            repeat_penalty: options.repeat_penalty,
            format: format(self.format)?,
            ..Settings::default()
        })
    }
}

fn format(value: Option<Value>) -> Result<Format, ApiError> {
    match value {
        None | Some(Value::Null) => Ok(Format::Text),
        Some(Value::String(text)) if text.is_empty() => Ok(Format::Text),
        Some(Value::String(text)) if text == "json" => Ok(Format::Object),
        Some(schema @ Value::Object(_)) => Ok(Format::Schema(schema)),
        Some(_) => Err(ApiError::field("format", "`format` must be \"json\" or a JSON schema")),
    }
}
