//! Tables of everything that a program finds, compared whole: a new mount, descriptor, system call or socket is seen at once,
//! whoever thought of it. One table for each, the same for root and for a user, forked and started.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use crate::probe::Verdict;
use crate::run::{Stage, Target, outcome_text, run, run_once, without};
use ringfence_sandbox::{Layer, Resources};

/// Id, part, title.
pub(crate) const PARTS: &[(&str, &str, &str)] = &[
    ("F03", "mounts", "the table of mounts"),
    ("K17t", "devices", "the table of devices"),
    ("F15", "descriptors", "the table of descriptors"),
    ("F15e", "environment", "the environment"),
    ("P13", "status", "identity, rights and what prctl tells"),
    ("P13l", "limits", "the table of limits"),
    ("K18t", "proc", "what is in /proc"),
    ("F03r", "root", "what is in the root"),
    ("K19", "calls", "the table of system calls (and K10)"),
    ("K20", "sockets", "the table of sockets"),
];

/// Where the tables are, in the sources.
pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// Compares one part with its table.
pub(crate) async fn compare(stage: &Stage, target: &Target, part: &str) -> Verdict {
    if std::env::consts::ARCH != "x86_64" && part == "calls" {
        return Verdict::NotApplicable("the table has the numbers of x86-64".to_owned());
    }
    let source = stage.program(include_str!("../programs/golden.py"), &json!({ "part": part }));
    let outcome = match run(&target.sandbox, source.clone()).await {
        Ok(outcome) => outcome,
        Err(refused) => return Verdict::ControlFailed(format!("nothing ran: {refused}")),
    };
    let found = table(&outcome_text(&outcome));
    if found.lines().count() < 2 || !outcome.stdout.text.ends_with("tried\n") {
        return Verdict::ControlFailed(format!("it did not run to its end: {}", outcome.stderr.text));
    }
    // Without a cgroup some calls and a limit differ, as the named weaker profile says.
    let is_weaker = target.profile.resources == Resources::RlimitsOnly && ["calls", "limits"].contains(&part);
    let short = if stage.fast && part == "calls" { "-fast" } else { "" };
    let name = format!("{part}{}{short}.txt", if is_weaker { "-rlimits" } else { "" });
    let path = stage.places.golden.join(&name);
    let known = fs::read_to_string(&path).unwrap_or_default();
    if known != found {
        if stage.bless {
            fs::write(&path, &found).unwrap();
            return Verdict::NotYet(format!("{name} is written anew"));
        }
        return Verdict::Hole(format!("not as {name}: {}", difference(&known, &found)));
    }
    control(target, part, source, &found).await
}

/// Without its layers the same program finds something else.
async fn control(target: &Target, part: &str, source: String, found: &str) -> Verdict {
    let off: &[Layer] = match part {
        "calls" | "sockets" => &[Layer::Seccomp],
        "limits" => &[Layer::Limits],
        "status" => &[Layer::NoPrivileges, Layer::Seccomp],
        "mounts" | "devices" | "proc" | "root" => &[Layer::OwnRoot, Layer::Landlock],
        _ => return Verdict::Held("no control: an ordinary child has whatever its parent has".to_owned()),
    };
    let mut profile = without(&target.profile, off);
    if part == "limits" {
        profile.resources = Resources::RlimitsOnly;
    }
    match run_once(&profile, source).await {
        Ok(outcome) if table(&outcome_text(&outcome)) != found => Verdict::Held(String::new()),
        Ok(_) => Verdict::ControlFailed("without its layers the table is the same".to_owned()),
        Err(refused) => Verdict::ControlFailed(refused.to_string()),
    }
}

fn table(text: &str) -> String {
    let lines = text.lines().skip_while(|line| !line.starts_with("== ")).take_while(|line| *line != "tried");
    lines.flat_map(|line| [line, "\n"]).collect()
}

fn difference(known: &str, found: &str) -> String {
    let only = |these: &str, those: &str, sign: &str| {
        let lines = these.lines().filter(|line| !those.lines().any(|other| other == *line));
        lines.take(6).map(|line| format!("{sign} {line}")).collect::<Vec<_>>()
    };
    [only(known, found, "-"), only(found, known, "+")].concat().join(" | ")
}
