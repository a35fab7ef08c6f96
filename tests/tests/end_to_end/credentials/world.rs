//! What the gateway meets: an authorization server for everything, and systems that echo what they are shown.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

use axum::extract::{Form, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use ringfence_tests::Project;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

pub(super) const CLIENT_SECRET: &str = "canary-client-secret-5f1c";
pub(super) const LOGIN_SECRET: &str = "canary-login-secret-77ab";
pub(super) const STATIC_KEY: &str = "canary-static-key-90d2";
pub(super) const ACCOUNT_CODE: &str = "canary-account-code-31ee";
pub(super) const LOGIN_CODE: &str = "canary-login-code-c004";
const ON_BEHALF: &str = "canary-on-behalf-token-2b8d";
const ACCESS: &str = "canary-account-access-token-e61f";
const REFRESH: &str = "canary-refresh-token-48a7";

/// The servers, and all that they were asked.
pub(super) struct World {
    pub(super) url: String,
    pub(super) runtime: Runtime,
    pub(super) shared: Shared,
}

#[derive(Clone, Default)]
pub(super) struct Shared {
    /// Every form that a token endpoint was sent, with its path.
    pub(super) asked: Arc<Mutex<Vec<(String, Fields)>>>,
    /// The token of whoever logs in, by their code.
    pub(super) logins: Arc<Mutex<HashMap<String, String>>>,
}

type Fields = HashMap<String, String>;

impl World {
    pub(super) fn new() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Shared::default();
        let router = Router::new()
            .route("/token/{which}", post(token))
            .route("/echo", get(echo))
            .route("/fails", get(fails))
            .with_state(shared.clone());
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.spawn(async move {
            axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), router).await.unwrap();
        });
        Self { url, runtime, shared }
    }

    /// A project with a system for each way to a credential.
    pub(super) fn project(&self) -> Project {
        let (project, url) = (Project::new(), &self.url);
        let client = |which: &str, file: &str| {
            format!(
                "client-id = \"g\", client-secret-file = \"{file}\", token-endpoint = \"{url}/token/{which}\""
            )
        };
        let secret = |name: &str, text: &str| {
            project.write(name, text);
            std::fs::set_permissions(project.file(name), PermissionsExt::from_mode(0o600)).unwrap();
        };
        secret("client.secret", CLIENT_SECRET);
        secret("login.secret", LOGIN_SECRET);
        secret("accounts.key", &STANDARD.encode((100..132).collect::<Vec<u8>>()));
        let (exchange, obo) = (client("exchange", "client.secret"), client("obo", "client.secret"));
        let (account, login) = (client("account", "client.secret"), client("login", "login.secret"));
        let systems = [
            ("exchanged", format!("exchange = {{ audience = \"{url}\", scopes = [\"t:read\", \"t:write\"], {exchange} }}")),
            ("behalf", format!("on-behalf-of = {{ scopes = [\"t:read\"], {obo} }}")),
            ("account", format!("account = {{ authorization-endpoint = \"{url}/authorize\", scopes = [\"t:read\"], {account} }}")),
            ("fixed", "static = { header = \"Authorization\", format = \"Bearer {}\", value = { env = \"CANARY_KEY\" }, shared = \"accepted, because the tests want one\" }".to_owned()),
        ];
        let mut text = vec![format!(
            "\n[accounts]\nkey = {{ file = \"accounts.key\" }}\n\n[login]\nauthorization-endpoint = \"{url}/login\"\n{}\n",
            login.replace(", ", "\n")
        )];
        let mut tools = Vec::new();
        for (name, credential) in systems {
            text.push(format!(
                "\n[systems.{name}]\nkind = \"http\"\nbase-url = \"{url}\"\ncredential = {{ {credential} }}\n"
            ));
            for path in ["echo", "fails"] {
                let scopes = if name == "fixed" { "" } else { "scopes = [\"t:read\"]\n" };
                tools.push(format!(
                    "[{path}_{name}]\nsystem = \"{name}\"\neffect = \"read\"\nyields = []\ndescribe = \"Echoes.\"\n{scopes}http = {{ method = \"GET\", path = \"/{path}\", returns = [\"marker\", \"user\", \"seen\", \"scope\"] }}\n\n"
                ));
            }
        }
        project.append("ringfence.toml", &text.concat());
        project.write("tools/echo.toml", &tools.concat());
        project.write("policies/policies.cedar", "permit (principal, action, resource);\n");
        project.edit("users.toml", |text| text.replace("\"team-leads\"", "\"operators\""));
        project
    }

    /// Whoever has this code is this user.
    pub(super) fn can_log_in(&self, project: &Project, code: &str, user: &str) {
        let token = project.token(user, &["--door", "people"]);
        self.shared.logins.lock().unwrap().insert(code.to_owned(), token);
    }

    /// How often a token endpoint was asked.
    pub(super) fn times_asked(&self, which: &str) -> usize {
        self.shared.asked.lock().unwrap().iter().filter(|(path, _)| path == which).count()
    }

    /// Every secret that has gone over the wire so far, and those that are kept here.
    pub(super) fn secrets(&self, project: &Project) -> Vec<String> {
        let fields =
            ["subject_token", "assertion", "refresh_token", "code", "code_verifier", "client_secret"];
        let asked = self.shared.asked.lock().unwrap();
        let sent =
            asked.iter().flat_map(|(_, form)| fields.iter().filter_map(|field| form.get(*field).cloned()));
        let answered = asked.iter().filter_map(|(_, form)| form.get("(answered)").cloned());
        let files =
            ["client.secret", "login.secret", "accounts.key", "state/issuer.key", "state/journal.key"];
        let kept = files.iter().filter_map(|name| std::fs::read_to_string(project.file(name)).ok());
        let logins = self.shared.logins.lock().unwrap().values().cloned().collect::<Vec<_>>();
        let fixed = [STATIC_KEY, ACCOUNT_CODE, LOGIN_CODE, ON_BEHALF, ACCESS, REFRESH].map(str::to_owned);
        let all = sent.chain(answered).chain(kept).chain(logins).chain(fixed);
        let mut all: Vec<String> = all.map(|secret| secret.trim().to_owned()).collect();

        all.sort();
        all.dedup();
        all
    }
}

