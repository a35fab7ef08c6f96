//! Who may come to the agents' door, with which token, and for how long.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::header::{HeaderMap, HeaderValue};
use ringfence_core::Digest;
use ringfence_mcp::client::{Answer, Client};
use ringfence_mcp::{Revision, ToolCall};
use ringfence_tests::issuer::{Issuer, Key, trusting};
use ringfence_tests::{Project, Serving, ringfence};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn list(client: &Client) -> Answer {
    runtime().block_on(client.request("tools/list", serde_json::Map::new())).unwrap()
}

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn an_agent_that_the_operator_does_not_know_is_turned_away_without_a_login() {
    let project = Project::new();
    let agents = |line: &str| {
        project.edit("ringfence.toml", |text| {
            let lines = text.lines().map(|old| {
                let is_agents = ["unknown = ", "known = "].iter().any(|key| old.starts_with(key));
                if is_agents { line.to_owned() } else { old.to_owned() }
            });
            lines.collect::<Vec<_>>().join("\n") + "\n"
        });
    };
    agents("known = [\"desk\"]");
    let serving = project.serve(&[]);
    let ask =
        |agent: &str| list(&serving.client(&project.token("bob", &["--agent", agent]), Revision::V2026));
    assert_eq!(ask("desk").status, 200, "the control");
    let refused = ask("stranger");
    assert_eq!(
        (refused.status, refused.www_authenticate),
        (403, None),
        "no challenge: nothing to log in for"
    );
    assert!(refused.body["error"]["message"].as_str().unwrap().contains("`known` in `[agents]`"));
    assert_eq!(project.journal().iter().filter(|entry| entry["code"] == "agent_unknown").count(), 1);
    drop(serving);

    let says = || {
        let checked = ringfence(&["check", project.path(), "--json"]).json();
        let problems = checked["problems"].as_array().unwrap().clone();
        problems.into_iter().filter(|problem| problem.to_string().contains("known")).collect::<Vec<_>>()
    };
    assert_eq!(says(), Vec::<Value>::new(), "the control");
    agents("known = []");
    let said = says();
    assert!(said.len() == 1 && said[0].to_string().contains("known = [\\\"CLIENT-ID\\\"]"), "{said:?}");
    agents("unknown = \"ignore\"");
    assert!(says().iter().any(|said| said.to_string().contains("write `refuse`, or `accept`")));
}

#[test]
fn a_token_opens_no_session_of_another() {
    let project = Project::new();
    let serving = project.serve(&[]);
    let runtime = runtime();
    for user in ["bob", "eve"] {
        let client = serving.client(&project.token(user, &[]), Revision::V2025);
        let hello = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
        // What `initialize` answers names no session, so there is none to be taken over.
        let (headers, body) = (
            client.headers("initialize", None),
            json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello }),
        );
        let hello = reqwest::Client::new().post(&serving.mcp).headers(headers);
        let hello = hello.bearer_auth(project.token(user, &[])).body(body.to_string()).send();
        let answer = runtime.block_on(hello).unwrap();
        assert_eq!((answer.status().as_u16(), answer.headers().get("mcp-session-id")), (200, None));
        let mut headers = client.headers("tools/list", None);
        let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
        let send = |headers: HeaderMap| runtime.block_on(client.send(headers, list)).unwrap().status;
        assert_eq!(send(headers.clone()), 200, "the control");
        for session in ["of-bob", "of-eve"] {
            headers.insert("mcp-session-id", HeaderValue::from_static(session));
            assert_eq!(send(headers.clone()), 404, "{user} in the session {session}");
        }
    }
}

