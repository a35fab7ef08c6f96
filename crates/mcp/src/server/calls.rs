//! `tools/call`: answered as one message, or as a stream once the client hears of its progress.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use axum::response::Response;
use serde_json::{Map, Value};

use super::door::{Answer, Reply, challenge, error};
use super::{Server, stream};
use crate::message::{RpcError, is_id};
use crate::watch::Progress;
use crate::{Challenge, Revision, Service, ToolCall, ToolResult, Watch};

/// The longest token of a progress: it stands in each message.
const TOKEN_BYTES_MAX: usize = 256;

/// A call under way.
pub(super) type Calling = Pin<Box<dyn Future<Output = Result<ToolResult, Challenge>> + Send>>;

/// Calls a tool. Whatever is known before the call says something is answered as any other request is, refusals among it.
/// The call is cancelled when this, or the body of its response, is dropped.
pub(super) async fn answer<S: Service>(
    server: &Arc<Server<S>>,
    caller: S::Caller,
    params: Map<String, Value>,
    accepts_events: bool,
    reply: Reply,
) -> Response {
    let (call, token) = match read(params) {
        Ok((call, token)) => (call, token.filter(|_| accepts_events)),
        Err(refused) => return error(&refused, &reply.id),
    };
    let progress = token.is_some().then(|| Arc::new(Progress::default()));
    let (watch, hang_up) = Watch::guarded(progress.clone());
    let entry = if reply.revision == Revision::V2025 {
        let owner = server.service.owner(&caller);
        server.under_way.enter(owner, reply.id.clone(), watch.cancellation().clone())
    } else {
        None
    };
    let service = server.service.clone();
    let mut calling: Calling = Box::pin(async move {
        let _entry = entry;
        service.call(caller, call, watch).await
    });
    let (Some(progress), Some(token)) = (progress, token) else { return plain(calling.await, &reply) };
    tokio::select! {
        biased;
        ended = &mut calling => plain(ended, &reply),
        () = poll_fn(|reading| progress.poll_said(reading)) => {
            stream::respond(stream::Events::new(calling, progress, token, reply, hang_up))
        }
    }
}

/// Cancels a call that this client made.
pub(super) fn cancel<S: Service>(server: &Server<S>, caller: &S::Caller, params: &Map<String, Value>) {
    if let Some(id) = params.get("requestId").filter(|id| is_id(id)) {
        server.under_way.cancel(&server.service.owner(caller), id);
    }
}

fn plain(ended: Result<ToolResult, Challenge>, reply: &Reply) -> Response {
    match ended {
        Ok(result) => reply.with(Answer::Result(result.to_json())),
        Err(refused) => challenge(refused),
    }
}

/// The call, and the token under which the client wants to hear of it.
fn read(mut params: Map<String, Value>) -> Result<(ToolCall, Option<Value>), RpcError> {
    let Some(Value::String(name)) = params.remove("name") else {
        return Err(RpcError::invalid_params("`name` must be a string"));
    };
    let arguments = match params.remove("arguments") {
        None => Map::new(),
        Some(Value::Object(arguments)) => arguments,
        Some(_) => return Err(RpcError::invalid_params("`arguments` must be an object")),
    };
    let token = match params.get("_meta").and_then(|meta| meta.get("progressToken")) {
        None | Some(Value::Null) => None,
        Some(token) if is_id(token) && token.as_str().is_none_or(|text| text.len() <= TOKEN_BYTES_MAX) => {
            Some(token.clone())
        }
        Some(_) => {
            let wanted =
                format!("`progressToken` must be an integer or a string of at most {TOKEN_BYTES_MAX} bytes");
            return Err(RpcError::invalid_params(wanted));
        }
    };
    Ok((ToolCall { name, arguments }, token))
}
