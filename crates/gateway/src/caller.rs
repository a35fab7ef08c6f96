//! Who calls, and what was asked.

use std::sync::Arc;

use axum::http::{HeaderMap, header};
use ringfence_core::{RunId, Secret};
use ringfence_identity::{Identified, TokenRefused, bearer};
use serde_json::{Map, Value as Json};

/// A verified caller: the principal and agent of one token, and the token itself for exchange alone.
#[derive(Clone)]
pub struct Caller {
    pub(crate) identified: Arc<Identified>,
    pub(crate) token: Secret,
}

impl Caller {
    /// A caller whose token was verified.
    pub(crate) fn new(identified: Identified, token: Secret) -> Self {
        Self { identified: Arc::new(identified), token }
    }

    /// The implicit run of its principal and agent.
    pub(crate) fn run(&self) -> RunId {
        RunId::implicit(&self.identified.principal, &self.identified.agent)
    }
}

/// A call as the agent sent it, before anything of it was checked.
pub struct Asked {
    /// The name of the tool.
    pub tool: String,
    /// Its arguments, read by a reader that refuses duplicate keys.
    pub arguments: Map<String, Json>,
}

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
}

impl NotIdentified {
    /// The error code of RFC 6750 §3.1; none where no token was sent.
    #[must_use]
    pub fn error(self) -> Option<&'static str> {
        match self {
            Self::NoToken => None,
            Self::Malformed => Some("invalid_request"),
            Self::Refused(_) => Some("invalid_token"),
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
