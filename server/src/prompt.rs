//! From what a client sends to the tokens that the model reads.

use crate::app::App;
use crate::error::ApiError;
use trilut_runtime::chat::{ChatError, Message};

/// The text of a conversation in the model's template, ending where the answer begins. Messages cannot
/// contain control tokens: their names are taken out.
pub(crate) fn rendered(app: &App, messages: &[Message]) -> Result<String, ApiError> {
    let most = app.limits.messages;
    if messages.len() > most {
        let message = format!("{} messages were sent; at most {most} are allowed", messages.len());
        return Err(ApiError::field("messages", message));
    }
    let Some(template) = &app.template else {
        let message = "the model has no chat template: use /v1/completions or /api/generate with `raw`";
        return Err(ApiError::bad(message).code("no_chat_template"));
    };
    let tokenizer = app.model.tokenizer();
    let plain = |message: &Message| {
        Message::new(message.role.as_str(), tokenizer.without_control(&message.content))
    };
    let messages: Vec<Message> = messages.iter().map(plain).collect();
    template.render(&messages, true).map_err(|error| {
        let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
        let cause = std::error::Error::source(&error).map(|e| format!(": {e}")).unwrap_or_default();
        let message = format!("{error}{cause}{hint}");
        match error {
            // The template's author or its limits are not the client's fault.
            ChatError::Syntax(_) | ChatError::Gguf(_) => ApiError::internal(message),
            _ => ApiError::field("messages", message).code("template_error"),
        }
    })
}

/// The tokens of a conversation.
pub(crate) fn conversation(app: &App, messages: &[Message]) -> Result<Vec<u32>, ApiError> {
    Ok(encoded(app, &rendered(app, messages)?, true))
}

/// The tokens of a text, behind the begin-of-text token if the model wants one.
pub(crate) fn encoded(app: &App, text: &str, parse_special: bool) -> Vec<u32> {
    let tokenizer = app.model.tokenizer();
    let mut tokens = tokenizer.encode(text, parse_special);
    let bos = tokenizer.bos().filter(|_| tokenizer.add_bos());
    if let Some(bos) = bos.filter(|bos| tokens.first() != Some(bos)) {
        tokens.insert(0, bos);
    }
    tokens
}
