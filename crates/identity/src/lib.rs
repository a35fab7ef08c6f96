//! Who calls: a bearer token becomes a principal; a downstream token is made for each system; and, for development on
//! loopback alone, an issuer of its own.
//!
//! The client's own token never travels onwards, and no error text says more than which check failed.

pub mod challenge;
mod check;
pub mod connect;
pub mod credential;
pub mod development;
mod discovery;
mod dpop;
mod fetch;
mod identify;
mod introspect;
mod keys;
pub mod login;
pub mod native;
mod presented;
mod verified;

pub use check::{TokenCheck, TokenRefused, TokenRules, VerifiedToken};
pub use dpop::ProofRefused;
pub use fetch::{BadUrl, Endpoint};
pub use identify::{
    Application, Door, GroupsClaim, Identified, Identity, KnownAgents, ProofRule, TrustedIssuer,
};
pub use introspect::{Introspection, IntrospectionSettings};
pub use keys::{KeySource, KeyTimes, SigningAlgorithm};
pub use presented::{BadHeader, Presented, Scheme, bearer, credentials, is_token_in_query};

#[cfg(test)]
mod for_tests;
#[cfg(test)]
mod tests;
