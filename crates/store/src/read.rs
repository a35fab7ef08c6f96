//! Entries to look at, newest last.

use std::path::Path;

use rusqlite::params;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::database;

/// Which entries to show.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// At most so many, the newest ones.
    pub last: Option<u64>,
    /// Only this kind: `intent`, `refused`, `labelled`, `egress`, `outcome`, `artifact_read`, `rejected`,
    /// `opened`, `closed`, `run_started`, `run_revoked`.
    pub kind: Option<String>,
    /// Only this tool.
    pub tool: Option<String>,
    /// Only this call.
    pub call: Option<String>,
    /// Only this run.
    pub run: Option<String>,
}

/// One entry.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// What is hashed into the chain.
    #[serde(flatten)]
    pub leaf: Map<String, Value>,
    /// Who called, with which arguments; absent where there is none or it was erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<Value>,
}

/// Reads the entries that a filter lets through. Fails with SQLite's own words.
pub fn read(folder: &Path, filter: &Filter) -> Result<Vec<Shown>, String> {
    query(folder, filter).map_err(|error| error.to_string())
}

fn query(folder: &Path, filter: &Filter) -> rusqlite::Result<Vec<Shown>> {
    let connection = database::open_to_read(folder)?;
    let mut statement = connection.prepare(
        "SELECT entries.leaf, payloads.text FROM entries LEFT JOIN payloads USING (number)
         WHERE (?1 IS NULL OR leaf ->> 'kind' = ?1) AND (?2 IS NULL OR leaf ->> 'tool' = ?2)
           AND (?3 IS NULL OR leaf ->> 'call' = ?3) AND (?5 IS NULL OR leaf ->> 'run' = ?5)
         ORDER BY number DESC LIMIT ?4",
    )?;
    let most = filter.last.and_then(|last| i64::try_from(last).ok()).unwrap_or(i64::MAX);
    let rows =
        statement.query_map(params![filter.kind, filter.tool, filter.call, most, filter.run], |row| {
            let (leaf, content): (String, Option<String>) = (row.get(0)?, row.get(1)?);
            let leaf = serde_json::from_str(&leaf).unwrap_or_default();
            Ok(Shown { leaf, content: content.and_then(|text| serde_json::from_str(&text).ok()) })
        })?;
    let mut shown = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    shown.reverse();
    Ok(shown)
}
