//! What `check` finds before anything runs.

use ringfence_tests::postgres::{PASSWORD, Server};
use ringfence_tests::{Project, ringfence};

use crate::{CRM, Crm, KEYS, Test, USERS, tool};

pub(crate) const TESTS: &[Test] = &[
    ("a_statement_is_one_and_fits_its_declaration", a_statement_is_one_and_fits_its_declaration),
    ("a_connection_that_may_do_too_much_is_found", a_connection_that_may_do_too_much_is_found),
    ("a_database_that_cannot_be_reached_is_named", a_database_that_cannot_be_reached_is_named),
    ("a_declaration_is_checked", a_declaration_is_checked),
    (
        "a_table_that_changed_since_the_check_makes_its_tool_stale",
        a_table_that_changed_since_the_check_makes_its_tool_stale,
    ),
    ("tls_is_spoken_and_the_certificate_is_checked", tls_is_spoken_and_the_certificate_is_checked),
];

fn a_statement_is_one_and_fits_its_declaration() {
    let statements = [
        "SELECT 1 AS a; DROP TABLE customers",
        "SELECT 1 AS a; SELECT 2 AS a",
        "",
        "DELETE FROM customers",
        "WITH gone AS (DELETE FROM customers RETURNING id) SELECT id FROM gone",
        "SELECT id INTO copy FROM customers",
        "COPY customers TO PROGRAM 'sh'",
        "COPY customers TO STDOUT",
        "SET ROLE alice",
        "SET TRANSACTION READ WRITE",
        "RESET ROLE",
        "DO $$ BEGIN END $$",
        "CALL p()",
        "LISTEN c",
        "BEGIN",
        "COMMIT",
        "EXPLAIN ANALYZE DELETE FROM customers",
        "TRUNCATE customers",
        "CREATE TABLE t (a int)",
        "SELECT * FROM nowhere",
        "SELEKT 1",
        "SELECT $1::text AS a",
        "SELECT :unknown::text AS a",
        "SELECT id AS a, tenant AS a FROM customers",
        "SELECT point(1, 2) AS p",
        "SELECT customers FROM customers",
    ];
    let mut tools: Vec<String> =
        statements.iter().enumerate().map(|(at, sql)| tool(&format!("t{at:02}"), "read", sql, "")).collect();
    let declared = [
        ("number", "integer", "SELECT id FROM customers WHERE email = :p"),
        ("text", "string", "SELECT id FROM customers WHERE id = :p"),
        ("truth", "boolean", "SELECT id FROM customers WHERE credit > :p"),
        ("stage", "string", "SELECT :p::stage AS s"),
        ("vague", "string", "SELECT :p AS s"),
    ];
    for (name, kind, sql) in declared {
        tools.push(tool(name, "read", sql, &format!("params = {{ p = {{ type = \"{kind}\" }} }}")));
    }
    let lists = "params = { p = { type = \"array\", items = { type = \"string\" } } }";
    tools.push(tool("lists", "read", "SELECT id FROM customers WHERE id = ANY (:p)", lists));
    tools.push(tool("unused", "read", "SELECT 1 AS a", "params = { p = { type = \"string\" } }"));
    tools.push(tool(
        "good",
        "read",
        "SELECT id FROM customers WHERE email = :p;",
        "params = { p = { type = \"string\" } }",
    ));
    let crm = Crm::new("CREATE TYPE stage AS ENUM ('lead', 'won')", &tools.concat());
    insta::assert_snapshot!(crm.errors().join("\n"));
}

