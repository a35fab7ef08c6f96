//! The sandbox attacks itself, before anyone else does: a short program that tries a little of everything. What it reaches is
//! a hole in this machine's enforcement, whatever the layers said when they were put up.

use std::sync::Arc;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::{Language, Program, Refused, Sandbox, Unwatched};

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
