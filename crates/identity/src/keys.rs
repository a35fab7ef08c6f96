//! An issuer's keys, by `kid`: fetched when needed, kept for a while, fetched anew at most so often.

use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use ringfence_core::Instant;
use tokio::sync::{Mutex, RwLock};

use crate::fetch::{Endpoint, Fetcher, NoAnswer, json};

/// How long fetched keys are used: a key that an issuer withdraws stops working within this time.
const KEEP: Duration = Duration::from_mins(10);
/// How often keys are fetched at the most, whatever `kid`s tokens name.
const FETCH_EVERY: Duration = Duration::from_secs(10);

/// A signature algorithm that may be configured for an issuer. `none` and the symmetric ones do not exist here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SigningAlgorithm {
    /// ECDSA with P-256 and SHA-256 (RFC 7518 §3.4).
    Es256,
    /// Ed25519 (RFC 8037).
    EdDsa,
    /// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 7518 §3.3).
    Rs256,
}

impl SigningAlgorithm {
    /// The algorithm with this name in RFC 7518 or RFC 8037.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "ES256" => Some(Self::Es256),
            "EdDSA" => Some(Self::EdDsa),
            "RS256" => Some(Self::Rs256),
            _ => None,
        }
    }

    pub(crate) fn of(algorithm: Algorithm) -> Option<Self> {
        match algorithm {
            Algorithm::ES256 => Some(Self::Es256),
            Algorithm::EdDSA => Some(Self::EdDsa),
            Algorithm::RS256 => Some(Self::Rs256),
            _ => None,
        }
    }

    fn fits(self, key: &Jwk) -> bool {
        match (&key.algorithm, self) {
            (AlgorithmParameters::EllipticCurve(key), Self::Es256) => key.curve == EllipticCurve::P256,
            (AlgorithmParameters::OctetKeyPair(key), Self::EdDsa) => key.curve == EllipticCurve::Ed25519,
            (AlgorithmParameters::RSA(_), Self::Rs256) => true,
            _ => false,
        }
    }
}

/// Where an issuer's keys come from.
pub enum KeySource {
    /// Its JWKS document (RFC 7517 §5).
    Url(Endpoint),
    /// Known from the start, as those of an issuer in the same process.
    Fixed(JwkSet),
}

/// Why there is no key.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum NoKey {
    /// The issuer has none of that name and algorithm.
    Unknown,
    /// The issuer does not answer, and nothing fresh enough is known.
    Unreachable,
}

pub(crate) struct Keys {
    source: Option<(Endpoint, Fetcher)>,
    known: RwLock<Known>,
    /// When keys were last fetched or tried to be. Held while they are, and not while keys are looked up.
    tried: Mutex<Option<Instant>>,
}

struct Known {
    keys: JwkSet,
    fetched: Option<Instant>,
}

impl Keys {
    pub(crate) fn new(source: KeySource) -> Result<Self, NoAnswer> {
        let (source, keys) = match source {
            KeySource::Url(endpoint) => (Some((endpoint, Fetcher::new()?)), JwkSet { keys: Vec::new() }),
            KeySource::Fixed(keys) => (None, keys),
        };
        Ok(Self { source, known: RwLock::new(Known { keys, fetched: None }), tried: Mutex::default() })
    }

    /// The key of this name, for this algorithm.
    pub(crate) async fn key(
        &self,
        kid: &str,
        algorithm: SigningAlgorithm,
        now: Instant,
    ) -> Result<DecodingKey, NoKey> {
        if let Some(key) = self.known.read().await.key(self.source.is_some(), kid, algorithm, now) {
            return Ok(key);
        }
        let Some((endpoint, fetcher)) = &self.source else { return Err(NoKey::Unknown) };
        {
            // Whoever waits for this lock finds what its holder fetched; whoever has a known key does not wait.
            let mut tried = self.tried.lock().await;
            if !tried.is_some_and(|tried| is_within(tried, now, FETCH_EVERY)) {
                *tried = Some(now);
                match fetch(endpoint, fetcher).await {
                    Ok(keys) => *self.known.write().await = Known { keys, fetched: Some(now) },
                    Err(error) => tracing::warn!(%error, "the issuer's keys could not be fetched"),
                }
            }
        }
        let known = self.known.read().await;
        let is_fresh = known.is_fresh(now);
        known.key(true, kid, algorithm, now).ok_or(if is_fresh { NoKey::Unknown } else { NoKey::Unreachable })
    }
}

impl Known {
    fn is_fresh(&self, now: Instant) -> bool {
        self.fetched.is_some_and(|fetched| is_within(fetched, now, KEEP))
    }

    fn key(
        &self,
        expires: bool,
        kid: &str,
        algorithm: SigningAlgorithm,
        now: Instant,
    ) -> Option<DecodingKey> {
        if expires && !self.is_fresh(now) {
            return None;
        }
        let mut named = self.keys.keys.iter().filter(|key| key.common.key_id.as_deref() == Some(kid));
        let (Some(key), None) = (named.next(), named.next()) else { return None };
        let is_for_signatures = matches!(key.common.public_key_use, None | Some(PublicKeyUse::Signature));
        if !is_for_signatures || !algorithm.fits(key) {
            return None;
        }
        DecodingKey::from_jwk(key).ok()
    }
}

fn is_within(then: Instant, now: Instant, span: Duration) -> bool {
    u128::from(now.0.abs_diff(then.0)) < span.as_millis()
}

async fn fetch(endpoint: &Endpoint, fetcher: &Fetcher) -> Result<JwkSet, NoAnswer> {
    let (status, document) = json(fetcher.get(endpoint)).await?;
    if status != 200 {
        return Err(NoAnswer(format!("it answered {status}")));
    }
    serde_json::from_value(document)
        .map_err(|error| NoAnswer(format!("its answer is not a key set: {error}")))
}
