//! The gateway as a service: health, stopping, crashing, and what it does when a step of the pipeline fails.

use std::time::Duration;

use ringfence_mcp::{Revision, ToolCall};
use ringfence_tests::{PATIENCE, Project, Serving, ringfence, until};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::commands::PURGE;

const READ: &str = "get_user_monthly_metrics";
/// No program for whoever has read what anyone may have written.
const UNTRUSTED: &str = "forbid (principal, action == Action::\"run_python\", resource) when { context.run.labels.contains(\"untrusted\") };\n";

fn tool_call(name: &str, arguments: &Value) -> ToolCall {
    ToolCall { name: name.into(), arguments: arguments.as_object().unwrap().clone() }
}

/// Starts a program that runs for this long, and waits until the journal has its intent.
fn program_under_way(project: &Project, serving: &Serving, seconds: f32) -> std::thread::JoinHandle<Value> {
    let client = serving.client(&project.token("bob", &[]), Revision::V2026);
    let code = format!("import time; time.sleep({seconds}); print('finished')");
    let calling = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let call = client.call(tool_call("run_python", &json!({ "code": code })));
        runtime.block_on(call).map_or(Value::Null, |answer| answer.body)
    });
    until("the intent", || project.journal().iter().any(|entry| entry["kind"] == "intent"));
    calling
}

fn outcomes(project: &Project) -> Vec<Value> {
    let entries = project.journal();
    entries
        .into_iter()
        .filter(|entry| entry["kind"] == "outcome")
        .map(|entry| entry["ended"].clone())
        .collect()
}

#[test]
fn it_says_how_it_is_and_stops_when_it_is_told_to() {
    let project = Project::new();
    let serving = project.serve(&[]);
    for (path, text) in [("/healthz", "ok\n"), ("/readyz", "ready\n")] {
        assert_eq!(get(&format!("{}{path}", serving.origin())), (200, text.to_owned()));
    }
    assert_eq!(get(&serving.mcp).0, 405, "there is no stream to listen to");
    let (code, log, took) = serving.stop(Signal::TERM);
    assert_eq!(code, Some(0), "{log}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(log.contains("the development issuer is on: for development, never for production"), "{log}");
    assert_eq!(ringfence(&["journal", "verify", project.path()]).code, 0);
    assert_eq!(project.journal().last().unwrap()["kind"], "closed");
}

fn get(url: &str) -> (u16, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let response = reqwest::get(url).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    })
}

#[test]
fn a_call_under_way_finishes_before_it_stops() {
    let project = Project::new();
    let serving = project.serve(&[]);
    let calling = program_under_way(&project, &serving, 1.5);
    assert_eq!(serving.stop(Signal::TERM).0, Some(0));
    let body = calling.join().unwrap();
    assert_eq!(body["result"]["structuredContent"]["stdout"], "finished\n", "{body}");
    assert_eq!(outcomes(&project), ["done"]);
}

#[test]
fn a_call_that_does_not_finish_is_closed_as_unknown() {
    let project = Project::new();
    let serving = project.serve(&["--grace-seconds", "0"]);
    let calling = program_under_way(&project, &serving, 8.0);
    let (code, _, took) = serving.stop(Signal::TERM);
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(7), "{took:?}");
    let body = calling.join().unwrap();
    assert_eq!(body["result"]["structuredContent"]["refusal"]["code"], "outcome_unknown", "{body}");
    assert_eq!(outcomes(&project), ["unknown"]);
    assert_eq!(ringfence(&["journal", "verify", project.path()]).code, 0);
}

#[test]
fn a_call_that_a_crash_cut_off_is_closed_as_unknown_at_the_next_start_and_never_run_again() {
    let project = Project::new();
    let serving = project.serve(&[]);
    let calling = program_under_way(&project, &serving, 8.0);
    // The intent of a read is durable within 50 ms.
    std::thread::sleep(Duration::from_millis(200));
    let _killed = serving.stop(Signal::KILL);
    assert_eq!(calling.join().unwrap(), Value::Null, "the connection broke");
    assert_eq!(outcomes(&project), Vec::<Value>::new());
    let serving = project.serve(&[]);
    assert_eq!(outcomes(&project), ["unknown"]);
    assert_eq!(project.journal().iter().filter(|entry| entry["kind"] == "intent").count(), 1);
    assert_eq!(serving.stop(Signal::TERM).0, Some(0));
    assert_eq!(ringfence(&["journal", "verify", project.path()]).code, 0);
}

