//! Whose rights decide.

use serde_json::json;

use crate::{Agent, Crm, Test, column, tool};

pub(crate) const TESTS: &[Test] = &[
    ("alice_and_bob_see_what_the_database_lets_them", alice_and_bob_see_what_the_database_lets_them),
    ("a_role_that_is_not_the_users_is_refused", a_role_that_is_not_the_users_is_refused),
    ("a_role_that_grows_after_the_check_is_refused", a_role_that_grows_after_the_check_is_refused),
    ("no_role_or_claim_leaks_under_fifty_callers", no_role_or_claim_leaks_under_fifty_callers),
    ("a_connection_that_died_is_replaced", a_connection_that_died_is_replaced),
];

const LIST: &str = "SELECT id, email FROM customers ORDER BY id";

fn alice_and_bob_see_what_the_database_lets_them() {
    let who = "SELECT current_user::text AS role, current_setting('ringfence.subject') AS subject, \
        current_setting('ringfence.agent') AS agent, current_setting('ringfence.claims') AS claims";
    let set = "UPDATE customers SET email = :email WHERE id = :id";
    let params =
        "params = { id = { type = \"integer\" }, email = { type = \"string\", format = \"email\" } }";
    let tools = [
        tool("list", "read", LIST, ""),
        tool("credit", "read", "SELECT credit FROM customers ORDER BY id", ""),
        tool("who", "read", who, ""),
        tool("set_email", "write", set, params),
    ];
    let crm = Crm::new("", &tools.concat());
    assert_eq!(crm.errors(), Vec::<String>::new());
    assert_eq!(
        crm.server.sql("crm", LIST).len(),
        4,
        "the control: whom nothing holds sees all that the statement asks for"
    );
    let serving = crm.project.serve(&[]);
    let [alice, bob] = ["alice", "bob"].map(|user| Agent::of(&crm.project, &serving, user));
    assert_eq!(column(&alice.call("list", json!({})), "id"), [1, 2]);
    assert_eq!(column(&bob.call("list", json!({})), "id"), [3], "the other one is of another tenant");
    assert_eq!(column(&alice.call("credit", json!({})), "credit"), ["10.50", "0"]);
    let refused = bob.call("credit", json!({}));
    assert_eq!(refused["refusal"]["code"], "system_forbids", "{refused}");
    assert!(refused["refusal"]["message"].as_str().unwrap().contains("42501"), "{refused}");
    assert_eq!(
        alice.call("who", json!({}))["rows"][0],
        json!({ "role": "alice", "subject": "alice", "agent": "ringfence-cli", "claims": r#"{"tenant":"acme"}"# })
    );
    let change = |id| json!({ "id": id, "email": "new@acme.example" });
    assert_eq!(alice.call("set_email", change(1)), json!({ "changed_rows": 1 }));
    assert_eq!(
        alice.call("set_email", change(3)),
        json!({ "changed_rows": 0 }),
        "Bob's is not there for Alice"
    );
    assert_eq!(bob.call("set_email", change(3))["refusal"]["code"], "system_forbids");
    let emails = crm.server.sql("crm", "SELECT email FROM customers ORDER BY id");
    assert_eq!(
        emails.concat(),
        ["new@acme.example", "abe@acme.example", "bea@acme.example", "ben@globex.example"]
    );
}

fn a_role_that_is_not_the_users_is_refused() {
    let crm = Crm::with("", "read", LIST, "");
    let serving = crm.project.serve(&[]);
    let refused = |user: &str| Agent::of(&crm.project, &serving, user).refused();
    for user in ["root", "self", "nobody", "outsider", "ghost", "quoted"] {
        assert_eq!(refused(user), "role_refused", "{user}");
    }
    for user in ["roleless", "homeless"] {
        assert_eq!(refused(user), "claim_missing", "{user}");
    }
    let alice = Agent::of(&crm.project, &serving, "alice");
    assert_eq!(column(&alice.call("t", json!({})), "id"), [1, 2], "the control, on the same connection");
}

fn a_role_that_grows_after_the_check_is_refused() {
    let crm = Crm::with(
        "CREATE ROLE boss; GRANT SELECT ON customers TO boss;
            CREATE ROLE seer BYPASSRLS; GRANT SELECT ON customers TO seer; CREATE ROLE chief; GRANT postgres TO chief;",
        "read",
        LIST,
        "",
    );
    let serving = crm.project.serve(&[]);
    let boss = Agent::of(&crm.project, &serving, "boss");
    assert_eq!(boss.refused(), "role_refused", "not granted yet");
    crm.server.sql("crm", "GRANT boss TO gateway");
    assert_eq!(
        boss.call("t", json!({}))["rows"],
        json!([]),
        "the control: an ordinary role, which has no rows"
    );
    let grown = [
        "ALTER ROLE boss BYPASSRLS",
        "ALTER ROLE boss SUPERUSER",
        "ALTER ROLE boss CREATEROLE",
        "ALTER ROLE boss REPLICATION",
        "GRANT pg_read_server_files TO boss",
        "GRANT pg_execute_server_program TO boss",
        "GRANT seer TO boss",
        "GRANT chief TO boss",
    ];
    for grow in grown {
        crm.server.sql("crm", grow);
        assert_eq!(boss.refused(), "role_refused", "{grow}");
        if grow.contains("BYPASSRLS") {
            let raw = crm.server.session("gateway", "crm");
            let seen = raw.run(&format!("BEGIN READ ONLY; SET LOCAL ROLE boss; {LIST}; ROLLBACK")).unwrap();
            assert_eq!(
                seen.len(),
                4,
                "the control: without the gateway's look at it, the role sees everyone's"
            );
        }
        crm.server.sql("crm", "ALTER ROLE boss NOBYPASSRLS NOSUPERUSER NOCREATEROLE NOREPLICATION");
        if grow.contains("seer") {
            let raw = crm.server.session("gateway", "crm");
            let seen = raw
                .run(&format!("BEGIN READ ONLY; SET LOCAL ROLE boss; SET LOCAL ROLE seer; {LIST}; ROLLBACK"));
            assert_eq!(seen.unwrap().len(), 4, "the control: in a role of that role it sees everyone's");
        }
        crm.server
            .sql("crm", "REVOKE pg_read_server_files, pg_execute_server_program, seer, chief FROM boss");
        assert_eq!(boss.call("t", json!({}))["rows"], json!([]), "the control after `{grow}`");
    }
    crm.server.sql("crm", "ALTER ROLE gateway SUPERUSER");
    crm.server.sql("crm", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'gateway'");
    assert_eq!(
        Agent::of(&crm.project, &serving, "alice").refused(),
        "role_refused",
        "the connection itself grew"
    );
}

fn no_role_or_claim_leaks_under_fifty_callers() {
    let who = "SELECT current_user::text AS role, current_setting('ringfence.subject') AS subject, \
        count(*) AS seen FROM customers";
    let crm = Crm::with("", "read", who, "limits = { seconds = 60 }");
    let serving = crm.project.serve(&[]);
    let callers = [["alice", "bob"]; 25].concat();
    std::thread::scope(|scope| {
        for (at, user) in callers.into_iter().enumerate() {
            let (crm, serving) = (&crm, &serving);
            scope.spawn(move || {
                let agent = Agent::of(&crm.project, serving, user);
                let seen = if user == "alice" { 2 } else { 1 };
                for round in 0..10 {
                    let reply = agent.call("t", json!({}));
                    let expected = json!({ "role": user, "subject": user, "seen": seen });
                    assert_eq!(reply["rows"], json!([expected]), "caller {at}, round {round}: {reply}");
                }
            });
        }
    });
    let open = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'gateway' AND state <> 'idle'";
    assert_eq!(crm.server.sql("crm", open), [["0"]], "no transaction is left open");
}

fn a_connection_that_died_is_replaced() {
    let crm = Crm::with("", "read", LIST, "");
    let serving = crm.project.serve(&[]);
    let alice = Agent::of(&crm.project, &serving, "alice");
    for _ in 0..3 {
        assert_eq!(column(&alice.call("t", json!({})), "id"), [1, 2]);
        let ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'gateway'";
        assert_ne!(crm.server.sql("crm", ended), [["0"]]);
    }
}
