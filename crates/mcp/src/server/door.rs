//! From an HTTP request to an answer: where it comes from, who sends it, then what it says, in this order.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::{Server, agreement, calls, methods, resources};
use crate::message::{Message, RpcError};
use crate::{Challenge, Revision, Service, json};

/// An answer to a request that passed the checks of the door.
pub(super) enum Answer {
    Result(Map<String, Value>),
    Error(RpcError),
    Challenge(Challenge),
}

pub(super) async fn answer<S: Service>(server: &Arc<Server<S>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let headers = parts.headers;
    if let Err(refused) = check_origin(server, &headers) {
        return error(&refused, &Value::Null);
    }
    let caller = match server.service.authenticate(&headers).await {
        Ok(caller) => caller,
        Err(refused) => return challenge(refused),
    };
    match read(server, &headers, body).await {
        Ok(Message::Request { id, method, params }) => {
            let revision = match agreement::revision(&headers, &method, &params) {
                Ok(revision) => revision,
                Err(refused) => return error(&refused, &id),
            };
            match method.as_str() {
                "tools/call" => {
                    let reply = Reply { revision, id };
                    calls::answer(server, caller, params, accepts_events(&headers), reply).await
                }
                "resources/read" => resources::read(server, &caller, params, Reply { revision, id }).await,
                _ => {
                    let answer = methods::answer(server, caller, revision, &method, params).await;
                    Reply { revision, id }.with(answer)
                }
            }
        }
        Ok(Message::Notification { method, params }) => {
            match agreement::notification(&headers, &method, &params) {
                Ok(revision) => {
                    if method == "notifications/cancelled" && revision == Revision::V2025 {
                        calls::cancel(server, &caller, &params);
                    }
                    StatusCode::ACCEPTED.into_response()
                }
                Err(refused) => error(&refused, &Value::Null),
            }
        }
        Ok(Message::Response) => StatusCode::ACCEPTED.into_response(),
        Err(refused) => error(&refused, &Value::Null),
    }
}

fn check_origin<S>(server: &Server<S>, headers: &HeaderMap) -> Result<(), RpcError> {
    let forbid = |what| Err(RpcError::transport(StatusCode::FORBIDDEN, what));
    match only(headers, &header::HOST) {
        Ok(Some(host))
            if server.settings.allowed_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host)) => {}
        _ => return forbid("this `Host` is not served here"),
    }
    match only(headers, &header::ORIGIN) {
        Ok(None) => Ok(()),
        Ok(Some(origin)) if server.settings.allowed_origins.iter().any(|allowed| allowed == origin) => Ok(()),
        _ => forbid("this `Origin` is not served here"),
    }
}

/// The one value of a header. Two of them are an error: two readers could each take another one.
pub(super) fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, RpcError> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(RpcError::header_mismatch(format!("header `{name}` stands twice")));
    }
    let text = first.map(HeaderValue::to_str).transpose();
    text.map_err(|_| RpcError::header_mismatch(format!("header `{name}` is not plain ASCII")))
}

async fn read<S>(server: &Server<S>, headers: &HeaderMap, body: Body) -> Result<Message, RpcError> {
    check_media_types(headers)?;
    let limits = &server.settings.limits;
    let bytes = match tokio::time::timeout(server.settings.body_timeout, to_bytes(body, limits.bytes_max))
        .await
    {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => {
            let message = format!("the body broke off or is longer than {} bytes", limits.bytes_max);
            return Err(RpcError::transport(StatusCode::PAYLOAD_TOO_LARGE, message));
        }
        Err(_) => {
            return Err(RpcError::transport(StatusCode::REQUEST_TIMEOUT, "the body took too long to arrive"));
        }
    };
    let parsed = json::read(&bytes, limits)
        .map_err(|error| RpcError::parse(StatusCode::BAD_REQUEST, error.to_string()))?;
    Message::read(parsed)
}

fn check_media_types(headers: &HeaderMap) -> Result<(), RpcError> {
    let sent = only(headers, &header::CONTENT_TYPE)?.unwrap_or_default();
    let essence = sent.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        let message = "send `Content-Type: application/json`";
        return Err(RpcError::transport(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    if sent.contains("charset=") && !sent.to_ascii_lowercase().contains("charset=utf-8") {
        return Err(RpcError::transport(StatusCode::UNSUPPORTED_MEDIA_TYPE, "JSON is UTF-8"));
    }
    let wanted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let accepts: Vec<&str> = wanted.flat_map(|list| list.split(',')).collect();
    let takes_json = |range: &&str| {
        let range = range.split(';').next().unwrap_or_default().trim();
        ["application/json", "application/*", "*/*"].iter().any(|known| range.eq_ignore_ascii_case(known))
    };
    if accepts.is_empty() || accepts.iter().any(takes_json) {
        return Ok(());
    }
    Err(RpcError::transport(StatusCode::NOT_ACCEPTABLE, "send `Accept: application/json, text/event-stream`"))
}

/// Whether a client says that it reads an answer as a stream of events.
fn accepts_events(headers: &HeaderMap) -> bool {
    let wanted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut ranges = wanted.flat_map(|list| list.split(','));
    ranges.any(|range| {
        let range = range.split(';').next().unwrap_or_default().trim();
        range.eq_ignore_ascii_case("text/event-stream")
    })
}

/// What an answer has to fit: the revision that was asked in, and the id.
pub(super) struct Reply {
    pub(super) revision: Revision,
    pub(super) id: Value,
}

impl Reply {
    pub(super) fn with(&self, answer: Answer) -> Response {
        match answer {
            Answer::Result(result) => Json(self.message(result)).into_response(),
            Answer::Error(refused) => error(&refused, &self.id),
            Answer::Challenge(refused) => challenge(refused),
        }
    }

    /// The message of a result.
    pub(super) fn message(&self, mut result: Map<String, Value>) -> Value {
        if self.revision == Revision::V2026 {
            result.entry("resultType").or_insert_with(|| "complete".into());
        }
        json!({ "jsonrpc": "2.0", "id": self.id, "result": result })
    }
}

pub(super) fn error(error: &RpcError, id: &Value) -> Response {
    (error.status, Json(error.to_json(id))).into_response()
}

pub(super) fn challenge(challenge: Challenge) -> Response {
    let status = StatusCode::from_u16(challenge.status).unwrap_or(StatusCode::UNAUTHORIZED);
    let body = Json(RpcError::transport(status, challenge.message).to_json(&Value::Null));
    let mut response = (status, body).into_response();
    if let Some(value) = challenge.www_authenticate.and_then(|text| HeaderValue::try_from(text).ok()) {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
    }
    if let Some(seconds) = challenge.retry_after_seconds {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}
