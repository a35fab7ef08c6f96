//! How much one call may take, give and change.

use std::time::{Duration, Instant};

use ringfence_tests::{Serving, ringfence, until};
use serde_json::{Value, json};

use crate::{Agent, Crm, Test, column, tool};

pub(crate) const TESTS: &[Test] = &[
    ("rows_bytes_and_time_are_bounded", rows_bytes_and_time_are_bounded),
    ("more_changes_than_allowed_change_nothing", more_changes_than_allowed_change_nothing),
    ("what_is_put_off_until_the_commit_is_counted", what_is_put_off_until_the_commit_is_counted),
    ("a_queued_write_of_a_revoked_run_does_not_begin", a_queued_write_of_a_revoked_run_does_not_begin),
    ("a_commit_without_an_answer_is_unknown", a_commit_without_an_answer_is_unknown),
    ("a_read_that_nobody_wants_stops_at_the_server", a_read_that_nobody_wants_stops_at_the_server),
    ("one_run_waits_for_itself", one_run_waits_for_itself),
];

const ACTIVE: &str = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'gateway' AND state <> 'idle'";

fn rows_bytes_and_time_are_bounded() {
    let series = |most: &str| {
        format!("SELECT i::int8 AS i, repeat('x', 1000) AS x FROM generate_series(1, {most}) AS i")
    };
    let tools = [
        tool("all", "read", &series("3000"), "limits = { rows = 10000, size = \"16MiB\" }"),
        tool("few", "read", &series("3000"), "limits = { rows = 7 }"),
        tool("small", "read", &series("3000"), "limits = { rows = 10000, size = \"64KiB\" }"),
        // In the list of what is selected it streams; as a table it would be made whole first.
        tool(
            "endless",
            "read",
            "SELECT generate_series(1, 1000000000) AS i, repeat('x', 1000) AS x",
            "limits = { rows = 7, seconds = 30 }",
        ),
        tool("wide", "read", "SELECT repeat('x', 100000000) AS x", "limits = { size = \"64KiB\" }"),
        tool("wide_write", "write", "SELECT repeat('x', 100000000) AS x", "limits = { size = \"64KiB\" }"),
        tool("long", "read", "SELECT 1e131071::numeric AS x", ""),
        tool("longer", "read", "SELECT array_fill(1e131071::numeric, ARRAY[4000]) AS x", ""),
        tool("short", "read", "SELECT ARRAY[1, 2.5]::numeric[] AS x", ""),
        tool("slow", "read", "SELECT pg_sleep(60)::text AS s", "limits = { seconds = 1 }"),
        tool(
            "slow_write",
            "write",
            "UPDATE customers SET email = pg_sleep(60)::text WHERE id = 1",
            "limits = { seconds = 1 }",
        ),
    ];
    let crm = Crm::new("", &tools.concat());
    let serving = crm.project.serve(&[]);
    let alice = Agent::of(&crm.project, &serving, "alice");
    let read = |name: &str| {
        let reply = alice.call(name, json!({}));
        (column(&reply, "x").len(), reply["truncated"].clone())
    };
    assert_eq!(read("all"), (3000, json!(false)), "the control");
    assert_eq!(read("few"), (7, json!(true)));
    let (rows, cut) = read("small");
    assert!((50..70).contains(&rows) && cut == true, "{rows}");
    let before = peak_kib(&serving);
    assert_eq!(read("wide"), (0, json!(true)));
    assert_eq!(alice.call("wide_write", json!({}))["refusal"]["code"], "result_too_large");
    assert_eq!(column(&alice.call("short", json!({})), "x"), [json!(["1", "2.5"])], "the control");
    assert_eq!(column(&alice.call("long", json!({})), "x")[0].as_str().map(str::len), Some(131_072));
    assert_eq!(read("longer"), (0, json!(true)));
    let grown = peak_kib(&serving) - before;
    assert!(
        grown < 50_000,
        "no row of 100 MB was ever held, nor one that would have 500 when it is shown: it took {grown} KiB more"
    );
    let began = Instant::now();
    assert_eq!(read("endless"), (7, json!(true)), "cut while it streams, long before its end");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    for name in ["slow", "slow_write"] {
        let began = Instant::now();
        let reply = alice.call(name, json!({}));
        assert_eq!(reply["refusal"]["code"], "timeout", "{reply}");
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    }
    until("the server has stopped all of it", || crm.server.sql("crm", ACTIVE) == [["0"]]);
}

