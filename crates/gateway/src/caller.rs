//! Who calls, and what was asked.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json as JsonBody;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ringfence_core::{Label, Run, RunId, Secret, Terms};
use ringfence_identity::{
    Identified, Presented, ProofRefused, Scheme, TokenRefused, credentials, is_token_in_query,
};
use serde_json::{Map, Value as Json, json};
use url::Url;

use crate::Gateway;

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

/// A request, as far as it says who sends it.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its method.
    pub method: &'a str,
    /// Its URL as clients spell it, without a query; proofs are made for it. None fits where it is not known.
    pub url: Option<&'a Url>,
}

/// A request that no proof fits.
impl<'a> From<&'a HeaderMap> for Request<'a> {
    fn from(headers: &'a HeaderMap) -> Self {
        Self { headers, method: "", url: None }
    }
}

/// How often an issuer that did not answer is asked again.
const UNVERIFIABLE_RETRY_SECONDS: u64 = 10;
/// How long proofs are remembered: whoever sent too many waits for that.
const PROOFS_RETRY_SECONDS: u64 = 60;

/// Why nobody could be identified.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotIdentified {
    /// There is no token, or there are several.
    #[error("send exactly one `Authorization: Bearer TOKEN` header")]
    NoToken,
    /// The header holds no token, or there are several proofs.
    #[error("send `Authorization: Bearer TOKEN`, or `Authorization: DPoP TOKEN` with one `DPoP` header")]
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
    /// The error code of RFC 6750 §3.1 or RFC 9449 §7.1; none where no token was sent.
    #[must_use]
    pub fn error(self) -> Option<&'static str> {
        match self {
            Self::NoToken => None,
            Self::Malformed => Some("invalid_request"),
            Self::Refused(TokenRefused::Proof(_)) => Some("invalid_dpop_proof"),
            Self::Refused(_) | Self::RunUnknown | Self::RunEnded | Self::LoginNeeded | Self::Unavailable => {
                Some("invalid_token")
            }
        }
    }

    /// Whether a token that is bound to a key, with its proof, is what would help.
    #[must_use]
    pub fn wants_proof(self) -> bool {
        let Self::Refused(refused) = self else { return false };
        matches!(refused, TokenRefused::Proof(_) | TokenRefused::Bound | TokenRefused::Unbound)
    }

    /// Whether the token is sound and whom it was given to is not let in: to log in again would change nothing.
    #[must_use]
    pub fn is_forbidden(self) -> bool {
        matches!(self, Self::Refused(TokenRefused::Agent | TokenRefused::NotAnApplication))
    }

    /// After how many seconds the same token may be sent again, where it is not the token that is at fault.
    #[must_use]
    pub fn retry_after_seconds(self) -> Option<u64> {
        match self {
            Self::Unavailable | Self::Refused(TokenRefused::Unavailable) => Some(UNVERIFIABLE_RETRY_SECONDS),
            Self::Refused(TokenRefused::Proof(ProofRefused::Full)) => Some(PROOFS_RETRY_SECONDS),
            _ => None,
        }
    }
}

/// The one token of a request, and what proves that it is used by whom it was given to.
pub(crate) struct Sent<'a> {
    scheme: Scheme,
    pub(crate) token: Secret,
    proof: Option<&'a str>,
    request: Request<'a>,
}

impl<'a> Sent<'a> {
    pub(crate) fn by(request: Request<'a>) -> Result<Self, NotIdentified> {
        let mut sent = request.headers.get_all(header::AUTHORIZATION).iter();
        let (Some(only), None) = (sent.next(), sent.next()) else { return Err(NotIdentified::NoToken) };
        let text = only.to_str().map_err(|_| NotIdentified::Malformed)?;
        let (scheme, token) = credentials(text).map_err(|_| NotIdentified::Malformed)?;
        let mut proofs = request.headers.get_all("dpop").iter();
        let proof = proofs.next().map(HeaderValue::to_str).transpose();
        let proof = proof.map_err(|_| NotIdentified::Malformed)?;
        // RFC 9449 §4.3: not more than one.
        if proofs.next().is_some() {
            return Err(NotIdentified::Malformed);
        }
        Ok(Self { scheme, token, proof, request })
    }

    pub(crate) fn presented(&self) -> Presented<'_> {
        let Request { method, url, .. } = self.request;
        Presented { scheme: self.scheme, token: &self.token, proof: self.proof, method, url }
    }
}

/// Refuses a request with a token in its query, where it ends up in logs (RFC 6750 §2.3; MCP: *MUST NOT be included*).
pub async fn refuse_token_in_query(
    State(gateway): State<Gateway>,
    request: axum::extract::Request,
    next: Next,
) -> Response {
    if !request.uri().query().is_some_and(is_token_in_query) {
        return next.run(request).await;
    }
    gateway.rejected("token_in_query").await;
    let why = "send the token in the `Authorization` header, never in the URL; this one should be revoked";
    let challenge = [(header::WWW_AUTHENTICATE, r#"Bearer error="invalid_request""#)];
    (
        StatusCode::BAD_REQUEST,
        challenge,
        JsonBody(json!({ "error": "invalid_request", "error_description": why })),
    )
        .into_response()
}
