//! MCP as it goes over the wire, both revisions, against the gateway itself.

use reqwest::header::{HeaderMap, HeaderValue};
use ringfence_mcp::client::{Answer, Client};
use ringfence_mcp::{Revision, ToolCall};
use ringfence_tests::{Project, Serving};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

const READ: &str = "get_user_monthly_metrics";

/// A gateway with Bob's and Eve's clients.
struct Wire {
    project: Project,
    serving: Serving,
    runtime: Runtime,
}

impl Wire {
    fn new() -> Self {
        Self::of(Project::new())
    }

    fn of(project: Project) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { serving: project.serve(&[]), project, runtime }
    }

    fn client(&self, user: &str, revision: Revision) -> Client {
        self.serving.client(&self.project.token(user, &[]), revision)
    }

    fn request(&self, client: &Client, method: &str, params: &Value) -> Answer {
        self.runtime.block_on(client.request(method, params.as_object().unwrap().clone())).unwrap()
    }

    fn call(&self, client: &Client, tool: &str, arguments: &Value) -> Answer {
        let call = ToolCall { name: tool.into(), arguments: arguments.as_object().unwrap().clone() };
        self.runtime.block_on(client.call(call)).unwrap()
    }

    /// Sends `tools/list` with one header changed; `None` takes it away.
    fn with_header(&self, client: &Client, name: &'static str, value: Option<&str>) -> Answer {
        let mut headers = client.headers("tools/list", None);
        headers.remove(name);
        if let Some(value) = value {
            headers.insert(name, HeaderValue::from_str(value).unwrap());
        }
        self.runtime.block_on(client.send(headers, LIST_2026.to_owned())).unwrap()
    }

    fn raw(&self, client: &Client, headers: HeaderMap, body: impl Into<reqwest::Body>) -> Answer {
        self.runtime.block_on(client.send(headers, body)).unwrap()
    }
}

const LIST_2026: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#;

fn names(answer: &Answer) -> Vec<&str> {
    let tools = answer.result().unwrap()["tools"].as_array().unwrap();
    tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect()
}

#[test]
fn the_newest_revision_has_no_handshake() {
    let wire = Wire::new();
    let bob = wire.client("bob", Revision::V2026);
    let found = wire.request(&bob, "server/discover", &json!({}));
    let found = found.result().unwrap();
    assert_eq!(found["supportedVersions"], json!(["2026-07-28", "2025-11-25"]));
    assert_eq!((&found["resultType"], &found["cacheScope"]), (&json!("complete"), &json!("private")));
    let listed = wire.request(&bob, "tools/list", &json!({}));
    assert_eq!(names(&listed), [READ, "run_python"]);
    let result = listed.result().unwrap();
    assert_eq!((&result["cacheScope"], &result["resultType"]), (&json!("private"), &json!("complete")));
    assert!(result["ttlMs"].is_u64());
    let gone = wire.request(&bob, "ping", &json!({}));
    assert_eq!((gone.status, gone.error_code()), (404, Some(-32601)));
}

