//! How the door answers: JSON, with a code for programs and a sentence for people where the answer is no.

use axum::Json;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use ringfence_core::Instant;
use ringfence_gateway::{NoRun, StoredRun};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub(crate) fn refuse(status: StatusCode, code: &str, why: &str) -> Response {
    (status, Json(json!({ "error": code, "message": why }))).into_response()
}

/// A body, or what is wrong with it.
pub(crate) fn body<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, Box<Response>> {
    serde_json::from_slice(bytes)
        .map_err(|error| Box::new(refuse(StatusCode::BAD_REQUEST, "malformed", &error.to_string())))
}

pub(crate) fn no_such_run() -> Response {
    refuse(StatusCode::NOT_FOUND, "unknown_run", "there is no such run")
}

pub(crate) fn failed(error: &NoRun) -> Response {
    tracing::error!(%error, "runs could not be looked up");
    refuse(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "the runs cannot be read; see the gateway's log")
}

/// A run, as people look at it. Times are milliseconds since 1970.
pub(crate) fn shown(run: &StoredRun, now: Instant) -> Value {
    let state = match run.ended {
        Some((_, ending)) => json!(ending),
        None if run.expires <= now => json!("expired"),
        None => json!("live"),
    };
    json!({
        "run": run.id, "state": state, "issuer": run.issuer, "user": run.subject, "agent": run.agent,
        "application": run.terms.application, "request": run.terms.request, "purpose": run.terms.purpose,
        "tools": run.terms.tools, "budget": { "calls": run.terms.calls_max }, "calls": run.calls,
        "started": run.started, "expires": run.expires, "used": run.used, "ended": run.ended.map(|(at, _)| at),
    })
}
