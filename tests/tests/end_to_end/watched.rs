//! A client that watches a call, gives it up, or comes back for what it made, against the gateway itself.

use std::time::Duration;

use axum::Router;
use axum::routing::patch;
use ringfence_mcp::client::Client;
use ringfence_mcp::{Revision, ToolCall};
use ringfence_tests::{Project, Serving, until};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::walls::EDIT;

/// Runs far longer than a test waits.
const LONG: &str = "import time; time.sleep(25)";

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn tool_call(name: &str, arguments: &Value) -> ToolCall {
    ToolCall { name: name.into(), arguments: arguments.as_object().unwrap().clone() }
}

fn client(project: &Project, serving: &Serving, user: &str, revision: Revision) -> Client {
    serving.client(&project.token(user, &[]), revision)
}

fn outcomes(project: &Project) -> Vec<Value> {
    project.journal().into_iter().filter(|entry| entry["kind"] == "outcome").collect()
}

/// Calls a tool and hangs up once its intent is in the journal.
fn hang_up(project: &Project, client: &Client, call: ToolCall) {
    let runtime = runtime();
    let calling = runtime.spawn({
        let client = client.clone();
        async move { client.call(call).await }
    });
    until("the intent", || project.journal().iter().any(|entry| entry["kind"] == "intent"));
    // The tool has to be at work, not only recorded.
    std::thread::sleep(Duration::from_millis(300));
    calling.abort();
    runtime.shutdown_timeout(Duration::from_secs(1));
}

#[test]
fn a_program_whose_client_hangs_up_is_stopped_and_its_call_is_closed() {
    for revision in Revision::ALL {
        let project = Project::new();
        let serving = project.serve(&[]);
        let bob = client(&project, &serving, "bob", revision);
        hang_up(&project, &bob, tool_call("run_python", &json!({ "code": LONG })));
        until("the outcome", || !outcomes(&project).is_empty());
        let closed = outcomes(&project);
        assert_eq!(closed[0]["ended"], "done");
        assert!(closed[0]["duration_us"].as_u64().unwrap() < 8_000_000, "{closed:?}");
    }
}

#[test]
fn a_write_whose_client_hangs_up_runs_to_its_end() {
    let runtime = runtime();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = || async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        json!({ "id": "T-1" }).to_string()
    };
    let router = Router::new().route("/tickets/{id}", patch(answer));
    runtime.spawn(async move { axum::serve(listener, router).await });
    let project = Project::new();
    project
        .append("ringfence.toml", &format!("\n[systems.tickets]\nkind = \"http\"\nbase-url = \"{url}\"\n"));
    project.write("tools/tickets.toml", EDIT);
    project.append(
        "policies/policies.cedar",
        "permit (principal, action == Action::\"edit_ticket\", resource);\n",
    );
    let serving = project.serve(&[]);
    let bob = client(&project, &serving, "bob", Revision::V2026);
    let edit = json!({ "ticket_id": "T-1", "title": "x" });
    hang_up(&project, &bob, tool_call("edit_ticket", &edit));
    until("the outcome", || !outcomes(&project).is_empty());
    let closed = outcomes(&project);
    assert_eq!(closed[0]["ended"], "done", "{closed:?}");
    assert!(closed[0]["duration_us"].as_u64().unwrap() > 1_400_000, "it was not cut short: {closed:?}");
}

#[test]
fn a_program_is_stopped_by_a_notification_of_its_own_user_alone() {
    let project = Project::new();
    let serving = project.serve(&[]);
    let runtime = runtime();
    let bob = client(&project, &serving, "bob", Revision::V2025);
    let calling = runtime.spawn({
        let bob = bob.clone();
        async move { bob.call(tool_call("run_python", &json!({ "code": LONG }))).await }
    });
    until("the intent", || project.journal().iter().any(|entry| entry["kind"] == "intent"));
    let cancel = |client: &Client| {
        let params = json!({ "requestId": 1 });
        let body = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params });
        let headers = client.headers("notifications/cancelled", None);
        assert_eq!(runtime.block_on(client.send(headers, body.to_string())).unwrap().status, 202);
    };
    cancel(&client(&project, &serving, "eve", Revision::V2025));
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(outcomes(&project), Vec::<Value>::new(), "Eve stops nobody but herself");
    cancel(&bob);
    let answer = runtime.block_on(calling).unwrap().unwrap();
    let ended = &answer.result().unwrap()["structuredContent"]["ended"];
    assert_eq!(ended, &json!({ "how": "cancelled" }), "{answer:?}");
    assert_eq!(outcomes(&project).len(), 1);
}

#[test]
fn a_client_that_asks_for_progress_gets_its_answer_either_way() {
    let project = Project::new();
    let serving = project.serve(&[]);
    for revision in Revision::ALL {
        let bob = client(&project, &serving, "bob", revision);
        let call = tool_call("run_python", &json!({ "code": "print(6 * 7)" }));
        let answer = runtime().block_on(bob.call_and_hear(call, |_| {})).unwrap();
        assert_eq!(answer.result().unwrap()["structuredContent"]["stdout"], "42\n", "{answer:?}");
    }
}

#[test]
fn what_a_program_writes_is_heard_before_it_ends_and_after_its_labels() {
    let project = Project::new();
    project
        .edit("tools/python.toml", |text| text.replace("program = ", "yields = [\"untrusted\"]\nprogram = "));
    let serving = project.serve(&[]);
    for revision in Revision::ALL {
        let bob = client(&project, &serving, "bob", revision);
        let code = "import time; print('one', flush=True); time.sleep(1); print('two')";
        let mut heard = String::new();
        let mut first: Option<std::time::Instant> = None;
        let call = tool_call("run_python", &json!({ "code": code }));
        let answer = runtime().block_on(bob.call_and_hear(call, |notified| {
            let labelled = project.journal().iter().any(|entry| entry["kind"] == "labelled");
            assert!(labelled, "the labels came first");
            first.get_or_insert_with(std::time::Instant::now);
            heard.push_str(notified["params"]["message"].as_str().unwrap());
        }));
        assert_eq!(answer.unwrap().result().unwrap()["structuredContent"]["stdout"], "one\ntwo\n");
        assert!(heard.starts_with("one\n"), "in one piece or in several: {heard:?}");
        assert!(first.unwrap().elapsed() > Duration::from_millis(500), "it came while the program ran");
    }
}

#[test]
fn nobody_has_artifacts_before_a_call_made_some() {
    let project = Project::new();
    let serving = project.serve(&[]);
    for (revision, code) in [(Revision::V2026, -32602), (Revision::V2025, -32002)] {
        let bob = client(&project, &serving, "bob", revision);
        let ask = |method: &str, params: Value| {
            runtime().block_on(bob.request(method, params.as_object().unwrap().clone())).unwrap()
        };
        assert_eq!(ask("resources/list", json!({})).result().unwrap()["resources"], json!([]));
        let uri = "ringfence://artifacts/00000000000000000000000000000000/a";
        assert_eq!(ask("resources/read", json!({ "uri": uri })).error_code(), Some(code));
    }
    let refused = project.journal().into_iter().filter(|entry| entry["code"] == "unknown_artifact");
    assert_eq!(refused.count(), 2);
}
