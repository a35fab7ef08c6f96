//! The methods: `initialize` and `ping` (2025-11-25), `server/discover` (2026-07-28), `tools/list`, `tools/call` (both).

use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::Server;
use super::door::Answer;
use crate::message::RpcError;
use crate::{Revision, Service, ToolCall, ToolDescription};

pub(super) async fn answer<S: Service>(
    server: &Server<S>,
    caller: S::Caller,
    revision: Revision,
    method: &str,
    params: Map<String, Value>,
) -> Answer {
    match (revision, method) {
        (Revision::V2025, "initialize") => Answer::Result(initialize(server)),
        (Revision::V2025, "ping") => Answer::Result(Map::new()),
        (Revision::V2026, "server/discover") => Answer::Result(discover(server)),
        (_, "tools/list") => list(server, &caller, revision, &params).await,
        (_, "tools/call") => call(server, caller, params).await,
        (Revision::V2026, _) => Answer::Error(RpcError::unknown_method(method, StatusCode::NOT_FOUND)),
        (Revision::V2025, _) => Answer::Error(RpcError::unknown_method(method, StatusCode::OK)),
    }
}

fn server_info<S>(server: &Server<S>) -> Value {
    json!({ "name": server.settings.name, "version": server.settings.version })
}

/// Whatever version was asked for, this one is spoken; a client that cannot speak it hangs up (2025-11-25, lifecycle).
fn initialize<S>(server: &Server<S>) -> Map<String, Value> {
    object([
        ("protocolVersion", Revision::V2025.as_str().into()),
        ("capabilities", json!({ "tools": {} })),
        ("serverInfo", server_info(server)),
    ])
}

fn discover<S>(server: &Server<S>) -> Map<String, Value> {
    object([
        ("supportedVersions", Revision::ALL.map(Revision::as_str).as_slice().into()),
        ("capabilities", json!({ "tools": {} })),
        ("ttlMs", server.settings.list_ttl_ms.into()),
        ("cacheScope", "private".into()),
        ("_meta", json!({ "io.modelcontextprotocol/serverInfo": server_info(server) })),
    ])
}

async fn list<S: Service>(
    server: &Server<S>,
    caller: &S::Caller,
    revision: Revision,
    params: &Map<String, Value>,
) -> Answer {
    let after = match params.get("cursor") {
        None => None,
        Some(cursor) => match cursor.as_str().and_then(read_cursor) {
            Some(name) => Some(name),
            None => {
                return Answer::Error(RpcError::invalid_params(
                    "`cursor` is not one that was given out here",
                ));
            }
        },
    };
    let tools = match server.service.tools(caller).await {
        Ok(tools) => tools,
        Err(challenge) => return Answer::Challenge(challenge),
    };
    let rest = tools.iter().filter(|tool| after.as_ref().is_none_or(|after| tool.name > *after));
    let page: Vec<&ToolDescription> = rest.take(server.settings.page_size.saturating_add(1)).collect();
    let shown = page.iter().take(server.settings.page_size);
    let mut result = object([("tools", shown.map(|tool| tool.to_json()).collect())]);
    if page.len() > server.settings.page_size {
        let last = page.get(server.settings.page_size - 1).map(|tool| cursor(&tool.name));
        result.extend(last.map(|cursor| ("nextCursor".to_owned(), cursor.into())));
    }
    if revision == Revision::V2026 {
        result.insert("ttlMs".into(), server.settings.list_ttl_ms.into());
        result.insert("cacheScope".into(), "private".into());
    }
    Answer::Result(result)
}

/// A cursor is the name of the last tool shown: it holds no state, so nothing is kept for it.
fn cursor(name: &str) -> String {
    URL_SAFE_NO_PAD.encode(name)
}

fn read_cursor(cursor: &str) -> Option<String> {
    String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()
}

async fn call<S: Service>(server: &Server<S>, caller: S::Caller, mut params: Map<String, Value>) -> Answer {
    let Some(Value::String(name)) = params.remove("name") else {
        return Answer::Error(RpcError::invalid_params("`name` must be a string"));
    };
    let arguments = match params.remove("arguments") {
        None => Map::new(),
        Some(Value::Object(arguments)) => arguments,
        Some(_) => return Answer::Error(RpcError::invalid_params("`arguments` must be an object")),
    };
    match server.service.call(caller, ToolCall { name, arguments }).await {
        Ok(result) => Answer::Result(result.to_json()),
        Err(challenge) => Answer::Challenge(challenge),
    }
}

fn object<const N: usize>(fields: [(&str, Value); N]) -> Map<String, Value> {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
