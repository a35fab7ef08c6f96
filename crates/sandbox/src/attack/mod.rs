//! The sandbox attacks itself, before anyone else does: a short program that tries a little of everything. What it reaches is
//! a hole in this machine's enforcement, whatever the layers said when they were put up.

use std::sync::Arc;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::{Language, Program, Refused, Sandbox, Unwatched};

/// What says something of one backend alone, and why it says nothing of the others. All else must hold on each.
const OF_ONE_BACKEND: &[(&str, &str)] = &[
    // gVisor's `/sys` and `/proc/sys` are the sentry's own: there, that nothing is shown, and that nothing can be written.
    ("sys_is_there", "process"),
    ("kernel_settings", "process"),
    // The sentry of 2022 shows no such set.
    ("ambient_capabilities", "process"),
    // Nor this; what `prctl` says is tried on each, where a language has that.
    ("new_privileges_shown", "process"),
    // The built-in backend runs on the host's kernel, as it says of itself.
    ("host_kernel", "gvisor"),
];

/// One thing that was tried.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Probe {
    /// What it reaches for.
    pub name: String,
    /// Whether the sandbox held.
    pub held: bool,
}

/// Runs the attack in a sandbox of this profile. Fails where the sandbox cannot be built, or the attack did not run to its end.
pub async fn self_attack(sandbox: &Sandbox, language: Language) -> Result<Vec<Probe>, Refused> {
    let source = match language {
        Language::Python => include_str!("attack.py"),
        Language::Bash => include_str!("attack.sh"),
        Language::Node => include_str!("attack.js"),
    };
    let outcome = sandbox.run(Program::new(source), Arc::new(Unwatched), CancellationToken::new()).await?;
    let mut probes: Vec<Probe> = outcome.stdout.text.lines().filter_map(read).collect();
    // Each is a call at the beginning of a line: one that is missing was not tried.
    let written = source.lines().filter(|line| is_probe(line)).count();
    if probes.len() < written {
        let why = format!("{} of {written} probes ran: {}", probes.len(), outcome.stderr.text.trim());
        return Err(Refused::new("self_attack", why));
    }
    let backend = outcome.receipt.backend.as_str();
    let is_elsewhere = |name: &str| OF_ONE_BACKEND.iter().any(|(of, only)| *of == name && *only != backend);
    probes.retain(|probe| !is_elsewhere(&probe.name));
    Ok(probes)
}

fn is_probe(line: &str) -> bool {
    line.starts_with("probe(\"") || (line.starts_with("probe ") && !line.contains("() {"))
}

fn read(line: &str) -> Option<Probe> {
    let (word, name) = line.split_once(' ')?;
    let held = match word {
        "held" => true,
        "hole" => false,
        _ => return None,
    };
    Some(Probe { name: name.to_owned(), held })
}
