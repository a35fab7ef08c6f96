//! A refusal: what the agent is told when it may not. Data, not prose; never whether a hidden thing exists.

use std::fmt;

use serde::Serialize;

use crate::{Rule, ToolName};

/// What kind of refusal it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalClass {
    /// Not in this action-space, whether or not it exists elsewhere.
    UnknownTool,
    /// An argument breaks the tool's schema.
    Arguments,
    /// Policy says no.
    Policy,
    /// A human has to say yes first.
    Approval,
    /// A limit of the run, tool or gateway is used up.
    Budget,
    /// The system behind the tool said no, or did not answer.
    Upstream,
    /// The gateway could not decide, record or verify.
    Internal,
}

/// When the same thing may be tried again.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// It will never work.
    Never,
    /// It may work later, unchanged.
    Later,
    /// It may work with other arguments.
    WithChange,
    /// It may work once a human has approved it.
    WithApproval,
}

/// The part of the gateway that stopped a call: the word in the journal, in `demo` and in metrics.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wall {
    /// The token check.
    Identity,
    /// The action-space: what is not in it does not exist, and its parameters are typed.
    ActionSpace,
    /// The policies.
    Policy,
    /// The need for a human.
    Approval,
    /// The limits.
    Limits,
    /// The journal: what cannot be recorded does not run.
    Journal,
    /// The system behind the tool, which enforces the user's own rights.
    System,
    /// The sandbox.
    Sandbox,
}

/// What is wrong with one argument.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Field {
    /// The argument, as the agent spelled it (cut to 64 characters).
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
    /// What would be allowed.
    pub allowed: String,
}

/// What the agent is told when it may not.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Refusal {
    /// A stable code, such as `unknown_tool` or `argument_invalid`.
    pub code: &'static str,
    /// The class of the code.
    pub class: RefusalClass,
    /// The wall that stopped the call.
    pub wall: Wall,
    /// One sentence: what was refused and what to do.
    pub message: String,
    /// The rules that decided, where a policy did.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// One entry an argument that is wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<Field>,
    /// What would be allowed, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed: Option<String>,
    /// The permitted tools whose names are nearest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nearest: Vec<ToolName>,
    /// When to try again.
    pub retry: Retry,
}

impl Refusal {
    /// A refusal with nothing but its code, class, wall, sentence and retry; the rest is filled in by field.
    #[must_use]
    pub fn new(
        code: &'static str,
        class: RefusalClass,
        wall: Wall,
        retry: Retry,
        message: impl Into<String>,
    ) -> Self {
        Self {
            code,
            class,
            wall,
            message: message.into(),
            rules: Vec::new(),
            fields: Vec::new(),
            allowed: None,
            nearest: Vec::new(),
            retry,
        }
    }

    /// The gateway could not decide, record or verify: the agent learns no more than that; the log has the cause.
    #[must_use]
    pub fn internal(code: &'static str, wall: Wall) -> Self {
        let message =
            "the gateway could not carry out this call safely, so it did not; the operator's log says why";
        Self::new(code, RefusalClass::Internal, wall, Retry::Later, message)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}
