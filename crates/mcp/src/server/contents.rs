//! The contents of a resource on their way out: encoded piece by piece as the client takes them, so that a client that does
//! not read holds the resource and one piece of it, and not a copy.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_core::Stream;
use serde_json::{Map, Value, json};

use super::door::Reply;
use crate::ResourceContents;

/// Bytes that are encoded at one time: a multiple of three, so that pieces of Base64 join to one.
const PIECE: usize = 48 << 10;

/// `result` holds what the result says besides the contents.
pub(super) fn respond(found: ResourceContents, result: Map<String, Value>, reply: &Reply) -> Response {
    let pieces = Pieces::new(found, result, reply);
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(pieces)).into_response()
}

/// One message in pieces: what stands before the contents, the contents, what stands after them.
struct Pieces {
    before: Option<String>,
    rest: Bytes,
    is_text: bool,
    after: Option<String>,
}

impl Pieces {
    fn new(found: ResourceContents, result: Map<String, Value>, reply: &Reply) -> Self {
        let is_text = is_text(&found.mime_type) && std::str::from_utf8(&found.bytes).is_ok();
        let entry = json!({ "uri": found.uri, "mimeType": found.mime_type }).to_string();
        let key = if is_text { "text" } else { "blob" };
        // The message without contents ends in `"result":{…}}`: they go in as the last field of the result.
        let message = reply.message(result).to_string();
        let head = message.strip_suffix("}}").unwrap_or(&message);
        let comma = if head.ends_with('{') { "" } else { "," };
        let entry = entry.strip_suffix('}').unwrap_or(&entry);
        Self {
            before: Some(format!("{head}{comma}\"contents\":[{entry},\"{key}\":\"")),
            rest: found.bytes,
            is_text,
            after: Some("\"}]}}".to_owned()),
        }
    }

    fn piece(&mut self) -> Option<String> {
        if self.rest.is_empty() {
            return None;
        }
        if !self.is_text {
            let piece = self.rest.split_to(PIECE.min(self.rest.len()));
            return Some(STANDARD.encode(piece));
        }
        // It is UTF-8 as a whole, and cut where a character begins.
        let is_inside = |at: &usize| self.rest.get(*at).is_some_and(|byte| byte & 0xc0 == 0x80);
        let end = (1..=PIECE.min(self.rest.len())).rev().find(|at| !is_inside(at)).unwrap_or(self.rest.len());
        let piece = self.rest.split_to(end);
        let quoted = Value::from(String::from_utf8_lossy(&piece)).to_string();
        Some(quoted.get(1..quoted.len() - 1).unwrap_or_default().to_owned())
    }
}

impl Iterator for Pieces {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        self.before.take().or_else(|| self.piece()).or_else(|| self.after.take())
    }
}

impl Stream for Pieces {
    type Item = Result<String, Infallible>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.get_mut().next().map(Ok))
    }
}

fn is_text(mime_type: &str) -> bool {
    mime_type.starts_with("text/") || mime_type == "application/json"
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Revision;

    fn written(mime_type: &str, bytes: &[u8], revision: Revision) -> Value {
        let found = ResourceContents {
            uri: "x://a\"b".into(),
            mime_type: mime_type.into(),
            bytes: bytes.to_vec().into(),
        };
        let result = crate::server::methods::cacheable(Map::new(), revision, 0);
        let text: String = Pieces::new(found, result, &Reply { revision, id: json!("}}\"") }).collect();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    #[test]
    fn the_pieces_are_one_message() {
        let found = written("image/png", b"\x89PNG", Revision::V2026);
        let contents = json!([{ "uri": "x://a\"b", "mimeType": "image/png", "blob": "iVBORw==" }]);
        let result =
            json!({ "ttlMs": 0, "cacheScope": "private", "resultType": "complete", "contents": contents });
        assert_eq!(found, json!({ "jsonrpc": "2.0", "id": "}}\"", "result": result }));
        let older = written("text/csv", "ä,\"b\"\n".as_bytes(), Revision::V2025);
        assert_eq!(older["result"]["contents"][0]["text"], "ä,\"b\"\n");
        assert_eq!(written("text/csv", &[0xff], Revision::V2025)["result"]["contents"][0]["blob"], "/w==");
        assert_eq!(written("text/csv", b"", Revision::V2025)["result"]["contents"][0]["text"], "");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn what_goes_in_comes_out(unit in "\\PC{1,40}", length in 0_usize..200_000) {
            let text: String = unit.chars().cycle().take(length).collect();
            let found = written("text/plain", text.as_bytes(), Revision::V2026);
            prop_assert_eq!(&found["result"]["contents"][0]["text"], &json!(text));
            let found = written("application/octet-stream", text.as_bytes(), Revision::V2026);
            let blob = found["result"]["contents"][0]["blob"].as_str().unwrap();
            prop_assert_eq!(STANDARD.decode(blob).unwrap(), text.as_bytes());
        }
    }
}
