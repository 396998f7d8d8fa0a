//! `/v1/embeddings`: refused, since a model that writes text is no model of embeddings.

use crate::error::ApiError;
use axum::http::StatusCode;

pub(crate) async fn create() -> ApiError {
    refused()
}

/// Why there are none.
pub(crate) fn refused() -> ApiError {
    let message =
        "this model writes text and gives no embeddings: serve an embedding model for them";
    ApiError::new(StatusCode::NOT_IMPLEMENTED, message).code("no_embeddings")
}
