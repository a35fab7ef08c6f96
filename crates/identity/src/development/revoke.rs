//! Revocation (RFC 7009): a client gives back what it got. A refresh token ends its login, with all that came of it.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use ringfence_core::Secret;
use serde_json::{Value, json};

use super::answer::{Refused, unstored};
use super::parameters::Parameters;
use super::routes::Shared;
use super::token::client;

pub(super) async fn revoke(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    match revoked(&shared, &headers, &body).await {
        Ok(()) => unstored(StatusCode::OK, &json!({})),
        Err(refused) => refused.into_response(),
    }
}

/// What is not known is as good as revoked (RFC 7009 §2.2).
async fn revoked(shared: &Shared, headers: &HeaderMap, body: &[u8]) -> Result<(), Refused> {
    let now = (shared.now)();
    let parameters = Parameters::read(body)?;
    let client = client(shared, headers, &parameters)?;
    let token = parameters.required("token")?;
    let foreign = || Refused::new("invalid_grant", "the token was given to another client");
    {
        let mut state = shared.issuer.state();
        if let Some((login, family, _)) = state.families.of(token, now) {
            if family.client != client.id {
                return Err(foreign());
            }
            state.families.end(login);
            return Ok(());
        }
    }
    let Some(access) = shared.issuer.active(&Secret::new(token.to_owned()), now).await else { return Ok(()) };
    if access.client != client.id {
        return Err(foreign());
    }
    let id = access.claims.get("jti").and_then(Value::as_str).unwrap_or_default();
    let is_revoked = shared.issuer.state().revoked.insert(id, access.expires, now);
    is_revoked.then_some(()).ok_or_else(Refused::busy)
}
