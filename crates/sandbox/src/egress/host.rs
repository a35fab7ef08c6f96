//! The one spelling of a host, for the matcher, the resolver, the check of server names and the log alike.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Serialize, Serializer};

/// The longest name (RFC 1035 §2.3.4, without the root's dot), in bytes.
const NAME_BYTES_MAX: usize = 253;
/// The longest label, in bytes.
const LABEL_BYTES_MAX: usize = 63;

/// A host in its one spelling.
///
/// A name is lower-case letters, digits and hyphens in labels of 1 to 63 bytes, at most 253 bytes in all, without a trailing
/// dot, and its last label is no number; what is written in other scripts is in A-labels (RFC 5890). An address is not a name.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Host(Kind);

#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
enum Kind {
    Name(String),
    Address(IpAddr),
}

/// It is not a host.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a host; write a name such as `api.example.com`, or an address")]
pub struct NotAHost;

impl Host {
    /// What an operator wrote: as [`Host::of_wire`], and names in other scripts as well.
    pub fn parse(text: &str) -> Result<Self, NotAHost> {
        if text.is_ascii() {
            return Self::of_wire(text.as_bytes());
        }
        if text.bytes().any(|byte| byte.is_ascii() && !is_name_byte(byte)) {
            return Err(NotAHost);
        }
        match url::Host::parse(text) {
            Ok(url::Host::Domain(name)) => Self::of_wire(name.as_bytes()),
            _ => Err(NotAHost),
        }
    }

    /// What came from inside: a name in ASCII, an IPv4 address, or an IPv6 address in brackets. Nothing is repaired beyond
    /// case and one trailing dot: control characters, spaces, `%`, `@` and other scripts are no part of a host on the wire.
    pub fn of_wire(bytes: &[u8]) -> Result<Self, NotAHost> {
        let text = std::str::from_utf8(bytes).map_err(|_| NotAHost)?;
        if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return inner.parse::<Ipv6Addr>().map(Self::from).map_err(|_| NotAHost);
        }
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Ok(address.into());
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if !(1..=NAME_BYTES_MAX).contains(&name.len()) || !name.split('.').all(is_label) {
            return Err(NotAHost);
        }
        // `0x7f.1`, `2130706433`, `127.1`: addresses to some parsers (WHATWG URL, "ends in a number checker").
        if name.rsplit('.').next().is_none_or(is_number) {
            return Err(NotAHost);
        }
        Ok(Self(Kind::Name(name)))
    }

    /// The address, where it is one.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        match self.0 {
            Kind::Name(_) => None,
            Kind::Address(address) => Some(address),
        }
    }

    /// The name, where it is one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match &self.0 {
            Kind::Name(name) => Some(name),
            Kind::Address(_) => None,
        }
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.'
}

