//! One JSON-RPC message as it came in (JSON-RPC 2.0 §4), and the errors that answer one.

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use crate::{OpenUrl, Revision};

/// A message from a client.
#[derive(Debug)]
pub(crate) enum Message {
    Request {
        id: Value,
        method: String,
        params: Map<String, Value>,
    },
    Notification {
        method: String,
        params: Map<String, Value>,
    },
    /// An answer to a question that was never asked here.
    Response,
}

impl Message {
    /// Reads what was parsed. A batch is refused: neither revision has one.
    pub(crate) fn read(parsed: Value) -> Result<Self, RpcError> {
        let mut object = match parsed {
            Value::Object(object) => object,
            Value::Array(_) => {
                return Err(RpcError::invalid_request(
                    "batches are not part of this protocol; send one message",
                ));
            }
            _ => return Err(RpcError::invalid_request("a message is a JSON object")),
        };
        if object.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
            return Err(RpcError::invalid_request("`jsonrpc` must be \"2.0\""));
        }
        let Some(method) = object.remove("method") else {
            let is_answer = object.contains_key("result") || object.contains_key("error");
            return if is_answer {
                Ok(Self::Response)
            } else {
                Err(RpcError::invalid_request("`method` is missing"))
            };
        };
        let Value::String(method) = method else {
            return Err(RpcError::invalid_request("`method` must be a string"));
        };
        let params = match object.remove("params") {
            None => Map::new(),
            Some(Value::Object(params)) => params,
            Some(_) => return Err(RpcError::invalid_request("`params` must be an object")),
        };
        match object.remove("id") {
            None => Ok(Self::Notification { method, params }),
            Some(id) if is_id(&id) => Ok(Self::Request { id, method, params }),
            Some(_) => Err(RpcError::invalid_request("`id` must be a string or an integer")),
        }
    }
}

/// What may name a request or stand for its progress: a string or an integer.
pub(crate) fn is_id(value: &Value) -> bool {
    value.is_string() || value.is_i64() || value.is_u64()
}

/// An error answer, with the HTTP status that carries it.
#[derive(Debug)]
pub(crate) struct RpcError {
    pub(crate) status: StatusCode,
    code: i32,
    message: String,
    data: Option<Value>,
}

impl RpcError {
    fn new(status: StatusCode, code: i32, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), data: None }
    }

    pub(crate) fn parse(status: StatusCode, message: impl Into<String>) -> Self {
        Self::new(status, -32700, message)
    }

    pub(crate) fn invalid_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, -32600, message)
    }

    /// A request that the HTTP side of the wire refuses.
    pub(crate) fn transport(status: StatusCode, message: impl Into<String>) -> Self {
        Self::new(status, -32600, message)
    }

    pub(crate) fn invalid_params(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, -32602, message)
    }

    pub(crate) fn unknown_method(method: &str, status: StatusCode) -> Self {
        let shown: String = method.chars().take(64).collect();
        Self::new(status, -32601, format!("there is no method `{shown}`"))
    }

    /// There is no such resource; each revision has a code of its own for that (2026-07-28, changelog).
    pub(crate) fn unknown_resource(revision: Revision) -> Self {
        let message = "there is no such resource; `resources/list` names those that there are";
        match revision {
            Revision::V2025 => Self::new(StatusCode::OK, -32002, message),
            Revision::V2026 => Self::invalid_params(message),
        }
    }

    /// The user has to open a page first (2025-11-25, elicitation). The id tells two questions apart, and a page is its own.
    pub(crate) fn open_first(open: &OpenUrl) -> Self {
        let OpenUrl { url, message } = open;
        let question = json!({ "mode": "url", "elicitationId": url, "url": url, "message": message });
        let error = Self::new(StatusCode::OK, -32042, message.as_str());
        Self { data: Some(json!({ "elicitations": [question] })), ..error }
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::OK, -32603, message)
    }

    pub(crate) fn header_mismatch(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, -32020, message)
    }

    pub(crate) fn unsupported_version(requested: &str) -> Self {
        let requested: String = requested.chars().take(64).collect();
        let supported = Revision::ALL.map(Revision::as_str);
        let data = json!({ "supported": supported, "requested": requested });
        let error = Self::new(StatusCode::BAD_REQUEST, -32022, "unsupported protocol version");
        Self { data: Some(data), ..error }
    }

    /// The answer to the request with this id; `null` where none could be read.
    pub(crate) fn to_json(&self, id: &Value) -> Value {
        let mut error = json!({ "code": self.code, "message": self.message });
        if let (Some(data), Some(fields)) = (&self.data, error.as_object_mut()) {
            fields.insert("data".into(), data.clone());
        }
        json!({ "jsonrpc": "2.0", "id": id, "error": error })
    }
}
