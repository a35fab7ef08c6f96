//! What the development issuer answers: its metadata (RFC 8414), its keys, and token exchange for the gateway (RFC 8693).

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringfence_core::{Instant, Secret};
use serde::Deserialize;
use serde_json::json;

use super::{DOWNSTREAM_SECONDS, GATEWAY_CLIENT, Issuer};
use crate::VerifiedToken;

const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

#[derive(Clone)]
struct Shared {
    issuer: Arc<Issuer>,
    now: Arc<dyn Fn() -> Instant + Send + Sync>,
}

/// Everything that the issuer answers.
pub fn router(issuer: Arc<Issuer>, now: impl Fn() -> Instant + Send + Sync + 'static) -> Router {
    Router::new()
        .route("/.well-known/oauth-authorization-server", get(metadata))
        .route("/jwks.json", get(keys))
        .route("/token", post(token))
        .with_state(Shared { issuer, now: Arc::new(now) })
}

async fn metadata(State(shared): State<Shared>) -> Response {
    let name = shared.issuer.name();
    Json(json!({
        "issuer": name,
        "token_endpoint": format!("{name}/token"),
        "jwks_uri": format!("{name}/jwks.json"),
        "grant_types_supported": [GRANT],
        "response_types_supported": [],
        "token_endpoint_auth_methods_supported": ["client_secret_basic"],
    }))
    .into_response()
}

async fn keys(State(shared): State<Shared>) -> Response {
    Json(shared.issuer.published_keys()).into_response()
}

#[derive(Deserialize)]
struct Exchange {
    grant_type: String,
    subject_token: String,
    subject_token_type: String,
    #[serde(default)]
    audience: String,
    #[serde(default)]
    scope: String,
}

async fn token(State(shared): State<Shared>, headers: HeaderMap, Form(asked): Form<Exchange>) -> Response {
    match exchange(&shared, &headers, asked).await {
        Ok((token, scope)) => Json(json!({
            "access_token": token.expose(),
            "issued_token_type": ACCESS_TOKEN,
            "token_type": "Bearer",
            "expires_in": DOWNSTREAM_SECONDS,
            "scope": scope,
        }))
        .into_response(),
        Err("invalid_client") => {
            (StatusCode::UNAUTHORIZED, Json(json!({ "error": "invalid_client" }))).into_response()
        }
        Err(code) => (StatusCode::BAD_REQUEST, Json(json!({ "error": code }))).into_response(),
    }
}

/// The downstream token and its scope, or an OAuth error code (RFC 6749 §5.2, RFC 8693 §2.2.2).
async fn exchange(
    shared: &Shared,
    headers: &HeaderMap,
    asked: Exchange,
) -> Result<(Secret, String), &'static str> {
    let issuer = &shared.issuer;
    if !is_gateway(headers, &issuer.gateway_secret) {
        return Err("invalid_client");
    }
    if asked.grant_type != GRANT {
        return Err("unsupported_grant_type");
    }
    if asked.subject_token_type != ACCESS_TOKEN {
        return Err("invalid_request");
    }
    let allowed = issuer.settings.downstream.get(&asked.audience).ok_or("invalid_target")?;
    if asked.scope.split(' ').any(|scope| !scope.is_empty() && !allowed.contains(scope)) {
        return Err("invalid_scope");
    }
    let now = (shared.now)();
    let subject = subject(issuer, &Secret::new(asked.subject_token), now).await.ok_or("invalid_grant")?;
    let minted =
        issuer.mint_downstream(&subject.subject, &subject.client, &asked.audience, &asked.scope, now);
    minted.map(|token| (token, asked.scope)).ok_or("invalid_grant")
}

/// A token from here, for one of the doors.
async fn subject(issuer: &Issuer, token: &Secret, now: Instant) -> Option<VerifiedToken> {
    for check in &issuer.own {
        if let Ok(verified) = check.check(token, now).await {
            return Some(verified);
        }
    }
    None
}

fn is_gateway(headers: &HeaderMap, secret: &Secret) -> bool {
    let presented = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let expected = STANDARD.encode(format!("{GATEWAY_CLIENT}:{}", secret.expose()));
    presented
        .and_then(|text| text.strip_prefix("Basic "))
        .is_some_and(|presented| verify_slices_are_equal(presented.as_bytes(), expected.as_bytes()).is_ok())
}
