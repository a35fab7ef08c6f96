//! A run: a bounded delegation from a principal to an agent.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{AgentId, Digest, Instant, Principal};

/// Names a run.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct RunId(String);

impl RunId {
    /// The run that (issuer, subject, client) share when no application started one: the same three give the same run,
    /// so it outlives a reconnect.
    #[must_use]
    pub fn implicit(principal: &Principal, agent: &AgentId) -> Self {
        let owner = serde_json::json!([principal.issuer(), principal.subject(), agent.as_str()]);
        let digest = Digest::of(&[owner.to_string().as_bytes()]).to_string();
        Self(format!("run-{}", digest.get(..16).unwrap_or(&digest)))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a run has touched. Labels only grow.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Label {
    /// Content that an outsider may have written.
    Untrusted,
    /// Data that must not leave.
    Sensitive,
}

impl Label {
    /// The word in tool files, policies and the journal.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Untrusted => "untrusted",
            Self::Sensitive => "sensitive",
        }
    }
}

/// A bounded delegation: principal, agent, expiry and what it has touched so far.
#[derive(Clone, Debug)]
pub struct Run {
    id: RunId,
    principal: Principal,
    agent: AgentId,
    expires: Instant,
    labels: BTreeSet<Label>,
}

impl Run {
    /// The implicit run of a principal and an agent, until its token expires.
    #[must_use]
    pub fn implicit(principal: Principal, agent: AgentId, expires: Instant, labels: BTreeSet<Label>) -> Self {
        Self { id: RunId::implicit(&principal, &agent), principal, agent, expires, labels }
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &RunId {
        &self.id
    }

    /// In whose name it acts.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The OAuth client that acts.
    #[must_use]
    pub fn agent(&self) -> &AgentId {
        &self.agent
    }

    /// From then on no call starts.
    #[must_use]
    pub fn expires(&self) -> Instant {
        self.expires
    }

    /// What it has touched.
    #[must_use]
    pub fn labels(&self) -> &BTreeSet<Label> {
        &self.labels
    }
}
