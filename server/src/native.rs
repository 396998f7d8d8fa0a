//! What is neither OpenAI's nor Ollama's: health, figures, the machine and its plan, and the tokenizer.

use crate::app::App;
use crate::body::JsonBody;
use crate::engine::{FIRST_TOKEN_CLASSES, Metrics};
use crate::error::ApiError;
use crate::openai::request::{ChatMessage, message};
use crate::prompt;
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::Deserialize;
use serde_json::{Value, json};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use trilut_runtime::SamplerOptions;

pub(crate) async fn health(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    if app.engine.is_serving() {
        return Ok(Json(json!({ "status": "ok" })));
    }
    Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the server is shutting down"))
}

/// What never changes while the server runs.
pub(crate) async fn props(State(app): State<Arc<App>>) -> Json<Value> {
    let default = SamplerOptions::default();
    let (model, engine) = (&app.model, app.engine.options());
    let decode = model.kernels().map(|(layer, choice)| {
        json!({
            "layer": layer,
            "shape": choice.shape.to_string(),
            "kernel": choice.kernel.kernel().name.to_string(),
            "tile": choice.tile.to_string(),
            "reason": choice.reason,
        })
    });
    let batch = model.kernels().map(|(layer, choice)| {
        // Without a kernel of its own a small batch goes token by token through that of decoding.
        let kernel = choice.batch.kernel.as_ref().map(|kernel| kernel.kernel().name.to_string());
        json!({
            "layer": layer,
            "shape": choice.shape.to_string(),
            "kernel": kernel.unwrap_or_else(|| choice.kernel.kernel().name.to_string()),
            "tile": choice.batch.tile.to_string(),
            "reason": choice.batch.reason,
        })
    });
    let prefill = model.prefill_kernels().map(|(stack, choice)| {
        json!({
            "layer": stack,
            "shape": choice.shape.to_string(),
            "kernel": choice.kernel.kernel().name.to_string(),
            "tile": format!("{} rows", choice.rows),
            "reason": choice.reason,
        })
    });
    Json(json!({
        "model": app.name,
        "version": env!("CARGO_PKG_VERSION"),
        "default_generation_settings": {
            "n_ctx": model.context(),
            "temperature": default.temperature,
            "top_k": default.top_k,
            "top_p": default.top_p,
            "min_p": default.min_p,
        },
        "total_slots": engine.slots,
        "queue": engine.queue,
        "prompt_rows": engine.prompt_rows,
        "speculate": engine.speculate,
        "threads": model.threads(),
        "bytes_per_token": model.bytes_per_token(),
        "cache_type": model.cache_type().name(),
        "cache_bytes": model.cache_bytes() * engine.slots,
        "architecture": app.about.architecture,
        "parameters": app.about.parameters,
        "chat_template": app.template.as_ref().map(|template| template.source()),
        "machine": *app.machine,
        "plan": {
            "decode": decode.collect::<Vec<_>>(),
            "batch": batch.collect::<Vec<_>>(),
            "prefill": prefill.collect::<Vec<_>>(),
        },
    }))
}

/// What the slots do.
pub(crate) async fn slots(State(app): State<Arc<App>>) -> Json<Value> {
    let metrics = app.engine.metrics();
    Json(json!({
        "slots": app.engine.slots(),
        "waiting": app.engine.waiting(),
        "uptime_seconds": app.started.elapsed().as_secs_f64(),
        "busy_seconds": metrics.busy_us.load(Relaxed) as f64 / 1e6,
        "generated_tokens": metrics.generated.load(Relaxed),
        "rows": metrics.rows.load(Relaxed),
        "steps": metrics.steps.load(Relaxed),
        "prompt_tokens": metrics.prompt.load(Relaxed),
        "reused_tokens": metrics.reused.load(Relaxed),
        "finished": metrics.finished.load(Relaxed),
    }))
}

/// Everything that is counted, in Prometheus' text format.
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, figures(&app))
}

