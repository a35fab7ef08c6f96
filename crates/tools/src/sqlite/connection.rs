//! A connection that can prepare only what the current grant allows, and that stops at its deadline.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringfence_core::Effect;
use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags};

use super::grant::{Access, Excess, Grant, judge};

/// The longest string, blob or row, in bytes.
const LENGTH_MAX: i32 = 16 << 20;
/// Virtual machine steps between two looks at the clock: a few microseconds.
const STEPS_PER_LOOK: i32 = 1_000;

/// What the authorizer does at the moment.
enum Mode {
    /// Collects what a statement touches and refuses what no tool of this effect may.
    Prove { effect: Effect, found: Grant, excess: Vec<Excess> },
    /// Allows exactly this.
    Hold(Arc<Grant>),
    /// Allows the gateway's own `BEGIN`, `COMMIT` and `ROLLBACK`.
    Transact,
    /// Allows nothing.
    Closed,
}

/// A connection whose authorizer is installed for good.
pub(crate) struct Guarded {
    connection: Connection,
    mode: Arc<Mutex<Mode>>,
    clock: Arc<Clock>,
}

/// When the running statement has to stop.
struct Clock {
    start: Instant,
    /// Milliseconds after `start`; `u64::MAX` means never.
    deadline: AtomicU64,
}

impl Clock {
    fn is_over(&self) -> bool {
        self.start.elapsed().as_millis() >= u128::from(self.deadline.load(Ordering::Relaxed))
    }
}

impl Guarded {
    /// Opens an existing database: read-only unless the effect is more than a read. Nothing is created.
    pub(crate) fn open(path: &Path, effect: Effect) -> rusqlite::Result<Self> {
        let access = match effect {
            Effect::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
            Effect::Write | Effect::Irreversible => OpenFlags::SQLITE_OPEN_READ_WRITE,
        };
        let mut connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(Duration::from_secs(2))?;
        harden(&connection)?;
        let clock = Arc::new(Clock { start: Instant::now(), deadline: AtomicU64::new(u64::MAX) });
        let mode = Arc::new(Mutex::new(Mode::Closed));
        let (held_mode, held_clock) = (mode.clone(), clock.clone());
        connection.authorizer(Some(move |context: AuthContext<'_>| authorize(&held_mode, &context)))?;
        connection.progress_handler(STEPS_PER_LOOK, Some(move || held_clock.is_over()))?;
        Ok(Self { connection, mode, clock })
    }

    /// Prepares under `judge` and returns what `look` sees of the connection, what was touched and what was too much.
    pub(crate) fn prove<T>(
        &mut self,
        effect: Effect,
        look: impl FnOnce(&Connection) -> T,
    ) -> (T, Grant, Vec<Excess>) {
        self.set(Mode::Prove { effect, found: Grant::default(), excess: Vec::new() });
        let seen = look(&self.connection);
        match self.set(Mode::Closed) {
            Some(Mode::Prove { found, excess, .. }) => (seen, found, excess),
            _ => (
                seen,
                Grant::default(),
                vec![Excess { what: "the authorizer failed".into(), instead: "report this" }],
            ),
        }
    }

    /// Lets `work` prepare exactly what the grant allows, until the deadline.
    pub(crate) fn hold<T>(
        &mut self,
        grant: &Arc<Grant>,
        deadline: Instant,
        work: impl FnOnce(&Connection) -> T,
    ) -> T {
        let after = deadline.saturating_duration_since(self.clock.start).as_millis();
        self.clock.deadline.store(u64::try_from(after).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.set(Mode::Hold(grant.clone()));
        let done = work(&self.connection);
        self.set(Mode::Closed);
        self.clock.deadline.store(u64::MAX, Ordering::Relaxed);
        done
    }

    /// The gateway's own `BEGIN IMMEDIATE`, `COMMIT` or `ROLLBACK`.
    pub(crate) fn transact(&mut self, statement: &'static str) -> rusqlite::Result<()> {
        self.set(Mode::Transact);
        let done = self.connection.prepare_cached(statement).and_then(|mut statement| statement.execute([]));
        self.set(Mode::Closed);
        done.map(drop)
    }

    /// Whether nothing is left open on it.
    pub(crate) fn is_clean(&self) -> bool {
        self.connection.is_autocommit()
    }

    fn set(&self, mode: Mode) -> Option<Mode> {
        self.mode.lock().ok().map(|mut held| std::mem::replace(&mut *held, mode))
    }
}

fn harden(connection: &Connection) -> rusqlite::Result<()> {
    for (setting, on) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_DQS_DML, false),
        (DbConfig::SQLITE_DBCONFIG_DQS_DDL, false),
        (DbConfig::SQLITE_DBCONFIG_WRITABLE_SCHEMA, false),
    ] {
        connection.set_db_config(setting, on)?;
    }
    for (limit, most) in [
        (Limit::SQLITE_LIMIT_LENGTH, LENGTH_MAX),
        (Limit::SQLITE_LIMIT_ATTACHED, 0),
        (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1_000),
        (Limit::SQLITE_LIMIT_EXPR_DEPTH, 200),
    ] {
        connection.set_limit(limit, most)?;
    }
    Ok(())
}

fn authorize(mode: &Mutex<Mode>, context: &AuthContext<'_>) -> Authorization {
    let Ok(mut mode) = mode.lock() else { return Authorization::Deny };
    let allowed = match &mut *mode {
        Mode::Closed => false,
        // Its text is the gateway's own; SQLite names only some of the operations.
        Mode::Transact => matches!(context.action, AuthAction::Transaction { .. }),
        Mode::Hold(grant) => touched(context).is_some_and(|access| grant.0.contains(&access)),
        Mode::Prove { effect, found, excess } => match judge(context, *effect) {
            Ok(access) => {
                found.0.insert(access);
                true
            }
            Err(too_much) => {
                excess.push(too_much);
                false
            }
        },
    };
    if allowed { Authorization::Allow } else { Authorization::Deny }
}

/// What is touched, judged as leniently as any effect may be: the grant itself decides.
fn touched(context: &AuthContext<'_>) -> Option<Access> {
    judge(context, Effect::Irreversible).ok()
}
