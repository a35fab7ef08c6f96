//! What a probe is, and what may come of it.

use ringfence_sandbox::{Language, Layer};
use serde::{Deserialize, Serialize};

/// What came of a probe on one backend as one user.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "verdict", content = "why", rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// The sandbox held, and the control shows that there was something to hold. With it: what the control could not show.
    Held(String),
    /// This backend refuses to run what could be attacked, which was tried.
    Refused(String),
    /// The attack works.
    Hole(String),
    /// It says nothing here, for this reason.
    NotApplicable(String),
    /// The attack did not work where its wall was missing: whether the sandbox held is not known.
    ControlFailed(String),
    /// Listed, and not written yet.
    NotYet(String),
}

/// One line of the report.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) title: String,
    /// Backend and way of starting.
    pub(crate) target: String,
    pub(crate) user: String,
    #[serde(flatten)]
    pub(crate) verdict: Verdict,
    pub(crate) milliseconds: u64,
}

/// How it is shown that a probe's attack works where nothing is in its way.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Control {
    /// In a sandbox without these layers.
    Without(&'static [Layer]),
    /// In a sandbox without these layers, with all rights in namespaces that the program makes there.
    WithRights(&'static [Layer]),
    /// Outside, as the gateway's own user: for programs that harm nothing.
    Outside,
    /// Outside, as root where the stage is root; an ordinary user cannot do it anywhere.
    OutsideAsRoot,
    /// Outside, as an ordinary user.
    OutsideAsUser,
    /// There is none, for this reason.
    None(&'static str),
}

/// A program that says `reached WHAT` for each thing that it could do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) language: Language,
    pub(crate) program: &'static str,
    pub(crate) control: Control,
    /// Tried inside a network of traps alone.
    pub(crate) needs_network: bool,
}

/// Something that `ATTACKS.md` lists and that this list does not try.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Untried {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) verdict: fn(String) -> Verdict,
    pub(crate) why: &'static str,
}
