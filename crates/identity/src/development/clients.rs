//! Who asks: the clients of the project, those that registered themselves, and those that are the address of a document.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ringfence_core::{Instant, Secret};

use super::answer::Refused;
use super::routes::Shared;
use super::{GATEWAY_CLIENT, RedirectUri, client_document};

/// How a client comes by tokens.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Grant {
    /// A user logs in (RFC 6749 §4.1), and stays so by refresh tokens.
    AuthorizationCode,
    /// For itself (RFC 6749 §4.4).
    ClientCredentials,
    /// For somebody whose token it holds (RFC 8693).
    TokenExchange,
}

impl Grant {
    /// The grant of this name, as a project file has it.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "authorization-code" => Some(Self::AuthorizationCode),
            "client-credentials" => Some(Self::ClientCredentials),
            "token-exchange" => Some(Self::TokenExchange),
            _ => None,
        }
    }
}

/// An OAuth client.
#[derive(Clone)]
pub struct Client {
    /// `client_id`.
    pub id: String,
    /// What it calls itself. Nobody checked that.
    pub name: Option<String>,
    /// With which it proves that it is the one; a client without can only ask users to log in.
    pub secret: Option<Secret>,
    /// Where users are sent back to.
    pub redirect_uris: Vec<RedirectUri>,
    /// What it may ask for.
    pub grants: BTreeSet<Grant>,
    /// For which audiences, and with which scopes of each, it may exchange tokens.
    pub may_exchange: BTreeMap<String, BTreeSet<String>>,
}

impl Client {
    /// A client that lets users log in.
    pub(super) fn of_users(id: String, name: Option<String>, redirect_uris: Vec<RedirectUri>) -> Self {
        let grants = BTreeSet::from([Grant::AuthorizationCode]);
        Self { id, name, secret: None, redirect_uris, grants, may_exchange: BTreeMap::new() }
    }

    /// Whether it may ask for this.
    pub(super) fn may(&self, grant: Grant) -> Result<(), Refused> {
        let why = "this client may not use this grant; add it to the client's `grants` in ringfence.toml";
        self.grants.contains(&grant).then_some(()).ok_or_else(|| Refused::new("unauthorized_client", why))
    }
}

/// The client of this name, as a user who logs in is shown it. May ask the client's own address.
pub(super) async fn of_login(shared: &Shared, id: &str, now: Instant) -> Result<Arc<Client>, Refused> {
    if let Some(known) = known(shared, id) {
        return Ok(known);
    }
    if shared.issuer.settings.logins.client_documents && client_document::is_address(id) {
        return shared.issuer.documents.client(id, now).await;
    }
    Err(unknown())
}

/// The client of this name, as it comes with a code or a token that was given to it. Its address is not asked again: what it may
/// was decided when the user logged in.
pub(super) fn of_token(shared: &Shared, id: &str) -> Result<Arc<Client>, Refused> {
    if let Some(known) = known(shared, id) {
        return Ok(known);
    }
    if shared.issuer.settings.logins.client_documents && client_document::is_address(id) {
        return Ok(Arc::new(Client::of_users(id.to_owned(), None, Vec::new())));
    }
    Err(unknown())
}

fn known(shared: &Shared, id: &str) -> Option<Arc<Client>> {
    let of_project = shared.issuer.clients.get(id).cloned().map(Arc::new);
    of_project.or_else(|| shared.issuer.state().registered.client(id))
}

fn unknown() -> Refused {
    let why = "this client is not known; register it, or name it in `[[identity.clients]]` of ringfence.toml";
    Refused::new("invalid_client", why)
}

/// Whether tokens are shown to it that it did not get itself: the gateway, and the clients that the project names with a secret.
pub(super) fn may_introspect(shared: &Shared, client: &Client) -> bool {
    client.id == GATEWAY_CLIENT || (client.secret.is_some() && shared.issuer.clients.contains_key(&client.id))
}
