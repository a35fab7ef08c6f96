//! Downstream tokens (RFC 8693): the user's token, for one system, with the tool's scopes, for a minute.

use std::collections::BTreeSet;

use ringfence_core::{Digest, Secret};

use super::cache::{Cache, Key, Minted};
use super::token_endpoint::ACCESS_TOKEN;
use super::{
    Asked, Authentication, ClientSettings, NoCredential, TokenEndpoint, Wanted, digest, owner, shown,
};

const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// Where and for what tokens are exchanged.
pub struct ExchangeSettings {
    /// The gateway's own client at the issuer.
    pub client: ClientSettings,
    /// The system that the tokens are for.
    pub target: Target,
    /// The scopes that they may carry.
    pub scopes: Vec<String>,
    /// Whether a token has to name the agent in `act`; otherwise it may leave that out.
    pub act_required: bool,
}

/// How a system is named to the issuer (RFC 8693 §2.1).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Target {
    /// By a name that the issuer knows.
    Audience(String),
    /// By its URL.
    Resource(String),
}

/// Exchanges tokens for one system.
pub struct Exchange {
    endpoint: TokenEndpoint,
    client_id: String,
    target: Target,
    scopes: Vec<String>,
    act_required: bool,
    cache: Cache,
}

impl Exchange {
    /// An exchange that has not happened yet. Fails where no TLS client can be made.
    pub fn new(settings: ExchangeSettings) -> Result<Self, String> {
        let ExchangeSettings { client, target, scopes, act_required } = settings;
        let client_id = client.client_id.clone();
        let endpoint = TokenEndpoint::new(client, Authentication::Header)?;
        Ok(Self { endpoint, client_id, target, scopes, act_required, cache: Cache::default() })
    }

    /// The token for this system in the name of the run's principal. Those who ask for the same at once wait for one answer.
    pub async fn token_for(&self, wanted: Wanted<'_>) -> Result<Secret, NoCredential> {
        let subject_token = wanted.subject_token.ok_or(NoCredential::NoSubjectToken)?;
        let scopes = wanted.scopes.unwrap_or(&self.scopes);
        let key = key(wanted, subject_token, self.target.name(), scopes);
        self.cache.token(key, wanted.now, async || self.exchange(wanted, subject_token, scopes).await).await
    }

    pub(super) fn forget(&self, owner: Digest) {
        self.cache.forget(owner);
    }

    async fn exchange(
        &self,
        wanted: Wanted<'_>,
        subject_token: &Secret,
        scopes: &[String],
    ) -> Result<Minted, NoCredential> {
        let scope = scopes.join(" ");
        let mut fields = vec![
            ("grant_type", GRANT),
            ("subject_token", subject_token.expose()),
            ("subject_token_type", ACCESS_TOKEN),
            ("requested_token_type", ACCESS_TOKEN),
            self.target.field(),
        ];
        if !scope.is_empty() {
            fields.push(("scope", scope.as_str()));
        }
        let scopes: BTreeSet<&str> = scopes.iter().map(String::as_str).collect();
        let audience = Some(self.target.name());
        let sent = &[subject_token];
        let asked = Asked { scopes: Some(&scopes), audience, sent, now: wanted.now };
        let answered = self.endpoint.ask(&fields, asked).await?;
        if answered.issued_token_type.as_deref() != Some(ACCESS_TOKEN) {
            return Err(NoCredential::Unsound("it is not an access token"));
        }
        self.check_act(&answered.token, wanted)?;
        let (token, lifetime_seconds) = (answered.token, answered.lifetime_seconds);
        Ok(Minted { token, lifetime_seconds, made_from: Digest::ZERO })
    }

    /// A token that names who acts names this agent; where that is not required, the gateway alone will do.
    fn check_act(&self, token: &Secret, wanted: Wanted<'_>) -> Result<(), NoCredential> {
        let agent = wanted.run.agent().as_str();
        let named = if self.act_required {
            shown::is_acted_by(token, &[agent]).unwrap_or(false)
        } else {
            shown::is_acted_by(token, &[agent, &self.client_id]).unwrap_or(true)
        };
        if named { Ok(()) } else { Err(NoCredential::Unsound("the token does not name the agent that acts")) }
    }
}

impl Target {
    /// The name itself.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Audience(name) | Self::Resource(name) => name,
        }
    }

    fn field(&self) -> (&'static str, &str) {
        match self {
            Self::Audience(name) => ("audience", name),
            Self::Resource(name) => ("resource", name),
        }
    }
}

/// One run, one subject token, one target and one set of scopes have one token.
pub(super) fn key(wanted: Wanted<'_>, subject_token: &Secret, target: &str, scopes: &[String]) -> Key {
    let owner = owner(wanted.run.id());
    let subject = shown::digest(subject_token).to_string();
    let name = digest(&[&owner.to_string(), &subject, target, &scopes.join(" ")]);
    Key { name, owner, made_from: Digest::ZERO }
}
