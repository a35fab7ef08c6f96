//! A decision, with the rules that made it.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Call, GroupName, Permit};

/// A policy, named by where it stands: `metrics.cedar:4`.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Rule(String);

impl Rule {
    /// The policy that begins at this line of this file.
    #[must_use]
    pub fn at(file: &str, line: usize) -> Self {
        Self(format!("{file}:{line}"))
    }

    /// The place as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What policy says of a call, and the call itself: inside a permit where it may run, handed back where it may not.
#[must_use]
pub enum Decision {
    /// It may run.
    Allow(Permit),
    /// It may run once every one of these groups has approved it.
    Ask {
        /// The call that waits.
        call: Call,
        /// The groups whose approval is missing.
        approvers: BTreeSet<GroupName>,
        /// The forbids that ask.
        rules: Vec<Rule>,
    },
    /// It may not run.
    Deny {
        /// The call that was refused.
        call: Call,
        /// The forbids that decided; empty where no rule allowed it.
        rules: Vec<Rule>,
    },
}

/// The word for a decision in the journal, in logs and on the wire.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It may run.
    Allow,
    /// A human has to say yes first.
    Ask,
    /// It may not run.
    Deny,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Ask => "ask",
            Self::Deny => "deny",
        })
    }
}
