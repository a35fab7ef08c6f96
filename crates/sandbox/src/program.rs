//! What runs in a sandbox: a program, with files; never what the sandbox is.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What runs in it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Program {
    /// The program's text.
    pub source: String,
    /// Files that it finds in `/work/in`.
    pub files: Vec<InputFile>,
    /// Less than the profile's time.
    pub wall_max: Option<Duration>,
    /// Less than the profile's bytes kept of each output.
    pub output_bytes_max: Option<u64>,
}

impl Program {
    /// A program without files, with all that its profile allows.
    #[must_use]
    pub fn new(source: impl Into<String>) -> Self {
        Self { source: source.into(), ..Self::default() }
    }
}

/// One file for a program.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct InputFile {
    /// A plain name: letters, digits, `.`, `-` and `_`, not beginning with a dot.
    pub name: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

impl InputFile {
    pub(crate) fn has_plain_name(&self) -> bool {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        !self.name.is_empty()
            && self.name.len() <= 255
            && !self.name.starts_with('.')
            && self.name.bytes().all(is_plain)
    }
}
