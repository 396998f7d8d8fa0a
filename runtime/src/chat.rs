//! Conversations as text: the Jinja template that a model file carries.

use crate::budget::{self, BudgetError};
use crate::gguf::{Gguf, GgufError};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, context};
use std::io::{self, Write};
use std::sync::OnceLock;

/// The most bytes a rendered conversation may have; far above any context length.
const MAX_BYTES: usize = 16 << 20;

/// The most steps a template may take, in the engine's own measure; a long conversation takes thousands.
const MAX_STEPS: u64 = 20_000_000;

/// What a template may hold of memory: so much for itself, and more for what it is given. Ordinary ones hold
/// each text some ten times at worst (as a value, in pieces, in the result while it grows) and some hundred
/// bytes for each message.
const MEMORY: usize = 64 << 20;
const MEMORY_PER_BYTE: usize = 32;
const MEMORY_PER_MESSAGE: usize = 4 << 10;

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user` or `assistant`.
    pub role: String,
    /// What is said. A person's words should pass
    /// [`Tokenizer::without_control`](crate::tokenizer::Tokenizer::without_control) first.
    pub content: String,
}

impl Message {
    /// A message of `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// A template that cannot be read or rendered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// The file's keys for it are of the wrong type.
    #[error("the file's chat template cannot be read")]
    Gguf(#[from] GgufError),
    /// The template is not Jinja.
    #[error("the file's chat template is not a valid template")]
    Syntax(#[source] Error),
    /// The template refuses these messages (`raise_exception`).
    #[error("the model's chat template refuses the conversation: {0}")]
    Refused(String),
    /// The template goes on writing without end.
    #[error("the file's chat template writes more than {MAX_BYTES} bytes")]
    TooLong,
    /// The template goes on computing without end.
    #[error("the file's chat template does not come to an end")]
    Endless,
    /// The template goes on taking memory without end.
    #[error("the file's chat template takes more than {0} bytes of memory")]
    Memory(usize),
    /// The system gives no thread.
    #[error("the file's chat template cannot be rendered")]
    Thread(#[source] io::Error),
    /// The template does something else that fails.
    #[error("the file's chat template cannot be rendered")]
    Render(#[source] Error),
}

impl ChatError {
    /// A helpful next step, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Gguf(error) => error.hint(),
            Self::Refused(_) => {
                Some("most templates want user and assistant messages in turn".to_owned())
            }
            Self::TooLong | Self::Endless | Self::Memory(_) => Some(
                "the template is broken or malicious: use the model file of its publisher"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

impl From<BudgetError> for ChatError {
    fn from(error: BudgetError) -> Self {
        match error {
            BudgetError::Spent(bytes) => Self::Memory(bytes),
            BudgetError::Thread(error) => Self::Thread(error),
        }
    }
}

/// A model's chat template. It is a program of whoever made the file: its steps, its output and, in programs
/// with a [`BudgetAllocator`](budget::BudgetAllocator), its memory have limits.
#[derive(Debug)]
pub struct ChatTemplate {
    /// Each text is made by a copy: a thread that is stopped may hold locks of its environment.
    environment: Environment<'static>,
    source: String,
    bos: String,
    eos: String,
    /// The memory that it once wanted more than. What a thread held by then is lost, so there is no second try.
    spent: OnceLock<usize>,
}

/// The name of the one template in an environment.
const NAME: &str = "chat";

impl ChatTemplate {
    /// The template of a file, `None` when it carries none.
    ///
    /// # Errors
    /// When the file's keys are of the wrong type or the template is not valid.
    pub fn from_gguf(gguf: &Gguf) -> Result<Option<Self>, ChatError> {
        let Some(source) = gguf.opt_str("tokenizer.chat_template")? else { return Ok(None) };
        let token = |key| -> Result<String, GgufError> {
            let (id, texts) = (gguf.opt_u32(key)?, gguf.opt_strings("tokenizer.ggml.tokens")?);
            let text = id.zip(texts).and_then(|(id, mut texts)| texts.nth(id as usize));
            Ok(text.unwrap_or_default().to_owned())
        };
        let bos = token("tokenizer.ggml.bos_token_id")?;
        let eos = token("tokenizer.ggml.eos_token_id")?;
        Self::new(source, &bos, &eos).map(Some)
    }

    /// A template from its source and the texts of the begin and end tokens.
    ///
    /// # Errors
    /// When the source is not a valid template.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self, ChatError> {
        let mut environment = Environment::new();
        // As Hugging Face sets its Jinja up, for which the templates are written.
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_fuel(Some(MAX_STEPS));
        environment.set_undefined_behavior(UndefinedBehavior::Chainable);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |reason: String| -> Result<(), Error> {
            let error = Error::new(ErrorKind::InvalidOperation, "raised by the template");
            Err(error.with_source(Refusal(reason)))
        });
        // Constants are folded here already.
        let text = source.to_owned();
        let environment = budget::within(memory(source.len(), 0), move || {
            environment.add_template_owned(NAME, text).map(|()| environment)
        })?;
        Ok(Self {
            environment: environment.map_err(ChatError::Syntax)?,
            source: source.to_owned(),
            bos: bos.to_owned(),
            eos: eos.to_owned(),
            spent: OnceLock::new(),
        })
    }

    /// The template as it stands in the file.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The text of a conversation. With `add_generation_prompt` it ends where the model's answer
    /// begins. Templates write the begin-of-text token themselves if they want it.
    /// The text is made to be encoded with `parse_special`; messages are put into it as they are.
    ///
    /// # Errors
    /// When the template refuses the messages, fails, or writes without end.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String, ChatError> {
        if let Some(&bytes) = self.spent.get() {
            return Err(ChatError::Memory(bytes));
        }
        let bytes = messages.iter().map(|message| message.role.len() + message.content.len()).sum();
        let (environment, messages) = (self.environment.clone(), messages.to_vec());
        let (bos, eos) = (self.bos.clone(), self.eos.clone());
        let rendered = budget::within(memory(bytes, messages.len()), move || {
            let context =
                context! { messages, add_generation_prompt, bos_token => bos, eos_token => eos };
            render(&environment, context)
        });
        if let Err(BudgetError::Spent(bytes)) = rendered {
            let _ = self.spent.set(bytes);
        }
        rendered?
    }
}

/// The memory that a template may hold for so many bytes of text in so many messages.
fn memory(bytes: usize, messages: usize) -> usize {
    let given = bytes.saturating_mul(MEMORY_PER_BYTE).saturating_add(messages * MEMORY_PER_MESSAGE);
    given.saturating_add(MEMORY)
}

/// The text that the one template of an environment makes of its variables.
fn render(environment: &Environment<'_>, context: minijinja::Value) -> Result<String, ChatError> {
    let template = environment.get_template(NAME).map_err(ChatError::Render)?;
    let mut out = Limited { text: Vec::new(), overflowed: false };
    match template.render_captured_to(context, &mut out) {
        // Templates write text only, so nothing is lost here.
        Ok(_) => Ok(String::from_utf8_lossy(&out.text).into_owned()),
        Err(_) if out.overflowed => Err(ChatError::TooLong),
        Err(error) if error.kind() == ErrorKind::OutOfFuel => Err(ChatError::Endless),
        Err(error) => Err(refusal(&error).map_or(ChatError::Render(error), ChatError::Refused)),
    }
}

/// What a template says to `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(String);

/// The reason behind an error that a template raised itself.
fn refusal(error: &Error) -> Option<String> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(Refusal(reason)) = error.downcast_ref() {
            return Some(reason.clone());
        }
        cause = error.source();
    }
    None
}

