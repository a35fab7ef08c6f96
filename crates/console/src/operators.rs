//! What operators may: look at the gateway and its runs, and revoke.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use ringfence_core::{AgentId, Principal};
use ringfence_gateway::{NotRevoked, Revocation, RunFilter, Scope};
use serde::Deserialize;
use serde_json::json;

use crate::Door;
use crate::answer::{body, failed, no_such_run, refuse, shown};

/// `GET /v1/status`.
pub(crate) async fn status(State(door): State<Door>) -> Response {
    Json(json!({ "version": env!("CARGO_PKG_VERSION"), "gateway": door.gateway.status() })).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    agent: Option<String>,
    user: Option<String>,
    #[serde(default)]
    live: bool,
}

/// `GET /v1/runs?agent=&user=&live=true`: runs, newest first.
pub(crate) async fn runs(State(door): State<Door>, Query(wanted): Query<Wanted>) -> Response {
    let filter = RunFilter { agent: wanted.agent, subject: wanted.user, live: wanted.live };
    match door.gateway.runs(&filter) {
        Ok(runs) => {
            let runs: Vec<_> = runs.iter().map(|run| shown(run, door.gateway.now())).collect();
            Json(json!({ "runs": runs })).into_response()
        }
        Err(error) => failed(&error),
    }
}

/// `GET /v1/runs/{run}`: one run, with what it has touched.
pub(crate) async fn run(State(door): State<Door>, Path(run): Path<String>) -> Response {
    let found = match door.gateway.run(&run) {
        Ok(Some(found)) => found,
        Ok(None) => return no_such_run(),
        Err(error) => return failed(&error),
    };
    let mut answer = shown(&found, door.gateway.now());
    if let (Some(answer), Ok(labels)) = (answer.as_object_mut(), door.gateway.labels(&found.id)) {
        answer.insert("labels".into(), json!(labels));
    }
    Json(answer).into_response()
}

/// The body of `POST /v1/revocations`: one of the four, and why.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    run: Option<String>,
    agent: Option<AgentId>,
    user: Option<User>,
    #[serde(default)]
    everything: bool,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct User {
    issuer: String,
    subject: String,
}

impl Asked {
    fn scope(self) -> Option<(Scope, String)> {
        let scope = match (self.run, self.agent, self.user, self.everything) {
            (Some(run), None, None, false) => Scope::Run(run),
            (None, Some(agent), None, false) => Scope::Agent(agent),
            (None, None, Some(User { issuer, subject }), false) => Scope::User { issuer, subject },
            (None, None, None, true) => Scope::Everything,
            _ => return None,
        };
        Some((scope, self.reason))
    }
}

/// `POST /v1/revocations`: ends one run, those of an agent or a user, or all.
pub(crate) async fn revoke(
    State(door): State<Door>,
    Extension(operator): Extension<Principal>,
    bytes: Bytes,
) -> Response {
    let asked = match body::<Asked>(&bytes) {
        Ok(asked) => asked.scope(),
        Err(refusal) => return *refusal,
    };
    let Some((scope, reason)) = asked else {
        let why = "name one of `run`, `agent`, `user` (`issuer` and `subject`) or `everything`";
        return refuse(StatusCode::BAD_REQUEST, "malformed", why);
    };
    let by = format!("{} of {}", operator.subject(), operator.issuer());
    match door.gateway.revoke(&Revocation { scope: &scope, by: &by, reason: &reason }).await {
        Ok(revoked) => Json(json!({ "revoked": revoked.runs })).into_response(),
        Err(NotRevoked::Unknown) => no_such_run(),
        Err(error) => refuse(StatusCode::SERVICE_UNAVAILABLE, "unavailable", &error.to_string()),
    }
}
