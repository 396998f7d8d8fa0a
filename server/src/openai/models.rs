//! `/v1/models`: the one model there is.

use crate::app::App;
use crate::error::ApiError;
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

pub(crate) async fn list(State(app): State<Arc<App>>) -> Json<Value> {
    Json(json!({ "object": "list", "data": [model(&app)] }))
}

/// The model by its name, which may have slashes; what is no UTF-8 is the name of none.
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    let Path(id) = id.map_err(|_| {
        let error = ApiError::new(StatusCode::NOT_FOUND, "the model's name is not UTF-8");
        ApiError { param: Some("model".to_owned()), ..error.code("model_not_found") }
    })?;
    app.check_model(Some(&id))?;
    Ok(Json(model(&app)))
}

fn model(app: &App) -> Value {
    json!({
        "id": app.name,
        "object": "model",
        "created": app.created,
        "owned_by": "trilut",
        "meta": {
            "n_vocab": app.model.config().vocab,
            "n_ctx": app.model.context(),
            "n_ctx_train": app.model.config().context,
        },
    })
}
