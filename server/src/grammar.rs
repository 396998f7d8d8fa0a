//! Answers that must be JSON: schemas compiled to grammars that say, token by token, what may follow.
//!
//! The grammar engine is `llguidance`; this module gives it the model's vocabulary and holds it to limits, after
//! those of [`schema`]. Each schema is compiled on a thread of its own, with room for its recursion
//! and with a deadline. Only references within a schema are followed: nothing is ever fetched or read from a file.

use crate::schema;
use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, SimpleVob, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::Duration;
use trilut_runtime::Model;

/// Schemas that are compiled at once: one that takes its time leaves a core to the others.
const MOST_AT_ONCE: usize = 2;

/// How long a schema waits for its turn.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a schema may take to compile.
const DEADLINE: Duration = Duration::from_secs(10);

/// Bytes of stack for it; the engine recurses over names and references.
const STACK: usize = 64 << 20;

/// Compiles schemas for one model. What that needs of the vocabulary is built when it is first asked for.
#[derive(Clone)]
pub struct Grammars(Arc<Compiler>);

struct Compiler {
    model: Model,
    factory: OnceLock<Result<ParserFactory, String>>,
    at_work: AtomicUsize,
}

/// A schema that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// It is wrong, or too much.
    #[error("{0}")]
    Schema(String),
    /// Others are being compiled.
    #[error("the schemas of others are being compiled")]
    Busy,
}

impl GrammarError {
    /// What the grammar engine says, in words that concern the schema.
    fn said(text: impl std::fmt::Display) -> Self {
        let text = text.to_string();
        let text = text.replace("<non-verbose/>", "");
        let text = text.trim();
        // Its word for a grammar in which nothing ever ends.
        let what = if text.contains("NoExtensionBias") { "no answer can follow it" } else { text };
        Self::Schema(what.to_owned())
    }
}

/// One of the schemas that are being compiled.
struct AtWork(Arc<Compiler>);

impl AtWork {
    fn begin(compiler: &Arc<Compiler>) -> Option<Self> {
        let more = |n: usize| (n < MOST_AT_ONCE).then_some(n + 1);
        let begun = compiler.at_work.fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        begun.ok().map(|_| Self(Arc::clone(compiler)))
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.at_work.fetch_sub(1, Ordering::AcqRel);
    }
}

impl std::fmt::Debug for Grammars {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Grammars")
    }
}

impl Grammars {
    /// A compiler for a model's vocabulary.
    pub fn new(model: Model) -> Self {
        Self(Arc::new(Compiler { model, factory: OnceLock::new(), at_work: AtomicUsize::new(0) }))
    }

    /// Any JSON object.
    ///
    /// # Errors
    /// When the model's vocabulary cannot write it.
    pub fn object(&self) -> Result<Constraint, GrammarError> {
        self.schema(json!({ "type": "object" }))
    }

    /// JSON that follows a schema. Waits for it, at most some seconds.
    ///
    /// # Errors
    /// When the schema cannot be compiled within the limits, or others are being compiled meanwhile.
    pub fn schema(&self, schema: Value) -> Result<Constraint, GrammarError> {
        schema::check(&schema).map_err(GrammarError::Schema)?;
        let at_work = self.turn()?;
        let (sender, receiver) = mpsc::sync_channel(1);
        let work = move || {
            let compiled = at_work.0.compile(schema);
            drop(at_work);
            // Nobody may wait for it any more.
            let _ = sender.send(compiled);
        };
        let thread = thread::Builder::new().name("schema".to_owned()).stack_size(STACK).spawn(work);
        thread.map_err(|_| GrammarError::Busy)?;
        match receiver.recv_timeout(DEADLINE) {
            Ok(compiled) => compiled,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let seconds = DEADLINE.as_secs();
                Err(GrammarError::Schema(format!(
                    "it takes more than {seconds} seconds to compile"
                )))
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                Err(GrammarError::Schema("the compiler of grammars cannot read it".to_owned()))
            }
        }
    }

    /// Waits for its turn to compile, not for long: whoever waits keeps a thread from preparing other requests.
    fn turn(&self) -> Result<AtWork, GrammarError> {
        const WAIT: Duration = Duration::from_millis(5);
        let turns = PATIENCE.as_millis() / WAIT.as_millis();
        for _ in 0..turns {
            if let Some(at_work) = AtWork::begin(&self.0) {
                return Ok(at_work);
            }
            thread::sleep(WAIT);
        }
        Err(GrammarError::Busy)
    }
}

impl Compiler {
    fn compile(&self, mut schema: Value) -> Result<Constraint, GrammarError> {
        // One way to space JSON, so that a weak model cannot fill its answer with blanks.
        if let Some(object) = schema.as_object_mut() {
            let spacing = json!({
                "whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "
            });
            object.insert("x-guidance".to_owned(), spacing);
        }
        let factory = self.factory.get_or_init(|| factory(&self.model).map_err(|e| e.to_string()));
        let factory = factory.as_ref().map_err(GrammarError::said)?;
        let parser = factory.create_parser(TopLevelGrammar::from_json_schema(schema));
        let mut matcher = Matcher::new(parser);
        match matcher.compute_mask() {
            Ok(_) => Ok(Constraint { matcher: Box::new(matcher) }),
            Err(error) => Err(GrammarError::said(error)),
        }
    }
}

/// The vocabulary as the grammar engine wants it.
fn factory(model: &Model) -> Result<ParserFactory, Box<dyn std::error::Error>> {
    let tokenizer = model.tokenizer();
    let stops = tokenizer.stops();
    let Some(&end) = stops.first() else {
        return Err("the model has no token that ends an answer".into());
    };
    let size = model.config().vocab;
    let word = |id: u32| {
        let bytes = tokenizer.token_bytes(id);
        match tokenizer.is_control(id) {
            // The engine's mark of tokens that are no text.
            true => [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes].concat(),
            false => bytes.to_vec(),
        }
    };
    let words: Vec<Vec<u8>> = (0..size as u32).map(word).collect();
    let trie = TokTrie::from(&TokRxInfo::new(size as u32, end), &words).with_eos_tokens(stops);
    let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
    let mut factory = ParserFactory::new_simple(&environment)?;
    *factory.limits_mut() = ParserLimits {
        initial_lexer_fuel: 500_000,
        max_grammar_size: 100_000,
        max_lexer_states: 50_000,
        verbose_errors: false,
        ..ParserLimits::default()
    };
    factory.quiet();
    Ok(factory)
}

/// What may follow in one answer.
pub struct Constraint {
    matcher: Box<Matcher>,
}

impl std::fmt::Debug for Constraint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Constraint")
    }
}

impl Clone for Constraint {
    /// Another answer with the same grammar, which shares nothing that changes.
    fn clone(&self) -> Self {
        Self { matcher: Box::new(self.matcher.deep_clone()) }
    }
}

impl Constraint {
    /// Takes every token that may not follow out of the choice.
    pub(crate) fn mask(&mut self, logits: &mut [f32]) -> Result<(), GrammarError> {
        let mask: SimpleVob = self.matcher.compute_mask_or_eos().map_err(GrammarError::said)?;
        mask.iter_unset_entries(|id| {
            if let Some(logit) = logits.get_mut(id) {
                *logit = f32::NEG_INFINITY;
            }
        });
        Ok(())
    }

    /// Goes on behind a token. True when the answer is complete.
    pub(crate) fn push(&mut self, token: u32) -> Result<bool, GrammarError> {
        self.matcher.consume_token(token).map_err(GrammarError::said)?;
        Ok(self.matcher.is_stopped())
    }
}
