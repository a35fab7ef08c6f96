//! PostgreSQL: a real server of each test's own, whose roles and row-level security decide, behind the real gateway.
//!
//! Where there is no PostgreSQL these tests are ignored, never passed; `cargo xtask check` installs it and says if it cannot.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::missing_panics_doc,
    reason = "tests"
)]

mod checked;
mod escapes;
mod limits;
mod users;
mod values;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use ringfence_mcp::client::Client;
use ringfence_mcp::{Revision, ToolCall};
use ringfence_tests::postgres::{Server, programs};
use ringfence_tests::{Project, Serving, ringfence};
use serde_json::{Map, Value, json};

fn main() -> ExitCode {
    let missing = programs().is_none();
    if missing {
        eprintln!("IGNORED: there is no PostgreSQL (Debian: postgresql), so nothing here is tested");
    }
    let tests = [checked::TESTS, escapes::TESTS, limits::TESTS, users::TESTS, values::TESTS].concat();
    let trials = tests.into_iter().map(|(name, test)| {
        let run = move || {
            test();
            Ok(())
        };
        Trial::test(name, run).with_ignored_flag(missing)
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

/// A test, by its name.
type Test = (&'static str, fn());

/// Customers of two people in two tenants. What a user sees is the database's own business.
const CRM: &str = "
    CREATE ROLE gateway LOGIN NOINHERIT PASSWORD 'canary-of-the-database';
    CREATE ROLE alice; CREATE ROLE bob; CREATE ROLE stranger;
    GRANT alice, bob TO gateway;
    CREATE TABLE customers (id int8 PRIMARY KEY, owner text NOT NULL, tenant text NOT NULL, email text, credit numeric);
    INSERT INTO customers VALUES
        (1, 'alice', 'acme', 'ann@acme.example', 10.50), (2, 'alice', 'acme', 'abe@acme.example', 0),
        (3, 'bob', 'acme', 'bea@acme.example', 3), (4, 'bob', 'globex', 'ben@globex.example', 4);
    ALTER TABLE customers ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON customers USING (owner = current_user
        AND tenant = current_setting('ringfence.claims')::json ->> 'tenant');
    GRANT SELECT (id, owner, tenant, email) ON customers TO alice, bob;
    GRANT SELECT (credit), UPDATE (email) ON customers TO alice;
";

/// Who the identity says these are. Whoever it should not believe so easily has a role that is none of theirs.
const USERS: &str = r#"
[alice]
claims = { db_role = "alice", tenant = "acme" }
[bob]
claims = { db_role = "bob", tenant = "acme" }
[root]
claims = { db_role = "postgres", tenant = "acme" }
[self]
claims = { db_role = "gateway", tenant = "acme" }
[nobody]
claims = { db_role = "none", tenant = "acme" }
[outsider]
claims = { db_role = "stranger", tenant = "acme" }
[ghost]
claims = { db_role = "no such role", tenant = "acme" }
[quoted]
claims = { db_role = "alice\"; RESET ROLE; --", tenant = "acme" }
[boss]
claims = { db_role = "boss", tenant = "acme" }
[roleless]
claims = { tenant = "acme" }
[homeless]
claims = { db_role = "alice" }
"#;

const KEYS: &str = "act-as = { role-claim = \"db_role\" }\nclaims = [\"tenant\"]";

/// A server with the customers, and a project on it.
struct Crm {
    project: Project,
    server: Server,
}

impl Crm {
    /// With these statements after those of the customers, and these tools.
    fn new(further: &str, tools: &str) -> Self {
        let server = Server::start();
        server.sql("postgres", "CREATE DATABASE crm");
        server.sql("crm", CRM);
        if !further.is_empty() {
            server.sql("crm", further);
        }
        let project = Project::on_postgres(&server.url("gateway", "crm"), KEYS, tools, USERS);
        Self { project, server }
    }

    /// With one tool `t`.
    fn with(further: &str, effect: &str, sql: &str, rest: &str) -> Self {
        Self::new(further, &tool("t", effect, sql, rest))
    }

    /// What `check` finds: each as its level and what it is.
    fn problems(&self) -> Vec<(String, String)> {
        let report = ringfence(&["check", self.project.path(), "--json"]).json();
        let problems = report["problems"].as_array().unwrap().iter();
        let text = |problem: &Value, key: &str| problem[key].as_str().unwrap().to_owned();
        problems.map(|problem| (text(problem, "level"), text(problem, "what"))).collect()
    }

    fn errors(&self) -> Vec<String> {
        let errors = self.problems().into_iter().filter(|(level, _)| level == "error");
        errors.map(|(_, what)| what).collect()
    }
}

fn tool(name: &str, effect: &str, sql: &str, rest: &str) -> String {
    let sql = serde_json::to_string(sql).unwrap();
    format!("[{name}]\nsystem = \"crm\"\neffect = \"{effect}\"\ndescribe = \"T.\"\nsql = {sql}\n{rest}\n")
}

/// An agent of one user, by MCP.
struct Agent {
    client: Client,
    runtime: tokio::runtime::Runtime,
}

impl Agent {
    fn of(project: &Project, serving: &Serving, user: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { client: serving.client(&project.token(user, &[]), Revision::V2026), runtime }
    }

    /// What a call gives: `rows` and so on, or `refusal`.
    fn call(&self, tool: &str, arguments: Value) -> Value {
        let arguments: Map<String, Value> = serde_json::from_value(arguments).unwrap();
        let call = ToolCall { name: tool.into(), arguments };
        let reply = self.runtime.block_on(self.client.call(call)).unwrap();
        reply.body["result"]["structuredContent"].clone()
    }

    /// The code of the refusal that a call of `t` gives.
    fn refused(&self) -> String {
        let reply = self.call("t", json!({}));
        reply["refusal"]["code"].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned()
    }
}

/// The values of one column.
fn column(reply: &Value, name: &str) -> Vec<Value> {
    let rows = reply["rows"].as_array().unwrap_or_else(|| panic!("{reply}"));
    rows.iter().map(|row| row[name].clone()).collect()
}
