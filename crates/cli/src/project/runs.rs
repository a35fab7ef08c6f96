//! `[applications]` and `[runs]`: who may start runs for users, and how long runs live.

use std::collections::{BTreeMap, BTreeSet};

use ringfence_actions::file::Table;
use ringfence_core::{AgentId, Problem};
use ringfence_gateway::RunLimits;
use toml::Spanned;

use super::section;

/// How long a run may live or be idle, in seconds: a minute to a week.
const SECONDS: std::ops::RangeInclusive<u64> = 60..=604_800;

/// The applications of a project, each with its agents, by their OAuth clients.
pub(super) fn applications(
    root: Option<&mut Table<'_>>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<AgentId, BTreeSet<AgentId>> {
    let mut applications = BTreeMap::new();
    let tables = section(root, "applications", problems).map(|mut table| table.tables(problems));
    for (name, mut table) in tables.unwrap_or_default() {
        let place = table.place_of(&name);
        let client = table.take::<String>("client", problems);
        let client = client.map_or_else(|| name.get_ref().clone(), Spanned::into_inner);
        let agents = table.require::<Vec<String>>("agents", problems);
        let mut client_id = |text: String| {
            AgentId::new(text)
                .map_err(|bad| {
                    problems.push(Problem::error(place.clone(), bad.to_string(), "write its OAuth client"));
                })
                .ok()
        };
        let agents: BTreeSet<AgentId> =
            agents.into_iter().flat_map(Spanned::into_inner).filter_map(&mut client_id).collect();
        let client = client_id(client);
        if client.as_ref().is_some_and(|client| applications.contains_key(client)) {
            let instead = "give each application an OAuth client of its own";
            problems.push(Problem::error(place, "another application has this client", instead));
        } else if let Some(client) = client {
            applications.insert(client, agents);
        }
        table.finish(problems);
    }
    applications
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
