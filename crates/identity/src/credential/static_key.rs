//! One key for all: the system cannot tell users apart. Only where the operator has accepted that in so many words.

use axum::http::{HeaderName, HeaderValue};
use ringfence_core::Secret;

use super::Held;

/// Headers that say how a message is read or where it goes, and so carry no key.
const NOT_CARRIERS: &[&str] = &[
    "host",
    "content-length",
    "content-type",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
    "trailer",
    "expect",
    "accept",
    "accept-encoding",
    "user-agent",
];
/// The shortest key, in bytes: what is shorter is found in every answer by chance.
const BYTES_MIN: usize = 8;

/// A key and the header that carries it.
pub struct StaticKey {
    header: HeaderName,
    value: Secret,
    secret: Secret,
}

/// It cannot be one.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadStaticKey {
    /// The header carries none.
    #[error("this header carries no key")]
    Header,
    /// `format` does not have one `{}`.
    #[error("`format` is visible ASCII with one `{{}}` in it, such as `Bearer {{}}`")]
    Format,
    /// The key is no text that a header can carry.
    #[error("a key is 8 to 4096 bytes of visible ASCII")]
    Key,
}

impl StaticKey {
    /// Takes a key, and how it stands in its header.
    pub fn new(header: &str, format: &str, secret: Secret) -> Result<Self, BadStaticKey> {
        let header = HeaderName::try_from(header).map_err(|_| BadStaticKey::Header)?;
        if NOT_CARRIERS.contains(&header.as_str()) {
            return Err(BadStaticKey::Header);
        }
        let is_visible = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        if format.matches("{}").count() != 1 || !is_visible(format) || format.trim() != format {
            return Err(BadStaticKey::Format);
        }
        let is_key = (BYTES_MIN..=4096).contains(&secret.expose().len()) && is_visible(secret.expose());
        let value = Secret::new(format.replacen("{}", secret.expose(), 1));
        if !is_key || HeaderValue::from_str(value.expose()).is_err() {
            return Err(BadStaticKey::Key);
        }
        // A scheme that was written into the key itself is no secret.
        let bare =
            secret.expose().rsplit(' ').next().filter(|bare| bare.len() >= BYTES_MIN).map(str::to_owned);
        let secret = bare.map_or(secret, Secret::new);
        Ok(Self { header, value, secret })
    }

    pub(super) fn held(&self) -> Held {
        Held { header: self.header.clone(), value: self.value.clone(), secret: self.secret.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stands_in_a_header_that_carries_one() {
        let key = |header: &str, format: &str, key: &str| {
            StaticKey::new(header, format, Secret::new(key.into())).map(|key| {
                let held = key.held();
                format!("{}: {} ({})", held.header, held.value.expose(), held.secret.expose())
            })
        };
        assert_eq!(key("X-Api-Key", "{}", "k-12345678").unwrap(), "x-api-key: k-12345678 (k-12345678)");
        assert_eq!(
            key("Authorization", "Bearer {}", "k-12345678").unwrap(),
            "authorization: Bearer k-12345678 (k-12345678)"
        );
        assert_eq!(
            key("Authorization", "{}", "Token k-12345678").unwrap(),
            "authorization: Token k-12345678 (k-12345678)"
        );
        assert_eq!(key("Host", "{}", "k-12345678"), Err(BadStaticKey::Header));
        assert_eq!(key("a b", "{}", "k-12345678"), Err(BadStaticKey::Header));
        assert_eq!(key("X-Api-Key", "Bearer", "k-12345678"), Err(BadStaticKey::Format));
        assert_eq!(key("X-Api-Key", "{}", "short"), Err(BadStaticKey::Key));
        assert_eq!(key("X-Api-Key", "{}", "k-12345678\r\nX: y"), Err(BadStaticKey::Key));
    }
}
