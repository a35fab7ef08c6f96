//! Who may work on a system next. One run can take at most half of the places, so that no agent starves the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use ringfence_core::RunId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::Watch;

/// Runs whose queues are kept although nobody waits in them.
const IDLE_RUNS_MAX: usize = 1024;

pub(crate) struct Turns {
    all: Arc<Semaphore>,
    share: usize,
    of_runs: Mutex<HashMap<RunId, Arc<Semaphore>>>,
}

/// A turn; dropping it gives it to the next.
pub(crate) struct Turn {
    _of_run: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

/// Why there was no turn.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum NoTurn {
    /// The time was over.
    Late,
    /// Nobody wants the call any more.
    Cancelled,
}

impl Turns {
    /// So many calls at the same time.
    pub(crate) fn new(most: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(most)), share: most.div_ceil(2), of_runs: Mutex::default() }
    }

    /// Waits for a turn, at most until then, and no longer than somebody wants the call. A run's calls wait for one another
    /// first, and only then for other runs'.
    pub(crate) async fn take(&self, run: &RunId, until: Instant, watch: &Watch) -> Result<Turn, NoTurn> {
        tokio::select! {
            biased;
            () = watch.cancelled() => Err(NoTurn::Cancelled),
            turn = timeout_at(until, self.next(run)) => turn.ok().flatten().ok_or(NoTurn::Late),
        }
    }

    async fn next(&self, run: &RunId) -> Option<Turn> {
        let own = self.of_run(run)?;
        let of_run = own.acquire_owned().await.ok()?;
        let of_all = self.all.clone().acquire_owned().await.ok()?;
        Some(Turn { _of_run: of_run, _of_all: of_all })
    }

    fn of_run(&self, run: &RunId) -> Option<Arc<Semaphore>> {
        let mut of_runs = self.of_runs.lock().ok()?;
        if of_runs.len() > IDLE_RUNS_MAX {
            of_runs.retain(|_, own| Arc::strong_count(own) > 1);
        }
        Some(of_runs.entry(run.clone()).or_insert_with(|| Arc::new(Semaphore::new(self.share))).clone())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio_util::sync::CancellationToken;

    use super::*;

    fn run(name: &str) -> RunId {
        serde_json::from_value(name.into()).unwrap()
    }

    #[tokio::test]
    async fn one_run_cannot_take_every_place() {
        let turns = Arc::new(Turns::new(4));
        let soon = || Instant::now() + Duration::from_millis(50);
        let (bob, alice) = (run("bob"), run("alice"));
        let nobody = Watch::default();
        let held = [turns.take(&bob, soon(), &nobody).await, turns.take(&bob, soon(), &nobody).await];
        assert!(held.iter().all(Result::is_ok));
        for _ in 0..100 {
            let (turns, bob) = (turns.clone(), bob.clone());
            tokio::spawn(async move {
                turns.take(&bob, Instant::now() + Duration::from_secs(5), &Watch::default()).await.is_ok()
            });
        }
        tokio::task::yield_now().await;
        assert_eq!(
            turns.take(&bob, soon(), &nobody).await.err(),
            Some(NoTurn::Late),
            "Bob waits for himself"
        );
        assert!(turns.take(&alice, soon(), &nobody).await.is_ok(), "and Alice does not wait for Bob");
    }

    #[tokio::test]
    async fn whoever_is_cancelled_gets_no_turn_even_where_one_is_free() {
        let (turns, bob, cancel) = (Turns::new(1), run("bob"), CancellationToken::new());
        let watch = Watch::new(None, cancel.clone());
        let until = Instant::now() + Duration::from_mins(1);
        let held = turns.take(&bob, until, &watch).await;
        assert!(held.is_ok(), "the control");
        let (waiting, ()) = tokio::join!(turns.take(&bob, until, &watch), async { cancel.cancel() });
        assert_eq!(waiting.err(), Some(NoTurn::Cancelled));
        drop(held);
        assert_eq!(turns.take(&bob, until, &watch).await.err(), Some(NoTurn::Cancelled));
        assert!(turns.take(&bob, until, &Watch::default()).await.is_ok(), "the control");
    }
}
