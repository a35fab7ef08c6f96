//! What was decided about one connection, told to whoever records it before a byte leaves.

use std::net::IpAddr;

use serde::{Serialize, Serializer};

use super::host::Host;

/// The longest text of the program's that a decision carries, in bytes.
const QUOTED_BYTES_MAX: usize = 256;

/// Records decisions. Where it cannot, nothing leaves.
#[async_trait::async_trait]
pub trait Watch: Send + Sync {
    /// Completes when the decision is on record.
    async fn decided(&self, decision: &Decision) -> Result<(), Unrecorded>;
}

/// A decision could not be recorded.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the decision could not be recorded")]
pub struct Unrecorded;

/// One decision, or the end of what was allowed.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Decision {
    /// Counts the connections of one sandbox, from 1.
    pub connection: u64,
    /// How it came.
    pub via: Via,
    /// What was decided.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// The host that was asked for, where it could be read as one.
    pub host: Option<Host>,
    /// What was asked for, where it could not.
    pub asked: Option<Quoted>,
    /// The port.
    pub port: Option<u16>,
    /// The rule that allowed or denied it, as the operator wrote it.
    pub rule: Option<String>,
    /// The address that is dialled.
    pub address: Option<IpAddr>,
    /// The method, where the exchange can be read.
    pub method: Option<Quoted>,
    /// The path in its one spelling, where the exchange can be read; never the query.
    pub path: Option<Quoted>,
    /// The name of the credential that was put in.
    pub credential: Option<String>,
    /// Bytes that went out on this connection so far.
    pub bytes_up: u64,
    /// Bytes that came back on it so far.
    pub bytes_down: u64,
}

/// How a connection came.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// To the proxy.
    Proxy,
    /// To port 80 at an address that the name server made up.
    TransparentHttp,
    /// To port 443 at such an address.
    TransparentTls,
}

/// What was decided.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It may leave.
    Allow,
    /// It may not.
    Deny,
    /// It had left, and is over.
    End,
}

/// Why. Reasons of an end follow those of a denial.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A rule allows it.
    Rule,
    /// No rule allows it.
    NoRule,
    /// A rule denies it.
    DenyRule,
    /// A rule allows the host, but none this method and path.
    NoRuleForRequest,
    /// It is not strict HTTP/1.1 (RFC 9112), or two readers could read it in two ways.
    BadRequest,
    /// The `Host` header is not the host that was connected to.
    HostMismatch,
    /// The connection would become something else.
    Upgrade,
    /// A header that changes the method or the path behind our back.
    Override,
    /// A placeholder stands where its credential does not belong.
    Placeholder,
    /// A body in an encoding that cannot be searched.
    EncodedBody,
    /// Plain HTTP to a host that has a credential.
    PlainToCredentialHost,
    /// It does not begin with a TLS `ClientHello`.
    NotTls,
    /// The server name is not the host that was connected to.
    SniMismatch,
    /// There is no server name.
    SniMissing,
    /// The server name is encrypted (ECH).
    Ech,
    /// The program did not complete its TLS handshake with us.
    ClientTls,
    /// The address it connected to stands for no name.
    UnknownAddress,
    /// The name has no address.
    Unresolved,
    /// The name has no address that may be dialled.
    NoPublicAddress,
    /// The decision could not be recorded.
    Unrecorded,
    /// The sandbox has sent all that it may.
    BudgetUp,
    /// The sandbox has received all that it may.
    BudgetDown,
    /// The sandbox has made all the connections that it may.
    TooManyConnections,
    /// A step took too long, or nothing moved.
    TimeLimit,
    /// The egress was stopped.
    Stopped,
    /// The program went away.
    ClientGone,
    /// The server could not be reached.
    Unreachable,
    /// The server's TLS handshake or certificate is not good.
    UpstreamTls,
    /// The server's answer is not strict HTTP/1.1, or in an encoding that cannot be searched.
    BadAnswer,
    /// The server went away.
    UpstreamGone,
    /// All was said.
    Complete,
}

/// What the program wrote: bounded, and without control characters.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Quoted(String);

impl Quoted {
    /// Escapes what is not visible ASCII, and cuts what is too long.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        let mut text = bytes.get(..QUOTED_BYTES_MAX).unwrap_or(bytes).escape_ascii().to_string();
        // Escapes are ASCII, so every place is a boundary.
        text.truncate(QUOTED_BYTES_MAX);
        Self(text)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Serialize for Quoted {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}
