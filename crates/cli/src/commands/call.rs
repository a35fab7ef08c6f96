//! `ringfence call`: one call against a project, through the same pipeline as an agent's.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, header};
use ringfence_actions::Tool;
use ringfence_gateway::{Asked, Reply, Watch};
use ringfence_identity::development::{self, Issuer, Minting};
use ringfence_store::Role;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::verdict;
use crate::failure::Failure;
use crate::wiring::{self, Addresses, Checked};
use crate::{http_server, keys, print};

/// How long the call has to close its entry.
const GRACE: Duration = Duration::from_secs(5);

/// What was asked for.
pub(crate) struct Asking {
    pub(crate) tool: String,
    pub(crate) arguments: Vec<String>,
    pub(crate) user: String,
    pub(crate) folder: PathBuf,
    pub(crate) json: bool,
}

pub(crate) async fn run(asking: Asking) -> Result<ExitCode, Failure> {
    let mut checked = Checked::read(&asking.folder)?;
    checked.refuse_problems()?;
    let arguments = arguments(&asking.arguments, checked.space.tool(&asking.tool))?;
    let addresses = Addresses::declared(&checked.project);
    checked.rehearse(&addresses).await?;
    let issuer = development_issuer(&checked, &addresses)?;
    let headers = authorization(&checked, &addresses, &issuer, &asking.user)?;
    let systems = checked.open_systems(Some(&issuer), &addresses).await;
    let gateway = checked.assemble(systems, Some(&issuer), &addresses, Role::Visitor)?;
    let stop = CancellationToken::new();
    let answering = answer_exchanges(issuer, &addresses, &stop).await;
    let caller = gateway.caller(&headers).await.map_err(Failure::of)?;
    let reply = gateway.call(caller, Asked { tool: asking.tool, arguments }, Watch::default()).await;
    gateway.finish(GRACE).await;
    stop.cancel();
    if let Some(answering) = answering {
        let _ended = tokio::time::timeout(GRACE, answering).await;
    }
    Ok(show(&reply, asking.json))
}

pub(crate) fn development_issuer(checked: &Checked, addresses: &Addresses) -> Result<Arc<Issuer>, Failure> {
    let not_here = || {
        let help = "get a token from your issuer, and use it with an MCP client";
        Failure::new("this project has no development issuer, so nobody can be played here", help)
    };
    if addresses.issuer.is_none() {
        return Err(not_here());
    }
    let key = keys::issuer_key(&checked.project)?;
    wiring::issuer(&checked.project, &checked.space, addresses, &key)?.map(Arc::new).ok_or_else(not_here)
}

fn authorization(
    checked: &Checked,
    addresses: &Addresses,
    issuer: &Issuer,
    user: &str,
) -> Result<HeaderMap, Failure> {
    let of_tools = checked.space.tools().filter_map(|tool| tool.scope().map(str::to_owned));
    let scopes: Vec<String> = checked.project.identity.scopes.iter().cloned().chain(of_tools).collect();
    let audience = wiring::agents_audience(&checked.project, addresses);
    let minting =
        Minting { user, agent: "ringfence-cli", audience: &audience, scopes: &scopes, lifetime_seconds: 60 };
    let token = issuer.mint(minting, wiring::now()).map_err(Failure::of)?;
    let value = HeaderValue::try_from(format!("Bearer {}", token.expose())).map_err(Failure::of)?;
    Ok(HeaderMap::from_iter([(header::AUTHORIZATION, value)]))
}

/// The issuer has to answer when a system's token is exchanged. Where its address is taken, a gateway of this project serves
/// it already, with the same key.
pub(super) async fn answer_exchanges(
    issuer: Arc<Issuer>,
    addresses: &Addresses,
    stop: &CancellationToken,
) -> Option<tokio::task::JoinHandle<()>> {
    let listener = TcpListener::bind(addresses.issuer?).await.ok()?;
    let router = development::router(issuer, wiring::now);
    Some(tokio::spawn(http_server::serve(listener, router, stop.clone())))
}

/// `key=value` as the tool's parameter wants it; `key:=JSON` as it stands.
fn arguments(given: &[String], tool: Option<&Tool>) -> Result<Map<String, Value>, Failure> {
    let properties = tool.and_then(|tool| tool.input_schema().get("properties").cloned()).unwrap_or_default();
    let mut arguments = Map::new();
    for text in given {
        let Some((key, value)) = text.split_once('=') else {
            return Err(Failure::new(
                format!("`{text}` is not an argument"),
                "write `key=value`, or `key:=JSON`",
            ));
        };
        let (key, value) = match key.strip_suffix(':') {
            Some(key) => {
                let value = serde_json::from_str(value).map_err(|error| {
                    Failure::new(
                        format!("`{value}` is not JSON: {error}"),
                        format!("write `{key}=TEXT` for a text"),
                    )
                })?;
                (key, value)
            }
            None => (key, typed(value, properties.get(key).and_then(|schema| schema.get("type")))),
        };
        if arguments.insert(key.to_owned(), value).is_some() {
            return Err(Failure::new(format!("argument `{key}` is given twice"), "give it once"));
        }
    }
    Ok(arguments)
}

/// A text, unless the parameter is of another type and the text reads as that.
fn typed(value: &str, wanted: Option<&Value>) -> Value {
    let is_text = wanted.is_none_or(|wanted| wanted == "string");
    if is_text { value.into() } else { serde_json::from_str(value).unwrap_or_else(|_| value.into()) }
}

fn show(reply: &Reply, as_json: bool) -> ExitCode {
    match reply {
        Reply::Done { structured, .. } if as_json => print::json(&json!({ "done": structured })),
        Reply::Done { structured, text, .. } => match structured.get("stdout").and_then(Value::as_str) {
            Some(stdout) => show_program(stdout, structured),
            None => anstream::println!("{text}"),
        },
        Reply::Refused(refusal) | Reply::NeedsScope { refusal, .. } | Reply::NeedsAccount { refusal, .. }
            if as_json =>
        {
            print::json(&Reply::refusal_json(refusal));
        }
        Reply::Refused(refusal) | Reply::NeedsScope { refusal, .. } | Reply::NeedsAccount { refusal, .. } => {
            show_refusal(refusal);
        }
    }
    verdict(matches!(reply, Reply::Done { .. }))
}

/// What a program wrote, where it wrote it, and how it ended where that was not well.
fn show_program(stdout: &str, structured: &Value) {
    anstream::print!("{stdout}");
    anstream::eprint!("{}", structured.get("stderr").and_then(Value::as_str).unwrap_or_default());
    let ended = structured.get("ended").cloned().unwrap_or_default();
    if ended != json!({ "how": "exit", "code": 0 }) {
        anstream::eprintln!("ended: {ended}");
    }
}

fn show_refusal(refusal: &ringfence_core::Refusal) {
    anstream::eprintln!("refused: {refusal}");
    for field in &refusal.fields {
        anstream::eprintln!("  {}: {}; allowed: {}", field.field, field.problem, field.allowed);
    }
    for rule in &refusal.rules {
        anstream::eprintln!("  rule: policies/{rule}");
    }
    if !refusal.nearest.is_empty() {
        let nearest: Vec<&str> = refusal.nearest.iter().map(ringfence_core::ToolName::as_str).collect();
        anstream::eprintln!("  nearest: {}", nearest.join(", "));
    }
}
