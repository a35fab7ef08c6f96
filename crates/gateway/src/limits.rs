//! How many calls may be under way: in all, and for one run, so that no agent starves the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use ringfence_core::{Refusal, RefusalClass, Retry, RunId, Wall};
use tokio_util::sync::CancellationToken;

/// How many calls may be under way at the same time.
#[derive(Clone, Copy, Debug)]
pub struct CallLimits {
    /// In all.
    pub total: usize,
    /// In one run.
    pub per_run: usize,
}

impl Default for CallLimits {
    fn default() -> Self {
        Self { total: 512, per_run: 64 }
    }
}

pub(crate) struct UnderWay {
    limits: CallLimits,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    total: usize,
    per_run: HashMap<RunId, OfRun>,
}

#[derive(Default)]
struct OfRun {
    calls: usize,
    ended: CancellationToken,
}

/// A place among the calls under way; dropping it frees the place.
pub(crate) struct Place {
    of: Arc<UnderWay>,
    run: RunId,
    ended: CancellationToken,
}

impl Place {
    /// Cancelled once the run has ended.
    pub(crate) fn ended(&self) -> &CancellationToken {
        &self.ended
    }
}

impl UnderWay {
    pub(crate) fn new(limits: CallLimits) -> Arc<Self> {
        Arc::new(Self { limits, counts: Mutex::default() })
    }

    /// Takes a place, or says that the agent has to wait.
    pub(crate) fn enter(self: &Arc<Self>, run: &RunId) -> Result<Place, Refusal> {
        let Ok(mut counts) = self.counts.lock() else { return Err(full("the gateway")) };
        if counts.total >= self.limits.total {
            return Err(full("the gateway"));
        }
        let of_run = counts.per_run.entry(run.clone()).or_default();
        if of_run.calls >= self.limits.per_run {
            return Err(full("this run"));
        }
        of_run.calls += 1;
        let ended = of_run.ended.clone();
        counts.total += 1;
        Ok(Place { of: self.clone(), run: run.clone(), ended })
    }
}

impl UnderWay {
    /// Tells the calls of a run that it has ended.
    pub(crate) fn end(&self, run: &RunId) {
        let Ok(counts) = self.counts.lock() else { return };
        if let Some(of_run) = counts.per_run.get(run) {
            of_run.ended.cancel();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Ok(mut counts) = self.of.counts.lock() else { return };
        counts.total = counts.total.saturating_sub(1);
        if let Some(of_run) = counts.per_run.get_mut(&self.run) {
            of_run.calls = of_run.calls.saturating_sub(1);
            if of_run.calls == 0 {
                counts.per_run.remove(&self.run);
            }
        }
    }
}

fn full(what: &str) -> Refusal {
    let message = format!("{what} has as many calls under way as it may; wait for one to end");
    Refusal::new("too_many_calls", RefusalClass::Budget, Wall::Limits, Retry::Later, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_is_full_leaves_room_for_others_and_for_itself_later() {
        let run = |name: &str| serde_json::from_str::<RunId>(&format!("\"{name}\"")).unwrap();
        let under_way = UnderWay::new(CallLimits { total: 3, per_run: 2 });
        let first = under_way.enter(&run("a")).ok();
        let _second = under_way.enter(&run("a")).ok().unwrap();
        assert_eq!(under_way.enter(&run("a")).err().map(|refusal| refusal.code), Some("too_many_calls"));
        let _other = under_way.enter(&run("b")).ok().unwrap();
        assert!(under_way.enter(&run("c")).is_err());
        drop(first);
        assert!(under_way.enter(&run("a")).is_ok());
    }
}
