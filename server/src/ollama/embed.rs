//! `/api/embed`, and `/api/embeddings` as it was before.

use crate::app::App;
use crate::body::JsonBody;
use crate::embeddings::{self, TooLong, Vectors, check_dimensions};
use crate::error::{ApiError, OllamaError};
use crate::input::{Passage, Texts};
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
    let embeddings = embeddings::of(&app)?;
    // 0 is Ollama's for all of them.
    check_dimensions(&app, dimensions.filter(|dimensions| *dimensions != 0))?;
    let began = Instant::now();
    let texts: Vec<String> = match input {
        None => Vec::new(),
        Some(Texts::One(text)) if text.is_empty() => Vec::new(),
        Some(texts) => texts.into(),
    };
    // Nothing has no vectors; it is how clients see whether the model is there.
    let made = match texts.is_empty() {
        true => Vectors { vectors: Vec::new(), tokens: 0 },
        false => {
            let too_long = if truncate == Some(false) { TooLong::Refused } else { TooLong::Cut };
            let passages = texts.into_iter().map(Passage::Text).collect();
            embeddings.vectors(passages, too_long).await?
        }
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
    let mut made =
        embeddings::of(&app)?.vectors(vec![Passage::Text(prompt)], TooLong::Refused).await?;
    Ok(Json(json!({ "embedding": made.vectors.pop() })))
}
