//! The people's door: health, status, runs and what is revoked; approvals and the console later. It has no power that the
//! CLI lacks.
//!
//! It listens apart from the agents' door and wants tokens for an audience of its own, from people in the operators' group or
//! from applications that the project names: the engine can neither see nor change anything here.

mod admit;
mod answer;
mod applications;
mod operators;

use std::collections::BTreeSet;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::{delete, get, post};
use ringfence_core::{AgentId, GroupName};
use ringfence_gateway::{Gateway, health_routes, refuse_token_in_query};

/// The longest body that is read, in bytes.
const BODY_BYTES_MAX: usize = 128 << 10;

/// What the door has to know of itself.
#[derive(Clone, Debug)]
pub struct PeoplesDoorSettings {
    /// The URL of the door as clients spell it, without a path; proofs are made for what is below it.
    pub resource: String,
    /// Whoever may look and revoke; `None`: nobody.
    pub operators: Option<GroupName>,
    /// The OAuth clients that operators come by.
    pub operator_clients: BTreeSet<AgentId>,
    /// The URL of `/mcp`, as agents spell it.
    pub mcp: String,
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
        .route("/v1/status", get(operators::status))
        .route("/v1/runs", get(operators::runs))
        .route("/v1/runs/{run}", get(operators::run))
        .route("/v1/revocations", post(operators::revoke))
        .route_layer(middleware::from_fn_with_state(door.clone(), admit::operator));
    let for_applications = Router::new()
        .route("/v1/runs", post(applications::start))
        .route("/v1/runs/{run}", delete(applications::end))
        .route_layer(middleware::from_fn_with_state(door.clone(), admit::application));
    let admitted = for_operators
        .merge(for_applications)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(door.clone(), admit::known_host));
    health_routes(gateway)
        .merge(admitted.with_state(door))
        .layer(middleware::from_fn_with_state(gateway.clone(), refuse_token_in_query))
}
