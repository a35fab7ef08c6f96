//! The two proofs that stand between a call and its effect: it was allowed, and it was recorded.

use crate::{Call, Decider, Recorder, Rule};

/// Proof that policy, or a human, allowed exactly this call. Cannot be cloned; only `decide` and an approval make one.
#[must_use]
pub struct Permit {
    call: Call,
    rules: Vec<Rule>,
}

impl Permit {
    /// Allows `call`, because of `rules`.
    pub fn grant(_by: &Decider, call: Call, rules: Vec<Rule>) -> Self {
        Self { call, rules }
    }

    /// The call that was allowed.
    #[must_use]
    pub fn call(&self) -> &Call {
        &self.call
    }

    /// The rules that allowed it.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

/// Where an entry stands in the journal, counted from 1.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, serde::Deserialize, serde::Serialize)]
#[serde(transparent)]
pub struct EntryNumber(pub u64);

/// Proof that an allowed call is in the journal. Cannot be cloned; only the journal makes one, and running the call consumes it.
#[must_use]
pub struct Ticket {
    call: Call,
    entry: EntryNumber,
}

impl Ticket {
    /// Turns a permit into a ticket once its intent stands at `entry`.
    pub fn issue(_by: &Recorder, permit: Permit, entry: EntryNumber) -> Self {
        Self { call: permit.call, entry }
    }

    /// The call that was allowed and recorded.
    #[must_use]
    pub fn call(&self) -> &Call {
        &self.call
    }

    /// Where its intent stands.
    #[must_use]
    pub fn entry(&self) -> EntryNumber {
        self.entry
    }
}
