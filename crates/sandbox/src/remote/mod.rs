//! Programs run on another machine, which has nothing else: a *sandbox host*. The gateway then runs no untrusted code itself.
//!
//! The wire is ours and small. TLS 1.3 with certificates on both sides; the version is the ALPN protocol; then frames of
//! `kind, length, payload` (`frame`), JSON for what is said and raw bytes for what is carried. One connection is one run, or one
//! session:
//!
//! ```text
//! gateway                                 host
//! Open     profile, run or session  ->
//!                                   <-    Ready     a place is kept; or Refused
//! Program  lengths, narrower limits ->
//! Bytes    source, files            ->
//!                                   <-    Stdout, Stderr   as it is written
//! Cancel   (or a closed connection) ->
//!                                   <-    Outcome   lengths, receipt; or Refused
//!                                   <-    Bytes     outputs, artifacts
//! Alive    each second              <->   Alive
//! ```
//!
//! A host has no other power: it opens no connection, and answers nobody whose certificate its operator's authority did not sign.
//! Whoever closes the connection, or falls silent, has given the run up: the host destroys its sandbox at once. A host that is
//! lost is a refusal; nothing is tried a second time. What a host says is bounded and checked like a stranger's word, since an
//! escaped program might speak for it.
//!
//! A kind of frame that wants an answer (a decision of the gateway while a program runs) would be one more pair of kinds and the
//! next version of the protocol.

mod client;
mod frame;
mod host;
mod message;
mod tls;
mod wire;

pub(crate) use client::Remote;
pub use client::RemoteSettings;
pub use host::{HostSettings, Hosted, serve};
pub use tls::{TlsFault, TlsPart, TlsTexts};

/// The protocol and its version, as TLS agrees on it (RFC 7301).
const PROTOCOL: &[u8] = b"ringfence-sandbox/1";
