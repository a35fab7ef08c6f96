//! The issuers that a project trusts: one in `[identity]` itself, or several in `[[identity.issuers]]`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ringfence_actions::file::Table;
use ringfence_core::{Place, Problem};
use ringfence_identity::{BadUrl, Endpoint, GroupsClaim, KeyTimes, SigningAlgorithm};
use toml::Spanned;

/// What the longest life of a token may be set to, in seconds: a minute to a day.
const LIFETIME_SECONDS: std::ops::RangeInclusive<u64> = 60..=86_400;
/// What `token-type` says where tokens say nothing themselves.
const OPAQUE: &str = "opaque";

/// An issuer as it was declared. Its URLs may be asked.
#[derive(Clone)]
pub(crate) struct IssuerDeclaration {
    pub(crate) issuer: String,
    /// Its key set, where that is named.
    pub(crate) jwks: Option<Endpoint>,
    /// The issuer itself, where its key set is to be found.
    pub(crate) discovery: Option<Endpoint>,
    pub(crate) algorithms: Vec<SigningAlgorithm>,
    pub(crate) token_type: String,
    pub(crate) lifetime_max_seconds: u64,
    pub(crate) groups: GroupsClaim,
    /// The audiences of its tokens, where they are not the URLs of the doors.
    pub(crate) agents_audience: Option<String>,
    pub(crate) people_audience: Option<String>,
    pub(crate) introspection: Option<IntrospectionDeclaration>,
    pub(crate) recheck_seconds: Option<u64>,
    pub(crate) key_times: KeyTimes,
    pub(crate) place: Place,
}

/// Where an issuer is asked about tokens.
#[derive(Clone)]
pub(crate) struct IntrospectionDeclaration {
    pub(crate) endpoint: Endpoint,
    pub(crate) client_id: String,
    pub(crate) client_secret_file: PathBuf,
    pub(crate) cache_seconds: u64,
}

impl IssuerDeclaration {
    /// Whether its tokens say nothing themselves.
    pub(crate) fn is_opaque(&self) -> bool {
        self.token_type == OPAQUE
    }
}

/// All that `[identity]` trusts beside a development issuer.
pub(super) fn issuers(
    folder: &Path,
    table: &mut Table<'_>,
    groups: &GroupsClaim,
    problems: &mut Vec<Problem>,
) -> Vec<IssuerDeclaration> {
    let listed = table.list_of_tables("issuers", problems);
    if listed.is_empty() {
        return issuer(folder, table, groups.clone(), problems).into_iter().collect();
    }
    if table.has("issuer") {
        let what = "`issuer` and `[[identity.issuers]]` are both there";
        problems.push(Problem::error(
            table.place(),
            what,
            "move the one issuer into a list entry of its own",
        ));
    }
    let read = listed.into_iter().filter_map(|mut listed| {
        let groups = groups_claim(&mut listed, groups, problems);
        let declared = issuer(folder, &mut listed, groups, problems);
        listed.finish(problems);
        declared
    });
    let read: Vec<IssuerDeclaration> = read.collect();
    check_apart(&read, problems);
    read
}

/// A token must lead to one issuer, by its `iss` or by having none.
fn check_apart(issuers: &[IssuerDeclaration], problems: &mut Vec<Problem>) {
    let mut names = BTreeSet::new();
    for declared in issuers.iter().filter(|declared| !names.insert(declared.issuer.as_str())) {
        let what = format!("`{}` is trusted twice", declared.issuer);
        problems.push(Problem::error(declared.place.clone(), what, "leave one of them out"));
    }
    for declared in issuers.iter().filter(|declared| declared.is_opaque()).skip(1) {
        let what = "a second issuer has opaque tokens, which do not say whose they are";
        let instead =
            "let one issuer at most have `token-type = \"opaque\"`: a token goes to its own issuer alone";
        problems.push(Problem::error(declared.place.clone(), what, instead));
    }
}

fn groups_claim(table: &mut Table<'_>, otherwise: &GroupsClaim, problems: &mut Vec<Problem>) -> GroupsClaim {
    let name = table.take::<String>("groups-claim", problems).map(Spanned::into_inner);
    let optional = table.take::<bool>("groups-optional", problems).map(Spanned::into_inner);
    GroupsClaim {
        name: name.unwrap_or_else(|| otherwise.name.clone()),
        optional: optional.unwrap_or(otherwise.optional),
    }
}

fn issuer(
    folder: &Path,
    table: &mut Table<'_>,
    groups: GroupsClaim,
    problems: &mut Vec<Problem>,
) -> Option<IssuerDeclaration> {
    let place = table.place();
    let issuer = table.require::<String>("issuer", problems);
    let is_internal = table.take::<bool>("internal", problems).is_some_and(Spanned::into_inner);
    let reach: Reach = if is_internal { Endpoint::internal } else { Endpoint::new };
    let jwks = table.take::<String>("jwks", problems);
    let discovery = issuer.as_ref().filter(|_| jwks.is_none());
    let discovery = discovery.and_then(|text| endpoint(table, text, reach, problems));
    let jwks = jwks.and_then(|text| endpoint(table, &text, reach, problems));
    let algorithms = algorithms(table, problems);
    let token_type = table.take::<String>("token-type", problems).map(Spanned::into_inner);
    let lifetime = table.take::<u64>("lifetime-max-seconds", problems);
    let lifetime_max_seconds = lifetime.map_or(3600, |lifetime| lifetime_within(table, &lifetime, problems));
    let (agents_audience, people_audience) = audiences(table, problems);
    let introspection = table.table("introspection", problems);
    let introspection = introspection.and_then(|table| asked(folder, table, reach, problems));
    let recheck_seconds = table.number("recheck-seconds", 1..=3600, problems);
    let refresh_seconds = table.number("keys-refresh-seconds", 30..=86_400, problems);
    let stale_max_seconds = table.number("keys-stale-max-seconds", 0..=604_800, problems);
    let default = KeyTimes::default();
    let declared = IssuerDeclaration {
        issuer: issuer?.into_inner(),
        jwks,
        discovery,
        algorithms,
        token_type: token_type.unwrap_or_else(|| "at+jwt".to_owned()),
        lifetime_max_seconds,
        groups,
        agents_audience,
        people_audience,
        introspection,
        recheck_seconds,
        key_times: KeyTimes {
            refresh_seconds: refresh_seconds.unwrap_or(default.refresh_seconds),
            stale_max_seconds: stale_max_seconds.unwrap_or(default.stale_max_seconds),
        },
        place,
    };
    check_asking(&declared, problems);
    Some(declared)
}

