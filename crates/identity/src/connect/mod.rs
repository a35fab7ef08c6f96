//! `/connect/SYSTEM`: where a user connects an account, in a browser, at the people's door.
//!
//! A link that the agent may have read, kept or sent to somebody else leads here. So whoever follows it first logs in at the
//! identity provider, and only the user that the link was made for goes on: nobody connects an account for anybody else.
//! No request says where a browser is sent; that is the project's.

mod flow;
mod page;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use ringfence_core::{Instant, Secret, SystemName};
use serde::Deserialize;

use crate::credential::{Accounts, Owner};
use crate::login::{CodeClient, Returned};
use flow::{Flow, Flows, Stage};

/// Where the identity provider sends browsers back to, below the people's door.
pub const LOGIN_PATH: &str = "/connect-login";

/// Says who a token for the people's door is of: issuer and subject; none where it is refused.
pub type Person =
    Arc<dyn Fn(Secret) -> Pin<Box<dyn Future<Output = Option<(String, String)>> + Send>> + Send + Sync>;

/// What the pages are made of.
pub struct ConnectSettings {
    /// The accounts.
    pub accounts: Arc<Accounts>,
    /// The identity provider.
    pub login: CodeClient,
    /// Who has logged in.
    pub person: Person,
    /// The people's door as browsers reach it.
    pub base: String,
    /// The `Host` headers that are answered.
    pub hosts: Vec<String>,
    /// What time it is.
    pub now: fn() -> Instant,
}

#[derive(Clone)]
struct Door(Arc<Inner>);

struct Inner {
    settings: ConnectSettings,
    flows: Flows,
}

/// The pages.
pub fn router(settings: ConnectSettings) -> Router {
    let flows = Flows::new(&settings.base);
    let door = Door(Arc::new(Inner { settings, flows }));
    Router::new()
        .route("/connect/{system}", get(begin))
        .route(LOGIN_PATH, get(logged_in))
        .route("/connect/{system}/back", get(back))
        .with_state(door)
}

#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    ticket: String,
}

/// The link: its ticket is good for one user and one system. Off to the identity provider.
async fn begin(
    State(door): State<Door>,
    Path(system): Path<String>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Response {
    let inner = &*door.0;
    if !inner.is_for_us(&headers) {
        return page::wrong_host();
    }
    let now = (inner.settings.now)();
    let owner = inner.settings.accounts.links.owner(&asked.ticket, now);
    let Some(owner) = owner.filter(|owner| owner.system.as_str() == system) else {
        return page::no_such_link();
    };
    let Some((url, pending)) = inner.settings.login.begin(&inner.login_uri()) else { return page::failed() };
    let ticket = Secret::new(asked.ticket);
    let flow = Flow::new(owner, Stage::LoggingIn { ticket, pending }, now);
    match inner.flows.keep(flow, now) {
        Some(cookie) => inner.with_cookie(Redirect::to(&url).into_response(), &cookie),
        None => page::busy(),
    }
}

/// Back from the identity provider: only the user that the link was made for goes on.
async fn logged_in(
    State(door): State<Door>,
    Query(returned): Query<Returned>,
    headers: HeaderMap,
) -> Response {
    let inner = &*door.0;
    if !inner.is_for_us(&headers) {
        return page::wrong_host();
    }
    let now = (inner.settings.now)();
    let flow = inner.flows.take(&headers, now, |stage| match stage {
        Stage::LoggingIn { pending, .. } => pending.is_answered_by(&returned),
        Stage::Connecting { .. } => false,
    });
    let Some(Flow { owner, stage: Stage::LoggingIn { ticket, pending }, .. }) = flow else {
        return page::not_this_browser();
    };
    let token = match inner.settings.login.log_in(&pending, returned, now).await {
        Ok(token) => token,
        Err(error) => {
            tracing::warn!(%error, "nobody logged in to connect an account");
            return page::not_logged_in();
        }
    };
    let Some((issuer, subject)) = (inner.settings.person)(token).await else { return page::not_logged_in() };
    if issuer != owner.issuer || subject != owner.subject {
        tracing::warn!(system = %owner.system, "somebody followed the link of another user, and nothing was connected");
        return page::another_user();
    }
    if !inner.settings.accounts.links.take(&owner, ticket.expose(), now) {
        return page::no_such_link();
    }
    inner.offer(owner, now)
}

/// Back from the third party: the account is this user's now.
async fn back(
    State(door): State<Door>,
    Path(system): Path<String>,
    Query(returned): Query<Returned>,
    headers: HeaderMap,
) -> Response {
    let inner = &*door.0;
    if !inner.is_for_us(&headers) {
        return page::wrong_host();
    }
    let now = (inner.settings.now)();
    let flow = inner.flows.take(&headers, now, |stage| match stage {
        Stage::Connecting { pending } => pending.is_answered_by(&returned),
        Stage::LoggingIn { .. } => false,
    });
    let Some(Flow { owner, stage: Stage::Connecting { pending }, .. }) = flow else {
        return page::not_this_browser();
    };
    if owner.system.as_str() != system {
        return page::not_this_browser();
    }
    match inner.settings.accounts.finish(&owner, &pending, returned, now).await {
        Ok(()) => {
            tracing::info!(system = %owner.system, "a user has connected an account");
            inner.with_cookie(page::connected(&owner.system), "")
        }
        Err(error) => {
            tracing::warn!(%error, system = %owner.system, "an account was not connected");
            page::not_connected(&owner.system)
        }
    }
}

impl Inner {
    /// Asks the user once more, since the link may have come from anywhere: what is connected, where, and for whom.
    fn offer(&self, owner: Owner, now: Instant) -> Response {
        let system: SystemName = owner.system.clone();
        let (Some((url, pending)), Some((host, scopes))) =
            (self.settings.accounts.begin(&system), self.settings.accounts.described(&system))
        else {
            return page::failed();
        };
        let offer =
            page::offer(&page::Offer { system: &system, host, scopes, subject: &owner.subject, url: &url });
        match self.flows.keep(Flow::new(owner, Stage::Connecting { pending }, now), now) {
            Some(cookie) => self.with_cookie(offer, &cookie),
            None => page::busy(),
        }
    }

    fn login_uri(&self) -> String {
        format!("{}{LOGIN_PATH}", self.settings.base)
    }

    /// A page of another site could make a browser send requests here under another name (DNS rebinding).
    fn is_for_us(&self, headers: &HeaderMap) -> bool {
        let mut given = headers.get_all(header::HOST).iter();
        let (Some(only), None) = (given.next(), given.next()) else { return false };
        let hosts = &self.settings.hosts;
        only.to_str().is_ok_and(|host| hosts.iter().any(|known| known.eq_ignore_ascii_case(host)))
    }

    /// Binds what follows to this browser; an empty value unbinds it.
    fn with_cookie(&self, mut response: Response, value: &str) -> Response {
        let cookie = self.flows.cookie(value);
        match HeaderValue::from_str(&cookie) {
            Ok(mut cookie) => {
                cookie.set_sensitive(true);
                response.headers_mut().insert(header::SET_COOKIE, cookie);
                response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
                response
            }
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    }
}

#[cfg(test)]
mod tests;
