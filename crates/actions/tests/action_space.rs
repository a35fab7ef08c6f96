//! Tool files in, problems or schemas out; arguments in, canonical values or refusals out.
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use ringfence_actions::{ActionSpace, File, SystemKind};
use ringfence_core::{Authorities, Principal, Problem, SystemName};
use serde_json::{Value, json};

const METRICS: &str = r#"
[get_metrics]
system = "db"
effect = "read"
describe = "One user's metrics for one month."
sql = "SELECT 1 WHERE :user_id = :month AND :tenant = :share AND :ids = :flag AND :level = :day"

[get_metrics.params]
user_id = { type = "string", pattern = "u-[0-9]{1,9}", describe = "Whose metrics" }
month = { type = "string", format = "year-month" }
tenant = { from = "principal.claims.tenant" }
share = { type = "number", minimum = 0, maximum = 1.5, optional = true }
ids = { type = "array", items = { type = "integer", minimum = 1 }, max-items = 3, optional = true }
flag = { type = "boolean", optional = true }
level = { type = "string", enum = ["low", "high"], optional = true }
day = { type = "string", format = "date", optional = true }
"#;

fn systems() -> BTreeMap<SystemName, SystemKind> {
    let named = |name: &str, kind| (SystemName::new(name).unwrap(), kind);
    [named("db", SystemKind::Sqlite), named("web", SystemKind::Http), named("box", SystemKind::Sandbox)]
        .into()
}

fn read(text: &str) -> (ActionSpace, Vec<Problem>) {
    let mut problems = Vec::new();
    let space = ActionSpace::read(&[File { name: "tools/t.toml", text }], &systems(), &mut problems);
    problems.sort();
    (space, problems)
}