#[test]
fn the_older_revision_agrees_on_itself_and_needs_no_session() {
    let wire = Wire::new();
    let bob = wire.client("bob", Revision::V2025);
    let hello = json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
    let agreed = wire.request(&bob, "initialize", &hello);
    let agreed = agreed.result().unwrap();
    assert_eq!(agreed["protocolVersion"], "2025-11-25");
    assert_eq!(
        (&agreed["capabilities"], &agreed["serverInfo"]["name"]),
        (&json!({ "tools": {}, "resources": {} }), &json!("ringfence"))
    );
    assert_eq!(wire.request(&bob, "ping", &json!({})).result(), Some(&json!({})));
    assert_eq!(names(&wire.request(&bob, "tools/list", &json!({}))), [READ, "run_python"]);
    let read = wire.call(&bob, READ, &json!({ "user_id": "u-1", "month": "2026-10" }));
    let result = read.result().unwrap();
    assert_eq!(result["structuredContent"]["rows"][1]["value"], 21.0);
    assert_eq!(result["content"][0]["text"], result["structuredContent"].to_string());
    let mut headers = bob.headers("tools/list", None);
    headers.insert("mcp-session-id", HeaderValue::from_static("guessed"));
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    assert_eq!(wire.raw(&bob, headers, list).status, 404, "no session is ever issued");
    let headers = bob.headers("notifications/initialized", None);
    let answer = wire.raw(&bob, headers, r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
    let mut routed = bob.headers("tools/list", None);
    routed.insert("mcp-method", HeaderValue::from_static("ping"));
    assert_eq!(wire.raw(&bob, routed, list).status, 400, "headers of the newer revision must agree here too");
    assert_eq!((answer.status, answer.body), (202, Value::Null));
}

#[test]
fn a_list_shows_what_this_user_may_call_with_every_constraint() {
    let wire = Wire::new();
    let (bob, eve) = (wire.client("bob", Revision::V2026), wire.client("eve", Revision::V2026));
    assert_eq!(names(&wire.request(&eve, "tools/list", &json!({}))), [READ]);
    let listed = wire.request(&bob, "tools/list", &json!({}));
    let schema = &listed.result().unwrap()["tools"][0]["inputSchema"];
    assert_eq!(schema["properties"]["user_id"]["pattern"], "^(?:u-[0-9]{1,9})$");
    assert_eq!(schema["properties"]["month"]["pattern"], json!("^[0-9]{4}-(0[1-9]|1[0-2])$"));
    assert_eq!(schema["required"], json!(["month", "user_id"]));
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["properties"].get("tenant"), None, "what comes from the identity is not shown");
}

#[test]
fn what_does_not_exist_and_what_is_not_permitted_answer_alike() {
    let wire = Wire::new();
    let eve = wire.client("eve", Revision::V2026);
    // The control: Bob may.
    let allowed = wire.call(&wire.client("bob", Revision::V2026), "run_python", &json!({ "code": "1" }));
    assert_eq!(allowed.result().unwrap()["isError"], json!(false));
    for arguments in [json!({ "code": "1" }), json!({}), json!({ "code": 1, "x": 2 })] {
        let hidden = wire.call(&eve, "run_python", &arguments);
        let unknown = wire.call(&eve, "run_pythoo", &arguments);
        assert_eq!(hidden, unknown);
    }
}

#[test]
fn headers_and_body_must_say_the_same() {
    let wire = Wire::new();
    let bob = wire.client("bob", Revision::V2026);
    assert_eq!(wire.with_header(&bob, "x-other", Some("1")).status, 200, "the control");
    for (name, value) in [
        ("mcp-protocol-version", None),
        ("mcp-protocol-version", Some("2025-11-25")),
        ("mcp-method", None),
        ("mcp-method", Some("tools/call")),
        ("mcp-name", Some("run_python")),
        ("mcp-param-user", Some("u-1")),
    ] {
        let answer = wire.with_header(&bob, name, value);
        assert_eq!((answer.status, answer.error_code()), (400, Some(-32020)), "{name}: {value:?}");
    }
    let unknown = LIST_2026.replace("2026-07-28", "2031-01-01");
    let mut headers = bob.headers("tools/list", None);
    headers.insert("mcp-protocol-version", HeaderValue::from_static("2031-01-01"));
    let answer = wire.raw(&bob, headers, unknown);
    assert_eq!((answer.status, answer.error_code()), (400, Some(-32022)));
    let supported = json!({ "supported": ["2026-07-28", "2025-11-25"], "requested": "2031-01-01" });
    assert_eq!(answer.body["error"]["data"], supported);
}

