//! What applications may: start runs for their users, and end those that they started.

use std::collections::BTreeSet;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use ringfence_core::{AgentId, Secret, Terms, ToolName};
use ringfence_gateway::{Application, NotRevoked, NotStarted, Revocation, Scope, Start, Started};
use serde::Deserialize;
use serde_json::json;

use crate::Door;
use crate::answer::{body, failed, no_such_run, refuse};

/// The body of `POST /v1/runs`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    user_token: String,
    agent: AgentId,
    request: Option<String>,
    purpose: Option<String>,
    tools: Option<BTreeSet<ToolName>>,
    budget: Option<Budget>,
    expires_in: Option<u64>,
    dpop_jkt: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Budget {
    calls: Option<u64>,
}

/// `POST /v1/runs`: starts a run and answers with its token, which the agent shows at `/mcp`.
pub(crate) async fn start(
    State(door): State<Door>,
    Extension(application): Extension<Application>,
    bytes: Bytes,
) -> Response {
    let asked: Asked = match body(&bytes) {
        Ok(asked) => asked,
        Err(refusal) => return *refusal,
    };
    let terms = Terms {
        application: None,
        request: asked.request,
        purpose: asked.purpose,
        tools: asked.tools,
        calls_max: asked.budget.and_then(|budget| budget.calls),
    };
    let kind = if asked.dpop_jkt.is_some() { "DPoP" } else { "Bearer" };
    let user_token = Secret::new(asked.user_token);
    let start = Start {
        user_token,
        agent: asked.agent,
        terms,
        expires_in_seconds: asked.expires_in,
        key: asked.dpop_jkt,
    };
    match door.gateway.start_run(&application, start).await {
        Ok(started) => (StatusCode::CREATED, Json(begun(&door, &started, kind))).into_response(),
        Err(refused) => refuse(status(&refused), refused.code(), &refused.to_string()),
    }
}

fn begun(door: &Door, started: &Started, kind: &str) -> serde_json::Value {
    let lives_ms = started.expires.0.saturating_sub(door.gateway.now().0);
    json!({
        "run": started.run, "token": started.token.expose(), "token_type": kind, "mcp": door.settings.mcp,
        "expires_in": lives_ms / 1000, "expires": started.expires, "tools": started.tools,
    })
}

fn status(refused: &NotStarted) -> StatusCode {
    match refused {
        NotStarted::UserToken(_)
        | NotStarted::AnothersToken
        | NotStarted::ForeignAgent
        | NotStarted::LoginNeeded => StatusCode::FORBIDDEN,
        NotStarted::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
        NotStarted::UnknownTool(..) | NotStarted::Unfit(_) => StatusCode::BAD_REQUEST,
        NotStarted::NotRecorded => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// `DELETE /v1/runs/{run}`: ends a run that this application started. Another one's is as unknown as one that never was.
pub(crate) async fn end(
    State(door): State<Door>,
    Extension(application): Extension<Application>,
    Path(run): Path<String>,
) -> Response {
    match door.gateway.run(&run) {
        Ok(Some(found))
            if found.terms.application.as_ref() == Some(&application.client)
                && found.issuer == application.issuer => {}
        Ok(_) => return no_such_run(),
        Err(error) => return failed(&error),
    }
    let by = format!("application {}", application.client);
    let revocation = Revocation { scope: &Scope::Run(run), by: &by, reason: "ended by its application" };
    match door.gateway.revoke(&revocation).await {
        Ok(_) => StatusCode::NO_CONTENT.into_response(),
        Err(NotRevoked::Unknown) => no_such_run(),
        Err(error) => refuse(StatusCode::SERVICE_UNAVAILABLE, "unavailable", &error.to_string()),
    }
}