fn problems(text: &str) -> String {
    read(text).1.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn bob() -> Principal {
    let claims = json!({ "tenant": "acme" }).as_object().unwrap().clone();
    let verifier = Authorities::establish().verifier;
    Principal::verified(&verifier, "https://id.test".into(), "bob".into(), BTreeSet::new(), claims)
}

fn check(arguments: Value) -> String {
    let (space, problems) = read(METRICS);
    assert_eq!(problems, []);
    let Value::Object(mut given) = json!({ "user_id": "u-1", "month": "2026-10" }) else { unreachable!() };
    given.extend(arguments.as_object().unwrap().clone());
    match space.tool("get_metrics").unwrap().check(&given, &bob()) {
        Ok(arguments) => arguments.to_json().to_string(),
        Err(refusal) => format!("{refusal}"),
    }
}

#[test]
fn the_schema_carries_every_constraint_and_no_bound_parameter() {
    let (space, _) = read(METRICS);
    insta::assert_snapshot!(
        serde_json::to_string_pretty(&space.tool("get_metrics").unwrap().input_schema()).unwrap()
    );
}

#[test]
fn arguments_become_canonical_or_are_refused_by_field() {
    let table: Vec<String> = [
        json!({}),
        json!({ "user_id": "u-1; DROP TABLE users" }),
        json!({ "user_id": "u-1\n" }),
        json!({ "user_id": 7 }),
        json!({ "user_id": null }),
        json!({ "month": "2026-13" }),
        json!({ "tenant": "other" }),
        json!({ "User_id": "u-2" }),
        json!({ "extra": 1 }),
        json!({ "share": 0.25 }),
        json!({ "share": 1.50001 }),
        json!({ "share": 2 }),
        json!({ "ids": [1, 2, 3] }),
        json!({ "ids": [1, 2, 3, 4] }),
        json!({ "ids": [0] }),
        json!({ "ids": [[1]] }),
        serde_json::from_str(r#"{ "ids": [9007199254740993, 1.0, 1e2] }"#).unwrap(),
        serde_json::from_str(r#"{ "ids": [9223372036854775808] }"#).unwrap(),
        serde_json::from_str(r#"{ "ids": [1e400] }"#).unwrap(),
        json!({ "flag": "true" }),
        json!({ "level": "medium" }),
        json!({ "day": "2026-02-30" }),
        json!({ "day": "0000-00-00" }),
        json!({ "user_id": "x", "month": "y", "z": 1 }),
    ]
    .into_iter()
    .map(|arguments| format!("{arguments}\n    {}", check(arguments.clone())))
    .collect();
    insta::assert_snapshot!(table.join("\n"));
}

#[test]
fn a_number_is_as_precise_here_as_the_schema_says_to_the_model() {
    let schema = read(METRICS).0.tool("get_metrics").unwrap().input_schema();
    let share = &schema["properties"]["share"];
    assert_eq!(share["description"], "at most four digits after the point");
    assert_eq!(share.get("multipleOf"), None, "validators divide in binary: 19.99 would be refused");
    assert!(check(json!({ "share": 0.1999 })).contains("0.1999"), "the control");
    assert!(check(json!({ "share": 0.19999 })).contains("more than four digits"));
}

#[test]
fn a_pattern_that_is_read_in_two_ways_is_refused() {
    let said = |pattern: &str| {
        let param = format!("params.x = {{ type = \"string\", pattern = '{pattern}' }}");
        problems(&format!(
            "[t]\nsystem = \"db\"\neffect = \"read\"\ndescribe = \"x\"\nsql = \"SELECT :x\"\n{param}\n"
        ))
    };
    for fine in ["[a-z]+", r"\x41\u0041", r"[\]\[a-]", "(?:a|b){1,3}", "[^a&~-]", r"a\.b", r"\{,"] {
        assert_eq!(said(fine), "", "{fine}");
    }
    for (unclear, word) in [
        ("[a-z&&[^b]]", "&&"),
        ("[a--b]", "--"),
        ("[a~~b]", "~~"),
        ("[a[b]]", "["),
        ("[[:alpha:]]", "["),
        ("[]a]", "]"),
        ("[^]a]", "]"),
        (r"\x{41}", r"\x{"),
        (r"[\u{41}]", r"\u{"),
        ("a{,3}", "{,"),
        (r"\d", r"\d"),
        ("(?i)a", "(?"),
    ] {
        let wanted = format!("`{word}` in a pattern means different things");
        assert!(said(unclear).contains(&wanted), "{unclear}: {}", said(unclear));
    }
}

#[test]
fn a_missing_claim_refuses_the_call() {
    let (space, _) = read(METRICS);
    let verifier = Authorities::establish().verifier;
    let nobody = Principal::verified(
        &verifier,
        "https://id.test".into(),
        "x".into(),
        BTreeSet::new(),
        serde_json::Map::new(),
    );
    let given = json!({ "user_id": "u-1", "month": "2026-10" });
    let refusal = space.tool("get_metrics").unwrap().check(given.as_object().unwrap(), &nobody).unwrap_err();
    assert_eq!(refusal.code, "claim_missing");
}

#[test]
fn all_problems_of_a_file_come_at_once_each_with_its_place_and_what_to_write() {
    insta::assert_snapshot!(problems(
        r#"
[GetUser]
system = "db"
effect = "peek"
sql = "SELECT 1"

[b]
sytem = "db"
describe = ""

[c]
system = "nowhere"
effect = "read"
describe = "x"
sql = "SELECT 1"

[d]
system = "web"
effect = "read"
describe = "x"
http = { method = "FETCH", path = "tickets/{id}", returns = "id" }

[e]
system = "web"
describe = "x"
http = { method = "POST", path = "/tickets/../{id}/a{b}", returns = ["id"] }
params.unused = { type = "string" }

[f]
system = "box"
effect = "read"
describe = "x"
program = "code"
limits = { rows = 0, second = 3 }
params.code = { type = "text", pattern = "(" }
params.other = { type = "string", pattern = "(?=x)", format = "ip", enum = [], min-length = 3, max-length = 1 }
params.bound = { from = "agent.words", optional = true }
params.list = { type = "array", items = { type = "array" } }

[d.params]
"#
    ));
}

#[test]
fn a_file_that_is_not_toml_says_where() {
    insta::assert_snapshot!(problems("[a]\nsystem = \n"));
}

#[test]
fn a_tool_that_is_declared_twice_names_the_first() {
    let tool = "[t]\nsystem = \"db\"\neffect = \"read\"\ndescribe = \"x\"\nsql = \"SELECT 1\"\n";
    let mut problems = Vec::new();
    let files = [File { name: "tools/a.toml", text: tool }, File { name: "tools/b.toml", text: tool }];
    ActionSpace::read(&files, &systems(), &mut problems);
    insta::assert_snapshot!(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"), @"tools/b.toml:1:2: `t` is declared twice; rename one of them: the first stands at tools/a.toml:1:2");
}
