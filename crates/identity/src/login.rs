//! A small OAuth client: authorization code with PKCE (RFC 6749 §4.1, RFC 7636, RFC 9700 §2.1), for people's browsers.
//!
//! It takes people to an issuer and judges what they come back with. Who keeps what between the two, and in which browser, is
//! its caller's.

use std::collections::BTreeSet;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfence_core::{Instant, Secret};
use serde::Deserialize;
use url::Url;

use crate::credential::{
    Answered, Asked, Authentication, ClientSettings, NoCredential, TokenEndpoint, known_code,
};
use crate::{BadUrl, Endpoint};

/// What the client has to know of an issuer.
pub struct CodeClientSettings {
    /// Where browsers are sent.
    pub authorization_endpoint: String,
    /// The gateway's own client.
    pub client: ClientSettings,
    /// Its name, where it names itself in answers (`iss`, RFC 9207).
    pub issuer: Option<String>,
    /// What the token is for (RFC 8707).
    pub resource: Option<String>,
    /// The scopes that are asked for.
    pub scopes: Vec<String>,
}

/// A client of one issuer.
pub struct CodeClient {
    authorization_endpoint: Url,
    client_id: String,
    endpoint: TokenEndpoint,
    issuer: Option<String>,
    resource: Option<String>,
    scopes: Vec<String>,
}

/// The client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CodeClientRefused {
    /// The URL cannot be one.
    #[error(transparent)]
    Url(#[from] BadUrl),
    /// No TLS client can be made.
    #[error("no TLS client can be made: {0}")]
    Client(String),
}

/// What is kept while somebody is at the issuer: good for one answer.
pub struct Pending {
    state: Secret,
    verifier: Secret,
    redirect_uri: String,
}

/// What somebody comes back with (RFC 6749 §4.1.2, RFC 9207 §2).
#[derive(Deserialize)]
pub struct Returned {
    code: Option<String>,
    state: Option<String>,
    iss: Option<String>,
    error: Option<String>,
}

/// Nobody logged in. The text is for the log and names no token.
#[derive(Debug, thiserror::Error)]
pub enum NotLoggedIn {
    /// The answer is to another question.
    #[error("the answer does not belong to this browser")]
    State,
    /// Another issuer answered.
    #[error("another issuer answered")]
    Issuer,
    /// The issuer, or the person, said no.
    #[error("the issuer said no: {0}")]
    Denied(&'static str),
    /// There was no code.
    #[error("the issuer sent no code")]
    NoCode,
    /// The code was not redeemed.
    #[error(transparent)]
    Token(#[from] NoCredential),
}

/// 256 bits of randomness as text; `None` where the machine has none.
pub(crate) fn random_text() -> Option<Secret> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).ok()?;
    Some(Secret::new(URL_SAFE_NO_PAD.encode(bytes)))
}

impl Pending {
    /// Whether this answer is to this question.
    #[must_use]
    pub fn is_answered_by(&self, returned: &Returned) -> bool {
        let state = returned.state.as_deref().unwrap_or_default();
        verify_slices_are_equal(state.as_bytes(), self.state.expose().as_bytes()).is_ok()
    }
}

impl Returned {
    /// Whether it says who answers (RFC 9207).
    pub(crate) fn names_issuer(&self) -> bool {
        self.iss.is_some()
    }
}

impl CodeClient {
    /// A client of this issuer.
    pub fn new(settings: CodeClientSettings) -> Result<Self, CodeClientRefused> {
        let CodeClientSettings { authorization_endpoint, client, issuer, resource, scopes } = settings;
        Endpoint::internal(&authorization_endpoint)?;
        let parsed = Url::parse(&authorization_endpoint);
        let authorization_endpoint = parsed.map_err(|error| CodeClientRefused::Client(error.to_string()))?;
        let (client_id, authentication) = (client.client_id.clone(), Authentication::Header);
        let endpoint = TokenEndpoint::new(client, authentication).map_err(CodeClientRefused::Client)?;
        Ok(Self { authorization_endpoint, client_id, endpoint, issuer, resource, scopes })
    }

