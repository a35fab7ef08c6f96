//! The development issuer: users from a file, who log in by naming themselves. On loopback alone, since whoever reaches it can be
//! anyone.
//!
//! Everything else about it is as at a real one: what a client may do here it may do there, and what it may not is refused.

mod access;
mod answer;
mod authorize;
mod client_document;
mod clients;
mod codes;
mod door;
mod exchange;
mod introspect;
mod metadata;
mod page;
mod parameters;
mod redirect;
mod refresh;
mod register;
mod revoke;
mod routes;
mod state;
mod token;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, EncodingKey};
use ringfence_core::{Instant, Secret};

use crate::connect::LOGIN_PATH;
use crate::dpop::SpentProofs;
use crate::{KeySource, SigningAlgorithm, TokenCheck, TokenRules};

pub use clients::{Client, Grant};
pub use redirect::{BadRedirect, RedirectUri};
pub use routes::router;

use access::{Access, KEY_ID, TOKEN_TYPE};
use client_document::Documents;
use state::State;

/// The gateway's own client at this issuer.
pub const GATEWAY_CLIENT: &str = "ringfence-gateway";
/// The longest life of a token from here, in seconds.
pub const LIFETIME_MAX_SECONDS: u64 = 86_400;

/// A user that can be named.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct User {
    /// The groups that tokens name.
    pub groups: Vec<String>,
    /// Further claims.
    pub claims: BTreeMap<String, String>,
    /// Whether nobody is this user any more: no login, no token, and those that were given out are no longer active.
    pub disabled: bool,
}

/// What the issuer is set to.
pub struct IssuerSettings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The claim that holds the groups.
    pub groups_claim: String,
    /// Who can be named.
    pub users: BTreeMap<String, User>,
    /// Audiences that tokens can be had for: the doors. The first, the agents' door, is meant where a client names none.
    pub resources: Vec<String>,
    /// Audiences that the gateway can exchange tokens for, with the scopes of each.
    pub downstream: BTreeMap<String, BTreeSet<String>>,
    /// Who can log in, and how.
    pub logins: Logins,
}

/// Which clients there are, and what they can ask for.
#[derive(Clone, Default)]
pub struct Logins {
    /// The scopes of a client that asks for none.
    pub scopes: Vec<String>,
    /// What can be asked for besides: the scopes of single tools.
    pub further_scopes: BTreeSet<String>,
    /// The clients that the project names.
    pub clients: Vec<Client>,
    /// Whether clients may register themselves (RFC 7591).
    pub dynamic_registration: bool,
    /// Whether a client may be the address of a document about itself (OAuth Client ID Metadata Documents).
    pub client_documents: bool,
}

/// An issuer for development.
pub struct Issuer {
    settings: IssuerSettings,
    users: RwLock<BTreeMap<String, User>>,
    key: EncodingKey,
    keys: JwkSet,
    gateway_secret: Secret,
    /// Seals the login form.
    form_key: hmac::Key,
    /// Checks the tokens that come back, by their audience.
    own: BTreeMap<String, TokenCheck>,
    clients: BTreeMap<String, Client>,
    documents: Documents,
    state: Mutex<State>,
    spent_proofs: SpentProofs,
}

/// The issuer refuses to start.
#[derive(Debug, thiserror::Error)]
pub enum IssuerRefused {
    /// It would listen beyond this machine.
    #[error(
        "the development issuer listens on loopback alone, not on `{0}`: anyone who reaches it can be anyone"
    )]
    NotLoopback(SocketAddr),
    /// What it was given is no key.
    #[error("the development issuer's key is not one; delete its file and a new one is made")]
    NoKey,
    /// A client has a name that somebody else has: its own tokens would name that one.
    #[error("the client `{0}` has the name of a user or of another client; rename it")]
    NameTaken(String),
}

/// What a token is minted for.
#[derive(Clone, Copy, Debug)]
pub struct Minting<'a> {
    /// The user.
    pub user: &'a str,
    /// The OAuth client that it is given to.
    pub agent: &'a str,
    /// The door.
    pub audience: &'a str,
    /// The scopes.
    pub scopes: &'a [String],
    /// How long it lives, in seconds.
    pub lifetime_seconds: u64,
}

