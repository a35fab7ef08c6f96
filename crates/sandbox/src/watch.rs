//! Who looks on while a program runs.

use serde::{Deserialize, Serialize};

/// Which of a program's two outputs.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Looks on while a program runs.
pub trait Watch: Send + Sync {
    /// It wrote something. Called as it comes, before the program has ended; must not wait.
    fn wrote(&self, stream: Stream, bytes: &[u8]);
}

/// Nobody looks on.
#[derive(Clone, Copy, Debug)]
pub struct Unwatched;

impl Watch for Unwatched {
    fn wrote(&self, _: Stream, _: &[u8]) {}
}