#[test]
fn what_cannot_be_recorded_does_not_run() {
    let project = Project::new();
    project.append("tools/metrics.toml", &PURGE.replace("irreversible", "write"));
    project.append("policies/policies.cedar", "permit (principal, action == Action::\"purge\", resource);\n");
    let serving = project.serve(&[]);
    let client = serving.client(&project.token("bob", &[]), Revision::V2026);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let purge =
        || runtime.block_on(client.call(tool_call("purge", &json!({ "user_id": "u-3" })))).unwrap().body;
    let rows = || -> u32 {
        project
            .database("metrics.db")
            .query_row("SELECT count(*) FROM user_metrics", [], |row| row.get(0))
            .unwrap()
    };
    // The run begins while it can be recorded.
    runtime.block_on(client.tools()).unwrap();
    // Someone else holds the journal's file for as long as it takes.
    let holding = project.database("state/journal.db");
    holding.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refusal = purge()["result"]["structuredContent"]["refusal"].clone();
    assert_eq!((&refusal["class"], &refusal["wall"]), (&json!("internal"), &json!("journal")), "{refusal}");
    assert_eq!(rows(), 5, "nothing was done");
    assert_eq!(get(&format!("{}/readyz", serving.origin())).0, 503);
    holding.execute_batch("ROLLBACK").unwrap();
    // The control: with the journal back, the same call has its effect.
    until("a call that is recorded", || purge()["result"]["isError"] != true);
    assert_eq!(rows(), 4);
    assert_eq!(get(&format!("{}/readyz", serving.origin())).0, 200);
}

#[test]
fn each_door_wants_a_token_of_its_own() {
    let project = Project::new();
    project.edit("users.toml", |text| text.replace("\"team-leads\"", "\"operators\""));
    let serving = project.serve(&[]);
    let control = std::fs::read_to_string(project.file("ringfence.toml")).unwrap();
    let control = control.lines().find_map(|line| line.strip_prefix("control = \"")).unwrap();
    let status = format!("http://{}/v1/status", control.split('"').next().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ask = |token: String| {
        runtime.block_on(async {
            let asking = reqwest::Client::new().get(&status).bearer_auth(token).timeout(PATIENCE).send();
            asking.await.unwrap().status().as_u16()
        })
    };
    assert_eq!(ask(project.token("alice", &["--door", "people"])), 200);
    assert_eq!(ask(project.token("bob", &["--door", "people"])), 403, "Bob is no operator");
    assert_eq!(ask(project.token("alice", &[])), 401, "the agents' token does not open it");
    let people = serving.client(&project.token("alice", &["--door", "people"]), Revision::V2026);
    let read = tool_call(READ, &json!({ "user_id": "u-1", "month": "2026-10" }));
    assert_eq!(runtime.block_on(people.call(read)).unwrap().status, 401, "nor the other way round");
}

#[test]
fn labels_outlive_a_restart() {
    let project = Project::new();
    project.edit("tools/metrics.toml", |text| {
        text.replace("describe = \"One", "yields = [\"untrusted\"]\ndescribe = \"One")
    });
    project.append("policies/policies.cedar", UNTRUSTED);
    let call = |tool: &str, arguments: &Value| {
        let serving = project.serve(&[]);
        let client = serving.client(&project.token("bob", &[]), Revision::V2026);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let body = runtime.block_on(client.call(tool_call(tool, arguments))).unwrap().body;
        assert_eq!(serving.stop(Signal::TERM).0, Some(0));
        body["result"]["isError"].clone()
    };
    let program = json!({ "code": "1" });
    assert_eq!(call("run_python", &program), false, "the control");
    assert_eq!(call(READ, &json!({ "user_id": "u-1", "month": "2026-10" })), false);
    assert_eq!(call("run_python", &program), true, "another gateway, the same run");
}

#[test]
fn no_call_comes_in_once_it_stops_and_none_is_left_open() {
    let project = Project::new();
    let serving = project.serve(&[]);
    let client = serving.client(&project.token("bob", &[]), Revision::V2026);
    let calling: Vec<_> = (0..8)
        .map(|_| {
            let client = client.clone();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let read = || client.call(tool_call(READ, &json!({ "user_id": "u-1", "month": "2026-10" })));
                while runtime.block_on(read()).is_ok_and(|answer| answer.status == 200) {}
            })
        })
        .collect();
    until("some calls", || outcomes(&project).len() > 50);
    assert_eq!(serving.stop(Signal::TERM).0, Some(0));
    for calling in calling {
        calling.join().unwrap();
    }
    let entries = project.journal();
    let count = |kind: &str| entries.iter().filter(|entry| entry["kind"] == kind).count();
    assert_eq!((count("intent") > 50, count("intent")), (true, count("outcome")));
    assert_eq!(entries.last().unwrap()["kind"], "closed");
}

