//! A desktop client that speaks standard input and output alone: `login`, `stdio`, `logout`, with the real binary on both sides.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use ringfence_tests::{Desk, PATIENCE, Project, Ran, ringfence, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// `ringfence stdio`, as a client has it.
struct Bridge {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    log: JoinHandle<String>,
    heard: String,
}

impl Bridge {
    fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut errors = child.stderr.take().unwrap();
        let (say, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines() {
                let _nobody_hears = say.send(line.unwrap());
            }
        });
        let log = std::thread::spawn(move || {
            let mut log = String::new();
            errors.read_to_string(&mut log).unwrap();
            log
        });
        Self { child, input, lines, log, heard: String::new() }
    }

    fn to(desk: &Desk, gateway: &str) -> Self {
        Self::start(&mut desk.command(&["stdio", "--connect", gateway]))
    }

    fn send(&mut self, message: &Value) {
        writeln!(self.input, "{message}").unwrap();
    }

    fn hear(&mut self) -> Value {
        let line = self.lines.recv_timeout(PATIENCE).unwrap();
        self.heard.push_str(&line);
        self.heard.push('\n');
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// Sends a request and gives its answer.
    fn ask(&mut self, id: u64, method: &str, params: impl Into<Value>) -> Value {
        let params: Value = params.into();
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
        let answer = self.hear();
        assert_eq!(answer["id"], id, "{answer}");
        answer
    }

    fn initialize(&mut self) -> Value {
        let client = json!({ "name": "desk", "version": "1" });
        let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client });
        self.ask(1, "initialize", params)
    }

    /// Closes its input, and gives how it ended.
    fn end(self) -> Ran {
        let Self { mut child, input, lines, log, mut heard } = self;
        drop(input);
        let code = child.wait().unwrap().code().unwrap_or(-1);
        for line in lines {
            heard.push_str(&line);
        }
        Ran { code, stdout: heard, stderr: log.join().unwrap() }
    }
}

fn metrics() -> Value {
    json!({ "name": "get_user_monthly_metrics", "arguments": { "user_id": "u-1", "month": "2026-10" } })
}

/// The same request in the newest revision.
fn newest(mut params: Value) -> Value {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    params
}

fn rows(answer: &Value) -> usize {
    answer["result"]["structuredContent"]["rows"].as_array().unwrap_or_else(|| panic!("{answer}")).len()
}

/// What the user is told in place of an answer.
fn told(answer: &Value) -> &str {
    assert_eq!(answer["error"]["code"], -32603, "{answer}");
    answer["error"]["message"].as_str().unwrap()
}

