//! A text that must not be shown: no `Debug`, no `Display`, no `Serialize`, wiped when dropped.

use zeroize::Zeroizing;

/// A token, key or password. It can be compared with nothing and printed by nothing; [`Secret::expose`] is the one way
/// to its text, so that a search for that word finds every use.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a secret text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The secret itself, to be put on a wire and nowhere else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}
