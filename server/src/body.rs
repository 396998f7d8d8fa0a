//! Bodies of requests: JSON, within the limits of size and time.

use crate::app::App;
use crate::error::ApiError;
use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use std::sync::Arc;

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
        let body: Limited<Body> = Limited::new(request.into_body(), limit);
        let bytes = match tokio::time::timeout(app.limits.body_time, body.collect()).await {
            Err(_) => {
                let message = "the body did not come in time";
                return Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, message));
            }
            Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large()),
            Ok(Err(error)) => {
                return Err(ApiError::bad(format!("the body cannot be read: {error}")));
            }
            Ok(Ok(body)) => body.to_bytes(),
        };
        if bytes.len() <= LARGE {
            return parse(&bytes).map(Self);
        }
        app.blocking(move |_| parse(&bytes)).await.map(Self)
    }
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

/// A value from JSON; errors name the field.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        match inner.classify() {
            serde_json::error::Category::Data if path != "." => {
                ApiError::field(path.clone(), format!("`{path}` is wrong: {inner}"))
            }
            serde_json::error::Category::Data => {
                ApiError::bad(format!("the request is wrong: {inner}"))
            }
            _ => ApiError::bad(format!("the body is not JSON: {inner}")),
        }
    })?;
    reader.end().map_err(|error| ApiError::bad(format!("the body is not JSON: {error}")))?;
    Ok(value)
}
