//! Credentials: whose name a system sees, and that no secret is seen anywhere else.

mod accounts;
mod canary;
mod world;

use ringfence_mcp::{Revision, ToolCall};
use ringfence_tests::{Project, ringfence};
use serde_json::{Map, Value, json};

use world::{STATIC_KEY, World};

fn tool_call(name: &str) -> ToolCall {
    ToolCall { name: name.into(), arguments: Map::new() }
}

#[test]
fn a_hundred_callers_of_two_users_reach_the_system_each_in_their_own_name() {
    let world = World::new();
    let project = world.project();
    let serving = project.serve_in(&[("CANARY_KEY", STATIC_KEY)]);
    let clients =
        ["alice", "bob"].map(|user| (user, serving.client(&project.token(user, &[]), Revision::V2026)));
    world.runtime.block_on(async {
        let calls: Vec<_> = (0..100)
            .map(|number| {
                let (user, client) = clients[number % 2].clone();
                tokio::spawn(
                    async move { (user, client.call(tool_call("echo_exchanged")).await.unwrap().body) },
                )
            })
            .collect();
        for call in calls {
            let (user, body) = call.await.unwrap();
            assert_eq!(body["result"]["structuredContent"]["user"], user, "{body}");
        }
    });
    assert_eq!(world.times_asked("exchange"), 2, "once for each user");
    let asked = world.shared.asked.lock().unwrap();
    assert!(asked.iter().all(|(_, form)| form["scope"] == "t:read"), "with the tool's scopes alone");
}

#[test]
fn check_lists_what_is_shared_and_wants_each_tool_to_name_its_scopes() {
    let world = World::new();
    let project = world.project();
    let check = || {
        let mut command = std::process::Command::new(ringfence_tests::binary());
        ringfence_tests::run(command.args(["check", project.path(), "--json"]).env("CANARY_KEY", STATIC_KEY))
    };
    let report = check().json();
    assert_eq!((&report["errors"], &report["notes"]), (&json!(0), &json!(1)), "{report}");
    let is_note = |problem: &&Value| problem["level"] == "note";
    let note = report["problems"].as_array().unwrap().iter().find(is_note).unwrap().clone();
    assert_eq!(
        (&note["file"], &note["what"]),
        (
            &json!("ringfence.toml"),
            &json!("`fixed` sees one key for all users: accepted, because the tests want one")
        )
    );
    project.edit("ringfence.toml", |text| {
        text.replace(", shared = \"accepted, because the tests want one\"", "")
    });
    project.edit("tools/echo.toml", |text| {
        let text = text.replacen("scopes = [\"t:read\"]\n", "", 1);
        text.replacen("scopes = [\"t:read\"]", "scopes = [\"t:admin\"]", 1)
    });
    let report = check().json();
    let problems = report["problems"].as_array().unwrap().iter();
    let said: Vec<&str> = problems.filter_map(|problem| problem["what"].as_str()).collect();
    assert_eq!(
        said,
        [
            "the system would see one key for all users, and cannot tell them apart",
            "`echo_exchanged` does not say which scopes of its system it needs",
            "`t:admin` is not among the scopes of `exchanged`",
        ],
        "{report}"
    );
}

/// Entries of the list of connected accounts.
fn connected(project: &Project) -> Vec<Value> {
    ringfence(&["accounts", "list", project.path(), "--json"]).json()["accounts"].as_array().unwrap().clone()
}
