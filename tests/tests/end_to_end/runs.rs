//! Runs: what an application hands to its agent, and how it is taken back.

use std::time::{Duration, Instant};

use reqwest::Method;
use ringfence_mcp::{Revision, ToolCall};
use ringfence_tests::{Project, Serving, ringfence, until};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

const READ: &str = "get_user_monthly_metrics";
/// Runs far longer than a test waits.
const LONG: &str = "import time; time.sleep(25)";

struct House {
    project: Project,
    serving: Serving,
    control: String,
    runtime: Runtime,
}

/// A gateway whose project knows one application with one agent, and operators.
fn house() -> House {
    house_of(Project::new())
}

fn house_of(project: Project) -> House {
    project.append("ringfence.toml", "\n[applications.desk]\nagents = [\"desk-agent\"]\n");
    project.append("users.toml", "\n[olga]\ngroups = [\"operators\"]\n");
    let serving = project.serve(&[]);
    let text = std::fs::read_to_string(project.file("ringfence.toml")).unwrap();
    let address = text.split("control = \"").nth(1).unwrap().split('"').next().unwrap();
    let control = format!("http://{address}");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    House { project, serving, control, runtime }
}

impl House {
    /// Asks the people's door with this token.
    fn ask(&self, method: Method, path: &str, token: &str, body: &Value) -> (u16, Value) {
        let url = format!("{}{path}", self.control);
        let mut asking = reqwest::Client::new().request(method, url).bearer_auth(token);
        if !body.is_null() {
            asking = asking.body(body.to_string());
        }
        self.runtime.block_on(async {
            let answer = asking.send().await.unwrap();
            let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
            (status, serde_json::from_str(&text).unwrap_or_default())
        })
    }

    fn application(&self) -> String {
        self.minted(&["--application", "desk", "--door", "people"])
    }

    /// A user's token that was given to the application.
    fn user_token(&self, user: &str) -> String {
        self.minted(&["--as", user, "--agent", "desk", "--door", "people"])
    }

    fn operator(&self) -> String {
        self.minted(&["--as", "olga", "--door", "people"])
    }

    fn minted(&self, arguments: &[&str]) -> String {
        let fixed = ["token", "--project", self.project.path()];
        let ran = ringfence(&[&fixed, arguments].concat());
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.stdout.trim().to_owned()
    }

    /// Starts a run for Bob, with what is asked for besides.
    fn start(&self, further: &Value) -> (u16, Value) {
        let mut body = json!({ "user_token": self.user_token("bob"), "agent": "desk-agent" });
        body.as_object_mut().unwrap().extend(further.as_object().unwrap().clone());
        self.ask(Method::POST, "/v1/runs", &self.application(), &body)
    }

    /// What a call with this token comes to: the structured result, or the status and challenge of the refusal.
    fn call(&self, token: &str, tool: &str, arguments: &Value) -> Value {
        let client = self.serving.client(token, Revision::V2026);
        let call = ToolCall { name: tool.into(), arguments: arguments.as_object().unwrap().clone() };
        let answer = self.runtime.block_on(client.call(call)).unwrap();
        match answer.result() {
            Some(result) => result["structuredContent"].clone(),
            None => json!({ "status": answer.status }),
        }
    }

    fn read(&self, token: &str) -> Value {
        self.call(token, READ, &json!({ "user_id": "u-1", "month": "2026-10" }))
    }

