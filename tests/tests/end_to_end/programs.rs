//! What users expect of a tool that runs programs, over the real gateway: files in, artifacts out, sessions, a way out.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use ringfence_mcp::client::Client;
use ringfence_mcp::{Revision, ToolCall};
use ringfence_tests::{Project, ringfence};
use serde_json::{Value, json};

fn call(client: &Client, tool: &str, arguments: &Value) -> Value {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let call = ToolCall { name: tool.into(), arguments: arguments.as_object().unwrap().clone() };
    runtime.block_on(client.call(call)).unwrap().result().unwrap().clone()
}

fn read(client: &Client, uri: &str) -> Result<Value, i64> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let params = json!({ "uri": uri }).as_object().unwrap().clone();
    let answer = runtime.block_on(client.request("resources/read", params)).unwrap();
    answer.result().cloned().ok_or_else(|| answer.error_code().unwrap())
}

/// A PNG of one pixel, made without any library.
const PLOT: &str = r"
import struct, zlib
def chunk(kind, data):
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
png = b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', 1, 1, 8, 0, 0, 0, 0))
png += chunk(b'IDAT', zlib.compress(b'\0\0')) + chunk(b'IEND', b'')
open('/artifacts/plot.png', 'wb').write(png)
open('/artifacts/table.csv', 'w').write('a,b\n' * 1000)
6 * 7
";

#[test]
fn a_plot_comes_back_as_an_image_and_a_table_as_a_link_for_its_own_run_alone() {
    let project = Project::new();
    let serving = project.serve(&[]);
    for revision in Revision::ALL {
        let bob = serving.client(&project.token("bob", &[]), revision);
        let alice = serving.client(&project.token("alice", &[]), revision);
        let result = call(&bob, "run_python", &json!({ "code": PLOT }));
        assert_eq!(result["structuredContent"]["value"], "42", "{result}");
        let content = result["content"].as_array().unwrap();
        let image = content.iter().find(|block| block["type"] == "image").unwrap();
        assert_eq!(image["mimeType"], "image/png");
        let link = content.iter().find(|block| block["type"] == "resource_link").unwrap();
        assert_eq!((&link["name"], &link["size"]), (&json!("table.csv"), &json!(4000)));
        let uri = link["uri"].as_str().unwrap();
        let mine = read(&bob, uri).unwrap();
        assert_eq!(mine["contents"][0]["text"].as_str().unwrap().len(), 4000);
        assert!(read(&alice, uri).is_err(), "Alice's run made nothing");
    }
    let kinds = project.journal().into_iter().filter(|entry| entry["kind"] == "artifact_read");
    assert_eq!(kinds.count(), 2);
}

#[test]
fn an_argument_becomes_a_file_of_the_program() {
    let project = Project::new();
    project.edit("tools/python.toml", |text| {
        text.replace("program = \"code\"", "program = \"code\"\nfiles = { \"data.csv\" = \"csv\" }")
            + "csv = { type = \"string\", max-length = 1000, optional = true }\n"
    });
    let code = "code=print(open('/work/in/data.csv').read())";
    let ran = project.call("bob", "run_python", &[code, "csv=a,b"]);
    assert_eq!(ran["done"]["stdout"], "a,b\n", "{ran}");
    let ran = project.call("bob", "run_python", &[code]);
    assert!(ran["done"]["stderr"].as_str().unwrap().contains("FileNotFoundError"), "{ran}");
    project.edit("tools/python.toml", |text| text.replace("\"data.csv\"", "\"../data.csv\""));
    let checked = ringfence(&["check", project.path()]);
    assert_eq!(checked.code, 1);
    assert!(checked.stderr.contains("`../data.csv` is no name of a file"), "{}", checked.stderr);
}

#[test]
fn a_session_is_its_runs_own_and_ends_when_it_is_idle() {
    let project = Project::new();
    project.edit("ringfence.toml", |text| {
        text.replace("egress = []", "session = { idle-seconds = 2, seconds = 60 }\negress = []")
    });
    let serving = project.serve(&[]);
    let bob = serving.client(&project.token("bob", &[]), Revision::V2026);
    let alice = serving.client(&project.token("alice", &[]), Revision::V2026);
    let say = |client: &Client, code: &str| {
        call(client, "run_python", &json!({ "code": code }))["structuredContent"].clone()
    };
    say(&bob, "x = 41");
    assert_eq!(say(&bob, "x + 1")["value"], "42");
    assert!(say(&alice, "x")["stderr"].as_str().unwrap().contains("NameError"), "Alice has one of her own");
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert!(say(&bob, "x")["stderr"].as_str().unwrap().contains("NameError"), "it was idle for too long");
}

/// A server that knows a secret, and says it back.
fn echo() -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hearing = heard.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = vec![0; 8192];
            let count = stream.read(&mut request).unwrap_or(0);
            hearing.lock().unwrap().push(String::from_utf8_lossy(&request[..count]).into_owned());
            let _gone = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\nhello");
        }
    });
    (port, heard)
}

