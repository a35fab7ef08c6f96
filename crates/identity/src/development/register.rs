//! Clients that register themselves (RFC 7591): as many as there is room for, to let users log in and for nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use ringfence_core::Instant;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::answer::{Refused, unstored};
use super::routes::Shared;
use super::{Client, RedirectUri, unguessable};

/// Clients that are registered at the same time at the most.
const CLIENTS_MAX: usize = 1000;
/// One that nobody logged in with for this long makes room, in milliseconds.
const UNUSED_MS: u64 = 3_600_000;
/// Addresses of one client at the most.
const REDIRECTS_MAX: usize = 16;
/// The longest name, in characters.
const NAME_MAX: usize = 100;

/// What a client says of itself, as far as it matters here.
#[derive(Deserialize)]
pub(super) struct Metadata {
    #[serde(default)]
    pub(super) redirect_uris: Vec<String>,
    client_name: Option<String>,
    pub(super) token_endpoint_auth_method: Option<String>,
    grant_types: Option<Vec<String>>,
    response_types: Option<Vec<String>>,
}

impl Metadata {
    /// The addresses, where all of them can be redirected to.
    pub(super) fn redirects(&self) -> Result<Vec<RedirectUri>, Refused> {
        if self.redirect_uris.is_empty() || self.redirect_uris.len() > REDIRECTS_MAX {
            let why = format!("name 1 to {REDIRECTS_MAX} `redirect_uris`");
            return Err(Refused::new("invalid_redirect_uri", why));
        }
        let redirects = self.redirect_uris.iter().map(|text| RedirectUri::new(text));
        redirects
            .collect::<Result<_, _>>()
            .map_err(|bad| Refused::new("invalid_redirect_uri", bad.to_string()))
    }

    pub(super) fn name(&self) -> Option<String> {
        let name = self.client_name.as_deref()?.chars().filter(|char| !char.is_control()).take(NAME_MAX);
        Some(name.collect()).filter(|name: &String| !name.is_empty())
    }

    /// Whether it asks for the one thing that can be had.
    pub(super) fn lets_users_log_in(&self) -> Result<(), Refused> {
        let has = |list: &Option<Vec<String>>, wanted: &str| {
            list.as_ref().is_none_or(|list| list.iter().any(|word| word == wanted))
        };
        if has(&self.grant_types, "authorization_code") && has(&self.response_types, "code") {
            return Ok(());
        }
        let why = "write `authorization_code` into `grant_types` and `code` into `response_types`; other clients are named in ringfence.toml";
        Err(Refused::new("invalid_client_metadata", why))
    }
}

/// The clients that registered, by their names, which sort by time.
#[derive(Default)]
pub(super) struct Registered(BTreeMap<Uuid, Entry>);

struct Entry {
    client: Arc<Client>,
    at: Instant,
    is_used: bool,
}

impl Registered {
    pub(super) fn client(&self, id: &str) -> Option<Arc<Client>> {
        self.0.get(&Uuid::try_parse(id).ok()?).map(|entry| entry.client.clone())
    }

    /// Somebody logged in with it: it does not make room for others any more.
    pub(super) fn is_used(&mut self, id: &str) {
        let entry = Uuid::try_parse(id).ok().and_then(|id| self.0.get_mut(&id));
        if let Some(entry) = entry {
            entry.is_used = true;
        }
    }

    /// False where there is no room.
    fn add(&mut self, id: Uuid, client: Client, now: Instant) -> bool {
        if self.0.len() >= CLIENTS_MAX {
            self.0.retain(|_, entry| entry.is_used || now.0 < entry.at.0.saturating_add(UNUSED_MS));
        }
        if self.0.len() >= CLIENTS_MAX {
            return false;
        }
        self.0.insert(id, Entry { client: Arc::new(client), at: now, is_used: false });
        true
    }
}

pub(super) async fn register(State(shared): State<Shared>, body: Bytes) -> Response {
    match registered(&shared, &body) {
        Ok(answer) => unstored(StatusCode::CREATED, &answer),
        Err(refused) => refused.into_response(),
    }
}

fn registered(shared: &Shared, body: &[u8]) -> Result<Value, Refused> {
    let broken = |error: serde_json::Error| {
        Refused::new("invalid_client_metadata", format!("this is not the metadata of a client: {error}"))
    };
    let metadata: Metadata = serde_json::from_slice(body).map_err(broken)?;
    metadata.lets_users_log_in()?;
    let method = match metadata.token_endpoint_auth_method.as_deref() {
        None => "client_secret_basic",
        Some(known @ ("none" | "client_secret_basic" | "client_secret_post")) => known,
        Some(_) => {
            let why =
                "write `none`, `client_secret_basic` or `client_secret_post` as `token_endpoint_auth_method`";
            return Err(Refused::new("invalid_client_metadata", why));
        }
    };
    let now = (shared.now)();
    let id = Uuid::now_v7();
    let mut client = Client::of_users(id.to_string(), metadata.name(), metadata.redirects()?);
    let mut answer = json!({
        "client_id": client.id,
        "client_id_issued_at": now.seconds(),
        "redirect_uris": metadata.redirect_uris,
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": method,
    });
    if let (Some(answer), Some(name)) = (answer.as_object_mut(), &client.name) {
        answer.insert("client_name".into(), name.as_str().into());
    }
    if method != "none" {
        let secret = unguessable().ok_or_else(Refused::server)?;
        if let Some(answer) = answer.as_object_mut() {
            answer.insert("client_secret".into(), secret.expose().into());
            answer.insert("client_secret_expires_at".into(), 0.into());
        }
        client.secret = Some(secret);
    }
    let has_room = shared.issuer.state().registered.add(id, client, now);
    has_room.then_some(answer).ok_or_else(Refused::busy)
}
