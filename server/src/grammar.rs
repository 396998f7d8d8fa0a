//! Answers that must be JSON: schemas compiled to grammars that say, token by token, what may follow.
//!
//! The grammar engine is `llguidance`; this module gives it the model's vocabulary and holds it to limits.
//! Only references within a schema are followed: nothing is ever fetched or read from a file.

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, SimpleVob, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};
use std::sync::{Arc, OnceLock};
use trilut_runtime::Model;

/// Compiles schemas for one model. What that needs of the vocabulary is built when it is first asked for.
pub struct Grammars {
    model: Model,
    factory: OnceLock<Result<ParserFactory, String>>,
}

/// A schema that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct GrammarError(String);

impl std::fmt::Debug for Grammars {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Grammars")
    }
}

impl Grammars {
    /// A compiler for a model's vocabulary.
    pub fn new(model: Model) -> Self {
        Self { model, factory: OnceLock::new() }
    }

    /// Any JSON object.
    ///
    /// # Errors
    /// When the model's vocabulary cannot write it.
    pub fn object(&self) -> Result<Constraint, GrammarError> {
        self.schema(json!({ "type": "object" }))
    }

    /// JSON that follows a schema.
    ///
    /// # Errors
    /// When the schema cannot be compiled, within the limits.
    pub fn schema(&self, mut schema: Value) -> Result<Constraint, GrammarError> {
        // One way to space JSON, so that a weak model cannot fill its answer with blanks.
        if let Some(object) = schema.as_object_mut() {
            let spacing = json!({
                "whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "
            });
            object.insert("x-guidance".to_owned(), spacing);
        }
        let factory = self.factory.get_or_init(|| factory(&self.model).map_err(|e| e.to_string()));
        let factory = factory.as_ref().map_err(|error| GrammarError(error.clone()))?;
        let parser = factory.create_parser(TopLevelGrammar::from_json_schema(schema));
        let mut matcher = Matcher::new(parser);
        match matcher.compute_mask() {
            Ok(_) => Ok(Constraint { matcher: Box::new(matcher) }),
            Err(error) => Err(GrammarError(error.to_string())),
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
        let mask: SimpleVob =
            self.matcher.compute_mask_or_eos().map_err(|e| GrammarError(e.to_string()))?;
        mask.iter_unset_entries(|id| {
            if let Some(logit) = logits.get_mut(id) {
                *logit = f32::NEG_INFINITY;
            }
        });
        Ok(())
    }

    /// Goes on behind a token. True when the answer is complete.
    pub(crate) fn push(&mut self, token: u32) -> Result<bool, GrammarError> {
        self.matcher.consume_token(token).map_err(|e| GrammarError(e.to_string()))?;
        Ok(self.matcher.is_stopped())
    }
}
