//! What is wrong is said once, clearly, with what to do; nothing is half-written.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use ringfence_tests::{Project, Ran, ringfence};
use serde_json::json;

/// That a command could not be done, and that its message says these words.
fn refused(ran: &Ran, said: &[&str]) {
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{ran:?}");
    let messages = ran.stderr.lines().filter(|line| line.starts_with("error:")).count();
    assert_eq!(messages, 1, "one message: {}", ran.stderr);
    assert!(ran.stderr.contains(" help: "), "{}", ran.stderr);
    for said in said {
        assert!(ran.stderr.contains(said), "{said}\n{}", ran.stderr);
    }
}

#[test]
fn a_missing_or_unreadable_project() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    for command in [
        vec!["serve", path],
        vec!["check", path],
        vec!["call", "x", "--as", "bob", "--project", path],
        vec!["token", "--as", "bob", "--project", path],
        vec!["journal", "verify", path],
        vec!["journal", "show", path],
    ] {
        refused(&ringfence(&command), &["ringfence.toml` cannot be read", "ringfence init"]);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was written");
    fs::write(folder.path().join("ringfence.toml"), [0xff, 0xfe, 0x00]).unwrap();
    refused(&ringfence(&["serve", path]), &["ringfence.toml` cannot be read"]);
}

#[test]
fn check_names_every_problem_at_once_with_its_place() {
    let project = Project::new();
    project.edit("ringfence.toml", |text| text.replace("kind = \"sqlite\"", "kind = \"oracle\""));
    project.append(
        "tools/python.toml",
        "\n[wipe]\nsystem = \"python\"\nefect = \"read\"\ndescribe = \"Wipes.\"\nprogram = \"code\"\n",
    );
    project.append(
        "policies/policies.cedar",
        "permit (principal, action == Action::\"run_pyton\", resource);\n",
    );
    let checked = ringfence(&["check", project.path(), "--json"]);
    let problems = checked.json();
    assert_eq!(checked.code, 1);
    let places: Vec<String> = problems["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|problem| {
            assert!(!problem["instead"].as_str().unwrap().is_empty(), "{problem}");
            format!("{}:{}", problem["file"].as_str().unwrap(), problem["line"])
        })
        .collect();
    for place in ["ringfence.toml:23", "tools/python.toml:11", "policies/policies.cedar:14"] {
        assert!(places.contains(&place.to_owned()), "{place} is not in {places:?}");
    }
    let shown = ringfence(&["check", project.path()]);
    assert!(shown.stderr.contains("help: ") && shown.stderr.contains("not in order"), "{}", shown.stderr);
    // The same project is not served, and nothing is made for it.
    refused(&ringfence(&["serve", project.path()]), &["has ", "correct what is named above"]);
    assert!(!project.file("state").exists());
}

#[test]
fn a_policy_that_does_not_validate() {
    let project = Project::new();
    project.append(
        "policies/policies.cedar",
        "permit (principal, action, resource) when { context.nothing };\n",
    );
    let ran = ringfence(&["serve", project.path()]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.stderr.contains("policies/policies.cedar:14:1: error: this policy does not fit the action-space"),
        "{}",
        ran.stderr
    );
    assert!(!project.file("state").exists());
}

#[test]
fn a_taken_port() {
    let project = Project::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    project.edit("ringfence.toml", |text| {
        let control = text.lines().find(|line| line.starts_with("control")).unwrap().to_owned();
        text.replace(&control, &format!("control = \"{address}\""))
    });
    refused(
        &ringfence(&["serve", project.path()]),
        &[&format!("address {address} is taken"), "another `control`"],
    );
    assert!(!project.file("state").exists(), "addresses are bound before anything is written");
}

