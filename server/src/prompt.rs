//! From what a client sends to the tokens that the model reads.

use crate::app::App;
use crate::error::ApiError;
use trilut_runtime::chat::{ChatError, ChatTemplate, Message};

/// Answers of a conversation whose beginnings are token boundaries. More would cost time: the template is
/// rendered once for each.
const MOST_BOUNDARIES: usize = 256;

/// The text of a conversation in the model's template, ending where the answer begins. Messages cannot
/// contain control tokens: their names are taken out.
pub(crate) fn rendered(app: &App, messages: &[Message]) -> Result<String, ApiError> {
    let (template, messages) = prepared(app, messages)?;
    render(template, &messages)
}

/// The tokens of a conversation.
///
/// Where an answer begins there is a boundary between tokens, as there was when it was written: behind a
/// template that ends in a space, the answer's first word would otherwise swallow it. So what the model has
/// read and written before is found in the cache again.
pub(crate) fn conversation(app: &App, messages: &[Message]) -> Result<Vec<u32>, ApiError> {
    let (template, messages) = prepared(app, messages)?;
    let text = render(template, &messages)?;
    let whole = encoded(app, &text, true);
    let tokenizer = app.model.tokenizer();
    // What is too long is refused by its caller, without more work.
    if whole.len() >= app.model.context() || tokenizer.space_prefix() {
        return Ok(whole);
    }
    let answers = (0..messages.len()).filter(|&index| messages[index].role == "assistant");
    let (mut tokens, mut done) = (Vec::new(), 0);
    for index in answers.take(MOST_BOUNDARIES) {
        // Some templates refuse what is not yet a whole conversation, or write the past differently.
        let Ok(before) = template.render(&messages[..index], true) else { continue };
        if before.len() > done && text.starts_with(&before) {
            tokens.extend(encoded_part(app, &text[done..before.len()], done == 0));
            done = before.len();
        }
    }
    if done == 0 {
        return Ok(whole);
    }
    tokens.extend(encoded_part(app, &text[done..], false));
    Ok(tokens)
}

/// The template, and messages without control tokens.
fn prepared<'a>(
    app: &'a App,
    messages: &[Message],
) -> Result<(&'a ChatTemplate, Vec<Message>), ApiError> {
    let most = app.limits.messages;
    if messages.len() > most {
        let message = format!("{} messages were sent; at most {most} are allowed", messages.len());
        return Err(ApiError::field("messages", message));
    }
    let Some(template) = &app.template else {
        let message =
            "the model has no chat template: use /v1/completions or /api/generate with `raw`";
        return Err(ApiError::bad(message).code("no_chat_template"));
    };
    let tokenizer = app.model.tokenizer();
    let plain = |message: &Message| {
        Message::new(message.role.as_str(), tokenizer.without_control(&message.content))
    };
    Ok((template, messages.iter().map(plain).collect()))
}

fn render(template: &ChatTemplate, messages: &[Message]) -> Result<String, ApiError> {
    template.render(messages, true).map_err(|error| {
        let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
        let cause = std::error::Error::source(&error).map(|e| format!(": {e}")).unwrap_or_default();
        let message = format!("{error}{cause}{hint}");
        match error {
            // What the template's author did is not the client's fault; how much the client sent is.
            ChatError::Syntax(_)
            | ChatError::Gguf(_)
            | ChatError::Memory(_)
            | ChatError::Thread(_) => ApiError::internal(message),
            _ => ApiError::field("messages", message).code("template_error"),
        }
    })
}

/// The tokens of a part of a template's text, the first behind the begin-of-text token.
fn encoded_part(app: &App, text: &str, first: bool) -> Vec<u32> {
    if first { encoded(app, text, true) } else { app.model.tokenizer().encode(text, true) }
}

/// The tokens of a text, behind the begin-of-text token if the model wants one.
pub(crate) fn encoded(app: &App, text: &str, parse_special: bool) -> Vec<u32> {
    app.model.tokenizer().encode_text(text, parse_special)
}
