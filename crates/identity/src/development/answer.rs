//! What the endpoints that speak JSON answer: never to be stored, and a refusal as RFC 6749 §5.2 has it.

use std::borrow::Cow;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// A refusal, with what to do instead.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Refused {
    pub(super) code: &'static str,
    pub(super) why: Cow<'static, str>,
}

impl Refused {
    pub(super) fn new(code: &'static str, why: impl Into<Cow<'static, str>>) -> Self {
        Self { code, why: why.into() }
    }

    /// This machine has no randomness, or could not sign.
    pub(super) fn server() -> Self {
        Self::new("server_error", "the issuer could not make what was asked for; try again later")
    }

    /// Something is full.
    pub(super) fn busy() -> Self {
        Self::new("temporarily_unavailable", "too much is remembered already; try again later")
    }

    /// What it says, in the letters that such a text may have (RFC 6749 §5.2).
    pub(super) fn text(&self) -> String {
        let legal = |char: &char| matches!(char, ' '..='~') && !matches!(char, '"' | '\\');
        self.why.chars().filter(legal).take(300).collect()
    }

    fn status(&self) -> StatusCode {
        match self.code {
            "invalid_client" => StatusCode::UNAUTHORIZED,
            "temporarily_unavailable" => StatusCode::SERVICE_UNAVAILABLE,
            "server_error" => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut response = unstored(status, &json!({ "error": self.code, "error_description": self.text() }));
        if status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Basic realm=\"ringfence\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

/// JSON that nobody keeps: there are tokens in it.
pub(super) fn unstored(status: StatusCode, body: &Value) -> Response {
    let mut response = (status, Json(body)).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
