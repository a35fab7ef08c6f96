//! The parameters of a request: each at most once (RFC 6749 §3.1), an empty one as good as none.

use std::collections::BTreeMap;

use super::answer::Refused;

/// The longest request that is read, in bytes.
pub(super) const BYTES_MAX: usize = 32 << 10;
/// Parameters of one request at the most.
const PARAMETERS_MAX: usize = 64;

/// No `Debug`: secrets are among them.
pub(super) struct Parameters(BTreeMap<String, String>);

impl Parameters {
    /// Reads `application/x-www-form-urlencoded`, of a body or of a query.
    pub(super) fn read(encoded: &[u8]) -> Result<Self, Refused> {
        let mut parameters = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(encoded) {
            if parameters.len() >= PARAMETERS_MAX {
                return Err(Refused::new("invalid_request", "there are too many parameters"));
            }
            if parameters.insert(name.clone().into_owned(), value.into_owned()).is_some() {
                let why = format!("`{name}` stands twice; write it once");
                return Err(Refused::new("invalid_request", why));
            }
        }
        Ok(Self(parameters))
    }

    pub(super) fn optional(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(super) fn required(&self, name: &str) -> Result<&str, Refused> {
        let lacks = || Refused::new("invalid_request", format!("`{name}` is missing; send it"));
        self.optional(name).ok_or_else(lacks)
    }

    /// The words of a list that is parted by spaces, each once.
    pub(super) fn words(&self, name: &str) -> Vec<String> {
        let mut words: Vec<String> = Vec::new();
        for word in self.optional(name).unwrap_or_default().split(' ').filter(|word| !word.is_empty()) {
            if !words.iter().any(|known| known == word) {
                words.push(word.to_owned());
            }
        }
        words
    }
}
