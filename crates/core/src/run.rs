//! A run: a bounded delegation from a principal to an agent.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{AgentId, Instant, Principal, ToolName};

/// Names a run.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct RunId(String);

impl RunId {
    /// The name made of a fresh UUID. It is shown to people and opens nothing.
    #[must_use]
    pub fn new(fresh: Uuid) -> Self {
        Self(format!("run-{}", fresh.simple()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
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

/// What a run was started with. All of it comes from the application; nothing of it from the engine.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Terms {
    /// The application that started the run; none where a client logged in directly.
    pub application: Option<AgentId>,
    /// The user's request, in the user's own words.
    pub request: Option<String>,
    /// What the run is for.
    pub purpose: Option<String>,
    /// The tools that it may call, where policy lets it; none: all that policy lets it.
    pub tools: Option<BTreeSet<ToolName>>,
    /// How many calls it may make; none: as many as it likes.
    pub calls_max: Option<u64>,
}

/// A bounded delegation: principal, agent, terms, expiry and what it has touched so far.
#[derive(Clone, Debug)]
pub struct Run {
    id: RunId,
    principal: Principal,
    agent: AgentId,
    expires: Instant,
    terms: Arc<Terms>,
    labels: BTreeSet<Label>,
}

impl Run {
    /// A run as it stands now.
    #[must_use]
    pub fn new(
        id: RunId,
        principal: Principal,
        agent: AgentId,
        expires: Instant,
        terms: Arc<Terms>,
        labels: BTreeSet<Label>,
    ) -> Self {
        Self { id, principal, agent, expires, terms, labels }
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

    /// What it was started with.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Whether this tool is among those that it was started for.
    #[must_use]
    pub fn asked_for(&self, tool: &ToolName) -> bool {
        self.terms.tools.as_ref().is_none_or(|tools| tools.contains(tool))
    }

    /// What it has touched.
    #[must_use]
    pub fn labels(&self) -> &BTreeSet<Label> {
        &self.labels
    }
}
