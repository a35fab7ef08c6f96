//! The built-in backend: Linux's own walls, without a daemon, an image or root.
//!
//! Here is the gateway's side of it. A *nursery* (`jail::nursery`) begins sandboxes; a *slot* is one of them, built, confined and
//! looked at; the *pool* keeps some that wait.

pub(crate) mod artifacts;
mod capture;
pub(crate) mod cgroup;
pub(crate) mod cgroups;
mod end;
mod frames;
mod kernel_file;
mod nursery;
mod part;
mod pool;
mod slot;
mod verify;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::backend::{Backend, Kernel};
use crate::{Language, Outcome, Profile, Program, Refused, Watch};
use pool::Pool;
use slot::Slot;

pub(crate) use end::microseconds;
pub(crate) use nursery::Socket;
pub(crate) use part::{Outputs, in_memory};
pub(crate) use verify::pid_of;

/// How long a program may run before its sandbox is replaced; where it ends sooner, that is when.
const REPLACE_AFTER: Duration = Duration::from_millis(20);

/// The built-in backend for one profile.
pub(crate) struct Process {
    profile: Arc<Profile>,
    pool: Arc<Pool>,
}

impl Process {
    pub(crate) fn new(profile: Profile) -> Self {
        let profile = Arc::new(profile);
        Self { pool: Arc::new(Pool::new(profile.clone())), profile }
    }
}

#[async_trait]
impl Backend for Process {
    async fn warm(&self) -> Result<(), Refused> {
        self.pool.fill().await
    }

    async fn run(
        &self,
        program: Program,
        watch: Arc<dyn Watch>,
        cancelled: CancellationToken,
    ) -> Result<Outcome, Refused> {
        let slot = self.pool.take().await?;
        let run = slot.run(program, watch, cancelled);
        tokio::pin!(run);
        let ended = tokio::time::timeout(REPLACE_AFTER, &mut run).await;
        self.pool.replace();
        match ended {
            Ok(outcome) => outcome,
            Err(_still_running) => run.await,
        }
    }

    async fn close(&self) {
        self.pool.close().await;
    }

    async fn session(&self) -> Result<Box<dyn Kernel>, Refused> {
        if self.profile.language != Language::Python {
            return Err(Refused::new("session", "only Python keeps its state from one program to the next"));
        }
        Ok(Box::new(Held(Some(self.pool.take().await?))))
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
