//! What the connection's role may do, and become: found when a project is checked, since none of it is needed to be more.

use ringfence_core::{Place, Problem};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error};

use super::enter::{ActAs, verdict};

/// The most names that one finding lists.
const NAMES_MAX: usize = 5;

const OWN: &str = "SELECT r.rolname::text, r.rolsuper, r.rolbypassrls OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication, \
    current_setting('track_counts') = 'on' FROM pg_catalog.pg_roles r WHERE r.rolname = session_user";

const BECOMES: &str = concat!(
    "SELECT r.rolname::text, ",
    verdict!(),
    " FROM pg_catalog.pg_roles r WHERE r.rolname <> session_user AND pg_has_role(session_user, r.oid, 'MEMBER') ORDER BY 1"
);

/// `$1` are the roles that matter, `$2` the schemas of the project. Each gives one name a row.
const ROLE_LOOKS: &[(&str, &str, &str)] = &[
    (
        "SELECT DISTINCT c.oid::regclass::text FROM pg_catalog.pg_class c \
            JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace, unnest($1) AS role \
            WHERE c.relrowsecurity AND NOT c.relforcerowsecurity AND pg_has_role(role::name, c.relowner, 'USAGE') ORDER BY 1",
        "calls can run in the role that owns {}, and row-level security does not hold an owner",
        "write `ALTER TABLE … FORCE ROW LEVEL SECURITY`, or give the table to another role",
    ),
    (
        "SELECT DISTINCT n.nspname::text FROM pg_catalog.pg_namespace n, unnest($1) AS role \
            WHERE n.nspname = ANY ($2) AND has_schema_privilege(role::name, n.oid, 'CREATE') ORDER BY 1",
        "calls can run in a role that may create things in the schema {}, where every statement looks for names",
        "write `REVOKE CREATE ON SCHEMA … FROM PUBLIC`, or from the role",
    ),
    (
        "SELECT DISTINCT p.oid::regprocedure::text FROM pg_catalog.pg_proc p \
            JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace, unnest($1) AS role \
            WHERE p.prosecdef AND n.nspname <> ALL (ARRAY['pg_catalog', 'information_schema']) \
            AND has_schema_privilege(role::name, n.oid, 'USAGE') AND has_function_privilege(role::name, p.oid, 'EXECUTE') ORDER BY 1",
        "calls may use {}, with its owner's rights (`SECURITY DEFINER`)",
        "write `REVOKE EXECUTE ON FUNCTION … FROM PUBLIC`, unless a tool needs it",
    ),
];

const WRITES: (&str, &str, &str) = (
    "SELECT DISTINCT c.oid::regclass::text FROM pg_catalog.pg_class c \
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace, unnest($1) AS role \
        WHERE c.relkind IN ('r', 'p', 'v', 'f') AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' \
        AND has_table_privilege(role::name, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE') ORDER BY 1",
    "no tool of this system writes, and its roles may change {}",
    "write `REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON … FROM …`",
);

const SCHEMAS: (&str, &str, &str) = (
    "SELECT s FROM unnest($2) AS s WHERE s NOT IN (SELECT nspname FROM pg_catalog.pg_namespace)",
    "there is no schema {} in the database",
    "correct `schemas`",
);

/// What a system is asked about.
pub(super) struct Question<'a> {
    pub(super) act_as: &'a ActAs,
    pub(super) schemas: &'a [String],
    /// Whether any tool of the system changes something.
    pub(super) writes: bool,
    pub(super) place: &'a Place,
}

