//! What is seen from the host's side, past the gateway: files, processes, the journal as a file.

use std::path::{Path, PathBuf};

use ringfence_store::{FindingKind, HeadKey, verify};
use rusqlite::Connection;

use super::stage::Closed;
use crate::failure::Failure;
use crate::keys;
use crate::project::Project;

/// Verifies the journal, or a copy of it that was edited with this SQL: what was found, and whether it is sound.
pub(super) fn verify_copy(
    closed: &Closed,
    sql: Option<&str>,
) -> Result<(Vec<(FindingKind, String)>, bool), Failure> {
    let project = Project::read(&closed.folder)?;
    let key = keys::journal_key(&project)?;
    let key = HeadKey::new(&key).map_err(Failure::of)?;
    let head = std::fs::read_to_string(&project.journal.head).map_err(Failure::of)?;
    let copy = tempfile::tempdir().map_err(Failure::of)?;
    std::fs::copy(project.journal.folder.join("journal.db"), copy.path().join("journal.db"))
        .map_err(Failure::of)?;
    if let Some(sql) = sql {
        let connection = Connection::open(copy.path().join("journal.db")).map_err(Failure::of)?;
        edit(&connection, sql).map_err(Failure::of)?;
    }
    let report = verify(copy.path(), &key, Some(&head));
    let findings = report.findings.iter().map(|finding| (finding.kind, finding.what.clone())).collect();
    Ok((findings, report.is_sound()))
}

/// Edits a journal as a careful enemy would, who puts back the triggers that stood in the way.
fn edit(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    let mut triggers = connection.prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")?;
    let triggers = triggers.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    let (names, texts): (Vec<String>, Vec<String>) =
        triggers.collect::<rusqlite::Result<Vec<_>>>()?.into_iter().unzip();
    let (drops, makes) = (names.join("; DROP TRIGGER "), texts.join("; "));
    connection.execute_batch(&format!("DROP TRIGGER {drops}; {sql}; {makes};"))
}

pub(super) fn keys_file(folder: &Path) -> Result<PathBuf, Failure> {
    Ok(keys::journal_key_file(&Project::read(folder)?))
}

/// Files of the host, counted: its programs, its settings and the project.
pub(super) fn files(project: &Path) -> usize {
    let folders =
        [Path::new("/usr/bin"), Path::new("/usr/lib"), Path::new("/etc"), project, &project.join("tools")];
    folders.iter().map(|folder| std::fs::read_dir(folder).map_or(0, Iterator::count)).sum()
}

/// Processes of the host that live in a sandbox's pid namespace (`proc_pid_status(5)`, `NSpid`).
pub(super) fn sandboxed_processes() -> usize {
    let is_inside = |entry: &std::fs::DirEntry| {
        let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        pids.is_some_and(|pids| pids.split_whitespace().count() > 1)
    };
    std::fs::read_dir("/proc").map_or(0, |entries| entries.flatten().filter(is_inside).count())
}
