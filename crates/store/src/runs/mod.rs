//! The runs, beside the journal: who may still act, until when, how much, and what was revoked.
//!
//! What this file says is in force at once for every process that has it open. The journal proves what happened; this says
//! what may happen next.

mod file;
mod revoke;
mod row;

use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use ringfence_core::{AgentId, Claims, Digest, Instant, RunId, Terms};
use row::{COLUMNS, ending, id, instant, sql, stored, unsigned};
use rusqlite::{Connection, OptionalExtension as _, Row, TransactionBehavior, named_params, params};
use serde::Serialize;

use crate::Journal;

pub use file::RunsUnusable;
pub use revoke::{Revocation, Revoked, Scope};

/// How often the time of the last use is written, in milliseconds.
const USED_EVERY_MS: u64 = 5_000;
/// How long a run that has ended can still be listed, in milliseconds: 30 days.
const LISTED_MS: u64 = 30 * 24 * 3_600_000;

/// Runs of one application that may go on at the same time.
const LIVE_MAX: u64 = 20_000;

/// The runs of a project.
pub struct Runs(Mutex<Connection>);

/// Who acts, and for whom: what runs are told apart by where no application started them.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// The issuer of the user's token.
    pub issuer: &'a str,
    /// The user.
    pub subject: &'a str,
    /// The OAuth client.
    pub agent: &'a AgentId,
    /// The claims of the user's token.
    pub claims: &'a Claims,
    /// What that token allows.
    pub scopes: &'a str,
    /// When the user logged in, as far as the token says so.
    pub login: Option<Instant>,
}

/// A run that an application starts.
pub struct Starting<'a> {
    /// Its name, which is fresh.
    pub id: RunId,
    /// The hash of its token.
    pub token: Digest,
    /// The thumbprint of the key that its token is bound to (RFC 7638).
    pub key: Option<&'a str>,
    /// Who acts, and for whom.
    pub owner: Owner<'a>,
    /// What it is started with.
    pub terms: &'a Terms,
    /// When it ends.
    pub expires: Instant,
}

/// How long a run lives that no application started, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Lifetime {
    /// Without a call.
    pub idle_ms: u64,
    /// In all.
    pub total_ms: u64,
}

/// A run that the journal does not know of yet: nothing may happen in it before [`Runs::recorded`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Begun {
    /// The run before it, whose labels it takes over: none where the user has logged in since.
    pub follows: Option<RunId>,
}

/// A run as it is stored.
#[derive(Clone, Debug, Serialize)]
pub struct StoredRun {
    /// Its name.
    pub id: RunId,
    /// The issuer that vouches for the user.
    pub issuer: String,
    /// The user.
    pub subject: String,
    /// The OAuth client.
    pub agent: AgentId,
    /// What it was started with.
    pub terms: Terms,
    /// When it began.
    pub started: Instant,
    /// When it ends, at the latest.
    pub expires: Instant,
    /// When it was last used, to a few seconds.
    pub used: Instant,
    /// How many calls it made; counted only where it has a budget of them.
    pub calls: u64,
    /// When and how it ended, if it has.
    pub ended: Option<(Instant, Ending)>,
    /// The claims of its user's token.
    #[serde(skip)]
    pub claims: Claims,
    /// What that token allowed.
    #[serde(skip)]
    pub scopes: String,
    /// The thumbprint of the key that its token is bound to.
    #[serde(skip)]
    pub key: Option<String>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// Its time was up.
    Expired,
    /// Nobody used it for too long.
    Idle,
    /// Somebody revoked it.
    Revoked,
}

/// Why a run may not go on, or not begin.
#[derive(Debug, thiserror::Error)]
pub enum NoRun {
    /// No run has this token or name.
    #[error("this is no token of a run")]
    Unknown,
    /// It has ended.
    #[error("the run has ended")]
    Ended(Ending),
    /// What was revoked is not made anew before the user logs in again.
    #[error("this was revoked; log in anew")]
    LoginNeeded,
    /// It has made all the calls that it may.
    #[error("the run may make {0} calls and has made them")]
    Spent(u64),
    /// Its application has as many runs as it may.
    #[error("this application has {0} runs that go on; end some of them")]
    TooMany(u64),
    /// The file cannot be read or written. For the log.
    #[error("the runs cannot be read: {0}")]
    Unusable(String),
}

impl From<rusqlite::Error> for NoRun {
    fn from(error: rusqlite::Error) -> Self {
        Self::Unusable(error.to_string())
    }
}

/// Which runs are listed.
#[derive(Clone, Debug, Default)]
pub struct RunFilter {
    /// Only those of this agent.
    pub agent: Option<String>,
    /// Only those of this user.
    pub subject: Option<String>,
    /// Only those that go on.
    pub live: bool,
}

impl Runs {
    /// Opens the runs, or makes them where the journal knows of none: a file that is gone would bring back what was revoked.
    pub fn open(folder: &Path, journal: &Journal, now: Instant) -> Result<Self, RunsUnusable> {
        let connection = file::open(folder, journal)?;
        let runs = Self(Mutex::new(connection));
        runs.expire(now).map_err(|error| RunsUnusable::Failed("runs.db".into(), error.to_string()))?;
        Ok(runs)
    }

