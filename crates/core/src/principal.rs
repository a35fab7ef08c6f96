//! Who a call is made for: the human or service that the identity provider verified.

use std::collections::BTreeSet;

use crate::{GroupName, Verifier};

/// The claims of a verified token, as the issuer wrote them.
pub type Claims = serde_json::Map<String, serde_json::Value>;

/// The human (or service) verified by the identity provider. Only the token check makes one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Principal {
    issuer: String,
    subject: String,
    groups: BTreeSet<GroupName>,
    claims: Claims,
}

impl Principal {
    /// Takes the claims of a token whose signature, issuer, audience and times were checked.
    #[must_use]
    pub fn verified(
        _by: &Verifier,
        issuer: String,
        subject: String,
        groups: BTreeSet<GroupName>,
        claims: Claims,
    ) -> Self {
        Self { issuer, subject, groups, claims }
    }

    /// The issuer (`iss`) that vouches for the subject.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The subject (`sub`), unique within its issuer.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The groups that the issuer says the subject belongs to.
    #[must_use]
    pub fn groups(&self) -> &BTreeSet<GroupName> {
        &self.groups
    }

    /// All claims of the token, for parameters that are bound to one (`from = "principal.claims.tenant"`).
    #[must_use]
    pub fn claims(&self) -> &Claims {
        &self.claims
    }
}
