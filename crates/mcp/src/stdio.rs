//! MCP over standard input and output, carried on to a server that speaks it over HTTP: one message a line each way
//! (2025-11-25 and 2026-07-28, transports, *stdio*).
//!
//! It adds what the HTTP side wants in headers, and takes nothing away. Who the caller is is the carrier's to prove.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use futures_core::Stream;
use serde_json::{Map, Value};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::header::encode;
use crate::json::{Limits, read};
use crate::message::{Message, RpcError};
use crate::{Revision, sse};

/// Requests that are carried at the same time.
const CARRIED_MAX: usize = 64;
/// Messages that wait to be written.
const WAITING_MAX: usize = 256;
/// The longest answer that is carried back, in bytes.
const ANSWER_MAX: usize = 64 << 20;

/// Carries a message to a server, and its answer back.
pub trait Carrier: Send + Sync + 'static {
    /// Sends a message with these headers, and who sends it besides. Fails with a sentence for the user.
    fn carry(
        &self,
        headers: HeaderMap,
        body: String,
    ) -> impl Future<Output = Result<Response, String>> + Send;
}

/// Carries messages until the input ends; what is under way then is given up.
pub async fn carry_all(
    carrier: impl Carrier,
    input: impl AsyncRead + Unpin,
    output: impl AsyncWrite + Unpin + Send + 'static,
) -> std::io::Result<()> {
    let (lines, waiting) = mpsc::channel(WAITING_MAX);
    let writer = tokio::spawn(write(waiting, output));
    let bridge = Arc::new(Bridge {
        carrier,
        lines,
        under_way: Mutex::default(),
        places: Semaphore::new(CARRIED_MAX),
        agreed: Mutex::default(),
    });
    let mut carrying = JoinSet::new();
    let mut input = BufReader::new(input);
    let limits = Limits::default();
    while let Some(line) = next_line(&mut input, limits.bytes_max).await? {
        while carrying.try_join_next().is_some() {}
        match line.map(|line| read(&line, &limits).map_err(|error| error.to_string())) {
            Some(Ok(message)) => bridge.clone().take(message, &mut carrying).await,
            Some(Err(error)) => {
                bridge.say(RpcError::parse(StatusCode::BAD_REQUEST, error).to_json(&Value::Null)).await;
            }
            None => {
                let error = format!("a message is longer than {} bytes", limits.bytes_max);
                bridge.say(RpcError::parse(StatusCode::BAD_REQUEST, error).to_json(&Value::Null)).await;
            }
        }
    }
    carrying.shutdown().await;
    drop(bridge);
    writer.await.unwrap_or(Ok(()))
}

/// The next line that says something; `Some(None)` for one that is too long, and was read over.
async fn next_line(
    input: &mut BufReader<impl AsyncRead + Unpin>,
    bytes_max: usize,
) -> std::io::Result<Option<Option<Vec<u8>>>> {
    loop {
        let mut line = Vec::new();
        let most = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
        if (&mut *input).take(most).read_until(b'\n', &mut line).await? == 0 {
            return Ok(None);
        }
        if line.len() > bytes_max && line.last() != Some(&b'\n') {
            skip_line(input).await?;
            return Ok(Some(None));
        }
        if !line.trim_ascii().is_empty() {
            return Ok(Some(Some(line)));
        }
    }
}

async fn skip_line(input: &mut BufReader<impl AsyncRead + Unpin>) -> std::io::Result<()> {
    loop {
        let seen = input.fill_buf().await?;
        let end = seen.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(seen.len(), |end| end + 1);
        let is_over = end.is_some() || seen.is_empty();
        input.consume(used);
        if is_over {
            return Ok(());
        }
    }
}

async fn write(
    mut waiting: mpsc::Receiver<Vec<u8>>,
    mut output: impl AsyncWrite + Unpin,
) -> std::io::Result<()> {
    while let Some(line) = waiting.recv().await {
        output.write_all(&line).await?;
        output.flush().await?;
    }
    Ok(())
}

