//! Logins that go on: a refresh token is good once and brings the next one (RFC 9700 §4.14.2). One that comes a second time was
//! stolen, from the client or by it, and ends the login with all that came of it.

use std::collections::BTreeMap;

use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfence_core::{Instant, Secret};
use uuid::Uuid;

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
    /// Makes its refresh tokens: whoever knows the login's name alone cannot.
    key: hmac::Key,
    /// The number of the one that is good.
    current: u64,
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
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new()).ok()?;
        let standing = Standing { family, until: Instant(now.0.saturating_add(LOGIN_MS)), key, current: 0 };
        let token = standing.token(login);
        self.0.insert(login, standing);
        Some(token)
    }

    /// The login that gave this refresh token out, and whether it is the one that is good.
    pub(super) fn of(&self, token: &str, now: Instant) -> Option<(Uuid, &Family, Freshness)> {
        let (login, rest) = token.split_once('.')?;
        let (number, tag) = rest.split_once('.')?;
        let login = Uuid::try_parse(login).ok()?;
        let standing = self.0.get(&login).filter(|standing| now.0 < standing.until.0)?;
        hmac::verify(&standing.key, number.as_bytes(), &URL_SAFE_NO_PAD.decode(tag).ok()?).ok()?;
        let is_current = number == standing.current.to_string();
        let freshness = if is_current { Freshness::Current } else { Freshness::Spent };
        Some((login, &standing.family, freshness))
    }

    /// Spends the good one and gives the next.
    pub(super) fn rotate(&mut self, login: Uuid) -> Option<Secret> {
        let standing = self.0.get_mut(&login)?;
        standing.current = standing.current.checked_add(1)?;
        Some(standing.token(login))
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
    /// It was used before.
    Spent,
}

impl Standing {
    fn token(&self, login: Uuid) -> Secret {
        let number = self.current.to_string();
        let tag = hmac::sign(&self.key, number.as_bytes());
        Secret::new(format!("{}.{number}.{}", login.simple(), URL_SAFE_NO_PAD.encode(tag)))
    }
}
