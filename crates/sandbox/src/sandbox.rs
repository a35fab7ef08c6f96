//! The front of it all: a profile goes in, programs run.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::attack::{Known, Probe, attack};
use crate::backend::{Backend, Kernel};
use crate::gvisor::Gvisor;
use crate::process::Process;
use crate::remote::Remote;
use crate::{Isolation, Outcome, Profile, Program, Refused, Unwatched, Watch};

/// Sandboxes of one profile.
///
/// Must be used in a tokio runtime, in an executable whose `main` begins with [`crate::enter_if_jail`]. Dropping it destroys
/// whatever still runs.
#[derive(Clone)]
pub struct Sandbox {
    backend: Arc<dyn Backend>,
    known: Known,
}

impl Sandbox {
    /// Takes a profile; nothing is started yet.
    #[must_use]
    pub fn new(profile: Profile) -> Self {
        let known = Known::of(&profile);
        let backend: Arc<dyn Backend> = match profile.isolation.clone() {
            Isolation::Process => Arc::new(Process::new(profile)),
            Isolation::Gvisor(settings) => Arc::new(Gvisor::new(profile, settings)),
            Isolation::Remote(settings) => Arc::new(Remote::new(profile, settings)),
        };
        Self { backend, known }
    }

    /// Makes ready what the profile says, and waits for it.
    pub async fn warm(&self) -> Result<(), Refused> {
        self.backend.warm().await
    }

    /// Lets a sandbox attack itself, and says what was tried and whether it held. Fails where the sandbox cannot be built, or the
    /// attack did not run to its end.
    pub async fn self_attack(&self) -> Result<Vec<Probe>, Refused> {
        attack(self, &self.known).await
    }

    /// Runs a program in a sandbox that is built for it and gone afterwards.
    ///
    /// Completes when nothing of it is left. When `cancelled` is, or when this future is dropped, everything in the sandbox is
    /// killed at once.
    pub async fn run(
        &self,
        program: Program,
        watch: Arc<dyn Watch>,
        cancelled: CancellationToken,
    ) -> Result<Outcome, Refused> {
        check(&program)?;
        self.backend.run(program, watch, cancelled).await
    }

    /// Ends whatever waits for programs, and returns when it is gone.
    pub async fn close(&self) {
        self.backend.close().await;
    }

    /// Opens a sandbox that keeps its state from one program to the next.
    pub async fn session(&self) -> Result<Session, Refused> {
        self.backend.session().await.map(Session)
    }
}

/// A sandbox that keeps its state from one program to the next. Dropping it destroys it, and all in it.
pub struct Session(Box<dyn Kernel>);

impl Session {
    /// Runs the next program.
    pub async fn run(
        &mut self,
        program: Program,
        watch: Arc<dyn Watch>,
        cancelled: CancellationToken,
    ) -> Result<Outcome, Refused> {
        check(&program)?;
        self.0.run(program, watch, cancelled).await
    }

    /// Whether it takes no further program.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.is_over()
    }
}

/// Runs one program in a sandbox of this profile, unwatched, for those who have only one.
pub async fn run(
    profile: &Profile,
    program: Program,
    cancelled: CancellationToken,
) -> Result<Outcome, Refused> {
    let sandbox = Sandbox::new(profile.clone());
    let outcome = sandbox.run(program, Arc::new(Unwatched), cancelled).await;
    sandbox.close().await;
    outcome
}

fn check(program: &Program) -> Result<(), Refused> {
    match program.files.iter().find(|file| !file.has_plain_name()) {
        Some(file) => {
            Err(Refused::new("input", format!("`{}` is not a plain file name", file.name.escape_debug())))
        }
        None => Ok(()),
    }
}