fn mode(path: &std::path::Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn secrets(desk: &Desk) -> Vec<String> {
    let login = desk.login();
    ["access_token", "refresh_token"].map(|name| login[name].as_str().unwrap().to_owned()).into()
}

#[test]
fn a_desktop_client_calls_in_the_name_of_the_user_who_logged_in() {
    let project = Project::new();
    let serving = project.serve(&[]);
    let desk = Desk::new();
    let logged_in = desk.log_in(&serving.mcp, "bob", &[]);
    assert_eq!(logged_in.code, 0, "{logged_in:?}");
    let shown = logged_in.json();
    assert_eq!(
        (&shown["gateway"], &shown["scopes"], &shown["renewable"], shown["file"].as_str()),
        (&json!(serving.mcp), &json!(["tools"]), &json!(true), desk.login_file().to_str())
    );
    assert_eq!((mode(&desk.login_file()), mode(desk.login_file().parent().unwrap())), (0o600, 0o700));
    let mut canaries = secrets(&desk);
    let mut bridge = Bridge::to(&desk, &serving.mcp);
    assert_eq!(bridge.initialize()["result"]["protocolVersion"], "2025-11-25");
    bridge.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
    let tools = |answer: &Value| {
        let tools = answer["result"]["tools"].as_array().unwrap().iter();
        tools.map(|tool| tool["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let expected = ["get_user_monthly_metrics", "run_python"];
    assert_eq!(tools(&bridge.ask(2, "tools/list", json!({}))), expected);
    assert_eq!(rows(&bridge.ask(3, "tools/call", metrics())), 2);
    assert_eq!(tools(&bridge.ask(4, "tools/list", newest(json!({})))), expected);
    let answer = bridge.ask(5, "tools/call", newest(metrics()));
    assert_eq!((rows(&answer), &answer["result"]["resultType"]), (2, &json!("complete")));
    // A token that has nearly ended is renewed on the way.
    desk.set("expires", 1);
    assert_eq!(rows(&bridge.ask(6, "tools/call", metrics())), 2);
    canaries.extend(secrets(&desk));
    assert_eq!(mode(&desk.login_file()), 0o600);
    let ended = bridge.end();
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(ended.stdout.lines().count(), 6, "nothing but answers: {}", ended.stdout);
    assert!(ended.stderr.contains("the login was renewed") && ended.stderr.contains("TRACE"), "the control");
    canaries.sort();
    canaries.dedup();
    assert_eq!(canaries.len(), 4, "the control: both were renewed");
    for surface in [&ended.stdout, &ended.stderr, &logged_in.stdout, &logged_in.stderr] {
        assert!(!canaries.iter().any(|canary| surface.contains(canary)), "a token is on a surface");
    }
    let client = shown["client_id"].as_str().unwrap();
    let calls: Vec<Value> = project.journal().into_iter().filter(|entry| entry["tool"].is_string()).collect();
    assert!(!calls.is_empty());
    for call in calls {
        assert!(call.to_string().contains("bob") && call.to_string().contains(client), "{call}");
    }
}

#[test]
fn a_login_is_renewed_by_one_at_a_time_however_many_want_it() {
    let project = Project::new();
    let serving = project.serve(&[]);
    let desk = Desk::new();
    assert_eq!(desk.log_in(&serving.mcp, "bob", &[]).code, 0);
    let mut bridges = [Bridge::to(&desk, &serving.mcp), Bridge::to(&desk, &serving.mcp)];
    // The issuer ends a login whose refresh token comes twice: two that renew at once would be noticed.
    let first = desk.login();
    desk.set("expires", 1);
    for round in 0..2 {
        for bridge in &mut bridges {
            for id in 0..8 {
                bridge.send(
                    &json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": metrics() }),
                );
            }
        }
        for bridge in &mut bridges {
            for _ in 0..8 {
                assert_eq!(rows(&bridge.hear()), 2);
            }
        }
        if round == 0 {
            // A token that the gateway refuses is renewed too, before its time.
            desk.set("access_token", "no-token-of-anybody");
        }
    }
    let last = desk.login();
    assert_ne!(last["refresh_token"], first["refresh_token"]);
    // The control: one that is spent ends it all, and the user is told what to do.
    desk.set("refresh_token", first["refresh_token"].clone());
    desk.set("expires", 1);
    let command = format!("run `ringfence login {}`", serving.mcp);
    let answer = bridges[0].ask(20, "tools/call", metrics());
    assert!(told(&answer).contains("the login has ended") && told(&answer).contains(&command), "{answer}");
    desk.set("refresh_token", last["refresh_token"].clone());
    assert!(told(&bridges[1].ask(21, "tools/call", metrics())).contains("the login has ended"));
    // A bridge that runs goes on with a new login.
    assert_eq!(desk.log_in(&serving.mcp, "bob", &[]).code, 0);
    assert_eq!(rows(&bridges[0].ask(22, "tools/call", metrics())), 2);
}

#[test]
fn who_has_logged_out_is_told_how_to_log_in() {
    let project = Project::new();
    let serving = project.serve(&[]);
    let desk = Desk::new();
    let mut bridge = Bridge::to(&desk, &serving.mcp);
    let command = format!("nobody is logged in; run `ringfence login {}`", serving.mcp);
    assert_eq!(told(&bridge.initialize()), command);
    assert_eq!(desk.log_in(&serving.mcp, "bob", &[]).code, 0);
    assert!(bridge.initialize()["result"].is_object(), "the control");
    let file = desk.login_file();
    let before = fs::read(&file).unwrap();
    let logged_out = desk.run(&["logout", &serving.mcp]);
    assert_eq!((logged_out.code, logged_out.stdout), (0, format!("logged out at {}\n", serving.mcp)));
    assert!(!file.exists());
    assert_eq!(told(&bridge.ask(2, "tools/list", json!({}))), command);
    let again = desk.run(&["logout", &serving.mcp]);
    assert!(again.code == 0 && again.stderr.contains("nobody is logged in"), "{again:?}");
    // Who kept a copy has nothing that can be renewed.
    fs::write(&file, before).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    desk.set("expires", 1);
    assert!(told(&bridge.ask(3, "tools/list", json!({}))).contains("the login has ended"));
}

#[test]
fn a_login_whose_run_is_revoked_is_tried_anew_once() {
    let project = Project::new();
    let serving = project.serve(&[]);
    let desk = Desk::new();
    assert_eq!(desk.log_in(&serving.mcp, "bob", &[]).code, 0);
    let mut bridge = Bridge::to(&desk, &serving.mcp);
    assert_eq!(rows(&bridge.ask(1, "tools/call", metrics())), 2);
    let why = ["--reason", "a lost laptop", "--project", project.path()];
    let revoked = ringfence(&[&["runs", "revoke", "--user", "bob"][..], &why].concat());
    assert_eq!(revoked.code, 0, "{revoked:?}");
    until("the revocation", || {
        let answer = bridge.ask(2, "tools/call", metrics());
        answer["error"]["message"].as_str().is_some_and(|said| said.contains("(401)"))
    });
    let before = desk.login();
    for id in 3..6 {
        let answer = bridge.ask(id, "tools/call", metrics());
        assert!(
            told(&answer).contains("log in again") && told(&answer).contains("ringfence login"),
            "{answer}"
        );
    }
    assert_eq!(desk.login(), before, "the issuer was not asked for more");
    // `auth_time` has whole seconds.
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(desk.log_in(&serving.mcp, "bob", &[]).code, 0);
    assert_eq!(rows(&bridge.ask(6, "tools/call", metrics())), 2);
}

#[test]
fn who_is_not_let_in_hears_why_from_the_gateway() {
    let project = Project::new();
    let client = "[[identity.clients]]\nid = \"desk\"\nredirect-uris = [\"http://127.0.0.1/callback\"]\n";
    project.edit("ringfence.toml", |text| {
        let text = text.replace("unknown = \"accept\"", "known = [\"desk\"]");
        text.replace("[journal]", &format!("{client}\n[journal]"))
    });
    let serving = project.serve(&[]);
    let desk = Desk::new();
    assert_eq!(desk.log_in(&serving.mcp, "bob", &[]).code, 0);
    let mut bridge = Bridge::to(&desk, &serving.mcp);
    let answer = bridge.initialize();
    let said = told(&answer);
    assert!(said.starts_with("the gateway refused (403): ") && said.contains("--client-id ID`"), "{said}");
    // The control: the client that the project knows, with no other change.
    assert_eq!(desk.log_in(&serving.mcp, "bob", &["--client-id", "desk"]).json()["client_id"], "desk");
    assert!(bridge.initialize()["result"].is_object());
    drop(serving);
    assert!(told(&bridge.initialize()).contains("cannot be reached"));
}

#[test]
fn a_scope_that_is_lacking_is_named_to_the_user() {
    let project = Project::new();
    project.edit("tools/metrics.toml", |text| text.replace("effect =", "scope = \"metrics:read\"\neffect ="));
    let serving = project.serve(&[]);
    let desk = Desk::new();
    assert_eq!(desk.log_in(&serving.mcp, "bob", &["--scope", "tools"]).json()["scopes"], json!(["tools"]));
    let mut bridge = Bridge::to(&desk, &serving.mcp);
    for params in [metrics(), newest(metrics())] {
        let answer = bridge.ask(1, "tools/call", params);
        let said = told(&answer);
        let named = ["(403)", "ringfence login", " --scope tools", " --scope metrics:read"];
        assert!(named.iter().all(|part| said.contains(part)), "{said}");
    }
    // Asked for nothing in particular, it is all that the gateway names.
    let all = desk.log_in(&serving.mcp, "bob", &[]).json();
    assert_eq!(all["scopes"], json!(["metrics:read", "tools"]));
    assert_eq!(rows(&bridge.ask(2, "tools/call", metrics())), 2);
}

#[test]
fn a_call_that_the_client_gives_up_is_stopped() {
    let project = Project::new();
    let serving = project.serve(&[]);
    let desk = Desk::new();
    assert_eq!(desk.log_in(&serving.mcp, "bob", &[]).code, 0);
    for params in [json!({}), newest(json!({}))] {
        let mut bridge = Bridge::to(&desk, &serving.mcp);
        let count = |kind: &str| project.journal().iter().filter(|entry| entry["kind"] == kind).count();
        let (intents, outcomes) = (count("intent"), count("outcome"));
        let mut call = params;
        call["name"] = "run_python".into();
        call["arguments"] = json!({ "code": "import time; time.sleep(25)" });
        bridge.send(&json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": call }));
        until("the intent", || count("intent") > intents);
        let given_up = json!({ "requestId": 7 });
        bridge.send(&json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": given_up }));
        until("the outcome", || count("outcome") > outcomes);
        let outcome = project.journal().into_iter().rfind(|entry| entry["kind"] == "outcome").unwrap();
        assert!(outcome["duration_us"].as_u64().unwrap() < 8_000_000, "{outcome}");
        // Nobody is answered who gave up, and others are.
        assert_eq!(rows(&bridge.ask(8, "tools/call", metrics())), 2);
    }
}

#[test]
fn a_project_is_served_in_process_for_the_one_user_who_logged_in() {
    let project = Project::new();
    let desk = Desk::new();
    let mut bridge = Bridge::start(&mut desk.command(&["stdio", project.path()]));
    let command = format!("nobody is logged in; run `ringfence login {}`", project.path());
    assert_eq!(told(&bridge.initialize()), command);
    let logged_in = desk.log_in(project.path(), "bob", &[]);
    assert_eq!(logged_in.code, 0, "{logged_in:?}");
    assert!(bridge.initialize()["result"].is_object());
    assert_eq!(rows(&bridge.ask(2, "tools/call", metrics())), 2);
    assert_eq!(rows(&bridge.ask(3, "tools/call", newest(metrics()))), 2);
    let program = json!({ "name": "run_python", "arguments": { "code": "print(6 * 7)" } });
    assert_eq!(bridge.ask(4, "tools/call", program)["result"]["structuredContent"]["stdout"], "42\n");
    desk.set("expires", 1);
    assert_eq!(rows(&bridge.ask(5, "tools/call", metrics())), 2);
    // What nobody signed is nobody, here as over HTTP.
    let sound = desk.login();
    desk.set("access_token", "no-token-of-anybody");
    desk.set("refresh_token", Value::Null);
    assert!(told(&bridge.ask(6, "tools/call", metrics())).contains("the login has ended"));
    fs::write(desk.login_file(), sound.to_string()).unwrap();
    assert_eq!(rows(&bridge.ask(7, "tools/call", metrics())), 2);
    // One gateway serves a project.
    let second = desk.run(&["stdio", project.path()]);
    let connect = format!("ringfence stdio --connect http://{}/mcp", project.setting("listen"));
    assert!(second.code == 2 && second.stderr.contains(&connect), "{second:?}");
    let listens = std::net::TcpStream::connect(project.setting("listen"));
    assert!(listens.is_err(), "nobody listens for agents");
    // It ends in good order when it is told to, too.
    kill_process(Pid::from_child(&bridge.child), Signal::TERM).unwrap();
    let ended = bridge.end();
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.stderr.contains("runs under the account of its client"), "{}", ended.stderr);
    assert!(!secrets(&desk).iter().any(|canary| (ended.stdout.clone() + &ended.stderr).contains(canary)));
    let verified = ringfence(&["journal", "verify", project.path()]);
    assert_eq!(verified.code, 0, "{verified:?}");
    let calls = project.journal().into_iter().filter(|entry| entry["kind"] == "intent");
    assert!(calls.into_iter().all(|call| call.to_string().contains("bob")));
}

#[test]
fn a_login_that_others_can_read_is_not_used() {
    let project = Project::new();
    let serving = project.serve(&[]);
    let desk = Desk::new();
    assert_eq!(desk.log_in(&serving.mcp, "bob", &[]).code, 0);
    let mut bridge = Bridge::to(&desk, &serving.mcp);
    assert!(bridge.initialize()["result"].is_object(), "the control");
    let file = desk.login_file();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let answer = bridge.initialize();
    assert!(told(&answer).contains("mode 644") && told(&answer).contains("chmod 600"), "{answer}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(file.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    let refused = desk.run(&["stdio", "--connect", &serving.mcp]);
    assert!(refused.code == 2 && refused.stderr.contains("chmod 700"), "{refused:?}");
}

#[test]
fn what_is_no_gateway_is_said_to_be_none() {
    let project = Project::new();
    let serving = project.serve(&[]);
    let desk = Desk::new();
    let table: [(&[&str], &str); 8] = [
        (&["login", "http://gateway.example/mcp"], "is not an address of a gateway"),
        (&["login", "http://127.0.0.1:1/mcp"], "does not say how to log in"),
        (&["login", &serving.origin()], "letter for letter"),
        (&["login", &serving.mcp, "--issuer", "https://evil.example"], "one that the gateway names"),
        (&["login", "no-such-folder"], "ringfence.toml"),
        (&["stdio", "--connect", "http://gateway.example/mcp"], "is not an address of a gateway"),
        (&["stdio"], "required"),
        (&["stdio", "x", "--connect", &serving.mcp], "cannot be used with"),
    ];
    for (arguments, said) in table {
        let refused = desk.run(arguments);
        assert!(refused.code == 2 && refused.stderr.contains(said), "{arguments:?}: {refused:?}");
    }
}
