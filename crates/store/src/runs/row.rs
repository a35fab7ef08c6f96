//! A run as a row of the file.

use ringfence_core::{AgentId, Instant, RunId};
use rusqlite::{Connection, OptionalExtension as _, Row, named_params, params};

use super::{Begun, Ending, Owner, Starting, StoredRun};

pub(super) const COLUMNS: &str =
    "id, issuer, subject, agent, claims, scopes, key, terms, started, expires, used, calls, ended, ending";

pub(super) fn current(connection: &Connection, owner: &Owner<'_>) -> rusqlite::Result<Option<StoredRun>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM runs
         WHERE issuer = ?1 AND subject = ?2 AND agent = ?3 AND token IS NULL AND ended IS NULL"
    ))?;
    statement.query_row(params![owner.issuer, owner.subject, owner.agent.as_str()], stored).optional()
}

/// The last run of this owner that no application started, and when it was last used.
pub(super) fn last(connection: &Connection, owner: &Owner<'_>) -> rusqlite::Result<Option<(RunId, Instant)>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, used FROM runs WHERE issuer = ?1 AND subject = ?2 AND agent = ?3 AND token IS NULL
         ORDER BY started DESC LIMIT 1",
    )?;
    let owner = params![owner.issuer, owner.subject, owner.agent.as_str()];
    statement.query_row(owner, |row| Ok((id(row, "id")?, instant(row, "used")?))).optional()
}

/// Says what a run follows.
pub(super) fn follow(connection: &Connection, run: &RunId, before: Option<&RunId>) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE runs SET follows = ?2 WHERE id = ?1",
        params![run.as_str(), before.map(RunId::as_str)],
    )?;
    Ok(())
}

/// What a run follows, where the journal does not know of it yet.
pub(super) fn unrecorded(connection: &Connection, run: &RunId) -> rusqlite::Result<Option<Begun>> {
    let mut statement = connection
        .prepare_cached("SELECT follows AS id, follows IS NULL FROM runs WHERE id = ?1 AND NOT recorded")?;
    let begun = statement.query_row([run.as_str()], |row| {
        let follows = if row.get(1)? { None } else { Some(id(row, "id")?) };
        Ok(Begun { follows })
    });
    begun.optional()
}

pub(super) fn find(connection: &Connection, run: &str) -> rusqlite::Result<Option<StoredRun>> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM runs WHERE id = ?1"))?;
    statement.query_row([run], stored).optional()
}

pub(super) fn end(
    connection: &Connection,
    run: &RunId,
    ending: Ending,
    now: Instant,
) -> rusqlite::Result<()> {
    let word = match ending {
        Ending::Expired => "expired",
        Ending::Idle => "idle",
        Ending::Revoked => "revoked",
    };
    connection.execute("INSERT INTO changes (run) VALUES (?1)", [run.as_str()])?;
    connection.execute(
        "UPDATE runs SET ended = ?2, ending = ?3 WHERE id = ?1",
        params![run.as_str(), sql(now.0), word],
    )?;
    Ok(())
}

pub(super) fn insert(
    connection: &Connection,
    starting: &Starting<'_>,
    token: Option<&[u8; 32]>,
    now: Instant,
) -> rusqlite::Result<()> {
    let Starting { id, key, owner, terms, expires, .. } = starting;
    let json = |value: serde_json::Result<String>| {
        value.map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
    };
    connection.execute(
        "INSERT INTO runs (id, token, key, issuer, subject, agent, claims, scopes, terms, calls_max, started, expires, used)
         VALUES (:id, :token, :key, :issuer, :subject, :agent, :claims, :scopes, :terms, :calls_max, :now, :expires, :now)",
        named_params! {
            ":id": id.as_str(), ":token": token, ":key": key, ":issuer": owner.issuer, ":subject": owner.subject,
            ":agent": owner.agent.as_str(), ":claims": json(serde_json::to_string(owner.claims))?,
            ":scopes": owner.scopes, ":terms": json(serde_json::to_string(terms))?,
            ":calls_max": terms.calls_max.map(sql), ":now": sql(now.0), ":expires": sql(expires.0),
        },
    )?;
    Ok(())
}

pub(super) fn stored(row: &Row<'_>) -> rusqlite::Result<StoredRun> {
    Ok(StoredRun {
        id: id(row, "id")?,
        issuer: row.get("issuer")?,
        subject: row.get("subject")?,
        agent: json(row, "agent", |text| AgentId::new(text).map_err(|error| error.to_string()))?,
        claims: json(row, "claims", |text| serde_json::from_str(&text).map_err(|error| error.to_string()))?,
        scopes: row.get("scopes")?,
        key: row.get("key")?,
        terms: json(row, "terms", |text| serde_json::from_str(&text).map_err(|error| error.to_string()))?,
        started: instant(row, "started")?,
        expires: instant(row, "expires")?,
        used: instant(row, "used")?,
        calls: unsigned(row.get("calls")?),
        ended: ending(row)?,
    })
}

pub(super) fn ending(row: &Row<'_>) -> rusqlite::Result<Option<(Instant, Ending)>> {
    let Some(at) = row.get::<_, Option<i64>>("ended")? else { return Ok(None) };
    let ending = match row.get::<_, String>("ending")?.as_str() {
        "expired" => Ending::Expired,
        "idle" => Ending::Idle,
        _ => Ending::Revoked,
    };
    Ok(Some((Instant(unsigned(at)), ending)))
}

pub(super) fn json<T>(
    row: &Row<'_>,
    name: &str,
    read: impl FnOnce(String) -> Result<T, String>,
) -> rusqlite::Result<T> {
    read(row.get(name)?).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into())
    })
}

pub(super) fn id(row: &Row<'_>, name: &str) -> rusqlite::Result<RunId> {
    json(row, name, |text| serde_json::from_value(text.into()).map_err(|error| error.to_string()))
}

pub(super) fn instant(row: &Row<'_>, name: &str) -> rusqlite::Result<Instant> {
    Ok(Instant(unsigned(row.get(name)?)))
}

pub(super) fn sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
