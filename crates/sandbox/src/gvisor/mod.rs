//! The gVisor backend: the program's kernel is `runsc`'s, a program itself (the *sentry*), and only that talks to the host's.
//!
//! Four processes hold a sandbox. The *launcher* (this executable run anew) gives *init* namespaces of its own and a user of
//! its own; init builds a bundle on a tmpfs that nobody else sees and starts `runsc`; inside, the *guest* (this executable
//! once more) puts up the system call filter, starts the interpreter and hands out what it left in `/artifacts`. Since init is
//! the first of its pid namespace and the bundle is in its mount namespace, nothing outlives it: no process, no folder, no state.
//!
//! What comes out of the guest is the program's word: the gateway caps all of it, and believes it of that program alone.

mod bundle;
mod end;
mod guest;
mod init;
mod launcher;
mod slot;
mod talk;
mod verify;

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::backend::{Backend, Kernel};
use crate::profile::GvisorSettings;
use crate::{Language, Outcome, Profile, Program, Refused, Watch};
use slot::Slot;

/// What the launcher is called in the process table.
const LAUNCHER_NAME: &str = "ringfence-gvisor";
/// What the guest is called, as a file and in the sandbox's process table.
const GUEST_NAME: &str = "ringfence-guest";

/// Becomes the launcher or the guest, where this process was started as one, and never returns then.
pub(crate) fn enter_if(name: &OsStr) {
    if name == LAUNCHER_NAME {
        std::process::exit(launcher::main());
    }
    // The loader of a dynamic executable gives it the path that it was found at.
    if Path::new(name).file_name().is_some_and(|name| name == GUEST_NAME) {
        std::process::exit(guest::main());
    }
}

/// The gVisor backend for one profile.
pub(crate) struct Gvisor {
    profile: Arc<Profile>,
    settings: Arc<GvisorSettings>,
    /// Filled once a sandbox was up.
    tried: OnceCell<()>,
}

impl Gvisor {
    pub(crate) fn new(profile: Profile, settings: GvisorSettings) -> Self {
        Self { profile: Arc::new(profile), settings: Arc::new(settings), tried: OnceCell::new() }
    }

    async fn build(&self) -> Result<Slot, Refused> {
        if self.profile.egress.is_some() {
            return Err(Refused::new(
                "egress",
                "gVisor's sandboxes have no way out yet; take the built-in backend",
            ));
        }
        Slot::build(self.profile.clone(), self.settings.clone()).await
    }
}

#[async_trait]
impl Backend for Gvisor {
    /// Looks once whether a sandbox can be built. None is kept: one takes hundreds of milliseconds and some 60 MiB.
    async fn warm(&self) -> Result<(), Refused> {
        self.tried.get_or_try_init(async || self.build().await?.discard().await).await.map(|&()| ())
    }

    async fn run(
        &self,
        program: Program,
        watch: Arc<dyn Watch>,
        cancelled: CancellationToken,
    ) -> Result<Outcome, Refused> {
        self.build().await?.run(program, watch, cancelled).await
    }

    async fn close(&self) {}

    async fn session(&self) -> Result<Box<dyn Kernel>, Refused> {
        if self.profile.language != Language::Python {
            return Err(Refused::new("session", "only Python keeps its state from one program to the next"));
        }
        Ok(Box::new(Held(Some(self.build().await?))))
    }
}

/// The sandbox of a session, while there is one.
struct Held(Option<Slot>);

#[async_trait]
impl Kernel for Held {
    async fn run(
        &mut self,
        program: Program,
        watch: Arc<dyn Watch>,
        cancelled: CancellationToken,
    ) -> Result<Outcome, Refused> {
        // Taken out: whoever gives this up half-way has destroyed it.
        let slot = self.0.take().ok_or_else(|| Refused::new("session", "it is over"))?;
        let (outcome, slot) = slot.run_next(program, watch, cancelled).await?;
        self.0 = slot;
        Ok(outcome)
    }

    fn is_over(&self) -> bool {
        self.0.is_none()
    }
}
