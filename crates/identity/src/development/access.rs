//! Access tokens: what is in them (RFC 9068), and whether one that comes back still counts.

use jsonwebtoken::{Algorithm, Header};
use ringfence_core::{Instant, Secret};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{Issuer, User};
use crate::VerifiedToken;

pub(super) const KEY_ID: &str = "development-1";
pub(super) const TOKEN_TYPE: &str = "at+jwt";
/// How long an access token lives, in seconds.
pub(super) const LIFETIME_SECONDS: u64 = 3600;
/// The claim that names the login that a token came from.
const LOGIN: &str = "login";

/// What an access token says.
pub(super) struct Access<'a> {
    pub(super) subject: &'a str,
    /// The user that the subject is; none where a client speaks for itself.
    pub(super) user: Option<&'a User>,
    pub(super) client: &'a str,
    pub(super) audience: &'a str,
    pub(super) scope: &'a str,
    pub(super) lifetime_seconds: u64,
    /// The login that it ends with.
    pub(super) login: Option<Uuid>,
    /// The thumbprint of the key that whoever shows it has to hold (RFC 9449 §6.1).
    pub(super) key: Option<&'a str>,
    /// Who acts for the subject (RFC 8693 §4.1).
    pub(super) actors: Option<Value>,
}

impl<'a> Access<'a> {
    /// A token without a scope, for an hour.
    pub(super) fn new(subject: &'a str, client: &'a str, audience: &'a str) -> Self {
        Self {
            subject,
            user: None,
            client,
            audience,
            scope: "",
            lifetime_seconds: LIFETIME_SECONDS,
            login: None,
            key: None,
            actors: None,
        }
    }

    /// When its user logged in, in seconds since 1970: no refresh changes that. Whoever has a token minted is the login.
    fn logged_in(&self, now: Instant) -> Option<u64> {
        let is_of_user = self.user.is_some() && self.actors.is_none();
        let of_login = self.login.and_then(|login| login.get_timestamp()).map(|at| at.to_unix().0);
        is_of_user.then(|| of_login.unwrap_or_else(|| now.seconds()))
    }

    /// As the answer of the token endpoint names it.
    pub(super) fn token_type(&self) -> &'static str {
        if self.key.is_some() { "DPoP" } else { "Bearer" }
    }
}

impl Issuer {
    /// Signs an access token; `None` where that fails.
    pub(super) fn issue(&self, access: &Access<'_>, now: Instant) -> Option<Secret> {
        let header = Header {
            typ: Some(TOKEN_TYPE.into()),
            kid: Some(KEY_ID.into()),
            ..Header::new(Algorithm::ES256)
        };
        jsonwebtoken::encode(&header, &self.claims(access, now), &self.key).ok().map(Secret::new)
    }

    fn claims(&self, access: &Access<'_>, now: Instant) -> Map<String, Value> {
        let further = access.user.map(|user| user.claims.iter());
        let further = further.into_iter().flatten();
        let mut claims: Map<String, Value> =
            further.map(|(claim, value)| (claim.clone(), value.as_str().into())).collect();
        let groups = access.user.map(|user| user.groups.as_slice()).unwrap_or_default();
        // Set last: no claim of the users file stands in for one of these.
        claims.insert(self.settings.groups_claim.clone(), groups.into());
        for reserved in ["cnf", "act", "auth_time", LOGIN] {
            claims.remove(reserved);
        }
        claims.insert("iss".into(), self.name().into());
        claims.insert("sub".into(), access.subject.into());
        claims.insert("aud".into(), access.audience.into());
        claims.insert("client_id".into(), access.client.into());
        claims.insert("scope".into(), access.scope.into());
        claims.insert("iat".into(), now.seconds().into());
        claims.insert("exp".into(), now.seconds().saturating_add(access.lifetime_seconds).into());
        claims.insert("jti".into(), Uuid::now_v7().to_string().into());
        claims.extend(access.logged_in(now).map(|at| ("auth_time".into(), at.into())));
        claims.extend(access.login.map(|login| (LOGIN.into(), login.to_string().into())));
        claims.extend(access.key.map(|key| ("cnf".into(), json!({ "jkt": key }))));
        claims.extend(access.actors.clone().map(|actors| ("act".into(), actors)));
        claims
    }

    /// An access token from here that counts: sound, not revoked, of a login that still stands, of a user that is still there.
    pub(super) async fn active(&self, token: &Secret, now: Instant) -> Option<VerifiedToken> {
        let claims: Value = jsonwebtoken::dangerous::insecure_decode_claims(token.expose()).ok()?;
        let check = self.own.get(claims.get("aud")?.as_str()?)?;
        let verified = check.check(token, now).await.ok()?;
        self.still_counts(&verified).then_some(verified)
    }

    fn still_counts(&self, token: &VerifiedToken) -> bool {
        let text = |claim: &str| token.claims.get(claim).and_then(Value::as_str);
        let is_own = token.subject == token.client && self.clients.contains_key(&token.client);
        if !is_own && self.user(&token.subject).is_none() {
            return false;
        }
        let login = text(LOGIN).map(Uuid::parse_str);
        let state = self.state();
        text("jti").is_some_and(|id| !state.revoked.contains(id))
            && match login {
                None => true,
                Some(Ok(login)) => state.families.stands(login),
                Some(Err(_)) => false,
            }
    }
}
