//! The methods whose answer is one small result: `initialize` and `ping` (2025-11-25), `server/discover` (2026-07-28), and
//! the lists (both).

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::door::Answer;
use super::page::page;
use super::{Server, resources};
use crate::message::RpcError;
use crate::{Revision, Service, ToolDescription};

pub(super) async fn answer<S: Service>(
    server: &Server<S>,
    caller: S::Caller,
    revision: Revision,
    method: &str,
    params: Map<String, Value>,
) -> Answer {
    match (revision, method) {
        (Revision::V2025, "initialize") => {
            server.openers.note(server.service.owner(&caller), &params);
            Answer::Result(initialize(server))
        }
        (Revision::V2025, "ping") => Answer::Result(Map::new()),
        (Revision::V2026, "server/discover") => Answer::Result(discover(server)),
        (_, "tools/list") => list(server, &caller, revision, &params).await,
        (_, "resources/list") => resources::list(server, &caller, revision, &params).await,
        (_, "resources/templates/list") => resources::templates(revision),
        (Revision::V2026, _) => Answer::Error(RpcError::unknown_method(method, StatusCode::NOT_FOUND)),
        (Revision::V2025, _) => Answer::Error(RpcError::unknown_method(method, StatusCode::OK)),
    }
}

fn server_info<S>(server: &Server<S>) -> Value {
    json!({ "name": server.settings.name, "version": server.settings.version })
}

fn capabilities() -> Value {
    json!({ "tools": {}, "resources": {} })
}

/// Whatever version was asked for, this one is spoken; a client that cannot speak it hangs up (2025-11-25, lifecycle).
fn initialize<S>(server: &Server<S>) -> Map<String, Value> {
    object([
        ("protocolVersion", Revision::V2025.as_str().into()),
        ("capabilities", capabilities()),
        ("serverInfo", server_info(server)),
    ])
}

fn discover<S>(server: &Server<S>) -> Map<String, Value> {
    object([
        ("supportedVersions", Revision::ALL.map(Revision::as_str).as_slice().into()),
        ("capabilities", capabilities()),
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
    let tools = match server.service.tools(caller).await {
        Ok(tools) => tools,
        Err(challenge) => return Answer::Challenge(challenge),
    };
    match page(&tools, |tool| &tool.name, params, server.settings.page_size) {
        Ok(page) => {
            let shown = page.items.into_iter().map(ToolDescription::to_json).collect();
            let result = page.next.finish([("tools", shown)]);
            Answer::Result(cacheable(result, revision, server.settings.list_ttl_ms))
        }
        Err(refused) => Answer::Error(refused),
    }
}

/// A result that a client may keep for a while, and nobody between (2026-07-28, caching).
pub(super) fn cacheable(
    mut result: Map<String, Value>,
    revision: Revision,
    ttl_ms: u64,
) -> Map<String, Value> {
    if revision == Revision::V2026 {
        result.insert("ttlMs".into(), ttl_ms.into());
        result.insert("cacheScope".into(), "private".into());
    }
    result
}

pub(super) fn object<const N: usize>(fields: [(&str, Value); N]) -> Map<String, Value> {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
