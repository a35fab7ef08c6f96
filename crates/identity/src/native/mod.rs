//! A program on its user's own machine logs in at a gateway (RFC 8252): by the gateway's address alone it finds the issuer,
//! registers, and gets tokens of the user that it can renew.
//!
//! Which browser the user takes, and where the login is kept, is its caller's.

mod found;
mod kept;

pub use found::{Found, Gateway, NativeClient};
pub use kept::{Login, NotRenewed, NotRevoked};

use crate::login::{CodeClientRefused, NotLoggedIn};

/// Nobody can log in, or nobody did. The text is for the user and names no token.
#[derive(Debug, thiserror::Error)]
pub enum NoLogin {
    /// The address is none of a gateway.
    #[error(
        "`{0}` is not an address of a gateway; write `https://HOST/mcp`, or `http://127.0.0.1:PORT/mcp` on this machine"
    )]
    Address(String),
    /// The gateway does not say how to log in (RFC 9728).
    #[error("`{0}` does not say how to log in: {1}; look whether a gateway serves there")]
    Gateway(String, String),
    /// It says that it is another one (RFC 9728 §3.3).
    #[error("the gateway calls itself `{0}`; log in at that address, letter for letter")]
    Resource(String),
    /// Its tokens have to be bound to a key.
    #[error(
        "the gateway asks for tokens that are bound to a key (DPoP), which cannot be had here yet; use a client that can"
    )]
    Bound,
    /// The issuer is not one of the gateway's, or at an address that a gateway may not send anybody to.
    #[error(
        "the issuer has to be one that the gateway names, and at no private address; write `--issuer` with one of these that you know: {0}"
    )]
    NotItsIssuer(String),
    /// The issuer does not say how to log in (RFC 8414), or in a way that is not safe.
    #[error("the issuer `{0}` cannot be used: {1}; tell whoever runs it")]
    Issuer(String, String),
    /// The issuer lets no client register itself (RFC 7591).
    #[error(
        "the issuer lets `ringfence login` not register itself: {0}; register a public client there with the redirect URI `http://127.0.0.1/callback`, and write `--client-id ID`"
    )]
    Unregistered(String),
    /// The machine has no randomness.
    #[error("this machine has no randomness; try again later")]
    Randomness,
    /// No client can be made.
    #[error(transparent)]
    Client(#[from] CodeClientRefused),
    /// The user, or the issuer, said no.
    #[error("nobody logged in: {0}; begin again")]
    NotLoggedIn(#[from] NotLoggedIn),
}

#[cfg(test)]
mod tests;
