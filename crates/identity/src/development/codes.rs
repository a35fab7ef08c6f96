//! Authorization codes (RFC 6749 §4.1.2): good for a minute, once, and for the request that they answer.

use std::collections::BTreeMap;

use ringfence_core::{Digest, Instant, Secret};
use uuid::Uuid;

use super::unguessable;

/// How long a code is good, in milliseconds.
const GOOD_MS: u64 = 60_000;
/// How long it is known: one that comes a second time tells that it was stolen.
const KNOWN_MS: u64 = 600_000;
/// Codes that are known at the same time at the most.
const CODES_MAX: usize = 10_000;

/// What a code stands for.
#[derive(Clone)]
pub(super) struct Code {
    pub(super) client: String,
    pub(super) redirect_uri: String,
    /// `code_challenge`: the hash of what only the client knows (RFC 7636 §4.2).
    pub(super) challenge: String,
    /// The thumbprint of the key that the client said it holds (`dpop_jkt`, RFC 9449 §10).
    pub(super) key: Option<String>,
    pub(super) user: String,
    pub(super) resource: String,
    pub(super) scopes: Vec<String>,
}

/// What a code is worth that a client shows.
pub(super) enum Shown {
    /// It was never given out, or its time is over.
    Nothing,
    /// It was shown before. The login that it led to has to end (RFC 6749 §4.1.2, RFC 9700 §2.1.1).
    Again(Uuid),
    /// It is shown for the first time, whatever becomes of it now.
    First(Code),
}

#[derive(Default)]
pub(super) struct Codes(BTreeMap<Digest, Known>);

struct Known {
    code: Code,
    issued: Instant,
    led_to: Option<Uuid>,
}

impl Codes {
    /// A code for this; `None` where no more can be known, or the machine has no randomness.
    pub(super) fn issue(&mut self, code: Code, now: Instant) -> Option<Secret> {
        if self.0.len() >= CODES_MAX {
            self.0.retain(|_, known| now.0 < known.issued.0.saturating_add(KNOWN_MS));
        }
        if self.0.len() >= CODES_MAX {
            return None;
        }
        let text = unguessable()?;
        self.0.insert(digest(text.expose()), Known { code, issued: now, led_to: None });
        Some(text)
    }

    /// Takes a code that is shown. The login that it may lead to has this name.
    pub(super) fn show(&mut self, text: &str, login: Uuid, now: Instant) -> Shown {
        let Some(known) = self.0.get_mut(&digest(text)) else { return Shown::Nothing };
        if let Some(login) = known.led_to {
            return Shown::Again(login);
        }
        known.led_to = Some(login);
        if known.issued.0.saturating_add(GOOD_MS) <= now.0 {
            return Shown::Nothing;
        }
        Shown::First(known.code.clone())
    }
}

fn digest(text: &str) -> Digest {
    Digest::of(&[text.as_bytes()])
}
