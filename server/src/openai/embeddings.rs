//! `/v1/embeddings`.

use crate::app::App;
use crate::body::JsonBody;
use crate::embeddings::{self, TooLong, check_dimensions};
use crate::error::ApiError;
use crate::input::{Input, Passage, check_tokens};
use axum::Json;
use axum::extract::State;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

#[derive(Debug, Deserialize)]
pub(crate) struct Fields {
    model: Option<String>,
    input: Input,
    encoding_format: Option<String>,
    dimensions: Option<usize>,
}

pub(crate) async fn create(
    State(app): State<Arc<App>>,
    JsonBody(fields): JsonBody<Fields>,
) -> Result<Json<Value>, ApiError> {
    app.check_model(fields.model.as_deref())?;
    let embeddings = embeddings::of(&app)?;
    let base64 = match fields.encoding_format.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => {
            let message = "`encoding_format` must be float or base64";
            return Err(ApiError::field("encoding_format", message));
        }
    };
    check_dimensions(&app, fields.dimensions)?;
    let passages = Vec::<Passage>::from(fields.input);
    for passage in &passages {
        if let Passage::Tokens(tokens) = passage {
            check_tokens(&app, "input", tokens)?;
        }
    }
    let made = embeddings.vectors(passages, TooLong::Refused).await?;
    let data = made.vectors.iter().enumerate().map(|(index, vector)| {
        let embedding = if base64 {
            let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
            json!(BASE64_STANDARD.encode(bytes))
        } else {
            json!(vector)
        };
        json!({ "object": "embedding", "index": index, "embedding": embedding })
    });
    Ok(Json(json!({
        "object": "list",
        "data": data.collect::<Vec<_>>(),
        "model": app.name,
        "usage": { "prompt_tokens": made.tokens, "total_tokens": made.tokens },
    })))
}
