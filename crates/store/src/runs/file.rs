//! The file of the runs: SQLite in WAL mode, for its owner alone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::Journal;

/// Marks the file as ours: "RFR1".
const APPLICATION_ID: i64 = 0x5246_5231;

/// `recorded` says that the journal knows of the run, and so of the labels that it takes over from the one that it `follows`.
/// `changes` numbers the runs that ended, for good, so that other processes find what is new.
const SCHEMA: &str = "
CREATE TABLE runs (
    id TEXT PRIMARY KEY, token BLOB UNIQUE, key TEXT, issuer TEXT NOT NULL, subject TEXT NOT NULL, agent TEXT NOT NULL,
    claims TEXT NOT NULL, scopes TEXT NOT NULL, terms TEXT NOT NULL, calls_max INTEGER, calls INTEGER NOT NULL DEFAULT 0,
    started INTEGER NOT NULL, expires INTEGER NOT NULL, used INTEGER NOT NULL,
    ended INTEGER, ending TEXT, follows TEXT, recorded INTEGER NOT NULL DEFAULT FALSE
) STRICT;
CREATE TABLE changes (number INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL) STRICT;
CREATE UNIQUE INDEX implicit ON runs (issuer, subject, agent) WHERE token IS NULL AND ended IS NULL;
CREATE INDEX of_agents ON runs (agent) WHERE ended IS NULL;
CREATE INDEX expiring ON runs (expires) WHERE ended IS NULL;
CREATE INDEX of_owners ON runs (issuer, subject, agent, started) WHERE token IS NULL;
CREATE INDEX of_applications ON runs (terms ->> 'application') WHERE ended IS NULL;
CREATE INDEX ended ON runs (ended) WHERE ended IS NOT NULL;
CREATE TABLE revocations (
    number INTEGER PRIMARY KEY, scope TEXT NOT NULL, issuer TEXT, subject TEXT, agent TEXT, run TEXT,
    at INTEGER NOT NULL, by TEXT NOT NULL, reason TEXT NOT NULL
) STRICT;
CREATE INDEX of_users ON revocations (issuer, subject);
";

/// The runs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunsUnusable {
    /// The journal knows of runs, and the file is gone.
    #[error(
        "`{0}` is gone, and with it what was revoked; put it back, or move the journal away too and keep it, to start anew"
    )]
    Gone(String),
    /// There were never any.
    #[error("there are no runs yet: `{0}` is made by the first `ringfence serve` or `ringfence call`")]
    NotThere(String),
    /// It cannot be read or written, or is another file.
    #[error("`{0}` cannot be used: {1}")]
    Failed(String, String),
}

impl From<rusqlite::Error> for RunsUnusable {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed("runs.db".into(), error.to_string())
    }
}

pub(super) fn open(folder: &Path, journal: &Journal) -> Result<Connection, RunsUnusable> {
    let path = path(folder);
    let shown = path.display().to_string();
    let knows =
        || journal.knows_of_runs().map_err(|error| RunsUnusable::Failed(shown.clone(), error.to_string()));
    if !path.is_file() && knows()? {
        return Err(RunsUnusable::Gone(shown));
    }
    connect(&path).map_err(|error| RunsUnusable::Failed(shown, error.to_string()))
}

pub(super) fn open_existing(folder: &Path) -> Result<Connection, RunsUnusable> {
    let path = path(folder);
    let shown = path.display().to_string();
    if !path.is_file() {
        return Err(RunsUnusable::NotThere(shown));
    }
    connect(&path).map_err(|error| RunsUnusable::Failed(shown, error.to_string()))
}

fn path(folder: &Path) -> PathBuf {
    folder.join("runs.db")
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    make(path);
    let mut connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.pragma_update(None, "trusted_schema", false)?;
    let change = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let made_by: i64 = change.pragma_query_value(None, "application_id", |row| row.get(0))?;
    if made_by != APPLICATION_ID {
        // Fails on a file that holds other tables, rather than mixing with them.
        change.execute_batch(&format!("{SCHEMA} PRAGMA application_id = {APPLICATION_ID};"))?;
    }
    change.commit()?;
    Ok(connection)
}

/// Makes the file where there is none, for its owner alone from the first moment; SQLite gives its logs the same mode. Where it
/// cannot be made, opening it says why.
fn make(path: &Path) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    drop(made);
}
