//! `ringfence journal`: verify and show.

use std::path::Path;
use std::process::ExitCode;

use jiff::Timestamp;
use owo_colors::OwoColorize as _;
use ringfence_store::{Filter, HeadKey, Report, Shown, Span, read, verify};
use serde_json::Value;

use super::verdict;
use crate::args::Journal;
use crate::failure::Failure;
use crate::keys;
use crate::print;
use crate::private_file::PrivateFile;
use crate::project::Project;
use crate::wiring::count;

pub(crate) fn run(command: Journal) -> Result<ExitCode, Failure> {
    match command {
        Journal::Verify { dir, head, json } => run_verify(&dir, head.as_deref(), json),
        Journal::Show { dir, last, kind, tool, call, run, json } => {
            show(&dir, &Filter { last: Some(last), kind, tool, call, run }, json)
        }
    }
}

fn run_verify(dir: &Path, head: Option<&Path>, as_json: bool) -> Result<ExitCode, Failure> {
    let project = with_journal(dir)?;
    let key = PrivateFile::read(&keys::journal_key_file(&project)).map_err(Failure::of)?;
    keys::journal_key_is_there_or_not_needed(&project)?;
    let key = key.ok_or_else(|| Failure::of("the journal's key is gone; put it back"))?;
    let key = HeadKey::new(&key).map_err(Failure::of)?;
    let note = match head {
        Some(head) => Some(std::fs::read_to_string(head).map_err(|error| {
            let message = format!("the head `{}` cannot be read: {error}", head.display());
            Failure::new(message, "name the file that was kept, or leave `--head` out for the project's own")
        })?),
        // A head that is gone is a finding.
        None => std::fs::read_to_string(&project.journal.head).ok(),
    };
    let report = verify(&project.journal.folder, &key, note.as_deref());
    if as_json {
        print::json(&report);
    } else {
        show_report(&report);
    }
    Ok(verdict(report.is_sound()))
}

/// A project that has a journal. Looking for one makes none.
fn with_journal(dir: &Path) -> Result<Project, Failure> {
    let project = Project::read(dir)?;
    if project.journal.folder.join("journal.db").is_file() {
        return Ok(project);
    }
    let message = format!("there is no journal in `{}`", project.journal.folder.display());
    Err(Failure::new(message, "it begins with the first `ringfence serve` or `ringfence call`"))
}

fn show_report(report: &Report) {
    for finding in &report.findings {
        anstream::eprintln!("{} {}", "found:".red().bold(), finding.what);
    }
    let entries =
        count(usize::try_from(report.entries).unwrap_or(usize::MAX), "entry").replace("entrys", "entries");
    if report.is_sound() {
        let covered = match report.entries.saturating_sub(report.covered) {
            0 => "all covered by the signed head".to_owned(),
            young => format!(
                "but the last {young} are younger than the signed head: genuine, but more may have stood after them"
            ),
        };
        let summary = format!("{entries}, {covered}");
        anstream::println!("{}: {summary}", "the journal is what was written".green().bold());
        for Span { from, to } in &report.unsigned {
            let what =
                "were beyond the head when a crash was found: genuine, but more may have stood after them";
            anstream::println!("entries {from} to {to} {what}");
        }
    } else {
        let found = count(report.findings.len(), "finding");
        anstream::eprintln!("{}: {found} in {entries}", "the journal is not what was written".red().bold());
        let help = "keep the journal, its head and its key as they are, and compare with a copy that was kept elsewhere";
        anstream::eprintln!("{} {help}", " help:".cyan().bold());
    }
}

fn show(dir: &Path, filter: &Filter, as_json: bool) -> Result<ExitCode, Failure> {
    let project = with_journal(dir)?;
    let shown = read(&project.journal.folder, filter).map_err(|error| {
        let message =
            format!("the journal in `{}` cannot be read: {error}", project.journal.folder.display());
        Failure::new(message, "run `ringfence journal verify`")
    })?;
    for entry in &shown {
        if as_json { print::json_line(entry) } else { anstream::println!("{}", line(entry)) }
    }
    Ok(ExitCode::SUCCESS)
}

/// One entry in one line: when, what, who, which tool with what, and how it went.
fn line(entry: &Shown) -> String {
    let field = |name: &str| entry.leaf.get(name).map(plain).unwrap_or_default();
    let at = entry.leaf.get("at").and_then(Value::as_i64).and_then(|at| Timestamp::from_millisecond(at).ok());
    let at = at.map(|at| at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()).unwrap_or_default();
    let content = entry.content.as_ref();
    let who =
        content.and_then(|content| content.pointer("/principal/subject")).map(plain).unwrap_or_default();
    let arguments =
        content.and_then(|content| content.get("arguments")).map(ToString::to_string).unwrap_or_default();
    let arguments: String = arguments.chars().take(100).collect();
    let rest: Vec<String> = ["verdict", "ended", "code", "rules", "refused", "rejected"]
        .map(field)
        .into_iter()
        .filter(|text| !text.is_empty())
        .collect();
    let call = field("call");
    let call = call.get(call.len().saturating_sub(8)..).unwrap_or_default();
    let parts =
        [field("number"), at, field("kind"), call.to_owned(), who, field("tool"), arguments, rest.join(" ")];
    let line =
        parts.iter().filter(|part| !part.is_empty()).map(String::as_str).collect::<Vec<_>>().join("  ");
    print::harmless(&line)
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}
