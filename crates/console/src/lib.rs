//! The people's door: health and status now; approvals, runs and the console later. It has no power that the CLI lacks.
//!
//! It listens apart from the agents' door and wants tokens for an audience of its own, from people in the operators' group:
//! the engine can neither see nor change anything here.

use std::collections::BTreeSet;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use ringfence_core::GroupName;
use ringfence_gateway::{Gateway, Request as Asking, health_routes, refuse_token_in_query};
use serde_json::json;
use url::Url;

/// What the door has to know of itself.
#[derive(Clone, Debug)]
pub struct PeoplesDoorSettings {
    /// The URL of the door as clients spell it, without a path; proofs are made for what is below it.
    pub resource: String,
    /// Whoever may look; `None`: nobody.
    pub operators: Option<GroupName>,
    /// The `Host` headers that are answered, with their ports.
    pub hosts: Vec<String>,
}

#[derive(Clone)]
struct Door {
    gateway: Gateway,
    settings: PeoplesDoorSettings,
}

/// Everything that listens at the people's door.
pub fn peoples_door(gateway: &Gateway, settings: PeoplesDoorSettings) -> Router {
    let door = Door { gateway: gateway.clone(), settings };
    let for_operators = Router::new()
        .route("/v1/status", get(status))
        .route_layer(middleware::from_fn_with_state(door.clone(), admit))
        .with_state(door);
    health_routes(gateway)
        .merge(for_operators)
        .layer(middleware::from_fn_with_state(gateway.clone(), refuse_token_in_query))
}

impl Door {
    fn is_for(&self, groups: &BTreeSet<GroupName>) -> bool {
        self.settings.operators.as_ref().is_some_and(|operators| groups.contains(operators))
    }
}

/// Lets in requests to a known host, not from a browser's page, with a token for this door of someone in the operators' group.
async fn admit(State(door): State<Door>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    if !is_for_us(headers, &door.settings.hosts) {
        return refuse(StatusCode::FORBIDDEN, "this `Host` or `Origin` is not served here");
    }
    let url = Url::parse(&format!("{}{}", door.settings.resource, request.uri().path())).ok();
    let asking = Asking { headers, method: request.method().as_str(), url: url.as_ref() };
    match door.gateway.person(asking).await {
        Ok(person) if door.is_for(person.principal.groups()) => next.run(request).await,
        Ok(_) => {
            door.gateway.rejected("not_an_operator").await;
            refuse(StatusCode::FORBIDDEN, "this door is for operators")
        }
        Err(refused) if refused.retry_after_seconds().is_some() => {
            let mut response = refuse(StatusCode::SERVICE_UNAVAILABLE, &refused.to_string());
            let seconds = refused.retry_after_seconds().unwrap_or_default();
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            response
        }
        Err(refused) => {
            let mut response = refuse(StatusCode::UNAUTHORIZED, &refused.to_string());
            let scheme = if refused.wants_proof() { "DPoP algs=\"ES256 EdDSA\"" } else { "Bearer" };
            let value = header::HeaderValue::from_static(scheme);
            response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
            response
        }
    }
}

/// A page of another site could make a browser on the operator's machine send requests here (DNS rebinding).
fn is_for_us(headers: &HeaderMap, hosts: &[String]) -> bool {
    let mut given = headers.get_all(header::HOST).iter();
    // Two of them are none: two readers could each take another one.
    let (Some(only), None) = (given.next(), given.next()) else { return false };
    let is_known =
        only.to_str().ok().is_some_and(|host| hosts.iter().any(|known| known.eq_ignore_ascii_case(host)));
    is_known && !headers.contains_key(header::ORIGIN)
}

fn refuse(status: StatusCode, why: &str) -> Response {
    (status, Json(json!({ "error": why }))).into_response()
}

async fn status(State(door): State<Door>) -> Response {
    Json(json!({ "version": env!("CARGO_PKG_VERSION"), "gateway": door.gateway.status() })).into_response()
}
