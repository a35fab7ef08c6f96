//! `[applications]` and `[runs]`: who may start runs for users, and how long runs live.

use std::collections::BTreeSet;

use ringfence_actions::file::Table;
use ringfence_core::{AgentId, Place, Problem};
use ringfence_gateway::{ApplicationRule, RunLimits};
use ringfence_identity::KnownAgents;
use toml::Spanned;

use super::{PROJECT_FILE, section};

/// How long a run may live or be idle, in seconds: a minute to a week.
const SECONDS: std::ops::RangeInclusive<u64> = 60..=604_800;

/// The applications of a project. `issuers` are those that it trusts, where it trusts others than the development issuer.
pub(super) fn applications(
    root: Option<&mut Table<'_>>,
    issuers: &[String],
    problems: &mut Vec<Problem>,
) -> Vec<ApplicationRule> {
    let tables = section(root, "applications", problems).map(|mut table| table.tables(problems));
    let mut applications: Vec<ApplicationRule> = Vec::new();
    for (name, table) in tables.unwrap_or_default() {
        let place = table.place_of(&name);
        let Some(application) = application(name.into_inner(), table, issuers, problems) else { continue };
        let is_known = |known: &ApplicationRule| {
            known.client == application.client && known.issuer == application.issuer
        };
        if applications.iter().any(is_known) {
            let instead = "give each application an OAuth client of its own";
            problems.push(Problem::error(place, "another application has this client", instead));
        } else {
            applications.push(application);
        }
    }
    applications
}

fn application(
    name: String,
    mut table: Table<'_>,
    issuers: &[String],
    problems: &mut Vec<Problem>,
) -> Option<ApplicationRule> {
    let place = table.place();
    let client = table.take::<String>("client", problems).map_or(name, Spanned::into_inner);
    let agents = table.require::<Vec<String>>("agents", problems);
    let issuer = table.take::<String>("issuer", problems);
    if let Some(unknown) = issuer.as_ref().filter(|issuer| !issuers.contains(issuer.get_ref())) {
        let what = format!("`{}` is no issuer of this project", unknown.get_ref());
        let instead = "write the `issuer` that vouches for the application, letter for letter";
        problems.push(Problem::error(table.place_of(unknown), what, instead));
    }
    if issuer.is_none() && issuers.len() > 1 {
        let what = "another issuer could name a client of its own like this application";
        problems.push(Problem::error(
            place.clone(),
            what,
            "add `issuer = \"…\"`: the one that vouches for it",
        ));
    }
    table.finish(problems);
    let mut client_id = |text: String| {
        AgentId::new(text)
            .map_err(|bad| {
                problems.push(Problem::error(place.clone(), bad.to_string(), "write an OAuth client"));
            })
            .ok()
    };
    let agents = agents?.into_inner().into_iter().filter_map(&mut client_id).collect();
    Some(ApplicationRule { issuer: issuer.map(Spanned::into_inner), client: client_id(client)?, agents })
}

/// That nobody who acts for users can act for an operator.
pub(super) fn check_operator_clients(
    clients: &BTreeSet<AgentId>,
    applications: &[ApplicationRule],
    known: &KnownAgents,
    problems: &mut Vec<Problem>,
) {
    for client in clients {
        let is_of_application =
            |rule: &ApplicationRule| rule.client == *client || rule.agents.contains(client);
        let is_agent = matches!(known, KnownAgents::Only(known) if known.contains(client.as_str()));
        if is_agent || applications.iter().any(is_of_application) {
            let what = format!("`{client}` is an agent or an application, and a client of operators too");
            let instead = "name a client in `operator-clients` that no agent and no application has";
            problems.push(Problem::error(Place::start(PROJECT_FILE), what, instead));
        }
    }
}

/// `[runs]`, where it says something else than the defaults.
pub(super) fn limits(root: Option<&mut Table<'_>>, problems: &mut Vec<Problem>) -> RunLimits {
    let mut limits = RunLimits::default();
    let Some(mut table) = section(root, "runs", problems) else { return limits };
    for (key, limit) in [
        ("idle-seconds", &mut limits.implicit.idle_ms),
        ("max-seconds", &mut limits.implicit.total_ms),
        ("started-max-seconds", &mut limits.started_max_ms),
    ] {
        if let Some(seconds) = table.number(key, SECONDS, problems) {
            *limit = seconds * 1000;
        }
    }
    table.finish(problems);
    limits
}
