//! The fields of requests, and what they mean.

use crate::app::App;
use crate::error::ApiError;
use crate::settings::{Format, Settings};
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::{Number, Value};
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
    keep_alive: Option<Value>,
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
    #[serde(default, deserialize_with = "whole")]
    num_predict: Option<i64>,
    #[serde(default, deserialize_with = "whole")]
    num_ctx: Option<u64>,
    temperature: Option<f32>,
    #[serde(default, deserialize_with = "whole")]
    top_k: Option<i64>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    #[serde(default, deserialize_with = "whole")]
    seed: Option<i64>,
    stop: Option<Vec<String>>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    repeat_penalty: Option<f32>,
}

/// A whole number. Clients whose language has no others send it as `40.0`.
fn whole<'de, D: Deserializer<'de>, T: TryFrom<i64>>(from: D) -> Result<Option<T>, D::Error> {
    let Some(number) = Option::<Number>::deserialize(from)? else { return Ok(None) };
    let integral = |value: &f64| value.fract() == 0.0 && value.abs() < 2f64.powi(53);
    let value = number.as_i64().or_else(|| number.as_f64().filter(integral).map(|v| v as i64));
    match value.and_then(|value| T::try_from(value).ok()) {
        Some(value) => Ok(Some(value)),
        None => Err(D::Error::custom(format!("{number} is not a whole number that is allowed"))),
    }
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

    /// Whether there is a system prompt beside the messages.
    pub(crate) fn has_system(&self) -> bool {
        self.system.as_ref().is_some_and(|text| !text.is_empty())
    }

    /// Whether the model is to be kept for no time: 0, or text such as `0s`.
    pub(crate) fn unloads(&self) -> bool {
        match &self.keep_alive {
            Some(Value::Number(time)) => time.as_f64() == Some(0.0),
            Some(Value::String(time)) => {
                time.contains('0') && !time.contains(|c| ('1'..='9').contains(&c))
            }
            _ => false,
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
            // 0 and negative numbers are Ollama's for "as many as there is room for".
            max_tokens: options
                .num_predict
                .and_then(|most| usize::try_from(most).ok())
                .filter(|&most| most > 0),
            temperature: options.temperature,
            // Negative numbers are Ollama's for "all", which is 0 here.
            top_k: options.top_k.map(|most| usize::try_from(most).unwrap_or(0)),
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn options(value: Value) -> Result<Options, serde_json::Error> {
        serde_json::from_value(value)
    }

    #[test]
    fn whole_numbers_may_be_written_as_others() {
        let taken =
            options(json!({ "num_predict": -1.0, "num_ctx": 4096.0, "top_k": 40 })).unwrap();
        assert_eq!(
            (taken.num_predict, taken.num_ctx, taken.top_k),
            (Some(-1), Some(4096), Some(40))
        );
        assert_eq!(options(json!({ "seed": null })).unwrap().seed, None);
        for wrong in [json!(0.5), json!(1e300), json!(u64::MAX), json!("1")] {
            assert!(options(json!({ "seed": wrong })).is_err(), "{wrong}");
        }
        assert!(options(json!({ "num_ctx": -1 })).is_err());
    }

    #[test]
    fn no_time_unloads() {
        let unloads = |time: Value| {
            let fields: Fields = serde_json::from_value(json!({ "keep_alive": time })).unwrap();
            fields.unloads()
        };
        for none in [json!(0), json!(0.0), json!("0"), json!("0s"), json!("0h0m")] {
            assert!(unloads(none.clone()), "{none}");
        }
        for some in [Value::Null, json!(-1), json!(300), json!("10m"), json!("0.5s"), json!("")] {
            assert!(!unloads(some.clone()), "{some}");
        }
    }
}
