//! Who calls: a bearer token becomes a principal; a downstream token is made for each system; and, for development on
//! loopback alone, an issuer of its own.
//!
//! The client's own token never travels onwards, and no error text says more than which check failed.

mod bearer;
pub mod challenge;
mod check;
pub mod development;
mod dpop;
mod exchange;
mod fetch;
mod identify;
mod keys;

pub use bearer::{BadHeader, bearer};
pub use check::{TokenCheck, TokenRefused, TokenRules, VerifiedToken};
pub use dpop::ProofRefused;
pub use exchange::{Exchange, ExchangeRefused, ExchangeSettings};
pub use fetch::{BadUrl, Endpoint};
pub use identify::{Door, GroupsClaim, Identified, Identity};
pub use keys::{KeySource, SigningAlgorithm};

#[cfg(test)]
mod tests;