/// Text that must not grow past [`MAX_BYTES`].
struct Limited {
    text: Vec<u8>,
    overflowed: bool,
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.text.len() + bytes.len() > MAX_BYTES {
            self.overflowed = true;
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.text.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str, messages: &[Message]) -> Result<String, ChatError> {
        ChatTemplate::new(source, "<bos>", "<eos>")?.render(messages, true)
    }

    #[test]
    fn the_bitnet_template_is_rendered() {
        let source = "{{ bos_token }}{% for message in messages %}\
            {{ message['role'] | capitalize }}: {{ message['content'] | trim }}<|eot_id|>\
            {% endfor %}{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}";
        let messages = [Message::new("system", " Be kind. "), Message::new("user", "Hello")];
        let text = "<bos>System: Be kind.<|eot_id|>User: Hello<|eot_id|>Assistant: ";
        assert_eq!(render(source, &messages).unwrap(), text);
        let template = ChatTemplate::new(source, "", "").unwrap();
        assert!(!template.render(&messages, false).unwrap().contains("Assistant"));
    }

    #[test]
    fn blocks_are_trimmed_as_hugging_face_does() {
        let source = "{% for m in messages %}\n  {% if true %}\n{{ m.content }}\n  {% endif %}\n{% endfor %}";
        assert_eq!(render(source, &[Message::new("user", "hi")]).unwrap(), "hi\n");
    }

