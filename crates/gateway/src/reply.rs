//! What the agent gets back.

use ringfence_core::Refusal;
use serde_json::{Value as Json, json};

use crate::Handed;

/// What came of a call, for the agent.
#[derive(Debug)]
pub enum Reply {
    /// It was done.
    Done {
        /// The result as data.
        structured: Json,
        /// The result as text.
        text: String,
        /// Files that the call made, as far as they are handed over.
        artifacts: Vec<Handed>,
    },
    /// It may not, or could not, be done.
    Refused(Refusal),
    /// The user has to connect an account first.
    NeedsAccount {
        /// Where.
        url: String,
        /// The refusal, as for any other reason.
        refusal: Refusal,
    },
    /// The token lacks scopes.
    NeedsScope {
        /// The scopes.
        scopes: Vec<String>,
        /// The refusal, as for any other reason.
        refusal: Refusal,
    },
}

impl Reply {
    /// The refusal as data: `{"refusal": {…}}`.
    #[must_use]
    pub fn refusal_json(refusal: &Refusal) -> Json {
        json!({ "refusal": refusal })
    }
}
