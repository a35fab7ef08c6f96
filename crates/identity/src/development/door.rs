//! Who may ask at all: no page of the web reaches the issuer through a browser on this machine.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use url::Url;

use super::redirect::is_loopback;
use super::routes::Shared;

/// Lets a request in whose `Host` is this machine, against a name that was made to point here, and whose `Origin`, where a
/// browser sends one, is too. Pages of this machine (the MCP Inspector) may read the answers.
pub(super) async fn check(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let listen = shared.issuer.settings.listen;
    let host = text(request.headers(), &header::HOST);
    let is_ours = host
        .as_deref()
        .is_some_and(|host| host == listen.to_string() || host == format!("localhost:{}", listen.port()));
    if !is_ours {
        return (StatusCode::FORBIDDEN, "this is not an address of the development issuer").into_response();
    }
    let origin = text(request.headers(), &header::ORIGIN);
    let is_local = |origin: &String| Url::parse(origin).is_ok_and(|origin| is_loopback(&origin));
    if !origin.as_ref().is_none_or(is_local) {
        return (StatusCode::FORBIDDEN, "no other site may use the development issuer").into_response();
    }
    let readable = origin.filter(|_| request.uri().path() != super::routes::AUTHORIZE);
    let mut response = if readable.is_some() && request.method() == Method::OPTIONS {
        StatusCode::NO_CONTENT.into_response()
    } else {
        next.run(request).await
    };
    if let Some(origin) = readable.and_then(|origin| HeaderValue::try_from(origin).ok()) {
        allow(response.headers_mut(), origin);
    }
    response
}

fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    let asked = HeaderValue::from_static("Authorization, Content-Type, DPoP, MCP-Protocol-Version");
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked);
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
}

fn text(headers: &HeaderMap, name: &header::HeaderName) -> Option<String> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.to_str().unwrap_or("unreadable").to_owned();
    // Two of them are as good as a foreign one.
    Some(if values.next().is_some() { "several".to_owned() } else { first })
}

/// Whether two texts name the same door: letter for letter, or but for the slash that some parsers add to a bare host.
pub(super) fn is_same(door: &str, named: &str) -> bool {
    door == named
        || matches!((Url::parse(door), Url::parse(named)), (Ok(door), Ok(named)) if door == named && named.path() == "/")
}
