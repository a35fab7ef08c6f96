//! A client: speaks either revision to one server, and lets a caller shape the raw request where it tests a server.

use std::time::Duration;

use axum::body::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode};
use serde_json::{Map, Value, json};

use crate::header::encode;
use crate::json::{Limits, read};
use crate::sse;
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

/// The longest answer that is read, in bytes.
const ANSWER_MAX: usize = 64 << 20;

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

    /// Calls a tool and hears of its progress: `notified` is given each notification as it comes in.
    pub async fn call_and_hear(
        &self,
        call: ToolCall,
        notified: impl FnMut(Value),
    ) -> Result<Answer, Unanswered> {
        let params = json!({
            "name": call.name, "arguments": call.arguments, "_meta": { "progressToken": "the call" },
        });
        let Value::Object(params) = params else { return Err(Unanswered("no parameters".into())) };
        let (headers, body) = self.prepare("tools/call", params);
        self.exchange(headers, body, notified).await
    }

    /// Sends one request with the headers of this client's revision.
    pub async fn request(&self, method: &str, params: Map<String, Value>) -> Result<Answer, Unanswered> {
        let (headers, body) = self.prepare(method, params);
        self.send(headers, body).await
    }

    fn prepare(&self, method: &str, mut params: Map<String, Value>) -> (HeaderMap, String) {
        let key = if method == "resources/read" { "uri" } else { "name" };
        let name = params.get(key).and_then(Value::as_str).map(str::to_owned);
        if self.revision == Revision::V2026 {
            let meta = params.entry("_meta").or_insert_with(|| json!({}));
            if let Some(meta) = meta.as_object_mut() {
                let version = self.revision.as_str().into();
                meta.insert("io.modelcontextprotocol/protocolVersion".into(), version);
                meta.insert("io.modelcontextprotocol/clientCapabilities".into(), json!({}));
            }
        }
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        (self.headers(method, name.as_deref()), body.to_string())
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
            if let (Some(name), "tools/call" | "resources/read") = (name, method) {
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
        self.exchange(headers, body, |_| {}).await
    }

    /// The same; `notified` is given each notification of an answer that comes as a stream.
    pub async fn exchange(
        &self,
        headers: HeaderMap,
        body: impl Into<reqwest::Body>,
        notified: impl FnMut(Value),
    ) -> Result<Answer, Unanswered> {
        let mut request = self.http.post(&self.url).headers(headers).body(body);
        if let Some(bearer) = &self.bearer {
            request = request.bearer_auth(bearer);
        }
        let mut response = request.send().await.map_err(|error| Unanswered(error.to_string()))?;
        let status: StatusCode = response.status();
        let challenge =
            response.headers().get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let media_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let body = if media_type.is_some_and(|media_type| media_type.starts_with("text/event-stream")) {
            from_events(&mut response, notified).await?
        } else {
            parse(&whole(&mut response).await?)
        };
        Ok(Answer { status: status.as_u16(), www_authenticate: challenge, body })
    }
}

async fn whole(response: &mut Response) -> Result<Vec<u8>, Unanswered> {
    let mut bytes = Vec::new();
    while let Some(more) = next(response, bytes.len()).await? {
        bytes.extend_from_slice(&more);
    }
    Ok(bytes)
}

/// Reads events up to the one that answers; what comes before it are notifications.
async fn from_events(response: &mut Response, mut notified: impl FnMut(Value)) -> Result<Value, Unanswered> {
    let (mut events, mut seen) = (sse::Reader::default(), 0);
    while let Some(more) = next(response, seen).await? {
        seen += more.len();
        for message in events.push(&more).iter().map(|data| parse(data)) {
            if message.get("method").is_none() {
                return Ok(message);
            }
            notified(message);
        }
    }
    Err(Unanswered("the stream ended before the answer".into()))
}

async fn next(response: &mut Response, seen: usize) -> Result<Option<Bytes>, Unanswered> {
    let more = response.chunk().await.map_err(|error| Unanswered(error.to_string()))?;
    if seen + more.as_ref().map_or(0, Bytes::len) > ANSWER_MAX {
        return Err(Unanswered(format!("its answer is longer than {ANSWER_MAX} bytes")));
    }
    Ok(more)
}

fn parse(bytes: &[u8]) -> Value {
    let limits = Limits { bytes_max: ANSWER_MAX, ..Limits::default() };
    read(bytes, &limits).unwrap_or_default()
}
