//! `[agents]`: the OAuth clients that may act as agents.

use std::collections::BTreeSet;

use ringfence_actions::file::Table;
use ringfence_core::{Place, Problem};
use ringfence_identity::KnownAgents;
use toml::Spanned;

use super::{PROJECT_FILE, section};

pub(super) fn agents(root: Option<&mut Table<'_>>, problems: &mut Vec<Problem>) -> KnownAgents {
    let mut table = section(root, "agents", problems);
    let known = table.as_mut().and_then(|table| table.take::<Vec<String>>("known", problems));
    let unknown = table.as_mut().and_then(|table| table.take::<String>("unknown", problems));
    let known: BTreeSet<String> = known.map(Spanned::into_inner).unwrap_or_default().into_iter().collect();
    let mut accepts = false;
    if let (Some(table), Some(unknown)) = (&table, unknown) {
        match unknown.get_ref().as_str() {
            "refuse" => {}
            "accept" if known.is_empty() => accepts = true,
            "accept" => {
                let what = "`unknown = \"accept\"` makes `known` say nothing";
                problems.push(Problem::error(table.place_of(&unknown), what, "leave one of them out"));
            }
            other => {
                let what = format!("`unknown` is `{other}`");
                let instead = "write `refuse`, or `accept`: any client of a trusted issuer is an agent then";
                problems.push(Problem::error(table.place_of(&unknown), what, instead));
            }
        }
    }
    if let Some(table) = table {
        table.finish(problems);
    }
    if accepts {
        return KnownAgents::Any;
    }
    if known.is_empty() {
        let what = "no OAuth client is known, so every agent is refused";
        let instead = "add `[agents]` with `known = [\"CLIENT-ID\"]`, the `client_id` in the tokens of each agent; or `unknown = \"accept\"`";
        problems.push(Problem::warn(Place::start(PROJECT_FILE), what, instead));
    }
    KnownAgents::Only(known)
}
