//! Introspection (RFC 7662): whether an access token still counts, for the gateway and clients of the project with a secret.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use ringfence_core::Secret;
use serde_json::{Value, json};

use super::answer::{Refused, unstored};
use super::clients::may_introspect;
use super::parameters::Parameters;
use super::routes::Shared;
use super::token::client;

pub(super) async fn introspect(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    match introspected(&shared, &headers, &body).await {
        Ok(answer) => unstored(StatusCode::OK, &answer),
        Err(refused) => refused.into_response(),
    }
}

async fn introspected(shared: &Shared, headers: &HeaderMap, body: &[u8]) -> Result<Value, Refused> {
    let parameters = Parameters::read(body)?;
    let client = client(shared, headers, &parameters)?;
    if !may_introspect(shared, &client) {
        let why = "only the gateway and clients that the project names, with a secret, may look into tokens";
        return Err(Refused::new("invalid_client", why));
    }
    let token = Secret::new(parameters.required("token")?.to_owned());
    // Why it does not count is for nobody (RFC 7662 §2.2).
    let Some(active) = shared.issuer.active(&token, (shared.now)()).await else {
        return Ok(json!({ "active": false }));
    };
    let mut answer = active.claims;
    answer.insert("active".into(), true.into());
    let token_type = if answer.contains_key("cnf") { "DPoP" } else { "Bearer" };
    answer.insert("token_type".into(), token_type.into());
    Ok(json!(answer))
}
