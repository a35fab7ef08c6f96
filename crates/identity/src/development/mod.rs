//! The development issuer: users from a file, tokens for the asking. On loopback alone, since whoever reaches it can be anyone.

mod routes;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use ringfence_core::{Instant, Secret};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{KeySource, SigningAlgorithm, TokenCheck, TokenRules};

pub use routes::router;

/// The gateway's own client at this issuer.
pub const GATEWAY_CLIENT: &str = "ringfence-gateway";
/// How long a downstream token lives, in seconds.
const DOWNSTREAM_SECONDS: u64 = 60;
/// The longest life of a token from here, in seconds.
pub const LIFETIME_MAX_SECONDS: u64 = 86_400;
const KEY_ID: &str = "development-1";
const TOKEN_TYPE: &str = "at+jwt";

/// A user that can be named.
#[derive(Clone, Debug, Default)]
pub struct User {
    /// The groups that tokens name.
    pub groups: Vec<String>,
    /// Further claims.
    pub claims: BTreeMap<String, String>,
}

/// What the issuer is set to.
pub struct IssuerSettings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The claim that holds the groups.
    pub groups_claim: String,
    /// Who can be named.
    pub users: BTreeMap<String, User>,
    /// Audiences that tokens can be minted for: the doors.
    pub resources: Vec<String>,
    /// Audiences that the gateway can exchange tokens for, with the scopes of each.
    pub downstream: BTreeMap<String, BTreeSet<String>>,
}

/// An issuer for development.
pub struct Issuer {
    settings: IssuerSettings,
    key: EncodingKey,
    keys: JwkSet,
    gateway_secret: Secret,
    /// Checks the tokens that come to be exchanged.
    own: Vec<TokenCheck>,
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
    pub fn new(key: &Secret, settings: IssuerSettings) -> Result<Self, IssuerRefused> {
        if !settings.listen.ip().is_loopback() {
            return Err(IssuerRefused::NotLoopback(settings.listen));
        }
        let der = STANDARD.decode(key.expose().trim()).map_err(|_| IssuerRefused::NoKey)?;
        let key = EncodingKey::from_ec_der(&der);
        let mut public = Jwk::from_encoding_key(&key, Algorithm::ES256).map_err(|_| IssuerRefused::NoKey)?;
        public.common.key_id = Some(KEY_ID.to_owned());
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        let keys = JwkSet { keys: vec![public] };
        let own = settings
            .resources
            .iter()
            .map(|resource| check(&settings.listen, resource, KeySource::Fixed(keys.clone())));
        let own = own.collect::<Result<_, _>>().map_err(|_| IssuerRefused::NoKey)?;
        Ok(Self { gateway_secret: gateway_secret(&der), settings, key, keys, own })
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
        check(&self.settings.listen, audience, KeySource::Fixed(self.keys.clone()))
    }

    /// The secret of the gateway's own client: the same as long as the key is, so that a second process can use it too.
    #[must_use]
    pub fn gateway_secret(&self) -> Secret {
        self.gateway_secret.clone()
    }

    /// Mints an access token for a user.
    pub fn mint(&self, minting: Minting<'_>, now: Instant) -> Result<Secret, NotMinted> {
        let Some(user) = self.settings.users.get(minting.user) else {
            let known: Vec<String> = self.settings.users.keys().map(|name| format!("`{name}`")).collect();
            return Err(NotMinted::UnknownUser(minting.user.to_owned(), known.join(", ")));
        };
        if minting.lifetime_seconds > LIFETIME_MAX_SECONDS {
            return Err(NotMinted::TooLong);
        }
        let mut claims = self.claims(minting.user, user, minting.audience, minting.lifetime_seconds, now);
        claims.insert("client_id".into(), minting.agent.into());
        claims.insert("scope".into(), minting.scopes.join(" ").into());
        // Whoever mints it is the login.
        claims.insert("auth_time".into(), now.seconds().into());
        self.sign(&claims).ok_or(NotMinted::Unsigned)
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
        let mut claims = self.claims(client, &User::default(), audience, lifetime_seconds, now);
        claims.insert("client_id".into(), client.into());
        claims.insert("scope".into(), scopes.join(" ").into());
        self.sign(&claims).ok_or(NotMinted::Unsigned)
    }

    /// The token that the gateway shows to a system: the user is its subject, the gateway and the agent its actors (RFC 8693 §4.1).
    fn mint_downstream(
        &self,
        user: &str,
        agent: &str,
        audience: &str,
        scope: &str,
        now: Instant,
    ) -> Option<Secret> {
        let known = self.settings.users.get(user)?;
        let mut claims = self.claims(user, known, audience, DOWNSTREAM_SECONDS, now);
        claims.insert("client_id".into(), GATEWAY_CLIENT.into());
        claims.insert("act".into(), json!({ "sub": GATEWAY_CLIENT, "act": { "sub": agent } }));
        claims.insert("scope".into(), scope.into());
        self.sign(&claims)
    }

    fn claims(
        &self,
        name: &str,
        user: &User,
        audience: &str,
        seconds: u64,
        now: Instant,
    ) -> Map<String, Value> {
        let mut claims: Map<String, Value> =
            user.claims.iter().map(|(claim, value)| (claim.clone(), value.as_str().into())).collect();
        // Set last: no claim of the users file stands in for one of these.
        claims.insert(self.settings.groups_claim.clone(), user.groups.as_slice().into());
        claims.insert("iss".into(), self.name().into());
        claims.insert("sub".into(), name.into());
        claims.insert("aud".into(), audience.into());
        claims.insert("iat".into(), now.seconds().into());
        claims.insert("exp".into(), now.seconds().saturating_add(seconds).into());
        claims.insert("jti".into(), Uuid::now_v7().to_string().into());
        claims
    }

    fn sign(&self, claims: &Map<String, Value>) -> Option<Secret> {
        let header = Header {
            typ: Some(TOKEN_TYPE.into()),
            kid: Some(KEY_ID.into()),
            ..Header::new(Algorithm::ES256)
        };
        jsonwebtoken::encode(&header, claims, &self.key).ok().map(Secret::new)
    }
}

fn name(listen: &SocketAddr) -> String {
    format!("http://{listen}")
}

fn check(listen: &SocketAddr, audience: &str, keys: KeySource) -> Result<TokenCheck, String> {
    let rules = TokenRules {
        issuer: name(listen),
        audience: audience.to_owned(),
        algorithms: vec![SigningAlgorithm::Es256],
        token_type: TOKEN_TYPE.to_owned(),
        lifetime_max_seconds: LIFETIME_MAX_SECONDS,
    };
    TokenCheck::new(rules, keys)
}

/// A new key (P-256, PKCS #8, base64); `None` where the machine has no randomness.
#[must_use]
pub fn new_key() -> Option<Secret> {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).ok()?;
    Some(Secret::new(STANDARD.encode(pair.to_pkcs8v1().ok()?.as_ref())))
}

fn gateway_secret(key: &[u8]) -> Secret {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    // Of letters that stand for themselves in a form, as RFC 6749 §2.3.1 wants a client's secret written.
    Secret::new(hex::encode(hmac::sign(&key, b"the gateway's client secret")))
}
