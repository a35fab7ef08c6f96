//! The sandbox attacks itself, before anyone else does: a short program that tries a little of everything. What it reaches is
//! a hole in this machine's enforcement, whatever the layers said when they were put up.

use serde::Serialize;

use crate::{Language, Profile, Program, Refused, run};

/// One thing that was tried.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Probe {
    /// What it reaches for.
    pub name: String,
    /// Whether the sandbox held.
    pub held: bool,
}

/// Runs the attack in a sandbox of this profile. Fails where the sandbox cannot be built, or the attack did not run to its end.
pub async fn self_attack(profile: &Profile) -> Result<Vec<Probe>, Refused> {
    let source = match profile.language {
        Language::Python => include_str!("attack.py"),
        Language::Bash => include_str!("attack.sh"),
    };
    let program = Program { source: source.to_owned(), files: Vec::new() };
    let outcome = run(profile, program, std::future::pending()).await?;
    let probes: Vec<Probe> = outcome.stdout.text.lines().filter_map(read).collect();
    // Each is a call at the beginning of a line: one that is missing was not tried.
    let written = source.lines().filter(|line| is_probe(line)).count();
    if probes.len() < written {
        let why = format!("{} of {written} probes ran: {}", probes.len(), outcome.stderr.text.trim());
        return Err(Refused::new("self_attack", why));
    }
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
