//! Which revision a request speaks, and whether its headers say what its body says.
//!
//! Something between client and server may route on the headers; acting on a body that says otherwise would let a
//! caller walk round it (2026-07-28, transports, *standard headers*).

use axum::http::{HeaderMap, HeaderName};
use serde_json::{Map, Value};

use super::door::only;
use crate::Revision;
use crate::header::decode;
use crate::message::RpcError;

const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");
const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";

/// The revision of a request whose headers and body agree.
pub(super) fn revision(
    headers: &HeaderMap,
    method: &str,
    params: &Map<String, Value>,
) -> Result<Revision, RpcError> {
    let header = only(headers, &VERSION)?;
    let in_body = params.get("_meta").and_then(|meta| meta.get(META_VERSION));
    let is_newest =
        header == Some(Revision::V2026.as_str()) || in_body.is_some() || method == "server/discover";
    if is_newest { newest(headers, header, method, params) } else { older(headers, header, method, params) }
}

fn newest(
    headers: &HeaderMap,
    header: Option<&str>,
    method: &str,
    params: &Map<String, Value>,
) -> Result<Revision, RpcError> {
    let meta = params.get("_meta").and_then(Value::as_object);
    let missing = [META_VERSION, META_CAPABILITIES]
        .iter()
        .find(|key| !meta.is_some_and(|meta| meta.contains_key(**key)));
    if let Some(missing) = missing {
        return Err(RpcError::invalid_params(format!("`params._meta` lacks `{missing}`")));
    }
    let Some(version) = meta.and_then(|meta| meta.get(META_VERSION)).and_then(Value::as_str) else {
        return Err(RpcError::invalid_params(format!("`{META_VERSION}` must be a string")));
    };
    agree(&VERSION, header, version)?;
    agree(&METHOD, only(headers, &METHOD)?, method)?;
    let name = name(method, params);
    let named = only(headers, &NAME)?;
    match name {
        Some(name) => agree(&NAME, named, name)?,
        None if named.is_some() => {
            return Err(RpcError::header_mismatch("header `mcp-name` names what the body does not"));
        }
        None => {}
    }
    // No parameter of any tool here is declared to be mirrored in a header.
    if headers.keys().any(|name| name.as_str().starts_with("mcp-param-")) {
        return Err(RpcError::header_mismatch(
            "no parameter is mirrored in a header here; leave `Mcp-Param-*` out",
        ));
    }
    if version == Revision::V2026.as_str() {
        Ok(Revision::V2026)
    } else {
        Err(RpcError::unsupported_version(version))
    }
}

/// What a request is about, where the headers have to say that too.
fn name<'a>(method: &str, params: &'a Map<String, Value>) -> Option<&'a str> {
    let key = match method {
        "tools/call" | "prompts/get" => "name",
        "resources/read" => "uri",
        _ => return None,
    };
    params.get(key).and_then(Value::as_str)
}

fn agree(name: &HeaderName, header: Option<&str>, body: &str) -> Result<(), RpcError> {
    match header {
        None => Err(RpcError::header_mismatch(format!("header `{name}` is missing"))),
        Some(value) if decode(value).as_deref() == Some(body) => Ok(()),
        Some(_) => {
            Err(RpcError::header_mismatch(format!("header `{name}` says something else than the body")))
        }
    }
}

fn older(
    headers: &HeaderMap,
    header: Option<&str>,
    method: &str,
    params: &Map<String, Value>,
) -> Result<Revision, RpcError> {
    // This revision has no such headers; where they stand all the same, someone may route on them.
    let name = name(method, params).unwrap_or_default();
    for (header, body) in [(&METHOD, method), (&NAME, name)] {
        if headers.contains_key(header) {
            agree(header, only(headers, header)?, body)?;
        }
    }
    // No session is ever issued here, so one that is named has ended (2025-11-25, transports, *session management*).
    if headers.contains_key(SESSION) {
        let gone = axum::http::StatusCode::NOT_FOUND;
        return Err(RpcError::transport(
            gone,
            "there is no such session; leave `Mcp-Session-Id` out and initialize",
        ));
    }
    match header {
        Some(version) if version == Revision::V2025.as_str() => Ok(Revision::V2025),
        // The version is being agreed on.
        _ if method == "initialize" => Ok(Revision::V2025),
        Some(version) => Err(RpcError::unsupported_version(version)),
        None => Err(RpcError::unsupported_version("none")),
    }
}
