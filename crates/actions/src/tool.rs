//! A tool: one declared, typed operation on one system.

use ringfence_core::{Effect, Label, ParamName, Place, SystemName, ToolName};

use crate::{Operation, Param, Source};

/// What kind of system is behind a tool; it decides what a tool file may say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SystemKind {
    /// An SQLite database.
    Sqlite,
    /// A PostgreSQL database.
    Postgres,
    /// An HTTP API at a fixed origin.
    Http,
    /// A sandbox that runs programs.
    Sandbox,
}

impl SystemKind {
    /// The word in `ringfence.toml`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
            Self::Http => "http",
            Self::Sandbox => "sandbox",
        }
    }
}

/// How much one call may take and give.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Rows in the result; the rest is cut and said to be cut.
    pub rows: u64,
    /// Wall time.
    pub seconds: u64,
    /// Bytes of the result as JSON.
    pub bytes: u64,
    /// Rows that one call of a tool that writes may change; a call that would change more changes none.
    pub changed_rows: u64,
    /// Where it is set: rows that the statement itself must change, or the call changes none.
    pub expect_rows: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { rows: 100, seconds: 10, bytes: 1 << 20, changed_rows: 1, expect_rows: None }
    }
}

/// One declared, typed operation on one system. Read from a tool file and checked as a whole; it has no other way in.
#[derive(Clone, Debug)]
pub struct Tool {
    pub(crate) name: ToolName,
    pub(crate) system: SystemName,
    pub(crate) effect: Effect,
    pub(crate) external: bool,
    pub(crate) yields: Vec<Label>,
    pub(crate) describe: String,
    pub(crate) params: Vec<Param>,
    pub(crate) operation: Operation,
    pub(crate) limits: Limits,
    pub(crate) scope: Option<String>,
    pub(crate) scopes: Option<Vec<String>>,
    pub(crate) place: Place,
}

impl Tool {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &ToolName {
        &self.name
    }

    /// The system it works on.
    #[must_use]
    pub fn system(&self) -> &SystemName {
        &self.system
    }

    /// What it does to that system.
    #[must_use]
    pub fn effect(&self) -> Effect {
        self.effect
    }

    /// Whether its arguments leave the organisation.
    #[must_use]
    pub fn external(&self) -> bool {
        self.external
    }

    /// The labels that its result puts on the run.
    #[must_use]
    pub fn yields(&self) -> &[Label] {
        &self.yields
    }

    /// What the model reads about it.
    #[must_use]
    pub fn describe(&self) -> &str {
        &self.describe
    }

    /// Its parameters, those bound to the principal included.
    #[must_use]
    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// What it does.
    #[must_use]
    pub fn operation(&self) -> &Operation {
        &self.operation
    }

    /// Its limits.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The OAuth scope that the agent's token needs for it, where it names one.
    #[must_use]
    pub fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }

    /// The OAuth scopes of the credential that its system is shown; none where its system has them alone.
    #[must_use]
    pub fn scopes(&self) -> Option<&[String]> {
        self.scopes.as_deref()
    }

    /// Where it is declared.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Whether the parameter takes its value from the principal, so that no agent may supply it.
    #[must_use]
    pub fn binds(&self, param: &str) -> bool {
        self.param(param).is_some_and(|param| matches!(param.source(), Source::Principal(_)))
    }

    pub(crate) fn param(&self, name: &str) -> Option<&Param> {
        self.params.iter().find(|param| param.name().as_str() == name)
    }

    /// The names of its parameters.
    pub fn param_names(&self) -> impl Iterator<Item = &ParamName> {
        self.params.iter().map(Param::name)
    }
}