#[test]
fn a_notification_is_held_to_its_headers_too() {
    let wire = Wire::new();
    let bob = wire.client("bob", Revision::V2026);
    let method = "notifications/cancelled";
    let bare = format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{{}}}}"#);
    let with_version =
        bare.replace("{}", r#"{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}"#);
    let notify = |body: &str, name: &'static str, value: Option<&str>| {
        let mut headers = bob.headers(method, None);
        headers.remove(name);
        if let Some(value) = value {
            headers.insert(name, HeaderValue::from_str(value).unwrap());
        }
        let answer = wire.raw(&bob, headers, body.to_owned());
        (answer.status, answer.error_code())
    };
    for body in [&bare, &with_version] {
        assert_eq!(notify(body, "x-other", None), (202, None), "the control");
        assert_eq!(notify(body, "mcp-method", None), (400, Some(-32020)));
        assert_eq!(notify(body, "mcp-method", Some("tools/call")), (400, Some(-32020)));
    }
    assert_eq!(notify(&with_version, "mcp-protocol-version", Some("2025-11-25")), (400, Some(-32020)));
    assert_eq!(notify(&with_version, "mcp-protocol-version", None), (400, Some(-32020)));
    assert_eq!(notify(&bare, "mcp-protocol-version", Some("2031-01-01")), (400, Some(-32022)));
    let newer = with_version.replace("2026-07-28", "2031-01-01");
    assert_eq!(notify(&newer, "mcp-protocol-version", Some("2031-01-01")), (400, Some(-32022)));
}

#[test]
fn requests_from_elsewhere_are_refused_before_anything_is_read() {
    let wire = Wire::new();
    let bob = wire.client("bob", Revision::V2026);
    for (name, value) in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("host", "evil.example"),
        ("host", "evil.example:80"),
    ] {
        assert_eq!(wire.with_header(&bob, name, Some(value)).status, 403, "{name}: {value}");
    }
    let mut project = Project::new();
    project = {
        project.edit("ringfence.toml", |text| {
            text.replace("[identity]", "allowed-origins = [\"https://app.example\"]\n\n[identity]")
        });
        project
    };
    let wire = Wire::of(project);
    let bob = wire.client("bob", Revision::V2026);
    assert_eq!(wire.with_header(&bob, "origin", Some("https://app.example")).status, 200);
    assert_eq!(wire.with_header(&bob, "origin", Some("https://app.example.evil.example")).status, 403);
}

