//! Each wall alone, with the others off, and each attack once where its wall is taken away: there it works.
//!
//! The sandbox's walls are tried in `crates/sandbox/tests`.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::patch;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfence_mcp::{Revision, ToolCall};
use ringfence_tests::{Project, ringfence};
use serde_json::{Value, json};

use crate::commands::PURGE;

const READ: &str = "get_user_monthly_metrics";
const EVERYTHING: &str = "permit (principal, action, resource);\n";

/// A project whose policies let everyone do everything: whatever stops a call there is another wall.
fn without_policies() -> Project {
    let project = Project::new();
    project.write("policies/policies.cedar", EVERYTHING);
    project
}

/// Rows of the metrics: five, as long as nobody deletes one.
fn rows(project: &Project) -> u32 {
    project
        .database("metrics.db")
        .query_row("SELECT count(*) FROM user_metrics", [], |row| row.get(0))
        .unwrap_or(0)
}

#[test]
fn an_argument_is_a_value_and_never_part_of_a_statement() {
    let attack = "1'; DROP TABLE user_metrics; --";
    let project = without_policies();
    // Alone: not even the parameter's pattern is there.
    project.edit("tools/metrics.toml", |text| text.replace("pattern = \"u-[0-9]{1,9}\", ", ""));
    let read = project.call("bob", READ, &[&format!("user_id={attack}"), "month=2026-10"]);
    assert_eq!((&read["done"]["rows"], rows(&project)), (&json!([]), 5));
    // The control: a gateway that splices text.
    let spliced = format!("SELECT value FROM user_metrics WHERE user_id = '{attack}'");
    project.database("metrics.db").execute_batch(&spliced).unwrap();
    assert!(
        project.database("metrics.db").prepare("SELECT * FROM user_metrics").is_err(),
        "the table is gone"
    );
}

#[test]
fn a_pattern_stops_what_is_no_value_of_its_kind() {
    let project = without_policies();
    let refused = project.call("bob", READ, &["user_id=1; DROP TABLE users", "month=2026-10"]);
    assert_eq!((&refused["refusal"]["wall"], rows(&project)), (&json!("action_space"), 5));
    // A pattern is anchored, whatever its author wrote.
    for sneaked in ["u-1\n", "xu-1", "u-1 OR 1", "\u{75}-\u{661}"] {
        let answer = project.call("bob", READ, &[&format!("user_id={sneaked}"), "month=2026-10"]);
        assert_eq!(answer["refusal"]["code"], "argument_invalid", "{sneaked:?}");
    }
}

#[test]
fn what_is_not_declared_does_not_exist() {
    let project = without_policies();
    let refused = project.call("bob", "execute_sql", &["query=DELETE FROM user_metrics"]);
    assert_eq!((&refused["refusal"]["code"], rows(&project)), (&json!("unknown_tool"), 5));
    // The control: with such a tool, the very same name has its effect.
    let declared = PURGE
        .replace("[purge]", "[execute_sql]")
        .replace(" WHERE user_id = :user_id", "")
        .replace("irreversible", "write");
    let declared = format!("{}limits = {{ changed-rows = 50 }}\n", declared.split("params").next().unwrap());
    project.append("tools/metrics.toml", &declared);
    let done = project.call("bob", "execute_sql", &[]);
    assert_eq!(rows(&project), 0, "{done}");
}

#[test]
fn a_parameter_of_the_identity_cannot_be_supplied() {
    let project = without_policies();
    let others = ["user_id=u-3", "month=2026-10"];
    assert_eq!(project.call("bob", READ, &others)["done"]["rows"], json!([]), "another tenant's user");
    let supplied = project.call("bob", READ, &[&others[..], &["tenant=globex"]].concat());
    assert_eq!(supplied["refusal"]["code"], "argument_invalid");
    // The control: as an ordinary parameter, it lets Bob read the other tenant.
    project.edit("tools/metrics.toml", |text| {
        text.replace("{ from = \"principal.claims.tenant\" }", "{ type = \"string\" }")
    });
    let read = project.call("bob", READ, &[&others[..], &["tenant=globex"]].concat());
    assert_eq!(read["done"]["rows"][0]["value"], 44.0);
}

#[test]
fn an_extra_key_is_refused() {
    let project = without_policies();
    let fixed = ["user_id=u-1", "month=2026-10"];
    assert_eq!(
        project.call("bob", READ, &[&fixed[..], &["limit:=9"]].concat())["refusal"]["code"],
        "argument_invalid"
    );
    assert!(project.call("bob", READ, &fixed)["done"].is_object(), "the control");
}

