//! What Ollama's clients ask about models: `tags`, `show`, `ps`, `version`.

use crate::app::App;
use crate::body::JsonBody;
use crate::error::{ApiError, OllamaError};
use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub(crate) async fn version() -> Json<Value> {
    Json(json!({ "version": env!("CARGO_PKG_VERSION") }))
}

pub(crate) async fn tags(State(app): State<Arc<App>>) -> Json<Value> {
    Json(json!({ "models": [entry(&app)] }))
}

pub(crate) async fn ps(State(app): State<Arc<App>>) -> Json<Value> {
    let mut entry = entry(&app);
    // It stays as long as the server does.
    let never = SystemTime::now() + Duration::from_secs(100 * 365 * 24 * 3600);
    entry["expires_at"] = humantime::format_rfc3339_seconds(never).to_string().into();
    entry["size_vram"] = 0.into();
    entry["context_length"] = app.model.context().into();
    Json(json!({ "models": [entry] }))
}

#[derive(Debug, Deserialize)]
pub(crate) struct Show {
    model: Option<String>,
    name: Option<String>,
}

pub(crate) async fn show(
    State(app): State<Arc<App>>,
    body: Result<JsonBody<Show>, ApiError>,
) -> Result<Json<Value>, OllamaError> {
    let JsonBody(Show { model, name }) = body?;
    let Some(name) = model.or(name) else {
        return Err(ApiError::field("model", "model is required").into());
    };
    app.check_model(Some(&name))?;
    let (config, architecture) = (app.model.config(), &app.about.architecture);
    let template = app.template.as_ref().map_or("", |template| template.source());
    let capabilities = match app.embeddings {
        Some(_) => vec!["completion", "embedding"],
        None => vec!["completion"],
    };
    let key = |name: &str| format!("{architecture}.{name}");
    Ok(Json(json!({
        "template": template,
        "modified_at": modified(&app),
        "details": details(&app),
        "model_info": {
            "general.architecture": architecture,
            "general.parameter_count": app.about.parameters,
            key("context_length"): config.context,
            key("embedding_length"): config.hidden,
            key("block_count"): config.layers,
            key("feed_forward_length"): config.ffn,
            key("attention.head_count"): config.heads,
            key("attention.head_count_kv"): config.kv_heads,
            key("vocab_size"): config.vocab,
        },
        "capabilities": capabilities,
    })))
}

fn entry(app: &App) -> Value {
    let name = format!("{}:latest", app.name);
    json!({
        "name": name,
        "model": name,
        "modified_at": modified(app),
        "size": app.about.bytes,
        "digest": app.about.digest,
        "details": details(app),
    })
}

/// When the model came to this server.
fn modified(app: &App) -> String {
    let started = SystemTime::UNIX_EPOCH + Duration::from_secs(app.created);
    humantime::format_rfc3339_seconds(started).to_string()
}

fn details(app: &App) -> Value {
    let parameters = app.about.parameters as f64;
    let size = match parameters {
        n if n >= 1e9 => format!("{:.1}B", n / 1e9),
        n => format!("{:.1}M", n / 1e6),
    };
    json!({
        "parent_model": "",
        "format": "gguf",
        "family": app.about.architecture,
        "families": [app.about.architecture],
        "parameter_size": size,
        "quantization_level": "ternary",
    })
}
