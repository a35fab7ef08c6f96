//! What the issuer says of itself (RFC 8414), for clients to find their way by.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::Issuer;
use super::routes::{AUTHORIZE, INTROSPECT, KEYS, REGISTER, REVOKE, Shared, TOKEN};
use crate::dpop;

/// The grants, by their names on the wire.
pub(super) const AUTHORIZATION_CODE: &str = "authorization_code";
pub(super) const REFRESH_TOKEN: &str = "refresh_token";
pub(super) const CLIENT_CREDENTIALS: &str = "client_credentials";
pub(super) const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

pub(super) async fn metadata(State(shared): State<Shared>) -> Response {
    Json(document(&shared.issuer)).into_response()
}

pub(super) async fn keys(State(shared): State<Shared>) -> Response {
    Json(shared.issuer.published_keys()).into_response()
}

fn document(issuer: &Issuer) -> Value {
    let name = issuer.name();
    let logins = &issuer.settings.logins;
    let with_secret = json!(["client_secret_basic", "client_secret_post"]);
    let anyone = json!(["none", "client_secret_basic", "client_secret_post"]);
    let scopes: Vec<&String> = logins.scopes.iter().chain(&logins.further_scopes).collect();
    let mut document = json!({
        "issuer": name,
        "authorization_endpoint": format!("{name}{AUTHORIZE}"),
        "token_endpoint": format!("{name}{TOKEN}"),
        "jwks_uri": format!("{name}{KEYS}"),
        "revocation_endpoint": format!("{name}{REVOKE}"),
        "introspection_endpoint": format!("{name}{INTROSPECT}"),
        "scopes_supported": scopes,
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": [AUTHORIZATION_CODE, REFRESH_TOKEN, CLIENT_CREDENTIALS, TOKEN_EXCHANGE],
        "token_endpoint_auth_methods_supported": anyone,
        "revocation_endpoint_auth_methods_supported": anyone,
        "introspection_endpoint_auth_methods_supported": with_secret,
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
        "client_id_metadata_document_supported": logins.client_documents,
        "dpop_signing_alg_values_supported": dpop::ALGORITHMS,
        "protected_resources": issuer.settings.resources,
    });
    if let Some(document) = document.as_object_mut().filter(|_| logins.dynamic_registration) {
        document.insert("registration_endpoint".into(), format!("{name}{REGISTER}").into());
    }
    document
}