impl Question<'_> {
    /// The roles in which calls may run; every finding is pushed.
    pub(super) async fn ask(
        &self,
        client: &Client,
        problems: &mut Vec<Problem>,
    ) -> Result<Vec<String>, Error> {
        let own = self.own(client, problems).await?;
        let roles = self.roles(client, &own, problems).await?;
        for name in self.names(client, SCHEMAS.0, &roles).await? {
            let what = SCHEMAS.1.replace("{}", &format!("`{name}`"));
            problems.push(Problem::error(self.place.clone(), what, SCHEMAS.2));
        }
        let writes = (!self.writes).then_some(&WRITES);
        let with_own: Vec<String> = roles.iter().cloned().chain([own]).collect();
        for (asked, what, instead) in ROLE_LOOKS.iter().chain(writes) {
            let names = self.names(client, asked, &with_own).await?;
            if !names.is_empty() {
                let what = what.replace("{}", &listed(&names));
                problems.push(Problem::warn(self.place.clone(), what, *instead));
            }
        }
        Ok(roles)
    }

    async fn own(&self, client: &Client, problems: &mut Vec<Problem>) -> Result<String, Error> {
        let row = client.query_typed_one(OWN, &[]).await?;
        let (name, is_super): (String, bool) = (row.try_get(0)?, row.try_get(1)?);
        let (has_more, counts): (bool, bool) = (row.try_get(2)?, row.try_get(3)?);
        if is_super {
            let what = format!("the connection's role `{name}` is a superuser, whom nothing holds");
            let instead = "connect as a role with `LOGIN NOINHERIT` alone, and grant it the users' roles";
            problems.push(Problem::error(self.place.clone(), what, instead));
        } else if has_more {
            let what = format!("the connection's role `{name}` has more than `LOGIN`");
            let instead =
                format!("write `ALTER ROLE {name} NOBYPASSRLS NOCREATEROLE NOCREATEDB NOREPLICATION`");
            problems.push(Problem::warn(self.place.clone(), what, instead));
        }
        if self.writes && !counts {
            let what = "the server does not count changed rows, so no tool can be held to `changed-rows`";
            problems.push(Problem::error(self.place.clone(), what, "set `track_counts = on` at the server"));
        }
        Ok(name)
    }

    /// Those that the connection's role may become and that calls may run in. One that a claim could name and that no
    /// statement may run in is an error.
    async fn roles(
        &self,
        client: &Client,
        own: &str,
        problems: &mut Vec<Problem>,
    ) -> Result<Vec<String>, Error> {
        let mut fit = Vec::new();
        for row in client.query_typed(BECOMES, &[]).await? {
            let (role, verdict): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            let is_meant = match self.act_as {
                ActAs::Role(meant) => *meant == role,
                ActAs::Claim(_) => true,
            };
            match (verdict.as_str(), is_meant) {
                ("fits", true) => fit.push(role),
                // Said of the connection itself already.
                ("superuser connection", _) | ("fits", false) => {}
                (verdict, is_meant) => {
                    let what =
                        format!("the connection may become `{role}`, in which nothing may run: {verdict}");
                    let instead = format!("write `REVOKE {role} FROM {own}`");
                    let level = if is_meant { Problem::error } else { Problem::warn };
                    problems.push(level(self.place.clone(), what, instead));
                }
            }
        }
        let has_problem = problems
            .iter()
            .any(|problem| problem.place == *self.place && problem.level == ringfence_core::Level::Error);
        if fit.is_empty() && !has_problem {
            let (which, grant) = match self.act_as {
                ActAs::Role(role) => (format!("the role `{role}`"), role.as_str()),
                ActAs::Claim(_) => ("any role".to_owned(), "ROLE"),
            };
            let what = format!("the connection's role `{own}` may not become {which}, so no call could run");
            problems.push(Problem::error(
                self.place.clone(),
                what,
                format!("write `GRANT {grant} TO {own}`"),
            ));
        }
        Ok(fit)
    }

    async fn names(&self, client: &Client, asked: &str, roles: &[String]) -> Result<Vec<String>, Error> {
        let values: [(&(dyn ToSql + Sync), Type); 2] =
            [(&roles, Type::TEXT_ARRAY), (&self.schemas, Type::TEXT_ARRAY)];
        client.query_typed(asked, &values).await?.iter().map(|row| row.try_get(0)).collect()
    }
}

fn listed(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(NAMES_MAX).map(|name| format!("`{name}`")).collect();
    match names.len().saturating_sub(NAMES_MAX) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
