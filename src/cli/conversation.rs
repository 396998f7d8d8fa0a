//! A conversation with a model: its messages, and answers to them.

use super::failure::Failure;
use super::interrupt;
use super::output::{count, lost, say};
use super::run::Policy;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use trilut_runtime::chat::{ChatTemplate, Message};
use trilut_runtime::gguf::AtomicFile;
use trilut_runtime::{Finish, GenerateOptions, Generation, Model, OnFull, SamplerOptions, Session};

/// What is read of a text that continues it: room for an answer, at most this part of the context.
const ROOM: usize = 4;

/// The tokens that an answer may take when no number is given, for the room that is kept free.
const USUAL_ANSWER: usize = 512;

/// A conversation.
pub(crate) struct Conversation {
    template: ChatTemplate,
    session: Session,
    /// What the model is told before everything else.
    pub(crate) system: Option<String>,
    /// What was said, in turn.
    pub(crate) messages: Vec<Message>,
    pub(crate) sampling: SamplerOptions,
    /// The most tokens of an answer.
    pub(crate) limit: Option<usize>,
    pub(crate) on_full: Policy,
}

/// A saved conversation.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Saved {
    system: Option<String>,
    messages: Vec<Message>,
}

impl Conversation {
    pub(crate) fn new(
        model: &Model,
        template: ChatTemplate,
        sampling: SamplerOptions,
        limit: Option<usize>,
        on_full: Policy,
    ) -> Result<Self, Failure> {
        let session = model.session()?;
        let messages = Vec::new();
        Ok(Self { template, session, system: None, messages, sampling, limit, on_full })
    }

    /// Forgets what was said.
    pub(crate) fn clear(&mut self) {
        self.messages.clear();
        self.session.clear();
    }

    /// Positions of the context that are used, and all of them.
    pub(crate) fn used(&self) -> (usize, usize) {
        (self.session.tokens().len(), self.session.model().context())
    }

    /// Writes the answer to `out` as it comes. What a person says cannot end its turn. An answer that is
    /// stopped stays as far as it came; after an error the message is taken back.
    pub(crate) fn answer(
        &mut self,
        text: &str,
        out: &mut impl Write,
    ) -> Result<Generation, Failure> {
        let before = self.messages.clone();
        self.messages.push(Message::new("user", text));
        let answered = self.go_on(out);
        match &answered {
            Ok(generation)
                if generation.text.is_empty() && generation.finish == Finish::Cancelled =>
            {
                self.messages = before;
            }
            Ok(generation) => {
                self.messages.push(Message::new("assistant", generation.text.trim()));
            }
            Err(_) => self.messages = before,
        }
        answered
    }

