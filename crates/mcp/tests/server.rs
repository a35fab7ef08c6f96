//! The server in front of a service that a test scripts, over real connections.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::http::HeaderMap;
use ringfence_mcp::client::{Answer, Client};
use ringfence_mcp::{
    Challenge, Content, NotRead, ResourceContents, ResourceDescription, Revision, Service, Settings,
    ToolCall, ToolDescription, ToolResult, Watch, router,
};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);
const URI: &str = "x://1/ä.csv";

/// What a test waits for, and what it lets go on.
#[derive(Default)]
struct Script {
    go_on: Notify,
    cancelled: Notify,
    finished: Notify,
}

/// Does what the tool's name says.
struct Scripted(Arc<Script>);

#[async_trait]
impl Service for Scripted {
    type Caller = String;

    async fn authenticate(&self, headers: &HeaderMap) -> Result<String, Challenge> {
        Ok(headers["authorization"].to_str().unwrap().replace("Bearer ", ""))
    }

    async fn tools(&self, _: &String) -> Result<Vec<ToolDescription>, Challenge> {
        Ok(Vec::new())
    }

    async fn call(&self, _: String, call: ToolCall, watch: Watch) -> Result<ToolResult, Challenge> {
        let script = self.0.clone();
        match call.name.as_str() {
            "forbidden" => {
                return Err(Challenge {
                    status: 403,
                    www_authenticate: None,
                    retry_after_seconds: None,
                    message: "no".into(),
                });
            }
            "talks" => {
                watch.send("one ");
                script.go_on.notified().await;
                watch.send("two");
            }
            "waits" => {
                watch.send("waiting");
                // As a gateway does: its work is not part of what a client that hangs up drops.
                let work = async move {
                    tokio::select! {
                        () = watch.cancellation().cancelled() => script.cancelled.notify_one(),
                        () = script.go_on.notified() => {}
                    }
                };
                tokio::spawn(work).await.unwrap();
            }
            "floods" => {
                let work = async move {
                    for _ in 0..2000 {
                        watch.send(&"flood ".repeat(1000));
                        tokio::task::yield_now().await;
                    }
                    script.finished.notify_one();
                };
                tokio::spawn(work).await.unwrap();
            }
            _ => {}
        }
        Ok(ToolResult {
            content: vec![Content::text("done")],
            structured: None,
            is_error: false,
            open_first: None,
        })
    }

    fn owner(&self, caller: &String) -> String {
        caller.clone()
    }

    async fn resources(&self, caller: &String) -> Vec<ResourceDescription> {
        let (uri, name, mime_type) = (URI.to_owned(), "a.csv".to_owned(), "text/csv".to_owned());
        let resource = ResourceDescription { uri, name, mime_type, bytes: 3 };
        if caller == "bob" { vec![resource] } else { Vec::new() }
    }

    async fn read(&self, caller: &String, uri: &str) -> Result<ResourceContents, NotRead> {
        if caller != "bob" || uri != URI {
            return Err(NotRead::Unknown);
        }
        Ok(ResourceContents { uri: uri.to_owned(), mime_type: "text/csv".into(), bytes: "a,b".into() })
    }
}

/// A server, and its address.
async fn serve() -> (Arc<Script>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let script = Arc::new(Script::default());
    let settings = Settings { allowed_hosts: vec![address.clone()], ..Settings::new("test", "1") };
    let router = router(Arc::new(Scripted(script.clone())), settings);
    tokio::spawn(async move { axum::serve(listener, router).await });
    (script, address)
}

fn client(address: &str, who: &str, revision: Revision) -> Client {
    Client::new(format!("http://{address}/mcp"), Some(who.to_owned()), revision).unwrap()
}

fn tool(name: &str) -> ToolCall {
    ToolCall { name: name.into(), arguments: Map::new() }
}

async fn request(client: &Client, method: &str, params: Value) -> Answer {
    client.request(method, params.as_object().unwrap().clone()).await.unwrap()
}

#[tokio::test]
async fn progress_comes_before_the_end_and_the_answer_last() {
    for revision in Revision::ALL {
        let (script, address) = serve().await;
        let bob = client(&address, "bob", revision);
        let mut heard = Vec::new();
        let call = bob.call_and_hear(tool("talks"), |notified| {
            // The call goes on only because its first word was heard.
            script.go_on.notify_one();
            heard.push(notified);
        });
        let answer = timeout(PATIENCE, call).await.unwrap().unwrap();
        assert_eq!(answer.result().unwrap()["content"][0]["text"], "done");
        let said = |progress: u64, text: &str| {
            let params = json!({ "progressToken": "the call", "progress": progress, "message": text });
            json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params })
        };
        assert_eq!(heard, [said(4, "one "), said(7, "two")]);
    }
}

#[tokio::test]
async fn an_answer_is_plain_where_nobody_asked_for_progress_or_there_was_none() {
    for revision in Revision::ALL {
        let (script, address) = serve().await;
        let bob = client(&address, "bob", revision);
        let mut heard = 0;
        let quick = bob.call_and_hear(tool("quick"), |_| heard += 1).await.unwrap();
        assert_eq!((heard, &quick.result().unwrap()["content"][0]["text"]), (0, &json!("done")));
        script.go_on.notify_one();
        assert_eq!(bob.call(tool("talks")).await.unwrap(), quick);
        let refused = bob.call_and_hear(tool("forbidden"), |_| {}).await.unwrap();
        assert_eq!(refused.status, 403, "what is known before the first word has a status of its own");
        let long = "x".repeat(257);
        for (token, status) in [(json!(7), 200), (json!({}), 400), (json!(1.5), 400), (json!(long), 400)] {
            let params = json!({ "name": "quick", "_meta": { "progressToken": token } });
            assert_eq!(request(&bob, "tools/call", params).await.status, status, "{token}");
        }
    }
}

