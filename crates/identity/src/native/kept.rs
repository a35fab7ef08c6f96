//! A login as it is kept: what the user's tokens are, and where they are renewed and given back.

use ringfence_core::{Instant, Secret};
use serde::{Deserialize, Serialize};

use super::found::Found;
use crate::Endpoint;
use crate::credential::{Answered, ClientSettings, NoCredential};
use crate::fetch::Fetcher;
use crate::login::{CodeClient, CodeClientSettings};

/// A token that ends within this time is renewed first, in seconds.
const MARGIN_SECONDS: u64 = 30;

/// A user's login at one gateway.
pub struct Login(Stored);

/// Where it was made, and where it is renewed and given back.
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Origin {
    pub(super) resource: String,
    pub(super) issuer: String,
    pub(super) authorization_endpoint: String,
    pub(super) token_endpoint: String,
    pub(super) revocation_endpoint: Option<String>,
}

/// What stands in its file.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    origin: Origin,
    client_id: String,
    scopes: Vec<String>,
    #[serde(with = "secret")]
    access_token: Secret,
    /// When it ends, in seconds since 1970; none where the issuer does not say.
    expires: Option<u64>,
    #[serde(with = "optional_secret")]
    refresh_token: Option<Secret>,
}

/// No further token can be had. The text is for the user and names no token.
#[derive(Debug, thiserror::Error)]
pub enum NotRenewed {
    /// There will be none any more.
    #[error("the login has ended ({0})")]
    Ended(String),
    /// There is none at the moment.
    #[error("the issuer cannot be reached to renew the login ({0}); try again later")]
    Unreachable(String),
}

/// The issuer did not take the tokens back.
#[derive(Debug, thiserror::Error)]
#[error("the issuer did not take the login back: {0}")]
pub struct NotRevoked(String);

impl Login {
    pub(super) fn new(
        found: &Found,
        client_id: &str,
        asked: &[String],
        answered: Answered,
        now: Instant,
    ) -> Self {
        Self(Stored {
            origin: found.origin(),
            client_id: client_id.to_owned(),
            scopes: answered.scopes.unwrap_or_else(|| asked.to_vec()),
            access_token: answered.token,
            expires: ends(answered.lifetime_seconds, now),
            refresh_token: answered.refresh_token,
        })
    }

    /// Reads one that [`Login::to_text`] wrote.
    #[must_use]
    pub fn from_text(text: &Secret) -> Option<Self> {
        serde_json::from_str(text.expose()).ok().map(Self)
    }

    /// What to keep where the user alone can read it; `None` never.
    #[must_use]
    pub fn to_text(&self) -> Option<Secret> {
        serde_json::to_string_pretty(&self.0).ok().map(Secret::new)
    }

    /// The gateway that it is for: the address of its `/mcp`.
    #[must_use]
    pub fn resource(&self) -> &str {
        &self.0.origin.resource
    }

