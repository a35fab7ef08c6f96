//! A stop that loses nothing: calls under way finish, and what does not finish in time is closed as *unknown*.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The tasks of calls under way, and the signal to give them up.
#[derive(Clone, Default)]
pub(crate) struct Shutdown {
    pub(crate) calls: TaskTracker,
    pub(crate) give_up: CancellationToken,
}

impl Shutdown {
    /// Waits for calls under way, at most `grace`; then gives the rest up and waits for their closing entries.
    pub(crate) async fn finish(&self, grace: Duration) {
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
