//! What the SQL systems share: how a statement is read, which parameters it uses, and how its rows are kept within limits.

pub(crate) mod placeholders;
pub(crate) mod rows;
pub(crate) mod words;

use ringfence_core::{Effect, Refusal, RefusalClass, Retry, Wall};

use crate::turns::NoTurn;
use crate::watch::not_begun;

/// What a statement has to begin with, if it is not so.
pub(crate) fn wrong_beginning(begins: &str, effect: Effect, writing: &[&str]) -> Option<(String, String)> {
    let mut offered = vec!["SELECT", "WITH", "VALUES"];
    if effect != Effect::Read {
        offered.extend(writing);
    }
    if offered.contains(&begins) {
        return None;
    }
    let what = format!("a statement that begins with `{begins}` is not offered");
    Some((what, format!("begin it with one of {}", offered.join(", "))))
}

/// The name that two columns of a result have.
pub(crate) fn twice<'a>(columns: &[&'a str]) -> Option<&'a str> {
    let before = |at: usize, name: &str| columns.iter().take(at).any(|seen| *seen == name);
    columns.iter().enumerate().find(|(at, name)| before(*at, name)).map(|(_, name)| *name)
}

/// Why a statement did not get its turn.
pub(crate) fn no_turn(why: &NoTurn) -> Refusal {
    match why {
        NoTurn::Late => busy(),
        NoTurn::Cancelled => not_begun(),
    }
}

/// The database has no place for this call now.
pub(crate) fn busy() -> Refusal {
    let message = "the database is busy; try again in a moment";
    Refusal::new("system_busy", RefusalClass::Upstream, Wall::System, Retry::Later, message)
}

/// The statement took too long.
pub(crate) fn too_slow(seconds: u64) -> Refusal {
    let message = format!("it took longer than {seconds} s and was stopped; ask for less");
    Refusal::new("timeout", RefusalClass::Budget, Wall::Limits, Retry::WithChange, message)
}

/// A rule of the database forbids the change.
pub(crate) fn constraint() -> Refusal {
    let message = "a rule of the database forbids this change; nothing was changed";
    Refusal::new("constraint", RefusalClass::Upstream, Wall::System, Retry::WithChange, message)
}

/// The tool no longer fits the database.
pub(crate) fn stale() -> Refusal {
    let message = "the database has changed since this tool was checked; its operator has to look";
    Refusal::new("tool_stale", RefusalClass::Upstream, Wall::System, Retry::Later, message)
}

/// Anything else.
pub(crate) fn could_not() -> Refusal {
    let message = "the database could not carry this out; the operator's log says why";
    Refusal::new("system_failed", RefusalClass::Upstream, Wall::System, Retry::Later, message)
}