#[test]
fn a_policy_alone_stops_who_may_not() {
    let project = Project::new();
    assert_eq!(project.call("eve", "run_python", &["code=print(1)"])["refusal"]["code"], "unknown_tool");
    // The control: without the policies, she runs it.
    project.write("policies/policies.cedar", EVERYTHING);
    assert_eq!(project.call("eve", "run_python", &["code=print(1)"])["done"]["stdout"], "1\n");
    // No rule means no.
    project.write("policies/policies.cedar", "// nothing\n");
    assert_eq!(project.call("bob", "run_python", &["code=print(1)"])["refusal"]["code"], "unknown_tool");
}

#[test]
fn an_irreversible_call_waits_for_a_human() {
    let project = Project::new();
    project.append("tools/metrics.toml", PURGE);
    project.append("policies/policies.cedar", EVERYTHING);
    let asks = project.call("alice", "purge", &["user_id=u-3"]);
    assert_eq!((&asks["refusal"]["code"], rows(&project)), (&json!("approval_needed"), 5));
    assert_eq!(project.journal().iter().filter(|entry| entry["kind"] == "intent").count(), 0);
    // The control: without that forbid, it is done.
    project.write("policies/policies.cedar", EVERYTHING);
    let done = project.call("alice", "purge", &["user_id=u-3"]);
    assert_eq!(rows(&project), 4, "{done}");
}

