//! The words and the proofs of Ringfence: what a principal, a run, a call, a decision and a refusal are,
//! and which of them proves what. No I/O, no clock, no runtime: time, randomness and identifiers are passed in.

mod arguments;
mod authority;
mod call;
mod decision;
mod digest;
mod names;
mod principal;
mod problem;
mod proof;
mod refusal;
mod run;
mod secret;

pub use arguments::{Arguments, Decimal, Value};
pub use authority::{Authorities, Decider, Recorder, Verifier};
pub use call::{Call, CallId, Instant};
pub use decision::{Decision, Rule, Verdict};
pub use digest::Digest;
pub use names::{AgentId, BadName, GroupName, ParamName, SystemName, ToolName};
pub use principal::{Claims, Principal};
pub use problem::{Level, Place, Problem};
pub use proof::{EntryNumber, Permit, Ticket};
pub use refusal::{Field, Refusal, RefusalClass, Retry, Wall};
pub use run::{Label, Run, RunId, Terms};
pub use secret::Secret;

/// What a tool does to the system behind it.
///
/// What nobody classified is [`Effect::Irreversible`].
#[derive(
    Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, serde::Deserialize, serde::Serialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Changes nothing.
    Read,
    /// Changes something that can be changed back.
    Write,
    /// Changes something for good, or nobody said otherwise.
    #[default]
    Irreversible,
}

impl Effect {
    /// The word that is used in tool files, policies, the journal and on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Irreversible => "irreversible",
        }
    }
}

impl std::fmt::Display for Effect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
