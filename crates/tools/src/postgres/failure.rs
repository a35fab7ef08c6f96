//! What the agent is told of a database's error: its class and SQLSTATE
//! (<https://www.postgresql.org/docs/current/errcodes-appendix.html>), never its text, which may hold values.

use ringfence_actions::Limits;
use ringfence_core::{Refusal, RefusalClass, Retry, Wall};
use tokio_postgres::Error;
use tokio_postgres::error::Severity;

use crate::sql;

/// Whether the connection is gone, or as good as gone: nothing can be known of what was asked on it.
pub(super) fn is_lost(error: &Error) -> bool {
    match error.as_db_error() {
        Some(said) => said.parsed_severity() != Some(Severity::Error),
        None => true,
    }
}

/// The refusal that an error of a statement is.
pub(super) fn refusal(error: &Error, limits: &Limits) -> Refusal {
    let code = error.code().map_or("none", |code| code.code());
    let said = error.as_db_error();
    // Names of the schema, not values.
    let (table, constraint) = (said.and_then(|said| said.table()), said.and_then(|said| said.constraint()));
    tracing::warn!(sqlstate = code, table, constraint, "a statement failed");
    match code {
        "57014" => sql::too_slow(limits.seconds),
        "42501" => refused(),
        "25006" => writes(),
        "40001" | "40P01" | "55P03" | "53300" | "57P03" => sql::busy(),
        _ => match code.get(..2).unwrap_or_default() {
            "22" => values(code),
            "23" => with_code(sql::constraint(), code),
            "42" | "3F" | "3D" | "0A" => with_code(sql::stale(), code),
            "P0" => raised(code),
            _ => with_code(sql::could_not(), code),
        },
    }
}

/// Whether what the connection was lost amid took effect, nobody knows.
pub(super) fn unknown() -> Refusal {
    let message =
        "the database did not say whether it kept the change; it may have taken effect, so do not repeat it";
    Refusal::new("outcome_unknown", RefusalClass::Upstream, Wall::System, Retry::Never, message)
}

/// Nobody wants the answer any more.
pub(super) fn cancelled() -> Refusal {
    let message = "the call was cancelled, and its statement was stopped";
    Refusal::new("cancelled", RefusalClass::Budget, Wall::Limits, Retry::Later, message)
}

/// What a change returns is larger than the tool's limit by far.
pub(super) fn too_large() -> Refusal {
    let message =
        "its result is far larger than this tool may give, so it was stopped and nothing was changed";
    Refusal::new("result_too_large", RefusalClass::Budget, Wall::Limits, Retry::WithChange, message)
}

fn with_code(refusal: Refusal, code: &str) -> Refusal {
    Refusal { message: format!("{} (SQLSTATE {code})", refusal.message), ..refusal }
}

fn refused() -> Refusal {
    let message = "the database refuses this to the user in whose name you act (class 42, SQLSTATE 42501); nothing was changed";
    Refusal::new("system_forbids", RefusalClass::Policy, Wall::System, Retry::Never, message)
}

fn writes() -> Refusal {
    let message = "this tool is declared as one that reads, and its statement would change something (SQLSTATE 25006); its operator has to look";
    Refusal::new("tool_writes", RefusalClass::Upstream, Wall::System, Retry::Never, message)
}

fn values(code: &str) -> Refusal {
    let message = format!("the database cannot take a value (class 22, data exception, SQLSTATE {code})");
    Refusal::new("value_refused", RefusalClass::Upstream, Wall::System, Retry::WithChange, message)
}

fn raised(code: &str) -> Refusal {
    let message =
        format!("a function of the database refused this (class P0, SQLSTATE {code}); nothing was changed");
    Refusal::new("constraint", RefusalClass::Upstream, Wall::System, Retry::WithChange, message)
}