    /// Opens the runs where there are any, to look at them or to revoke.
    pub fn open_existing(folder: &Path) -> Result<Self, RunsUnusable> {
        file::open_existing(folder).map(Mutex::new).map(Self)
    }

    /// Starts a run with a token of its own.
    pub fn start(&self, starting: &Starting<'_>, now: Instant) -> Result<(), NoRun> {
        let mut connection = self.connection()?;
        let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        revoke::is_fresh(&change, &starting.owner, None)?;
        let application = starting.terms.application.as_ref().map(AgentId::as_str);
        let live: i64 = change
            .prepare_cached("SELECT count(*) FROM runs WHERE terms ->> 'application' = ?1 AND ended IS NULL")?
            .query_row([application], |row| row.get(0))?;
        if unsigned(live) >= LIVE_MAX {
            return Err(NoRun::TooMany(LIVE_MAX));
        }
        row::insert(&change, starting, Some(starting.token.as_bytes()), now)?;
        Ok(change.commit()?)
    }

    /// The run with this token, if it goes on.
    pub fn with_token(&self, token: &Digest, now: Instant) -> Result<StoredRun, NoRun> {
        let connection = self.connection()?;
        let mut statement =
            connection.prepare_cached(&format!("SELECT {COLUMNS} FROM runs WHERE token = ?1"))?;
        let run = statement.query_row([token.as_bytes()], stored).optional()?.ok_or(NoRun::Unknown)?;
        goes_on(run, now)
    }

    /// The run that (issuer, subject, client) share, begun with this fresh name where there is none; and, where the journal does
    /// not know of it yet, what it follows.
    pub fn implicit(
        &self,
        owner: &Owner<'_>,
        fresh: &RunId,
        lifetime: Lifetime,
        now: Instant,
    ) -> Result<(StoredRun, Option<Begun>), NoRun> {
        let mut connection = self.connection()?;
        let ending = |run: &StoredRun| {
            let is_idle = now.0.saturating_sub(run.used.0) >= lifetime.idle_ms;
            if run.expires <= now { Some(Ending::Expired) } else { is_idle.then_some(Ending::Idle) }
        };
        if let Some(run) = row::current(&connection, owner)?.filter(|run| ending(run).is_none()) {
            let begun = row::unrecorded(&connection, &run.id)?;
            return Ok((run, begun));
        }
        let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Again: another process may have begun it in between.
        if let Some(run) = row::current(&change, owner)? {
            let Some(ending) = ending(&run) else {
                let begun = row::unrecorded(&change, &run.id)?;
                return Ok((run, begun));
            };
            row::end(&change, &run.id, ending, now)?;
        }
        revoke::is_fresh(&change, owner, Some(owner.agent))?;
        // Without a login in between it is the same engine, which has not forgotten what it saw.
        let is_login = |used: Instant| owner.login.is_some_and(|login| login > used);
        let follows = row::last(&change, owner)?.filter(|(_, used)| !is_login(*used)).map(|(run, _)| run);
        let expires = Instant(now.0.saturating_add(lifetime.total_ms));
        let (terms, key, owner, id) = (&Terms::default(), None, *owner, fresh.clone());
        row::insert(&change, &Starting { id, token: Digest::ZERO, key, owner, terms, expires }, None, now)?;
        row::follow(&change, fresh, follows.as_ref())?;
        change.commit()?;
        let run = row::find(&connection, fresh.as_str())?.ok_or(NoRun::Unknown)?;
        Ok((run, Some(Begun { follows })))
    }

    /// Says that the journal knows of this run.
    pub fn recorded(&self, run: &RunId) -> Result<(), NoRun> {
        let connection = self.connection()?;
        connection
            .prepare_cached("UPDATE runs SET recorded = TRUE WHERE id = ?1")?
            .execute([run.as_str()])?;
        Ok(())
    }

    /// Whether a run has ended: whatever it is given from then on, no run after it takes over.
    pub fn has_ended(&self, run: &RunId) -> Result<bool, NoRun> {
        let connection = self.connection()?;
        let mut statement = connection.prepare_cached("SELECT ended IS NULL FROM runs WHERE id = ?1")?;
        let goes_on: Option<bool> = statement.query_row([run.as_str()], |row| row.get(0)).optional()?;
        Ok(goes_on != Some(true))
    }