/// No token was minted.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotMinted {
    /// No such user.
    #[error("there is no user `{0}` in the users file; known: {1}")]
    UnknownUser(String, String),
    /// The life is too long.
    #[error("a token of the development issuer lives at most {LIFETIME_MAX_SECONDS} seconds; ask for less")]
    TooLong,
    /// Signing failed.
    #[error("the token could not be signed")]
    Unsigned,
}

/// Whether this is a key that [`new_key`] made.
#[must_use]
pub fn is_key(key: &Secret) -> bool {
    let der = STANDARD.decode(key.expose().trim()).ok();
    der.is_some_and(|der| Jwk::from_encoding_key(&EncodingKey::from_ec_der(&der), Algorithm::ES256).is_ok())
}

impl Issuer {
    /// An issuer that signs with this key, which [`new_key`] made.
    pub fn new(key: &Secret, mut settings: IssuerSettings) -> Result<Self, IssuerRefused> {
        if !settings.listen.ip().is_loopback() {
            return Err(IssuerRefused::NotLoopback(settings.listen));
        }
        let der = STANDARD.decode(key.expose().trim()).map_err(|_| IssuerRefused::NoKey)?;
        let key = EncodingKey::from_ec_der(&der);
        let mut public = Jwk::from_encoding_key(&key, Algorithm::ES256).map_err(|_| IssuerRefused::NoKey)?;
        public.common.key_id = Some(KEY_ID.to_owned());
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        let keys = JwkSet { keys: vec![public] };
        let gateway_secret = Secret::new(derived(&der, b"the gateway's client secret"));
        let clients = clients(&settings, &gateway_secret)?;
        let own = own_checks(&settings, &clients, &keys).map_err(|_| IssuerRefused::NoKey)?;
        Ok(Self {
            users: RwLock::new(std::mem::take(&mut settings.users)),
            settings,
            key,
            keys,
            gateway_secret,
            form_key: hmac::Key::new(hmac::HMAC_SHA256, derived(&der, b"the login form").as_bytes()),
            own,
            clients,
            documents: Documents::new().map_err(|_| IssuerRefused::NoKey)?,
            state: Mutex::default(),
            spent_proofs: SpentProofs::default(),
        })
    }

    /// Its name (`iss`), which is also its address.
    #[must_use]
    pub fn name(&self) -> String {
        name(&self.settings.listen)
    }

    /// The keys that it publishes.
    #[must_use]
    pub fn published_keys(&self) -> &JwkSet {
        &self.keys
    }

    /// A check for tokens from here to this audience.
    pub fn check(&self, audience: &str) -> Result<TokenCheck, String> {
        check(&self.settings.listen, audience, &self.keys)
    }

    /// The secret of the gateway's own client: the same as long as the key is, so that a second process can use it too.
    #[must_use]
    pub fn gateway_secret(&self) -> Secret {
        self.gateway_secret.clone()
    }

    /// From now on these are the users. Whoever is no longer among them gets nothing, and what they got is no longer active.
    pub fn set_users(&self, users: BTreeMap<String, User>) {
        *self.users.write().unwrap_or_else(PoisonError::into_inner) = users;
    }

    /// Mints an access token for a user.
    pub fn mint(&self, minting: Minting<'_>, now: Instant) -> Result<Secret, NotMinted> {
        let Some(user) = self.user(minting.user) else {
            let known: Vec<String> = self.user_names().iter().map(|name| format!("`{name}`")).collect();
            return Err(NotMinted::UnknownUser(minting.user.to_owned(), known.join(", ")));
        };
        if minting.lifetime_seconds > LIFETIME_MAX_SECONDS {
            return Err(NotMinted::TooLong);
        }
        let scope = minting.scopes.join(" ");
        let access = Access {
            user: Some(&user),
            scope: &scope,
            lifetime_seconds: minting.lifetime_seconds,
            ..Access::new(minting.user, minting.agent, minting.audience)
        };
        self.issue(&access, now).ok_or(NotMinted::Unsigned)
    }

    /// Mints an access token for a client in its own name, as the client credentials grant gives one (RFC 9068 §2.2).
    pub fn mint_application(
        &self,
        client: &str,
        audience: &str,
        scopes: &[String],
        lifetime_seconds: u64,
        now: Instant,
    ) -> Result<Secret, NotMinted> {
        if lifetime_seconds > LIFETIME_MAX_SECONDS {
            return Err(NotMinted::TooLong);
        }
        let scope = scopes.join(" ");
        let access = Access { scope: &scope, lifetime_seconds, ..Access::new(client, client, audience) };
        self.issue(&access, now).ok_or(NotMinted::Unsigned)
    }

