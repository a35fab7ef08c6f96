//! The server side: what a request must be before it is answered, and the answers.

mod agreement;
mod calls;
mod contents;
mod door;
mod elicitation;
mod methods;
mod page;
mod resources;
mod stream;
mod under_way;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::routing::post;

use crate::Service;
use crate::json::Limits;
use elicitation::Openers;
use under_way::UnderWay;

/// What a server is set to.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The server's name, as clients show it.
    pub name: String,
    /// The server's version.
    pub version: String,
    /// `Host` headers that are answered, with their ports. None at all answers nobody.
    pub allowed_hosts: Vec<String>,
    /// `Origin` headers that are answered; a request without one does not come from a browser's page.
    pub allowed_origins: Vec<String>,
    /// How much a body may hold.
    pub limits: Limits,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
    /// How long a client may keep a list of tools, in milliseconds.
    pub list_ttl_ms: u64,
    /// Tools in one page of a list.
    pub page_size: usize,
}

impl Settings {
    /// Settings that answer no host yet.
    #[must_use]
    pub fn new(name: impl Into<String>, version: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            version: version.into(),
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            limits: Limits::default(),
            body_timeout: Duration::from_secs(10),
            list_ttl_ms: 60_000,
            page_size: 200,
        }
    }
}

pub(crate) struct Server<S> {
    pub(crate) service: Arc<S>,
    pub(crate) settings: Settings,
    under_way: Arc<UnderWay>,
    openers: Openers,
}

/// The route `/mcp`. Only `POST` is answered: there are no sessions to end and no stream to open.
pub fn router<S: Service>(service: Arc<S>, settings: Settings) -> Router {
    let server =
        Arc::new(Server { service, settings, under_way: Arc::default(), openers: Openers::default() });
    let answer =
        async |State(server): State<Arc<Server<S>>>, request: Request| door::answer(&server, request).await;
    Router::new().route("/mcp", post(answer)).with_state(server)
}
