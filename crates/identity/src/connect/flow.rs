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

pub(super) struct Flows {
    /// Whether browsers reach the pages over TLS.
    is_secure: bool,
    kept: Mutex<HashMap<Digest, Flow>>,
}

impl Flows {
    /// For pages that browsers reach under this URL.
    pub(super) fn new(base: &str) -> Self {
        Self { is_secure: base.starts_with("https:"), kept: Mutex::default() }
    }

    /// Keeps a flow and gives the value of its cookie; `None` where there are too many.
    pub(super) fn keep(&self, flow: Flow, now: Instant) -> Option<String> {
        let mut flows = self.kept.lock().ok()?;
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
        let name = Digest::of(&[self.presented(headers)?.as_bytes()]);
        let mut flows = self.kept.lock().ok()?;
        let fits = flows.get(&name).is_some_and(|flow| now < flow.until && fits(&flow.stage));
        fits.then(|| flows.remove(&name)).flatten()
    }
    /// The one cookie of a request that has our name. Over TLS it is one that no other host, and nobody on the way, can have
    /// set: with the plain name somebody else's flow could be put into a victim's browser.
    fn presented<'h>(&self, headers: &'h HeaderMap) -> Option<&'h str> {
        let all = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
        let pairs = all.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let mut ours = pairs.filter(|(name, _)| *name == self.cookie_name());
        match (ours.next(), ours.next()) {
            (Some((_, value)), None) => Some(value),
            _ => None,
        }
    }

    /// Sent along when the identity provider sends the browser back, hence `Lax`; never to a script.
    pub(super) fn cookie(&self, value: &str) -> String {
        let (name, secure) = (self.cookie_name(), if self.is_secure { "; Secure" } else { "" });
        let age = if value.is_empty() { 0 } else { LINK_SECONDS };
        format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={age}{secure}")
    }

    fn cookie_name(&self) -> &'static str {
        if self.is_secure { SECURE_COOKIE } else { PLAIN_COOKIE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Endpoint;
    use crate::credential::ClientSettings;
    use crate::for_tests::{NOW, system};
    use crate::login::{CodeClient, CodeClientSettings};

    fn pending() -> Pending {
        let token_endpoint = Endpoint::new("http://127.0.0.1:1/token").unwrap();
        let client = CodeClientSettings {
            authorization_endpoint: "http://127.0.0.1:1/authorize".into(),
            client: ClientSettings { token_endpoint, client_id: "gateway".into(), client_secret: None },
            issuer: None,
            resource: None,
            scopes: Vec::new(),
        };
        CodeClient::new(client).unwrap().begin("http://127.0.0.1:1/back").unwrap().1
    }

    /// Whether a browser with these cookies is in the middle of the flow that was kept, whose cookie is `{}`.
    fn is_known(base: &str, cookies: &str) -> bool {
        let flows = Flows::new(base);
        let owner = Owner { issuer: "i".into(), subject: "eve".into(), system: system("tickets") };
        let stage = Stage::Connecting { pending: pending() };
        let kept = flows.keep(Flow::new(owner, stage, NOW), NOW).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, cookies.replace("{}", &kept).parse().unwrap());
        flows.take(&headers, NOW, |_| true).is_some()
    }

    #[test]
    fn over_tls_only_a_cookie_that_this_host_set_names_a_flow() {
        let (tls, loopback) = ("https://people.example", "http://127.0.0.1:1");
        let (secure, plain) = ("__Host-ringfence-connect={}", "ringfence-connect={}");
        assert!(is_known(tls, secure), "the control");
        assert!(is_known(loopback, plain), "the control: that is all that the attack needs");
        assert!(!is_known(tls, plain), "anybody on the way, or on a sister host, can set it");
        assert!(!is_known(loopback, secure));
        assert!(is_known(tls, &format!("{plain}x; {secure}")), "nor does one keep the user out");
        assert!(!is_known(tls, &format!("{secure}; {secure}")));
    }
}