#[test]
fn a_token_is_verified_in_every_part() {
    let project = without_policies();
    let serving = project.serve(&[]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let status = |token: &str| {
        let arguments = json!({ "user_id": "u-1", "month": "2026-10" }).as_object().unwrap().clone();
        let client = serving.client(token, Revision::V2026);
        let answer = runtime.block_on(client.call(ToolCall { name: READ.into(), arguments })).unwrap();
        (answer.status, answer.body["error"]["message"].as_str().unwrap_or_default().to_owned())
    };
    let good = project.token("bob", &[]);
    assert_eq!(status(&good).0, 200, "the control");
    let tampered = rewritten(&good, 1, |claims| claims["sub"] = "alice".into());
    assert_eq!(part(&tampered, 1)["sub"], "alice", "the control: whoever reads it unverified sees Alice");
    let unsigned = rewritten(&good, 0, |header| header["alg"] = "none".into());
    let no_signature = format!("{}.", unsigned.rsplit_once('.').unwrap().0);
    let symmetric = rewritten(&good, 0, |header| header["alg"] = "HS256".into());
    let id_token = rewritten(&good, 0, |header| header["typ"] = "JWT".into());
    let other_key = rewritten(&good, 0, |header| header["kid"] = "another".into());
    let people = project.token("bob", &["--door", "people"]);
    for (token, said) in [
        (tampered, "signature"),
        (unsigned, "malformed"),
        (no_signature, "malformed"),
        (symmetric, "algorithm"),
        (id_token, "not an access token"),
        (other_key, "key"),
        (people, "another audience"),
        (Project::new().token("bob", &[]), "another issuer"),
    ] {
        let (status, message) = status(&token);
        assert!(status == 401 && message.contains(said), "{said}: {status} {message}");
    }
    // An expired one worked before: leeway is five seconds.
    let short = project.token("bob", &["--lifetime-seconds", "1"]);
    assert_eq!(status(&short).0, 200, "the control");
    std::thread::sleep(std::time::Duration::from_millis(6500));
    assert!(status(&short).1.contains("expired"));
}

fn part(token: &str, number: usize) -> Value {
    let bytes = URL_SAFE_NO_PAD.decode(token.split('.').nth(number).unwrap()).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

fn rewritten(token: &str, number: usize, change: impl FnOnce(&mut Value)) -> String {
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    let mut value = part(token, number);
    change(&mut value);
    parts[number] = URL_SAFE_NO_PAD.encode(value.to_string());
    parts.join(".")
}

/// A ticket service: who asked for what, by which token, and whether only owners may edit.
#[derive(Clone)]
struct Tickets {
    seen: Arc<Mutex<Vec<(String, String)>>>,
    cares: bool,
    /// What it answers once it has acted, where that is not the ticket.
    answers: Option<(u16, &'static str)>,
}

async fn edit(
    State(tickets): State<Tickets>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> (StatusCode, String) {
    let token = headers["authorization"].to_str().unwrap().trim_start_matches("Bearer ").to_owned();
    let subject = part(&token, 1)["sub"].as_str().unwrap().to_owned();
    tickets.seen.lock().unwrap().push((id.clone(), token));
    let owner = if id == "T-1" { "bob" } else { "carol" };
    if tickets.cares && subject != owner {
        return (StatusCode::FORBIDDEN, json!({ "secret": "why" }).to_string());
    }
    if let Some((status, body)) = tickets.answers {
        return (StatusCode::from_u16(status).unwrap(), body.into());
    }
    (StatusCode::OK, json!({ "id": id, "internal": "not declared" }).to_string())
}

/// Calls the ticket tool as Bob, with a service that cares who asks or does not; what came back, and what it saw.
fn edit_as_bob(cares: bool, id: &str) -> (Value, Vec<(String, String)>, String) {
    let (answer, seen, url, _) = edit_with(&Tickets { seen: Arc::default(), cares, answers: None }, id);
    (answer, seen, url)
}

/// The same, and how the journal closed the call.
fn edit_with(tickets: &Tickets, id: &str) -> (Value, Vec<(String, String)>, String, Value) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().route("/tickets/{id}", patch(edit)).with_state(tickets.clone());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime
        .spawn(async move { axum_serve(tokio::net::TcpListener::from_std(listener).unwrap(), router).await });
    let project = without_policies();
    project.append("ringfence.toml", &format!(
        "\n[systems.tickets]\nkind = \"http\"\nbase-url = \"{url}\"\ncredential = {{ exchange = {{ audience = \"{url}\", scopes = [\"tickets:write\"] }} }}\n"
    ));
    project.write("tools/tickets.toml", EDIT);
    let answer = project.call("bob", "edit_ticket", &[&format!("ticket_id={id}"), "title=x"]);
    let seen = tickets.seen.lock().unwrap().clone();
    let closed = project.journal().into_iter().rfind(|entry| entry["kind"] == "outcome");
    (answer, seen, url, closed.map(|entry| entry["ended"].clone()).unwrap_or_default())
}

async fn axum_serve(listener: tokio::net::TcpListener, router: Router) {
    axum::serve(listener, router).await.unwrap();
}

pub(crate) const EDIT: &str = r#"
[edit_ticket]
system = "tickets"
effect = "write"
describe = "Gives a ticket another title."
http = { method = "PATCH", path = "/tickets/{ticket_id}", body = ["title"], returns = ["id"] }
params = { ticket_id = { type = "string" }, title = { type = "string" } }
"#;

#[test]
fn the_system_itself_sees_the_user_and_decides() {
    let (refused, seen, url) = edit_as_bob(true, "T-2");
    assert_eq!(
        (&refused["refusal"]["wall"], &refused["refusal"]["class"]),
        (&json!("system"), &json!("upstream"))
    );
    assert!(
        !refused.to_string().contains("why"),
        "what the system says of its reasons does not pass: {refused}"
    );
    // It was asked in Bob's name, by a token for it alone that names who acts for him.
    let claims = part(&seen[0].1, 1);
    assert_eq!(
        (&claims["sub"], &claims["aud"], &claims["scope"]),
        (&json!("bob"), &json!(url), &json!("tickets:write"))
    );
    assert_eq!(claims["act"], json!({ "sub": "ringfence-gateway", "act": { "sub": "ringfence-cli" } }));
    // The controls: his own ticket, and a service that does not care.
    assert_eq!(
        edit_as_bob(true, "T-1").0,
        json!({ "done": { "id": "T-1" } }),
        "and only what is declared comes back"
    );
    assert_eq!(edit_as_bob(false, "T-2").0, json!({ "done": { "id": "T-2" } }));
}

#[test]
fn a_write_that_may_have_happened_is_never_called_failed() {
    for (status, body, ended, retry) in [
        (200, r#"{"id":"T-1"}"#, "done", None),
        (200, "OK, created", "done", None),
        (303, "", "done", None),
        (500, "", "unknown", Some("never")),
        (504, "", "unknown", Some("never")),
        (302, "", "unknown", Some("never")),
        (503, "", "unknown", Some("never")),
        (408, "", "unknown", Some("never")),
        (425, "", "unknown", Some("never")),
        // The controls: here the system says that it refused the request.
        (422, "", "failed", Some("with_change")),
        (429, "", "failed", Some("later")),
    ] {
        let tickets = Tickets { seen: Arc::default(), cares: false, answers: Some((status, body)) };
        let (answer, seen, _, closed) = edit_with(&tickets, "T-1");
        assert_eq!((seen.len(), &closed), (1, &json!(ended)), "{status}: {answer}");
        assert_eq!(answer["refusal"]["retry"].as_str(), retry, "{status}: {answer}");
    }
}

#[test]
fn a_parameter_stays_in_its_segment_of_the_path() {
    // No pattern, no policy, no service that cares: only the building of the request.
    for id in ["a b", "ü", "a&b=c", "a;b"] {
        let (answer, seen, _) = edit_as_bob(false, id);
        assert_eq!(
            (seen[0].0.as_str(), &answer["done"]["id"]),
            (id, &json!(id)),
            "the control: it arrives as it is"
        );
    }
    for id in ["../admin", "..", ".", "a/b", "a\\b", "%2e%2e", "a?b=c", "a#b", ""] {
        let (answer, seen, _) = edit_as_bob(false, id);
        let arrived_as_it_is = seen.first().is_some_and(|(seen, _)| seen == id);
        assert!(
            arrived_as_it_is || answer["refusal"]["code"] == "argument_invalid",
            "{id}: {answer} {seen:?}"
        );
    }
}

#[test]
fn an_edited_journal_is_found_and_only_by_its_proof() {
    let project = Project::new();
    assert!(project.call("bob", READ, &["user_id=u-1", "month=2026-10"])["done"].is_object());
    let edit = |sql: &str| project.edit_journal(sql);
    let found = || {
        let report = ringfence(&["journal", "verify", project.path(), "--json"]);
        assert_eq!(report.code, i32::from(report.json()["findings"] != json!([])));
        report.json()["findings"][0]["kind"].clone()
    };
    assert_eq!(found(), Value::Null, "the control: an honest journal is sound");
    let good = std::fs::read(project.file("state/journal.db")).unwrap();
    for (sql, kind) in [
        ("UPDATE payloads SET text = replace(text, '\"bob\"', '\"eve\"');", "payload_altered"),
        (
            "UPDATE entries SET leaf = replace(leaf, 'policies.cedar:5', 'policies.cedar:9') WHERE number = 3;",
            "altered",
        ),
        ("DELETE FROM entries WHERE number = 2;", "missing"),
        (
            "UPDATE entries SET number = -2 WHERE number = 2; UPDATE entries SET number = 2 WHERE number = 3; UPDATE entries SET number = 3 WHERE number = -2;",
            "reordered",
        ),
        ("DELETE FROM entries WHERE number > 2;", "truncated"),
    ] {
        edit(sql);
        // The control: to whoever only looks at it, it is a journal like any other.
        assert!(!project.journal().is_empty());
        assert_eq!(found(), kind, "{sql}");
        std::fs::write(project.file("state/journal.db"), &good).unwrap();
        assert_eq!(found(), Value::Null);
    }
    // An entry more, chained as it should be, by someone without the key; nothing is built upon it.
    edit(
        "INSERT INTO entries SELECT 6, '{\"number\":6,\"kind\":\"closed\",\"at\":1}', zeroblob(32), tag FROM entries WHERE number = 5;",
    );
    assert_eq!(found(), "altered");
    std::fs::write(project.file("state/journal.db"), &good).unwrap();
    project.append_forged();
    assert_eq!(found(), "forged");
    let refused = ringfence(&["serve", project.path()]);
    assert!(
        refused.code == 2 && refused.stderr.contains("which was not written with its key"),
        "{refused:?}"
    );
    std::fs::write(project.file("state/journal.db"), &good).unwrap();
    assert_eq!(found(), Value::Null);
    // Another journal in its place, whole in itself, against the head that was kept apart.
    let head = std::fs::read_to_string(project.file("state/journal.head")).unwrap();
    let key = std::fs::read(project.file("state/journal.key")).unwrap();
    std::fs::remove_dir_all(project.file("state")).unwrap();
    std::fs::create_dir(project.file("state")).unwrap();
    project.write("kept.head", &head);
    std::fs::write(project.file("state/journal.key"), key).unwrap();
    std::fs::set_permissions(
        project.file("state/journal.key"),
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    assert!(project.call("bob", READ, &["user_id=u-2", "month=2026-10"])["done"].is_object());
    assert_eq!(found(), Value::Null, "by its own head it is sound");
    let kept = project.file("kept.head");
    let against =
        ringfence(&["journal", "verify", project.path(), "--json", "--head", kept.to_str().unwrap()]);
    assert_eq!((against.code, &against.json()["findings"][0]["kind"]), (1, &json!("replaced")));
}