struct Bridge<C> {
    carrier: C,
    lines: mpsc::Sender<Vec<u8>>,
    /// The requests that are being carried, by their ids.
    under_way: Mutex<HashMap<String, CancellationToken>>,
    places: Semaphore,
    /// The version that `initialize` agreed on.
    agreed: Mutex<Option<String>>,
}

impl<C: Carrier> Bridge<C> {
    async fn take(self: Arc<Self>, message: Value, carrying: &mut JoinSet<()>) {
        let body = message.to_string();
        match Message::read(message) {
            Ok(Message::Request { id, method, params }) => {
                let given_up = CancellationToken::new();
                if let Ok(mut under_way) = self.under_way.lock() {
                    under_way.insert(id.to_string(), given_up.clone());
                }
                let headers = self.headers(&method, &params);
                carrying.spawn(async move {
                    tokio::select! {
                        () = self.request(&id, &method, headers, body) => {}
                        // What hears that its caller is gone stops, as over HTTP.
                        () = given_up.cancelled() => {}
                    }
                    if let Ok(mut under_way) = self.under_way.lock() {
                        under_way.remove(&id.to_string());
                    }
                });
            }
            Ok(Message::Notification { method, params }) => {
                if method == "notifications/cancelled" {
                    self.give_up(&params);
                    return;
                }
                let headers = self.headers(&method, &params);
                // Nobody waits for an answer to it, and none is written.
                carrying.spawn(async move { drop(self.carrier.carry(headers, body).await) });
            }
            Ok(Message::Response) => {}
            Err(error) => self.say(error.to_json(&Value::Null)).await,
        }
    }

    fn give_up(&self, params: &Map<String, Value>) {
        let id = params.get("requestId").map(Value::to_string).unwrap_or_default();
        if let Some(request) = self.under_way.lock().ok().and_then(|under_way| under_way.get(&id).cloned()) {
            request.cancel();
        }
    }

    async fn request(&self, id: &Value, method: &str, headers: HeaderMap, body: String) {
        let Ok(_place) = self.places.acquire().await else { return };
        let answered = match self.carrier.carry(headers, body).await {
            Ok(answer) => self.pass_on(id, method, answer).await,
            Err(why) => Err(why),
        };
        if let Err(why) = answered {
            self.say(RpcError::internal(why).to_json(id)).await;
        }
    }

    /// Writes an answer, whether it is one message or a stream of them.
    async fn pass_on(&self, id: &Value, method: &str, answer: Response) -> Result<(), String> {
        let status = answer.status();
        let media_type = answer.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let is_stream = media_type.is_some_and(|text| text.starts_with("text/event-stream"));
        let mut chunks = answer.into_body().into_data_stream();
        if is_stream {
            return self.pass_on_events(id, chunks).await;
        }
        let mut whole = Vec::new();
        while let Some(more) = next(&mut chunks, whole.len()).await? {
            whole.extend_from_slice(&more);
        }
        let limits = Limits { bytes_max: ANSWER_MAX, items_max: usize::MAX, ..Limits::default() };
        let mut message = read(&whole, &limits).map_err(|_| format!("the gateway answered {status}"))?;
        if let Some(fields) = message.as_object_mut() {
            // Who was turned away at the door is told so without an id, which the door has not read.
            if fields.get("id").is_none_or(Value::is_null) {
                fields.insert("id".into(), id.clone());
            }
        }
        if method == "initialize" {
            let agreed = message.pointer("/result/protocolVersion").and_then(Value::as_str);
            if let (Ok(mut known), Some(agreed)) = (self.agreed.lock(), agreed) {
                *known = Some(agreed.to_owned());
            }
        }
        self.say(message).await;
        Ok(())
    }

    async fn pass_on_events(&self, id: &Value, mut chunks: BodyDataStream) -> Result<(), String> {
        let (mut events, mut seen, mut is_answered) = (sse::Reader::default(), 0, false);
        while let Some(more) = next(&mut chunks, seen).await? {
            seen += more.len();
            for data in events.push(&more) {
                let limits = Limits { bytes_max: ANSWER_MAX, items_max: usize::MAX, ..Limits::default() };
                let Ok(message) = read(&data, &limits) else { continue };
                is_answered |= message.get("id") == Some(id) && message.get("method").is_none();
                self.say(message).await;
            }
        }
        if is_answered { Ok(()) } else { Err("the gateway broke off before it answered".into()) }
    }

