//! `/api/embed`, and `/api/embeddings` as it was before.

use crate::app::App;
use crate::body::JsonBody;
use crate::embeddings::Vectors;
use crate::error::{ApiError, OllamaError};
use crate::input::{Passage, Texts};
use crate::openai::embeddings::of;
use crate::prompt;
use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Instant;

#[derive(Debug, Deserialize)]
pub(crate) struct Embed {
    model: Option<String>,
    input: Option<Texts>,
    /// Whether what the context does not hold is left out, as it is unless a client says otherwise.
    truncate: Option<bool>,
    dimensions: Option<usize>,
}

pub(crate) async fn embed(
    State(app): State<Arc<App>>,
    body: Result<JsonBody<Embed>, ApiError>,
) -> Result<Json<Value>, OllamaError> {
    let JsonBody(Embed { model, input, truncate, dimensions }) = body?;
    app.check_model(model.as_deref())?;
    let embeddings = of(&app)?;
    let hidden = app.model.config().hidden;
    // 0 is Ollama's for all of them.
    if dimensions.is_some_and(|dimensions| dimensions != 0 && dimensions != hidden) {
        let message =
            format!("this model's embeddings have {hidden} dimensions and no other number");
        return Err(ApiError::field("dimensions", message).into());
    }
    let began = Instant::now();
    let texts: Vec<String> = match input {
        None => Vec::new(),
        Some(Texts::One(text)) if text.is_empty() => Vec::new(),
        Some(texts) => texts.into(),
    };
    // Nothing has no vectors; it is how clients see whether the model is there.
    let made = match texts.is_empty() {
        true => Vectors { vectors: Vec::new(), tokens: 0 },
        false => embeddings.vectors(passages(&app, texts, truncate != Some(false)).await?).await?,
    };
    Ok(Json(json!({
        "model": app.name,
        "embeddings": made.vectors,
        "total_duration": began.elapsed().as_nanos() as u64,
        // The model was there already.
        "load_duration": 0,
        "prompt_eval_count": made.tokens,
    })))
}

/// What is read of texts: all, or as much as the context holds.
async fn passages(
    app: &Arc<App>,
    texts: Vec<String>,
    truncate: bool,
) -> Result<Vec<Passage>, ApiError> {
    if !truncate {
        return Ok(texts.into_iter().map(Passage::Text).collect());
    }
    let cut = move |app: &App| Ok(texts.iter().map(|text| fitting(app, text)).collect());
    app.blocking(cut).await
}

/// A text's tokens, as many as there is room for. A token that ends texts ends what was cut too.
fn fitting(app: &App, text: &str) -> Passage {
    let (tokenizer, context) = (app.model.tokenizer(), app.model.context());
    let mut tokens = prompt::encoded(app, text, false);
    let end = tokenizer.eos().filter(|_| tokenizer.add_eos());
    tokens.truncate(context - usize::from(end.is_some()));
    tokens.extend(end);
    Passage::Tokens(tokens)
}

#[derive(Debug, Deserialize)]
pub(crate) struct Embedding {
    model: Option<String>,
    prompt: String,
}

pub(crate) async fn embedding(
    State(app): State<Arc<App>>,
    body: Result<JsonBody<Embedding>, ApiError>,
) -> Result<Json<Value>, OllamaError> {
    let JsonBody(Embedding { model, prompt }) = body?;
    app.check_model(model.as_deref())?;
    let mut made = of(&app)?.vectors(vec![Passage::Text(prompt)]).await?;
    Ok(Json(json!({ "embedding": made.vectors.pop() })))
}
