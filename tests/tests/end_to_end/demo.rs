//! The demo, as root and as an ordinary user.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use ringfence_tests::{Ran, binary, ringfence, run};
use serde_json::Value;

/// Everything that the demo must at least try.
const TRIED: &[&str] = &[
    "DROP TABLE",
    "execute_sql",
    "bound to the identity",
    "extra key",
    "duplicated key",
    "Carol's ticket",
    "expired token",
    "subject changed",
    "people's door",
    "rm -rf",
    "host's environment",
    "gateway's memory",
    "token and the journal's key",
    "interface or a route",
    "metadata, a private address",
    "fork bomb",
    "memory bomb",
    "without approval",
    "journal",
];

fn nothing_got_through(ran: &Ran) {
    let report = ran.json();
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(report["attacks_through"], 0);
    let attempts = report["attempts"].as_array().unwrap();
    let attacks: Vec<&Value> = attempts.iter().filter(|attempt| attempt["attack"] == true).collect();
    assert_eq!(report["attacks_tried"], attacks.len());
    for tried in TRIED {
        let found = attacks.iter().find(|attempt| attempt["tried"].as_str().unwrap().contains(tried));
        assert!(found.is_some_and(|attempt| attempt["wall"].is_string()), "{tried}: {found:?}");
    }
    for number in ["calls", "effects_allowed", "overhead_median_us"] {
        assert!(report[number].as_u64().unwrap() > 0, "{number}");
    }
    for user in ["bob", "alice"] {
        let useful = attempts.iter().filter(|attempt| attempt["as"] == user && attempt["wall"].is_null());
        assert!(useful.count() >= 2, "{user}");
    }
}

#[test]
fn nothing_gets_through_and_the_useful_work_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept");
    let began = Instant::now();
    nothing_got_through(&ringfence(&["demo", "--json", "--keep", kept.to_str().unwrap()]));
    assert!(began.elapsed() < Duration::from_mins(1), "it hangs");
    assert_eq!(ringfence(&["journal", "verify", kept.to_str().unwrap()]).code, 0);
    let again = ringfence(&["demo", "--keep", kept.to_str().unwrap()]);
    assert_eq!(again.code, 2);
    assert!(again.stderr.contains("is not empty, and nothing was written"), "{}", again.stderr);
}

#[test]
fn an_ordinary_user_is_as_safe() {
    if !rustix::process::getuid().is_root() {
        return; // The other test was an ordinary user's already.
    }
    // The build's own folder may be closed to others.
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = folder.path().join("ringfence");
    fs::copy(binary(), &copy).unwrap();
    let mut demo = Command::new(copy);
    demo.args(["demo", "--json"]).uid(1234).gid(1234).current_dir("/").env("TMPDIR", "/tmp");
    nothing_got_through(&run(&mut demo));
}

#[test]
fn without_a_terminal_it_reads_well() {
    let ran = ringfence(&["demo"]);
    assert_eq!(ran.code, 0);
    assert!(!ran.stdout.contains('\u{1b}') && ran.stderr.is_empty(), "{ran:?}");
    let columns: Vec<usize> = ran.stdout.lines().filter_map(|line| line.find("bob")).collect();
    assert!(
        columns.iter().filter(|column| **column == columns[1]).count() > 15,
        "the columns are straight: {columns:?}"
    );
    assert!(ran.stdout.contains("attacks through          0"), "{}", ran.stdout);
}
