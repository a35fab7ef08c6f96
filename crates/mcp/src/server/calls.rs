//! `tools/call`: answered as one message, or as a stream once the client hears of its progress.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use axum::response::Response;
use serde_json::{Map, Value};

use super::door::{Answer, Reply, error};
use super::{Server, elicitation, stream};
use crate::message::{RpcError, is_id};
use crate::watch::Progress;
use crate::{Revision, Service, ToolCall, Watch};

/// The longest token of a progress: it stands in each message.
const TOKEN_BYTES_MAX: usize = 256;

/// A call under way.
pub(super) type Calling = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// Calls a tool. Whatever is known before the call says something is answered as any other request is, refusals among it.
/// The call is cancelled when this, or the body of its response, is dropped.
pub(super) async fn answer<S: Service>(
    server: &Arc<Server<S>>,
    caller: S::Caller,
    params: Map<String, Value>,
    accepts_events: bool,
    reply: Reply,
) -> Response {
    let owner = server.service.owner(&caller);
    let may_be_asked = server.openers.may_be_asked(&owner, reply.revision, &params);
    let (call, token) = match read(params) {
        Ok((call, token)) => (call, token.filter(|_| accepts_events)),
        Err(refused) => return error(&refused, &reply.id),
    };
    let progress = token.is_some().then(|| Arc::new(Progress::default()));
    let (watch, hang_up) = Watch::guarded(progress.clone());
    let entry = if reply.revision == Revision::V2025 {
        server.under_way.enter(owner, reply.id.clone(), watch.cancellation().clone())
    } else {
        None
    };
    let (service, revision) = (server.service.clone(), reply.revision);
    let mut calling: Calling = Box::pin(async move {
        let _entry = entry;
        match service.call(caller, call, watch).await {
            Ok(result) => elicitation::answer(&result, revision, may_be_asked),
            Err(refused) => Answer::Challenge(refused),
        }
    });
    let (Some(progress), Some(token)) = (progress, token) else { return reply.with(calling.await) };
    tokio::select! {
        biased;
        ended = &mut calling => reply.with(ended),
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