    /// Lets one call of a run begin: the run goes on, and where it has a budget of calls, one is taken.
    pub fn admit(&self, run: &RunId, now: Instant) -> Result<(), NoRun> {
        let connection = self.connection()?;
        let mut statement = connection
            .prepare_cached("SELECT ended, ending, expires, calls_max, used FROM runs WHERE id = ?1")?;
        let columns = |row: &Row<'_>| {
            Ok((
                ending(row)?,
                instant(row, "expires")?,
                row.get::<_, Option<i64>>("calls_max")?,
                instant(row, "used")?,
            ))
        };
        let found = statement.query_row([run.as_str()], columns).optional()?;
        let (ended, expires, calls_max, used) = found.ok_or(NoRun::Unknown)?;
        if let Some((_, ending)) = ended {
            return Err(NoRun::Ended(ending));
        }
        if expires <= now {
            return Err(NoRun::Ended(Ending::Expired));
        }
        let is_stale = now.0.saturating_sub(used.0) >= USED_EVERY_MS;
        if calls_max.is_none() && !is_stale {
            return Ok(());
        }
        let mut take = connection.prepare_cached(
            "UPDATE runs SET calls = calls + (calls_max IS NOT NULL), used = ?2
             WHERE id = ?1 AND ended IS NULL AND (calls_max IS NULL OR calls < calls_max)",
        )?;
        match (take.execute(params![run.as_str(), sql(now.0)])?, calls_max) {
            (1, _) => Ok(()),
            (_, Some(max)) => Err(NoRun::Spent(unsigned(max))),
            (_, None) => Err(NoRun::Ended(Ending::Revoked)),
        }
    }

    /// Ends the runs whose time is up, and forgets those that ended long ago.
    pub fn expire(&self, now: Instant) -> Result<(), NoRun> {
        let mut connection = self.connection()?;
        let forgotten = sql(now.0.saturating_sub(LISTED_MS));
        let is_due: bool = connection
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM runs WHERE ended IS NULL AND expires <= ?1)
                     OR EXISTS (SELECT 1 FROM runs WHERE ended < ?2)",
            )?
            .query_row([sql(now.0), forgotten], |row| row.get(0))?;
        if !is_due {
            return Ok(());
        }
        let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        change.execute(
            "INSERT INTO changes (run) SELECT id FROM runs WHERE ended IS NULL AND expires <= ?1",
            [sql(now.0)],
        )?;
        change.execute(
            "UPDATE runs SET ended = ?1, ending = 'expired' WHERE ended IS NULL AND expires <= ?1",
            [sql(now.0)],
        )?;
        change.execute("DELETE FROM runs WHERE ended < ?1", [forgotten])?;
        change.execute("DELETE FROM changes WHERE run NOT IN (SELECT id FROM runs)", [])?;
        Ok(change.commit()?)
    }

    /// The last change that there is: [`Runs::ended_after`] tells what came later.
    pub fn last_change(&self) -> Result<u64, NoRun> {
        let connection = self.connection()?;
        let last: i64 = connection
            .prepare_cached("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'changes'")?
            .query_row([], |row| row.get(0))?;
        Ok(unsigned(last))
    }

    /// The runs that have ended after this change, whichever process ended them.
    pub fn ended_after(&self, change: u64) -> Result<Vec<RunId>, NoRun> {
        let connection = self.connection()?;
        let mut statement =
            connection.prepare_cached("SELECT run FROM changes WHERE number > ?1 ORDER BY number")?;
        let ended = statement.query_map([sql(change)], |row| id(row, "run"))?;
        Ok(ended.collect::<rusqlite::Result<_>>()?)
    }

    /// One run, whether it goes on or not.
    pub fn find(&self, run: &str) -> Result<Option<StoredRun>, NoRun> {
        Ok(row::find(&*self.connection()?, run)?)
    }

    /// Runs, newest first, at most a thousand.
    pub fn list(&self, filter: &RunFilter, now: Instant) -> Result<Vec<StoredRun>, NoRun> {
        let connection = self.connection()?;
        let mut statement = connection.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM runs
             WHERE (:agent IS NULL OR agent = :agent) AND (:subject IS NULL OR subject = :subject)
               AND (NOT :live OR (ended IS NULL AND expires > :now))
             ORDER BY started DESC, id LIMIT 1000"
        ))?;
        let wanted = named_params! {
            ":agent": filter.agent, ":subject": filter.subject, ":live": filter.live, ":now": sql(now.0),
        };
        let runs = statement.query_map(wanted, stored)?;
        Ok(runs.collect::<rusqlite::Result<_>>()?)
    }

    /// Ends what a revocation names. From the moment it returns no call of those runs begins, in any process.
    pub fn revoke(&self, revocation: &Revocation<'_>, now: Instant) -> Result<Revoked, NoRun> {
        let mut connection = self.connection()?;
        // It holds although the power fails as soon as this returns.
        connection.pragma_update(None, "synchronous", "full")?;
        let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let revoked = revoke::revoke(&change, revocation, now)?;
        change.commit()?;
        connection.pragma_update(None, "synchronous", "normal")?;
        Ok(revoked)
    }

    fn connection(&self) -> Result<MutexGuard<'_, Connection>, NoRun> {
        self.0.lock().map_err(|_| NoRun::Unusable("a thread panicked".into()))
    }
}

fn goes_on(run: StoredRun, now: Instant) -> Result<StoredRun, NoRun> {
    match run.ended {
        Some((_, ending)) => Err(NoRun::Ended(ending)),
        None if run.expires <= now => Err(NoRun::Ended(Ending::Expired)),
        None => Ok(run),
    }
}