    /// Where the user logged in.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.0.origin.issuer
    }

    /// The client that the user logged in with.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.0.client_id
    }

    /// The scopes of its tokens.
    #[must_use]
    pub fn scopes(&self) -> &[String] {
        &self.0.scopes
    }

    /// When its access token ends, in seconds since 1970, where the issuer says so.
    #[must_use]
    pub fn expires(&self) -> Option<u64> {
        self.0.expires
    }

    /// Whether a further token can be had without the user.
    #[must_use]
    pub fn can_be_renewed(&self) -> bool {
        self.0.refresh_token.is_some()
    }

    /// The token that is sent to the gateway, and to nobody else.
    #[must_use]
    pub fn access_token(&self) -> &Secret {
        &self.0.access_token
    }

    /// Whether the access token is good for a while yet.
    #[must_use]
    pub fn is_fresh(&self, now: Instant) -> bool {
        self.0.expires.is_none_or(|expires| now.seconds().saturating_add(MARGIN_SECONDS) < expires)
    }

    /// The login with a further token (RFC 6749 §6). What comes has to be kept before it is used: the refresh token may be good once.
    pub async fn renew(&self, now: Instant) -> Result<Self, NotRenewed> {
        let stored = &self.0;
        let ended = |why: &str| NotRenewed::Ended(why.to_owned());
        let refresh = stored.refresh_token.as_ref().ok_or_else(|| ended("it cannot be renewed"))?;
        let client = self.client().ok_or_else(|| ended("its issuer may not be asked"))?;
        let answered = client.refresh(refresh, &stored.scopes, now).await.map_err(|error| match error {
            NoCredential::Unreachable(why) => NotRenewed::Unreachable(why),
            other => NotRenewed::Ended(other.to_string()),
        })?;
        Ok(Self(Stored {
            origin: stored.origin.clone(),
            client_id: stored.client_id.clone(),
            scopes: answered.scopes.unwrap_or_else(|| stored.scopes.clone()),
            access_token: answered.token,
            expires: ends(answered.lifetime_seconds, now),
            // Where none comes, the old one stays good.
            refresh_token: Some(answered.refresh_token.unwrap_or_else(|| refresh.clone())),
        }))
    }

    fn client(&self) -> Option<CodeClient> {
        let stored = &self.0;
        let client = ClientSettings {
            token_endpoint: Endpoint::internal(&stored.origin.token_endpoint).ok()?,
            client_id: stored.client_id.clone(),
            client_secret: None,
        };
        let settings = CodeClientSettings {
            authorization_endpoint: stored.origin.authorization_endpoint.clone(),
            client,
            issuer: Some(stored.origin.issuer.clone()),
            resource: Some(stored.origin.resource.clone()),
            scopes: stored.scopes.clone(),
        };
        CodeClient::new(settings).ok()
    }

    /// Gives the tokens back (RFC 7009 §2.1). False where the issuer takes none: they are good until they end.
    pub async fn revoke(&self) -> Result<bool, NotRevoked> {
        let stored = &self.0;
        let Some(endpoint) = &stored.origin.revocation_endpoint else { return Ok(false) };
        let endpoint = Endpoint::internal(endpoint).map_err(|error| NotRevoked(error.to_string()))?;
        // With the refresh token goes all that came of the login, where the issuer is as the standard says it should be.
        let (token, hint) = match &stored.refresh_token {
            Some(token) => (token, "refresh_token"),
            None => (&stored.access_token, "access_token"),
        };
        let form = [("token", token.expose()), ("token_type_hint", hint), ("client_id", &stored.client_id)];
        let fetcher = Fetcher::to(&endpoint).map_err(|error| NotRevoked(error.0))?;
        let sent = fetcher.post(&endpoint).form(&form).send().await;
        let status = sent.map_err(|error| NotRevoked(error.without_url().to_string()))?.status();
        if status.is_success() {
            Ok(true)
        } else {
            Err(NotRevoked(format!("it answered {}", status.as_u16())))
        }
    }
}

fn ends(lifetime_seconds: Option<u64>, now: Instant) -> Option<u64> {
    lifetime_seconds.map(|seconds| now.seconds().saturating_add(seconds))
}

/// A login's file is the one place where a token is written down.
mod secret {
    use ringfence_core::Secret;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(secret: &Secret, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(secret.expose())
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Secret, D::Error> {
        String::deserialize(from).map(Secret::new)
    }
}

mod optional_secret {
    use ringfence_core::Secret;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    #[expect(clippy::ref_option, reason = "serde calls it so")]
    pub(super) fn serialize<S: Serializer>(secret: &Option<Secret>, to: S) -> Result<S::Ok, S::Error> {
        secret.as_ref().map(Secret::expose).serialize(to)
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Option<Secret>, D::Error> {
        Ok(Option::<String>::deserialize(from)?.map(Secret::new))
    }
}
