//! Binds, steps and counts: one call of a proved statement.

use std::time::Instant;

use base64::Engine as _;
use ringfence_core::{Arguments, Effect, Refusal, Value};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Statement};
use serde_json::{Map, Value as Json, json};

use super::{Plan, connection::Guarded};
use crate::sql::rows::{Changed, Rows};
use crate::{Outcome, Watch, sql};

/// What one call is.
pub(super) struct Work<'a> {
    pub(super) plan: &'a Plan,
    pub(super) arguments: &'a Arguments,
    pub(super) deadline: Instant,
    pub(super) watch: &'a Watch,
}

/// How a statement did not run.
enum Failed {
    Database(rusqlite::Error),
    /// Nobody wants it any more, and it had not begun.
    NotBegun(Refusal),
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        Self::NotBegun(refusal)
    }
}

impl Work<'_> {
    /// Runs the statement once. A write is one transaction: wholly done, or not at all.
    pub(super) fn run(&self, connection: &mut Guarded) -> Outcome {
        let plan = self.plan;
        let done = match plan.effect {
            Effect::Read => self.step(connection),
            Effect::Write | Effect::Irreversible => self.write(connection),
        };
        match done {
            Ok((rows, changed)) => match refusal(plan, changed) {
                Some(refusal) => Outcome::failed(refusal),
                None => rows.outcome(plan.effect, changed.all, !plan.columns.is_empty()),
            },
            Err(Failed::NotBegun(refusal)) => Outcome::failed(refusal),
            Err(Failed::Database(error)) => failure(&error, plan),
        }
    }

    fn write(&self, connection: &mut Guarded) -> Result<(Rows, Changed), Failed> {
        self.watch.wanted()?;
        // Waits for whoever else writes, for seconds.
        connection.transact("BEGIN IMMEDIATE")?;
        let done = self.step(connection);
        let keep = done.as_ref().is_ok_and(|(_, changed)| refusal(self.plan, *changed).is_none());
        if keep {
            connection.transact("COMMIT")?;
        } else if !connection.is_clean() {
            // Where it fails the connection is closed, which rolls back too; the first error says more.
            let _closed_soon = connection.transact("ROLLBACK");
        }
        done
    }

    fn step(&self, connection: &mut Guarded) -> Result<(Rows, Changed), Failed> {
        self.watch.wanted()?;
        let Self { plan, arguments, deadline, .. } = self;
        Ok(connection.hold(&plan.grant, *deadline, |connection| step(connection, plan, arguments))?)
    }
}

fn step(connection: &Connection, plan: &Plan, arguments: &Arguments) -> rusqlite::Result<(Rows, Changed)> {
    let before = connection.total_changes();
    let mut statement = connection.prepare_cached(&plan.statement)?;
    bind(&mut statement, plan, arguments)?;
    let rows = read(&mut statement, plan)?;
    drop(statement);
    let changed =
        Changed { own: connection.changes(), all: connection.total_changes().saturating_sub(before) };
    Ok((rows, changed))
}

fn refusal(plan: &Plan, changed: Changed) -> Option<Refusal> {
    (plan.effect != Effect::Read).then(|| changed.refusal(&plan.limits)).flatten()
}

fn bind(statement: &mut Statement<'_>, plan: &Plan, arguments: &Arguments) -> rusqlite::Result<()> {
    for (at, name) in plan.params.iter().enumerate() {
        let value = arguments.value(name.as_str());
        statement.raw_bind_parameter(at + 1, bound(value))?;
    }
    Ok(())
}

/// A list is bound as a JSON text, for `json_each`; what was left out is `NULL`.
fn bound(value: Option<&Value>) -> ToSqlOutput<'_> {
    match value {
        None => ToSqlOutput::Owned(rusqlite::types::Value::Null),
        Some(Value::String(text)) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
        Some(Value::Integer(number)) => ToSqlOutput::Borrowed(ValueRef::Integer(*number)),
        Some(Value::Number(decimal)) => ToSqlOutput::Borrowed(ValueRef::Real(decimal.to_f64())),
        Some(Value::Boolean(truth)) => ToSqlOutput::Borrowed(ValueRef::Integer(i64::from(*truth))),
        Some(list @ Value::Array(_)) => {
            ToSqlOutput::Owned(rusqlite::types::Value::Text(list.to_json().to_string()))
        }
    }
}

/// Steps to the end of what the limits allow. A write is stepped to its own end, so that all of it happens.
fn read(statement: &mut Statement<'_>, plan: &Plan) -> rusqlite::Result<Rows> {
    let mut kept = Rows::default();
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next()? {
        if kept.is_cut() {
            continue;
        }
        let mut object = Map::new();
        for (at, column) in plan.columns.iter().enumerate() {
            object.insert(column.clone(), json_of(row.get_ref(at)?));
        }
        kept.push(object, &plan.limits);
        if kept.is_cut() && plan.effect == Effect::Read {
            break;
        }
    }
    Ok(kept)
}

fn json_of(value: ValueRef<'_>) -> Json {
    match value {
        ValueRef::Null => Json::Null,
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => serde_json::Number::from_f64(number).map_or(Json::Null, Json::Number),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into(),
        ValueRef::Blob(bytes) => json!({ "base64": base64::engine::general_purpose::STANDARD.encode(bytes) }),
    }
}

/// What the agent is told of an SQLite error: its class, never its text, which may hold values.
pub(super) fn failure(error: &rusqlite::Error, plan: &Plan) -> Outcome {
    tracing::warn!(code = ?error.sqlite_error_code(), "a statement failed");
    Outcome::failed(match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::OperationInterrupted) => sql::too_slow(plan.limits.seconds),
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => sql::busy(),
        Some(rusqlite::ErrorCode::ConstraintViolation) => sql::constraint(),
        Some(rusqlite::ErrorCode::AuthorizationForStatementDenied) => sql::stale(),
        _ => sql::could_not(),
    })
}