fn figures(app: &App) -> String {
    let metrics: &Metrics = app.engine.metrics();
    let slots = app.engine.slots();
    let mut text = String::new();
    // Writing to a string does not fail.
    let mut add = |name: &str, kind: &str, help: &str, values: &[(&str, f64)]| {
        let _ = writeln!(text, "# HELP trilut_{name} {help}\n# TYPE trilut_{name} {kind}");
        for (label, value) in values {
            let _ = writeln!(text, "trilut_{name}{label} {value}");
        }
    };
    let count = |counter: &AtomicU64| counter.load(Relaxed) as f64;
    let seconds = |counter: &AtomicU64| counter.load(Relaxed) as f64 / 1e6;
    let outcomes = [
        ("{outcome=\"finished\"}", count(&metrics.finished)),
        ("{outcome=\"cancelled\"}", count(&metrics.cancelled)),
        ("{outcome=\"failed\"}", count(&metrics.failed)),
        ("{outcome=\"refused\"}", count(&metrics.refused)),
    ];
    add("requests_total", "counter", "Requests by how they ended.", &outcomes);
    let busy = slots.iter().filter(|slot| slot.busy).count() as f64;
    let gauges = [
        ("slots", "Answers that can be written at once.", slots.len() as f64),
        ("slots_busy", "Answers that are being written.", busy),
        ("queue_length", "Requests that wait for a slot.", app.engine.waiting() as f64),
        ("uptime_seconds", "Time since the start.", app.started.elapsed().as_secs_f64()),
    ];
    for (name, help, value) in gauges {
        add(name, "gauge", help, &[("", value)]);
    }
    let counters = [
        ("prompt_tokens_total", "Prompt tokens of finished answers.", count(&metrics.prompt)),
        ("prompt_tokens_reused_total", "Those in the cache already.", count(&metrics.reused)),
        ("generated_tokens_total", "Tokens generated.", count(&metrics.generated)),
        ("draft_tokens_total", "Tokens guessed.", count(&metrics.drafted)),
        ("draft_tokens_accepted_total", "Guesses that held.", count(&metrics.accepted)),
        ("steps_total", "Forward passes.", count(&metrics.steps)),
        ("rows_total", "Tokens that went through them.", count(&metrics.rows)),
        ("busy_seconds_total", "Time of forward passes and sampling.", seconds(&metrics.busy_us)),
    ];
    for (name, help, value) in counters {
        add(name, "counter", help, &[("", value)]);
    }
    let mut total = 0.0;
    let mut buckets: Vec<(String, f64)> = Vec::new();
    for (end, class) in FIRST_TOKEN_CLASSES.iter().zip(&metrics.first_token) {
        total += count(class);
        let end = match *end {
            u64::MAX => "+Inf".to_owned(),
            milliseconds => (milliseconds as f64 / 1e3).to_string(),
        };
        buckets.push((format!("_bucket{{le=\"{end}\"}}"), total));
    }
    buckets.push(("_sum".to_owned(), seconds(&metrics.first_token_us)));
    buckets.push(("_count".to_owned(), total));
    let buckets: Vec<(&str, f64)> = buckets.iter().map(|(l, v)| (l.as_str(), *v)).collect();
    let help = "Time to the first token of finished answers, queue included.";
    add("first_token_seconds", "histogram", help, &buckets);
    text
}

#[derive(Debug, Deserialize)]
pub(crate) struct Tokenize {
    content: String,
    add_special: Option<bool>,
    parse_special: Option<bool>,
    with_pieces: Option<bool>,
}

pub(crate) async fn tokenize(
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<Tokenize>,
) -> Result<Json<Value>, ApiError> {
    let (length, most) = (request.content.len(), app.limits.text);
    if length > most {
        let message = format!("`content` has {length} bytes; at most {most} are encoded");
        return Err(ApiError::field("content", message));
    }
    let tokens = app.blocking(move |app| {
        let special = request.parse_special.unwrap_or(true);
        let tokenizer = app.model.tokenizer();
        let tokens = match request.add_special {
            Some(true) => prompt::encoded(app, &request.content, special),
            _ => tokenizer.encode(&request.content, special),
        };
        bounded(app, "content", tokens.len())?;
        if request.with_pieces != Some(true) {
            return Ok(json!(tokens));
        }
        let piece = |id: &u32| {
            let bytes = tokenizer.token_bytes(*id);
            // Half a character is no text: then the bytes themselves.
            let piece =
                std::str::from_utf8(bytes).map_or_else(|_| json!(bytes), |text| json!(text));
            json!({ "id": id, "piece": piece })
        };
        Ok(tokens.iter().map(piece).collect::<Vec<_>>().into())
    });
    Ok(Json(json!({ "tokens": tokens.await? })))
}

#[derive(Debug, Deserialize)]
pub(crate) struct Detokenize {
    tokens: Vec<u32>,
}

pub(crate) async fn detokenize(
    State(app): State<Arc<App>>,
    JsonBody(Detokenize { tokens }): JsonBody<Detokenize>,
) -> Result<Json<Value>, ApiError> {
    let text = app.blocking(move |app| {
        bounded(app, "tokens", tokens.len())?;
        let vocab = app.model.config().vocab;
        if let Some(token) = tokens.iter().find(|token| **token as usize >= vocab) {
            let message = format!("token {token} does not exist; the model has {vocab}");
            return Err(ApiError::field("tokens", message));
        }
        Ok(app.model.tokenizer().decode(&tokens, false))
    });
    Ok(Json(json!({ "content": text.await? })))
}

/// Refuses more tokens than are encoded or decoded for one request.
fn bounded(app: &App, param: &str, tokens: usize) -> Result<(), ApiError> {
    let most = app.limits.tokens;
    if tokens <= most {
        return Ok(());
    }
    let message = format!("`{param}` has {tokens} tokens; at most {most} are allowed");
    Err(ApiError::field(param, message))
}

#[derive(Debug, Deserialize)]
pub(crate) struct Conversation {
    messages: Vec<ChatMessage>,
}

/// The text that a chat of the same messages reads.
pub(crate) async fn apply_template(
    State(app): State<Arc<App>>,
    JsonBody(Conversation { messages }): JsonBody<Conversation>,
) -> Result<Json<Value>, ApiError> {
    if messages.is_empty() {
        return Err(ApiError::field("messages", "`messages` is empty"));
    }
    let messages: Vec<_> =
        messages.into_iter().enumerate().map(message).collect::<Result<_, _>>()?;
    let prompt = app.blocking(move |app| prompt::rendered(app, &messages)).await?;
    Ok(Json(json!({ "prompt": prompt })))
}
