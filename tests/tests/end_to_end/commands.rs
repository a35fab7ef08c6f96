//! Each command on a project that works.

use std::fs;

use ringfence_tests::{Project, ringfence};
use serde_json::json;

const READ: &str = "get_user_monthly_metrics";

#[test]
fn a_fresh_project_is_in_order_and_works_as_it_stands() {
    let project = Project::new();
    let checked = ringfence(&["check", project.path(), "--json"]);
    assert_eq!(
        (checked.code, checked.json()),
        (0, json!({ "errors": 0, "warnings": 0, "notes": 0, "problems": [] }))
    );
    let read = project.call("bob", READ, &["user_id=u-1", "month=2026-10"]);
    let rows =
        json!([{ "metric_name": "conversion", "value": 0.37 }, { "metric_name": "sessions", "value": 21.0 }]);
    assert_eq!(read["done"]["rows"], rows);
    let ran = project.call("bob", "run_python", &["code=print(6*7)"]);
    assert_eq!(ran["done"]["stdout"], "42\n", "{ran}");
    assert_eq!(ran["done"]["receipt"]["nothing_left"], true);
}

#[test]
fn check_leaves_nothing_behind() {
    let project = Project::new();
    assert_eq!(ringfence(&["check", project.path()]).code, 0);
    assert!(!project.file("state").exists());
}

#[test]
fn a_refused_call_exits_1_and_says_what_would_be_allowed() {
    let project = Project::new();
    let fixed = ["call", READ, "--as", "bob", "--project", project.path()];
    let refused = ringfence(&[&fixed[..], &["user_id=x", "month=2026-13", "tenant=globex"]].concat());
    assert_eq!((refused.code, refused.stdout.as_str()), (1, ""));
    for said in [
        "refused: argument_invalid: 3 arguments are wrong",
        "tenant: this tool has no such argument; allowed: only `month`, `user_id`",
        "month: it does not have the format; allowed: a year-month such as `2026-10`",
        "user_id: it does not match the pattern",
    ] {
        assert!(refused.stderr.contains(said), "{said}\n{}", refused.stderr);
    }
}

#[test]
fn refusals_are_data() {
    let project = Project::new();
    let unknown = project.call("bob", "get_user_monthly_metric", &[])["refusal"].clone();
    assert_eq!((&unknown["code"], &unknown["class"]), (&json!("unknown_tool"), &json!("unknown_tool")));
    assert_eq!((&unknown["nearest"], &unknown["retry"]), (&json!([READ, "run_python"]), &json!("never")));
    assert_eq!(unknown["allowed"], "the 2 tools that `tools/list` names");
    let arguments = project.call("bob", READ, &["user_id=u-1"])["refusal"].clone();
    assert_eq!(
        (&arguments["class"], &arguments["fields"][0]["field"]),
        (&json!("arguments"), &json!("month"))
    );
    // Eve may read metrics and knows of no sandbox: the nearest tools are hers alone.
    let hidden = project.call("eve", "run_python", &["code=1"])["refusal"].clone();
    assert_eq!(hidden["code"], "unknown_tool");
    assert_eq!(
        (&hidden["nearest"], &hidden["allowed"]),
        (&json!([READ]), &json!("the one tool that `tools/list` names")),
        "{hidden}"
    );
    project.append("tools/metrics.toml", PURGE);
    project.append(
        "policies/policies.cedar",
        "permit (principal in Group::\"coders\", action == Action::\"purge\", resource);\n",
    );
    let asks = project.call("bob", "purge", &["user_id=u-1"])["refusal"].clone();
    assert_eq!((&asks["class"], &asks["retry"]), (&json!("approval"), &json!("with_approval")));
    assert_eq!(asks["rules"], json!(["policies.cedar:11"]));
    // A forbid that nobody can lift.
    project.append("policies/policies.cedar", "forbid (principal, action == Action::\"purge\", resource) when { context.arguments.user_id == \"u-1\" };\n");
    let forbidden = project.call("bob", "purge", &["user_id=u-1"])["refusal"].clone();
    assert_eq!(
        (&forbidden["class"], &forbidden["code"]),
        (&json!("policy"), &json!("forbidden")),
        "{forbidden}"
    );
    assert_eq!(
        forbidden["nearest"].as_array().map(Vec::len),
        Some(2),
        "tools that Bob may call: {forbidden}"
    );
    assert!(forbidden["allowed"].as_str().unwrap().contains("the rules named do not forbid"), "{forbidden}");
    let count: u32 = project
        .database("metrics.db")
        .query_row("SELECT count(*) FROM user_metrics", [], |row| row.get(0))
        .unwrap();
    assert_eq!(count, 5);
}

pub(crate) const PURGE: &str = r#"
[purge]
system = "metrics"
effect = "irreversible"
describe = "Deletes the metrics of a user."
sql = "DELETE FROM user_metrics WHERE user_id = :user_id"
params = { user_id = { type = "string" } }
"#;

