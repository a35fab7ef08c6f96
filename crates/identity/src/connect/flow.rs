//! What a browser is in the middle of, kept here under the name that its cookie holds. Each step has a name of its own.

use std::collections::HashMap;
use std::sync::Mutex;

use axum::http::{HeaderMap, header};
use ringfence_core::{Digest, Instant, Secret};

use crate::credential::{LINK_SECONDS, Owner};
use crate::login::{Pending, random_text};

/// Browsers that can be in the middle of it at the same time: in all, and for one link.
const FLOWS_MAX: usize = 1_000;
const FLOWS_OF_ONE_MAX: usize = 8;
/// `__Host-`: set by this very host, over TLS (RFC 6265bis §4.1.3.2). On loopback there is no TLS.
const SECURE_COOKIE: &str = "__Host-ringfence-connect";
const PLAIN_COOKIE: &str = "ringfence-connect";

pub(super) struct Flow {
    pub(super) owner: Owner,
    pub(super) stage: Stage,
    until: Instant,
}

pub(super) enum Stage {
    /// At the identity provider.
    LoggingIn {
        /// The ticket of the link.
        ticket: Secret,
        pending: Pending,
    },
    /// At the third party.
    Connecting { pending: Pending },
}

impl Flow {
    pub(super) fn new(owner: Owner, stage: Stage, now: Instant) -> Self {
        Self { owner, stage, until: Instant(now.0.saturating_add(LINK_SECONDS * 1000)) }
    }
}

#[derive(Default)]
pub(super) struct Flows(Mutex<HashMap<Digest, Flow>>);

impl Flows {
    /// Keeps a flow and gives the value of its cookie; `None` where there are too many.
    pub(super) fn keep(&self, flow: Flow, now: Instant) -> Option<String> {
        let mut flows = self.0.lock().ok()?;
        flows.retain(|_, flow| now < flow.until);
        let of_owner = flows.iter().filter(|(_, other)| other.owner == flow.owner);
        let oldest = of_owner.clone().min_by_key(|(_, other)| other.until).map(|(name, _)| *name);
        let is_one_too_many = of_owner.count() >= FLOWS_OF_ONE_MAX;
        if let Some(oldest) = oldest.filter(|_| is_one_too_many) {
            flows.remove(&oldest);
        }
        if flows.len() >= FLOWS_MAX {
            return None;
        }
        let cookie = random_text()?;
        flows.insert(Digest::of(&[cookie.expose().as_bytes()]), flow);
        Some(cookie.expose().to_owned())
    }

    /// Takes the flow of this browser, if it is at this stage. It is good once.
    pub(super) fn take(
        &self,
        headers: &HeaderMap,
        now: Instant,
        fits: impl FnOnce(&Stage) -> bool,
    ) -> Option<Flow> {
        let name = Digest::of(&[presented(headers)?.as_bytes()]);
        let mut flows = self.0.lock().ok()?;
        let fits = flows.get(&name).is_some_and(|flow| now < flow.until && fits(&flow.stage));
        fits.then(|| flows.remove(&name)).flatten()
    }
}

/// The one cookie of a request with either name.
fn presented(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = all.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut ours = pairs.filter(|(name, _)| [SECURE_COOKIE, PLAIN_COOKIE].contains(name));
    match (ours.next(), ours.next()) {
        (Some((_, value)), None) => Some(value),
        _ => None,
    }
}

/// Sent along when the identity provider sends the browser back, hence `Lax`; never to a script.
pub(super) fn cookie(is_secure: bool, value: &str) -> String {
    let (name, secure) = if is_secure { (SECURE_COOKIE, "; Secure") } else { (PLAIN_COOKIE, "") };
    let age = if value.is_empty() { 0 } else { LINK_SECONDS };
    format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={age}{secure}")
}
