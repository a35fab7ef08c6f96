//! Which tools each caller can see. The policies are asked of all tools once a minute for each caller, not for each list or
//! each name that is unknown, and of one caller at a time, so that nobody who asks without end takes the time of others.
//!
//! This is what is *named* to a caller. Whether a tool may be called is decided anew each time.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringfence_core::{AgentId, GroupName, Instant, Label, Run, RunId};
use tokio::sync::Semaphore;

/// How long a view is kept, in milliseconds: as long as clients are told to keep a list.
const KEEP_MS: u64 = 60_000;
/// Callers whose views are kept.
const KEPT_MAX: usize = 1_000;
/// How long a caller waits for its turn.
const TURN_WAIT: Duration = Duration::from_secs(10);

/// For each tool of the action-space, in its order, whether it is visible.
pub(crate) type View = Arc<[bool]>;

pub(crate) struct Visible {
    kept: Mutex<HashMap<Viewer, Kept>>,
    turn: Semaphore,
}

/// Everything that a policy can tell callers apart by, but for the time.
#[derive(Clone, Eq, Hash, PartialEq)]
struct Viewer {
    issuer: String,
    subject: String,
    groups: BTreeSet<GroupName>,
    agent: AgentId,
    run: RunId,
    labels: BTreeSet<Label>,
}

struct Kept {
    view: View,
    since: Instant,
}

impl Viewer {
    fn of(run: &Run) -> Self {
        let principal = run.principal();
        Self {
            issuer: principal.issuer().to_owned(),
            subject: principal.subject().to_owned(),
            groups: principal.groups().clone(),
            agent: run.agent().clone(),
            run: run.id().clone(),
            labels: run.labels().clone(),
        }
    }
}

impl Visible {
    pub(crate) fn new() -> Self {
        Self { kept: Mutex::default(), turn: Semaphore::new(1) }
    }

    /// What this run sees: as it was kept, or as `look` finds it, away from the threads that carry calls. `None` where its turn
    /// does not come.
    pub(crate) async fn view(
        &self,
        run: &Run,
        now: Instant,
        look: impl FnOnce() -> Vec<bool> + Send + 'static,
    ) -> Option<View> {
        let viewer = Viewer::of(run);
        if let Some(view) = self.find(&viewer, now) {
            return Some(view);
        }
        let _turn = tokio::time::timeout(TURN_WAIT, self.turn.acquire()).await.ok()?.ok()?;
        // Whoever had the turn before may have looked for the same caller.
        if let Some(view) = self.find(&viewer, now) {
            return Some(view);
        }
        let view: View = tokio::task::spawn_blocking(look).await.ok()?.into();
        self.keep(viewer, Kept { view: view.clone(), since: now });
        Some(view)
    }

    fn find(&self, viewer: &Viewer, now: Instant) -> Option<View> {
        let kept = self.kept.lock().ok()?;
        kept.get(viewer).filter(|kept| is_fresh(kept, now)).map(|kept| kept.view.clone())
    }

    fn keep(&self, viewer: Viewer, view: Kept) {
        let Ok(mut kept) = self.kept.lock() else { return };
        if kept.len() >= KEPT_MAX {
            kept.retain(|_, kept| is_fresh(kept, view.since));
        }
        if kept.len() >= KEPT_MAX
            && let Some(oldest) =
                kept.iter().min_by_key(|(_, kept)| kept.since).map(|(viewer, _)| viewer.clone())
        {
            kept.remove(&oldest);
        }
        kept.insert(viewer, view);
    }
}

fn is_fresh(kept: &Kept, now: Instant) -> bool {
    now.0.abs_diff(kept.since.0) < KEEP_MS
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use ringfence_core::{Authorities, Claims, Principal};

    use super::*;

    fn run(subject: &str, labels: &[Label]) -> Run {
        let verifier = Authorities::establish().verifier;
        let principal =
            Principal::verified(&verifier, "i".into(), subject.into(), BTreeSet::new(), Claims::new());
        let (id, agent) = (RunId::new(uuid::Uuid::nil()), AgentId::new("a").unwrap());
        Run::new(id, principal, agent, Instant(0), Arc::default(), labels.iter().copied().collect())
    }

    #[tokio::test]
    async fn whoever_asks_again_and_again_is_looked_for_once() {
        let (visible, looks) = (Visible::new(), Arc::new(AtomicUsize::new(0)));
        let view = async |run: &Run, at: u64| {
            let looks = looks.clone();
            let look = move || vec![looks.fetch_add(1, Ordering::Relaxed) == 0];
            visible.view(run, Instant(at), look).await.unwrap()
        };
        let looked = || looks.load(Ordering::Relaxed);
        let bob = run("bob", &[]);
        let first = view(&bob, 0).await;
        // Many at once: whoever waits for its turn finds what the one before it found.
        let (second, third) = tokio::join!(view(&bob, 1), view(&bob, KEEP_MS - 1));
        assert_eq!((&*first, &*second, &*third, looked()), (&[true][..], &[true][..], &[true][..], 1));
        // The controls: whatever a policy could tell apart is looked for anew, and so is what is old.
        view(&run("bob", &[Label::Untrusted]), 1).await;
        view(&run("eve", &[]), 1).await;
        view(&bob, KEEP_MS).await;
        assert_eq!(looked(), 4);
    }

    #[tokio::test]
    async fn many_callers_take_bounded_room() {
        let visible = Visible::new();
        for number in 0..KEPT_MAX + 10 {
            let at = Instant(number as u64);
            visible.view(&run(&number.to_string(), &[]), at, Vec::new).await.unwrap();
        }
        assert_eq!(visible.kept.lock().unwrap().len(), KEPT_MAX);
        let oldest = visible.view(&run("0", &[]), Instant(0), || vec![true]).await.unwrap();
        assert_eq!(&*oldest, [true], "the oldest made room");
    }
}
