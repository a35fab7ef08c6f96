//! Binds, steps and counts: one call of a proved statement.

use std::time::Instant;

use base64::Engine as _;
use ringfence_core::{Arguments, Effect, Refusal, RefusalClass, Retry, Value, Wall};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Statement};
use serde_json::{Map, Value as Json, json};

use super::{Plan, connection::Guarded};
use crate::Outcome;

/// What came out of a statement.
struct Stepped {
    rows: Vec<Json>,
    bytes: u64,
    /// There would have been more rows or bytes than the limits let through.
    is_cut: bool,
    changed: u64,
}

/// Runs the statement of `plan` once. A write is one transaction: wholly done, or not at all.
pub(super) fn execute(
    connection: &mut Guarded,
    plan: &Plan,
    arguments: &Arguments,
    deadline: Instant,
) -> Outcome {
    let done = match plan.effect {
        Effect::Read => {
            connection.hold(&plan.grant, deadline, |connection| step(connection, plan, arguments))
        }
        Effect::Write | Effect::Irreversible => write(connection, plan, arguments, deadline),
    };
    match done {
        Ok(rows) if plan.effect != Effect::Read && rows.changed > plan.limits.changed_rows => {
            Outcome::failed(too_many(plan.limits.changed_rows))
        }
        Ok(rows) => finished(plan, rows),
        Err(error) => failure(&error, plan),
    }
}

fn write(
    connection: &mut Guarded,
    plan: &Plan,
    arguments: &Arguments,
    deadline: Instant,
) -> rusqlite::Result<Stepped> {
    connection.transact("BEGIN IMMEDIATE")?;
    let done = connection.hold(&plan.grant, deadline, |connection| step(connection, plan, arguments));
    let keep = done.as_ref().is_ok_and(|rows| rows.changed <= plan.limits.changed_rows);
    if keep {
        connection.transact("COMMIT")?;
    } else if !connection.is_clean() {
        // Where it fails the connection is closed, which rolls back too; the first error says more.
        let _closed_soon = connection.transact("ROLLBACK");
    }
    done
}

fn step(connection: &Connection, plan: &Plan, arguments: &Arguments) -> rusqlite::Result<Stepped> {
    let before = connection.total_changes();
    let mut statement = connection.prepare_cached(&plan.statement)?;
    bind(&mut statement, plan, arguments)?;
    let mut rows = read(&mut statement, plan)?;
    drop(statement);
    rows.changed = connection.total_changes().saturating_sub(before);
    Ok(rows)
}

fn bind(statement: &mut Statement<'_>, plan: &Plan, arguments: &Arguments) -> rusqlite::Result<()> {
    for (at, name) in plan.params.iter().enumerate() {
        let value = arguments.value(name.as_str());
        statement.raw_bind_parameter(at + 1, sql(value))?;
    }
    Ok(())
}

/// A list is bound as a JSON text, for `json_each`; what was left out is `NULL`.
fn sql(value: Option<&Value>) -> ToSqlOutput<'_> {
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
fn read(statement: &mut Statement<'_>, plan: &Plan) -> rusqlite::Result<Stepped> {
    let mut result = Stepped { rows: Vec::new(), bytes: 0, is_cut: false, changed: 0 };
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next()? {
        if result.is_cut {
            continue;
        }
        let mut object = Map::new();
        for (at, column) in plan.columns.iter().enumerate() {
            object.insert(column.clone(), json_of(row.get_ref(at)?));
        }
        let object = Json::Object(object);
        let bytes = object.to_string().len() as u64;
        let is_full =
            result.rows.len() as u64 >= plan.limits.rows || result.bytes + bytes > plan.limits.bytes;
        if is_full {
            result.is_cut = true;
            if plan.effect == Effect::Read {
                break;
            }
            continue;
        }
        result.bytes += bytes;
        result.rows.push(object);
    }
    Ok(result)
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

fn finished(plan: &Plan, stepped: Stepped) -> Outcome {
    let Stepped { rows, bytes, is_cut, changed } = stepped;
    let count = rows.len() as u64;
    match plan.effect {
        Effect::Read => Outcome::done(json!({ "rows": rows, "truncated": is_cut }), count, bytes),
        Effect::Write | Effect::Irreversible if plan.columns.is_empty() => {
            Outcome::done(json!({ "changed_rows": changed }), changed, bytes)
        }
        Effect::Write | Effect::Irreversible => {
            let result = json!({ "changed_rows": changed, "rows": rows, "truncated": is_cut });
            Outcome::done(result, changed, bytes)
        }
    }
}

fn too_many(most: u64) -> Refusal {
    let message =
        format!("it would have changed more than {most} rows, so it changed none; narrow the arguments");
    let refusal =
        Refusal::new("too_many_rows", RefusalClass::Budget, Wall::Limits, Retry::WithChange, message);
    Refusal { allowed: Some(format!("at most {most} changed rows a call")), ..refusal }
}

/// What the agent is told of an SQLite error: its class, never its text, which may hold values.
pub(super) fn failure(error: &rusqlite::Error, plan: &Plan) -> Outcome {
    tracing::warn!(code = ?error.sqlite_error_code(), "a statement failed");
    let refuse = |code, class, wall, retry, message: String| {
        Outcome::failed(Refusal::new(code, class, wall, retry, message))
    };
    let system = Wall::System;
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::OperationInterrupted) => {
            let message =
                format!("it took longer than {} s and was stopped; ask for less", plan.limits.seconds);
            refuse("timeout", RefusalClass::Budget, Wall::Limits, Retry::WithChange, message)
        }
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
            Outcome::failed(super::busy())
        }
        Some(rusqlite::ErrorCode::ConstraintViolation) => {
            let message = "a rule of the database forbids this change; nothing was changed".to_owned();
            refuse("constraint", RefusalClass::Upstream, system, Retry::WithChange, message)
        }
        Some(rusqlite::ErrorCode::AuthorizationForStatementDenied) => {
            let message =
                "the database has changed since this tool was checked; its operator has to look".to_owned();
            refuse("tool_stale", RefusalClass::Upstream, system, Retry::Later, message)
        }
        _ => {
            let message = "the database could not carry this out; the operator's log says why".to_owned();
            refuse("system_failed", RefusalClass::Upstream, system, Retry::Later, message)
        }
    }
}
