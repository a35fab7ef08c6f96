//! The clients that people really use, each against the gateway: with a bearer token that they are given, with one that they
//! get themselves, by their own OAuth code, at the development issuer, and over standard input and output by `ringfence stdio`.
//!
//! `cargo xtask check` installs them under `target/clients`. A client that is not there is skipped, never passed.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};
use ringfence_tests::{Desk, Project, binary, run};
use serde_json::{Value, json};

/// A client: its name, its folder under `target/clients`, what runs it there, and its script.
type Client = (&'static str, &'static str, &'static str, &'static str);

/// With a token that they are given.
const CLIENTS: &[Client] = &[
    ("python_sdk_1", "python-1", "bin/python", "list_and_call.py"),
    ("langchain_mcp_adapters", "python-1", "bin/python", "langchain_list_and_call.py"),
    ("python_sdk_2", "python-2", "bin/python", "newest_list_and_call.py"),
    ("typescript_sdk", "node", "", "list_and_call.mjs"),
];

/// With nothing but the gateway's address.
const LOGINS: &[Client] = &[
    ("python_sdk_1_logs_in", "python-1", "bin/python", "login.py"),
    ("python_sdk_2_logs_in", "python-2", "bin/python", "newest_login.py"),
    ("typescript_sdk_1_logs_in", "node", "", "login.mjs"),
    ("typescript_sdk_2_logs_in", "node", "", "newest_login.mjs"),
];

/// By `ringfence stdio`, after `ringfence login`.
const DESKTOPS: &[Client] = &[
    ("python_sdk_1_over_stdio", "python-1", "bin/python", "stdio.py"),
    ("python_sdk_2_over_stdio", "python-2", "bin/python", "newest_stdio.py"),
];

/// What desktop clients reach the gateway by that speak standard input and output alone.
const BRIDGE: Client = ("mcp_remote_logs_in", "node", "", "remote_login.mjs");

fn main() -> ExitCode {
    let trial = |(name, folder, runs, script): &Client, test: fn(&Path, &str, &str) -> Result<(), Failed>| {
        let folder = binary().parent().and_then(Path::parent).unwrap().join("clients").join(folder);
        let missing = !folder.join("ready").is_file();
        let (runs, script) = (*runs, *script);
        Trial::test(*name, move || test(&folder, runs, script)).with_ignored_flag(missing)
    };
    let trials = CLIENTS.iter().map(|client| trial(client, lists_and_calls));
    let trials = trials.chain(LOGINS.iter().map(|client| trial(client, logs_in_and_calls)));
    let trials = trials.chain(DESKTOPS.iter().map(|client| trial(client, calls_over_stdio)));
    let trials = trials.chain([trial(&BRIDGE, bridges)]);
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

/// What a script prints.
fn seen(folder: &Path, runs: &str, script: &str, arguments: &[&str]) -> Result<Value, Failed> {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
    // Node finds packages beside the script, Python beside the interpreter.
    let (program, script) = if runs.is_empty() {
        for name in [script, "person.mjs"] {
            std::fs::copy(scripts.join(name), folder.join(name)).unwrap();
        }
        let installed = folder.join("programs/bin/node");
        let node = if installed.is_file() { installed } else { PathBuf::from("node") };
        (node, folder.join(script))
    } else {
        (folder.join(runs), scripts.join(script))
    };
    let ran = run(Command::new(program).arg(script).args(arguments).env("PYTHONDONTWRITEBYTECODE", "1"));
    if ran.code == 0 { Ok(ran.json()) } else { Err(format!("{ran:?}").into()) }
}

fn lists_and_calls(folder: &Path, runs: &str, script: &str) -> Result<(), Failed> {
    let project = Project::new();
    let serving = project.serve(&[]);
    let token = project.token("bob", &[]);
    lists_and_calls_alike(seen(folder, runs, script, &[&serving.mcp, &token])?);
    Ok(())
}

fn calls_over_stdio(folder: &Path, runs: &str, script: &str) -> Result<(), Failed> {
    let project = Project::new();
    let serving = project.serve(&[]);
    let desk = Desk::new();
    assert_eq!(desk.log_in(&serving.mcp, "bob", &[]).code, 0);
    let program = binary().display().to_string();
    lists_and_calls_alike(seen(folder, runs, script, &[&serving.mcp, &program, desk.state()])?);
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

fn bridges(folder: &Path, runs: &str, script: &str) -> Result<(), Failed> {
    let project = Project::new();
    let serving = project.serve(&[]);
    let seen = seen(folder, runs, script, &[&serving.mcp, "bob"])?;
    assert_eq!(seen["rows"].as_array().map(Vec::len), Some(2));
    assert_eq!(seen["tools"], json!(["get_user_monthly_metrics", "run_python"]));
    assert_eq!(seen["logins"], 1);
    Ok(())
}

/// Discovery, registration, login, call, refresh, call: one login, and a second token without another.
fn logs_in_and_calls(folder: &Path, runs: &str, script: &str) -> Result<(), Failed> {
    let project = Project::new();
    let serving = project.serve(&[]);
    let mut seen = seen(folder, runs, script, &[&serving.mcp, "bob"])?;
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
