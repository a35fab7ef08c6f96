//! Who calls, and what was asked.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::http::{HeaderMap, header};
use ringfence_core::{Label, Run, RunId, Secret, Terms};
use ringfence_identity::{Identified, TokenRefused, bearer};
use serde_json::{Map, Value as Json};

/// A verified caller: the principal and agent of one token, in one run.
#[derive(Clone)]
pub struct Caller {
    pub(crate) identified: Arc<Identified>,
    /// The user's token, for exchange alone; none where the gateway that was given it is gone.
    pub(crate) subject_token: Option<Secret>,
    pub(crate) run: RunId,
    pub(crate) terms: Arc<Terms>,
}

impl Caller {
    /// The run, with what it has touched so far.
    pub(crate) fn run(&self, labels: BTreeSet<Label>) -> Run {
        let Identified { principal, agent, expires, .. } = &*self.identified;
        let (id, terms) = (self.run.clone(), self.terms.clone());
        Run::new(id, principal.clone(), agent.clone(), *expires, terms, labels)
    }

    /// Whether an application started the run. What it may is then what the application asked for, and no scope opens the door.
    pub(crate) fn is_started(&self) -> bool {
        self.terms.application.is_some()
    }
}

/// A call as the agent sent it, before anything of it was checked.
pub struct Asked {
    /// The name of the tool.
    pub tool: String,
    /// Its arguments, read by a reader that refuses duplicate keys.
    pub arguments: Map<String, Json>,
}

/// How often an issuer that did not answer is asked again.
const UNVERIFIABLE_RETRY_SECONDS: u64 = 10;

/// Why nobody could be identified.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotIdentified {
    /// There is no token, or there are several.
    #[error("send exactly one `Authorization: Bearer TOKEN` header")]
    NoToken,
    /// The header holds no bearer token.
    #[error("send `Authorization: Bearer TOKEN`")]
    Malformed,
    /// The token was refused.
    #[error(transparent)]
    Refused(TokenRefused),
    /// No run has this token.
    #[error("this is no token of a run; the application starts one")]
    RunUnknown,
    /// The run is over.
    #[error("the run has ended; the application starts another one")]
    RunEnded,
    /// What was revoked is not made anew before a fresh login.
    #[error("access was revoked; log in again")]
    LoginNeeded,
    /// It cannot be told at the moment.
    #[error("it cannot be told at the moment who this is; try again later")]
    Unavailable,
}

impl NotIdentified {
    /// The error code of RFC 6750 §3.1; none where no token was sent.
    #[must_use]
    pub fn error(self) -> Option<&'static str> {
        match self {
            Self::NoToken => None,
            Self::Malformed => Some("invalid_request"),
            Self::Refused(_) | Self::RunUnknown | Self::RunEnded | Self::LoginNeeded | Self::Unavailable => {
                Some("invalid_token")
            }
        }
    }

    /// After how many seconds the same token may be sent again, where it is not the token that is at fault.
    #[must_use]
    pub fn retry_after_seconds(self) -> Option<u64> {
        match self {
            Self::Unavailable | Self::Refused(TokenRefused::Unavailable) => Some(UNVERIFIABLE_RETRY_SECONDS),
            _ => None,
        }
    }
}

/// The one token of a request.
pub(crate) fn presented(headers: &HeaderMap) -> Result<Secret, NotIdentified> {
    let mut presented = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(only), None) = (presented.next(), presented.next()) else { return Err(NotIdentified::NoToken) };
    let text = only.to_str().map_err(|_| NotIdentified::Malformed)?;
    bearer(text).map_err(|_| NotIdentified::Malformed)
}
