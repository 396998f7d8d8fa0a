//! Bodies of requests: JSON, within the limits of size and time.

use crate::app::App;
use crate::error::ApiError;
use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use tokio::sync::{Semaphore, SemaphorePermit};

/// A JSON body. Its content type does not matter: `curl -d` sends another one.
pub(crate) struct JsonBody<T>(pub(crate) T);

/// Bytes of a body beyond which it is parsed where it keeps nobody waiting.
const LARGE: usize = 16 << 10;

impl<T: DeserializeOwned + Send + 'static> FromRequest<Arc<App>> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let limit = app.limits.body;
        let too_large = || {
            let message = format!("the body is larger than {limit} bytes");
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
        };
        let length = request.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > limit as u64) {
            // A client that is still sending would not see the answer.
            let _ = tokio::time::timeout(app.limits.body_time, drain(request.into_body())).await;
            return Err(too_large());
        }
        let mut body = request.into_body();
        // Held until the request is parsed.
        let mut turn = None;
        let reading = read(&mut body, limit, &app.large_bodies, &mut turn);
        let bytes = match tokio::time::timeout(app.limits.body_time, reading).await {
            Err(_) => {
                let message = "the body did not come in time";
                return Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, message));
            }
            Ok(Err(error)) => {
                return Err(ApiError::bad(format!("the body cannot be read: {error}")));
            }
            Ok(Ok(None)) => {
                let _ = tokio::time::timeout(app.limits.body_time, drain(body)).await;
                return Err(too_large());
            }
            Ok(Ok(Some(bytes))) => bytes,
        };
        if bytes.len() <= LARGE {
            return parse(&bytes).map(Self);
        }
        app.blocking(move |_| parse(&bytes)).await.map(Self)
    }
}

/// All of a body; `None` when it is larger than `limit`, and only some of it was read. One that is large waits for its
/// turn among those.
async fn read<'a>(
    body: &mut Body,
    limit: usize,
    large: &'a Semaphore,
    turn: &mut Option<SemaphorePermit<'a>>,
) -> Result<Option<Vec<u8>>, axum::Error> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        // Trailers say nothing here.
        let Ok(data) = frame?.into_data() else { continue };
        if bytes.len() + data.len() > limit {
            return Ok(None);
        }
        if bytes.len() + data.len() > LARGE && turn.is_none() {
            // Nobody closes it.
            *turn = large.acquire().await.ok();
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Some(bytes))
}

/// The most bytes that are read only to be thrown away.
const MOST_DRAINED: usize = 64 << 20;

/// Reads a body and keeps nothing of it.
async fn drain(mut body: Body) {
    let mut drained = 0;
    while let Some(Ok(frame)) = body.frame().await {
        drained += frame.data_ref().map_or(0, |data| data.len());
        if drained > MOST_DRAINED {
            return;
        }
    }
}

/// What the JSON library calls things, and what people do.
const WORDS: &[(&str, &str)] = &[
    ("expected usize", "expected a whole number, 0 or more"),
    ("expected u64", "expected a whole number, 0 or more"),
    ("expected u32", "expected a whole number, 0 or more"),
    ("expected i64", "expected a whole number"),
    ("expected i32", "expected a whole number"),
    ("expected f32", "expected a number"),
    ("expected a sequence", "expected a list"),
    ("expected a map", "expected an object"),
    ("expected a boolean", "expected true or false"),
    ("invalid type: sequence", "invalid type: list"),
    ("invalid type: map", "invalid type: object"),
];

/// An error of the JSON library in words for a person.
fn in_words(error: &serde_json::Error) -> String {
    let mut text = error.to_string();
    // The name of a type of ours says nothing to a client.
    if let Some(at) = text.find("expected struct ") {
        let end = text[at..].find(" at line").map_or(text.len(), |end| at + end);
        text.replace_range(at..end, "expected an object");
    }
    WORDS.iter().fold(text, |text, (word, plain)| text.replace(word, plain))
}

/// A value from JSON; errors name the field.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    // A list would be taken for the fields in their order.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err(ApiError::bad("the request is wrong: it is a list, not an object"));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        let why = in_words(&inner);
        match inner.classify() {
            serde_json::error::Category::Data if path != "." => {
                ApiError::field(path.clone(), format!("`{path}` is wrong: {why}"))
            }
            serde_json::error::Category::Data => {
                ApiError::bad(format!("the request is wrong: {why}"))
            }
            _ => ApiError::bad(format!("the body is not JSON: {why}")),
        }
    })?;
    reader.end().map_err(|error| ApiError::bad(format!("the body is not JSON: {error}")))?;
    Ok(value)
}
