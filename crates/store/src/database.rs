//! The file: SQLite in WAL mode, two tables. Entries are only ever appended.
//!
//! Whoever can write the file could add a trigger that swallows entries, so its schema is compared as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringfence_core::{Digest, Label, RunId};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};

/// Marks the file as ours: "RFJ1".
const APPLICATION_ID: i64 = 0x5246_4A31;

const SCHEMA: &str = "
CREATE TABLE entries (number INTEGER PRIMARY KEY, leaf TEXT NOT NULL, hash BLOB NOT NULL) STRICT;
CREATE TABLE payloads (number INTEGER PRIMARY KEY, salt BLOB NOT NULL, text TEXT NOT NULL) STRICT;
CREATE TRIGGER entries_are_not_changed BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'append only'); END;
CREATE TRIGGER entries_are_not_deleted BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'append only'); END;
CREATE INDEX labelled ON entries (number) WHERE leaf ->> 'yields' IS NOT NULL;
";

pub(crate) fn path(folder: &Path) -> PathBuf {
    folder.join("journal.db")
}

/// Opens the journal for appending; makes it where there is none.
pub(crate) fn open(folder: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path(folder))?;
    owners_alone(folder);
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    // The writer makes commits durable itself, see there: SQLite then syncs only where its own consistency needs it.
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.pragma_update(None, "trusted_schema", false)?;
    let made_by: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    if made_by != APPLICATION_ID {
        // Fails on a file that holds other tables, rather than mixing with them.
        connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; {SCHEMA} PRAGMA application_id = {APPLICATION_ID}; COMMIT;"
        ))?;
    }
    match foreign(&connection)? {
        None => Ok(connection),
        Some(what) => Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
            Some(what),
        )),
    }
}

/// Who called, and with what, is for the owner's eyes. Best effort: the folder is the wall.
fn owners_alone(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    for name in ["journal.db", "journal.db-wal", "journal.db-shm"] {
        let _not_there_yet =
            std::fs::set_permissions(folder.join(name), std::fs::Permissions::from_mode(0o600));
    }
}

/// What there is in the file that is not the journal's own, or is missing; `None` where it is as it was made.
pub(crate) fn foreign(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let made = Connection::open_in_memory()?;
    made.execute_batch(SCHEMA)?;
    let (wanted, found) = (schema(&made)?, schema(connection)?);
    let differs = wanted.symmetric_difference(&found).next();
    Ok(differs.map(|(kind, name, _)| format!("{kind} `{name}` is not as the journal made it")))
}

fn schema(connection: &Connection) -> rusqlite::Result<BTreeSet<(String, String, Option<String>)>> {
    let mut statement = connection.prepare("SELECT type, name, sql FROM sqlite_schema")?;
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect()
}

/// Changes whenever the schema does (<https://www.sqlite.org/pragma.html#pragma_schema_version>).
pub(crate) fn schema_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "schema_version", |row| row.get(0))
}

/// A payload that belongs to no entry.
pub(crate) fn orphan_payload(connection: &Connection) -> rusqlite::Result<Option<u64>> {
    let orphan = connection
        .query_row(
            "SELECT number FROM payloads WHERE number NOT IN (SELECT number FROM entries) LIMIT 1",
            [],
            |row| row.get::<_, i64>(0),
        )
        .optional()?;
    Ok(orphan.map(|number| u64::try_from(number).unwrap_or(0)))
}

/// What every run has touched.
pub(crate) fn labels(connection: &Connection) -> rusqlite::Result<BTreeMap<RunId, BTreeSet<Label>>> {
    let mut statement = connection.prepare(
        "SELECT DISTINCT leaf ->> 'run', leaf -> 'yields' FROM entries INDEXED BY labelled
         WHERE leaf ->> 'yields' IS NOT NULL",
    )?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    let mut labels: BTreeMap<RunId, BTreeSet<Label>> = BTreeMap::new();
    for row in rows {
        let (run, yields) = row?;
        let run = serde_json::from_value(run.into());
        let yields = serde_json::from_str::<Vec<Label>>(&yields);
        if let (Ok(run), Ok(yields)) = (run, yields) {
            labels.entry(run).or_default().extend(yields);
        }
    }
    Ok(labels)
}

/// Opens the journal to look at it.
pub(crate) fn open_to_read(folder: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path(folder), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    Ok(connection)
}

/// The number and hash of the last entry; zero of both where there is none.
pub(crate) fn tail(connection: &Connection) -> rusqlite::Result<(u64, Digest)> {
    let last = connection
        .prepare_cached("SELECT number, hash FROM entries ORDER BY number DESC LIMIT 1")?
        .query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, [u8; 32]>(1)?)))
        .optional()?;
    Ok(last.map_or((0, Digest::ZERO), |(number, hash)| (u64::try_from(number).unwrap_or(0), hash.into())))
}

/// The leaf and hash of one entry.
fn entry(connection: &Connection, number: u64) -> rusqlite::Result<Option<(String, Digest)>> {
    let number = i64::try_from(number).unwrap_or(i64::MAX);
    connection
        .prepare_cached("SELECT leaf, hash FROM entries WHERE number = ?1")?
        .query_row(params![number], |row| Ok((row.get(0)?, row.get::<_, [u8; 32]>(1)?.into())))
        .optional()
}

/// The hash that stands at a head's place.
pub(crate) fn hash_at(connection: &Connection, number: u64) -> rusqlite::Result<Option<Digest>> {
    if number == 0 { Ok(Some(Digest::ZERO)) } else { Ok(entry(connection, number)?.map(|(_, hash)| hash)) }
}

/// The calls whose intent has no outcome, since the last time that one process had the journal to itself.
pub(crate) fn open_calls(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(
        "WITH since AS (
            SELECT coalesce(max(number), 0) AS number FROM entries WHERE leaf ->> 'kind' = 'opened' AND leaf ->> 'alone'
         ), seen AS (
            SELECT leaf ->> 'kind' AS kind, leaf ->> 'call' AS call FROM entries, since
            WHERE entries.number > since.number AND leaf ->> 'kind' IN ('intent', 'outcome')
         )
         SELECT call FROM seen WHERE kind = 'intent' AND call NOT IN (SELECT call FROM seen WHERE kind = 'outcome')",
    )?;
    statement.query_map([], |row| row.get(0))?.collect()
}
