//! `/v1/completions`: plain text to be continued.

use super::chunks::{self, Chunks};
use super::request::{self, Fields};
use super::wire::{Head, Usage, text_logprobs, timings};
use crate::app::App;
use crate::body::JsonBody;
use crate::engine::{Done, Event, TokenReport};
use crate::error::{ApiError, engine_failed};
use crate::listen::Peer;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json, extract::State};
use serde_json::{Value, json};
use std::sync::Arc;

/// The kind of every object that is sent.
const OBJECT: &str = "text_completion";

pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    JsonBody(mut fields): JsonBody<Fields>,
) -> Result<Response, ApiError> {
    app.check_model(fields.model.as_deref())?;
    let (stream, include_usage) = (fields.stream == Some(true), fields.include_usage());
    let (each, echo) = (fields.n.unwrap_or(1), fields.echo == Some(true));
    let ids = fields.return_token_ids == Some(true);
    let prompts = request::prompts(&mut fields)?;
    let count = prompts.len();
    let mut settings = request::completion(fields)?;
    if each.saturating_mul(count) > app.limits.answers {
        let most = app.limits.answers;
        let message =
            format!("{count} prompts times `n` = {each}; at most {most} answers are given");
        return Err(ApiError::field("n", message));
    }
    let logprobs = settings.logprobs.is_some();
    if ids {
        settings.logprobs.get_or_insert(0);
    }
    let prepared = app.blocking(move |app| {
        let (mut requests, mut echoes) = (Vec::new(), Vec::new());
        for prompt in prompts {
            let (tokens, text) = request::prompt(app, prompt)?;
            requests.extend(settings.requests(app, tokens, each)?);
            echoes.extend(std::iter::repeat_n(if echo { text } else { String::new() }, each));
        }
        Ok((requests, echoes))
    });
    let (requests, echoes) = prepared.await?;
    let events = app.engine.submit(peer.client(), requests)?;
    let head = Head::new("cmpl", &app.name);
    let usage = Usage::default();
    let writer = Writer { app, head, each, echoes, logprobs, ids, include_usage, usage };
    if stream {
        let (answers, keep_alive) = (writer.echoes.len(), writer.app.limits.keep_alive);
        return Ok(chunks::stream(writer, events, answers, keep_alive));
    }
    writer.whole(events).await
}

/// Writes the answers of a call.
struct Writer {
    app: Arc<App>,
    head: Head,
    /// Answers to each prompt.
    each: usize,
    /// The prompt of each answer, if it is to be repeated.
    echoes: Vec<String>,
    logprobs: bool,
    /// Whether answers name their tokens.
    ids: bool,
    include_usage: bool,
    usage: Usage,
}

impl Writer {
    /// The response with all answers at once.
    async fn whole(mut self, mut events: crate::engine::Events) -> Result<Response, ApiError> {
        let (count, mut texts) = (self.echoes.len(), self.echoes.clone());
        let mut tokens = vec![Vec::new(); count];
        let mut ends: Vec<Option<Done>> = vec![None; count];
        while ends.iter().any(Option::is_none) {
            let (answer, event) = events.recv().await.ok_or_else(engine_failed)?;
            match event {
                Event::Started { .. } => {}
                Event::Piece { text, tokens: more } => {
                    texts[answer].push_str(&text);
                    tokens[answer].extend(more);
                }
                Event::Done(done) => {
                    self.usage.add(answer / self.each, &done);
                    ends[answer] = Some(done);
                }
                Event::Failed(error) => return Err(error.into()),
            }
        }
        let done: Vec<Done> = ends.into_iter().flatten().collect();
        let mut choices = Vec::with_capacity(count);
        for (index, (text, done)) in texts.into_iter().zip(&done).enumerate() {
            choices.push(self.choice(index, &text, Some(done.finish.name()), &tokens[index]));
        }
        let mut response = self.head.object(OBJECT, choices);
        response["usage"] = self.usage.json();
        if let Some(done) = done.first() {
            response["timings"] = timings(done);
        }
        Ok(Json(response).into_response())
    }

    fn choice(
        &self,
        index: usize,
        text: &str,
        finish: Option<&str>,
        tokens: &[TokenReport],
    ) -> Value {
        let logprobs = self.logprobs.then(|| {
            let begin = self.echoes[index].chars().count();
            text_logprobs(&self.app.model, tokens, begin)
        });
        let mut choice = json!({
            "index": index, "text": text, "logprobs": logprobs, "finish_reason": finish,
        });
        if self.ids {
            choice["token_ids"] = tokens.iter().map(|token| token.id).collect();
        }
        choice
    }

    fn chunk(&self, choice: Value) -> Value {
        let mut chunk = self.head.object(OBJECT, vec![choice]);
        if self.include_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    /// A chunk without tokens.
    fn plain(&self, index: usize, text: &str, finish: Option<&str>) -> Value {
        self.chunk(json!({
            "index": index, "text": text, "logprobs": null, "finish_reason": finish,
        }))
    }
}

impl Chunks for Writer {
    fn begin(&mut self) -> Vec<Value> {
        let echoes = self.echoes.iter().enumerate().filter(|(_, echo)| !echo.is_empty());
        echoes.map(|(index, echo)| self.plain(index, echo, None)).collect()
    }

    fn chunk(&mut self, answer: usize, event: Event) -> Result<Vec<Value>, ApiError> {
        match event {
            Event::Started { .. } => Ok(Vec::new()),
            Event::Piece { text, tokens } => {
                let choice = self.choice(answer, &text, None, &tokens);
                Ok(vec![Writer::chunk(self, choice)])
            }
            Event::Done(done) => {
                self.usage.add(answer / self.each, &done);
                let mut chunk = self.plain(answer, "", Some(done.finish.name()));
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
        let mut chunk = self.head.object(OBJECT, Vec::new());
        chunk["usage"] = self.usage.json();
        vec![chunk]
    }
}
