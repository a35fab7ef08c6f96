//! The addresses of the issuer.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::{get, post};
use ringfence_core::Instant;

use super::parameters::BYTES_MAX;
use super::{Issuer, authorize, door, introspect, metadata, register, revoke, token};

pub(super) const AUTHORIZE: &str = "/authorize";
pub(super) const TOKEN: &str = "/token";
pub(super) const KEYS: &str = "/jwks.json";
pub(super) const REGISTER: &str = "/register";
pub(super) const REVOKE: &str = "/revoke";
pub(super) const INTROSPECT: &str = "/introspect";

#[derive(Clone)]
pub(super) struct Shared {
    pub(super) issuer: Arc<Issuer>,
    pub(super) now: Arc<dyn Fn() -> Instant + Send + Sync>,
}

/// Everything that the issuer answers.
pub fn router(issuer: Arc<Issuer>, now: impl Fn() -> Instant + Send + Sync + 'static) -> Router {
    let registers = issuer.settings.logins.dynamic_registration;
    let shared = Shared { issuer, now: Arc::new(now) };
    let mut router = Router::new()
        .route("/.well-known/oauth-authorization-server", get(metadata::metadata))
        .route("/.well-known/openid-configuration", get(metadata::metadata))
        .route(KEYS, get(metadata::keys))
        .route(AUTHORIZE, get(authorize::ask).post(authorize::answer))
        .route(TOKEN, post(token::token))
        .route(REVOKE, post(revoke::revoke))
        .route(INTROSPECT, post(introspect::introspect));
    if registers {
        router = router.route(REGISTER, post(register::register));
    }
    router
        .layer(DefaultBodyLimit::max(BYTES_MAX))
        .layer(middleware::from_fn_with_state(shared.clone(), door::check))
        .with_state(shared)
}
