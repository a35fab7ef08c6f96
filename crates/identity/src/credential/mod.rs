//! What a call shows to its system to prove in whose name it comes: made for one principal, one system and one tool's
//! scopes, kept in memory alone, and dropped when it ends.
//!
//! The client's own token goes to its issuer and nowhere else.

mod account;
mod cache;
mod exchange;
mod grant;
mod link;
mod on_behalf_of;
mod seal;
mod shown;
mod static_key;
mod token_endpoint;

use std::sync::Arc;

use axum::http::HeaderName;
use ringfence_core::{Digest, Instant, Run, RunId, Secret, SystemName};

pub use account::{AccountSettings, Accounts, AccountsSettings, NotConnected};
pub use exchange::{Exchange, ExchangeSettings, Target};
pub use grant::{GrantStore, GrantsUnavailable, Owner, StoredGrant};
pub use link::{LINK_SECONDS, Link};
pub use on_behalf_of::{OnBehalfOf, OnBehalfOfSettings};
pub use seal::{BadSealingKey, Sealer};
pub use static_key::{BadStaticKey, StaticKey};
pub use token_endpoint::ClientSettings;

pub(crate) use link::Links;
pub(crate) use token_endpoint::{Answered, Asked, Authentication, TokenEndpoint, known_code};

/// What a credential is wanted for.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// In whose name, and by which agent.
    pub run: &'a Run,
    /// The verified token of the principal, where there is one: an exchange needs it, an account or a key does not.
    pub subject_token: Option<&'a Secret>,
    /// The system.
    pub system: &'a SystemName,
    /// The scopes of the tool; none means those of its system.
    pub scopes: Option<&'a [String]>,
    /// When.
    pub now: Instant,
}

/// A way to get a credential.
pub enum Credential {
    /// A token that the issuer makes from the principal's own (RFC 8693).
    Exchange(Box<Exchange>),
    /// The same in the form of RFC 7523, as Entra has it.
    OnBehalfOf(Box<OnBehalfOf>),
    /// A token of the account that the principal has connected.
    Account(Arc<Accounts>),
    /// One key for all, which the operator has accepted.
    Static(StaticKey),
}

/// A credential as a request carries it.
#[derive(Clone)]
pub struct Held {
    /// The header.
    pub header: HeaderName,
    /// What stands in it.
    pub value: Secret,
    /// What must not come back in an answer.
    pub secret: Secret,
}

/// There is no credential. The text is for the log and names no token.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NoCredential {
    /// The issuer does not give these scopes for this user (`invalid_scope`, RFC 6749 §5.2).
    #[error("the issuer does not give the scopes `{}` for this user", .0.join(" "))]
    Scopes(Vec<String>),
    /// The gateway no longer has the user's own token.
    #[error("the user's token is gone")]
    NoSubjectToken,
    /// It said no, with this OAuth error code.
    #[error("the issuer refused: {0}")]
    Refused(&'static str),
    /// It answered with something that is not what was asked for.
    #[error("the issuer's answer is not what was asked for: {0}")]
    Unsound(&'static str),
    /// It did not answer, or what is kept here could not be read.
    #[error("there was no answer: {0}")]
    Unreachable(String),
    /// The principal has connected no account.
    #[error("the user has no account connected: {0}")]
    NotConnected(NotConnected),
}

impl Credential {
    /// The credential for one call.
    pub async fn for_call(&self, wanted: Wanted<'_>) -> Result<Held, NoCredential> {
        match self {
            Self::Exchange(exchange) => exchange.token_for(wanted).await.map(Held::bearer),
            Self::OnBehalfOf(exchange) => exchange.token_for(wanted).await.map(Held::bearer),
            Self::Account(accounts) => accounts.token_for(wanted).await.map(Held::bearer),
            Self::Static(key) => Ok(key.held()),
        }
    }

    /// Drops what is kept for a run.
    pub fn forget(&self, run: &RunId) {
        let owner = owner(run);
        match self {
            Self::Exchange(exchange) => exchange.forget(owner),
            Self::OnBehalfOf(exchange) => exchange.forget(owner),
            Self::Account(accounts) => accounts.forget(owner),
            Self::Static(_) => {}
        }
    }
}

impl Held {
    /// A bearer token (RFC 6750 §2.1).
    fn bearer(token: Secret) -> Self {
        let value = Secret::new(format!("Bearer {}", token.expose()));
        Self { header: axum::http::header::AUTHORIZATION, value, secret: token }
    }
}

/// Names a run among all that something is kept for.
fn owner(run: &RunId) -> Digest {
    digest(&[&run.to_string()])
}

/// The digest of texts, each kept apart from the next.
fn digest(texts: &[&str]) -> Digest {
    Digest::of(&[serde_json::json!(texts).to_string().as_bytes()])
}

#[cfg(test)]
mod tests;