#[test]
fn one_agent_does_not_fill_the_journal_with_refusals() {
    let project = Project::new();
    let serving = project.serve(&[]);
    let client = serving.client(&project.token("bob", &[]), Revision::V2026);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for _ in 0..300 {
        let refused = runtime.block_on(client.call(tool_call("execute_sql", &json!({})))).unwrap();
        assert_eq!(refused.body["result"]["isError"], true);
    }
    // One that matters, in the middle of the flood: to set what comes from the identity.
    let bound = tool_call(READ, &json!({ "user_id": "u-1", "month": "2026-10", "tenant": "globex" }));
    let refused = runtime.block_on(client.call(bound)).unwrap();
    assert_eq!(refused.body["result"]["structuredContent"]["refusal"]["code"], "argument_invalid");
    assert_eq!(serving.stop(Signal::TERM).0, Some(0));
    let entries = project.journal();
    let kept = |code: &str| {
        entries.iter().filter(|entry| entry["kind"] == "refused" && entry["code"] == code).count() as u64
    };
    let counted =
        |code: &str| -> u64 { entries.iter().filter_map(|entry| entry["refused"][code].as_u64()).sum() };
    let seen = ["unknown_tool", "bound_parameter"].map(|code| kept(code) + counted(code));
    assert_eq!(seen, [300, 1], "each is kept or counted, to the last");
    assert!(kept("unknown_tool") < 200, "{}", kept("unknown_tool"));
}

#[test]
fn what_a_call_beside_the_gateway_touched_counts_at_once() {
    let project = Project::new();
    project.edit("tools/metrics.toml", |text| {
        text.replace("describe = \"One", "yields = [\"untrusted\"]\ndescribe = \"One")
    });
    project.append("policies/policies.cedar", UNTRUSTED);
    let serving = project.serve(&[]);
    // The same principal and agent, and so the same run, as `ringfence call`.
    let client = serving.client(&project.token("bob", &["--agent", "ringfence-cli"]), Revision::V2026);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let program = || {
        let answer = runtime.block_on(client.call(tool_call("run_python", &json!({ "code": "1" })))).unwrap();
        answer.body["result"]["isError"].clone()
    };
    assert_eq!(program(), false, "the control");
    assert!(project.call("bob", READ, &["user_id=u-1", "month=2026-10"])["done"].is_object());
    assert_eq!(program(), true, "another process read it");
}

#[test]
fn a_result_whose_labels_cannot_be_recorded_is_withheld() {
    let project = Project::new();
    project
        .edit("tools/python.toml", |text| text.replace("program = ", "yields = [\"untrusted\"]\nprogram = "));
    let serving = project.serve(&[]);
    let calling = program_under_way(&project, &serving, 1.0);
    // Someone else holds the journal's file until the gateway gives up.
    let holding = project.database("state/journal.db");
    holding.execute_batch("BEGIN IMMEDIATE").unwrap();
    let withheld = calling.join().unwrap();
    let refusal = &withheld["result"]["structuredContent"]["refusal"];
    assert_eq!(
        (&refusal["code"], &refusal["wall"]),
        (&json!("not_recorded"), &json!("journal")),
        "{withheld}"
    );
    assert!(!withheld.to_string().contains("finished"), "{withheld}");
    holding.execute_batch("ROLLBACK").unwrap();
    // The control: with the journal back, the same program's result is handed out.
    until("the journal", || get(&format!("{}/readyz", serving.origin())).0 == 200);
    let done = program_under_way(&project, &serving, 0.1).join().unwrap();
    assert_eq!(done["result"]["structuredContent"]["stdout"], "finished\n", "{done}");
}