#[test]
fn a_program_reaches_what_its_profile_names_and_every_decision_is_in_the_journal() {
    let (port, heard) = echo();
    let project = Project::new();
    let way_out = format!("egress = [\"http://127.0.0.1:{port}\"]\negress-private = [\"127.0.0.1\"]");
    project.edit("ringfence.toml", |text| text.replace("egress = []", &way_out));
    let serving = project.serve(&[]);
    let bob = serving.client(&project.token("bob", &[]), Revision::V2026);
    let code = format!(
        "import urllib.request\nfor url in ['http://127.0.0.1:{port}/x', 'http://example.com/', 'http://127.0.0.1:1/']:\n    \
         try:\n        print(urllib.request.urlopen(url, timeout=5).read().decode())\n    except OSError as error:\n        print(error)"
    );
    let result = call(&bob, "run_python", &json!({ "code": code }));
    let said = &result["structuredContent"];
    let lines: Vec<&str> = said["stdout"].as_str().unwrap().lines().collect();
    assert_eq!(lines[0], "hello", "{said}");
    assert!(lines[1..].iter().all(|line| line.contains("403")), "{said}");
    assert_eq!(heard.lock().unwrap().len(), 1);
    let decisions: Vec<Value> =
        project.journal().into_iter().filter(|entry| entry["kind"] == "egress").collect();
    let verdicts: Vec<&str> = decisions.iter().map(|entry| entry["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["allow", "end", "deny", "deny"], "{decisions:?}");
    let intent = project.journal().into_iter().find(|entry| entry["kind"] == "intent").unwrap();
    assert!(decisions.iter().all(|entry| entry["call"] == intent["call"]));
    assert_eq!(said["receipt"]["egress"], json!([format!("http://127.0.0.1:{port}")]));
    drop(serving);
    assert_eq!(ringfence(&["journal", "verify", project.path()]).code, 0);
}

#[test]
fn a_profile_of_a_project_is_narrowed_and_never_widened_by_hand() {
    let project = Project::new();
    let program = project.file("spin.py");
    std::fs::write(&program, "while True: pass").unwrap();
    let run = |further: &[&str]| {
        let mut arguments =
            vec!["sandbox", "run", "--profile", "python", "--project", project.path(), "--json"];
        arguments.extend(further);
        arguments.push(program.to_str().unwrap());
        ringfence(&arguments)
    };
    let ran = run(&["--seconds", "1"]).json();
    assert_eq!(ran["ended"]["how"], "timeout");
    std::fs::write(&program, "x = bytearray(400 << 20)").unwrap();
    let ran = run(&["--memory-mib", "4096"]).json();
    assert_ne!(ran["ended"], json!({ "how": "exit", "code": 0 }), "the project's 256 MiB hold: {ran}");
    let refused = ringfence(&["sandbox", "run", "--profile", "nothing", "--project", project.path(), "-"]);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("name one of `python`"), "{}", refused.stderr);
}

#[test]
fn every_problem_of_a_sandbox_is_named_with_what_to_write() {
    let project = Project::new();
    project.edit("ringfence.toml", |text| {
        text.replace(
            "egress = []",
            "egress = [\"*.example.com\", \"bad host\"]\nstart = \"spoon\"\npreload = [\"os; import sys\"]\nready = 1000\n\
             [systems.python.egress-rules.api]\nto = \"api.example.com\"\ncredential = { header = \"Authorization\", placeholder = \"PLACEHOLDER\" }",
        )
    });
    let checked = ringfence(&["check", project.path()]);
    assert_eq!(checked.code, 1);
    for what in [
        "`spoon` is no value of `start`",
        "`preload` is no list of Python modules",
        "`ready` is out of range",
        "a credential has one secret",
        "a wildcard needs `inspect = true`",
        "bad host",
    ] {
        assert!(checked.stderr.contains(what), "{what}: {}", checked.stderr);
    }
    let other = Project::new();
    other.edit("ringfence.toml", |text| {
        text.replace("egress = []", "egress = [\"api.example.com\"]\nbackend = \"gvisor\"")
    });
    let checked = ringfence(&["check", other.path()]);
    assert_eq!(checked.code, 1);
    assert!(checked.stderr.contains("gVisor's sandboxes have no way out yet"), "{}", checked.stderr);
    for language in ["bash", "node"] {
        let other = Project::new();
        other.edit("ringfence.toml", |text| {
            let other = format!("language = \"{language}\"\nsession = {{ seconds = 60 }}");
            text.replace("language = \"python\"", &other)
        });
        let checked = ringfence(&["check", other.path()]);
        assert_eq!(checked.code, 1);
        for what in ["only Python keeps its state from call to call", "leave `session` out"] {
            assert!(checked.stderr.contains(what), "{language}: {}", checked.stderr);
        }
    }
}
