//! Errors as clients see them.

use crate::engine::{EngineError, Refusal};
use crate::grammar::GrammarError;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// An error with its status; as a response it has OpenAI's shape.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    /// The field that is wrong.
    pub(crate) param: Option<String>,
    /// What programs look at.
    pub(crate) code: Option<&'static str>,
    pub(crate) retry_after: Option<u64>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code: None, retry_after: None }
    }

    /// A request that is wrong.
    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// A request with a field that is wrong.
    pub(crate) fn field(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..Self::bad(message) }
    }

    /// A server that has too much to do for some seconds.
    pub(crate) fn busy(message: impl Into<String>, seconds: u64) -> Self {
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, message).code("rate_limit_exceeded");
        Self { retry_after: Some(seconds), ..error }
    }

    /// A failure of the server's own.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// The same, with a word for programs.
    #[must_use]
    pub(crate) fn code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    fn kind(&self) -> &'static str {
        match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::NOT_FOUND => "not_found_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            StatusCode::SERVICE_UNAVAILABLE => "service_unavailable",
            StatusCode::NOT_IMPLEMENTED => "not_implemented",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// The error as OpenAI's API writes it.
    pub(crate) fn openai(&self) -> Value {
        json!({ "error": {
            "message": self.message, "type": self.kind(), "param": self.param, "code": self.code,
        }})
    }

    /// The error as Ollama's API writes it.
    pub(crate) fn ollama(&self) -> Value {
        json!({ "error": self.message })
    }

    /// The error as a response of a path: below `/api/` it is Ollama's.
    pub(crate) fn response_at(&self, path: &str) -> Response {
        self.response(if path.starts_with("/api/") { self.ollama() } else { self.openai() })
    }

    /// A response with this error as `body`.
    fn response(&self, body: Value) -> Response {
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.response(self.openai())
    }
}

/// The same error as a response in Ollama's shape.
#[derive(Debug, Clone)]
pub(crate) struct OllamaError(pub(crate) ApiError);

impl From<ApiError> for OllamaError {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for OllamaError {
    fn into_response(self) -> Response {
        self.0.response(self.0.ollama())
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Full { retry_after, .. } => Self::busy(refusal.to_string(), retry_after),
            Refusal::TooMany { .. } => Self::field("n", format!("`n` is too large: {refusal}")),
            Refusal::Stopping => Self::new(StatusCode::SERVICE_UNAVAILABLE, refusal.to_string()),
            Refusal::Failed => engine_failed(),
        }
    }
}

impl From<GrammarError> for ApiError {
    fn from(error: GrammarError) -> Self {
        match error {
            GrammarError::Busy => Self::busy(error.to_string(), 10),
            GrammarError::Schema(why) => {
                Self::bad(format!("the JSON schema cannot be used: {why}")).code("invalid_schema")
            }
        }
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Stopping => Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
            // The schema asks for more than the limits allow, which only shows on the way.
            EngineError::Grammar(error) => error.into(),
            error => Self::internal(error.to_string()),
        }
    }
}

/// What is said when the engine is gone without a word.
pub(crate) fn engine_failed() -> ApiError {
    ApiError::internal("the engine has failed; the server must be started again")
}