/// The most memory that the gateway ever had.
fn peak_kib(serving: &Serving) -> u64 {
    let process = serving.process().as_raw_nonzero();
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    peak.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn more_changes_than_allowed_change_nothing() {
    let grant = "GRANT ALL ON customers TO alice; CREATE TABLE audit (id int8); GRANT ALL ON audit TO alice;
        CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO audit SELECT generate_series(1, 100); RETURN NEW; END $$;
        CREATE FUNCTION purge() RETURNS text LANGUAGE sql AS $$ DELETE FROM customers RETURNING 'purged' $$;";
    let hidden = "WITH gone AS (DELETE FROM customers RETURNING id) SELECT count(*) AS gone FROM gone";
    let expects = "limits = { changed-rows = 5, expect-rows = 1 }";
    let set = "UPDATE customers SET email = 'x' WHERE id <= :most";
    let most = "params = { most = { type = \"integer\" } }";
    let tools = [
        tool("delete", "write", "DELETE FROM customers", ""),
        tool("hidden", "write", hidden, ""),
        tool("called", "write", "SELECT purge() AS p", ""),
        tool("trigger", "write", "UPDATE customers SET tenant = tenant || '' WHERE id = 1", ""),
        tool("exactly", "write", set, &format!("{expects}\n{most}")),
        tool("allowed", "write", hidden, "limits = { changed-rows = 2 }"),
    ];
    let crm = Crm::new(grant, &tools.concat());
    assert_eq!(crm.errors(), Vec::<String>::new());
    crm.server.sql(
        "crm",
        "CREATE TRIGGER audit AFTER UPDATE OF tenant ON customers FOR EACH ROW EXECUTE FUNCTION audit()",
    );
    let serving = crm.project.serve(&[]);
    let alice = Agent::of(&crm.project, &serving, "alice");
    let state = || {
        crm.server.sql("crm", "SELECT count(*), count(*) FILTER (WHERE email = 'x'), (SELECT count(*) FROM audit) FROM customers")
    };
    for name in ["delete", "hidden", "called", "trigger"] {
        let reply = alice.call(name, json!({}));
        assert_eq!(reply["refusal"]["code"], "too_many_rows", "{name}: {reply}");
        assert_eq!(state(), [["4", "0", "0"]], "{name}");
    }
    let exactly = |most: u64| alice.call("exactly", json!({ "most": most }));
    for most in [0, 2] {
        assert_eq!(exactly(most)["refusal"]["code"], "unexpected_rows", "{most}");
    }
    assert_eq!(state(), [["4", "0", "0"]]);
    assert_eq!(exactly(1), json!({ "changed_rows": 1 }), "the control");
    let done = alice.call("allowed", json!({}));
    assert_eq!(
        done,
        json!({ "changed_rows": 2, "rows": [{ "gone": 2 }], "truncated": false }),
        "the control"
    );
    assert_eq!(state(), [["2", "0", "0"]]);
}

fn what_is_put_off_until_the_commit_is_counted() {
    let later = "GRANT ALL ON customers TO alice; CREATE TABLE audit (id int8); GRANT ALL ON audit TO alice;
        CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO audit SELECT generate_series(1, 100); RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER audit AFTER UPDATE ON customers DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION audit();";
    let update = "UPDATE customers SET email = 'x' WHERE id = 1";
    let tools =
        [tool("t", "write", update, ""), tool("most", "write", update, "limits = { changed-rows = 101 }")];
    let crm = Crm::new(later, &tools.concat());
    let serving = crm.project.serve(&[]);
    let alice = Agent::of(&crm.project, &serving, "alice");
    let state = || {
        crm.server.sql(
            "crm",
            "SELECT count(*) FILTER (WHERE email = 'x'), (SELECT count(*) FROM audit) FROM customers",
        )
    };
    assert_eq!(alice.refused(), "too_many_rows");
    assert_eq!(state(), [["0", "0"]]);
    assert_eq!(alice.call("most", json!({})), json!({ "changed_rows": 101 }), "the control");
    assert_eq!(state(), [["1", "100"]]);
}

fn a_queued_write_of_a_revoked_run_does_not_begin() {
    let grant = "GRANT INSERT ON customers TO alice, bob";
    let add = "INSERT INTO customers VALUES (:id, current_user, 'acme', 'x', 0)";
    let rest = "params = { id = { type = \"integer\" } }\nlimits = { seconds = 60 }";
    let crm = Crm::with(grant, "write", add, rest);
    let serving = crm.project.serve(&[]);
    let added = |user: &str, is_revoked: bool| {
        // What has its turn waits for this, and has begun.
        let other = crm.server.session("postgres", "crm");
        other.run("BEGIN; LOCK TABLE customers IN EXCLUSIVE MODE").unwrap();
        let entries = |kind: &str| {
            let journal = crm.project.journal();
            journal.iter().filter(|entry| entry["kind"] == kind).count()
        };
        let (intents, outcomes) = (entries("intent"), entries("outcome"));
        std::thread::scope(|scope| {
            let (crm, serving) = (&crm, &serving);
            for id in 0..12 {
                let id = id + if is_revoked { 200 } else { 100 };
                scope.spawn(move || Agent::of(&crm.project, serving, user).call("t", json!({ "id": id })));
            }
            until("all of them are recorded", || entries("intent") == intents + 12);
            until("four of them have begun", || crm_active(crm) == 4);
            if is_revoked {
                let fixed = ["runs", "revoke", "--project", crm.project.path(), "--user", user];
                let done = ringfence(&[&fixed[..], &["--reason", "an incident"]].concat());
                assert_eq!(done.code, 0, "{done:?}");
                until("the others are over", || entries("outcome") == outcomes + 8);
            }
            other.run("ROLLBACK").unwrap();
        });
        crm.server.sql("crm", &format!("SELECT count(*) FROM customers WHERE owner = '{user}' AND id >= 100"))
    };
    assert_eq!(added("alice", false), [["12"]], "the control");
    assert_eq!(added("bob", true), [["4"]], "what had begun ran to its end");
}

fn a_commit_without_an_answer_is_unknown() {
    let trigger = "GRANT INSERT, SELECT ON customers TO alice;
        CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
            $$ BEGIN IF NEW.email = 'put off' THEN
                -- Only what a trigger itself puts off is left for the commit.
                SET CONSTRAINTS ALL DEFERRED; INSERT INTO customers VALUES (NEW.id + 1, 'alice', 'acme', 'cut', 0);
                ELSIF NEW.email = 'cut' THEN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(1);
                ELSIF NEW.email = 'no' THEN RAISE EXCEPTION 'no'; END IF; RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER cut AFTER INSERT ON customers DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION cut();";
    let add = "INSERT INTO customers VALUES (:id, 'alice', 'acme', :email, 0)";
    let params = "limits = { changed-rows = 2 }\nparams = { id = { type = \"integer\" }, email = { type = \"string\" } }";
    let crm = Crm::with(trigger, "write", add, params);
    let serving = crm.project.serve(&[]);
    let alice = Agent::of(&crm.project, &serving, "alice");
    let add = |id: u64, email: &str| alice.call("t", json!({ "id": id, "email": email }));
    assert_eq!(add(7, "yes"), json!({ "changed_rows": 1 }), "the control");
    let refused = add(8, "no");
    assert_eq!(refused["refusal"]["code"], "constraint", "the server says that it did not: {refused}");
    let cut = add(9, "cut");
    assert_eq!(cut["refusal"]["code"], "system_failed", "the commit was never asked for: {cut}");
    let unknown = add(10, "put off");
    assert_eq!(
        (&unknown["refusal"]["code"], &unknown["refusal"]["retry"]),
        (&json!("outcome_unknown"), &json!("never"))
    );
    let outcomes = crm.project.journal();
    let ended: Vec<&Value> =
        outcomes.iter().filter(|entry| entry["kind"] == "outcome").map(|entry| &entry["ended"]).collect();
    assert_eq!(ended, ["done", "failed", "failed", "unknown"]);
}

fn a_read_that_nobody_wants_stops_at_the_server() {
    let crm = Crm::with("", "read", "SELECT pg_sleep(300)::text AS s", "limits = { seconds = 600 }");
    let serving = crm.project.serve(&[]);
    let alice = Agent::of(&crm.project, &serving, "alice");
    let call = ringfence_mcp::ToolCall { name: "t".into(), arguments: serde_json::Map::new() };
    let (hang_up, gone) = tokio::sync::oneshot::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            until("the server works on it", || crm_active(&crm) == 1);
            hang_up.send(()).unwrap();
        });
        alice.runtime.block_on(async {
            tokio::select! {
                reply = alice.client.call(call) => panic!("{:?}", reply.map(|reply| reply.body)),
                _ = gone => {}
            }
        });
    });
    assert_eq!(crm_active(&crm), 1, "the control: it goes on for minutes if nobody stops it");
    drop(alice);
    until("the server has stopped it", || crm_active(&crm) == 0);
}

fn one_run_waits_for_itself() {
    let sleep = tool("sleep", "read", "SELECT pg_sleep(2)::text AS s", "limits = { seconds = 30 }");
    let quick = tool("quick", "read", "SELECT 1 AS x", "limits = { seconds = 30 }");
    let crm = Crm::new("", &[sleep, quick].concat());
    let serving = crm.project.serve(&[]);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let (crm, serving) = (&crm, &serving);
            scope.spawn(move || {
                let reply = Agent::of(&crm.project, serving, "bob").call("sleep", json!({}));
                assert_eq!(column(&reply, "s"), [""], "{reply}");
            });
        }
        let mut most = 0;
        until("Bob has all that he can have", || {
            most = most.max(crm_active(&crm));
            most >= 4
        });
        for _ in 0..5 {
            most = most.max(crm_active(&crm));
        }
        assert_eq!(most, 4, "half of eight");
        let alice = Agent::of(&crm.project, &serving, "alice");
        assert_eq!(column(&alice.call("quick", json!({})), "x"), [1], "Alice does not wait for Bob");
    });
}

fn crm_active(crm: &Crm) -> u64 {
    crm.server.sql("crm", ACTIVE)[0][0].parse().unwrap()
}
