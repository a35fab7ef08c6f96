//! Sandboxes that keep their state from one call of a run to the next: one for each run, destroyed when it was idle or alive for
//! too long, or with the run.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringfence_core::RunId;
use ringfence_sandbox::{Outcome, Program, Refused, Sandbox, Session, Watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Runs that may have a sandbox at the same time.
const SESSIONS_MAX: usize = 256;

pub(crate) struct Sessions {
    sandbox: Sandbox,
    idle: Duration,
    total: Duration,
    of_runs: Mutex<HashMap<RunId, Arc<Held>>>,
}

/// The sandbox of one run; its calls wait for one another.
struct Held {
    session: tokio::sync::Mutex<Option<Open>>,
    /// When it was last used, and so when it is idle.
    used: Mutex<Instant>,
    ended: CancellationToken,
}

struct Open {
    session: Session,
    opened: Instant,
}

impl Sessions {
    pub(crate) fn new(sandbox: Sandbox, idle: Duration, total: Duration) -> Arc<Self> {
        Arc::new(Self { sandbox, idle, total, of_runs: Mutex::default() })
    }

    /// Runs a program in the sandbox of its run, which is opened where there is none.
    pub(crate) async fn run(
        self: &Arc<Self>,
        run: &RunId,
        program: Program,
        watch: Arc<dyn Watch>,
        cancelled: CancellationToken,
    ) -> Result<Outcome, Refused> {
        let held = self.of_run(run)?;
        let mut session = held.session.lock().await;
        let is_old = session.as_ref().is_none_or(|open| open.opened.elapsed() >= self.total);
        let mut open = match session.take() {
            Some(open) if !is_old && !open.session.is_over() => open,
            _ => Open { session: self.sandbox.session().await?, opened: Instant::now() },
        };
        held.touch();
        let left = self.total.saturating_sub(open.opened.elapsed());
        let program =
            Program { wall_max: Some(program.wall_max.map_or(left, |wall| wall.min(left))), ..program };
        let stop = tokio::select! {
            biased;
            () = held.ended.cancelled() => return Err(ended_with_run()),
            ran = open.session.run(program, watch, cancelled) => ran,
        };
        held.touch();
        if !open.session.is_over() {
            *session = Some(open);
        }
        stop
    }

    /// Destroys the sandbox of a run, whatever it does just now.
    pub(crate) fn end(&self, run: &RunId) {
        if let Ok(mut of_runs) = self.of_runs.lock()
            && let Some(held) = of_runs.remove(run)
        {
            held.ended.cancel();
        }
    }

    fn of_run(self: &Arc<Self>, run: &RunId) -> Result<Arc<Held>, Refused> {
        let full = || Refused {
            layer: "session".to_owned(),
            reason: format!("{SESSIONS_MAX} runs have a sandbox of their own already"),
        };
        let mut of_runs = self.of_runs.lock().map_err(|_| full())?;
        if let Some(held) = of_runs.get(run) {
            return Ok(held.clone());
        }
        if of_runs.len() >= SESSIONS_MAX {
            return Err(full());
        }
        let held = Arc::new(Held {
            session: tokio::sync::Mutex::default(),
            used: Mutex::new(Instant::now()),
            ended: CancellationToken::new(),
        });
        of_runs.insert(run.clone(), held.clone());
        tokio::spawn(bury(Arc::downgrade(self), run.clone(), held.clone()));
        Ok(held)
    }
}

/// Waits until a run's sandbox has been idle for too long, and destroys it.
async fn bury(sessions: std::sync::Weak<Sessions>, run: RunId, held: Arc<Held>) {
    loop {
        let Some(idle) = sessions.upgrade().map(|sessions| sessions.idle) else { return };
        let until = held.last_used() + idle;
        tokio::select! {
            () = held.ended.cancelled() => return,
            () = tokio::time::sleep_until(until) => {}
        }
        // One that is in use is not idle.
        let Ok(mut session) = held.session.try_lock() else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        if held.last_used() + idle > Instant::now() {
            continue;
        }
        *session = None;
        if let Some(sessions) = sessions.upgrade()
            && let Ok(mut of_runs) = sessions.of_runs.lock()
        {
            of_runs.remove(&run);
        }
        return;
    }
}

impl Held {
    fn touch(&self) {
        if let Ok(mut used) = self.used.lock() {
            *used = Instant::now();
        }
    }

    fn last_used(&self) -> Instant {
        self.used.lock().map_or_else(|_| Instant::now(), |used| *used)
    }
}

fn ended_with_run() -> Refused {
    Refused { layer: "session".to_owned(), reason: "the run has ended".to_owned() }
}
