//! The sandbox attacks itself, before anyone else does: a short program that tries a little of everything. What it reaches is
//! a hole in this machine's enforcement, whatever the layers said when they were put up.

use std::sync::Arc;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::{Language, Profile, Program, Refused, Sandbox, Unwatched};

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

/// What an attack has to know of the profile, to tell what belongs there from what does not.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    language: Language,
    has_egress: bool,
    /// The names of what the operator put into the environment.
    environment: Vec<String>,
}

impl Known {
    pub(crate) fn of(profile: &Profile) -> Self {
        Self {
            language: profile.language,
            has_egress: profile.egress.is_some(),
            environment: profile.environment.keys().cloned().collect(),
        }
    }

    /// The attack, with what it has to know in front of it.
    fn program(&self) -> String {
        let names = self.environment.join(" ");
        match self.language {
            Language::Python => {
                let egress = if self.has_egress { "True" } else { "False" };
                format!("EGRESS, OPERATORS = {egress}, {names:?}.split()\n{}", include_str!("attack.py"))
            }
            Language::Bash => include_str!("attack.sh").to_owned(),
            Language::Node => {
                let egress = self.has_egress;
                format!(
                    "const EGRESS = {egress}, OPERATORS = {names:?}.split(' ');\n{}",
                    include_str!("attack.js")
                )
            }
        }
    }
}

/// Runs the attack in a sandbox of this profile. Fails where the sandbox cannot be built, or the attack did not run to its end.
pub(crate) async fn attack(sandbox: &Sandbox, known: &Known) -> Result<Vec<Probe>, Refused> {
    let source = known.program();
    let program = Program::new(source.as_str());
    let outcome = sandbox.run(program, Arc::new(Unwatched), CancellationToken::new()).await?;
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