    #[test]
    fn python_methods_and_undefined_values_work() {
        let source = "{{ messages[0].content.strip().upper() }}{{ tools.missing.deep }}\
            {% if messages[0]['role'].startswith('us') %}!{% endif %}{{ eos_token }}";
        assert_eq!(render(source, &[Message::new("user", " hi ")]).unwrap(), "HI!<eos>");
    }

    #[test]
    fn silent_loops_come_to_an_end() {
        let row = "{% for a in range(10000) %}";
        let source = format!("{row}{row}{row}{{% endfor %}}{{% endfor %}}{{% endfor %}}");
        assert!(matches!(render(&source, &[]), Err(ChatError::Endless)));
    }

    #[test]
    fn templates_that_take_all_memory_are_stopped() {
        let doubled = |step: &str| {
            format!(
                "{{% set n = namespace(x='abc', l=[1]) %}}{{% for i in range(60) %}}{step}{{% endfor %}}{{{{ n.x | length }}}}"
            )
        };
        for step in [
            "{% set n.x = n.x ~ n.x %}",
            "{% set n.x = n.x + n.x %}",
            "{% set n.x = n.x | replace('', n.x) %}",
            "{% set n.x = [n.x, n.x] | join %}",
            "{% set n.x = n.x * 1000 %}",
            "{% set n.x = '%s%s' | format(n.x, n.x) %}",
            "{% set n.x = '{0}{0}'.format(n.x) %}",
            "{% set n.l = n.l + n.l %}{% set n.x = n.l | list %}",
            "{% set n.l = [n.l, n.l] %}{% set n.x = n.l ~ '' %}",
            "{% set x %}{{ n.x }}{{ n.x }}{% endset %}{% set n.x = x %}",
            "{% set n.x = '%999999999999d' | format(1) %}",
        ] {
            let template = ChatTemplate::new(&doubled(step), "", "").unwrap();
            for _ in 0..2 {
                let error = template.render(&[], true).unwrap_err();
                let stopped = matches!(error, ChatError::Memory(_) | ChatError::Render(_));
                assert!(stopped, "{step}: {error}");
            }
        }
        let folded = "{{ [1] * 1000000000000 ~ '' }}";
        assert!(matches!(render(folded, &[]), Err(ChatError::Memory(_))));
    }

    #[test]
    fn long_conversations_have_room() {
        // As ChatML templates write them, and with everything that is said gathered in a variable.
        let source = "{% set n = namespace(all='') %}{% for m in messages %}\
            {% set n.all = n.all ~ m.content %}\
            {{ '<|im_start|>' + m.role + '\n' + m.content | trim + '<|im_end|>' + '\n' }}\
            {% endfor %}{{ n.all | length }}";
        let said = "lorem ipsum ".repeat(40);
        let messages: Vec<Message> =
            (0..2000).map(|i| Message::new(["user", "assistant"][i % 2], &*said)).collect();
        let text = render(source, &messages).unwrap();
        assert!(text.ends_with(&format!("{}", 2000 * said.len())));
    }

    #[test]
    fn templates_can_refuse() {
        let source =
            "{% if messages[0].role != 'user' %}{{ raise_exception('users first') }}{% endif %}";
        let error = render(source, &[Message::new("system", "")]).unwrap_err();
        assert!(matches!(&error, ChatError::Refused(reason) if reason == "users first"));
        assert!(error.hint().is_some());
    }

    #[test]
    fn broken_templates_are_errors() {
        assert!(matches!(render("{% for %}", &[]), Err(ChatError::Syntax(_))));
        assert!(matches!(render("{{ nothing() }}", &[]), Err(ChatError::Render(_))));
        assert!(matches!(render("{{ 1 | no_such_filter }}", &[]), Err(ChatError::Render(_))));
        let line = "abc".repeat(1000);
        let verbose = format!("{{% for a in range(9999) %}}{line}{{% endfor %}}");
        assert!(matches!(render(&verbose, &[]), Err(ChatError::TooLong)));
        let recursive = "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}";
        assert!(matches!(render(recursive, &[]), Err(ChatError::Render(_))));
    }
}
