//! `ringfence runs`: list, show and revoke, on the project's own files: it works beside a gateway that serves, and without one.

use std::path::Path;
use std::process::ExitCode;

use jiff::Timestamp;
use owo_colors::OwoColorize as _;
use ringfence_core::{AgentId, Instant};
use ringfence_store::{NoRun, Revocation, Role, RunFilter, Runs, Scope, StoredRun};
use serde_json::json;

use crate::args::{Revoke, Runs as Command};
use crate::failure::Failure;
use crate::print;
use crate::wiring::{Addresses, Checked, agents_settings, count, now};

pub(crate) async fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::List { dir, agent, user, live, json } => {
            let runs = with_runs(&dir)?
                .list(&RunFilter { agent, subject: user, live }, now())
                .map_err(|error| unreadable(&error))?;
            list(&runs, json);
            Ok(ExitCode::SUCCESS)
        }
        Command::Show { run, project, json } => show(&run, &project.project, json),
        Command::Revoke(asked) => revoke(&asked).await,
    }
}

/// The runs of a project that has some. Looking for them makes none.
fn with_runs(dir: &Path) -> Result<Runs, Failure> {
    let checked = Checked::read(dir)?;
    Runs::open_existing(&checked.project.journal.folder).map_err(Failure::of)
}

fn list(runs: &[StoredRun], as_json: bool) {
    for run in runs {
        if as_json { print::json_line(&value(run)) } else { anstream::println!("{}", line(run)) }
    }
    if runs.is_empty() && !as_json {
        anstream::println!("no runs");
    }
}

fn show(run: &str, dir: &Path, as_json: bool) -> Result<ExitCode, Failure> {
    let found = with_runs(dir)?.find(run).map_err(|error| unreadable(&error))?;
    let found = found.ok_or_else(|| unknown(run))?;
    if as_json {
        print::json(&value(&found));
        return Ok(ExitCode::SUCCESS);
    }
    anstream::println!("{}", line(&found));
    for (name, text) in [("request", &found.terms.request), ("purpose", &found.terms.purpose)] {
        if let Some(text) = text {
            anstream::println!("  {name}: {}", print::harmless(text));
        }
    }
    if let Some(tools) = &found.terms.tools {
        let names: Vec<&str> = tools.iter().map(ringfence_core::ToolName::as_str).collect();
        anstream::println!("  tools: {}", names.join(", "));
    }
    if let Some(max) = found.terms.calls_max {
        anstream::println!("  calls: {} of {max}", found.calls);
    }
    anstream::println!("  what it did: ringfence journal show --run {run}");
    Ok(ExitCode::SUCCESS)
}

async fn revoke(asked: &Revoke) -> Result<ExitCode, Failure> {
    let checked = Checked::read(&asked.project.project)?;
    let scope = scope(asked, &checked)?;
    let runs = Runs::open_existing(&checked.project.journal.folder).map_err(Failure::of)?;
    let by = format!("the command line, uid {}", rustix::process::getuid().as_raw());
    let revocation = Revocation { scope: &scope, by: &by, reason: &asked.reason };
    let at = now();
    let revoked = runs.revoke(&revocation, at).map_err(|error| match (error, &scope) {
        (NoRun::Unknown, Scope::Run(run)) => unknown(run),
        (error, _) => unreadable(&error),
    })?;
    let journal = checked.open_journal(Role::Visitor)?;
    let recorded = journal.run_revoked(&revocation, &revoked, at).await;
    journal.close(now()).await;
    recorded.map_err(|error| {
        let help = "look at the journal's disk; the revocation itself is in force";
        Failure::new(format!("it is revoked, but that could not be recorded: {error}"), help)
    })?;
    if asked.json {
        print::json(&json!({ "revoked": revoked.runs }));
    } else {
        let ended = count(revoked.runs.len(), "run");
        anstream::println!(
            "{}: {ended} ended; what belongs to them dies within a second",
            "revoked".green().bold()
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// What is to be revoked. A user is one of the project's issuer, unless another is named.
fn scope(asked: &Revoke, checked: &Checked) -> Result<Scope, Failure> {
    let Revoke { run, agent, user, issuer, .. } = asked;
    Ok(match (run, agent, user) {
        (Some(run), ..) => Scope::Run(run.clone()),
        (_, Some(agent), _) => Scope::Agent(AgentId::new(agent.clone()).map_err(Failure::of)?),
        (.., Some(subject)) => {
            let known = agents_settings(&checked.project, &Addresses::declared(&checked.project)).issuers;
            let issuer = match (issuer, known.as_slice()) {
                (Some(issuer), _) => issuer.clone(),
                (None, [only]) => only.clone(),
                (None, several) => {
                    let help = format!("add `--issuer` with one of {}", several.join(", "));
                    return Err(Failure::new("users of several issuers can have this name", help));
                }
            };
            Scope::User { issuer, subject: subject.clone() }
        }
        _ => Scope::Everything,
    })
}

fn unknown(run: &str) -> Failure {
    Failure::new(format!("there is no run `{run}`"), "run `ringfence runs list` for their names")
}

fn unreadable(error: &NoRun) -> Failure {
    Failure::new(error.to_string(), "look at `runs.db` in the journal's folder")
}

fn state(run: &StoredRun) -> String {
    match run.ended {
        Some((_, ending)) => json!(ending).as_str().unwrap_or_default().to_owned(),
        None if run.expires <= now() => "expired".to_owned(),
        None => "live".to_owned(),
    }
}

fn value(run: &StoredRun) -> serde_json::Value {
    let mut value = json!(run);
    if let Some(fields) = value.as_object_mut() {
        fields.insert("state".into(), state(run).into());
    }
    value
}

/// One run in one line: its name, how it stands, since when and until when, who acts for whom.
fn line(run: &StoredRun) -> String {
    let started_by = run.terms.application.as_ref().map(|application| format!("  started by {application}"));
    let line = format!(
        "{}  {:8}{}  until {}  {} for {}{}",
        run.id,
        state(run),
        time(run.started),
        time(run.expires),
        run.agent,
        run.subject,
        started_by.unwrap_or_default()
    );
    print::harmless(&line)
}

fn time(at: Instant) -> String {
    let at = i64::try_from(at.0).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    at.map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()).unwrap_or_default()
}
