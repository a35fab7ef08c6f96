//! A client: speaks either revision to one server, and lets a caller shape the raw request where it tests a server.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use serde_json::{Map, Value, json};

use crate::header::encode;
use crate::json::{Limits, read};
use crate::{Revision, ToolCall};

/// A client of one server, with one token.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    bearer: Option<String>,
    revision: Revision,
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The `WWW-Authenticate` header.
    pub www_authenticate: Option<String>,
    /// The JSON-RPC message; `Null` where the body holds none.
    pub body: Value,
}

impl Answer {
    /// The result of a request that was answered with one.
    #[must_use]
    pub fn result(&self) -> Option<&Value> {
        self.body.get("result")
    }

    /// The code of a JSON-RPC error.
    #[must_use]
    pub fn error_code(&self) -> Option<i64> {
        self.body.pointer("/error/code")?.as_i64()
    }
}

/// No answer came.
#[derive(Debug, thiserror::Error)]
#[error("the server did not answer: {0}")]
pub struct Unanswered(String);

impl Client {
    /// A client that presents this token, if any.
    pub fn new(
        url: impl Into<String>,
        bearer: Option<String>,
        revision: Revision,
    ) -> Result<Self, Unanswered> {
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_mins(1)).build();
        Ok(Self {
            http: http.map_err(|error| Unanswered(error.to_string()))?,
            url: url.into(),
            bearer,
            revision,
        })
    }

    /// All tools, page by page.
    pub async fn tools(&self) -> Result<Vec<Value>, Unanswered> {
        let mut tools = Vec::new();
        let mut cursor: Option<Value> = None;
        loop {
            let params = cursor.iter().map(|cursor| ("cursor".to_owned(), cursor.clone())).collect();
            let answer = self.request("tools/list", params).await?;
            let result = answer.result().ok_or_else(|| Unanswered(answer.body.to_string()))?;
            tools.extend(result.get("tools").and_then(Value::as_array).into_iter().flatten().cloned());
            cursor = result.get("nextCursor").cloned();
            if cursor.is_none() {
                return Ok(tools);
            }
        }
    }

    /// Calls a tool.
    pub async fn call(&self, call: ToolCall) -> Result<Answer, Unanswered> {
        let params =
            [("name".to_owned(), call.name.into()), ("arguments".to_owned(), Value::Object(call.arguments))];
        self.request("tools/call", params.into_iter().collect()).await
    }

    /// Sends one request with the headers of this client's revision.
    pub async fn request(&self, method: &str, mut params: Map<String, Value>) -> Result<Answer, Unanswered> {
        let name = params.get("name").and_then(Value::as_str).map(str::to_owned);
        if self.revision == Revision::V2026 {
            params.insert(
                "_meta".into(),
                json!({
                    "io.modelcontextprotocol/protocolVersion": self.revision.as_str(),
                    "io.modelcontextprotocol/clientCapabilities": {},
                }),
            );
        }
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        self.send(self.headers(method, name.as_deref()), body.to_string()).await
    }

    /// The headers that this client's revision wants for a request.
    #[must_use]
    pub fn headers(&self, method: &str, name: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut put = |key: &'static str, value: &str| {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(HeaderName::from_static(key), value);
            }
        };
        put("content-type", "application/json");
        put("accept", "application/json, text/event-stream");
        put("mcp-protocol-version", self.revision.as_str());
        if self.revision == Revision::V2026 {
            put("mcp-method", &encode(method));
            if let (Some(name), "tools/call") = (name, method) {
                put("mcp-name", &encode(name));
            }
        }
        headers
    }

    /// Sends exactly these headers, with the token, and exactly this body.
    pub async fn send(
        &self,
        headers: HeaderMap,
        body: impl Into<reqwest::Body>,
    ) -> Result<Answer, Unanswered> {
        let mut request = self.http.post(&self.url).headers(headers).body(body);
        if let Some(bearer) = &self.bearer {
            request = request.bearer_auth(bearer);
        }
        let response = request.send().await.map_err(|error| Unanswered(error.to_string()))?;
        let status: StatusCode = response.status();
        let challenge =
            response.headers().get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let bytes = response.bytes().await.map_err(|error| Unanswered(error.to_string()))?;
        let limits = Limits { bytes_max: 64 << 20, ..Limits::default() };
        let body = read(&bytes, &limits).unwrap_or_default();
        Ok(Answer { status: status.as_u16(), www_authenticate: challenge, body })
    }
}
