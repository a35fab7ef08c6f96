//! The start of a TLS connection (RFC 8446 §4.1.2), looked at without using it up.

use tokio::io::AsyncRead;

use super::decision::Reason;
use super::host::Host;
use super::replay::Replay;
use super::rules::HelloTerms;

/// The most that a `ClientHello` may take with its record headers, in bytes.
const HELLO_BYTES_MAX: usize = 16 << 10;
const HANDSHAKE_RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
/// `encrypted_client_hello` (RFC 9849), and its forerunner ESNI.
const ECH: [u16; 2] = [0xfe0d, 0xffce];

/// What a `ClientHello` says about the server it wants.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Hello {
    server_name: Option<Vec<u8>>,
    has_ech: bool,
}

/// Looks ahead until the `ClientHello` is whole.
pub(crate) async fn look(stream: &mut Replay<impl AsyncRead + Unpin>) -> Result<Hello, Reason> {
    loop {
        match parse_records(stream.held()) {
            Ok(Some(hello)) => return Ok(hello),
            Ok(None) if stream.held().len() <= HELLO_BYTES_MAX => {
                stream.look().await.map_err(|_| Reason::ClientGone)?;
            }
            _ => return Err(Reason::NotTls),
        }
    }
}

impl Hello {
    /// Whether it wants `host` and nothing else.
    pub(crate) fn check(&self, host: &Host, terms: HelloTerms) -> Result<(), Reason> {
        if self.has_ech && !terms.allow_ech {
            return Err(Reason::Ech);
        }
        match &self.server_name {
            Some(name) if Host::of_wire(name).as_ref() == Ok(host) => Ok(()),
            Some(_) => Err(Reason::SniMismatch),
            // An address is never a server name (RFC 6066 §3).
            None if terms.allow_missing_sni || host.address().is_some() => Ok(()),
            None => Err(Reason::SniMissing),
        }
    }
}

/// It is not a `ClientHello`.
#[derive(Debug, Eq, PartialEq)]
struct Malformed;

/// Reads records until the handshake message in them is whole; `None` while it is not.
fn parse_records(bytes: &[u8]) -> Result<Option<Hello>, Malformed> {
    let (mut records, mut message) = (Reader(bytes), Vec::new());
    loop {
        if let Some(hello) = parse_message(&message)? {
            return Ok(Some(hello));
        }
        let header = records.0;
        if header.first().is_some_and(|kind| *kind != HANDSHAKE_RECORD)
            || header.get(1).is_some_and(|major| *major != 3)
        {
            return Err(Malformed);
        }
        let Ok(length) = records.take(3).and_then(|_| records.number(2)) else { return Ok(None) };
        if length == 0 || length > 1 << 14 {
            return Err(Malformed);
        }
        match records.take(length) {
            Ok(record) => message.extend_from_slice(record),
            Err(Malformed) => {
                // What is there of it says already whether it is a ClientHello.
                let kind = message.first().or(records.0.first());
                return if kind.is_none_or(|kind| *kind == CLIENT_HELLO) { Ok(None) } else { Err(Malformed) };
            }
        }
    }
}

fn parse_message(message: &[u8]) -> Result<Option<Hello>, Malformed> {
    let mut message = Reader(message);
    let Ok(kind) = message.number(1) else { return Ok(None) };
    if kind != usize::from(CLIENT_HELLO) {
        return Err(Malformed);
    }
    let Ok(length) = message.number(3) else { return Ok(None) };
    if length > HELLO_BYTES_MAX {
        return Err(Malformed);
    }
    let Ok(body) = message.take(length) else { return Ok(None) };
    if message.0.is_empty() { parse_hello(body).map(Some) } else { Err(Malformed) }
}

