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
    let raw = fields.raw == Some(true);
    if raw && fields.has_system() {
        let message = "`system` is put into the model's template, which `raw` leaves out";
        return Err(ApiError::field("system", message).into());
    }
    let writer = Writer::new(app, Kind::Generate);
    if fields.prompt.as_deref().is_none_or(str::is_empty) {
        return Ok(writer.nothing(&fields));
    }
    if raw {
        let text = fields.prompt.take().unwrap_or_default();
        return writer.answer(peer, fields, move |app| Ok(prompt::encoded(app, &text, true))).await;
    }
    let messages = fields.conversation()?;
    writer.answer(peer, fields, move |app| prompt::conversation(app, &messages)).await
}

pub(crate) async fn chat(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    body: Result<JsonBody<Fields>, ApiError>,
) -> Outcome {
    let JsonBody(mut fields) = body?;
    fields.check(&app)?;
    if fields.has_system() {
        let message = "chats have no `system`: send a message whose role is system";
        return Err(ApiError::field("system", message).into());
    }
    let writer = Writer::new(app, Kind::Chat);
    if fields.messages.get_or_insert_default().is_empty() {
        return Ok(writer.nothing(&fields));
    }
    let messages = fields.conversation()?;
    writer.answer(peer, fields, move |app| prompt::conversation(app, &messages)).await
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

    /// Answers a request that has no prompt: it loads the model, which is loaded, or unloads it.
    fn nothing(&self, fields: &Fields) -> Response {
        let reason = if fields.unloads() { "unload" } else { "load" };
        Json(self.line("", Some(reason))).into_response()
    }

    /// Answers a prompt.
    async fn answer(
        self,
        peer: Peer,
        fields: Fields,
        prompt: impl FnOnce(&App) -> Result<Vec<u32>, ApiError> + Send + 'static,
    ) -> Outcome {
        let stream = fields.stream != Some(false);
        let settings = fields.settings()?;
        let prepare = move |app: &App| settings.requests(app, prompt(app)?, 1);
        let events = self.app.submit(peer.client(), prepare).await?;
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
