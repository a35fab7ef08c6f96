//! What an operator writes. Serialisable both ways, since it holds no secret: a credential's value comes by another way.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The way out of one sandbox, as it is written in a file. [`super::Rules::check`] makes it into rules.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Declared {
    /// Where it may go. Empty means nowhere.
    pub allow: Vec<Entry>,
    /// Where it may not go, whatever `allow` says: `host`, `host:port`, `*.host`.
    pub deny: Vec<String>,
    /// Addresses and blocks that may be dialled though they are not public: `10.1.2.3`, `10.1.0.0/16`.
    pub private: Vec<String>,
    /// How much and how long.
    pub limits: Limits,
}

/// One place to go.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Entry {
    /// `api.example.com`, `api.example.com:8443`, `http://host:80`.
    Text(String),
    /// The same with conditions.
    Rule(DeclaredRule),
}

/// One place to go, with conditions.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of its own in a file")]
pub struct DeclaredRule {
    /// `api.example.com:443`, `http://host:80`, or `*.example.com` where it is inspected.
    pub to: String,
    /// Whether TLS ends here, so that requests can be judged. The program inside must trust the sandbox's own authority.
    pub inspect: bool,
    /// Methods that are allowed; empty means all, and `GET` alone where there is a credential.
    pub methods: Vec<String>,
    /// Paths that are allowed, each with what is below it; empty means all.
    pub paths: Vec<String>,
    /// Whether a `ClientHello` without a server name will do.
    pub allow_missing_sni: bool,
    /// Whether a `ClientHello` may hide its server name (ECH).
    pub allow_ech: bool,
    /// Whether anything but TLS may pass; then nothing of it is checked but the host and the port.
    pub allow_any_protocol: bool,
    /// What is put into each request.
    pub credential: Option<DeclaredCredential>,
}

/// A credential that the program uses without having it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredCredential {
    /// The secret's name, which stands in decisions.
    pub secret: String,
    /// The header that carries it; a header of this name that the program sends is left out.
    pub header: String,
    /// The header's value with `{}` where the secret goes, such as `Bearer {}`.
    #[serde(default = "bare")]
    pub format: String,
    /// What the program has in its place. Wherever else it appears, the request is refused.
    pub placeholder: String,
}

fn bare() -> String {
    "{}".to_owned()
}

/// How much may pass, and how long it may take.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes out of the sandbox, all connections together.
    pub bytes_up_max: u64,
    /// Bytes into the sandbox, all connections together.
    pub bytes_down_max: u64,
    /// Connections at the same time; more wait.
    pub connections_at_once_max: u32,
    /// Connections in the sandbox's life, refused ones included; then the way out is closed.
    pub connections_max: u64,
    /// To send a request's head or a `ClientHello`, or to complete a handshake.
    pub head_seconds: u64,
    /// To find an address and connect to it.
    pub dial_seconds: u64,
    /// Without a byte in either direction.
    pub idle_seconds: u64,
    /// A connection as a whole.
    pub connection_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes_up_max: 10 << 20,
            bytes_down_max: 100 << 20,
            connections_at_once_max: 64,
            connections_max: 10_000,
            head_seconds: 10,
            dial_seconds: 10,
            idle_seconds: 60,
            connection_seconds: 600,
        }
    }
}

impl Limits {
    pub(crate) fn head(&self) -> Duration {
        Duration::from_secs(self.head_seconds)
    }

    pub(crate) fn dial(&self) -> Duration {
        Duration::from_secs(self.dial_seconds)
    }

    pub(crate) fn idle(&self) -> Duration {
        Duration::from_secs(self.idle_seconds)
    }

    pub(crate) fn connection(&self) -> Duration {
        Duration::from_secs(self.connection_seconds)
    }
}
