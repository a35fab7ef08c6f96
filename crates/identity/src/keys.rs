//! An issuer's keys, by `kid`: fetched when needed, kept for a while, fetched anew at most so often.
//!
//! While the issuer answers, a key that it withdrew stops within the refresh time. While it does not, the keys that are known
//! go on for a bounded time, and one that is not known stays so.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, KeyOperations, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey};
use ringfence_core::Instant;
use tokio::sync::Mutex;

use crate::discovery::Source;
use crate::fetch::{Endpoint, NoAnswer};

/// How often keys are fetched at the most, whatever `kid`s tokens name.
const FETCH_EVERY_SECONDS: u64 = 10;
/// Keys of one issuer that are looked at.
pub(crate) const KEYS_MAX: usize = 100;

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

    /// The one that a published key is for; none where it is not for signatures that are accepted here.
    fn of_key(key: &Jwk) -> Option<Self> {
        let (fits, named) = match &key.algorithm {
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
                (Self::Es256, KeyAlgorithm::ES256)
            }
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                (Self::EdDsa, KeyAlgorithm::EdDSA)
            }
            AlgorithmParameters::RSA(_) => (Self::Rs256, KeyAlgorithm::RS256),
            _ => return None,
        };
        let common = &key.common;
        let is_for_signatures = matches!(common.public_key_use, None | Some(PublicKeyUse::Signature));
        let verifies = common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
        let is_for_it = common.key_algorithm.is_none_or(|algorithm| algorithm == named);
        (is_for_signatures && verifies && is_for_it).then_some(fits)
    }
}

/// Where an issuer's keys come from.
pub enum KeySource {
    /// Its JWKS document (RFC 7517 §5).
    Url(Endpoint),
    /// The document that its metadata names (RFC 8414 §3, OpenID Connect Discovery §4); this is the issuer itself.
    Discovered(Endpoint),
    /// Known from the start, as those of an issuer in the same process.
    Fixed(JwkSet),
}

/// How long keys are used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KeyTimes {
    /// A key that the issuer withdraws stops working within this time while it answers, in seconds.
    pub refresh_seconds: u64,
    /// Known keys go on for this time while the issuer does not answer, in seconds.
    pub stale_max_seconds: u64,
}

impl Default for KeyTimes {
    fn default() -> Self {
        Self { refresh_seconds: 600, stale_max_seconds: 86_400 }
    }
}

/// Why there is no key.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum NoKey {
    /// The issuer has none of that name and algorithm.
    Unknown,
    /// The issuer does not answer, and nothing fresh enough is known.
    Unreachable,
}

/// The keys of one issuer. Cheap to clone; all clones are the same keys.
#[derive(Clone)]
pub(crate) struct Keys(Arc<Shared>);

struct Shared {
    source: Option<Source>,
    times: KeyTimes,
    known: RwLock<Arc<Known>>,
    /// When keys were last fetched or tried to be. Held while they are, and not while keys are looked up.
    tried: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Known {
    /// By name; one that stands twice names no key.
    keys: HashMap<String, Option<(SigningAlgorithm, Arc<DecodingKey>)>>,
    fetched: Option<Instant>,
    /// Whether the last try to fetch them failed.
    is_outage: bool,
}

/// What is known of a key, and how fresh that is.
enum Look {
    Good(Arc<DecodingKey>),
    /// Good, and due to be fetched anew before it has to be waited for.
    Ageing(Arc<DecodingKey>),
    /// Only the issuer can tell.
    Ask,
}

impl Keys {
    pub(crate) fn new(source: KeySource, issuer: &str, times: KeyTimes) -> Result<Self, NoAnswer> {
        let (source, known) = match source {
            KeySource::Url(endpoint) => (Some(Source::jwks(endpoint, issuer)?), Known::default()),
            KeySource::Discovered(endpoint) => (Some(Source::metadata(&endpoint, issuer)?), Known::default()),
            KeySource::Fixed(set) => (None, Known { keys: by_name(set.keys), ..Known::default() }),
        };
        let known = RwLock::new(Arc::new(known));
        Ok(Self(Arc::new(Shared { source, times, known, tried: Mutex::default() })))
    }

