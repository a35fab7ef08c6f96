//! `ringfence check`: everything that is wrong with a project, at once.

use std::path::PathBuf;
use std::process::ExitCode;

use owo_colors::OwoColorize as _;
use ringfence_core::Level;
use serde_json::json;

use super::verdict;
use crate::failure::Failure;
use crate::print;
use crate::wiring::{Addresses, Checked, check_keys, count, issuer};

pub(crate) async fn run(dir: PathBuf, as_json: bool) -> Result<ExitCode, Failure> {
    let mut checked = Checked::read(&dir)?;
    // A key for the moment: looking at a project leaves nothing behind.
    let key = ringfence_identity::development::new_key()
        .ok_or_else(|| Failure::new("this machine has no randomness", "try again later"))?;
    let issuer = match issuer(&checked.project, &checked.space, &Addresses::declared(&checked.project), &key)
    {
        // It refuses what is a problem of the project already.
        Err(_) if checked.project.has_errors() => None,
        made => made?,
    };
    let _proved = checked.open_systems(issuer.as_ref(), &Addresses::declared(&checked.project)).await;
    check_keys(&mut checked.project);
    let problems = &checked.project.problems;
    let of = |level| problems.iter().filter(|problem| problem.level == level).count();
    let (errors, warnings, notes) = (of(Level::Error), of(Level::Warn), of(Level::Note));
    if as_json {
        print::json(&json!({ "errors": errors, "warnings": warnings, "notes": notes, "problems": problems }));
        return Ok(verdict(errors == 0));
    }
    for problem in problems {
        print::problem(&dir, problem);
    }
    let warnings = match notes {
        0 => count(warnings, "warning"),
        _ => format!("{}, {}", count(warnings, "warning"), count(notes, "note")),
    };
    if errors > 0 {
        anstream::eprintln!("{}: {}, {warnings}", "not in order".red().bold(), count(errors, "error"));
    } else {
        let (tools, policies) = (checked.space.tools().len(), checked.project.policy_files.len());
        let summary = format!("{}, {}, {warnings}", count(tools, "tool"), count(policies, "policy file"));
        anstream::println!("{}: {summary}", "in order".green().bold());
    }
    Ok(verdict(errors == 0))
}
