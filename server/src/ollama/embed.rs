//! `/api/embed`, and `/api/embeddings` as it was before.

use crate::app::App;
use crate::body::JsonBody;
use crate::error::{ApiError, OllamaError};
use crate::input::{Passage, Texts};
use crate::openai::embeddings::of;
use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Instant;

#[derive(Debug, Deserialize)]
pub(crate) struct Embed {
    model: Option<String>,
    input: Texts,
}

pub(crate) async fn embed(
    State(app): State<Arc<App>>,
    body: Result<JsonBody<Embed>, ApiError>,
) -> Result<Json<Value>, OllamaError> {
    let JsonBody(Embed { model, input }) = body?;
    app.check_model(model.as_deref())?;
    let began = Instant::now();
    let made = of(&app)?.vectors(input.into()).await?;
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
    let mut made = of(&app)?.vectors(vec![Passage::Text(prompt)]).await?;
    Ok(Json(json!({ "embedding": made.vectors.pop() })))
}
