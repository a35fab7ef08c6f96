//! Resources: listed, and read one at a time.

use axum::response::Response;
use serde_json::{Map, Value};

use super::Server;
use super::contents;
use super::door::{Answer, Reply};
use super::methods::{cacheable, object};
use super::page::page;
use crate::message::RpcError;
use crate::{NotRead, Revision, Service};

/// What there is changes with each call, so no list is worth keeping.
const TTL_MS: u64 = 0;

pub(super) async fn list<S: Service>(
    server: &Server<S>,
    caller: &S::Caller,
    revision: Revision,
    params: &Map<String, Value>,
) -> Answer {
    let mut resources = server.service.resources(caller).await;
    resources.sort_by(|one, other| one.uri.cmp(&other.uri));
    match page(&resources, |resource| &resource.uri, params, server.settings.page_size) {
        Ok(page) => {
            let shown = page.items.into_iter().map(|resource| Value::Object(resource.to_json())).collect();
            Answer::Result(cacheable(page.next.finish([("resources", shown)]), revision, TTL_MS))
        }
        Err(refused) => Answer::Error(refused),
    }
}

/// There are none: what can be read is named by a list or a link.
pub(super) fn templates(revision: Revision) -> Answer {
    let none = object([("resourceTemplates", Value::Array(Vec::new()))]);
    Answer::Result(cacheable(none, revision, TTL_MS))
}

pub(super) async fn read<S: Service>(
    server: &Server<S>,
    caller: &S::Caller,
    params: Map<String, Value>,
    reply: Reply,
) -> Response {
    let Some(uri) = params.get("uri").and_then(Value::as_str) else {
        return reply.with(Answer::Error(RpcError::invalid_params("`uri` must be a string")));
    };
    match server.service.read(caller, uri).await {
        Ok(found) => contents::respond(found, cacheable(Map::new(), reply.revision, TTL_MS), &reply),
        Err(NotRead::Unknown) => reply.with(Answer::Error(RpcError::unknown_resource(reply.revision))),
        Err(NotRead::Failed(why)) => reply.with(Answer::Error(RpcError::internal(why))),
    }
}
