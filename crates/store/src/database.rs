//! The file: SQLite in WAL mode, two tables. Entries are only ever appended.
//!
//! Whoever can write the file could add a trigger that swallows entries, so its schema is compared as a whole.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringfence_core::{Digest, Label, RunId};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};

use crate::Head;

/// Marks the file as ours: "RFJ1".
const APPLICATION_ID: i64 = 0x5246_4A31;

const SCHEMA: &str = "
CREATE TABLE entries (number INTEGER PRIMARY KEY, leaf TEXT NOT NULL, hash BLOB NOT NULL, tag BLOB NOT NULL) STRICT;
CREATE TABLE payloads (number INTEGER PRIMARY KEY, salt BLOB NOT NULL, text TEXT NOT NULL) STRICT;
CREATE TRIGGER entries_are_not_changed BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'append only'); END;
CREATE TRIGGER entries_are_not_deleted BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'append only'); END;
CREATE INDEX labelled ON entries (leaf ->> 'run', leaf ->> 'yields') WHERE leaf ->> 'yields' IS NOT NULL;
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

/// What a run has touched. It takes one step for each different list of labels, however many entries there are.
pub(crate) fn labels(connection: &Connection, run: &RunId) -> rusqlite::Result<BTreeSet<Label>> {
    let mut statement = connection.prepare_cached(
        "WITH RECURSIVE each (yields) AS (
            SELECT min(leaf ->> 'yields') FROM entries INDEXED BY labelled
            WHERE leaf ->> 'run' = ?1 AND leaf ->> 'yields' IS NOT NULL
            UNION ALL
            SELECT (SELECT min(leaf ->> 'yields') FROM entries INDEXED BY labelled
                    WHERE leaf ->> 'run' = ?1 AND leaf ->> 'yields' > each.yields AND leaf ->> 'yields' IS NOT NULL)
            FROM each WHERE each.yields IS NOT NULL
         ) SELECT yields FROM each WHERE yields IS NOT NULL",
    )?;
    let lists = statement.query_map(params![run.to_string()], |row| row.get::<_, String>(0))?;
    let mut labels = BTreeSet::new();
    for list in lists {
        let list: Vec<Label> = serde_json::from_str(&list?).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
        })?;
        labels.extend(list);
    }
    Ok(labels)
}

/// Whether any run was begun or revoked.
pub(crate) fn knows_of_runs(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM entries WHERE leaf ->> 'kind' IN ('run_started', 'run_revoked'))",
        [],
        |row| row.get(0),
    )
}

/// Opens the journal to look at it.
pub(crate) fn open_to_read(folder: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path(folder), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    Ok(connection)
}

/// The end of the chain as it stands in the file.
pub(crate) fn tail(connection: &Connection) -> rusqlite::Result<Head> {
    let last = connection
        .prepare_cached("SELECT number, hash FROM entries ORDER BY number DESC LIMIT 1")?
        .query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, [u8; 32]>(1)?)))
        .optional()?;
    Ok(last.map_or(Head::NONE, |(number, hash)| Head {
        entries: u64::try_from(number).unwrap_or(0),
        hash: hash.into(),
    }))
}

/// One entry as it stands in the file.
pub(crate) struct Entry {
    pub(crate) number: u64,
    pub(crate) leaf: String,
    pub(crate) hash: Digest,
    pub(crate) tag: [u8; 32],
}

/// Hands on the entries after this one, in their order, until one is not wanted.
pub(crate) fn after<E>(
    connection: &Connection,
    number: u64,
    mut each: impl FnMut(Entry) -> Result<(), E>,
) -> rusqlite::Result<Result<(), E>> {
    let number = i64::try_from(number).unwrap_or(i64::MAX);
    let mut statement = connection
        .prepare_cached("SELECT number, leaf, hash, tag FROM entries WHERE number > ?1 ORDER BY number")?;
    let mut rows = statement.query(params![number])?;
    while let Some(row) = rows.next()? {
        let entry = Entry {
            number: u64::try_from(row.get::<_, i64>(0)?).unwrap_or(0),
            leaf: row.get(1)?,
            hash: row.get::<_, [u8; 32]>(2)?.into(),
            tag: row.get(3)?,
        };
        if let Err(unwanted) = each(entry) {
            return Ok(Err(unwanted));
        }
    }
    Ok(Ok(()))
}

/// The hash that stands at a head's place.
pub(crate) fn hash_at(connection: &Connection, number: u64) -> rusqlite::Result<Option<Digest>> {
    if number == 0 {
        return Ok(Some(Digest::ZERO));
    }
    let number = i64::try_from(number).unwrap_or(i64::MAX);
    connection
        .prepare_cached("SELECT hash FROM entries WHERE number = ?1")?
        .query_row(params![number], |row| Ok(row.get::<_, [u8; 32]>(0)?.into()))
        .optional()
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