    async fn say(&self, message: Value) {
        let mut line = message.to_string().into_bytes();
        line.push(b'\n');
        // Nobody reads any more: the input ends next.
        let _nobody_reads = self.lines.send(line).await;
    }

    /// What the HTTP side wants to know of a message before it reads it.
    fn headers(&self, method: &str, params: &Map<String, Value>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut put = |name: &'static str, value: &str| {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        put("content-type", "application/json");
        put("accept", "application/json, text/event-stream");
        let meta = params.get("_meta").and_then(|meta| meta.get("io.modelcontextprotocol/protocolVersion"));
        let is_newest = meta.is_some() || method == "server/discover";
        let agreed = self.agreed.lock().ok().and_then(|agreed| agreed.clone());
        match (meta.and_then(Value::as_str), agreed) {
            (Some(version), _) => put("mcp-protocol-version", version),
            (None, _) if method == "initialize" => {}
            (None, agreed) => {
                put("mcp-protocol-version", agreed.as_deref().unwrap_or(Revision::V2025.as_str()));
            }
        }
        if is_newest {
            put("mcp-method", &encode(method));
            let key = if method == "resources/read" { "uri" } else { "name" };
            let named = matches!(method, "tools/call" | "prompts/get" | "resources/read");
            if let Some(name) = params.get(key).and_then(Value::as_str).filter(|_| named) {
                put("mcp-name", &encode(name));
            }
        }
        headers
    }
}

async fn next(chunks: &mut BodyDataStream, seen: usize) -> Result<Option<axum::body::Bytes>, String> {
    let more = std::future::poll_fn(|context| std::pin::Pin::new(&mut *chunks).poll_next(context)).await;
    match more.transpose() {
        Ok(Some(more)) if seen + more.len() > ANSWER_MAX => {
            Err(format!("an answer is longer than {ANSWER_MAX} bytes"))
        }
        Ok(more) => Ok(more),
        Err(_) => Err("the gateway broke off".into()),
    }
}

