//! An authorization server that knows nothing of this project, and the clients that people really use, at one gateway.
//!
//! `cargo xtask check` installs them under `target/clients`. What is not there is skipped, never passed.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use reqwest::Method;
use ringfence_mcp::{Revision, ToolCall};
use ringfence_tests::clients::{AuthorizationServer, CLIENT_SECRET, Client};
use ringfence_tests::{Project, Serving};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

const READ: &str = "get_user_monthly_metrics";
/// How often the gateway asks whether a token is still good, in seconds.
const RECHECK_SECONDS: u64 = 2;

const CLIENTS: &[Client] = &[
    Client { name: "python_sdk_1_at_oidc_provider", folder: "python-1", script: "login.py" },
    Client { name: "python_sdk_2_at_oidc_provider", folder: "python-2", script: "newest_login.py" },
    Client { name: "typescript_sdk_1_at_oidc_provider", folder: "node", script: "login.mjs" },
    Client { name: "typescript_sdk_2_at_oidc_provider", folder: "node", script: "newest_login.mjs" },
];

const APPLICATION: Client = Client { name: "", folder: "node", script: "application.mjs" };

fn main() -> ExitCode {
    let missing = !AuthorizationServer::is_ready();
    let login = |client: &'static Client| {
        let trial = Trial::test(client.name, || logs_in_steps_up_and_is_seen_behind_the_gateway(client));
        trial.with_ignored_flag(missing || !client.is_ready())
    };
    let of_application = |name: &str, format: &'static str| {
        let trial = Trial::test(name, move || a_disabled_user_loses_access(format));
        trial.with_ignored_flag(missing || !APPLICATION.is_ready())
    };
    let mut trials: Vec<Trial> = CLIENTS.iter().map(login).collect();
    trials.push(of_application("a_user_disabled_at_oidc_provider_loses_access_also_in_a_run", "jwt"));
    trials.push(of_application("the_same_with_tokens_that_say_nothing_themselves", "opaque"));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

struct House {
    server: AuthorizationServer,
    project: Project,
    serving: Serving,
    control: String,
    runtime: Runtime,
}