#[test]
fn a_corrupt_journal() {
    let project = Project::new();
    assert!(project.call("bob", "run_python", &["code=1"])["done"].is_object());
    let good = fs::read(project.file("state/journal.db")).unwrap();
    fs::write(project.file("state/journal.db"), b"this is no database at all, whatever its name says")
        .unwrap();
    refused(&ringfence(&["serve", project.path()]), &["journal", "verify"]);
    let verified = ringfence(&["journal", "verify", project.path(), "--json"]);
    assert_eq!((verified.code, &verified.json()["findings"][0]["kind"]), (1, &json!("unreadable")));
    fs::write(project.file("state/journal.db"), good).unwrap();
    assert_eq!(ringfence(&["journal", "verify", project.path()]).code, 0);
    // A journal that is shorter than its head says does not go on as if nothing had happened.
    project.edit_journal("DELETE FROM entries WHERE number > 2; DELETE FROM payloads WHERE number > 2;");
    refused(&ringfence(&["serve", project.path()]), &["journal", "head"]);
}

#[test]
fn a_locked_journal() {
    let project = Project::new();
    assert!(project.call("bob", "run_python", &["code=1"])["done"].is_object());
    let lock = fs::OpenOptions::new().write(true).open(project.file("state/journal.lock")).unwrap();
    lock.lock().unwrap();
    refused(&ringfence(&["serve", project.path()]), &["journal", "another"]);
}

#[test]
fn a_key_file_with_the_wrong_mode() {
    let project = Project::new();
    assert!(project.call("bob", "run_python", &["code=1"])["done"].is_object());
    for key in ["state/journal.key", "state/issuer.key"] {
        fs::set_permissions(project.file(key), fs::Permissions::from_mode(0o644)).unwrap();
        refused(&ringfence(&["serve", project.path()]), &["has mode 644", "chmod 600"]);
        assert_eq!(ringfence(&["check", project.path()]).code, 1, "check says so too");
        fs::set_permissions(project.file(key), fs::Permissions::from_mode(0o600)).unwrap();
    }
    assert_eq!(ringfence(&["check", project.path()]).code, 0);
}

#[test]
fn a_policy_file_that_would_not_be_read_is_an_error() {
    let lockdown = "forbid (principal, action, resource);\n";
    let problem = |project: &Project| {
        let checked = ringfence(&["check", project.path(), "--json"]);
        assert_eq!(ringfence(&["serve", project.path()]).code, 2);
        (checked.code, checked.json()["problems"][0]["file"].as_str().unwrap_or_default().to_owned())
    };
    let project = Project::new();
    fs::create_dir(project.file("policies/prod")).unwrap();
    project.write("policies/prod/lockdown.cedar", lockdown);
    assert_eq!(problem(&project), (1, "policies/prod".into()));
    let project = Project::new();
    project.write("policies/lockdown.CEDAR", lockdown);
    assert_eq!(problem(&project), (1, "policies/lockdown.CEDAR".into()));
    let project = Project::new();
    std::os::unix::fs::symlink("nowhere", project.file("policies/lockdown.cedar")).unwrap();
    assert_eq!(problem(&project), (1, "policies/lockdown.cedar".into()));
}

#[test]
fn an_audience_stands_for_one_door_alone() {
    let project = Project::new();
    project.edit("ringfence.toml", |text| {
        let urls = "public-url = \"https://x.example\"\ncontrol-url = \"https://x.example/mcp\"\n";
        text.replace("[server]\n", &format!("[server]\n{urls}"))
    });
    let checked = ringfence(&["check", project.path()]);
    assert_eq!(checked.code, 1);
    assert!(
        checked.stderr.contains("both doors have the audience `https://x.example/mcp`"),
        "{}",
        checked.stderr
    );
    let project = Project::new();
    project.edit("ringfence.toml", |text| text.replace("\nlisten = \"127.0.0.1:", "\nlisten = \"0.0.0.0:"));
    let checked = ringfence(&["check", project.path()]);
    assert!(
        checked.code == 1 && checked.stderr.contains("this door speaks plain HTTP"),
        "{}",
        checked.stderr
    );
}

