//! Judges a request's head, and writes the one that goes on in its place.

use zeroize::Zeroizing;

use super::body::End;
use super::credential::Credential;
use super::decision::Reason;
use super::head::{Framing, Headers, RequestHead};
use super::host::{Host, authority};
use super::path::Path;
use super::rules::{No, Rule, Rules};
use super::target::Scheme;

/// Headers of one hop (RFC 9110 §7.6.1), and those that we write ourselves.
const OF_ONE_HOP: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Headers by which some servers take another method, path or host than the one that was judged.
const OVERRIDES: &[&str] = &[
    "forwarded",
    "x-forwarded-host",
    "x-forwarded-path",
    "x-forwarded-prefix",
    "x-forwarded-server",
    "x-forwarded-uri",
    "x-host",
    "x-http-host-override",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-host",
    "x-original-uri",
    "x-original-url",
    "x-override-url",
    "x-rewrite-url",
];

/// Headers that cut an answer, or wrap it, so that a secret in it could not be found.
const HIDING: &[&str] = &["accept-encoding", "range", "if-range"];

/// What is asked of a server: a path and a query.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) path: Path,
    query: Option<String>,
}

impl Asked {
    /// Reads `/path?query`.
    pub(crate) fn parse(text: &str) -> Result<Self, Reason> {
        let (path, query) = match text.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (text, None),
        };
        let path = Path::parse(path.as_bytes()).map_err(|_| Reason::BadRequest)?;
        if query.as_ref().is_some_and(|query| query.contains('#')) {
            Err(Reason::BadRequest)
        } else {
            Ok(Self { path, query })
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.path.as_str().as_bytes());
        if let Some(query) = &self.query {
            out.push(b'?');
            out.extend_from_slice(query.as_bytes());
        }
    }
}

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'p> {
    pub(crate) scheme: Scheme,
    pub(crate) host: &'p Host,
    pub(crate) port: u16,
}

/// A request that may go on.
#[derive(Debug)]
pub(crate) struct Forward<'r> {
    pub(crate) rule: &'r Rule,
    /// The head as it goes out.
    pub(crate) head: Zeroizing<Vec<u8>>,
    pub(crate) body: Option<End>,
    /// Whether the client waits for `100 Continue`.
    pub(crate) waits: bool,
    /// Whether the answer has no body whatever it says.
    pub(crate) is_head: bool,
}

/// Judges a request. Nothing of it is taken over that was not understood.
pub(crate) fn judge<'r>(
    rules: &'r Rules,
    place: Place<'_>,
    request: &RequestHead,
    asked: &Asked,
) -> Result<Forward<'r>, No> {
    check_form(request, place)?;
    let framing = request.headers.framing().map_err(|_| Reason::BadRequest)?;
    let waits = match request.headers.at_most_one("expect").map_err(|_| Reason::BadRequest)? {
        None => false,
        Some(value) if value.eq_ignore_ascii_case(b"100-continue") => true,
        Some(_) => return Err(Reason::BadRequest.into()),
    };
    let method = request.method.as_str();
    let rule = rules.request(place.scheme, place.host, place.port, method, &asked.path)?;
    let credential = rule.credential.as_ref();
    let headers = without_carrier(&request.headers, credential);
    check_placeholders(rules, asked, &headers)?;
    let body = match framing {
        Framing::Unsaid => None,
        Framing::Length(length) => Some(End::After(length)),
        Framing::Chunked => Some(End::EmptyChunk),
    };
    let head = write(rules, place, method, asked, headers, framing, credential);
    Ok(Forward { rule, head, body, waits, is_head: method == "HEAD" })
}

fn check_form(request: &RequestHead, place: Place<'_>) -> Result<(), Reason> {
    let headers = &request.headers;
    let method = request.method.as_str();
    let is_plain_method = method.bytes().all(|byte| byte.is_ascii_uppercase());
    if !request.is_1_1 || !is_plain_method || ["CONNECT", "TRACE", "TRACK", "PRI"].contains(&method) {
        return Err(Reason::BadRequest);
    }
    check_host(headers, place)?;
    if headers.has("upgrade") || headers.has("http2-settings") {
        return Err(Reason::Upgrade);
    }
    let options = || headers.all("connection").flat_map(|value| value.split(|byte| *byte == b','));
    for option in options() {
        match option.trim_ascii().to_ascii_lowercase().as_slice() {
            b"" | b"close" | b"keep-alive" | b"te" => {}
            b"upgrade" => return Err(Reason::Upgrade),
            _ => return Err(Reason::BadRequest),
        }
    }
    let is_override = |name: &str| OVERRIDES.contains(&name.replace('_', "-").as_str());
    if headers.0.iter().any(|(name, _)| is_override(name)) { Err(Reason::Override) } else { Ok(()) }
}

/// Exactly one `Host`, which is where the request goes.
fn check_host(headers: &Headers, place: Place<'_>) -> Result<(), Reason> {
    let value = headers.at_most_one("host").map_err(|_| Reason::BadRequest)?.ok_or(Reason::BadRequest)?;
    let (host, port) = authority(value).map_err(|_| Reason::HostMismatch)?;
    let port = port.unwrap_or(place.scheme.default_port());
    if host == *place.host && port == place.port { Ok(()) } else { Err(Reason::HostMismatch) }
}

fn without_carrier(headers: &Headers, credential: Option<&Credential>) -> Headers {
    let is_carrier = |name: &str| credential.is_some_and(|credential| credential.is_named(name));
    Headers(headers.0.iter().filter(|(name, _)| !is_carrier(name)).cloned().collect())
}

fn check_placeholders(rules: &Rules, asked: &Asked, headers: &Headers) -> Result<(), Reason> {
    if rules.placeholders.is_empty() {
        return Ok(());
    }
    let mut text = Vec::new();
    asked.write(&mut text);
    text.push(b'\n');
    headers.write(&mut text);
    if rules.placeholders.are_in(&text) {
        return Err(Reason::Placeholder);
    }
    if headers.is_identity() { Ok(()) } else { Err(Reason::EncodedBody) }
}

fn write(
    rules: &Rules,
    place: Place<'_>,
    method: &str,
    asked: &Asked,
    mut headers: Headers,
    framing: Framing,
    credential: Option<&Credential>,
) -> Zeroizing<Vec<u8>> {
    let may_hide = rules.secrets.is_empty();
    headers.0.retain(|(name, _)| {
        let name = name.as_str();
        !OF_ONE_HOP.contains(&name) && (may_hide || !HIDING.contains(&name))
    });
    // One allocation, so that no copy of the secret stays behind.
    let mut out = Zeroizing::new(Vec::with_capacity(160 << 10));
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    asked.write(&mut out);
    out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    out.extend_from_slice(place.host.to_string().as_bytes());
    if place.port != place.scheme.default_port() {
        out.extend_from_slice(format!(":{}", place.port).as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    headers.write(&mut out);
    match framing {
        Framing::Unsaid => {}
        Framing::Length(length) => out.extend_from_slice(format!("content-length: {length}\r\n").as_bytes()),
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    if !may_hide {
        out.extend_from_slice(b"accept-encoding: identity\r\n");
    }
    if let Some(credential) = credential {
        out.extend_from_slice(credential.header.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(credential.value().as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"connection: close\r\n\r\n");
    out
}