/// The answer of another HTTP stack, as a carrier gives one.
#[must_use]
pub fn response(status: u16, content_type: Option<&HeaderValue>, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    if let Some(content_type) = content_type {
        response.headers_mut().insert(header::CONTENT_TYPE, content_type.clone());
    }
    response
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::duplex;

    use super::*;

    /// Answers with what it was sent; a method `wait` never, `events` as a stream, `fail` not at all.
    struct Echo(Arc<CancellationToken>);

    impl Carrier for Echo {
        async fn carry(&self, headers: HeaderMap, body: String) -> Result<Response, String> {
            let message: Value = serde_json::from_str(&body).unwrap();
            let version = headers.get("mcp-protocol-version").map(|value| value.to_str().unwrap().to_owned());
            let names = [headers.get("mcp-method"), headers.get("mcp-name")];
            let names = names.map(|name| name.map(|name| name.to_str().unwrap().to_owned()));
            let result = json!({ "version": version, "names": names, "protocolVersion": "2025-11-25" });
            let answer = json!({ "jsonrpc": "2.0", "id": message["id"], "result": result });
            let content = HeaderValue::from_static("application/json");
            match message["method"].as_str().unwrap() {
                "wait" => {
                    let _dropped = Dropped(self.0.clone());
                    std::future::pending().await
                }
                "fail" => Err("the gateway does not answer".into()),
                "refuse" => {
                    let refused =
                        json!({ "jsonrpc": "2.0", "id": null, "error": { "code": -32600, "message": "no" } });
                    Ok(response(401, Some(&content), Body::from(refused.to_string())))
                }
                "events" => {
                    let told = json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": {} });
                    let events = Body::from(sse::event(&told) + &sse::event(&answer));
                    Ok(response(200, Some(&HeaderValue::from_static("text/event-stream")), events))
                }
                _ => Ok(response(200, Some(&content), Body::from(answer.to_string()))),
            }
        }
    }

    struct Dropped(Arc<CancellationToken>);

    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.cancel();
        }
    }

    /// What is written for these lines, in the order in which it came.
    async fn said(lines: &[String]) -> Vec<Value> {
        let (near, far) = duplex(1 << 20);
        let (mut answers, theirs) = duplex(4 << 20);
        let carried = tokio::spawn(carry_all(Echo(Arc::default()), far, theirs));
        let mut near = near;
        let (mut said, mut reader) = (Vec::new(), BufReader::new(&mut answers));
        for line in lines {
            near.write_all(line.as_bytes()).await.unwrap();
            near.write_all(b"\n").await.unwrap();
            let mut answer = String::new();
            reader.read_line(&mut answer).await.unwrap();
            said.push(serde_json::from_str(&answer).unwrap());
        }
        drop(near);
        carried.await.unwrap().unwrap();
        said
    }

    fn request(id: u64, method: &str, params: &Value) -> String {
        json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string()
    }

    #[tokio::test]
    async fn a_message_gets_the_headers_of_its_revision() {
        let meta = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28" });
        let said = said(&[
            request(1, "initialize", &json!({ "protocolVersion": "2025-11-25" })),
            request(2, "tools/call", &json!({ "name": "a" })),
            request(3, "tools/call", &json!({ "name": "ä", "_meta": meta })),
            request(4, "tools/list", &json!({ "_meta": meta })),
        ])
        .await;
        let seen: Vec<(&Value, &Value)> =
            said.iter().map(|answer| (&answer["result"]["version"], &answer["result"]["names"])).collect();
        assert_eq!(
            seen,
            [
                (&json!(null), &json!([null, null])),
                (&json!("2025-11-25"), &json!([null, null])),
                (&json!("2026-07-28"), &json!(["tools/call", "=?base64?w6Q=?="])),
                (&json!("2026-07-28"), &json!(["tools/list", null])),
            ]
        );
    }

    #[tokio::test]
    async fn every_request_is_answered_under_its_own_id() {
        let long = format!("\"{}\"", "x".repeat(2 << 20));
        let said = said(&[
            request(1, "fail", &json!({})),
            request(2, "refuse", &json!({})),
            "{ \"a\": 1, \"a\": 2 }".into(),
            long,
            "[]".into(),
            request(3, "ping", &json!({})),
        ])
        .await;
        let seen: Vec<(&Value, &Value)> =
            said.iter().map(|answer| (&answer["id"], &answer["error"]["code"])).collect();
        let (none, parse) = (json!(null), json!(-32700));
        assert_eq!(
            seen,
            [
                (&json!(1), &json!(-32603)),
                (&json!(2), &json!(-32600)),
                (&none, &parse),
                (&none, &parse),
                (&none, &json!(-32600)),
                (&json!(3), &none),
            ]
        );
    }

    #[tokio::test]
    async fn a_stream_is_passed_on_and_a_request_that_is_given_up_is_dropped() {
        let (mut near, far) = duplex(1 << 16);
        let (answers, theirs) = duplex(1 << 16);
        let dropped = Arc::new(CancellationToken::new());
        let carried = tokio::spawn(carry_all(Echo(dropped.clone()), far, theirs));
        let mut lines = BufReader::new(answers).lines();
        let cancel =
            json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } });
        for line in [request(1, "wait", &json!({})), request(2, "events", &json!({}))] {
            near.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        }
        let heard = [lines.next_line().await.unwrap().unwrap(), lines.next_line().await.unwrap().unwrap()];
        assert!(heard[0].contains("notifications/progress") && heard[1].contains("\"id\":2"), "{heard:?}");
        assert!(!dropped.is_cancelled(), "the control");
        near.write_all(format!("{cancel}\n").as_bytes()).await.unwrap();
        dropped.cancelled().await;
        drop(near);
        carried.await.unwrap().unwrap();
    }
}
