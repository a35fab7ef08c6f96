//! Canary secrets, searched for on every surface: raw, percent-encoded, in hexadecimal and in base64 at each alignment.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use ringfence_mcp::{Revision, ToolCall};
use ringfence_tests::{PATIENCE, Project, Serving, binary, run, until};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::accounts::Browser;
use super::tool_call;
use super::world::{LOGIN_CODE, STATIC_KEY, World, spellings};

/// The secrets that stand on a surface, in whatever spelling and case.
fn found_in(surface: &[u8], secrets: &[String]) -> Vec<String> {
    let surface = String::from_utf8_lossy(surface).to_ascii_lowercase();
    let holds =
        |spelling: Vec<u8>| surface.contains(&String::from_utf8(spelling).unwrap().to_ascii_lowercase());
    secrets.iter().filter(|secret| spellings(secret).into_iter().any(holds)).cloned().collect()
}

#[test]
fn the_search_finds_what_is_planted() {
    for secret in ["canary-1/2+3=4", "canary-token-e61f.x_y"] {
        for spelling in spellings(secret) {
            let surface = [b"before \"".as_slice(), &spelling, b"\" after"].concat();
            assert_eq!(
                found_in(&surface, &[secret.to_owned()]),
                [secret],
                "{}",
                String::from_utf8_lossy(&spelling)
            );
        }
        assert_eq!(
            found_in(b"nothing of it: canary-1/2+3 canary-token", &[secret.to_owned()]),
            Vec::<String>::new()
        );
    }
}

/// A program that tells all that it can see.
const LOOKS_AROUND: &str = r"
import os, glob
for name in ['/proc/self/environ', *glob.glob('/proc/*/environ'), *glob.glob('/proc/*/cmdline')]:
    try: print(name, open(name, 'rb').read())
    except Exception as error: print(name, error)
print(dict(os.environ))
for folder, _, names in os.walk('/'):
    if folder.startswith(('/usr', '/proc', '/sys', '/lib')): continue
    for name in names:
        path = os.path.join(folder, name)
        try: print(path, open(path, 'rb').read(2000) if os.path.isfile(path) else '')
        except Exception as error: print(path, error)
print('ordinary-marker')
";

/// Everything that an agent can call, with every answer as it came over the wire.
fn answers(world: &World, project: &Project, serving: &Serving) -> String {
    let mut heard = String::new();
    for (user, revision) in [("bob", Revision::V2026), ("bob", Revision::V2025), ("eve", Revision::V2026)] {
        let client = serving.client(&project.token(user, &[]), revision);
        for system in ["exchanged", "behalf", "account", "fixed"] {
            for path in ["echo", "fails"] {
                let answer =
                    world.runtime.block_on(client.call(tool_call(&format!("{path}_{system}")))).unwrap();
                heard.push_str(&answer.body.to_string());
            }
        }
        let code = json!({ "code": LOOKS_AROUND }).as_object().unwrap().clone();
        let look = ToolCall { name: "run_python".into(), arguments: code };
        heard.push_str(&world.runtime.block_on(client.call(look)).unwrap().body.to_string());
    }
    heard
}

fn status(world: &World, project: &Project) -> String {
    let token = project.token("alice", &["--door", "people"]);
    world.runtime.block_on(async {
        let url = format!("http://{}/v1/status", project.setting("control"));
        let asking =
            reqwest::Client::new().get(url).bearer_auth(token).timeout(PATIENCE).send().await.unwrap();
        format!("{:?} {}", asking.headers().clone(), asking.text().await.unwrap())
    })
}

