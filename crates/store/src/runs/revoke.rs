//! What was revoked, and what may begin afterwards: nothing that rests on a login from before.

use ringfence_core::{AgentId, Instant, RunId};
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::Serialize;

use super::row::{end, id, sql, unsigned};
use super::{Ending, NoRun, Owner};

/// What is revoked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Scope {
    /// One run.
    Run(String),
    /// All runs of one agent.
    Agent(AgentId),
    /// All runs of one user.
    User {
        /// The issuer that vouches for the user.
        issuer: String,
        /// The user.
        subject: String,
    },
    /// All runs.
    Everything,
}

impl Scope {
    /// The word in the journal.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Run(_) => "run",
            Self::Agent(_) => "agent",
            Self::User { .. } => "user",
            Self::Everything => "everything",
        }
    }
}

/// A revocation that is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Revocation<'a> {
    /// What.
    pub scope: &'a Scope,
    /// Who asks for it.
    pub by: &'a str,
    /// Why, in that person's words.
    pub reason: &'a str,
}

/// What a revocation did.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Revoked {
    /// The runs that went on until now.
    pub runs: Vec<RunId>,
}

pub(super) fn revoke(
    connection: &Connection,
    Revocation { scope, by, reason }: &Revocation<'_>,
    now: Instant,
) -> Result<Revoked, NoRun> {
    let owner = match scope {
        Scope::Run(run) => Some(implicit_owner(connection, run)?),
        _ => None,
    };
    let (issuer, subject, agent) = match (scope, owner) {
        (Scope::Run(_), Some(Some((issuer, subject, agent)))) => (Some(issuer), Some(subject), Some(agent)),
        (Scope::Agent(agent), _) => (None, None, Some(agent.to_string())),
        (Scope::User { issuer, subject }, _) => (Some(issuer.clone()), Some(subject.clone()), None),
        _ => (None, None, None),
    };
    let run = match scope {
        Scope::Run(run) => Some(run),
        _ => None,
    };
    connection.execute(
        "INSERT INTO revocations (scope, issuer, subject, agent, run, at, by, reason) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![scope.as_str(), issuer, subject, agent, run, sql(now.0), by, reason],
    )?;
    let covered = "ended IS NULL AND CASE ?1
            WHEN 'run' THEN id = ?2
            WHEN 'agent' THEN agent = ?3
            WHEN 'user' THEN issuer = ?4 AND subject = ?5
            ELSE ?1 = 'everything' END";
    let mut ending = connection.prepare(&format!("SELECT id FROM runs WHERE {covered}"))?;
    let covered = params![scope.as_str(), run, agent, issuer, subject];
    let runs: Vec<RunId> =
        ending.query_map(covered, |row| id(row, "id"))?.collect::<rusqlite::Result<_>>()?;
    for run in &runs {
        end(connection, run, Ending::Revoked, now)?;
    }
    Ok(Revoked { runs })
}

/// Whose the run is where no application started it; fails where there is no such run.
fn implicit_owner(connection: &Connection, run: &str) -> Result<Option<(String, String, String)>, NoRun> {
    let owner = connection
        .query_row("SELECT token IS NULL, issuer, subject, agent FROM runs WHERE id = ?1", [run], |row| {
            Ok((row.get::<_, bool>(0)?, (row.get(1)?, row.get(2)?, row.get(3)?)))
        })
        .optional()?;
    let (is_implicit, owner) = owner.ok_or(NoRun::Unknown)?;
    Ok(is_implicit.then_some(owner))
}

/// Fails where something that covers this owner was revoked after the login that it rests on, or nobody knows when that was.
/// `implicit` is the agent of a run that no application starts: of those, one that was revoked covers the next one too.
pub(super) fn is_fresh(
    connection: &Connection,
    owner: &Owner<'_>,
    implicit: Option<&AgentId>,
) -> Result<(), NoRun> {
    let mut statement = connection.prepare_cached(
        "SELECT max(at) FROM revocations WHERE CASE scope
            WHEN 'everything' THEN 1
            WHEN 'agent' THEN agent = ?3
            WHEN 'user' THEN issuer = ?1 AND subject = ?2
            ELSE issuer = ?1 AND subject = ?2 AND agent = ?4 END",
    )?;
    let last: Option<i64> = statement.query_row(
        params![owner.issuer, owner.subject, owner.agent.as_str(), implicit.map(AgentId::as_str)],
        |row| row.get(0),
    )?;
    match (last.map(unsigned), owner.login) {
        (None, _) => Ok(()),
        (Some(last), Some(login)) if login.0 > last => Ok(()),
        (Some(_), _) => Err(NoRun::LoginNeeded),
    }
}
