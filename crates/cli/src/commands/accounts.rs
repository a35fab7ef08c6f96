//! `ringfence accounts`: which users have connected accounts, and the end of a connection.

use std::path::Path;
use std::process::ExitCode;

use ringfence_store::Grants;
use serde_json::json;

use super::verdict;
use crate::args::Accounts;
use crate::failure::Failure;
use crate::print;
use crate::project::Project;

pub(crate) fn run(command: Accounts) -> Result<ExitCode, Failure> {
    match command {
        Accounts::List { dir, json } => list(&dir, json),
        Accounts::Disconnect { user, system, project } => disconnect(&project.project, &user, &system),
    }
}

fn list(dir: &Path, as_json: bool) -> Result<ExitCode, Failure> {
    let listed = match grants(dir)? {
        Some(grants) => grants.list().map_err(Failure::of)?,
        None => Vec::new(),
    };
    if as_json {
        print::json(&json!({ "accounts": listed }));
        return Ok(ExitCode::SUCCESS);
    }
    for grant in &listed {
        let at = i64::try_from(grant.connected_at.0)
            .ok()
            .and_then(|at| jiff::Timestamp::from_millisecond(at).ok());
        let at = at.map(|at| at.to_string()).unwrap_or_default();
        let [system, subject, issuer] =
            [&grant.system, &grant.subject, &grant.issuer].map(|text| print::harmless(text));
        anstream::println!("{system}  {subject} ({issuer})  since {at}");
    }
    if listed.is_empty() {
        anstream::println!("no accounts are connected");
    }
    Ok(ExitCode::SUCCESS)
}

fn disconnect(dir: &Path, user: &str, system: &str) -> Result<ExitCode, Failure> {
    let removed = match grants(dir)? {
        Some(grants) => grants.disconnect(user, system).map_err(Failure::of)?,
        None => 0,
    };
    let (user, system) = (print::harmless(user), print::harmless(system));
    if removed == 0 {
        anstream::println!("`{user}` has no account connected for `{system}`");
    } else {
        anstream::println!(
            "the account of `{user}` for `{system}` is disconnected; no call uses it any more"
        );
    }
    Ok(verdict(removed > 0))
}

/// What is there already: looking makes nothing.
fn grants(dir: &Path) -> Result<Option<Grants>, Failure> {
    let folder = Project::read(dir)?.journal.folder;
    if !folder.join("grants.db").exists() {
        return Ok(None);
    }
    Grants::open(&folder).map(Some).map_err(Failure::of)
}