#[test]
fn no_token_key_or_code_appears_anywhere() {
    let world = World::new();
    let project = world.project();
    world.can_log_in(&project, LOGIN_CODE, "bob");
    world.can_log_in(&project, "canary-login-of-eve-11", "eve");
    let serving = project.serve_in(&[("CANARY_KEY", STATIC_KEY), ("RINGFENCE_LOG", "trace")]);
    let client = serving.client(&project.token("bob", &[]), Revision::V2026);
    let refused = world.runtime.block_on(client.call(tool_call("echo_account"))).unwrap().body;
    let message = refused["result"]["structuredContent"]["refusal"]["message"].as_str().unwrap().to_owned();
    let link = message[message.find("http").unwrap()..].split(';').next().unwrap().to_owned();
    let stolen = world.runtime.block_on(Browser::default().connect(&link, "canary-login-of-eve-11")).1;
    let connected = world.runtime.block_on(Browser::default().connect(&link, LOGIN_CODE));
    assert_eq!(connected.0, 200, "{}", connected.1);
    let heard = answers(&world, &project, &serving);
    let is_heard = heard.contains("\"user\":\"bob\"") && heard.matches("ordinary-marker").count() >= 10;
    assert!(is_heard, "the control: {heard}");
    assert!(heard.contains("***"), "what was echoed is blotted out");
    let limits =
        std::fs::read_to_string(format!("/proc/{}/limits", serving.process().as_raw_nonzero())).unwrap();
    let status = status(&world, &project);
    let shown = |arguments: &[&str]| {
        let ran = run(Command::new(binary()).args(arguments).env("CANARY_KEY", STATIC_KEY));
        format!("{}{}", ran.stdout, ran.stderr)
    };
    let check = shown(&["check", project.path(), "--json"]);
    let journal = shown(&["journal", "show", project.path(), "--json", "--last", "1000"]);
    let accounts = shown(&["accounts", "list", project.path(), "--json"]);
    let file = |name: &str| std::fs::read(project.file(name)).unwrap_or_default();
    let wal =
        [file("state/journal.db-wal"), file("state/grants.db-wal"), file("state/grants.db-journal")].concat();
    let (_, log, _) = serving.stop(Signal::TERM);
    let secrets = world.secrets(&project);
    assert!(secrets.len() >= 15, "{}", secrets.len());
    let surfaces: [(&str, Vec<u8>); 13] = [
        ("answers", heard.into_bytes()),
        ("pages", format!("{stolen}{}", connected.1).into_bytes()),
        ("log", log.into_bytes()),
        ("stdout", file("stdout")),
        ("status", status.into_bytes()),
        ("check", check.into_bytes()),
        ("journal show", journal.into_bytes()),
        ("accounts list", accounts.into_bytes()),
        ("journal.db", file("state/journal.db")),
        ("grants.db", file("state/grants.db")),
        ("wal", wal),
        ("head", file("state/journal.head")),
        ("refusal", message.into_bytes()),
    ];
    for (name, surface) in &surfaces {
        assert!(!surface.is_empty() || ["stdout", "wal"].contains(name), "{name} is there");
        assert_eq!(found_in(surface, &secrets), Vec::<String>::new(), "{name}");
        // The control: the same surface with one of them in it.
        let planted = [surface.as_slice(), STATIC_KEY.as_bytes()].concat();
        assert_eq!(found_in(&planted, &secrets), [STATIC_KEY], "{name}");
    }
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["1", "1"], "{core}");
}

#[test]
fn no_other_process_of_the_same_user_looks_into_the_gateway() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let copy = folder.path().join("ringfence");
    std::fs::copy(binary(), &copy).unwrap();
    let own = rustix::process::getuid();
    let user = if own.is_root() { 1234 } else { own.as_raw() };
    let owner_of = |command: &mut Command, once: &str| {
        let command =
            command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = if own.is_root() {
            command.uid(user).gid(user).spawn().unwrap()
        } else {
            command.spawn().unwrap()
        };
        let proc = format!("/proc/{}", child.id());
        let owner = || std::fs::metadata(format!("{proc}/mem")).unwrap().uid();
        until("the program", || std::fs::read_to_string(format!("{proc}/comm")).unwrap().trim() == once);
        if once == "ringfence" {
            until("a process that is not dumpable", || owner() == 0);
        }
        let owner = owner();
        child.kill().unwrap();
        child.wait().unwrap();
        owner
    };
    // The kernel gives what belongs to a process that is not dumpable to root (proc(5)).
    assert_eq!(owner_of(Command::new(copy).args(["sandbox", "run", "-"]), "ringfence"), 0);
    assert_eq!(owner_of(&mut Command::new("cat"), "cat"), user, "the control");
}

#[test]
fn a_token_in_an_answer_of_json_is_one_that_was_searched_for() {
    // The control of the canary: without the search, what the system echoes would reach the agent.
    let world = World::new();
    let echoed: Value = world.runtime.block_on(async {
        let asking =
            reqwest::Client::new().get(format!("{}/echo", world.url)).bearer_auth("canary-token-e61f");
        asking.send().await.unwrap().json().await.unwrap()
    });
    let echoed = echoed.to_string();
    assert_eq!(found_in(echoed.as_bytes(), &["canary-token-e61f".to_owned()]), ["canary-token-e61f"]);
    for spelling in spellings("canary-token-e61f") {
        assert!(echoed.contains(&String::from_utf8(spelling).unwrap()), "{echoed}");
    }
}