#[test]
fn one_gateway_serves_a_journal() {
    let project = Project::new();
    let serving = project.serve(&[]);
    let elsewhere = |text: String| {
        let lines = text.lines().map(|line| match line.split_once(" = \"127.0.0.1:") {
            Some((key, _)) => format!("{key} = \"127.0.0.1:0\""),
            None => line.to_owned(),
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    project.edit("ringfence.toml", elsewhere);
    let second = ringfence(&["serve", project.path()]);
    assert_eq!(second.code, 2, "{second:?}");
    assert!(second.stderr.contains("another gateway serves the journal"), "{}", second.stderr);
    assert!(second.stderr.contains(" help: stop it first"), "{}", second.stderr);
    assert!(project.call("bob", READ, &["user_id=u-1", "month=2026-10"])["done"].is_object(), "a call may");
    assert_eq!(serving.stop(Signal::TERM).0, Some(0));
    let serving = project.serve(&[]);
    assert_eq!(serving.stop(Signal::TERM).0, Some(0), "the control: once it has stopped");
    assert_eq!(ringfence(&["journal", "verify", project.path()]).code, 0);
}

/// A project whose issuer is that of another project, and a token for its agents' door.
fn with_issuer_elsewhere(further: &str) -> (Project, Project, String) {
    let (issuing, project) = (Project::new(), Project::new());
    let line = |project: &Project, key: &str| {
        let text = std::fs::read_to_string(project.file("ringfence.toml")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{key} = \"")).map(str::to_owned));
        line.unwrap().split('"').next().unwrap().to_owned()
    };
    let (agents, issuer) = (line(&project, "listen"), line(&issuing, "development-listen"));
    issuing.edit("ringfence.toml", |text| {
        text.replace("[server]\n", &format!("[server]\npublic-url = \"http://{agents}\"\n"))
    });
    project.edit("ringfence.toml", |text| {
        let own = text.lines().filter(|line| {
            !["development-", "users"].iter().any(|word| line.starts_with(word))
        });
        let declared = format!("[identity]\nissuer = \"http://{issuer}\"\njwks = \"http://{issuer}/jwks.json\"\nlifetime-max-seconds = 86400\n");
        own.collect::<Vec<_>>().join("\n").replace("[identity]\n", &declared) + "\n" + further
    });
    let token = issuing.token("bob", &[]);
    (issuing, project, token)
}

#[test]
fn a_token_that_cannot_be_verified_now_may_come_again_later() {
    let (issuing, project, token) = with_issuer_elsewhere("");
    let serving = project.serve(&[]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ask = |serving: &Serving| {
        let client = serving.client(&token, Revision::V2026);
        let headers = client.headers("tools/list", None);
        runtime.block_on(async {
            let asking = reqwest::Client::new().post(&serving.mcp).headers(headers).bearer_auth(&token);
            let answer = asking.body("{}").send().await.unwrap();
            let header = |name: &str| {
                answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
            };
            (answer.status().as_u16(), header("retry-after"), header("www-authenticate"))
        })
    };
    // Nobody answers where the issuer's keys are: it is not the token that is wrong, and nobody gets in.
    assert_eq!(ask(&serving), (503, Some("10".into()), None));
    assert_eq!(serving.stop(Signal::TERM).0, Some(0));
    let _issuer = issuing.serve(&[]);
    let serving = project.serve(&[]);
    assert_eq!(ask(&serving).0, 400, "the control: the same token, and then its empty message is looked at");
}

#[test]
fn an_issuer_that_wants_more_scopes_is_heard() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let says = std::sync::Arc::new(std::sync::Mutex::new("invalid_scope"));
    let error = says.clone();
    let exchange = axum::routing::post(move || async move {
        (axum::http::StatusCode::BAD_REQUEST, json!({ "error": *error.lock().unwrap() }).to_string())
    });
    let router = axum::Router::new().route("/token", exchange);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.spawn(async move {
        axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), router).await.unwrap();
    });
    let (issuing, project, token) = with_issuer_elsewhere(&format!(
        "[systems.tickets]\nkind = \"http\"\nbase-url = \"{url}\"\ncredential = {{ exchange = {{ audience = \"{url}\", scopes = [\"tickets:write\"], client-id = \"g\", client-secret-file = \"secret\", token-endpoint = \"{url}/token\" }} }}\n"
    ));
    project.write("secret", "s");
    std::fs::set_permissions(project.file("secret"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .unwrap();
    project.write("tools/tickets.toml", "[read_ticket]\nsystem = \"tickets\"\neffect = \"read\"\ndescribe = \"Reads.\"\nhttp = { method = \"GET\", path = \"/tickets\", returns = [\"id\"] }\n");
    project.append(
        "policies/policies.cedar",
        "permit (principal, action == Action::\"read_ticket\", resource);\n",
    );
    let _issuer = issuing.serve(&[]);
    let serving = project.serve(&[]);
    let client = serving.client(&token, Revision::V2026);
    let call = || runtime.block_on(client.call(tool_call("read_ticket", &json!({})))).unwrap();
    let answer = call();
    let challenge = answer.www_authenticate.unwrap_or_default();
    assert_eq!(answer.status, 403, "{}", answer.body);
    assert!(
        challenge.contains("error=\"insufficient_scope\"")
            && challenge.contains("scope=\"tools tickets:write\""),
        "{challenge}"
    );
    // The control: another no is none that more scopes would lift.
    *says.lock().unwrap() = "invalid_grant";
    let refusal = call().body["result"]["structuredContent"]["refusal"].clone();
    assert_eq!(
        (&refusal["code"], &refusal["retry"]),
        (&json!("credential_refused"), &json!("never")),
        "{refusal}"
    );
}
