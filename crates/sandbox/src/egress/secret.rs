//! A value that is never printed, logged or serialised, and is wiped when it is dropped.

use std::fmt;

use zeroize::Zeroizing;

/// The shortest secret, in bytes: what is shorter is found in every answer by chance.
const BYTES_MIN: usize = 8;
/// The longest, in bytes.
const BYTES_MAX: usize = 4096;

/// A credential's real value: 8 to 4096 bytes of visible ASCII, so that it fits a header.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

/// It is not a secret that a header can carry.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a secret is 8 to 4096 bytes of visible ASCII")]
pub struct NotASecret;

impl Secret {
    /// Checks and keeps a value.
    pub fn new(value: Zeroizing<String>) -> Result<Self, NotASecret> {
        let fits = (BYTES_MIN..=BYTES_MAX).contains(&value.len());
        if fits && value.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(value))
        } else {
            Err(NotASecret)
        }
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}