#[test]
fn a_token_stands_alone_on_its_line_and_is_never_journalled() {
    let project = Project::new();
    let token = project.token("bob", &[]);
    assert_eq!(token.split('.').count(), 3);
    let unknown = ringfence(&["token", "--as", "mallory", "--project", project.path()]);
    assert_eq!((unknown.code, unknown.stdout.as_str()), (2, ""));
    assert!(unknown.stderr.contains("known: `alice`, `bob`, `eve`"), "{}", unknown.stderr);
}

#[test]
fn the_journal_shows_and_verifies() {
    let project = Project::new();
    assert_eq!(project.call("bob", READ, &["user_id=u-1", "month=2026-10"])["done"]["truncated"], false);
    assert_eq!(
        project.call("bob", READ, &["user_id=1; DROP TABLE users", "month=2026-10"])["done"],
        json!(null)
    );
    let kinds: Vec<_> = project.journal().iter().map(|entry| entry["kind"].clone()).collect();
    assert_eq!(
        kinds,
        ["opened", "run_started", "intent", "outcome", "closed", "opened", "refused", "closed"]
    );
    let verified = ringfence(&["journal", "verify", project.path(), "--json"]);
    assert_eq!((verified.code, &verified.json()["entries"]), (0, &json!(8)));
    let intent = ringfence(&["journal", "show", project.path(), "--kind", "intent"]).stdout;
    assert!(
        intent.contains("bob  get_user_monthly_metrics") && intent.contains("allow policies.cedar:5"),
        "{intent}"
    );
    // Who and what stand beside the chain, so that they can be erased.
    let leaf = &project.journal()[1];
    assert_eq!(leaf["content"]["principal"]["subject"], "bob");
    let chained: String = project
        .database("state/journal.db")
        .query_row("SELECT leaf FROM entries WHERE number = 2", [], |row| row.get(0))
        .unwrap();
    assert!(!chained.contains("bob") && !chained.contains("u-1"), "{chained}");
}

#[test]
fn init_writes_a_project_as_a_whole_or_not_at_all() {
    let project = Project::new();
    let again = ringfence(&["init", project.path()]);
    assert_eq!(again.code, 2);
    assert!(again.stderr.contains("is there already, and nothing was written"), "{}", again.stderr);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("users.toml"), "mine").unwrap();
    assert_eq!(ringfence(&["init", folder.path().to_str().unwrap()]).code, 2);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing was added to it");
}

#[test]
fn help_has_examples_and_exit_codes_and_output_has_no_colours_without_a_terminal() {
    let help = ringfence(&["--help"]);
    assert!(help.stdout.contains("Exit codes:") && !help.stdout.contains('\u{1b}'), "{}", help.stdout);
    for command in ["init", "check", "serve", "call", "token", "demo", "doctor", "completions"] {
        assert!(ringfence(&[command, "--help"]).stdout.contains("Example"), "{command}");
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(ringfence(&["completions", shell]).stdout.contains("journal"), "{shell}");
    }
    let project = Project::new();
    project.append("tools/metrics.toml", "\n[x]\n");
    assert!(!ringfence(&["check", project.path()]).stderr.contains('\u{1b}'));
}

#[test]
fn a_program_runs_in_a_sandbox_without_a_project() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name).display().to_string()
    };
    let program = file(
        "main.py",
        "import sys; print(open('/work/in/a.csv').read()); print('e', file=sys.stderr); sys.exit(3)",
    );
    let ran = ringfence(&["sandbox", "run", "--file", &file("a.csv", "1,2"), &program]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (3, "1,2\n", "e\n"));
    let spin = file("spin.sh", "while :; do :; done");
    let ran = ringfence(&["sandbox", "run", "--language", "bash", "--seconds", "1", &spin]);
    assert_eq!((ran.code, ran.stderr.as_str()), (124, "ringfence: its time was up\n"));
    let ran = ringfence(&["sandbox", "run", "--json", &file("x.py", "print(1)")]).json();
    assert_eq!((&ran["ended"]["how"], &ran["receipt"]["nothing_left"]), (&json!("exit"), &json!(true)));
    assert_eq!(ringfence(&["sandbox", "run", "/nowhere"]).code, 2);
}

#[test]
fn the_doctor_says_what_the_machine_enforces() {
    let ran = ringfence(&["doctor", "--json"]);
    let report = ran.json();
    assert_eq!(report["fine"], ran.code == 0);
    for finding in report["findings"].as_array().unwrap() {
        assert_eq!(finding["fine"] == false, finding["instead"].is_string(), "{finding}");
        if ["Python", "Bash"].contains(&finding["what"].as_str().unwrap()) {
            assert!(finding["found"].as_str().unwrap().contains("attacks from inside"), "{finding}");
        }
    }
}

#[test]
fn a_sandbox_that_does_not_hold_is_not_served() {
    let project = Project::new();
    // No interpreter starts in so little, so the attack on itself cannot run to its end.
    project.edit("ringfence.toml", |text| text.replace("256MiB", "1MiB"));
    let ran = ringfence(&["serve", project.path()]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains("the sandbox `python` does not hold on this machine"), "{}", ran.stderr);
    assert!(ran.stderr.contains("ringfence doctor"), "{}", ran.stderr);
}