fn a_connection_that_may_do_too_much_is_found() {
    let list = tool("t", "read", "SELECT id FROM customers", "");
    let crm = Crm::new("REVOKE UPDATE (email) ON customers FROM alice", &list);
    let found = || {
        let problems = crm.problems().into_iter().map(|(level, what)| format!("{level}: {what}\n"));
        problems.collect::<String>()
    };
    assert_eq!(found(), "", "the control");
    let mut table = String::new();
    for (done, undone) in [
        ("ALTER ROLE gateway SUPERUSER", "ALTER ROLE gateway NOSUPERUSER"),
        ("ALTER ROLE gateway BYPASSRLS CREATEDB", "ALTER ROLE gateway NOBYPASSRLS NOCREATEDB"),
        ("ALTER ROLE bob BYPASSRLS", "ALTER ROLE bob NOBYPASSRLS"),
        ("ALTER ROLE bob SUPERUSER", "ALTER ROLE bob NOSUPERUSER"),
        ("GRANT pg_execute_server_program TO bob", "REVOKE pg_execute_server_program FROM bob"),
        ("GRANT postgres TO alice", "REVOKE postgres FROM alice"),
        (
            "CREATE ROLE chief; GRANT postgres TO chief; GRANT chief TO bob",
            "REVOKE chief FROM bob; DROP ROLE chief",
        ),
        ("GRANT INSERT ON customers TO bob", "REVOKE INSERT ON customers FROM bob"),
        ("ALTER TABLE customers OWNER TO alice", "ALTER TABLE customers OWNER TO postgres"),
        ("GRANT CREATE ON SCHEMA public TO bob", "REVOKE CREATE ON SCHEMA public FROM bob"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'", "DROP FUNCTION f"),
        ("REVOKE alice, bob FROM gateway", "GRANT alice, bob TO gateway"),
    ] {
        crm.server.sql("crm", done);
        table.extend([format!("{done}\n{}\n", found())]);
        crm.server.sql("crm", undone);
    }
    insta::assert_snapshot!(table);
    // The same where everyone has one role, whatever the others are.
    let one = "act-as = { role = \"alice\" }\nclaims = [\"tenant\"]";
    let project = Project::on_postgres(&crm.server.url("gateway", "crm"), one, &list, USERS);
    let errors = || {
        let report = ringfence(&["check", project.path(), "--json"]).json();
        let problems = report["problems"].as_array().unwrap().iter();
        let errors = problems.filter(|problem| problem["level"] == "error");
        errors.map(|problem| problem["what"].as_str().unwrap().to_owned()).collect::<Vec<String>>()
    };
    assert_eq!(errors(), Vec::<String>::new(), "the control");
    crm.server.sql("crm", "CREATE ROLE seer BYPASSRLS; GRANT seer TO alice");
    let what = "the connection may become `alice`, in which nothing may run: member of a role that is more";
    assert!(errors().contains(&what.to_owned()), "{:?}", errors());
    let server = Server::start();
    server.sql("postgres", CRM);
    let copy = "COPY customers TO PROGRAM 'cat > copied'";
    let project = Project::on_postgres(&server.url("postgres", "postgres"), KEYS, &list, USERS);
    let report = ringfence(&["check", project.path(), "--json"]).json().to_string();
    assert!(report.contains("superuser"), "{report}");
    server.session("postgres", "postgres").run(&format!("BEGIN READ ONLY; {copy}; ROLLBACK")).unwrap();
    let copied = std::fs::read_to_string(server.folder().join("data/copied")).unwrap();
    assert!(copied.contains("ann@acme.example"), "the control: READ ONLY does not hold a superuser");
}

fn a_database_that_cannot_be_reached_is_named() {
    let server = Server::start();
    server.sql("postgres", "CREATE ROLE gateway LOGIN PASSWORD 'another'");
    let errors = |url: &str| {
        let project = Project::on_postgres(url, KEYS, &tool("t", "read", "SELECT 1 AS a", ""), USERS);
        let ran = ringfence(&["check", project.path(), "--json"]);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(!format!("{ran:?}").contains(PASSWORD), "no password is shown: {ran:?}");
        ran.json()["problems"][0]["what"].as_str().unwrap().to_owned()
    };
    let wrong = errors(&server.url("gateway", "postgres"));
    assert!(wrong.contains("password authentication failed"), "{wrong}");
    let no_database = errors(&server.url("postgres", "nowhere"));
    assert!(no_database.contains("\"nowhere\" does not exist"), "{no_database}");
    let nobody = errors(&format!("postgres://u:{PASSWORD}@%2Fnowhere/d"));
    assert!(nobody.contains("cannot be connected to"), "{nobody}");
    let plain = errors(&format!("postgres://u:{PASSWORD}@db.example.com/d?sslmode=disable"));
    assert!(plain.contains("turns encryption off"), "{plain}");
    let nonsense = errors(&format!("postgres//{PASSWORD}"));
    assert!(nonsense.contains("cannot be read"), "{nonsense}");
}

fn a_declaration_is_checked() {
    let project = Project::on_postgres("postgres://u@%2Fnowhere/d", "", "", USERS);
    let errors = |system: &str| {
        project.edit("ringfence.toml", |text| {
            let (head, _) = text.split_once("[systems.crm]").unwrap();
            format!("{head}[systems.crm]\nkind = \"postgres\"\n{system}\n")
        });
        let report = ringfence(&["check", project.path(), "--json"]).json();
        let problems = report["problems"].as_array().unwrap().iter();
        let errors = problems.filter(|problem| problem["level"] == "error");
        errors
            .map(|problem| {
                format!("{}; {}", problem["what"].as_str().unwrap(), problem["instead"].as_str().unwrap())
            })
            .collect::<Vec<_>>()
            .join("\n")
    };
    let mut table = String::new();
    for system in [
        "",
        "url = \"postgres://u:p@h/d\"\nact-as = { role = \"r\" }",
        "url = { env = \"A\", file = \"b\" }\nact-as = { role = \"r\", role-claim = \"c\" }",
        "url = { env = \"RINGFENCE_NO_SUCH\" }\nact-as = { role-claim = \"c\" }",
        "url = { file = \"nowhere\" }\nact-as = { role-claim = \"c\" }\nca = \"nowhere.pem\"",
        "url = { file = \"crm.url\" }\nact-as = { role = \"none\" }",
        "url = { file = \"crm.url\" }\nact-as = { role = \"r\" }\nconnections = 0\nschema = \"x\"",
    ] {
        table.extend([format!(
            "{system}\n    {}\n",
            errors(system).replace(project.path(), "…").replace('\n', "\n    ")
        )]);
    }
    insta::assert_snapshot!(table);
}

fn a_table_that_changed_since_the_check_makes_its_tool_stale() {
    let crm = Crm::with("", "read", "SELECT * FROM shown", "");
    let view = |columns: &str| {
        format!(
            "DROP VIEW IF EXISTS shown; CREATE VIEW shown AS SELECT {columns} FROM customers WHERE id = 1; GRANT SELECT ON shown TO alice"
        )
    };
    crm.server.sql("crm", &view("id"));
    assert_eq!(crm.errors(), Vec::<String>::new());
    let serving = crm.project.serve(&[]);
    let alice = crate::Agent::of(&crm.project, &serving, "alice");
    let call = || alice.call("t", serde_json::json!({}));
    assert_eq!(call()["rows"], serde_json::json!([{ "id": 1 }]), "the control");
    for columns in ["id, credit", "email AS id", "id AS other"] {
        crm.server.sql("crm", &view(columns));
        assert_eq!(call()["refusal"]["code"], "tool_stale", "{columns}");
    }
    crm.server.sql("crm", "DROP VIEW shown");
    assert_eq!(call()["refusal"]["code"], "tool_stale");
    crm.server.sql("crm", &view("id"));
    assert_eq!(call()["rows"], serde_json::json!([{ "id": 1 }]), "the control");
}

fn tls_is_spoken_and_the_certificate_is_checked() {
    let secure = Server::start_with_tls();
    secure.server.sql("postgres", CRM);
    let project = |host: &str, ca: &str| {
        let url =
            format!("postgres://gateway:{PASSWORD}@{host}:{}/postgres?sslmode=verify-full", secure.port);
        let list = tool("t", "read", "SELECT id FROM customers ORDER BY id", "");
        let project = Project::on_postgres(&url, &format!("{KEYS}\nca = \"ca.pem\""), &list, USERS);
        project.write("ca.pem", ca);
        project
    };
    let problem = |project: &Project| {
        let report = ringfence(&["check", project.path(), "--json"]).json();
        report["problems"][0]["what"].as_str().unwrap().to_owned()
    };
    let sound = project("localhost", &secure.ca);
    let serving = sound.serve(&[]);
    let alice = crate::Agent::of(&sound, &serving, "alice");
    assert_eq!(crate::column(&alice.call("t", serde_json::json!({})), "id"), [1, 2], "the control");
    let encrypted =
        "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'gateway'";
    assert_eq!(secure.server.sql("postgres", encrypted), [["t"]]);
    let stranger = problem(&project("localhost", &secure.other_ca));
    assert!(stranger.contains("UnknownIssuer") || stranger.contains("BadSignature"), "{stranger}");
    let other_name = problem(&project("127.0.0.1", &secure.ca));
    assert!(other_name.contains("certificate"), "the certificate is for `localhost`: {other_name}");
}
