//! What stands behind the wire: who calls, which tools there are for them, and what a call gives.

use async_trait::async_trait;
use axum::body::Bytes;
use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::Watch;

/// The service behind a server.
#[async_trait]
pub trait Service: Send + Sync + 'static {
    /// A verified caller.
    type Caller: Clone + Send + Sync + 'static;

    /// Verifies the caller of one request, from its headers alone; asked before the body is read.
    async fn authenticate(&self, headers: &HeaderMap) -> Result<Self::Caller, Challenge>;

    /// The tools that this caller may call, in a stable order.
    async fn tools(&self, caller: &Self::Caller) -> Result<Vec<ToolDescription>, Challenge>;

    /// Calls a tool. A refusal by the service is a result with `is_error`, so that the model can read it.
    ///
    /// Dropped when the client hangs up, which `watch` says too, and not polled while a client does not read what it has
    /// sent: work that must go on all the same belongs in a task of the service's own.
    async fn call(&self, caller: Self::Caller, call: ToolCall, watch: Watch)
    -> Result<ToolResult, Challenge>;

    /// For whom this caller acts, as one word: whoever has the same may cancel its calls.
    fn owner(&self, caller: &Self::Caller) -> String;

    /// The resources that this caller may read.
    async fn resources(&self, caller: &Self::Caller) -> Vec<ResourceDescription>;

    /// Reads a resource.
    async fn read(&self, caller: &Self::Caller, uri: &str) -> Result<ResourceContents, NotRead>;
}

/// A request that is turned away as a whole: 401 or 403 with the challenge that says how to do better (RFC 6750 §3), or 429
/// or 503 where it may be sent again later.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Challenge {
    /// 401, 403, 429 or 503.
    pub status: u16,
    /// The `WWW-Authenticate` header.
    pub www_authenticate: Option<String>,
    /// The `Retry-After` header.
    pub retry_after_seconds: Option<u64>,
    /// One sentence for people.
    pub message: String,
}

/// A tool as it is shown to a model.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolDescription {
    /// Its name.
    pub name: String,
    /// Its name for people.
    pub title: Option<String>,
    /// What it does.
    pub description: String,
    /// JSON Schema of its arguments.
    pub input_schema: Value,
    /// JSON Schema of its structured result.
    pub output_schema: Option<Value>,
    /// Hints such as `readOnlyHint`.
    pub annotations: Option<Value>,
}

impl ToolDescription {
    pub(crate) fn to_json(&self) -> Value {
        let mut tool = Map::new();
        tool.insert("name".into(), self.name.as_str().into());
        tool.extend(self.title.as_ref().map(|title| ("title".to_owned(), title.as_str().into())));
        tool.insert("description".into(), self.description.as_str().into());
        tool.insert("inputSchema".into(), self.input_schema.clone());
        tool.extend(self.output_schema.clone().map(|schema| ("outputSchema".to_owned(), schema)));
        tool.extend(self.annotations.clone().map(|hints| ("annotations".to_owned(), hints)));
        Value::Object(tool)
    }
}

/// A tool call as the client sent it.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolCall {
    /// The name.
    pub name: String,
    /// The arguments; numbers keep their digits.
    pub arguments: Map<String, Value>,
}

/// What a call gives.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolResult {
    /// For the model.
    pub content: Vec<Content>,
    /// For programs.
    pub structured: Option<Value>,
    /// Whether it failed.
    pub is_error: bool,
    /// What the user is asked to open first, where the client can do that; the rest of the result is for clients that cannot.
    pub open_first: Option<OpenUrl>,
}

/// A page that the user has to open outside, before the call can be done (URL mode elicitation in both revisions).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OpenUrl {
    /// Where it is.
    pub url: String,
    /// Why, for the user.
    pub message: String,
}

impl ToolResult {
    pub(crate) fn to_json(&self) -> Map<String, Value> {
        let mut result = Map::new();
        result.insert("content".into(), self.content.iter().map(|content| content.0.clone()).collect());
        result.extend(self.structured.clone().map(|data| ("structuredContent".to_owned(), data)));
        result.insert("isError".into(), self.is_error.into());
        result
    }
}

/// One block of content.
#[derive(Clone, Debug, PartialEq)]
pub struct Content(Value);

impl Content {
    /// Text.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self(json!({ "type": "text", "text": text.into() }))
    }

    /// An image.
    #[must_use]
    pub fn image(mime_type: &str, bytes: &[u8]) -> Self {
        Self(json!({ "type": "image", "data": STANDARD.encode(bytes), "mimeType": mime_type }))
    }

    /// A resource that can be read afterwards.
    #[must_use]
    pub fn resource_link(resource: &ResourceDescription) -> Self {
        let mut link = Map::from_iter([("type".to_owned(), "resource_link".into())]);
        link.extend(resource.to_json());
        Self(Value::Object(link))
    }
}

/// A resource as it is listed and linked to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ResourceDescription {
    /// Where it is.
    pub uri: String,
    /// Its name.
    pub name: String,
    /// Its media type.
    pub mime_type: String,
    /// How long it is.
    pub bytes: u64,
}

impl ResourceDescription {
    pub(crate) fn to_json(&self) -> Map<String, Value> {
        let fields: [(&str, Value); 4] = [
            ("uri", self.uri.as_str().into()),
            ("name", self.name.as_str().into()),
            ("mimeType", self.mime_type.as_str().into()),
            ("size", self.bytes.into()),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// A resource as it is read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ResourceContents {
    /// Where it is.
    pub uri: String,
    /// Its media type; the bytes of a `text/…` one, and of JSON, go over the wire as text where they are UTF-8.
    pub mime_type: String,
    /// What is in it.
    pub bytes: Bytes,
}

/// Why a resource was not read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NotRead {
    /// There is none for this caller.
    Unknown,
    /// It could not be read just now; why, in words for the client.
    Failed(String),
}
