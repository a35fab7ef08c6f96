//! The gateway as a service: health, stopping, crashing, and what it does when a step of the pipeline fails.

use std::time::Duration;

use ringfence_mcp::{Revision, ToolCall};
use ringfence_tests::{PATIENCE, Project, Serving, ringfence, until};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::commands::PURGE;

const READ: &str = "get_user_monthly_metrics";

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
    project.append(
        "policies/policies.cedar",
        "forbid (principal, action == Action::\"run_python\", resource) when { context.run.labels.contains(\"untrusted\") };\n",
    );
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
    std::thread::sleep(Duration::from_millis(1100));
    runtime.block_on(client.call(tool_call("execute_sql", &json!({})))).unwrap();
    let entries = project.journal();
    let refused: Vec<_> = entries.iter().filter(|entry| entry["kind"] == "refused").collect();
    let counted: u64 = refused.iter().filter_map(|entry| entry["unrecorded"].as_u64()).sum();
    assert_eq!(refused.len() as u64 + counted, 301, "each is kept or counted");
    assert!(refused.len() < 200, "{}", refused.len());
}