async fn token(
    State(shared): State<Shared>,
    Path(which): Path<String>,
    Form(mut form): Form<Fields>,
) -> (StatusCode, Json<Value>) {
    let of = |name: &str| form.get(name).cloned().unwrap_or_default();
    let given = match which.as_str() {
        "exchange" => format!("canary-downstream-of-{}-6d05", subject(&of("subject_token"))),
        "obo" => ON_BEHALF.to_owned(),
        "login" => shared.logins.lock().unwrap().get(&of("code")).cloned().unwrap_or_default(),
        _ => ACCESS.to_owned(),
    };
    let mut answer =
        json!({ "access_token": given, "token_type": "Bearer", "expires_in": 60, "scope": of("scope") });
    if which == "exchange" {
        answer["issued_token_type"] = json!("urn:ietf:params:oauth:token-type:access_token");
    }
    if which == "account" {
        answer["refresh_token"] = json!(REFRESH);
    }
    form.insert("(answered)".into(), given);
    shared.asked.lock().unwrap().push((which, form));
    (StatusCode::OK, Json(answer))
}

fn subject(token: &str) -> String {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap_or_default()).unwrap();
    let claims: Value = serde_json::from_slice(&payload).unwrap();
    claims["sub"].as_str().unwrap().to_owned()
}

/// Says what it was shown, in every spelling.
async fn echo(headers: HeaderMap) -> Json<Value> {
    let shown =
        headers.get("authorization").map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    let bare = shown.trim_start_matches("Bearer ");
    let user = ["alice", "bob", "eve"].into_iter().find(|user| bare.contains(&format!("-of-{user}-")));
    let seen: Vec<String> =
        spellings(bare).into_iter().map(|bytes| String::from_utf8(bytes).unwrap()).collect();
    Json(json!({ "marker": "ordinary-marker", "user": user, "seen": [{ shown.clone(): seen }, shown] }))
}

async fn fails(headers: HeaderMap) -> (StatusCode, [(&'static str, String); 1], String) {
    let shown =
        headers.get("authorization").map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    (StatusCode::BAD_REQUEST, [("x-echo", shown.clone())], json!({ "error": shown }).to_string())
}

/// A secret as it may be written.
pub(super) fn spellings(secret: &str) -> Vec<Vec<u8>> {
    let percent = |text: &str, all: bool| {
        let byte = |byte: u8| {
            let is_plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            if is_plain && !all { char::from(byte).to_string() } else { format!("%{byte:02X}") }
        };
        text.bytes().map(byte).collect::<String>()
    };
    let mut all = vec![
        secret.to_owned(),
        percent(secret, false),
        percent(secret, true),
        percent(secret, true).to_lowercase(),
    ];
    all.push(percent(secret, true).replace('%', ""));
    for before in ["", "x", "xy"] {
        // Without what stands beside it decides too.
        let text = format!("{before}{secret}");
        let from = (before.len() * 8).div_ceil(6);
        for encoded in [STANDARD.encode(&text), URL_SAFE.encode(&text)] {
            all.push(encoded[from..text.len() * 8 / 6].to_owned());
        }
    }
    all.into_iter().map(String::into_bytes).collect()
}