fn is_label(label: &str) -> bool {
    (1..=LABEL_BYTES_MAX).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn is_number(label: &str) -> bool {
    let hex = label.strip_prefix("0x");
    label.bytes().all(|byte| byte.is_ascii_digit())
        || hex.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

impl<A: Into<IpAddr>> From<A> for Host {
    fn from(address: A) -> Self {
        Self(Kind::Address(address.into()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Name(name) => formatter.write_str(name),
            Kind::Address(IpAddr::V4(address)) => write!(formatter, "{address}"),
            Kind::Address(IpAddr::V6(address)) => write!(formatter, "[{address}]"),
        }
    }
}

impl Serialize for Host {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Splits `host:port` as it stands on the wire; a missing port is `None`.
pub(crate) fn authority(bytes: &[u8]) -> Result<(Host, Option<u16>), NotAHost> {
    let colon = bytes.iter().rposition(|byte| *byte == b':').filter(|_| bytes.last() != Some(&b']'));
    let Some(colon) = colon else { return Ok((Host::of_wire(bytes)?, None)) };
    let (host, port) = bytes.split_at_checked(colon).ok_or(NotAHost)?;
    Ok((Host::of_wire(host)?, Some(port_number(port.strip_prefix(b":").unwrap_or(port))?)))
}

/// A port from 1 to 65535 in decimal digits, without leading zeros.
pub(crate) fn port_number(bytes: &[u8]) -> Result<u16, NotAHost> {
    let digits = std::str::from_utf8(bytes).map_err(|_| NotAHost)?;
    if digits.starts_with(['0', '+']) {
        return Err(NotAHost);
    }
    digits.parse().map_err(|_| NotAHost)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_two_parsers_could_read_in_two_ways_is_no_host() {
        let long = format!("{}.test", "a.".repeat(125));
        let hostile = [
            "",
            ".",
            "..",
            "evil.test\0.allowed.test",
            "api.allowed.test\r\n",
            "api.allowed.test\t",
            " api.allowed.test",
            "api%2eallowed.test",
            "api.allowed.test%00",
            "api.allowed.test@evil.test",
            "api.allowed.test/",
            "api.allowed.test:443",
            "api.allowed.test..",
            "api\u{ff0e}allowed.test",
            "api\u{3002}allowed.test",
            "ex\u{e4}mple.test",
            "-a.test",
            "a-.test",
            "a_b.test",
            "0x7f.1",
            "2130706433",
            "127.1",
            "0177.0.0.1",
            "1.2.3.4.",
            "a.0x7f",
            "::1",
            "[::1",
            "[fe80::1%eth0]",
            &long,
        ];
        for text in hostile {
            assert_eq!(Host::of_wire(text.as_bytes()), Err(NotAHost), "{text:?}");
        }
    }

    #[test]
    fn case_and_one_trailing_dot_are_spelling() {
        let spelled = |text: &str| Host::of_wire(text.as_bytes()).unwrap().to_string();
        assert_eq!(spelled("API.Allowed.Test."), "api.allowed.test");
        assert_eq!(spelled("192.0.2.1"), "192.0.2.1");
        assert_eq!(spelled("[2001:DB8:0::1]"), "[2001:db8::1]");
        assert_eq!(Host::parse("b\u{fc}cher.example").unwrap().to_string(), "xn--bcher-kva.example");
        assert_ne!(Host::parse("\u{430}pi.allowed.test").unwrap(), Host::parse("api.allowed.test").unwrap());
    }

    #[test]
    fn an_authority_is_a_host_and_at_most_one_port() {
        let split = |text: &str| authority(text.as_bytes()).map(|(host, port)| (host.to_string(), port));
        assert_eq!(split("a.test:443"), Ok(("a.test".to_owned(), Some(443))));
        assert_eq!(split("a.test"), Ok(("a.test".to_owned(), None)));
        assert_eq!(split("[::1]:80"), Ok(("[::1]".to_owned(), Some(80))));
        assert_eq!(split("[::1]"), Ok(("[::1]".to_owned(), None)));
        for text in ["a.test:", "a.test:0", "a.test:+1", "a.test:080", "a.test:65536", "u@a.test:1", "::1:80"]
        {
            assert_eq!(split(text), Err(NotAHost), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_host_reads_as_itself(text in "[ -~]{0,20}|[a-zA-Z0-9.\\-]{1,40}|\\PC{1,12}|[0-9.x]{1,16}") {
            if let Ok(host) = Host::parse(&text) {
                let again = Host::parse(&host.to_string());
                prop_assert_eq!(again, Ok(host.clone()));
                prop_assert_eq!(Host::of_wire(host.to_string().as_bytes()), Ok(host));
            }
        }

        #[test]
        fn nothing_on_the_wire_is_a_host_but_its_own_alphabet(bytes: Vec<u8>) {
            if let Ok(host) = Host::of_wire(&bytes) {
                let is_plain = |byte: u8| is_name_byte(byte) || b"[]:".contains(&byte);
                prop_assert!(host.to_string().bytes().all(is_plain));
                prop_assert!(host.to_string().len() <= NAME_BYTES_MAX);
            }
        }
    }
}
