//! Who looks on while a program runs.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::egress::{self, Decision, Unrecorded};

/// Which of a program's two outputs.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Looks on while a program runs, and records where it connects to: where that cannot be recorded, nothing leaves.
pub trait Watch: egress::Watch {
    /// It wrote something. Called as it comes, before the program has ended; must not wait.
    fn wrote(&self, stream: Stream, bytes: &[u8]);
}

/// Nobody looks on, and so nothing leaves.
#[derive(Clone, Copy, Debug)]
pub struct Unwatched;

impl Watch for Unwatched {
    fn wrote(&self, _: Stream, _: &[u8]) {}
}

#[async_trait]
impl egress::Watch for Unwatched {
    async fn decided(&self, _: &Decision) -> Result<(), Unrecorded> {
        Err(Unrecorded)
    }
}
