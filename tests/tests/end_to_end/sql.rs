//! SQL on SQLite: what is refused when a tool loads, and what bounds it when it runs.

use std::time::{Duration, Instant};

use ringfence_tests::{Project, ringfence};
use serde_json::{Value, json};

/// A project whose one SQL tool is `t`, open to everyone.
fn with_tool(effect: &str, sql: &str, further: &str) -> Project {
    let project = Project::new();
    project.write("policies/policies.cedar", "permit (principal, action, resource);\n");
    let sql = serde_json::to_string(sql).unwrap();
    let tool = format!(
        "[t]\nsystem = \"metrics\"\neffect = \"{effect}\"\ndescribe = \"T.\"\nsql = {sql}\n{further}\n"
    );
    project.write("tools/metrics.toml", &tool);
    project
}

/// What `check` says of such a project: one line a problem.
fn problems(project: &Project) -> String {
    let report = ringfence(&["check", project.path(), "--json"]).json();
    let problems = report["problems"].as_array().unwrap().iter();
    problems.map(|problem| problem["what"].as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_tool_that_reads_can_do_nothing_else() {
    let mut table = String::new();
    for sql in [
        "SELECT 1; DROP TABLE users",
        "SELECT 1; SELECT 2",
        "",
        "DELETE FROM users",
        "INSERT INTO users VALUES ('u-9', 'x', 'y') RETURNING name",
        "UPDATE users SET name = 'x'",
        "WITH gone AS (SELECT 1) DELETE FROM users",
        "REPLACE INTO users VALUES ('u-1', 'x', 'y')",
        "CREATE TABLE t (a)",
        "CREATE TEMP TABLE t AS SELECT * FROM users",
        "CREATE TRIGGER t AFTER INSERT ON users BEGIN SELECT 1; END",
        "DROP TABLE users",
        "ALTER TABLE users RENAME TO others",
        "ATTACH '/etc/passwd' AS p",
        "DETACH main",
        "VACUUM",
        "VACUUM INTO '/tmp/copy.db'",
        "PRAGMA query_only = 0",
        "PRAGMA table_info(users)",
        "SELECT * FROM pragma_table_info('users')",
        "SELECT * FROM pragma_database_list",
        "SELECT sql FROM sqlite_master",
        "SELECT sql FROM sqlite_schema",
        "SELECT * FROM sqlite_dbpage",
        "SELECT load_extension('/tmp/x.so')",
        "SELECT writefile('/tmp/x', 'y')",
        "SELECT readfile('/etc/passwd')",
        "SELECT edit('x')",
        "SELECT fts3_tokenizer('simple')",
        "SAVEPOINT s",
        "BEGIN",
        "COMMIT",
        "EXPLAIN SELECT * FROM users",
        "EXPLAIN QUERY PLAN DELETE FROM users",
        "REINDEX",
        "ANALYZE",
        "SELECT * FROM nowhere",
        "SELEKT 1",
        "SELECT ?1",
        "SELECT :unknown",
        "SELECT name AS a, tenant AS a FROM users",
    ] {
        let found = problems(&with_tool("read", sql, ""));
        assert!(!found.is_empty(), "{sql}");
        table.extend([format!("{sql}\n    {found}\n")]);
    }
    insta::assert_snapshot!(table);
    for good in [
        "SELECT name FROM users",
        "SELECT upper(name) AS n FROM users ORDER BY n;",
        "WITH u AS (SELECT * FROM users) SELECT count(*) AS n FROM u",
    ] {
        assert_eq!(problems(&with_tool("read", good, "")), "", "the control: {good}");
    }
}

#[test]
fn a_tool_that_writes_can_write_only_what_its_statement_says() {
    for bad in [
        "DROP TABLE users",
        "PRAGMA writable_schema = 1",
        "ATTACH 'x' AS y",
        "VACUUM",
        "INSERT INTO sqlite_master VALUES (1,2,3,4,5)",
        "SELECT 1; DELETE FROM users",
    ] {
        assert_ne!(problems(&with_tool("write", bad, "")), "", "{bad}");
    }
    let project = with_tool(
        "write",
        "DELETE FROM user_metrics WHERE tenant = :tenant",
        "params = { tenant = { type = \"string\" } }",
    );
    assert_eq!(problems(&project), "");
    let rows = || -> u32 {
        project
            .database("metrics.db")
            .query_row("SELECT count(*) FROM user_metrics", [], |row| row.get(0))
            .unwrap()
    };
    let refused = project.call("bob", "t", &["tenant=acme"]);
    assert_eq!(
        (&refused["refusal"]["code"], rows()),
        (&json!("too_many_rows"), 5),
        "four rows, and one is allowed"
    );
    let done = project.call("bob", "t", &["tenant=globex"]);
    assert_eq!((&done["done"]["changed_rows"], rows()), (&json!(1), 4), "{done}");
}

#[test]
fn another_number_of_rows_than_expected_changes_nothing() {
    let project = with_tool(
        "write",
        "UPDATE users SET name = 'x' WHERE tenant = :tenant",
        "limits = { changed-rows = 100, expect-rows = 1 }\nparams = { tenant = { type = \"string\" } }",
    );
    let count = "SELECT count(*) FROM users WHERE name = 'x'";
    let changed =
        || -> u32 { project.database("metrics.db").query_row(count, [], |row| row.get(0)).unwrap() };
    for tenant in ["tenant=nowhere", "tenant=acme"] {
        let refused = project.call("bob", "t", &[tenant]);
        assert_eq!((&refused["refusal"]["code"], changed()), (&json!("unexpected_rows"), 0), "{tenant}");
    }
    let done = project.call("bob", "t", &["tenant=globex"]);
    assert_eq!((&done["done"]["changed_rows"], changed()), (&json!(1), 1), "{done}");
}

#[test]
fn a_view_or_trigger_that_changes_after_the_check_reaches_no_further() {
    let project = with_tool("read", "SELECT * FROM names", "");
    project.database("metrics.db").execute_batch("CREATE VIEW names AS SELECT name FROM users").unwrap();
    let serving = project.serve(&[]);
    let call = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = serving.client(&project.token("bob", &[]), ringfence_mcp::Revision::V2026);
        let call = ringfence_mcp::ToolCall { name: "t".into(), arguments: serde_json::Map::new() };
        runtime.block_on(client.call(call)).unwrap().body["result"]["structuredContent"].clone()
    };
    assert_eq!(call()["rows"][0], json!({ "name": "Ann" }), "the control");
    let widened = "DROP VIEW names; CREATE VIEW names AS SELECT value AS name FROM user_metrics";
    project.database("metrics.db").execute_batch(widened).unwrap();
    let refused = call();
    assert!(refused["refusal"].is_object(), "{refused}");
}

fn big(project: &Project, rows: usize, bytes: usize) {
    let connection = project.database("metrics.db");
    connection.execute_batch("CREATE TABLE big (text TEXT); BEGIN").unwrap();
    for _ in 0..rows {
        connection.execute("INSERT INTO big VALUES (?1)", ["x".repeat(bytes)]).unwrap();
    }
    connection.execute_batch("COMMIT").unwrap();
}

#[test]
fn rows_bytes_and_time_are_bounded_while_streaming() {
    let select = "SELECT text FROM big";
    let read = |limits: &str, sql: &str| -> Value {
        let project = with_tool("read", sql, &format!("limits = {limits}"));
        big(&project, 3000, 1000);
        project.call("bob", "t", &[])
    };
    let all = read("{ rows = 10000, size = \"16MiB\" }", select);
    assert_eq!(
        (all["done"]["rows"].as_array().unwrap().len(), &all["done"]["truncated"]),
        (3000, &json!(false)),
        "the control"
    );
    let some = read("{ rows = 7 }", select);
    assert_eq!(
        (some["done"]["rows"].as_array().unwrap().len(), &some["done"]["truncated"]),
        (7, &json!(true))
    );
    let small = read("{ rows = 10000, size = \"64KiB\" }", select);
    let rows = small["done"]["rows"].as_array().unwrap().len();
    assert!((50..70).contains(&rows) && small["done"]["truncated"] == true, "{rows}");
    let began = Instant::now();
    let slow = read(
        "{ seconds = 1 }",
        "SELECT count(*) AS n FROM big AS a, big AS b, big AS c WHERE a.text < b.text || c.text",
    );
    assert_eq!(
        (&slow["refusal"]["class"], &slow["refusal"]["wall"]),
        (&json!("budget"), &json!("limits")),
        "{slow}"
    );
    assert!(began.elapsed() < Duration::from_secs(10));
    let endless = read(
        "{ seconds = 1 }",
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) AS n FROM n",
    );
    assert!(endless["refusal"].is_object(), "{endless}");
}
