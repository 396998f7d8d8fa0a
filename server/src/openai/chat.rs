//! `/v1/chat/completions`.

use super::chunks::{self, Chunks};
use super::request::{self, Fields};
use super::wire::{Head, Usage, chat_logprobs, timings};
use crate::app::App;
use crate::body::JsonBody;
use crate::engine::{Done, Event, TokenReport};
use crate::error::{ApiError, engine_failed};
use crate::listen::Peer;
use crate::prompt;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json, extract::State};
use serde_json::{Value, json};
use std::sync::Arc;

pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    JsonBody(fields): JsonBody<Fields>,
) -> Result<Response, ApiError> {
    app.check_model(fields.model.as_deref())?;
    let (stream, include_usage) = (fields.stream == Some(true), fields.include_usage());
    let answers = fields.n.unwrap_or(1);
    let (messages, settings) = request::chat(fields)?;
    let logprobs = settings.logprobs.is_some();
    let prepare =
        move |app: &App| settings.requests(app, prompt::conversation(app, &messages)?, answers);
    let mut events = app.submit(peer.client(), prepare).await?;
    let head = Head::new("chatcmpl", &app.name);
    if stream {
        let keep_alive = app.limits.keep_alive;
        let usage = Usage::default();
        let chunks = ChatChunks { app, head, answers, logprobs, include_usage, usage };
        return Ok(chunks::stream(chunks, events, answers, keep_alive));
    }

    let mut texts = vec![(String::new(), Vec::<TokenReport>::new()); answers];
    let mut ends: Vec<Option<Done>> = vec![None; answers];
    while ends.iter().any(Option::is_none) {
        let (answer, event) = events.recv().await.ok_or_else(engine_failed)?;
        match event {
            Event::Started { .. } => {}
            Event::Piece { text, tokens } => {
                texts[answer].0.push_str(&text);
                texts[answer].1.extend(tokens);
            }
            Event::Done(done) => ends[answer] = Some(done),
            Event::Failed(error) => return Err(error.into()),
        }
    }
    let mut usage = Usage::default();
    let done: Vec<Done> = ends.into_iter().flatten().collect();
    let choices =
        texts.into_iter().zip(&done).enumerate().map(|(index, ((text, tokens), done))| {
            usage.add(0, done);
            json!({
                "index": index,
                "message": { "role": "assistant", "content": text, "refusal": null },
                "logprobs": logprobs.then(|| chat_logprobs(&app.model, &tokens)),
                "finish_reason": done.finish.name(),
            })
        });
    let mut response = head.object("chat.completion", choices.collect());
    response["usage"] = usage.json();
    if let Some(done) = done.first() {
        response["timings"] = timings(done);
    }
    Ok(Json(response).into_response())
}

/// A streamed chat.
struct ChatChunks {
    app: Arc<App>,
    head: Head,
    answers: usize,
    logprobs: bool,
    include_usage: bool,
    usage: Usage,
}

impl ChatChunks {
    fn object(&self, index: usize, delta: Value, finish: Option<&str>, logprobs: Value) -> Value {
        let choice = json!({
            "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish,
        });
        self.with_usage(self.head.object("chat.completion.chunk", vec![choice]))
    }

    /// With `include_usage`, chunks before the last have none.
    fn with_usage(&self, mut chunk: Value) -> Value {
        if self.include_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }
}

impl Chunks for ChatChunks {
    fn begin(&mut self) -> Vec<Value> {
        let delta = json!({ "role": "assistant", "content": "", "refusal": null });
        (0..self.answers).map(|i| self.object(i, delta.clone(), None, Value::Null)).collect()
    }

    fn chunk(&mut self, answer: usize, event: Event) -> Result<Vec<Value>, ApiError> {
        match event {
            Event::Started { .. } => Ok(Vec::new()),
            Event::Piece { text, tokens } => {
                let logprobs = match self.logprobs {
                    true => chat_logprobs(&self.app.model, &tokens),
                    false => Value::Null,
                };
                Ok(vec![self.object(answer, json!({ "content": text }), None, logprobs)])
            }
            Event::Done(done) => {
                self.usage.add(0, &done);
                let finish = Some(done.finish.name());
                let mut chunk = self.object(answer, json!({}), finish, Value::Null);
                chunk["timings"] = timings(&done);
                Ok(vec![chunk])
            }
            Event::Failed(error) => Err(error.into()),
        }
    }

    fn end(&mut self) -> Vec<Value> {
        if !self.include_usage {
            return Vec::new();
        }
        let mut chunk = self.head.object("chat.completion.chunk", Vec::new());
        chunk["usage"] = self.usage.json();
        vec![chunk]
    }
}
