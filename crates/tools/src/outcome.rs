//! What came of a call.

use ringfence_core::Refusal;
use serde_json::Value as Json;

/// How a call ended, with what the journal notes of it.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub ended: Ended,
    /// What it used.
    pub used: Used,
}

/// How a call ended.
#[derive(Debug)]
pub enum Ended {
    /// It was done; this is its result.
    Done(Output),
    /// It was not done, or not wholly, and nothing of it remains.
    Failed(Refusal),
    /// It was not done: the user's token lacks these scopes.
    NeedsScopes(Vec<String>, Refusal),
    /// It was not done: the user has to connect an account first, under this link.
    NeedsAccount(String, Refusal),
    /// It may have been done: the connection broke after the request had left.
    Unknown(Refusal),
}

/// A result.
#[derive(Debug)]
pub struct Output {
    /// The result as JSON; for agents, for policies on results, and for programs.
    pub structured: Json,
    /// The same for models that read text; empty means: the JSON itself.
    pub text: Option<String>,
    /// Files that it made, in the order in which they are shown; none for most tools.
    pub artifacts: Vec<Artifact>,
}

/// A file that a call made. All of it comes from the call, its name and type included: none of it is to be believed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Artifact {
    /// Its name.
    pub name: String,
    /// Its media type.
    pub mime_type: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// What a call used.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Used {
    /// Rows returned or changed.
    pub rows: u64,
    /// Bytes of the result as JSON.
    pub bytes: u64,
}

impl Outcome {
    pub(crate) fn done(structured: Json, rows: u64, bytes: u64) -> Self {
        let output = Output { structured, text: None, artifacts: Vec::new() };
        Self { ended: Ended::Done(output), used: Used { rows, bytes } }
    }

    pub(crate) fn failed(refusal: Refusal) -> Self {
        Self { ended: Ended::Failed(refusal), used: Used::default() }
    }

    pub(crate) fn unknown(refusal: Refusal) -> Self {
        Self { ended: Ended::Unknown(refusal), used: Used::default() }
    }
}
