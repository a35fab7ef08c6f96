//! A stop that loses nothing: calls under way finish, and what does not finish in time is closed as *unknown*.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// The tasks of calls under way, and the signal to give them up.
#[derive(Clone, Default)]
pub(crate) struct Shutdown {
    pub(crate) calls: TaskTracker,
    is_stopping: Arc<AtomicBool>,
    pub(crate) give_up: CancellationToken,
}

impl Shutdown {
    /// A place among the calls that are waited for; none once it stops. Taken before it is asked whether it stops, so that
    /// whoever stops it either waits for the call or keeps it out.
    pub(crate) fn enter(&self) -> Option<TaskTrackerToken> {
        let place = self.calls.token();
        (!self.is_stopping.load(Ordering::SeqCst)).then_some(place)
    }

    /// Waits for calls under way, at most `grace`; then gives the rest up and waits for their closing entries.
    pub(crate) async fn finish(&self, grace: Duration) {
        self.is_stopping.store(true, Ordering::SeqCst);
        self.calls.close();
        if tokio::time::timeout(grace, self.calls.wait()).await.is_err() {
            tracing::warn!(
                calls = self.calls.len(),
                "calls did not finish in time and are closed as unknown"
            );
            self.give_up.cancel();
            let _closed_in_time = tokio::time::timeout(Duration::from_secs(5), self.calls.wait()).await;
        }
    }
}
