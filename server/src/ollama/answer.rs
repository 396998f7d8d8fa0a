//! `/api/generate` and `/api/chat`.

use super::request::Fields;
use crate::app::App;
use crate::body::JsonBody;
use crate::engine::{Done, Event, Events};
use crate::error::{ApiError, OllamaError, engine_failed};
use crate::listen::Peer;
use crate::prompt;
use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json, extract::State};
use futures_util::stream;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

type Outcome = Result<Response, OllamaError>;

/// Where in a line the text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `response`
    Generate,
    /// `message.content`
    Chat,
}

pub(crate) async fn generate(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    body: Result<JsonBody<Fields>, ApiError>,
) -> Outcome {
    let JsonBody(mut fields) = body?;
    fields.check(&app)?;
    let empty = fields.prompt.as_deref().is_none_or(str::is_empty);
    if fields.raw != Some(true) {
        return answer(app, peer, Kind::Generate, fields, empty).await;
    }
    let text = fields.prompt.take().unwrap_or_default();
    let stream = fields.stream != Some(false);
    let settings = fields.settings()?;
    let writer = Writer::new(Arc::clone(&app), Kind::Generate);
    let prepare = move |app: &App| settings.requests(app, prompt::encoded(app, &text, true), 1);
    let events = app.submit(peer.client(), prepare).await?;
    writer.respond(events, stream).await
}

pub(crate) async fn chat(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    body: Result<JsonBody<Fields>, ApiError>,
) -> Outcome {
    let JsonBody(mut fields) = body?;
    fields.check(&app)?;
    let empty = fields.messages.get_or_insert_default().is_empty();
    answer(app, peer, Kind::Chat, fields, empty).await
}

/// Answers in the model's template. An empty request loads the model, which is loaded.
async fn answer(app: Arc<App>, peer: Peer, kind: Kind, mut fields: Fields, empty: bool) -> Outcome {
    let writer = Writer::new(Arc::clone(&app), kind);
    if empty {
        return Ok(Json(writer.line("", Some("load"))).into_response());
    }
    let stream = fields.stream != Some(false);
    let conversation = fields.conversation()?;
    let settings = fields.settings()?;
    let prepare =
        move |app: &App| settings.requests(app, prompt::conversation(app, &conversation)?, 1);
    let events = app.submit(peer.client(), prepare).await?;
    writer.respond(events, stream).await
}

/// Writes one answer.
struct Writer {
    app: Arc<App>,
    kind: Kind,
    arrived: Instant,
}

impl Writer {
    fn new(app: Arc<App>, kind: Kind) -> Self {
        Self { app, kind, arrived: Instant::now() }
    }

    async fn respond(self, events: Events, stream: bool) -> Outcome {
        if stream { Ok(self.lines(events)) } else { self.whole(events).await }
    }

    /// A line with a text.
    fn line(&self, text: &str, reason: Option<&str>) -> Value {
        let created = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
        let mut line = json!({ "model": self.app.name, "created_at": created });
        match self.kind {
            Kind::Generate => line["response"] = text.into(),
            Kind::Chat => line["message"] = json!({ "role": "assistant", "content": text }),
        }
        line["done"] = reason.is_some().into();
        if let Some(reason) = reason {
            line["done_reason"] = reason.into();
        }
        line
    }

    /// The last line, with the figures, in nanoseconds.
    fn last(&self, text: &str, done: &Done) -> Value {
        let nanoseconds = |time: Duration| time.as_nanos() as u64;
        let mut line = self.line(text, Some(done.finish.name()));
        line["total_duration"] = nanoseconds(self.arrived.elapsed()).into();
        // The model was there already.
        line["load_duration"] = 0.into();
        line["prompt_eval_count"] = done.prompt_tokens.into();
        line["prompt_eval_duration"] = nanoseconds(done.prompt_time).into();
        line["eval_count"] = done.tokens.into();
        line["eval_duration"] = nanoseconds(done.decode_time).into();
        line
    }

    async fn whole(self, mut events: Events) -> Outcome {
        let mut answer = String::new();
        loop {
            match events.recv().await.ok_or_else(engine_failed)?.1 {
                Event::Started { .. } => {}
                Event::Piece { text, .. } => answer.push_str(&text),
                Event::Done(done) => return Ok(Json(self.last(&answer, &done)).into_response()),
                Event::Failed(error) => return Err(ApiError::from(error).into()),
            }
        }
    }

    fn lines(self, events: Events) -> Response {
        let stream = stream::unfold(Some((self, events)), |progress| async move {
            let (writer, mut events) = progress?;
            loop {
                let (value, over) = match events.recv().await.map(|(_, event)| event) {
                    Some(Event::Started { .. }) => continue,
                    Some(Event::Piece { text, .. }) => (writer.line(&text, None), false),
                    Some(Event::Done(done)) => (writer.last("", &done), true),
                    Some(Event::Failed(error)) => (ApiError::from(error).ollama(), true),
                    None => (engine_failed().ollama(), true),
                };
                let next = (!over).then_some((writer, events));
                return Some((Ok::<_, Infallible>(format!("{value}\n")), next));
            }
        });
        let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
        (kind, Body::from_stream(stream)).into_response()
    }
}
