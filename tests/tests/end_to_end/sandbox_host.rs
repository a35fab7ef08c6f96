//! Programs on a sandbox host: its keys, its file, and a project that names it.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, ChildStderr, Command, Stdio};

use ringfence_tests::{Project, binary, ringfence, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

/// A host of its own, in a folder of the project.
struct Host {
    child: Child,
    /// Held, so that it can go on writing its log.
    _log: BufReader<ChildStderr>,
    address: String,
}

impl Host {
    fn start(project: &Project) -> Self {
        let made = ringfence(&["sandbox-host", "keys", project.file("tls").to_str().unwrap()]);
        assert_eq!(made.code, 0, "{made:?}");
        // As strong as `init` found that this machine can.
        let text = std::fs::read_to_string(project.file("ringfence.toml")).unwrap();
        let resources = if text.contains("\nresources = \"rlimits\"") { "rlimits" } else { "cgroup" };
        project.write("sandbox-host.toml", &HOST.replace("RESOURCES", resources));
        let file = project.file("sandbox-host.toml");
        let checked = ringfence(&["sandbox-host", file.to_str().unwrap(), "--check"]);
        assert_eq!((checked.code, checked.stdout.as_str()), (0, "in order: 1 profile\n"), "{checked:?}");
        let mut child =
            Command::new(binary()).arg("sandbox-host").arg(file).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        log.read_line(&mut line).unwrap();
        let address = line.split("address=").nth(1).unwrap().split_whitespace().next().unwrap();
        Self { address: address.to_owned(), child, _log: log }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped_already = self.child.wait();
    }
}

const HOST: &str = r#"
[host]
listen = "127.0.0.1:0"
ca = "tls/ca.pem"
certificate = "tls/host.pem"
key = "tls/host.key"
clients = ["gateway"]

[profiles.python]
language = "python"
resources = "RESOURCES"
limits = { seconds = 20, memory = "256MiB" }
"#;

fn on(project: &Project, address: &str) {
    project.edit("ringfence.toml", |text| {
        let before = text.split("[systems.python]").next().unwrap();
        let host = format!(
            "address = \"{address}\", server-name = \"sandbox-host\", profile = \"python\", ca = \"tls/ca.pem\", \
             certificate = \"tls/gateway.pem\", key = \"tls/gateway.key\""
        );
        format!("{before}[systems.python]\nkind = \"sandbox\"\nlanguage = \"python\"\nhost = {{ {host} }}\n")
    });
}

#[test]
fn a_project_runs_its_programs_on_a_host_and_says_so() {
    let project = Project::new();
    let mut host = Host::start(&project);
    on(&project, &host.address);
    assert_eq!(ringfence(&["check", project.path()]).code, 0);
    let ran = project.call("bob", "run_python", &["code=print(6*7)"]);
    assert_eq!(
        (&ran["done"]["stdout"], &ran["done"]["receipt"]["backend"]),
        (&json!("42\n"), &json!("remote/process")),
        "{ran}"
    );
    kill_process(Pid::from_child(&host.child), Signal::TERM).unwrap();
    until("the host stops", || host.child.try_wait().unwrap().is_some_and(|status| status.success()));
    let refused = project.call("bob", "run_python", &["code=print(6*7)"]);
    assert_eq!(refused["refusal"]["code"], "sandbox_unavailable", "{refused}");
}

#[test]
fn keys_are_for_their_owner_alone_and_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let tls = folder.path().join("tls");
    let make = || ringfence(&["sandbox-host", "keys", tls.to_str().unwrap()]);
    assert_eq!(make().code, 0);
    let mode = |name: &str| tls.join(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("host.key"), mode("gateway.key"), mode("ca.pem")), (0o600, 0o600, 0o644));
    assert_eq!(std::fs::read_dir(&tls).unwrap().count(), 5, "the authority's own key is not kept");
    let again = make();
    assert_eq!(again.code, 2);
    assert!(again.stderr.contains("is there already, and nothing was written"), "{again:?}");
}

#[test]
fn what_is_wrong_with_a_host_is_said_at_once_and_in_its_place() {
    let project = Project::new();
    on(&project, "nowhere");
    project.append("ringfence.toml", "resources = \"rlimits\"\nlimits = { memory = \"1GiB\" }\n");
    let checked = ringfence(&["check", project.path()]);
    assert_eq!(checked.code, 1);
    for said in [
        "error: `nowhere` is no address",
        "/tls/ca.pem` cannot be read",
        "/tls/gateway.key` cannot be read",
        "error: `resources` is not a key in `[systems.python]`",
        "error: `memory` is not a key in `[systems.python.limits]`",
    ] {
        assert!(checked.stderr.contains(said), "{said}\n{}", checked.stderr);
    }
    project.write("sandbox-host.toml", &HOST.replace("[profiles", "lisen = 1\n[profiles"));
    let checked = ringfence(&["sandbox-host", project.path(), "--check"]);
    assert_eq!(checked.code, 1);
    assert!(
        checked.stderr.contains("sandbox-host.toml:9:1: error: `lisen` is not a key in `[host]`"),
        "{checked:?}"
    );
}