#[test]
fn a_key_that_is_gone_or_is_none() {
    let project = Project::new();
    assert!(project.call("bob", "run_python", &["code=1"])["done"].is_object());
    let check = || ringfence(&["check", project.path(), "--json"]);
    assert_eq!(check().code, 0, "the control");
    for (name, gone) in
        [("state/journal.key", true), ("state/journal.key", false), ("state/issuer.key", false)]
    {
        let good = fs::read(project.file(name)).unwrap();
        let said = if gone {
            fs::remove_file(project.file(name)).unwrap();
            "is gone, and"
        } else {
            fs::write(project.file(name), "garbage").unwrap();
            "holds no key"
        };
        refused(&ringfence(&["serve", project.path()]), &[name, said]);
        assert_eq!(project.file(name).exists(), !gone, "none is made in its place");
        let checked = check();
        assert_eq!(
            (checked.code, &checked.json()["problems"][0]["file"]),
            (1, &json!(name)),
            "check says so too"
        );
        if name == "state/journal.key" {
            refused(&ringfence(&["journal", "verify", project.path()]), &[name, said]);
        }
        fs::write(project.file(name), good).unwrap();
        fs::set_permissions(project.file(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    assert_eq!(ringfence(&["journal", "verify", project.path()]).code, 0);
}

#[test]
fn nothing_is_half_written_where_a_start_is_refused() {
    // A statement that SQLite does not take, and a sandbox that cannot run.
    let project = Project::new();
    project.edit("tools/metrics.toml", |text| text.replace("FROM user_metrics", "FROM nowhere"));
    assert_eq!(ringfence(&["serve", project.path()]).code, 2);
    assert_eq!(
        ringfence(&["call", "run_python", "code=1", "--as", "bob", "--project", project.path()]).code,
        2
    );
    assert!(!project.file("state").exists());
    let project = Project::new();
    project.edit("ringfence.toml", |text| text.replace("256MiB", "1MiB"));
    assert_eq!(ringfence(&["serve", project.path()]).code, 2);
    assert!(!project.file("state").exists());
    // A journal whose file is gone, and whose head is there.
    let project = Project::new();
    assert!(project.call("bob", "run_python", &["code=1"])["done"].is_object(), "the control");
    fs::rename(project.file("state/journal.db"), project.file("kept.db")).unwrap();
    let files = || fs::read_dir(project.file("state")).unwrap().count();
    let before = files();
    refused(&ringfence(&["serve", project.path()]), &["`journal.db` is gone", "put it back"]);
    assert_eq!((files(), project.file("state/journal.db").exists()), (before, false));
}

#[test]
fn a_system_without_its_file_is_a_problem_before_it_has_a_tool() {
    let project = Project::new();
    let problems = |path: &str| {
        project.edit("ringfence.toml", |text| {
            let kept = text.split("[systems.archive]").next().unwrap().to_owned();
            format!("{kept}[systems.archive]\nkind = \"sqlite\"\npath = \"{path}\"\n")
        });
        ringfence(&["check", project.path(), "--json"]).json()
    };
    assert_eq!(problems("metrics.db")["errors"], 0, "the control");
    let missing = problems("archive.db");
    assert_eq!(missing["errors"], 1, "{missing}");
    assert!(missing["problems"][0]["what"].as_str().unwrap().contains("cannot be opened"), "{missing}");
}

#[test]
fn the_life_of_a_token_has_bounds() {
    let project = Project::new();
    let errors = |seconds: &str| {
        project.edit("ringfence.toml", |text| {
            let rest = text.find("[systems").map_or("", |at| &text[at..]);
            format!("[identity]\nissuer = \"https://x.example\"\njwks = \"https://x.example/jwks\"\nlifetime-max-seconds = {seconds}\n\n{rest}")
        });
        ringfence(&["check", project.path(), "--json"]).json()["errors"].clone()
    };
    assert_eq!(errors("86400"), 0, "the control");
    for bad in ["0", "86401", "9223372036854775807"] {
        assert_eq!(errors(bad), 1, "{bad}");
    }
}