    /// Where to send a browser, and what to keep meanwhile; `None` where the machine has no randomness.
    #[must_use]
    pub fn begin(&self, redirect_uri: &str) -> Option<(String, Pending)> {
        let (state, verifier) = (random_text()?, random_text()?);
        let challenge = digest::digest(&digest::SHA256, verifier.expose().as_bytes());
        let mut url = self.authorization_endpoint.clone();
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.client_id)
            .append_pair("redirect_uri", redirect_uri)
            .append_pair("state", state.expose())
            .append_pair("code_challenge", &URL_SAFE_NO_PAD.encode(challenge))
            .append_pair("code_challenge_method", "S256");
        if !self.scopes.is_empty() {
            url.query_pairs_mut().append_pair("scope", &self.scopes.join(" "));
        }
        if let Some(resource) = &self.resource {
            url.query_pairs_mut().append_pair("resource", resource);
        }
        Some((url.into(), Pending { state, verifier, redirect_uri: redirect_uri.to_owned() }))
    }

    /// The token of whoever has logged in, with whatever scopes the issuer gave it.
    pub async fn log_in(
        &self,
        pending: &Pending,
        returned: Returned,
        now: Instant,
    ) -> Result<Secret, NotLoggedIn> {
        Ok(self.redeem(pending, returned, None, now).await?.token)
    }

    /// The tokens that the code is good for, with no scopes but those that were asked for.
    pub(crate) async fn finish(
        &self,
        pending: &Pending,
        returned: Returned,
        now: Instant,
    ) -> Result<Answered, NotLoggedIn> {
        let scopes: BTreeSet<&str> = self.scopes.iter().map(String::as_str).collect();
        self.redeem(pending, returned, Some(&scopes), now).await
    }

    /// The tokens that the code is good for, with these scopes at the most; none means that whatever the issuer gives will do.
    pub(crate) async fn redeem(
        &self,
        pending: &Pending,
        returned: Returned,
        scopes: Option<&BTreeSet<&str>>,
        now: Instant,
    ) -> Result<Answered, NotLoggedIn> {
        if !pending.is_answered_by(&returned) {
            return Err(NotLoggedIn::State);
        }
        if self.issuer.is_some() && returned.iss.is_some() && returned.iss != self.issuer {
            return Err(NotLoggedIn::Issuer);
        }
        if let Some(error) = returned.error {
            return Err(NotLoggedIn::Denied(known_code(&error)));
        }
        let code =
            returned.code.filter(|code| !code.is_empty()).map(Secret::new).ok_or(NotLoggedIn::NoCode)?;
        let mut fields = vec![
            ("grant_type", "authorization_code"),
            ("code", code.expose()),
            ("redirect_uri", pending.redirect_uri.as_str()),
            ("code_verifier", pending.verifier.expose()),
        ];
        fields.extend(self.resource.as_ref().map(|resource| ("resource", resource.as_str())));
        let asked = Asked { scopes, audience: None, sent: &[&code, &pending.verifier], now };
        Ok(self.endpoint.ask(&fields, asked).await?)
    }

    /// A further token out of a refresh token, with these scopes (RFC 6749 §6).
    pub(crate) async fn refresh(
        &self,
        refresh_token: &Secret,
        scopes: &[String],
        now: Instant,
    ) -> Result<Answered, NoCredential> {
        let scope = scopes.join(" ");
        let mut fields = vec![("grant_type", "refresh_token"), ("refresh_token", refresh_token.expose())];
        if !scope.is_empty() {
            fields.push(("scope", scope.as_str()));
        }
        fields.extend(self.resource.as_ref().map(|resource| ("resource", resource.as_str())));
        let scopes: BTreeSet<&str> = scopes.iter().map(String::as_str).collect();
        let asked = Asked { scopes: Some(&scopes), audience: None, sent: &[refresh_token], now };
        self.endpoint.ask(&fields, asked).await
    }

    /// The scopes that it asks for.
    pub(crate) fn scopes(&self) -> &[String] {
        &self.scopes
    }

    /// Who is asked, as people know it.
    pub(crate) fn host(&self) -> &str {
        self.authorization_endpoint.host_str().unwrap_or_default()
    }
}