/// What was heard of a program while it ran, and its result: each a list of times, of which the last is past `until`.
fn times(serving: &Serving, token: &str, until: f64) -> (Vec<f64>, Vec<f64>) {
    let client = serving.client(token, Revision::V2026);
    let read = |text: &str| text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<f64>>();
    let code = format!(
        "import time\nnow = 0\nwhile now < {until}:\n    now = time.time()\n    print(now, flush=True)\n    time.sleep(0.1)"
    );
    let mut heard = String::new();
    let arguments = json!({ "code": code }).as_object().unwrap().clone();
    let call = ToolCall { name: "run_python".into(), arguments };
    let answer = runtime().block_on(client.call_and_hear(call, |notified| {
        heard.push_str(notified["params"]["message"].as_str().unwrap());
    }));
    let answer = answer.unwrap();
    let result = answer.result().unwrap()["structuredContent"]["stdout"].as_str().unwrap().to_owned();
    (read(&heard), read(&result))
}

#[test]
fn a_stream_that_outlives_its_token_says_no_more_until_its_result() {
    let project = Project::new();
    project.edit("ringfence.toml", |text| text.replace("seconds = 10", "seconds = 60"));
    let serving = project.serve(&[]);
    let token = project.token("bob", &["--lifetime-seconds", "600"]);
    let (heard, printed) = times(&serving, &token, expiry(&token) - 598.0);
    assert!(!heard.is_empty() && heard.last() == printed.last(), "the control: {heard:?} of {printed:?}");
    let token = project.token("bob", &["--lifetime-seconds", "10"]);
    let ends = expiry(&token);
    let (heard, printed) = times(&serving, &token, ends + 1.0);
    assert!(printed.last().is_some_and(|time| *time > ends), "the call itself runs to its end");
    assert!(!heard.is_empty() && heard.iter().all(|time| *time < ends), "{heard:?} until {ends}");
    // And no further call starts.
    let answer = runtime().block_on(serving.client(&token, Revision::V2026).call(ToolCall {
        name: "run_python".into(),
        arguments: json!({ "code": "1" }).as_object().unwrap().clone(),
    }));
    let answer = answer.unwrap();
    let refused = answer.body.pointer("/result/structuredContent/refusal/code");
    assert!(answer.status == 401 || refused == Some(&json!("run_expired")), "{answer:?}");
}

/// When a token ends, in seconds.
fn expiry(token: &str) -> f64 {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice::<Value>(&payload).unwrap()["exp"].as_f64().unwrap()
}

#[test]
fn several_issuers_are_trusted_each_for_itself_and_named_to_clients() {
    let (first, second) = (Issuer::new(), Issuer::new());
    let project = trusting(&[&first, &second], "");
    let serving = project.serve(&[]);
    let ask = |token: &str| list(&serving.client(token, Revision::V2026)).status;
    for issuer in [&first, &second] {
        assert_eq!(ask(&issuer.token(&serving.mcp, &json!({}))), 200, "the control");
    }
    // The second issuer speaks in the name of the first.
    assert_eq!(ask(&second.token(&serving.mcp, &json!({ "iss": first.name }))), 401);
    assert_eq!(ask(&Issuer::new().token(&serving.mcp, &json!({}))), 401, "a stranger");
    let text = runtime().block_on(async {
        let url = format!("{}/.well-known/oauth-protected-resource/mcp", serving.origin());
        reqwest::get(url).await.unwrap().text().await.unwrap()
    });
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        document,
        json!({
            "resource": serving.mcp,
            "authorization_servers": [first.name, second.name],
            "scopes_supported": ["tools"],
            "bearer_methods_supported": ["header"],
            "dpop_signing_alg_values_supported": ["ES256", "EdDSA"],
            "dpop_bound_access_tokens_required": false,
            "resource_name": "Ringfence",
        })
    );
    let wrong = trusting(&[&first, &first], "");
    let said = ringfence(&["check", wrong.path(), "--json"]).json();
    assert!(said["errors"] == 1 && said.to_string().contains("is trusted twice"), "{said}");
}

