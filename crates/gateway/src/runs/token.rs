//! The token of a run: random, known here by its hash alone, good at the agents' door of this gateway and nowhere else.

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfence_core::{Digest, Secret};

/// What tells a run's token from an issuer's. Not a letter of it can begin a JWT, whose header begins with `{`.
const PREFIX: &str = "rfrun_";

/// A fresh token; `None` where the machine has no randomness.
pub(super) fn fresh() -> Option<Secret> {
    let mut random = zeroize::Zeroizing::new([0u8; 32]);
    rand::fill(&mut *random).ok()?;
    Some(Secret::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(*random))))
}

/// Whether this is the token of a run.
pub(crate) fn is_one(token: &Secret) -> bool {
    token.expose().starts_with(PREFIX)
}

pub(super) fn hash(token: &Secret) -> Digest {
    Digest::of(&[token.expose().as_bytes()])
}
