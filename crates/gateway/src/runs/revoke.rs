//! A revocation takes effect here: no call starts, programs die, minted credentials are dropped.

use std::time::Duration;

use ringfence_core::RunId;
use ringfence_store::{NoRun, NotRecorded, Revocation, Revoked};
use tokio_util::sync::CancellationToken;

use crate::Gateway;
use crate::pipeline::Inner;

/// How often it is looked for what other processes ended. From the moment of a revocation no call starts; this is for
/// what runs already.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Why something was not revoked, or not wholly.
#[derive(Debug, thiserror::Error)]
pub enum NotRevoked {
    /// There is no such run.
    #[error("there is no such run")]
    Unknown,
    /// Nothing was done. For the log.
    #[error("nothing was revoked: {0}")]
    Failed(String),
    /// It is revoked, but the journal could not be written.
    #[error("it is revoked, but that could not be recorded: {0}")]
    NotRecorded(#[source] NotRecorded),
}

impl Gateway {
    /// Revokes what is named: when this returns, no call of those runs starts, and their programs are being killed.
    pub async fn revoke(&self, revocation: &Revocation<'_>) -> Result<Revoked, NotRevoked> {
        self.inner.revoke(revocation).await
    }

    /// Ends what belongs to runs that expired, or that another process revoked, until `stop`.
    pub async fn watch_runs(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let inner = self.inner.clone();
            let looked = tokio::task::spawn_blocking(move || inner.look_for_ended_runs()).await;
            if let Ok(Err(error)) = looked {
                tracing::error!(%error, "it could not be looked for runs that have ended");
            }
        }
    }
}

impl Inner {
    pub(crate) async fn revoke(&self, revocation: &Revocation<'_>) -> Result<Revoked, NotRevoked> {
        let now = self.clock.now();
        let revoked = self.runs.stored.revoke(revocation, now).map_err(|error| match error {
            NoRun::Unknown => NotRevoked::Unknown,
            other => NotRevoked::Failed(other.to_string()),
        })?;
        for run in &revoked.runs {
            self.end_run(run);
        }
        self.journal.run_revoked(revocation, &revoked, now).await.map_err(NotRevoked::NotRecorded)?;
        Ok(revoked)
    }

    fn look_for_ended_runs(&self) -> Result<(), NoRun> {
        self.runs.stored.expire(self.clock.now())?;
        // Before the list: what ends in between is found again the next time.
        let last = self.runs.stored.last_change()?;
        let Ok(mut seen) = self.runs.seen.lock() else { return Ok(()) };
        if last == *seen {
            return Ok(());
        }
        for run in self.runs.stored.ended_after(*seen)? {
            self.end_run(&run);
        }
        *seen = last;
        Ok(())
    }

    /// Ends everything that belongs to this run: programs under way, its session, its files, its user's token.
    pub(super) fn end_run(&self, run: &RunId) {
        self.under_way.end(run);
        self.systems.end_run(run);
        self.artifacts.forget(run);
        let token = self.runs.subject_tokens.lock().ok().and_then(|mut tokens| tokens.remove(run));
        drop(token);
    }
}
