//! Who a transaction is for: the user's role, and what else the database may know of the call.

use ringfence_actions::claim_missing;
use ringfence_core::{Call, Principal, Refusal, RefusalClass, Retry, Wall};
use serde_json::{Map, Value as Json};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error};

/// In which role the statements of a system run. Never in the connection's own.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ActAs {
    /// The same for everyone; what a user may see is told apart by the claims alone.
    Role(String),
    /// The one that this claim of the principal names.
    Claim(String),
}

/// What a role is, asked of `pg_roles r`: `fits`, or why no statement may run in it. One that could become more than it
/// looks is refused with those that are more.
macro_rules! verdict {
    () => {
        "CASE \
            WHEN current_setting('is_superuser') = 'on' THEN 'superuser connection' \
            WHEN r.rolname = session_user THEN 'own' \
            WHEN r.rolsuper THEN 'superuser' \
            WHEN r.rolbypassrls THEN 'bypassrls' \
            WHEN r.rolcreaterole THEN 'createrole' \
            WHEN r.rolreplication THEN 'replication' \
            WHEN EXISTS (SELECT FROM pg_catalog.pg_roles AS more WHERE pg_has_role(r.oid, more.oid, 'MEMBER') \
                AND (more.rolsuper OR more.rolbypassrls OR more.rolcreaterole OR more.rolreplication)) \
                THEN 'member of a role that is more' \
            WHEN pg_has_role(r.oid, 'pg_execute_server_program', 'MEMBER') THEN 'pg_execute_server_program' \
            WHEN pg_has_role(r.oid, 'pg_read_server_files', 'MEMBER') THEN 'pg_read_server_files' \
            WHEN pg_has_role(r.oid, 'pg_write_server_files', 'MEMBER') THEN 'pg_write_server_files' \
            WHEN NOT pg_has_role(session_user, r.oid, 'MEMBER') THEN 'not a member' \
            ELSE 'fits' END"
    };
}
pub(super) use verdict;

/// The rows that this transaction has changed, whoever changed them: the statement, a trigger, a function. What a session
/// changed before may still be in it, so only a difference says something.
macro_rules! changed {
    () => {
        "(SELECT coalesce(sum(pg_stat_get_xact_tuples_inserted(c.oid) + pg_stat_get_xact_tuples_updated(c.oid) \
            + pg_stat_get_xact_tuples_deleted(c.oid)), 0)::int8 \
            FROM pg_catalog.pg_class c WHERE c.relkind IN ('r', 'm'))"
    };
}

/// It reads, so the transaction has its snapshot and nothing can make it one that writes any more. The role comes last.
const ENTER: &str = concat!(
    "WITH judged AS MATERIALIZED (SELECT r.rolname::text AS name, ",
    verdict!(),
    " AS verdict FROM pg_catalog.pg_roles r WHERE r.rolname = $1) \
    SELECT judged.verdict, CASE WHEN $2 THEN ",
    changed!(),
    " END, set_config('search_path', $3, true), set_config('statement_timeout', $4, true), \
    set_config('idle_in_transaction_session_timeout', $5, true), set_config('ringfence.claims', $6, true), \
    set_config('ringfence.subject', $7, true), set_config('ringfence.issuer', $8, true), \
    set_config('ringfence.agent', $9, true), set_config('ringfence.run', $10, true), \
    CASE judged.verdict WHEN 'fits' THEN set_config('role', judged.name, true) END FROM judged"
);

const CHANGED: &str = concat!("SELECT ", changed!());

/// What one transaction is told.
pub(super) struct Entry {
    pub(super) role: String,
    /// The identity: claims, subject, issuer, agent, run.
    known: [String; 5],
}

/// How a transaction was not entered.
pub(super) enum NotEntered {
    /// The role is not one to act in; the word says why.
    Role(String),
    Failed(Error),
}

/// How long and where a statement works, and whether its changes are to be counted.
pub(super) struct Terms<'a> {
    pub(super) search_path: &'a str,
    pub(super) milliseconds: u64,
    pub(super) writes: bool,
}

impl Entry {
    /// For one call.
    pub(super) fn of(call: &Call, act_as: &ActAs, claims: &[String]) -> Result<Self, Refusal> {
        let run = call.run();
        let principal = run.principal();
        let role = role(principal, act_as)?;
        let claims = self::claims(principal, claims)?;
        let text = str::to_owned;
        let known = [
            claims,
            text(principal.subject()),
            text(principal.issuer()),
            text(run.agent().as_str()),
            run.id().to_string(),
        ];
        Ok(Self { role, known })
    }

    /// For nobody: a look at a statement when a tool is checked.
    pub(super) fn check(role: String) -> Self {
        Self { role, known: ["{}".to_owned(), String::new(), String::new(), String::new(), String::new()] }
    }

