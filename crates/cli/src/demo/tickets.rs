//! The demo's ticket service: a system that knows its users and decides by itself what each of them may do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::patch;
use axum::{Json, Router};
use ringfence_identity::{TokenCheck, VerifiedToken, bearer};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::wiring::now;

#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(super) struct Ticket {
    id: String,
    owner: String,
    title: String,
}

/// The service. Cheap to clone; all clones are one service.
#[derive(Clone)]
pub(super) struct Tickets {
    check: Arc<TokenCheck>,
    state: Arc<Mutex<Desk>>,
}

struct Desk {
    tickets: BTreeMap<String, Ticket>,
    /// Whom it refused, in which ticket.
    turned_away: Vec<(String, String)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Edit {
    title: String,
}

impl Tickets {
    pub(super) fn new(check: TokenCheck) -> Self {
        let ticket = |id: &str, owner: &str, title: &str| {
            (id.to_owned(), Ticket { id: id.into(), owner: owner.into(), title: title.into() })
        };
        let tickets = [ticket("T-1", "bob", "Printer jams"), ticket("T-2", "carol", "Raise my salary")];
        let desk = Desk { tickets: tickets.into(), turned_away: Vec::new() };
        Self { check: Arc::new(check), state: Arc::new(Mutex::new(desk)) }
    }

    pub(super) fn router(&self) -> Router {
        Router::new().route("/tickets/{id}", patch(edit)).with_state(self.clone())
    }

    /// The title of a ticket.
    pub(super) fn title(&self, id: &str) -> Option<String> {
        self.state.lock().ok()?.tickets.get(id).map(|ticket| ticket.title.clone())
    }

    /// Whether it has refused this user to edit this ticket.
    pub(super) fn has_turned_away(&self, user: &str, id: &str) -> bool {
        let asked = (user.to_owned(), id.to_owned());
        self.state.lock().is_ok_and(|desk| desk.turned_away.contains(&asked))
    }

    async fn who(&self, headers: &HeaderMap) -> Option<VerifiedToken> {
        let token = bearer(headers.get(header::AUTHORIZATION)?.to_str().ok()?).ok()?;
        let verified = self.check.check(&token, now()).await.ok()?;
        verified.scopes.contains("tickets:write").then_some(verified)
    }
}

async fn edit(
    State(tickets): State<Tickets>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(edit): Json<Edit>,
) -> Response {
    let Some(who) = tickets.who(&headers).await else { return StatusCode::UNAUTHORIZED.into_response() };
    let groups = who.claims.get("groups").and_then(Value::as_array);
    let is_ceo = groups.is_some_and(|groups| groups.iter().any(|group| group == "ceo"));
    let Ok(mut desk) = tickets.state.lock() else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    match desk.tickets.get_mut(&id) {
        Some(ticket) if is_ceo || ticket.owner == who.subject => {
            ticket.title = edit.title;
            Json(ticket.clone()).into_response()
        }
        Some(_) => {
            desk.turned_away.push((who.subject, id));
            StatusCode::FORBIDDEN.into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
