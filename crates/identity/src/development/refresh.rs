//! Logins that go on: a refresh token is good once and brings the next one (RFC 9700 §4.14.2). One that comes a second time was
//! stolen, from the client or by it, and ends the login with all that came of it.

use std::collections::BTreeMap;

use ringfence_core::{Digest, Instant, Secret};
use uuid::Uuid;

use super::unguessable;

/// How long a login can go on, in milliseconds: two weeks.
const LOGIN_MS: u64 = 14 * 24 * 3_600_000;
/// Logins at the same time at the most. The oldest makes room.
const FAMILIES_MAX: usize = 10_000;

/// One login: all tokens that came and will come of it.
#[derive(Clone)]
pub(super) struct Family {
    pub(super) client: String,
    pub(super) user: String,
    pub(super) resource: String,
    pub(super) scopes: Vec<String>,
    /// The thumbprint of the key that the client has to hold (RFC 9449 §5).
    pub(super) key: Option<String>,
}

struct Standing {
    family: Family,
    until: Instant,
    /// The one refresh token that is good.
    current: Digest,
}

/// The logins that stand, by their names, which sort by time.
#[derive(Default)]
pub(super) struct Families(BTreeMap<Uuid, Standing>);

impl Families {
    /// Begins a login. Gives its first refresh token; `None` where the machine has no randomness.
    pub(super) fn begin(&mut self, login: Uuid, family: Family, now: Instant) -> Option<Secret> {
        if self.0.len() >= FAMILIES_MAX {
            self.0.retain(|_, standing| now.0 < standing.until.0);
        }
        if self.0.len() >= FAMILIES_MAX {
            self.0.pop_first();
        }
        let token = token(login)?;
        let until = Instant(now.0.saturating_add(LOGIN_MS));
        self.0.insert(login, Standing { family, until, current: digest(token.expose()) });
        Some(token)
    }

    /// The login that this refresh token belongs to, and whether it is the one that is good.
    pub(super) fn of(&self, token: &str, now: Instant) -> Option<(Uuid, &Family, Freshness)> {
        let login = Uuid::try_parse(token.split_once('.')?.0).ok()?;
        let standing = self.0.get(&login).filter(|standing| now.0 < standing.until.0)?;
        let is_current = standing.current == digest(token);
        let freshness = if is_current { Freshness::Current } else { Freshness::Spent };
        Some((login, &standing.family, freshness))
    }

    /// Spends the good one and gives the next.
    pub(super) fn rotate(&mut self, login: Uuid) -> Option<Secret> {
        let standing = self.0.get_mut(&login)?;
        let token = token(login)?;
        standing.current = digest(token.expose());
        Some(token)
    }

    pub(super) fn end(&mut self, login: Uuid) {
        self.0.remove(&login);
    }

    pub(super) fn stands(&self, login: Uuid) -> bool {
        self.0.contains_key(&login)
    }
}

/// Whether a refresh token of a login that stands can be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Freshness {
    Current,
    /// It was used before, or was never given out by a login whose name somebody knows.
    Spent,
}

fn token(login: Uuid) -> Option<Secret> {
    let secret = unguessable()?;
    Some(Secret::new(format!("{}.{}", login.simple(), secret.expose())))
}

/// Compared instead of the token: how far two hashes agree tells nothing of it.
fn digest(token: &str) -> Digest {
    Digest::of(&[token.as_bytes()])
}