    /// Begins a transaction and enters it, in one round trip; the rows that count as changed before it did anything.
    pub(super) async fn enter(&self, client: &Client, terms: &Terms<'_>) -> Result<i64, NotEntered> {
        let transaction = if terms.writes {
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
        } else {
            "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY"
        };
        let timeout = terms.milliseconds.to_string();
        let idle = (terms.milliseconds + 5_000).to_string();
        let texts = [terms.search_path, &timeout, &idle];
        let mut values: Vec<(&(dyn ToSql + Sync), Type)> =
            vec![(&self.role, Type::TEXT), (&terms.writes, Type::BOOL)];
        values.extend(texts.iter().map(|text| (text as &(dyn ToSql + Sync), Type::TEXT)));
        values.extend(self.known.iter().map(|text| (text as &(dyn ToSql + Sync), Type::TEXT)));
        let (began, judged) = tokio::join!(biased; client.execute_typed(transaction, &[]), client.query_typed_opt(ENTER, &values));
        began.map_err(NotEntered::Failed)?;
        let Some(row) = judged.map_err(NotEntered::Failed)? else {
            return Err(NotEntered::Role("unknown".to_owned()));
        };
        let verdict: String = row.try_get(0).map_err(NotEntered::Failed)?;
        let changed: Option<i64> = row.try_get(1).map_err(NotEntered::Failed)?;
        if verdict == "fits" { Ok(changed.unwrap_or(0)) } else { Err(NotEntered::Role(verdict)) }
    }
}

/// The rows that count as changed by now. What a constraint or a trigger has put off until the commit happens first: it counts
/// too, and its user's role and the time limit hold it.
pub(super) async fn changed(client: &Client) -> Result<i64, Error> {
    let (settled, counted) = tokio::join!(
        biased;
        client.execute_typed("SET CONSTRAINTS ALL IMMEDIATE", &[]),
        client.query_typed_one(CHANGED, &[])
    );
    settled?;
    counted?.try_get(0)
}

/// `pg_catalog`, the schemas of the project, and temporary tables last, so that none of them hides another.
pub(super) fn search_path(schemas: &[String]) -> String {
    let quoted = schemas.iter().map(|schema| format!("\"{}\"", schema.replace('"', "\"\"")));
    let path: Vec<String> =
        ["pg_catalog".to_owned()].into_iter().chain(quoted).chain(["pg_temp".to_owned()]).collect();
    path.join(", ")
}

/// The role is a claim, so the database judges it once more; here it is only that it is one name.
fn role(principal: &Principal, act_as: &ActAs) -> Result<String, Refusal> {
    let role = match act_as {
        ActAs::Role(role) => Some(role.as_str()),
        ActAs::Claim(claim) => match principal.claims().get(claim) {
            None => return Err(claim_missing()),
            // A list would leave it to us to choose.
            Some(value) => value.as_str(),
        },
    };
    role.filter(|role| is_role(role)).map(str::to_owned).ok_or_else(role_refused)
}

/// A name that fits into the server's 63 bytes and is not the word that means "no role" (`NONE`, which is the connection's own).
pub(super) fn is_role(name: &str) -> bool {
    (1..=63).contains(&name.len()) && !name.contains('\0') && !name.eq_ignore_ascii_case("none")
}

fn claims(principal: &Principal, wanted: &[String]) -> Result<String, Refusal> {
    let mut claims = Map::new();
    for name in wanted {
        let value = principal.claims().get(name).ok_or_else(claim_missing)?;
        claims.insert(name.clone(), value.clone());
    }
    Ok(Json::Object(claims).to_string())
}

/// Which of the reasons it was is for the log: the agent cannot change any of them.
pub(super) fn role_refused() -> Refusal {
    let message =
        "your identity names no role of the database that calls may run in; its administrator has to look";
    Refusal::new("role_refused", RefusalClass::Policy, Wall::Identity, Retry::Never, message)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ringfence_core::Authorities;
    use serde_json::json;

    use super::*;

    fn role_of(claims: &Json) -> Result<String, &'static str> {
        let verifier = Authorities::establish().verifier;
        let claims = claims.as_object().unwrap().clone();
        let principal = Principal::verified(&verifier, "i".into(), "s".into(), BTreeSet::new(), claims);
        role(&principal, &ActAs::Claim("db_role".into())).map_err(|refusal| refusal.code)
    }

    #[test]
    fn a_role_is_one_name_in_one_claim() {
        assert_eq!(role_of(&json!({ "db_role": "alice" })), Ok("alice".into()), "the control");
        assert_eq!(role_of(&json!({ "role": "alice" })), Err("claim_missing"));
        for bad in [json!(["alice"]), json!([]), json!(null), json!(7), json!(""), json!({ "is": "alice" })] {
            assert_eq!(role_of(&json!({ "db_role": bad })), Err("role_refused"), "{bad}");
        }
        for bad in ["none", "NONE", "a\0b", &"x".repeat(64)] {
            assert_eq!(role_of(&json!({ "db_role": bad })), Err("role_refused"), "{bad}");
        }
    }

    #[test]
    fn a_schema_is_one_name() {
        let schemas = ["crm".to_owned(), "a\", pg_temp, \"b".to_owned()];
        assert_eq!(search_path(&schemas), "pg_catalog, \"crm\", \"a\"\", pg_temp, \"\"b\", pg_temp");
    }
}