    /// Lets a run's program go on until `end` ended it; how it ended, and how long that took.
    fn program_until(&self, token: &str, end: impl FnOnce()) -> (Value, Duration) {
        let client = self.serving.client(token, Revision::V2026);
        let arguments = json!({ "code": LONG }).as_object().unwrap().clone();
        let calling = self.runtime.spawn(async move {
            let answer = client.call(ToolCall { name: "run_python".into(), arguments }).await.unwrap();
            (answer.result().unwrap()["structuredContent"]["ended"].clone(), Instant::now())
        });
        until("the intent", || {
            let of_program = |entry: &Value| entry["kind"] == "intent" && entry["tool"] == "run_python";
            self.project.journal().iter().any(of_program)
        });
        end();
        let ended = Instant::now();
        let (how, at) = self.runtime.block_on(calling).unwrap();
        (how, at.saturating_duration_since(ended))
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

#[test]
fn an_application_starts_a_run_that_is_narrower_than_its_user() {
    let house = house();
    let (status, started) = house.start(&json!({
        "request": "How did Ann do in October?", "purpose": "report", "tools": [READ], "expires_in": 120,
    }));
    assert_eq!((status, &started["tools"]), (201, &json!([READ])), "{started}");
    assert_eq!((&started["mcp"], &started["token_type"]), (&json!(house.serving.mcp), &json!("Bearer")));
    assert!((110..=120).contains(&started["expires_in"].as_u64().unwrap()), "{started}");
    let token = text(&started["token"]);
    assert_eq!(house.read(&token)["rows"].as_array().unwrap().len(), 2);
    // Bob himself may run programs; this run may not, and a tool that it was not started for does not exist.
    let program = json!({ "code": "1" });
    let as_bob = house.call(&house.project.token("bob", &[]), "run_python", &program);
    assert_eq!(as_bob["ended"], json!({ "how": "exit", "code": 0 }), "the control");
    assert_eq!(house.call(&token, "run_python", &program)["refusal"]["code"], "unknown_tool");
    // The agent's token opens the agents' door alone, and the journal says who asked for what.
    assert_eq!(house.ask(Method::GET, "/v1/runs", &token, &Value::Null).0, 401);
    let journal = house.project.journal();
    let begun = journal.iter().find(|entry| entry["kind"] == "run_started" && entry["application"] == "desk");
    let content = &begun.unwrap()["content"];
    assert_eq!(content["arguments"]["request"], "How did Ann do in October?");
    assert_eq!(content["principal"]["subject"], "bob");
    let of_run =
        ringfence(&["journal", "show", house.project.path(), "--json", "--run", &text(&started["run"])]);
    let kinds: Vec<Value> = of_run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<&str> = kinds.iter().map(|entry: &Value| entry["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["run_started", "intent", "refused"]);
    assert!(!serde_json::to_string(&journal).unwrap().contains(&token), "the journal holds no token");
}

#[test]
fn a_run_is_started_by_its_application_for_its_own_user_and_agent_alone() {
    let house = house();
    let (application, bob) = (house.application(), house.user_token("bob"));
    let start = |token: &str, body: Value| house.ask(Method::POST, "/v1/runs", token, &body);
    let asked = |user_token: &str, agent: &str| json!({ "user_token": user_token, "agent": agent });
    assert_eq!(start(&application, asked(&bob, "desk-agent")).0, 201, "the control");
    let stranger = house.minted(&["--application", "other", "--door", "people"]);
    let of_other = house.minted(&["--as", "bob", "--agent", "other", "--door", "people"]);
    let of_agents_door = house.minted(&["--as", "bob", "--agent", "desk"]);
    let application_at_agents_door = house.minted(&["--application", "desk"]);
    for (token, body, status, code) in [
        (&stranger, asked(&bob, "desk-agent"), 403, "unknown_application"),
        (&bob, asked(&bob, "desk-agent"), 403, "forbidden"),
        (&application_at_agents_door, asked(&bob, "desk-agent"), 401, "unauthorized"),
        (&application, asked(&of_other, "desk-agent"), 403, "user_token_of_another_client"),
        (&application, asked(&of_agents_door, "desk-agent"), 403, "token_audience"),
        (&application, asked("x.y.z", "desk-agent"), 403, "token_malformed"),
        (&application, asked(&bob, "other-agent"), 403, "foreign_agent"),
        (&application, json!({ "agent": "desk-agent" }), 400, "malformed"),
        (&application, json!({ "user_token": bob, "agent": "desk-agent", "admin": true }), 400, "malformed"),
        (
            &application,
            json!({ "user_token": bob, "agent": "desk-agent", "tools": ["nope"] }),
            400,
            "unknown_tool",
        ),
    ] {
        let (answered, answer) = start(token, body.clone());
        assert_eq!(answered, status, "{code}: {answer}");
        assert_eq!(answer["error"], code, "{answer}");
    }
    // An application looks at nothing, and ends its own runs alone.
    assert_eq!(house.ask(Method::GET, "/v1/runs", &application, &Value::Null).0, 403);
    let (_, runs) =
        house.ask(Method::GET, "/v1/runs?live=true&agent=desk-agent", &house.operator(), &Value::Null);
    let run = text(&runs["runs"][0]["run"]);
    let path = format!("/v1/runs/{run}");
    assert_eq!(house.ask(Method::DELETE, &path, &stranger, &Value::Null).0, 403);
    assert_eq!(house.ask(Method::DELETE, "/v1/runs/run-none", &application, &Value::Null).0, 404);
    assert_eq!(house.ask(Method::DELETE, &path, &application, &Value::Null).0, 204);
    let (_, shown) = house.ask(Method::GET, &path, &house.operator(), &Value::Null);
    assert_eq!((&shown["state"], &shown["user"]), (&json!("revoked"), &json!("bob")));
}

#[test]
fn a_run_lives_no_longer_than_its_users_token_and_calls_no_more_than_its_budget() {
    let house = house();
    let short =
        house.minted(&["--as", "bob", "--agent", "desk", "--door", "people", "--lifetime-seconds", "30"]);
    let body =
        json!({ "user_token": short, "agent": "desk-agent", "expires_in": 3000, "budget": { "calls": 3 } });
    let (status, started) = house.ask(Method::POST, "/v1/runs", &house.application(), &body);
    assert!(status == 201 && started["expires_in"].as_u64().unwrap() <= 30, "{started}");
    let token = text(&started["token"]);
    let codes: Vec<Value> = (0..5).map(|_| house.read(&token)["refusal"]["code"].clone()).collect();
    assert_eq!(codes, [json!(null), json!(null), json!(null), json!("budget_spent"), json!("budget_spent")]);
    // What was refused costs nothing.
    let (_, started) = house.start(&json!({ "budget": { "calls": 1 } }));
    let token = text(&started["token"]);
    assert_eq!(house.call(&token, "execute_sql", &json!({}))["refusal"]["code"], "unknown_tool");
    assert!(house.read(&token)["rows"].is_array());
}

#[test]
fn a_revoked_run_starts_nothing_and_its_programs_die() {
    let house = house();
    let started = house.start(&json!({})).1;
    let (token, run) = (text(&started["token"]), text(&started["run"]));
    assert!(house.read(&token)["rows"].is_array(), "the control");
    let (ended, took) = house.program_until(&token, || {
        let asked = json!({ "run": run, "reason": "it looks odd" });
        let (status, revoked) = house.ask(Method::POST, "/v1/revocations", &house.operator(), &asked);
        assert_eq!((status, &revoked["revoked"]), (200, &json!([run])));
    });
    assert_eq!(ended, json!({ "how": "cancelled" }));
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(house.read(&token), json!({ "status": 401 }));
    let journal = house.project.journal();
    let entry = journal.iter().find(|entry| entry["kind"] == "run_revoked").unwrap();
    assert_eq!(
        (&entry["scope"], &entry["runs"], &entry["content"]["reason"]),
        (&json!("run"), &json!(1), &json!("it looks odd"))
    );
    assert!(text(&entry["content"]["by"]).starts_with("olga of http"));
    let asked = json!({ "everything": true, "run": run, "reason": "both" });
    assert_eq!(house.ask(Method::POST, "/v1/revocations", &house.operator(), &asked).0, 400);
    let as_bob = house.minted(&["--as", "bob", "--door", "people"]);
    let asked = json!({ "everything": true, "reason": "a user" });
    assert_eq!(house.ask(Method::POST, "/v1/revocations", &as_bob, &asked).0, 403);
}

#[test]
fn what_comes_after_its_run_has_ended_is_withheld_where_it_has_labels() {
    let project = Project::new();
    project
        .edit("tools/python.toml", |text| text.replace("program = ", "yields = [\"untrusted\"]\nprogram = "));
    let house = house_of(project);
    let started = house.start(&json!({})).1;
    let (token, run) = (text(&started["token"]), text(&started["run"]));
    let printed = house.call(&token, "run_python", &json!({ "code": "print(1)" }));
    assert_eq!(printed["stdout"], "1\n", "the control");
    let client = house.serving.client(&token, Revision::V2026);
    let arguments = json!({ "code": LONG }).as_object().unwrap().clone();
    let calling = house.runtime.spawn(async move {
        let call = ToolCall { name: "run_python".into(), arguments };
        client.call(call).await.unwrap().result().unwrap()["structuredContent"].clone()
    });
    let intents = || house.project.journal().iter().filter(|entry| entry["kind"] == "intent").count();
    until("the second intent", || intents() == 2);
    let asked = json!({ "run": run, "reason": "it looks odd" });
    assert_eq!(house.ask(Method::POST, "/v1/revocations", &house.operator(), &asked).0, 200);
    assert_eq!(house.runtime.block_on(calling).unwrap()["refusal"]["code"], "run_ended");
}

#[test]
fn an_operator_who_logs_in_with_an_agent_lends_it_no_power() {
    let house = house();
    let asked = json!({ "everything": true, "reason": "to try it" });
    for (agent, status) in [("ringfence-cli", 200), ("rogue-agent", 403), ("desk", 403)] {
        let token = house.minted(&["--as", "olga", "--agent", agent, "--door", "people"]);
        assert_eq!(house.ask(Method::GET, "/v1/runs", &token, &Value::Null).0, status, "{agent}");
        assert_eq!(house.ask(Method::POST, "/v1/revocations", &token, &asked).0, status, "{agent}");
    }
    // And a project that mixes the two up is not served.
    house.project.append("ringfence.toml", "\n[applications.other]\nagents = [\"ringfence-cli\"]\n");
    let checked = ringfence(&["check", house.project.path()]);
    assert!(checked.code == 1 && checked.stderr.contains("a client of operators too"), "{checked:?}");
}

#[test]
fn an_application_that_loses_its_agent_loses_its_runs() {
    let mut house = house();
    let started = house.start(&json!({})).1;
    let token = text(&started["token"]);
    assert!(house.read(&token)["rows"].is_array(), "the control");
    let serving = std::mem::replace(&mut house.serving, Project::new().serve(&[]));
    assert_eq!(serving.stop(rustix::process::Signal::TERM).0, Some(0));
    house.project.edit("ringfence.toml", |text| text.replace("desk-agent", "another-agent"));
    house.serving = house.project.serve(&[]);
    assert_eq!(house.read(&token), json!({ "status": 401 }));
    let journal = house.project.journal();
    assert!(journal.iter().any(|entry| entry["kind"] == "rejected" && entry["code"] == "run_ended"));
}

#[test]
fn the_command_line_revokes_beside_a_gateway_that_serves() {
    let house = house();
    let path = house.project.path().to_owned();
    let revoke = |further: &[&str]| {
        let fixed = ["runs", "revoke", "--project", &path, "--reason", "an incident", "--json"];
        ringfence(&[&fixed, further].concat())
    };
    let bob = house.project.token("bob", &[]);
    let eve = house.project.token("eve", &[]);
    assert!(house.read(&eve)["rows"].is_array(), "the control");
    let (ended, took) = house.program_until(&bob, || {
        assert_eq!(revoke(&["--user", "bob"]).json()["revoked"].as_array().unwrap().len(), 1);
    });
    assert_eq!(ended, json!({ "how": "cancelled" }));
    assert!(took < Duration::from_secs(5), "{took:?}");
    // The same login gives no new run; another user's goes on; a fresh login does.
    assert_eq!(house.read(&bob), json!({ "status": 401 }));
    assert!(house.read(&eve)["rows"].is_array());
    let (status, refused) = house.start(&json!({ "user_token": house.user_token("bob") }));
    assert!(
        status == 201 || refused["error"] == "login_needed",
        "its login may be in the same second: {refused}"
    );
    // `auth_time` has whole seconds.
    std::thread::sleep(Duration::from_millis(1100));
    assert!(house.read(&house.project.token("bob", &[]))["rows"].is_array(), "logged in anew");
    let listed = ringfence(&["runs", "list", &path, "--user", "bob", "--json"]);
    let found: Vec<Value> = listed
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["state"].clone())
        .collect();
    assert!(found.contains(&json!("live")) && found.contains(&json!("revoked")), "{found:?}");
    assert_eq!(revoke(&["--run", "run-none"]).code, 2);
    assert_eq!(revoke(&["--everything"]).code, 0);
    assert_eq!(house.read(&eve), json!({ "status": 401 }));
    let verified = ringfence(&["journal", "verify", &path]);
    assert_eq!(verified.code, 0, "{verified:?}");
}

#[test]
fn a_run_outlives_the_gateway_and_does_without_its_users_token() {
    let mut house = house();
    let started = house.start(&json!({})).1;
    let token = text(&started["token"]);
    assert!(house.read(&token)["rows"].is_array());
    let serving = std::mem::replace(&mut house.serving, Project::new().serve(&[]));
    let (code, ..) = serving.stop(rustix::process::Signal::TERM);
    assert_eq!(code, Some(0));
    house.serving = house.project.serve(&[]);
    assert!(house.read(&token)["rows"].is_array());
    // Without its file, what was revoked would come back.
    let serving = std::mem::replace(&mut house.serving, Project::new().serve(&[]));
    drop(serving);
    for name in ["state/runs.db", "state/runs.db-wal", "state/runs.db-shm"] {
        let _not_there = std::fs::remove_file(house.project.file(name));
    }
    let refused = ringfence(&["serve", house.project.path()]);
    assert!(refused.code == 2 && refused.stderr.contains("runs.db` is gone"), "{refused:?}");
}
