//! What the issuer remembers while it runs. Each part has a bound, and all of it is gone when it ends.

use std::collections::HashMap;

use ringfence_core::Instant;

use super::codes::Codes;
use super::refresh::Families;
use super::register::Registered;

/// Revoked access tokens that are remembered at the most. Each is forgotten once it has expired.
const REVOKED_MAX: usize = 100_000;

#[derive(Default)]
pub(super) struct State {
    pub(super) codes: Codes,
    pub(super) families: Families,
    pub(super) registered: Registered,
    pub(super) revoked: Revoked,
}

/// Access tokens that were revoked one by one, by their `jti`.
#[derive(Default)]
pub(super) struct Revoked(HashMap<String, Instant>);

impl Revoked {
    pub(super) fn contains(&self, id: &str) -> bool {
        self.0.contains_key(id)
    }

    /// Remembers one until it expires. False where no more can be remembered: then it is not revoked.
    pub(super) fn insert(&mut self, id: &str, expires: Instant, now: Instant) -> bool {
        if self.0.len() >= REVOKED_MAX {
            // With the leeway that a check allows, and more.
            self.0.retain(|_, expires| now.0 < expires.0.saturating_add(60_000));
        }
        if self.0.len() >= REVOKED_MAX {
            return false;
        }
        self.0.insert(id.to_owned(), expires);
        true
    }
}
