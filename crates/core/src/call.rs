//! A call: one tool with checked arguments, in one run.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Arguments, Digest, Run, SystemName, ToolName};

/// Names one call: a UUID of version 7, so calls sort by the time they came in.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct CallId(pub Uuid);

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A point in time: milliseconds since 1970-01-01T00:00:00Z. Always passed in.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Instant(pub u64);

impl Instant {
    /// Whole seconds since 1970-01-01T00:00:00Z, as in a token's `exp` (RFC 7519 §2).
    #[must_use]
    pub fn seconds(self) -> u64 {
        self.0 / 1000
    }
}

/// One tool with checked arguments, in one run. It can be read by all and changed by none.
#[derive(Clone, Debug)]
pub struct Call {
    id: CallId,
    at: Instant,
    run: Run,
    tool: ToolName,
    system: SystemName,
    arguments: Arguments,
}

impl Call {
    /// Puts a call together from arguments that the action-space has checked.
    #[must_use]
    pub fn new(
        id: CallId,
        at: Instant,
        run: Run,
        tool: ToolName,
        system: SystemName,
        arguments: Arguments,
    ) -> Self {
        Self { id, at, run, tool, system, arguments }
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> CallId {
        self.id
    }

    /// When it came in.
    #[must_use]
    pub fn at(&self) -> Instant {
        self.at
    }

    /// The run it belongs to, with its principal and agent.
    #[must_use]
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// The tool.
    #[must_use]
    pub fn tool(&self) -> &ToolName {
        &self.tool
    }

    /// The system behind the tool.
    #[must_use]
    pub fn system(&self) -> &SystemName {
        &self.system
    }

    /// The checked arguments, those bound to the principal included.
    #[must_use]
    pub fn arguments(&self) -> &Arguments {
        &self.arguments
    }

    /// What an approval is bound to: principal, agent, tool and arguments in canonical form (RFC 8785).
    #[must_use]
    pub fn digest(&self) -> Digest {
        let principal = self.run.principal();
        let head = serde_json::json!([
            principal.issuer(),
            principal.subject(),
            self.run.agent().as_str(),
            self.tool.as_str(),
        ]);
        Digest::of(&[head.to_string().as_bytes(), b"\n", self.arguments.canonical().as_bytes()])
    }
}
