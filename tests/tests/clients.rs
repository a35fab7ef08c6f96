//! The clients that people really use, each against the gateway: they list the tools and call one, with a bearer token.
//!
//! `cargo xtask check` installs them under `target/clients`. A client that is not there is skipped, never passed.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};
use ringfence_tests::{Project, binary, run};
use serde_json::{Value, json};

/// A client: its name, its folder under `target/clients`, what runs it there, and its script.
const CLIENTS: &[(&str, &str, &str, &str)] = &[
    ("python_sdk_1", "python-1", "bin/python", "list_and_call.py"),
    ("langchain_mcp_adapters", "python-1", "bin/python", "langchain_list_and_call.py"),
    ("python_sdk_2", "python-2", "bin/python", "newest_list_and_call.py"),
    ("typescript_sdk", "node", "", "list_and_call.mjs"),
];

fn main() -> ExitCode {
    let trials = CLIENTS.iter().map(|(name, folder, runs, script)| {
        let folder = binary().parent().and_then(Path::parent).unwrap().join("clients").join(folder);
        let missing = !folder.join("ready").is_file();
        let test = move || lists_and_calls(&folder, runs, script);
        Trial::test(*name, test).with_ignored_flag(missing)
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

fn lists_and_calls(folder: &Path, runs: &str, script: &str) -> Result<(), Failed> {
    let project = Project::new();
    let serving = project.serve(&[]);
    let token = project.token("bob", &[]);
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
    // Node finds packages beside the script, Python beside the interpreter.
    let (program, script) = if runs.is_empty() {
        std::fs::copy(scripts.join(script), folder.join(script)).unwrap();
        let installed = folder.join("programs/bin/node");
        let node = if installed.is_file() { installed } else { PathBuf::from("node") };
        (node, folder.join(script))
    } else {
        (folder.join(runs), scripts.join(script))
    };
    let ran = run(Command::new(program).arg(script).args([&serving.mcp, &token]));
    if ran.code != 0 {
        return Err(format!("{ran:?}").into());
    }
    let mut seen: Value = ran.json();
    let refused = seen.as_object_mut().unwrap().remove("refused").unwrap();
    assert!(refused == "unknown_tool" || refused == "argument_invalid", "{refused}");
    assert_eq!(seen["tools"], json!(["get_user_monthly_metrics", "run_python"]));
    assert_eq!(seen["rows"].as_array().map(Vec::len), Some(2));
    if let Some(revision) = seen.get("revision") {
        assert_eq!(revision, "2026-07-28");
    }
    Ok(())
}
