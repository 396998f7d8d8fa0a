//! Server-sent events: the stream behind `stream: true`.

use crate::engine::{Event, Events};
use crate::error::{ApiError, engine_failed};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::Value;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

/// Writes the events of a call's answers as chunks.
pub(crate) trait Chunks: Send + 'static {
    /// What is said before anything has happened.
    fn begin(&mut self) -> Vec<Value>;

    /// The chunks for an event of an answer.
    fn chunk(&mut self, answer: usize, event: Event) -> Result<Vec<Value>, ApiError>;

    /// What is said after all answers have ended.
    fn end(&mut self) -> Vec<Value>;
}

/// What a stream has still to do.
struct Progress<C> {
    chunks: C,
    events: Events,
    /// Answers that have not ended.
    open: usize,
    ready: VecDeque<sse::Event>,
    over: bool,
}

/// The response that streams `answers` answers.
pub(crate) fn stream<C: Chunks>(
    mut chunks: C,
    events: Events,
    answers: usize,
    keep_alive: Duration,
) -> Response {
    let ready = chunks.begin().iter().map(data).collect();
    let progress = Progress { chunks, events, open: answers, ready, over: false };
    let stream = stream::unfold(progress, |mut progress| async move {
        loop {
            if let Some(event) = progress.ready.pop_front() {
                return Some((Ok::<_, Infallible>(event), progress));
            }
            if progress.over {
                return None;
            }
            progress.next().await;
        }
    });
    let alive = KeepAlive::new().interval(keep_alive).text("keep-alive");
    Sse::new(stream).keep_alive(alive).into_response()
}

impl<C: Chunks> Progress<C> {
    /// Waits for the next event and makes it ready.
    async fn next(&mut self) {
        let outcome = match self.events.recv().await {
            None => Err(engine_failed()),
            Some((answer, event)) => {
                self.open -= usize::from(matches!(event, Event::Done(_)));
                self.chunks.chunk(answer, event)
            }
        };
        match outcome {
            Ok(values) => self.ready.extend(values.iter().map(data)),
            Err(error) => {
                self.ready.push_back(data(&error.openai()));
                self.finish();
            }
        }
        if self.open == 0 && !self.over {
            let end = self.chunks.end();
            self.ready.extend(end.iter().map(data));
            self.finish();
        }
    }

    fn finish(&mut self) {
        self.ready.push_back(sse::Event::default().data("[DONE]"));
        self.over = true;
        // Nothing that is still at work is wanted.
        self.events.close();
    }
}

/// An event with a value. JSON has no line ends of its own.
fn data(value: &Value) -> sse::Event {
    sse::Event::default().data(value.to_string())
}
