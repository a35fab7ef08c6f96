//! What isolates a program. Each backend is one module that implements [`Backend`]; nothing else knows which there are but
//! [`crate::Sandbox`].
//!
//! What a backend owes, whatever it is made of (a microVM would be one more module):
//! - It runs a program once in an environment built for it, and destroys that before it returns: `nothing_left` is looked at,
//!   not assumed.
//! - What the profile names is in force, or it refuses with the layer's name. It never falls back to anything weaker.
//! - The program's words choose nothing: not a path of the host, not a mount, not an address, not a limit above the profile's.
//! - It ends a run within a moment of `cancelled`, of the profile's time, and of being dropped.
//! - `watch` hears output as it comes.

use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::{Outcome, Program, Refused, Watch};

/// One way to isolate programs of one profile.
#[async_trait]
pub(crate) trait Backend: Send + Sync {
    /// Makes ready whatever can be ready before the first program comes.
    async fn warm(&self) -> Result<(), Refused>;

    /// Runs one program in a sandbox of its own, which is gone when this returns.
    async fn run(
        &self,
        program: Program,
        watch: Arc<dyn Watch>,
        cancelled: CancellationToken,
    ) -> Result<Outcome, Refused>;

    /// Ends whatever waits for programs, and returns when it is gone.
    async fn close(&self);

    /// Opens a sandbox that takes one program after another, until it is dropped.
    async fn session(&self) -> Result<Box<dyn Kernel>, Refused>;
}

/// A sandbox that keeps its state from one program to the next. Dropping it destroys it.
#[async_trait]
pub(crate) trait Kernel: Send {
    /// Runs the next program. Where the sandbox has ended with it, by its time or by its own doing, `is_over` says so.
    async fn run(
        &mut self,
        program: Program,
        watch: Arc<dyn Watch>,
        cancelled: CancellationToken,
    ) -> Result<Outcome, Refused>;

    /// Whether it takes no further program.
    fn is_over(&self) -> bool;
}