#[tokio::test]
async fn hanging_up_cancels_with_and_without_a_stream() {
    for revision in Revision::ALL {
        for hears in [true, false] {
            let (script, address) = serve().await;
            let bob = client(&address, "bob", revision);
            // The control: a client that stays is not cancelled.
            script.go_on.notify_one();
            assert_eq!(bob.call_and_hear(tool("waits"), |_| {}).await.unwrap().status, 200);
            let call = async {
                if hears {
                    bob.call_and_hear(tool("waits"), |_| {}).await
                } else {
                    bob.call(tool("waits")).await
                }
            };
            assert!(timeout(Duration::from_millis(300), call).await.is_err());
            timeout(PATIENCE, script.cancelled.notified()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_notification_cancels_a_call_of_its_own_owner_alone() {
    let (script, address) = serve().await;
    let notify = async |who: &str, request_id: Value| {
        let client = client(&address, who, Revision::V2025);
        let params = json!({ "requestId": request_id, "reason": "x" });
        let body = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params });
        let headers = client.headers("notifications/cancelled", None);
        assert_eq!(client.send(headers, body.to_string()).await.unwrap().status, 202);
    };
    let bob = client(&address, "bob", Revision::V2025);
    let call = tokio::spawn(async move { bob.call_and_hear(tool("waits"), |_| {}).await });
    let cancelled = script.cancelled.notified();
    tokio::pin!(cancelled);
    assert!(timeout(Duration::from_millis(200), cancelled.as_mut()).await.is_err(), "it is under way");
    for (who, id) in [("eve", json!(1)), ("bob", json!(2)), ("bob", json!("1")), ("bob", json!(null))] {
        notify(who, id).await;
    }
    let so_far = timeout(Duration::from_millis(200), cancelled.as_mut()).await;
    assert!(so_far.is_err(), "nobody who may has cancelled it");
    notify("bob", json!(1)).await;
    timeout(PATIENCE, cancelled).await.unwrap();
    assert_eq!(call.await.unwrap().unwrap().status, 200);
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_nothing_and_gets_the_answer_in_the_end() {
    let (script, address) = serve().await;
    let mut slow = TcpStream::connect(&address).await.unwrap();
    let params = json!({ "name": "floods", "_meta": { "progressToken": 1 } });
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }).to_string();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer bob\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\nmcp-protocol-version: 2025-11-25\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    // 12 MB are said while nobody reads.
    timeout(PATIENCE, script.finished.notified()).await.unwrap();
    let mut read = Vec::new();
    timeout(PATIENCE, slow.read_to_end(&mut read)).await.unwrap().unwrap();
    let read = String::from_utf8(read).unwrap();
    let head = read.split("\r\n\r\n").next().unwrap();
    assert!(
        head.contains("content-type: text/event-stream") && head.contains("x-accel-buffering: no"),
        "{head}"
    );
    assert!(read.contains("notifications/progress"), "the control: something was heard");
    assert!(read.len() < 1 << 20, "{}", read.len());
    let last = read.rsplit("data: ").next().unwrap();
    assert!(last.contains("\"text\":\"done\""), "{last}");
}

#[tokio::test]
async fn resources_are_listed_and_read_and_an_unknown_one_has_the_code_of_its_revision() {
    let (_, address) = serve().await;
    for revision in Revision::ALL {
        let [bob, eve] = ["bob", "eve"].map(|who| client(&address, who, revision));
        let listed = request(&bob, "resources/list", json!({})).await;
        let entry = json!({ "uri": URI, "name": "a.csv", "mimeType": "text/csv", "size": 3 });
        assert_eq!(listed.result().unwrap()["resources"], json!([entry]));
        let templates = request(&bob, "resources/templates/list", json!({})).await;
        assert_eq!(templates.result().unwrap()["resourceTemplates"], json!([]));
        let read = request(&bob, "resources/read", json!({ "uri": URI })).await;
        let contents = json!([{ "uri": URI, "mimeType": "text/csv", "text": "a,b" }]);
        assert_eq!(read.result().unwrap()["contents"], contents);
        if revision == Revision::V2026 {
            for answer in [&listed, &templates, &read] {
                let result = answer.result().unwrap();
                let seen = [&result["resultType"], &result["cacheScope"], &result["ttlMs"]];
                assert_eq!(seen, [&json!("complete"), &json!("private"), &json!(0)]);
            }
        }
        let foreign = request(&eve, "resources/read", json!({ "uri": URI })).await;
        let missing = request(&bob, "resources/read", json!({ "uri": "x://2" })).await;
        let code = if revision == Revision::V2026 { -32602 } else { -32002 };
        assert_eq!((foreign.error_code(), &foreign), (Some(code), &missing));
    }
}

#[tokio::test]
async fn a_resource_is_named_alike_in_header_and_body() {
    let (_, address) = serve().await;
    let bob = client(&address, "bob", Revision::V2026);
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {},
    });
    let params = json!({ "uri": URI, "_meta": meta });
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": params }).to_string();
    for (name, status) in [(Some(URI), 200), (Some("x://2"), 400), (None, 400)] {
        let answer = bob.send(bob.headers("resources/read", name), body.clone()).await.unwrap();
        assert_eq!((answer.status, answer.error_code()), (status, (status == 400).then_some(-32020)));
    }
}