/// A gateway that trusts oidc-provider, with a system of its own scope that tokens are exchanged for.
fn house(format: &str) -> House {
    let project = Project::new();
    let control = format!("http://{}", project.setting("control"));
    let mcp = format!("http://{}/mcp", project.setting("listen"));
    let server = AuthorizationServer::start(&json!({ &mcp: "tools metrics", &control: "tools" }), format);
    let AuthorizationServer { issuer, system, .. } = &server;
    let own = ["development-", "users"];
    let client = "client-id = \"gateway\", client-secret-file = \"secret\"";
    let opaque = if format == "opaque" { "token-type = \"opaque\"\n" } else { "" };
    let age = if format == "opaque" { format!(", cache-seconds = {RECHECK_SECONDS}") } else { String::new() };
    let recheck =
        if format == "opaque" { String::new() } else { format!("recheck-seconds = {RECHECK_SECONDS}\n") };
    project.edit("ringfence.toml", |text| {
        let kept = text.lines().filter(|line| !own.iter().any(|word| line.starts_with(word)));
        let identity = format!(
            "[identity]\nissuer = \"{issuer}\"\nalgorithms = [\"ES256\"]\n{opaque}{recheck}introspection = {{ endpoint = \"{issuer}/token/introspection\", {client}{age} }}"
        );
        kept.collect::<Vec<_>>().join("\n").replace("[identity]", &identity)
    });
    project.append("ringfence.toml", &format!(
        "\n[applications.desk]\nagents = [\"desk-agent\"]\n\n[systems.behind]\nkind = \"http\"\nbase-url = \"{system}\"\ncredential = {{ exchange = {{ audience = \"{system}\", scopes = [\"metrics:read\"], {client}, token-endpoint = \"{issuer}/token\", require-act = true }} }}\n"
    ));
    project.write("tools/behind.toml", "[who_is_seen]\nsystem = \"behind\"\neffect = \"read\"\nscope = \"metrics\"\nyields = []\ndescribe = \"Says whom it sees.\"\nhttp = { method = \"GET\", path = \"/seen\", returns = [\"user\", \"actor\", \"audience\", \"scope\"] }\n");
    project.append(
        "policies/policies.cedar",
        "\npermit (principal in Group::\"analysts\", action == Action::\"who_is_seen\", resource);\n",
    );
    project.write("secret", CLIENT_SECRET);
    std::fs::set_permissions(project.file("secret"), PermissionsExt::from_mode(0o600)).unwrap();
    let serving = project.serve(&[]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    House { server, project, serving, control, runtime }
}

/// Discovery from a 401, registration, login with consent, call, refresh, call, step-up from a 403, exchange.
fn logs_in_steps_up_and_is_seen_behind_the_gateway(client: &Client) -> Result<(), Failed> {
    let house = house("jwt");
    let mut seen = client.seen(&[&house.serving.mcp, "bob", "who_is_seen"])?;
    let client_id = seen.as_object_mut().unwrap().remove("client_id").unwrap();
    let asked = seen["stepped_up"].as_object_mut().unwrap().remove("asked").unwrap();
    // All that the request needs, in one challenge; some ask for a refresh token besides.
    let asked: BTreeSet<&str> =
        asked.as_str().unwrap().split(' ').filter(|scope| *scope != "offline_access").collect();
    assert_eq!(asked, BTreeSet::from(["metrics", "tools"]));
    let rows = seen["rows"].clone();
    assert_eq!(rows.as_array().map(Vec::len), Some(2));
    let system = &house.server.system;
    let expected = json!({
        "tools": [READ, "run_python", "who_is_seen"],
        "rows": rows,
        "rows_after_refresh": rows,
        "logins": 2,
        "tokens": 3,
        "rotated": true,
        "stepped_up": {
            "seen": {
                "user": "bob",
                "actor": { "sub": "gateway", "act": { "sub": client_id } },
                "audience": system,
                "scope": "metrics:read",
            },
        },
    });
    assert_eq!(seen, expected);
    assert_eq!(house.asked_of_server()["exchanges"], 1);
    let journal = house.project.journal();
    let refused = journal.iter().filter(|entry| entry["code"] == "insufficient_scope");
    assert_eq!(refused.count(), 1, "{journal:?}");
    Ok(())
}

/// Bob is disabled: his own token and the token of a run that was started for him stop within the recheck; Eve goes on.
fn a_disabled_user_loses_access(format: &str) -> Result<(), Failed> {
    let house = house(format);
    let (bob, eve) = (house.start("bob")?, house.start("eve")?);
    assert_eq!((house.read(&bob), house.read(&eve)), (200, 200), "the control");
    let asked = house.asked_of_server()["introspections"].as_u64().unwrap();
    assert!(asked >= 2, "{asked}");
    let began = Instant::now();
    let url = format!("{}/tests/disable?user=bob", house.server.issuer);
    house.runtime.block_on(async { reqwest::get(url).await.unwrap().error_for_status() })?;
    while house.read(&bob) == 200 {
        assert!(began.elapsed() < Duration::from_secs(RECHECK_SECONDS + 10), "it never ends");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!((house.read(&bob), house.read(&eve)), (401, 200), "after {:?}", began.elapsed());
    assert!(house.start("bob").is_err(), "nor does a new one start");
    Ok(())
}

impl House {
    /// A run for this user, whose token an agent gets.
    fn start(&self, user: &str) -> Result<String, Failed> {
        let tokens = APPLICATION.seen(&[&self.server.issuer, &self.control, user, CLIENT_SECRET])?;
        let body = json!({ "user_token": tokens["user_token"], "agent": "desk-agent" }).to_string();
        let asking = reqwest::Client::new().request(Method::POST, format!("{}/v1/runs", self.control));
        let asking = asking.bearer_auth(tokens["application_token"].as_str().unwrap()).body(body);
        self.runtime.block_on(async {
            let answer = asking.send().await?;
            let (status, text) = (answer.status().as_u16(), answer.text().await?);
            let started: Value = serde_json::from_str(&text).unwrap_or_default();
            match started["token"].as_str() {
                Some(token) if status == 201 => Ok(token.to_owned()),
                _ => Err(format!("{status}: {text}").into()),
            }
        })
    }

    /// What a call with this token comes to.
    fn read(&self, token: &str) -> u16 {
        let client = self.serving.client(token, Revision::V2026);
        let arguments = json!({ "user_id": "u-1", "month": "2026-10" });
        let call = ToolCall { name: READ.into(), arguments: arguments.as_object().unwrap().clone() };
        self.runtime.block_on(client.call(call)).unwrap().status
    }

    fn asked_of_server(&self) -> Value {
        let url = format!("{}/tests/seen", self.server.issuer);
        let text = self.runtime.block_on(async { reqwest::get(url).await.unwrap().text().await.unwrap() });
        serde_json::from_str(&text).unwrap()
    }
}
