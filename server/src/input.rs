//! Texts and tokens as clients send them: one or several.

use crate::app::App;
use crate::error::ApiError;
use serde::Deserialize;

/// One text or several.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a string or an array of strings is expected")]
pub(crate) enum Texts {
    One(String),
    Many(Vec<String>),
}

impl From<Texts> for Vec<String> {
    fn from(texts: Texts) -> Self {
        match texts {
            Texts::One(text) => vec![text],
            Texts::Many(texts) => texts,
        }
    }
}

/// One passage or several, as texts or as tokens.
#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "a string, an array of strings, an array of tokens or an array of these is expected"
)]
pub(crate) enum Input {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    ManyTokens(Vec<Vec<u32>>),
}

/// What the model reads at once.
#[derive(Debug)]
pub(crate) enum Passage {
    Text(String),
    /// These and no others.
    Tokens(Vec<u32>),
}

impl From<Input> for Vec<Passage> {
    fn from(input: Input) -> Self {
        match input {
            Input::Text(text) => vec![Passage::Text(text)],
            Input::Texts(texts) => texts.into_iter().map(Passage::Text).collect(),
            Input::Tokens(tokens) => vec![Passage::Tokens(tokens)],
            Input::ManyTokens(many) => many.into_iter().map(Passage::Tokens).collect(),
        }
    }
}

impl From<Texts> for Vec<Passage> {
    fn from(texts: Texts) -> Self {
        Vec::<String>::from(texts).into_iter().map(Passage::Text).collect()
    }
}

/// Refuses tokens of a field that the model does not have.
pub(crate) fn check_tokens(app: &App, param: &str, tokens: &[u32]) -> Result<(), ApiError> {
    let vocab = app.model.config().vocab;
    match tokens.iter().find(|token| **token as usize >= vocab) {
        None => Ok(()),
        Some(token) => {
            let message = format!("token {token} does not exist; the model has {vocab}");
            Err(ApiError::field(param, message))
        }
    }
}