    /// The key of this name, for this algorithm.
    pub(crate) async fn key(
        &self,
        kid: &str,
        algorithm: SigningAlgorithm,
        now: Instant,
    ) -> Result<Arc<DecodingKey>, NoKey> {
        let shared = &self.0;
        match shared.look(kid, algorithm, now) {
            Look::Good(key) => return Ok(key),
            Look::Ageing(key) => {
                self.refresh_beside(now);
                return Ok(key);
            }
            Look::Ask => {}
        }
        if shared.source.is_none() {
            return Err(NoKey::Unknown);
        }
        shared.fetch(now).await;
        shared.after_asking(kid, algorithm, now)
    }

    /// Fetches the keys while calls go on with those that are known. A task of its own: bounded, since it waits on nothing but
    /// one fetch, of which there is one at a time.
    fn refresh_beside(&self, now: Instant) {
        let shared = self.0.clone();
        if shared.tried.try_lock().is_ok_and(|tried| is_due(*tried, now)) {
            let refreshing = tokio::spawn(async move { shared.fetch(now).await });
            drop(refreshing);
        }
    }
}

impl Shared {
    fn known(&self) -> Arc<Known> {
        // It is replaced as a whole, so a panic leaves it whole.
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn look(&self, kid: &str, algorithm: SigningAlgorithm, now: Instant) -> Look {
        let known = self.known();
        let Some(key) = known.key(kid, algorithm) else { return Look::Ask };
        if self.source.is_none() {
            return Look::Good(key);
        }
        match known.age_seconds(now) {
            Some(age) if !known.is_outage && age < self.times.refresh_seconds / 2 => Look::Good(key),
            Some(age) if age < self.times.refresh_seconds => Look::Ageing(key),
            // Not answered before: nobody waits again for each call.
            Some(age) if known.is_outage && age < self.times.stale_max_seconds => Look::Ageing(key),
            _ => Look::Ask,
        }
    }

    fn after_asking(
        &self,
        kid: &str,
        algorithm: SigningAlgorithm,
        now: Instant,
    ) -> Result<Arc<DecodingKey>, NoKey> {
        let known = self.known();
        let usable = if known.is_outage { self.times.stale_max_seconds } else { self.times.refresh_seconds };
        if known.age_seconds(now).is_none_or(|age| age >= usable) {
            return Err(NoKey::Unreachable);
        }
        let missing = if known.is_outage { NoKey::Unreachable } else { NoKey::Unknown };
        known.key(kid, algorithm).ok_or(missing)
    }

    /// Fetches the keys, where that is due. Whoever waits for the lock finds what its holder fetched.
    async fn fetch(&self, now: Instant) {
        let Some(source) = &self.source else { return };
        let mut tried = self.tried.lock().await;
        if !is_due(*tried, now) {
            return;
        }
        *tried = Some(now);
        let known = match source.fetch().await {
            Ok(keys) => Known { keys: by_name(keys), fetched: Some(now), is_outage: false },
            Err(error) => {
                let before = self.known();
                let until = self.times.stale_max_seconds;
                tracing::error!(
                    %error, issuer = source.issuer(), keys = before.keys.len(),
                    "the issuer's keys could not be fetched; known ones are used for up to {until} s"
                );
                Known { keys: before.keys.clone(), fetched: before.fetched, is_outage: true }
            }
        };
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
    }
}

impl Known {
    fn key(&self, kid: &str, algorithm: SigningAlgorithm) -> Option<Arc<DecodingKey>> {
        let (fits, key) = self.keys.get(kid)?.as_ref()?;
        (*fits == algorithm).then(|| key.clone())
    }

    fn age_seconds(&self, now: Instant) -> Option<u64> {
        // A clock that was set back makes keys no younger.
        self.fetched.map(|fetched| now.0.abs_diff(fetched.0) / 1000)
    }
}

/// The keys that are for signatures, ready to verify with.
fn by_name(keys: Vec<Jwk>) -> HashMap<String, Option<(SigningAlgorithm, Arc<DecodingKey>)>> {
    let mut named = HashMap::new();
    for key in keys {
        let Some(name) = key.common.key_id.clone() else { continue };
        let ready = || Some((SigningAlgorithm::of_key(&key)?, Arc::new(DecodingKey::from_jwk(&key).ok()?)));
        let is_twice = named.contains_key(&name);
        named.insert(name, if is_twice { None } else { ready() });
    }
    named
}

fn is_due(tried: Option<Instant>, now: Instant) -> bool {
    tried.is_none_or(|tried| now.0.abs_diff(tried.0) >= FETCH_EVERY_SECONDS * 1000)
}
