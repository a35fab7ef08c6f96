//! Tokens whose signature was verified before, by their digest, so that an agent's next call does not pay for it again.
//!
//! Nothing is believed longer for it: the key that verified a token must still be its issuer's, and the token's own end is the
//! end of it here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use jsonwebtoken::DecodingKey;
use ringfence_core::{Digest, Instant};

use crate::{SigningAlgorithm, VerifiedToken};

/// Tokens in one generation; there are two.
const GENERATION_MAX: usize = 10_000;

/// A verified token, and the key that did it.
#[derive(Clone)]
pub(crate) struct Known {
    pub(crate) token: Arc<VerifiedToken>,
    pub(crate) kid: String,
    pub(crate) algorithm: SigningAlgorithm,
    pub(crate) key: Arc<DecodingKey>,
}

/// The tokens of one issuer for one audience. When the young ones are many, the old ones go.
#[derive(Default)]
pub(crate) struct Verified(Mutex<Generations>);

#[derive(Default)]
struct Generations {
    young: HashMap<Digest, Known>,
    old: HashMap<Digest, Known>,
}

impl Verified {
    /// What is known of the token with this digest, before its end.
    pub(crate) fn find(&self, name: &Digest, now: Instant) -> Option<Known> {
        let mut generations = self.0.lock().ok()?;
        if let Some(known) = generations.old.remove(name) {
            generations.insert(*name, known);
        }
        generations.young.get(name).filter(|known| now.0 < known.token.expires.0).cloned()
    }

    pub(crate) fn keep(&self, name: Digest, known: Known) {
        if let Ok(mut generations) = self.0.lock() {
            generations.insert(name, known);
        }
    }
}

impl Generations {
    fn insert(&mut self, name: Digest, known: Known) {
        if self.young.len() >= GENERATION_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(name, known);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_is_kept_is_bounded_and_what_is_used_stays() {
        let verified = Verified::default();
        let known = |expires: u64| Known {
            token: Arc::new(VerifiedToken {
                subject: "bob".into(),
                client: "cli".into(),
                scopes: BTreeSet::new(),
                expires: Instant(expires),
                claims: ringfence_core::Claims::new(),
            }),
            kid: "1".into(),
            algorithm: SigningAlgorithm::Es256,
            key: Arc::new(DecodingKey::from_secret(b"")),
        };
        let name = |number: usize| Digest::of(&[&number.to_be_bytes()]);
        verified.keep(name(0), known(1000));
        for number in 1..5 * GENERATION_MAX {
            assert!(verified.find(&name(0), Instant(999)).is_some(), "used all the time");
            verified.keep(name(number), known(1000));
        }
        assert!(verified.find(&name(1), Instant(0)).is_none(), "made room");
        assert!(verified.find(&name(0), Instant(1000)).is_none(), "past its end");
        let generations = verified.0.lock().unwrap();
        assert!(generations.young.len() + generations.old.len() <= 2 * GENERATION_MAX);
    }
}
