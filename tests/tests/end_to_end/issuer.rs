//! The development issuer as a project sets it: its clients, and users that come and go while the gateway runs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use ringfence_mcp::{Revision, ToolCall};
use ringfence_tests::{Project, log_in, ringfence, until};
use serde_json::{Value, json};

const SECRET: &str = "a-secret-of-the-backend";
const BACKEND: &str = "[[identity.clients]]\nid = \"backend\"\nsecret-file = \"backend.secret\"\ngrants = [\"client-credentials\"]\n";

/// A project with this among its clients.
fn with_client(client: &str) -> Project {
    let project = Project::new();
    project.write("backend.secret", SECRET);
    fs::set_permissions(project.file("backend.secret"), fs::Permissions::from_mode(0o600)).unwrap();
    project.edit("ringfence.toml", |text| text.replace("[agents]", &format!("{client}\n[agents]")));
    project
}

/// The address behind this key of the project.
fn address(project: &Project, key: &str) -> String {
    let text = fs::read_to_string(project.file("ringfence.toml")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{key} = \"")));
    format!("http://{}", line.unwrap().split('"').next().unwrap())
}

fn post(url: &str, form: &[(&str, &str)]) -> Value {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let request = reqwest::Client::new().post(url).basic_auth("backend", Some(SECRET)).form(form);
    runtime.block_on(async { request.send().await.unwrap().json().await.unwrap() })
}

fn status(url: &str, token: &str) -> u16 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let request = reqwest::Client::new().get(url).bearer_auth(token);
    runtime.block_on(async { request.send().await.unwrap().status().as_u16() })
}

#[test]
fn an_application_gets_a_token_of_its_own_for_the_peoples_door() {
    let project = with_client(BACKEND);
    let _serving = project.serve(&[]);
    let token = format!("{}/token", address(&project, "development-listen"));
    let people = format!("{}/v1/status", address(&project, "control"));
    let given = |form: &[(&str, &str)]| post(&token, form)["access_token"].as_str().unwrap().to_owned();
    // Known there, and no operator; for the other door, not even known.
    assert_eq!(status(&people, &given(&[("grant_type", "client_credentials")])), 403);
    let agents = format!("{}/mcp", address(&project, "listen"));
    let for_agents = given(&[("grant_type", "client_credentials"), ("resource", &agents)]);
    assert_eq!(status(&people, &for_agents), 401);
}

#[test]
fn a_user_who_is_disabled_is_nobody_within_a_second() {
    let project = with_client(BACKEND);
    let _serving = project.serve(&[]);
    let introspect = format!("{}/introspect", address(&project, "development-listen"));
    let is_active = |token: &str| post(&introspect, &[("token", token)])["active"] == true;
    let (bob, eve) = (project.token("bob", &[]), project.token("eve", &[]));
    assert!(is_active(&bob) && is_active(&eve), "the control");
    project.edit("users.toml", |text| text.replace("[bob]\n", "[bob]\ndisabled = true\n"));
    until("bob is nobody", || !is_active(&bob));
    assert!(is_active(&eve), "others go on");
    let refused = ringfence(&["token", "--as", "bob", "--project", project.path()]);
    assert!(refused.code == 2 && refused.stderr.contains("no user `bob`"), "{refused:?}");
    // A file that cannot be read names nobody; put right, it does again.
    let good = fs::read_to_string(project.file("users.toml")).unwrap();
    project.write("users.toml", "[eve");
    until("eve is nobody", || !is_active(&eve));
    project.write("users.toml", &good);
    until("eve is back", || is_active(&eve));
}