    /// The user of this name, where somebody can be that.
    fn user(&self, name: &str) -> Option<User> {
        let users = self.users.read().unwrap_or_else(PoisonError::into_inner);
        users.get(name).filter(|user| !user.disabled).cloned()
    }

    /// Everybody that one can be.
    fn user_names(&self) -> Vec<String> {
        let users = self.users.read().unwrap_or_else(PoisonError::into_inner);
        users.iter().filter(|(_, user)| !user.disabled).map(|(name, _)| name.clone()).collect()
    }

    /// What it remembers. Nothing in there panics half-way, and nobody waits while holding it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The door that a client means.
    fn door(&self, named: Option<&str>) -> Option<&str> {
        let resources = &self.settings.resources;
        let Some(named) = named else { return resources.first().map(String::as_str) };
        resources.iter().find(|resource| door::is_same(resource, named)).map(String::as_str)
    }
}

fn name(listen: &SocketAddr) -> String {
    format!("http://{listen}")
}

/// The clients of the project, and the gateway's own.
fn clients(
    settings: &IssuerSettings,
    gateway_secret: &Secret,
) -> Result<BTreeMap<String, Client>, IssuerRefused> {
    // The doors' own pages, to which people come back from here.
    let pages = settings.resources.iter().map(|door| format!("{door}{LOGIN_PATH}"));
    let gateway = Client {
        id: GATEWAY_CLIENT.to_owned(),
        name: None,
        secret: Some(gateway_secret.clone()),
        redirect_uris: pages.filter_map(|page| RedirectUri::new(&page).ok()).collect(),
        grants: BTreeSet::from([Grant::TokenExchange, Grant::AuthorizationCode]),
        may_exchange: settings.downstream.clone(),
    };
    let mut clients = BTreeMap::new();
    for client in std::iter::once(&gateway).chain(&settings.logins.clients) {
        let is_taken = settings.users.contains_key(&client.id)
            || clients.insert(client.id.clone(), client.clone()).is_some();
        if is_taken {
            return Err(IssuerRefused::NameTaken(client.id.clone()));
        }
    }
    Ok(clients)
}

fn own_checks(
    settings: &IssuerSettings,
    clients: &BTreeMap<String, Client>,
    keys: &JwkSet,
) -> Result<BTreeMap<String, TokenCheck>, String> {
    let exchanged = clients.values().flat_map(|client| client.may_exchange.keys());
    let audiences: BTreeSet<&String> = settings.resources.iter().chain(exchanged).collect();
    let checks = audiences.into_iter().map(|audience| {
        let check = check(&settings.listen, audience, keys)?;
        Ok((audience.clone(), check))
    });
    checks.collect()
}

fn check(listen: &SocketAddr, audience: &str, keys: &JwkSet) -> Result<TokenCheck, String> {
    let rules = TokenRules {
        issuer: name(listen),
        audience: audience.to_owned(),
        algorithms: vec![SigningAlgorithm::Es256],
        token_type: TOKEN_TYPE.to_owned(),
        lifetime_max_seconds: LIFETIME_MAX_SECONDS,
    };
    TokenCheck::new(rules, KeySource::Fixed(keys.clone()))
}

/// A new key (P-256, PKCS #8, base64); `None` where the machine has no randomness.
#[must_use]
pub fn new_key() -> Option<Secret> {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).ok()?;
    Some(Secret::new(STANDARD.encode(pair.to_pkcs8v1().ok()?.as_ref())))
}

/// A secret that is the same as long as the key is.
fn derived(key: &[u8], purpose: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    // Without letters that the two ways of sending a client's secret would spell differently.
    URL_SAFE_NO_PAD.encode(hmac::sign(&key, purpose))
}

/// 256 bits that nobody can guess, as text; `None` where the machine has no randomness.
fn unguessable() -> Option<Secret> {
    let mut bytes = zeroize::Zeroizing::new([0_u8; 32]);
    aws_lc_rs::rand::fill(bytes.as_mut_slice()).ok()?;
    Some(Secret::new(URL_SAFE_NO_PAD.encode(bytes.as_slice())))
}

#[cfg(test)]
mod tests;