/// Which URLs of an issuer may be asked.
type Reach = fn(&str) -> Result<Endpoint, BadUrl>;

fn endpoint(
    table: &Table<'_>,
    text: &Spanned<String>,
    reach: Reach,
    problems: &mut Vec<Problem>,
) -> Option<Endpoint> {
    let made = reach(text.get_ref());
    let refuse = |bad: BadUrl| {
        problems.push(Problem::error(table.place_of(text), bad.to_string(), "correct the URL"));
    };
    made.map_err(refuse).ok()
}

fn check_asking(declared: &IssuerDeclaration, problems: &mut Vec<Problem>) {
    let needs = |key: &str| {
        let instead = "add `introspection = { endpoint = \"https://…\", client-id = \"…\", client-secret-file = \"…\" }`";
        Problem::error(declared.place.clone(), format!("{key} needs `introspection`"), instead)
    };
    match (&declared.introspection, declared.is_opaque(), declared.recheck_seconds) {
        (None, true, _) => problems.push(needs("`token-type = \"opaque\"`")),
        (None, false, Some(_)) => problems.push(needs("`recheck-seconds`")),
        (Some(_), false, None) => {
            let what = "`introspection` is never used: these tokens are signed";
            let instead = "add `recheck-seconds`, so that a user who is disabled loses access; or write `token-type = \"opaque\"`";
            problems.push(Problem::error(declared.place.clone(), what, instead));
        }
        (Some(_), true, Some(_)) => {
            let what = "`recheck-seconds` is for signed tokens";
            problems.push(Problem::error(declared.place.clone(), what, "write `cache-seconds` instead"));
        }
        _ => {}
    }
}

fn algorithms(table: &mut Table<'_>, problems: &mut Vec<Problem>) -> Vec<SigningAlgorithm> {
    let Some(names) = table.take::<Vec<String>>("algorithms", problems) else {
        return vec![SigningAlgorithm::Es256, SigningAlgorithm::EdDsa, SigningAlgorithm::Rs256];
    };
    for unknown in names.get_ref().iter().filter(|name| SigningAlgorithm::named(name).is_none()) {
        let what = format!("`{unknown}` is not an algorithm that is accepted");
        problems.push(Problem::error(table.place_of(&names), what, "write `ES256`, `EdDSA` or `RS256`"));
    }
    names.get_ref().iter().filter_map(|name| SigningAlgorithm::named(name)).collect()
}

fn lifetime_within(table: &Table<'_>, lifetime: &Spanned<u64>, problems: &mut Vec<Problem>) -> u64 {
    if !LIFETIME_SECONDS.contains(lifetime.get_ref()) {
        let (least, most) = (LIFETIME_SECONDS.start(), LIFETIME_SECONDS.end());
        let what = "`lifetime-max-seconds` is out of range";
        let instead =
            format!("write {least} to {most}: whoever steals a token can use it as long as it lives");
        problems.push(Problem::error(table.place_of(lifetime), what, instead));
    }
    *lifetime.get_ref()
}

/// `audience = { agents = "…", people = "…" }`, for an issuer that cannot name URLs. Each door has one of its own.
fn audiences(table: &mut Table<'_>, problems: &mut Vec<Problem>) -> (Option<String>, Option<String>) {
    let Some(mut audience) = table.has("audience").then(|| table.table("audience", problems)).flatten()
    else {
        return (None, None);
    };
    let agents = audience.require::<String>("agents", problems).map(Spanned::into_inner);
    let people = audience.require::<String>("people", problems).map(Spanned::into_inner);
    if agents.is_some() && agents == people {
        let what = "both doors have the same audience";
        let instead = "give each its own: a token for one would open the other";
        problems.push(Problem::error(audience.place(), what, instead));
    }
    audience.finish(problems);
    (agents, people)
}

fn asked(
    folder: &Path,
    mut table: Table<'_>,
    reach: Reach,
    problems: &mut Vec<Problem>,
) -> Option<IntrospectionDeclaration> {
    let endpoint = table.require::<String>("endpoint", problems);
    let client_id = table.require::<String>("client-id", problems);
    let secret = table.require::<String>("client-secret-file", problems);
    let cache_seconds = table.number("cache-seconds", 0..=60, problems);
    let endpoint = endpoint.and_then(|text| self::endpoint(&table, &text, reach, problems));
    table.finish(problems);
    Some(IntrospectionDeclaration {
        endpoint: endpoint?,
        client_id: client_id?.into_inner(),
        client_secret_file: folder.join(secret?.into_inner()),
        cache_seconds: cache_seconds.unwrap_or(60),
    })
}