#[test]
fn a_client_that_is_not_sound_is_a_problem_with_what_to_write() {
    let problems = |client: &str| {
        let checked = ringfence(&["check", with_client(client).path(), "--json"]).json();
        let problems = checked["problems"].as_array().unwrap().iter();
        problems.map(|problem| problem["what"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let client = |rest: &str| format!("[[identity.clients]]\nid = \"app\"\n{rest}\n");
    let back = "redirect-uris = [\"http://127.0.0.1/cb\"]\n";
    let secret = "secret-file = \"backend.secret\"\n";
    assert_eq!(problems(BACKEND), Vec::<String>::new(), "the control");
    assert_eq!(problems(&client(back)), Vec::<String>::new(), "the control");
    let exchange = format!(
        "{secret}grants = [\"token-exchange\"]\nmay-exchange = {{ \"https://a.example\" = [\"read\"] }}\n"
    );
    assert_eq!(problems(&client(&exchange)), Vec::<String>::new(), "the control");
    let table = [
        (client(""), "users could not be sent back to a client without `redirect-uris`"),
        (
            client("redirect-uris = [\"http://app.example/cb\"]"),
            "`http://app.example/cb` cannot be redirected to",
        ),
        (client("grants = [\"client-credentials\"]"), "without `secret-file` cannot prove who it is"),
        (client("grants = [\"password\"]"), "`password` is not a grant"),
        (client(&format!("{secret}grants = [\"token-exchange\"]")), "need each other"),
        (client(&format!("{back}may-exchange = {{ \"https://a.example\" = [] }}")), "need each other"),
        (client(&format!("{back}secret-file = \"none\"")), "`none` does not exist"),
        (client(&format!("{back}secret-file = \"users.toml\"")), "others could read it"),
        (client(&format!("{back}secret = \"x\"")), "`secret` is not a key"),
        (client(back).replace("\"app\"", "\"bob\""), "`bob` is the name of a user or of another client"),
        (client(back).replace("\"app\"", "\"https://a\""), "`https://a` is not the name of a client"),
        (client(back).repeat(2), "`app` is the name of a user or of another client"),
        ("clients = \"app\"\n".to_owned(), "`identity.clients` is no list of tables"),
    ];
    for (client, said) in table {
        let problems = problems(&client);
        assert!(problems.iter().any(|what| what.contains(said)), "{said}: {problems:?}\n{client}");
    }
}

#[test]
fn a_client_that_is_an_address_logs_in_and_calls() {
    let project = Project::new();
    let serving = project.serve(&[]);
    let issuer = address(&project, "development-listen");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let id = format!("http://{}/client.json", listener.local_addr().unwrap());
    let document = json!({ "client_id": id, "client_name": "An application", "redirect_uris": ["https://app.example/cb"] });
    let router = axum::Router::new().fallback(move || async { axum::Json(document) });
    runtime.spawn(async move { axum::serve(listener, router).await.unwrap() });
    // The example of RFC 7636, appendix B.
    let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let asked = [
        ("response_type", "code"),
        ("client_id", &id),
        ("redirect_uri", "https://app.example/cb"),
        ("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"),
        ("code_challenge_method", "S256"),
        ("resource", &serving.mcp),
    ];
    let login = reqwest::Url::parse_with_params(&format!("{issuer}/authorize"), asked).unwrap();
    let back = runtime.block_on(log_in(login.as_str(), "bob"));
    let code = back.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
    let form = [
        ("grant_type", "authorization_code"),
        ("client_id", &id),
        ("redirect_uri", "https://app.example/cb"),
        ("code_verifier", verifier),
        ("code", &code),
    ];
    let token: Value = runtime.block_on(async {
        let answer = reqwest::Client::new().post(format!("{issuer}/token")).form(&form).send().await.unwrap();
        answer.json().await.unwrap()
    });
    let client = serving.client(token["access_token"].as_str().unwrap(), Revision::V2026);
    let arguments = json!({ "user_id": "u-1", "month": "2026-10" }).as_object().unwrap().clone();
    let call = ToolCall { name: "get_user_monthly_metrics".into(), arguments };
    let answer = runtime.block_on(client.call(call)).unwrap();
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    let called =
        project.journal().into_iter().find(|entry| entry["tool"] == "get_user_monthly_metrics").unwrap();
    assert!(called.to_string().contains(&id), "the journal names the client: {called}");
}

#[test]
fn a_project_that_asks_for_neither_has_no_self_made_clients() {
    let project = Project::new();
    project.edit("ringfence.toml", |text| {
        let kept =
            text.lines().filter(|line| !line.contains("-registration") && !line.contains("-documents"));
        kept.collect::<Vec<_>>().join("\n")
    });
    let _serving = project.serve(&[]);
    let issuer = address(&project, "development-listen");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let document: Value = runtime.block_on(async {
        let metadata = format!("{issuer}/.well-known/oauth-authorization-server");
        reqwest::get(metadata).await.unwrap().json().await.unwrap()
    });
    assert_eq!(
        (document.get("registration_endpoint"), &document["client_id_metadata_document_supported"]),
        (None, &json!(false))
    );
}
