//! Where a rule points: scheme, host and port.

use super::host::{Host, port_number};

/// What is spoken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Scheme {
    /// HTTP without TLS.
    Plain,
    /// TLS, or a tunnel for whatever else a rule lets through.
    Tls,
}

impl Scheme {
    pub(crate) fn default_port(self) -> u16 {
        match self {
            Self::Plain => 80,
            Self::Tls => 443,
        }
    }
}

/// One host, or all names below one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Pattern {
    Exact(Host),
    Below(String),
}

impl Pattern {
    /// `host` or `*.host`; the host of a wildcard has two labels at least, so that no `*.com` is written by mistake.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let host_of =
            |text: &str| Host::parse(text).map_err(|error| format!("`{}` is {error}", text.escape_debug()));
        let Some(parent) = text.strip_prefix("*.") else { return Ok(Self::Exact(host_of(text)?)) };
        match host_of(parent)?.name() {
            Some(name) if name.contains('.') => Ok(Self::Below(format!(".{name}"))),
            _ => Err(format!("`{text}` is too wide; write `*.` and a name of two labels at least")),
        }
    }

    pub(crate) fn matches(&self, host: &Host) -> bool {
        match self {
            Self::Exact(exact) => exact == host,
            Self::Below(suffix) => host.name().is_some_and(|name| name.ends_with(suffix)),
        }
    }
}

/// Scheme, hosts and port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Target {
    pub(crate) scheme: Scheme,
    pub(crate) pattern: Pattern,
    pub(crate) port: u16,
}

impl Target {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = match text.split_once("://") {
            None => (Scheme::Tls, text),
            Some(("https", rest)) => (Scheme::Tls, rest),
            Some(("http", rest)) => (Scheme::Plain, rest),
            Some(_) => {
                return Err(format!("`{}`: write `https://`, `http://` or nothing", text.escape_debug()));
            }
        };
        let (host, port) = split_port(rest)?;
        Ok(Self { scheme, pattern: Pattern::parse(host)?, port: port.unwrap_or(scheme.default_port()) })
    }

    pub(crate) fn matches(&self, scheme: Scheme, host: &Host, port: u16) -> bool {
        self.scheme == scheme && self.port == port && self.pattern.matches(host)
    }
}

/// `host:port`; a colon within brackets is the address's own.
pub(crate) fn split_port(text: &str) -> Result<(&str, Option<u16>), String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            let port = port_number(port.as_bytes());
            Ok((
                host,
                Some(
                    port.map_err(|_| {
                        format!("`{}` has no good port; write 1 to 65535", text.escape_debug())
                    })?,
                ),
            ))
        }
        _ => Ok((text, None)),
    }
}