fn parse_hello(body: &[u8]) -> Result<Hello, Malformed> {
    let mut body = Reader(body);
    body.take(2 + 32)?;
    let _session = body.vector(1)?;
    let _cipher_suites = body.vector(2)?;
    let _compression = body.vector(1)?;
    let mut hello = Hello::default();
    if body.0.is_empty() {
        return Ok(hello);
    }
    let mut extensions = Reader(body.vector(2)?);
    let mut seen = Vec::new();
    while !extensions.0.is_empty() {
        let kind = u16::try_from(extensions.number(2)?).map_err(|_| Malformed)?;
        let content = extensions.vector(2)?;
        if seen.contains(&kind) {
            return Err(Malformed);
        }
        seen.push(kind);
        hello.has_ech |= ECH.contains(&kind);
        if kind == SERVER_NAME {
            hello.server_name = Some(parse_server_name(content)?);
        }
    }
    if body.0.is_empty() { Ok(hello) } else { Err(Malformed) }
}

/// Exactly one name, of type `host_name`.
fn parse_server_name(content: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut content = Reader(content);
    let mut list = Reader(content.vector(2)?);
    let kind = list.number(1)?;
    let name = list.vector(2)?;
    if kind == 0 && list.0.is_empty() && content.0.is_empty() { Ok(name.to_vec()) } else { Err(Malformed) }
}

struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, count: usize) -> Result<&'b [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self, bytes: usize) -> Result<usize, Malformed> {
        Ok(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    fn vector(&mut self, length_bytes: usize) -> Result<&'b [u8], Malformed> {
        let length = self.number(length_bytes)?;
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::pki_types::ServerName;

    use super::*;

    fn of_rustls(name: &str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config =
            config.unwrap().with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        connection.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn the_server_name_is_read_from_every_beginning_and_only_from_the_whole() {
        let bytes = of_rustls("api.allowed.test");
        for cut in 0..bytes.len() {
            assert_eq!(parse_records(&bytes[..cut]), Ok(None), "{cut}");
        }
        let hello = parse_records(&bytes).unwrap().unwrap();
        assert_eq!(hello, Hello { server_name: Some(b"api.allowed.test".to_vec()), has_ech: false });
        assert_eq!(parse_records(&of_rustls("192.0.2.1")).unwrap().unwrap(), Hello::default());
    }

    #[test]
    fn a_hello_in_many_records_is_the_same() {
        let whole = of_rustls("api.allowed.test");
        let mut split = Vec::new();
        for part in whole[5..].chunks(7) {
            split.extend([22, 3, 1, 0, u8::try_from(part.len()).unwrap()]);
            split.extend(part);
        }
        assert_eq!(parse_records(&split), parse_records(&whole));
    }

    #[test]
    fn other_protocols_are_known_at_once() {
        for text in [
            "SSH-2.0-x\r\n",
            "GET / HTTP/1.1\r\n",
            "\x16\x02",
            "\x16\x03\x01\x00\x00",
            "\x16\x03\x01\x00\x09\x02",
        ] {
            assert_eq!(parse_records(text.as_bytes()), Err(Malformed), "{text:?}");
        }
    }

    #[test]
    fn only_the_host_itself_will_do() {
        let host = Host::parse("api.allowed.test").unwrap();
        let strict = HelloTerms { allow_missing_sni: false, allow_ech: false, allow_any_protocol: false };
        let lenient = HelloTerms { allow_missing_sni: true, allow_ech: true, allow_any_protocol: false };
        let hello = |name: Option<&str>, has_ech| Hello {
            server_name: name.map(|name| name.as_bytes().to_vec()),
            has_ech,
        };
        assert_eq!(hello(Some("API.allowed.test"), false).check(&host, strict), Ok(()));
        assert_eq!(hello(Some("evil.test"), false).check(&host, lenient), Err(Reason::SniMismatch));
        assert_eq!(hello(Some("api.allowed.test\0"), false).check(&host, lenient), Err(Reason::SniMismatch));
        assert_eq!(hello(None, false).check(&host, strict), Err(Reason::SniMissing));
        assert_eq!(hello(None, false).check(&host, lenient), Ok(()));
        assert_eq!(hello(Some("api.allowed.test"), true).check(&host, strict), Err(Reason::Ech));
        assert_eq!(hello(Some("api.allowed.test"), true).check(&host, lenient), Ok(()));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(at in 0_usize..200, byte: u8, cut in 0_usize..600) {
            let mut bytes = of_rustls("api.allowed.test");
            bytes[at] = byte;
            bytes.truncate(cut);
            let _any = parse_records(&bytes);
        }
    }
}