#[test]
fn bodies_are_bounded_and_unambiguous() {
    let wire = Wire::new();
    let bob = wire.client("bob", Revision::V2025);
    let headers = || bob.headers("tools/call", Some(READ));
    let with = |arguments: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{READ}","arguments":{arguments}}}}}"#
        )
    };
    let good = wire.raw(&bob, headers(), with(r#"{"user_id":"u-1","month":"2026-10"}"#));
    assert_eq!(good.result().unwrap()["isError"], false, "the control");
    // The control of the next two: an ordinary reader takes the last key and sees nothing wrong.
    let twice = r#"{"user_id":"u-1","user_id":"u-2","month":"2026-10"}"#;
    assert_eq!(serde_json::from_str::<Value>(twice).unwrap()["user_id"], "u-2");
    for bad in [
        with(twice),
        with(r#"{"user_id":"u-1","User_ID":"u-2","month":"2026-10"}"#),
        with(r#"{"user_id":"u-1","user_id":"u-2","month":"2026-10"}"#),
        with(&format!("{}1{}", "[".repeat(5000), "]".repeat(5000))),
        format!("[{},{}]", with("{}"), with("{}")),
        with("{} garbage"),
        with("{").replace('}', ""),
        "null".into(),
        String::new(),
        with(r#"{"user_id":"\ud800"}"#),
        with("NaN"),
    ] {
        let answer = wire.raw(&bob, headers(), bad.clone());
        assert_eq!(answer.status, 400, "{}", bad.chars().take(200).collect::<String>());
        assert!(answer.error_code().is_some());
    }
    assert_eq!(wire.raw(&bob, headers(), vec![0xff, 0xfe]).status, 400);
    let huge = with(&format!(r#"{{"user_id":"{}"}}"#, "x".repeat(8 << 20)));
    // The connection may close before a client that goes on sending can read the answer.
    let answer = wire.runtime.block_on(bob.send(headers(), huge));
    assert!(answer.is_err() || answer.unwrap().status == 413);
    let mut form = headers();
    form.insert("content-type", HeaderValue::from_static("text/plain"));
    assert_eq!(wire.raw(&bob, form, with("{}")).status, 415, "what a browser's form could send");
    assert_eq!(wire.project.journal().iter().filter(|entry| entry["kind"] == "intent").count(), 1);
}

#[test]
fn big_integers_survive() {
    let project = Project::new();
    project.append(
        "tools/metrics.toml",
        "\n[echo]\nsystem = \"metrics\"\neffect = \"read\"\ndescribe = \"Echoes.\"\nsql = \"SELECT :number AS number\"\nparams = { number = { type = \"integer\" } }\n",
    );
    let wire = Wire::of(project);
    let bob = wire.client("bob", Revision::V2026);
    for number in ["9007199254740993", "9223372036854775807", "-9223372036854775808"] {
        let arguments = json!({ "number": serde_json::from_str::<Value>(number).unwrap() });
        let answer = wire.call(&bob, "echo", &arguments);
        assert_eq!(answer.result().unwrap()["structuredContent"]["rows"][0]["number"].to_string(), number);
    }
    for number in ["9223372036854775808", "1e400", "1.5"] {
        let arguments = json!({ "number": serde_json::from_str::<Value>(number).unwrap() });
        let answer = wire.call(&bob, "echo", &arguments);
        assert_eq!(
            answer.result().unwrap()["structuredContent"]["refusal"]["code"],
            "argument_invalid",
            "{number}"
        );
    }
}

#[test]
fn without_a_good_token_the_answer_says_how_to_get_one() {
    let wire = Wire::new();
    let origin = wire.serving.origin();
    let nobody = Client::new(wire.serving.mcp.clone(), None, Revision::V2026).unwrap();
    let answer = wire.request(&nobody, "tools/list", &json!({}));
    let challenge = answer.www_authenticate.unwrap();
    assert_eq!(answer.status, 401);
    let metadata = format!("resource_metadata=\"{origin}/.well-known/oauth-protected-resource/mcp\"");
    assert!(challenge.starts_with("Bearer ") && challenge.contains(&metadata), "{challenge}");
    assert!(challenge.contains("scope=\"tools\"") && !challenge.contains("error="), "{challenge}");
    let garbage = wire.serving.client("garbage", Revision::V2026);
    let answer = wire.request(&garbage, "tools/list", &json!({}));
    assert!(answer.status == 401 && answer.www_authenticate.unwrap().contains("error=\"invalid_token\""));
    for path in ["/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-protected-resource"] {
        let document: Value = wire.runtime.block_on(async {
            let text = reqwest::get(format!("{origin}{path}")).await.unwrap().text().await.unwrap();
            serde_json::from_str(&text).unwrap()
        });
        assert_eq!(document["resource"], wire.serving.mcp);
        assert_eq!(document["bearer_methods_supported"], json!(["header"]));
        assert!(document["authorization_servers"][0].as_str().unwrap().starts_with("http://127.0.0.1:"));
    }
    // A token in the address is refused as such, also beside a good one in the header.
    let token = wire.project.token("bob", &[]);
    let url = format!("{}?access_token={token}", wire.serving.mcp);
    for beside in [None, Some(token)] {
        let in_query = Client::new(url.clone(), beside, Revision::V2026).unwrap();
        let answer = wire.request(&in_query, "tools/list", &json!({}));
        let challenge = answer.www_authenticate.unwrap_or_default();
        assert_eq!((answer.status, challenge.as_str()), (400, r#"Bearer error="invalid_request""#));
    }
    let journalled = wire.project.journal().into_iter().filter(|entry| entry["code"] == "token_in_query");
    assert_eq!(journalled.count(), 2);
}

#[test]
fn a_tool_with_a_scope_of_its_own_says_which() {
    let project = Project::new();
    project.edit("tools/python.toml", |text| text.replace("program = ", "scope = \"programs\"\nprogram = "));
    let wire = Wire::of(project);
    let plain = wire.client("bob", Revision::V2026);
    let answer = wire.call(&plain, "run_python", &json!({ "code": "1" }));
    let challenge = answer.www_authenticate.unwrap();
    assert_eq!(answer.status, 403);
    assert!(
        challenge.contains("error=\"insufficient_scope\"") && challenge.contains("scope=\"tools programs\""),
        "{challenge}"
    );
    let refused = wire.project.journal().into_iter().find(|entry| entry["kind"] == "refused").unwrap();
    assert_eq!(refused["code"], "insufficient_scope", "and it is journalled");
    let token = wire.project.token("bob", &["--scope", "programs"]);
    let answer =
        wire.call(&wire.serving.client(&token, Revision::V2026), "run_python", &json!({ "code": "1" }));
    assert_eq!(answer.result().unwrap()["isError"], false);
}

/// The control for what the door and the tools refuse: each of these attacks works on a reader that forgives.
#[test]
fn what_is_refused_here_works_on_readers_that_forgive() {
    #[derive(serde::Deserialize)]
    struct Forgiving {
        user_id: String,
    }
    let last_wins: Value = serde_json::from_str(r#"{"user_id":"u-1","user_id":"u-2"}"#).unwrap();
    assert_eq!(last_wins["user_id"], "u-2", "a duplicated key: whoever judged the first judged another");
    let extra: Forgiving = serde_json::from_str(r#"{"user_id":"u-1","tenant":"globex"}"#).unwrap();
    assert_eq!(extra.user_id, "u-1", "an extra key passes, and whoever reads further takes it");
    let joined = reqwest::Url::parse(&format!("http://127.0.0.1/v1/tickets/{}", "../../admin")).unwrap();
    assert_eq!(joined.path(), "/admin", "a value put into a path as text leads out of it");
    let batch: Value = serde_json::from_str(r#"[{"method":"ping"},{"method":"tools/call"}]"#).unwrap();
    assert_eq!(batch.as_array().map(Vec::len), Some(2), "a batch holds a call beside what is looked at");
    let nested = format!("{}{}", "[".repeat(100), "]".repeat(100));
    assert!(serde_json::from_str::<Value>(&nested).is_ok(), "a hundred levels are read");
    let (named, meant) = ("ping", json!({ "method": "tools/call" }));
    assert_ne!(meant["method"], named, "a gate that reads the header judges another method than is carried");
}

#[test]
fn who_is_turned_away_by_the_head_alone_hears_so_although_the_body_comes_later() {
    use std::io::{Read as _, Write as _};
    let wire = Wire::new();
    let address = wire.serving.origin().trim_start_matches("http://").to_owned();
    let mut stream = std::net::TcpStream::connect(&address).unwrap();
    stream.set_read_timeout(Some(ringfence_tests::PATIENCE)).unwrap();
    let length = LIST_2026.len();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    // Time enough for an answer that does not wait for the body, and for a connection that is closed on it.
    std::thread::sleep(std::time::Duration::from_millis(300));
    stream.write_all(LIST_2026.as_bytes()).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(100));
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).expect("not reset");
    assert_eq!(&answer, b"HTTP/1.1 401");
    // And the connection goes on.
    stream.write_all(format!("{head}{LIST_2026}").as_bytes()).unwrap();
    let mut rest = String::new();
    while !rest.contains("HTTP/1.1 401") {
        let mut more = [0; 1024];
        let read = stream.read(&mut more).expect("not reset");
        assert!(read > 0, "closed after {rest}");
        rest.push_str(&String::from_utf8_lossy(&more[..read]));
    }
}