#[test]
fn a_bound_token_needs_a_proof_for_each_request() {
    let (issuer, client) = (Issuer::new(), Key::new());
    let project = trusting(&[&issuer], "require-dpop = true\n");
    let serving = project.serve(&[]);
    let token = issuer.token(&serving.mcp, &json!({ "cnf": { "jkt": client.thumbprint() } }));
    let hash = URL_SAFE_NO_PAD.encode(Digest::of(&[token.as_bytes()]).as_bytes());
    let proof = |id: &str, url: &str| {
        let header = json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": client.public() });
        let claims = json!({ "jti": id, "htm": "POST", "htu": url, "iat": seconds_now(), "ath": hash });
        client.sign(&header, &claims)
    };
    let plain = Client::new(serving.mcp.clone(), None, Revision::V2025).unwrap();
    let runtime = runtime();
    let send = |scheme: &str, token: &str, proofs: &[&str]| {
        let mut headers = plain.headers("tools/list", None);
        headers.insert("authorization", HeaderValue::from_str(&format!("{scheme} {token}")).unwrap());
        for proof in proofs {
            headers.append("dpop", HeaderValue::from_str(proof).unwrap());
        }
        let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
        let answer = runtime.block_on(plain.send(headers, list)).unwrap();
        (answer.status, answer.www_authenticate.unwrap_or_default())
    };
    let (first, second) = (proof("1", &serving.mcp), proof("2", &serving.mcp));
    assert_eq!(send("DPoP", &token, &[&first]), (200, String::new()), "the control");
    let metadata = format!("{}/.well-known/oauth-protected-resource/mcp", serving.origin());
    let challenge = |error: &str| {
        format!(r#"DPoP resource_metadata="{metadata}", scope="tools", error="{error}", algs="ES256 EdDSA""#)
    };
    let people = proof("3", serving.mcp.trim_end_matches("/mcp"));
    for (what, scheme, proofs, error) in [
        ("used before", "DPoP", vec![first.as_str()], "invalid_dpop_proof"),
        ("none", "DPoP", vec![], "invalid_dpop_proof"),
        ("two", "DPoP", vec![first.as_str(), second.as_str()], "invalid_request"),
        ("for another URL", "DPoP", vec![people.as_str()], "invalid_dpop_proof"),
        ("as a bearer token", "Bearer", vec![second.as_str()], "invalid_token"),
    ] {
        assert_eq!(send(scheme, &token, &proofs), (401, challenge(error)), "{what}");
    }
    let unbound = issuer.token(&serving.mcp, &json!({}));
    assert_eq!(send("Bearer", &unbound, &[]), (401, challenge("invalid_token")), "one for anyone");
    assert_eq!(send("DPoP", &token, &[&second]), (200, String::new()), "none of them spent it");
}

/// The project with this as its `[identity]`, and a secret beside it.
fn identified_by(identity: &str) -> Project {
    let project = Project::new();
    project.edit("ringfence.toml", |text| {
        let own = text.lines().filter(|line| {
            !["development-", "users", "groups-claim"].iter().any(|word| line.starts_with(word))
        });
        own.collect::<Vec<_>>().join("\n").replace("[identity]\n", &format!("[identity]\n{identity}\n"))
    });
    project.write("secret", "s\n");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(project.file("secret"), private).unwrap();
    project
}

#[test]
fn an_issuer_is_asked_about_tokens_that_say_nothing_themselves() {
    let runtime = runtime();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let name = format!("http://{}", listener.local_addr().unwrap());
    let says = json!({
        "active": true, "sub": "bob", "client_id": "desk", "aud": "the-gateway", "scope": "tools",
        "exp": seconds_now() + 600, "groups": ["analysts"], "tenant": "acme",
    });
    let answer = |body: String| async move {
        let is_good = body.split('&').any(|pair| pair == "token=opaque-1");
        if is_good { says.to_string() } else { json!({ "active": false }).to_string() }
    };
    let router = Router::new().route("/introspect", axum::routing::post(answer));
    runtime.spawn(async move { axum::serve(listener, router).await });
    let project = identified_by(&format!(
        "issuer = \"{name}\"\ntoken-type = \"opaque\"\naudience = {{ agents = \"the-gateway\", people = \"the-people\" }}\nintrospection = {{ endpoint = \"{name}/introspect\", client-id = \"g\", client-secret-file = \"secret\" }}"
    ));
    let serving = project.serve(&[]);
    let ask = |token: &str| {
        let answer = list(&serving.client(token, Revision::V2026));
        (answer.status, answer.body["error"]["message"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(ask("opaque-1"), (200, String::new()), "the control");
    assert_eq!(ask("opaque-2"), (401, "the access token is no longer active".to_owned()));
    assert_eq!(ask(&Issuer::new().token(&serving.mcp, &json!({}))).0, 401, "a stranger's JWT");
    // It falls silent: what was kept goes on for its minute, nothing else does.
    runtime.shutdown_background();
    assert_eq!(ask("opaque-1").0, 200);
    assert_eq!(ask("opaque-3").0, 503);
}

#[test]
fn what_is_wrong_with_an_issuer_is_said_with_what_to_write() {
    let said = |identity: &str| {
        let checked = ringfence(&["check", identified_by(identity).path(), "--json"]).json();
        let problems = checked["problems"].as_array().unwrap().clone();
        let problems = problems.iter().filter(|problem| problem["file"] == "ringfence.toml");
        problems.map(|problem| format!("{} {}", problem["what"], problem["instead"])).collect::<Vec<_>>()
    };
    let asked = "introspection = { endpoint = \"https://x.example/i\", client-id = \"g\", client-secret-file = \"secret\" }";
    let control = format!("issuer = \"https://x.example\"\nrecheck-seconds = 60\n{asked}");
    assert_eq!(said(&control), Vec::<String>::new(), "the control");
    let internal = "issuer = \"https://10.0.0.1\"\ninternal = true";
    assert_eq!(said(internal), Vec::<String>::new(), "the control of a private address");
    let issuer = "issuer = \"https://x.example\"\n";
    for (identity, expected) in [
        ("issuer = \"https://10.0.0.1\"".to_owned(), "a private address needs `internal = true`"),
        ("issuer = \"http://x.example\"".to_owned(), "`http` is for loopback alone"),
        (format!("{issuer}jwks = \"https://169.254.169.254/keys\""), "is not a URL that may be asked"),
        (format!("{issuer}algorithms = [\"HS256\"]"), "write `ES256`, `EdDSA` or `RS256`"),
        (format!("{issuer}token-type = \"opaque\""), "needs `introspection`"),
        (format!("{issuer}recheck-seconds = 60"), "needs `introspection`"),
        (format!("{issuer}{asked}"), "is never used: these tokens are signed"),
        (
            format!("{issuer}recheck-seconds = 60\n{}", asked.replace("\"secret\"", "\"none\"")),
            "does not exist",
        ),
        (
            format!("{issuer}token-type = \"opaque\"\n{}", asked.replace(" }", ", cache-seconds = 61 }")),
            "from 0 to 60",
        ),
        (
            format!("{issuer}audience = {{ agents = \"a\", people = \"a\" }}"),
            "a token for one would open the other",
        ),
        (format!("{issuer}audience = {{ agents = \"a\" }}"), "`people` is missing"),
        (format!("{issuer}[[identity.issuers]]\nissuer = \"https://y.example\""), "are both there"),
        ("[[identity.issuers]]\njwks = \"https://y.example/keys\"".to_owned(), "`issuer` is missing"),
        (format!("{issuer}intropsection = 1"), "did you mean `introspection`?"),
    ] {
        let problems = said(&identity);
        assert!(problems.iter().any(|problem| problem.contains(expected)), "{identity}: {problems:?}");
    }
    let two = format!("[[identity.issuers]]\n{issuer}token-type = \"opaque\"\n{asked}\n");
    let two = format!("{two}{}", two.replace("x.example", "y.example"));
    assert!(said(&two).iter().any(|problem| problem.contains("a second issuer has opaque tokens")));
}