    fn go_on(&mut self, out: &mut impl Write) -> Result<Generation, Failure> {
        let tokens = self.fit()?;
        let options = GenerateOptions {
            max_tokens: self.limit.unwrap_or(usize::MAX),
            sampling: self.sampling.clone(),
            parse_special: true,
            speculate: 0,
            on_full: match self.on_full {
                Policy::Stop => OnFull::Stop,
                Policy::Shift => OnFull::Shift { keep: self.system_tokens(&tokens) },
            },
        };
        let mut written = Ok(());
        let generation = self.session.generate_from(&tokens, &options, |piece| {
            written = out.write_all(piece.as_bytes()).and_then(|()| out.flush());
            if written.is_err() || interrupt::asked() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        interrupt::taken();
        written.and_then(|()| writeln!(out)).map_err(lost)?;
        if generation.dropped > 0 {
            say!(
                "note: the context was full: the oldest {} were dropped, the rest was read again",
                count(generation.dropped, "token")
            );
        }
        match generation.finish {
            Finish::Context => say!(
                "note: the context of {} positions is full, the answer ends here (/set on_full shift goes on, \
                 /clear begins anew)",
                self.session.model().context()
            ),
            Finish::Length => {
                say!("note: the answer ends after {} (/set n)", count(generation.tokens, "token"))
            }
            Finish::Cancelled => say!("note: stopped"),
            Finish::Stop => {}
        }
        Ok(generation)
    }

    /// The tokens of the conversation. Where they leave no room for an answer the oldest messages are
    /// dropped, if that is the policy; the rest is read again by itself, since it is another text.
    fn fit(&mut self) -> Result<Vec<u32>, Failure> {
        let context = self.session.model().context();
        let room = self.limit.unwrap_or(USUAL_ANSWER).min(context / ROOM).max(1);
        let mut dropped = 0;
        loop {
            let tokens = self.tokens(&self.messages, true)?;
            let fits = match self.on_full {
                Policy::Stop => tokens.len() <= context,
                Policy::Shift => tokens.len() + room <= context,
            };
            if fits {
                if dropped > 0 {
                    say!(
                        "note: the conversation no longer fits into {context} positions: the oldest {} were \
                         dropped",
                        count(dropped, "message")
                    );
                }
                return Ok(tokens);
            }
            if self.on_full == Policy::Stop || self.messages.len() == 1 {
                let what = format!(
                    "the conversation has {} tokens, the context {context} positions",
                    tokens.len()
                );
                return Err(Failure::new(what).hint(match self.on_full {
                    Policy::Stop => {
                        "/set on_full shift drops the oldest messages, /clear begins anew"
                    }
                    Policy::Shift => "shorten the message, or raise the context with --ctx",
                }));
            }
            // A question and its answer go together.
            let turn = self.messages.iter().skip(1).position(|message| message.role == "user");
            let turn = turn.map_or(1, |at| at + 1);
            self.messages.drain(..turn);
            dropped += turn;
        }
    }

    /// The tokens of some messages behind the system prompt.
    fn tokens(&self, messages: &[Message], open: bool) -> Result<Vec<u32>, Failure> {
        let tokenizer = self.session.model().tokenizer();
        // Nothing that is said may read as the template's own control tokens: neither what the user types
        // or loads, nor what the model spells out.
        let said = |role: &str, text: &str| Message::new(role, tokenizer.without_control(text));
        let system = self.system.as_deref().map(|text| said("system", text));
        let messages = messages.iter().map(|message| said(&message.role, &message.content));
        let all: Vec<Message> = system.into_iter().chain(messages).collect();
        Ok(tokenizer.encode_text(&self.template.render(&all, open)?, true))
    }

    /// How many of the tokens are the system prompt.
    fn system_tokens(&self, tokens: &[u32]) -> usize {
        // Templates that refuse a system prompt alone keep what every conversation begins with.
        let system = self.tokens(&[], false).unwrap_or_default();
        tokens.iter().zip(&system).take_while(|(a, b)| a == b).count()
    }

    /// Writes the conversation to a file, as JSON.
    pub(crate) fn save(&self, path: &Path) -> Result<(), Failure> {
        super::output::check_file(path)?;
        let saved = Saved { system: self.system.clone(), messages: self.messages.clone() };
        let mut file = AtomicFile::create(path)?;
        let text = serde_json::to_string_pretty(&saved).map_err(|error| Failure::of(&error))?;
        writeln!(file, "{text}")?;
        Ok(file.commit()?)
    }

    /// Takes a saved conversation up again.
    pub(crate) fn load(&mut self, path: &Path) -> Result<(), Failure> {
        let text = super::run::read_text(path)?;
        let saved: Saved = serde_json::from_str(&text).map_err(|error| {
            Failure::of(&error).context(format!("{} is no saved conversation", path.display()))
        })?;
        let roles = ["user", "assistant"];
        if let Some(message) = saved.messages.iter().find(|m| !roles.contains(&m.role.as_str())) {
            return Err(Failure::new(format!("{} is no saved conversation", path.display()))
                .because(format!("a message is by `{}`, not by user or assistant", message.role)));
        }
        self.clear();
        (self.system, self.messages) = (saved.system, saved.messages);
        Ok(())
    }
}
