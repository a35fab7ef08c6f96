//! Downstream tokens (RFC 8693): the user's token, for one system, with narrowed scopes, for a minute.
//!
//! The client's own token goes to its issuer and nowhere else.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use ringfence_core::{Digest, Instant, Secret};
use serde_json::Value;

use crate::Endpoint;
use crate::fetch::{Fetcher, json};

const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// Tokens that are kept at the most.
const CACHE_MAX: usize = 10_000;
/// A kept token is not used in the last seconds of its life.
const MARGIN_MS: u64 = 10_000;
/// A token is kept no longer than this, however long its issuer lets it live.
const KEEP_MAX_SECONDS: u64 = 300;

/// Where and for what tokens are exchanged.
pub struct ExchangeSettings {
    /// The issuer's token endpoint.
    pub token_endpoint: Endpoint,
    /// The gateway's own client at the issuer.
    pub client_id: String,
    /// Its secret.
    pub client_secret: Secret,
    /// The system that the tokens are for.
    pub audience: String,
    /// The scopes that they carry.
    pub scopes: Vec<String>,
}

/// Exchanges tokens for one system.
pub struct Exchange {
    settings: ExchangeSettings,
    fetcher: Fetcher,
    kept: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<Option<Kept>>>>>,
}

struct Kept {
    token: Secret,
    until: Instant,
}

/// The issuer gave no token. For the log.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeRefused {
    /// It does not give these scopes for this user's token (`invalid_scope`, RFC 6749 §5.2).
    #[error("the issuer does not give the scopes `{}` for this token", .0.join(" "))]
    Scopes(Vec<String>),
    /// It said no, with this OAuth error code.
    #[error("the issuer refused the exchange: {0}")]
    Refused(String),
    /// It answered with something that is not what was asked for.
    #[error("the issuer's answer is not what was asked for: {0}")]
    Unsound(&'static str),
    /// It did not answer.
    #[error("the issuer did not answer: {0}")]
    Unreachable(String),
}

impl Exchange {
    /// An exchange that has not happened yet. Fails where no TLS client can be made.
    pub fn new(settings: ExchangeSettings) -> Result<Self, String> {
        Ok(Self { settings, fetcher: Fetcher::new().map_err(|error| error.0)?, kept: Mutex::default() })
    }

    /// The token for this system in the name of the subject of that token. Those who ask for the same at once wait for one answer.
    pub async fn token_for(&self, subject_token: &Secret, now: Instant) -> Result<Secret, ExchangeRefused> {
        let slot = self.slot(subject_token, now);
        let mut kept = slot.lock().await;
        if let Some(found) = kept.as_ref().filter(|kept| now.0 < kept.until.0) {
            return Ok(found.token.clone());
        }
        let (token, lifetime_seconds) = self.exchange(subject_token).await?;
        let lifetime_ms = lifetime_seconds.min(KEEP_MAX_SECONDS).saturating_mul(1000);
        let until = Instant(now.0.saturating_add(lifetime_ms).saturating_sub(MARGIN_MS));
        *kept = Some(Kept { token: token.clone(), until });
        Ok(token)
    }

    /// The place for one subject token; what is past its time makes room.
    fn slot(&self, subject_token: &Secret, now: Instant) -> Arc<tokio::sync::Mutex<Option<Kept>>> {
        let key = Digest::of(&[subject_token.expose().as_bytes()]);
        let Ok(mut kept) = self.kept.lock() else { return Arc::default() };
        if kept.len() >= CACHE_MAX && !kept.contains_key(&key) {
            kept.retain(|_, slot| match slot.try_lock() {
                Ok(kept) => kept.as_ref().is_some_and(|kept| now.0 < kept.until.0),
                Err(_) => true,
            });
            if kept.len() >= CACHE_MAX {
                return Arc::default();
            }
        }
        kept.entry(key).or_default().clone()
    }

    async fn exchange(&self, subject_token: &Secret) -> Result<(Secret, u64), ExchangeRefused> {
        let scope = self.settings.scopes.join(" ");
        let mut form = vec![
            ("grant_type", GRANT),
            ("subject_token", subject_token.expose()),
            ("subject_token_type", ACCESS_TOKEN),
            ("requested_token_type", ACCESS_TOKEN),
            ("audience", self.settings.audience.as_str()),
        ];
        if !scope.is_empty() {
            form.push(("scope", scope.as_str()));
        }
        let request = self.fetcher.post(&self.settings.token_endpoint).form(&form);
        let request =
            request.basic_auth(&self.settings.client_id, Some(self.settings.client_secret.expose()));
        let (status, answer) = json(request).await.map_err(|error| ExchangeRefused::Unreachable(error.0))?;
        if status != 200 {
            let code = answer.get("error").and_then(Value::as_str).unwrap_or("no error code");
            if code == "invalid_scope" {
                return Err(ExchangeRefused::Scopes(self.settings.scopes.clone()));
            }
            return Err(ExchangeRefused::Refused(code.chars().take(64).collect()));
        }
        self.judge(&answer, subject_token)
    }

    fn judge(&self, answer: &Value, subject_token: &Secret) -> Result<(Secret, u64), ExchangeRefused> {
        let text = |name: &str| answer.get(name).and_then(Value::as_str);
        if !text("token_type").is_some_and(|kind| kind.eq_ignore_ascii_case("bearer")) {
            return Err(ExchangeRefused::Unsound("the token is not a bearer token"));
        }
        if text("issued_token_type") != Some(ACCESS_TOKEN) {
            return Err(ExchangeRefused::Unsound("it is not an access token"));
        }
        if answer.get("scope").is_some_and(|scope| !scope.is_string()) {
            return Err(ExchangeRefused::Unsound("its scope is not a text"));
        }
        let asked: BTreeSet<&str> = self.settings.scopes.iter().map(String::as_str).collect();
        let given = text("scope").unwrap_or_default().split(' ').filter(|word| !word.is_empty());
        if given.into_iter().any(|scope| !asked.contains(scope)) {
            return Err(ExchangeRefused::Unsound("the token carries scopes that were not asked for"));
        }
        let token = text("access_token").filter(|token| !token.is_empty());
        let token = token.ok_or(ExchangeRefused::Unsound("there is no token in it"))?;
        if token == subject_token.expose() {
            return Err(ExchangeRefused::Unsound("it is the user's own token"));
        }
        let lifetime = answer.get("expires_in").and_then(Value::as_u64).unwrap_or(0);
        Ok((Secret::new(token.to_owned()), lifetime))
    }
}
