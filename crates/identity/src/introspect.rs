//! Asking the issuer whether a token is still good (RFC 7662): for tokens that say nothing themselves, and for those whose user
//! may have been disabled since.
//!
//! An answer is kept for a bounded time and never beyond the token's own; that a token is not active is not kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::RequestBuilder;
use reqwest::header::ACCEPT;
use ringfence_core::{Claims, Digest, Instant, Secret};
use serde_json::Value;
use tokio::sync::Semaphore;
use url::form_urlencoded::byte_serialize;

use crate::Endpoint;
use crate::fetch::{Fetcher, NoAnswer, json};

/// Answers that are kept at the most.
const KEPT_MAX: usize = 10_000;
/// Requests to one issuer at the same time: a flood of made-up tokens is no flood there.
const ASKING_MAX: usize = 16;
/// How long a request waits for its turn.
const TURN_MAX: Duration = Duration::from_secs(5);

/// Where an issuer is asked, and as whom.
pub struct IntrospectionSettings {
    /// The issuer's introspection endpoint.
    pub endpoint: Endpoint,
    /// The gateway's own client at the issuer.
    pub client_id: String,
    /// Its secret.
    pub client_secret: Secret,
}

/// Asks one issuer. Cheap to clone; all clones keep the same answers.
#[derive(Clone)]
pub struct Introspection(Arc<Shared>);

struct Shared {
    settings: IntrospectionSettings,
    fetcher: Fetcher,
    kept: Mutex<HashMap<Digest, Slot>>,
    turns: Semaphore,
}

/// The place for one token: whoever asks for the same one meanwhile waits for one answer.
type Slot = Arc<tokio::sync::Mutex<Option<Kept>>>;

struct Kept {
    claims: Claims,
    asked: Instant,
    /// The token's own end, which nothing outlasts.
    expires: Instant,
}

/// Why a token is not known to be good.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum NotActive {
    /// The issuer says that it is not.
    Inactive,
    /// The issuer does not say.
    Unreachable,
}

impl Introspection {
    /// Fails where no TLS client can be made.
    pub fn new(settings: IntrospectionSettings) -> Result<Self, String> {
        let fetcher = Fetcher::to(&settings.endpoint).map_err(|error| error.to_string())?;
        let turns = Semaphore::new(ASKING_MAX);
        Ok(Self(Arc::new(Shared { settings, fetcher, kept: Mutex::default(), turns })))
    }

    /// What the issuer says of an active token, at most this old.
    pub(crate) async fn ask(
        &self,
        token: &Secret,
        age_max_seconds: u64,
        now: Instant,
    ) -> Result<Claims, NotActive> {
        let name = Digest::of(&[token.expose().as_bytes()]);
        let slot = self.0.slot(name, age_max_seconds, now);
        let mut kept = slot.lock().await;
        if let Some(found) = kept.as_ref().filter(|kept| kept.is_fresh(age_max_seconds, now)) {
            return Ok(found.claims.clone());
        }
        *kept = None;
        let asked = self.0.introspect(token).await;
        match &asked {
            Ok(claims) => {
                // Where it is left out, the token itself has one, or is refused for having none.
                let ends = claims.get("exp").and_then(Value::as_u64).unwrap_or(u64::MAX);
                let expires = Instant(ends.saturating_mul(1000));
                *kept = Some(Kept { claims: claims.clone(), asked: now, expires });
            }
            Err(_) => self.0.forget(&name),
        }
        asked
    }
}

impl Kept {
    fn is_fresh(&self, age_max_seconds: u64, now: Instant) -> bool {
        now.0.abs_diff(self.asked.0) < age_max_seconds.saturating_mul(1000) && now.0 < self.expires.0
    }
}

impl Shared {
    fn slot(&self, name: Digest, age_max_seconds: u64, now: Instant) -> Slot {
        let Ok(mut kept) = self.kept.lock() else { return Slot::default() };
        if kept.len() >= KEPT_MAX && !kept.contains_key(&name) {
            kept.retain(|_, slot| match slot.try_lock() {
                Ok(kept) => kept.as_ref().is_some_and(|kept| kept.is_fresh(age_max_seconds, now)),
                Err(_) => true,
            });
            if kept.len() >= KEPT_MAX {
                return Slot::default();
            }
        }
        kept.entry(name).or_default().clone()
    }

    fn forget(&self, name: &Digest) {
        if let Ok(mut kept) = self.kept.lock() {
            kept.remove(name);
        }
    }

    async fn introspect(&self, token: &Secret) -> Result<Claims, NotActive> {
        let unreachable = |error: NoAnswer| {
            tracing::warn!(%error, "an issuer could not be asked about a token, which is refused");
            NotActive::Unreachable
        };
        let waited = tokio::time::timeout(TURN_MAX, self.turns.acquire()).await;
        let Ok(Ok(_turn)) = waited else {
            return Err(unreachable(NoAnswer("too many tokens are asked about".to_owned())));
        };
        let form = [("token", token.expose()), ("token_type_hint", "access_token")];
        let request = self.fetcher.post(&self.settings.endpoint).form(&form);
        let request = self.authorized(request).header(ACCEPT, "application/json");
        match json(request).await.map_err(unreachable)? {
            (200, Value::Object(answer)) if answer.get("active") == Some(&Value::Bool(true)) => Ok(answer),
            (200, Value::Object(answer)) if answer.get("active") == Some(&Value::Bool(false)) => {
                Err(NotActive::Inactive)
            }
            (status, _) => Err(unreachable(NoAnswer(format!("its answer ({status}) does not say")))),
        }
    }

    /// The gateway's own client (RFC 6749 §2.3.1: each part in the form encoding first).
    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        let encode = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
        let secret = Secret::new(encode(self.settings.client_secret.expose()));
        request.basic_auth(encode(&self.settings.client_id), Some(secret.expose()))
    }
}
