//! Proves, when a tool loads, that its statement is one, does no more than the tool's effect, and uses its parameters.

use std::path::Path;
use std::sync::Arc;

use ringfence_actions::{Operation, Tool};
use ringfence_core::{Effect, Place, Problem};
use rusqlite::fallible_iterator::FallibleIterator as _;
use rusqlite::{Batch, Connection, OpenFlags};

use super::Plan;
use super::connection::Guarded;
use crate::sql::words::{self, Dialect};
use crate::sql::{placeholders, twice, wrong_beginning};

/// What SQLite says of a statement.
struct Shape {
    statements: usize,
    is_readonly: bool,
    is_explain: bool,
    /// The name of each placeholder, without its colon; `None` where it has none.
    placeholders: Vec<Option<String>>,
    columns: Vec<String>,
}

/// A database that cannot be opened.
pub(crate) fn unopened(path: &Path, declared_at: &Place, error: &rusqlite::Error) -> Problem {
    let what = format!("database `{}` cannot be opened: {}", path.display(), reason(error));
    Problem::error(declared_at.clone(), what, "make the file readable, or correct `path`")
}

/// The plan of a tool's statement; `None` where there is a problem, which is pushed.
pub(crate) fn prove(
    path: &Path,
    declared_at: &Place,
    tool: &Tool,
    problems: &mut Vec<Problem>,
) -> Option<Plan> {
    let Operation::Sql { statement, place } = tool.operation() else { return None };
    let mut refuse = |what: String, instead: &str| {
        problems.push(Problem::error(place.clone(), what, instead));
        None
    };
    let mut connection = match Guarded::open(path, tool.effect()) {
        Ok(connection) => connection,
        Err(error) => {
            problems.push(unopened(path, declared_at, &error));
            return None;
        }
    };
    let (shape, grant, excess) = connection.prove(tool.effect(), |connection| look(connection, statement));
    if let Some(first) = excess.first() {
        return refuse(first.what.clone(), first.instead);
    }
    let shape = match shape {
        Ok(shape) => shape,
        Err(error) => {
            return refuse(
                format!("SQLite cannot prepare this: {}", reason(&error)),
                "correct the statement",
            );
        }
    };
    if shape.statements != 1 {
        let what = format!("there are {} statements where one is expected", shape.statements);
        return refuse(what, "write one statement, or one tool for each");
    }
    if shape.is_explain {
        return refuse("the statement explains instead of doing".into(), "leave `EXPLAIN` out");
    }
    if tool.effect() == Effect::Read && !shape.is_readonly {
        return refuse("a tool that reads writes".into(), "say `effect = \"write\"` or `\"irreversible\"`");
    }
    let begins = words::first(statement, Dialect::Sqlite);
    let writing = ["INSERT", "UPDATE", "DELETE"];
    if let Some((what, instead)) = wrong_beginning(&begins, tool.effect(), &writing) {
        return refuse(what, &instead);
    }
    if tool.effect() != Effect::Read
        && let Some(what) = replaces(path, statement)
    {
        return refuse(
            what,
            "use `ON CONFLICT … DO UPDATE`: the rows that `REPLACE` deletes are counted by nobody",
        );
    }
    let params = placeholders::declared(tool, &shape.placeholders, place, problems)?;
    let columns: Vec<&str> = shape.columns.iter().map(String::as_str).collect();
    if let Some(name) = twice(&columns) {
        let what = format!("two columns of the result are called `{name}`");
        problems.push(Problem::error(place.clone(), what, "name them apart with `AS`"));
        return None;
    }
    let (statement, grant) = (statement.clone(), Arc::new(grant));
    Some(Plan {
        statement,
        params,
        columns: shape.columns,
        grant,
        effect: tool.effect(),
        limits: tool.limits(),
    })
}

/// Where a write would delete rows to make room for others: in the statement, or in the schema, whose triggers and
/// constraints act too.
fn replaces(path: &Path, statement: &str) -> Option<String> {
    if words::replaces(statement, Dialect::Sqlite) {
        return Some("the statement replaces rows".to_owned());
    }
    let in_schema = || {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let mut schema = connection.prepare("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL")?;
        let rows = schema.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
        rows.collect::<rusqlite::Result<Vec<_>>>()
    };
    match in_schema() {
        Ok(schema) => {
            let (name, _) = schema.into_iter().find(|(_, sql)| words::replaces(sql, Dialect::Sqlite))?;
            Some(format!("`{name}` in the database replaces rows"))
        }
        Err(error) => Some(format!("the database's schema cannot be read: {}", reason(&error))),
    }
}

/// SQLite's own words, without the statement that they would repeat.
fn reason(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
        other => other.to_string(),
    }
}

fn look(connection: &Connection, statement: &str) -> rusqlite::Result<Shape> {
    let mut batch = Batch::new(connection, statement);
    let Some(first) = batch.next()? else {
        return Ok(Shape {
            statements: 0,
            is_readonly: true,
            is_explain: false,
            placeholders: vec![],
            columns: vec![],
        });
    };
    let names = (1..=first.parameter_count())
        .map(|at| first.parameter_name(at)?.strip_prefix(':').map(str::to_owned));
    let mut shape = Shape {
        statements: 1,
        is_readonly: first.readonly(),
        is_explain: first.is_explain() != 0,
        placeholders: names.collect(),
        columns: first.column_names().map(str::to_owned).collect(),
    };
    while batch.next()?.is_some() {
        shape.statements += 1;
    }
    Ok(shape)
}
