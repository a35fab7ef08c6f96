//! Downstream tokens in the form of RFC 7523 §2.1, as Entra has it: the user's token as an assertion, *on behalf of*.

use std::collections::BTreeSet;

use ringfence_core::{Digest, Instant, Secret};

use super::cache::{Cache, Minted};
use super::exchange::key;
use super::{Asked, Authentication, ClientSettings, NoCredential, TokenEndpoint, Wanted};

const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// Where and for what tokens are asked.
pub struct OnBehalfOfSettings {
    /// The gateway's own client at the issuer.
    pub client: ClientSettings,
    /// The audience that tokens have to name, where they show one.
    pub audience: Option<String>,
    /// The scopes that they may carry; with Entra they name the system too.
    pub scopes: Vec<String>,
    /// Scopes that the issuer may add: Entra gives all that its user has consented to, asked for or not.
    pub also_given: Vec<String>,
}

/// Asks for tokens for one system.
pub struct OnBehalfOf {
    endpoint: TokenEndpoint,
    audience: Option<String>,
    scopes: Vec<String>,
    also_given: Vec<String>,
    cache: Cache,
}

impl OnBehalfOf {
    /// Fails where no TLS client can be made.
    pub fn new(settings: OnBehalfOfSettings) -> Result<Self, String> {
        let OnBehalfOfSettings { client, audience, scopes, also_given } = settings;
        let endpoint = TokenEndpoint::new(client, Authentication::Form)?;
        Ok(Self { endpoint, audience, scopes, also_given, cache: Cache::default() })
    }

    /// The token for this system in the name of the run's principal.
    pub async fn token_for(&self, wanted: Wanted<'_>) -> Result<Secret, NoCredential> {
        let subject_token = wanted.subject_token.ok_or(NoCredential::NoSubjectToken)?;
        let scopes = wanted.scopes.unwrap_or(&self.scopes);
        let key = key(wanted, subject_token, wanted.system.as_str(), scopes);
        self.cache.token(key, wanted.now, async || self.ask(subject_token, scopes, wanted.now).await).await
    }

    pub(super) fn forget(&self, owner: Digest) {
        self.cache.forget(owner);
    }

    async fn ask(
        &self,
        subject_token: &Secret,
        scopes: &[String],
        now: Instant,
    ) -> Result<Minted, NoCredential> {
        let scope = scopes.join(" ");
        let fields = [
            ("grant_type", GRANT),
            ("assertion", subject_token.expose()),
            ("requested_token_use", "on_behalf_of"),
            ("scope", scope.as_str()),
        ];
        let may: BTreeSet<&str> = scopes.iter().chain(&self.also_given).map(String::as_str).collect();
        let audience = self.audience.as_deref();
        let sent = &[subject_token];
        let asked = Asked { scopes: Some(&may), audience, sent, now };
        let answered = self.endpoint.ask(&fields, asked).await?;
        let (token, lifetime_seconds) = (answered.token, answered.lifetime_seconds);
        Ok(Minted { token, lifetime_seconds, made_from: Digest::ZERO })
    }
}
