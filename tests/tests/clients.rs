//! The clients that people really use, each against the gateway: with a bearer token that they are given, with one that they
//! get themselves, by their own OAuth code, at the development issuer, and over standard input and output by `ringfence stdio`.
//!
//! `cargo xtask check` installs them under `target/clients`. A client that is not there is skipped, never passed.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use ringfence_tests::clients::Client;
use ringfence_tests::{Desk, Project, binary};
use serde_json::{Value, json};

/// With a token that they are given.
const CLIENTS: &[Client] = &[
    Client { name: "python_sdk_1", folder: "python-1", script: "list_and_call.py" },
    Client { name: "langchain_mcp_adapters", folder: "python-1", script: "langchain_list_and_call.py" },
    Client { name: "python_sdk_2", folder: "python-2", script: "newest_list_and_call.py" },
    Client { name: "typescript_sdk", folder: "node", script: "list_and_call.mjs" },
];

/// With nothing but the gateway's address.
const LOGINS: &[Client] = &[
    Client { name: "python_sdk_1_logs_in", folder: "python-1", script: "login.py" },
    Client { name: "python_sdk_2_logs_in", folder: "python-2", script: "newest_login.py" },
    Client { name: "typescript_sdk_1_logs_in", folder: "node", script: "login.mjs" },
    Client { name: "typescript_sdk_2_logs_in", folder: "node", script: "newest_login.mjs" },
];

/// By `ringfence stdio`, after `ringfence login`.
const DESKTOPS: &[Client] = &[
    Client { name: "python_sdk_1_over_stdio", folder: "python-1", script: "stdio.py" },
    Client { name: "python_sdk_2_over_stdio", folder: "python-2", script: "newest_stdio.py" },
];

/// What desktop clients reach the gateway by that speak standard input and output alone.
const BRIDGE: Client = Client { name: "mcp_remote_logs_in", folder: "node", script: "remote_login.mjs" };

fn main() -> ExitCode {
    let trial = |client: Client, test: fn(Client) -> Result<(), Failed>| {
        Trial::test(client.name, move || test(client)).with_ignored_flag(!client.is_ready())
    };
    let trials = CLIENTS.iter().map(|client| trial(*client, lists_and_calls));
    let trials = trials.chain(LOGINS.iter().map(|client| trial(*client, logs_in_and_calls)));
    let trials = trials.chain(DESKTOPS.iter().map(|client| trial(*client, calls_over_stdio)));
    let trials = trials.chain([trial(BRIDGE, bridges)]);
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

fn lists_and_calls(client: Client) -> Result<(), Failed> {
    let project = Project::new();
    let serving = project.serve(&[]);
    let token = project.token("bob", &[]);
    lists_and_calls_alike(client.seen(&[&serving.mcp, &token])?);
    Ok(())
}

fn calls_over_stdio(client: Client) -> Result<(), Failed> {
    let project = Project::new();
    let serving = project.serve(&[]);
    let desk = Desk::new();
    assert_eq!(desk.log_in(&serving.mcp, "bob", &[]).code, 0);
    let program = binary().display().to_string();
    lists_and_calls_alike(client.seen(&[&serving.mcp, &program, desk.state()])?);
    Ok(())
}

fn lists_and_calls_alike(mut seen: Value) {
    let refused = seen.as_object_mut().unwrap().remove("refused").unwrap();
    assert!(refused == "unknown_tool" || refused == "argument_invalid", "{refused}");
    assert_eq!(seen["tools"], json!(["get_user_monthly_metrics", "run_python"]));
    assert_eq!(seen["rows"].as_array().map(Vec::len), Some(2));
    if let Some(revision) = seen.get("revision") {
        assert_eq!(revision, "2026-07-28");
    }
}

fn bridges(client: Client) -> Result<(), Failed> {
    let project = Project::new();
    let serving = project.serve(&[]);
    let seen = client.seen(&[&serving.mcp, "bob"])?;
    assert_eq!(seen["rows"].as_array().map(Vec::len), Some(2));
    assert_eq!(seen["tools"], json!(["get_user_monthly_metrics", "run_python"]));
    assert_eq!(seen["logins"], 1);
    Ok(())
}

/// Discovery, registration, login, call, refresh, call: one login, and a second token without another.
fn logs_in_and_calls(client: Client) -> Result<(), Failed> {
    let project = Project::new();
    let serving = project.serve(&[]);
    let mut seen = client.seen(&[&serving.mcp, "bob"])?;
    let client = seen.as_object_mut().unwrap().remove("client_id").unwrap();
    let rows = seen["rows"].clone();
    assert_eq!(rows.as_array().map(Vec::len), Some(2));
    let expected = json!({
        "tools": ["get_user_monthly_metrics", "run_python"],
        "rows": rows,
        "rows_after_refresh": rows,
        "logins": 1,
        "tokens": 2,
        "rotated": true,
    });
    assert_eq!(seen, expected);
    // The journal names who called, by which client: the one that registered itself.
    let calls: Vec<Value> = project.journal().into_iter().filter(|entry| entry["tool"].is_string()).collect();
    assert!(
        calls.iter().any(|call| call.to_string().contains(client.as_str().unwrap())),
        "{client}: {calls:?}"
    );
    Ok(())
}
