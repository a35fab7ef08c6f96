//! Who may make a proof. Each authority is a value that cannot be copied; the wiring makes all three once and
//! hands each to the one crate that needs it. `cargo xtask layers` checks who names them.

/// May turn a call into a [`Permit`](crate::Permit). Held by the policy engine and by approvals.
pub struct Decider(());

/// May turn a permit into a [`Ticket`](crate::Ticket). Held by the journal.
pub struct Recorder(());

/// May turn verified claims into a [`Principal`](crate::Principal). Held by the token check.
pub struct Verifier(());

/// The three authorities of one gateway.
pub struct Authorities {
    /// For the policy engine.
    pub decider: Decider,
    /// For the journal.
    pub recorder: Recorder,
    /// For the token check.
    pub verifier: Verifier,
}

impl Authorities {
    /// Makes the authorities of one gateway. Named by the wiring and by tests, nowhere else.
    #[must_use]
    pub fn establish() -> Self {
        Self { decider: Decider(()), recorder: Recorder(()), verifier: Verifier(()) }
    }
}
