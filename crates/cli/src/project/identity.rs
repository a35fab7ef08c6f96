//! `[identity]`: who issues the tokens, and who the users of the development issuer are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;

use ringfence_actions::File;
use ringfence_actions::file::Table;
use ringfence_core::{AgentId, GroupName, Place, Problem};
use ringfence_identity::development::{Client, User};
use ringfence_identity::{GroupsClaim, ProofRule};
use toml::Spanned;

use super::issuers::{IssuerDeclaration, issuers};
use super::server::address;
use super::{PROJECT_FILE, clients, read_text, section};

#[derive(Clone)]
pub(crate) struct IdentityDeclaration {
    pub(crate) source: IssuerSource,
    pub(crate) groups_claim: GroupsClaim,
    pub(crate) scopes: Vec<String>,
    /// Whether tokens have to be bound to a key.
    pub(crate) proofs: ProofRule,
    /// Whoever may look at the people's door.
    pub(crate) operators: Option<GroupName>,
    /// The OAuth clients that they come by.
    pub(crate) operator_clients: BTreeSet<AgentId>,
}

impl IdentityDeclaration {
    /// The issuers that the project trusts, but for the development issuer.
    pub(super) fn issuers(&self) -> Vec<String> {
        match &self.source {
            IssuerSource::Development(_) => Vec::new(),
            IssuerSource::External(declared) => declared.iter().map(|issuer| issuer.issuer.clone()).collect(),
        }
    }
}

#[derive(Clone)]
pub(crate) enum IssuerSource {
    /// The built-in issuer for development, on loopback.
    Development(DevelopmentDeclaration),
    /// Real ones.
    External(Vec<IssuerDeclaration>),
}

#[derive(Clone)]
pub(crate) struct DevelopmentDeclaration {
    pub(crate) listen: SocketAddr,
    /// The name of the users file.
    pub(crate) users_file: String,
    pub(crate) users: BTreeMap<String, User>,
    pub(crate) clients: Vec<Client>,
    /// Whether clients may register themselves.
    pub(crate) dynamic_registration: bool,
    /// Whether clients may be the address of a document about themselves.
    pub(crate) client_documents: bool,
}

pub(super) fn identity(
    folder: &Path,
    root: Option<&mut Table<'_>>,
    problems: &mut Vec<Problem>,
) -> IdentityDeclaration {
    let missing = root.is_some();
    let mut table = section(root, "identity", problems);
    let mut text = |key: &'static str| table.as_mut().and_then(|table| table.take::<String>(key, problems));
    let groups_claim = text("groups-claim").map_or_else(|| "groups".to_owned(), Spanned::into_inner);
    let operators = text("operators").map_or_else(|| "operators".to_owned(), Spanned::into_inner);
    let scopes = table.as_mut().and_then(|table| table.take::<Vec<String>>("scopes", problems));
    let clients = table.as_mut().and_then(|table| table.take::<Vec<String>>("operator-clients", problems));
    let mut says = |key: &'static str| {
        let said = table.as_mut().and_then(|table| table.take::<bool>(key, problems));
        said.is_some_and(Spanned::into_inner)
    };
    let groups_claim = GroupsClaim { name: groups_claim, optional: says("groups-optional") };
    let proofs = if says("require-dpop") { ProofRule::Always } else { ProofRule::WhereBound };
    let source = match table.as_mut() {
        Some(table) => source(folder, table, &groups_claim, problems),
        None => None,
    };
    if table.is_none() && missing {
        let instead = "add `[identity]` with `development-issuer = true`, or with `issuer = \"https://…\"`";
        problems.push(Problem::error(Place::start(PROJECT_FILE), "`[identity]` is missing", instead));
    }
    let is_development = matches!(source, Some(IssuerSource::Development(_)));
    // `ringfence token` mints for this one where nobody says otherwise.
    let usual = || if is_development { vec!["ringfence-cli".to_owned()] } else { Vec::new() };
    let operator_clients = clients.map_or_else(usual, Spanned::into_inner).into_iter().filter_map(|client| {
        AgentId::new(client)
            .map_err(|bad| {
                let instead = "write OAuth clients in `operator-clients`";
                problems.push(Problem::error(Place::start(PROJECT_FILE), bad.to_string(), instead));
            })
            .ok()
    });
    let operator_clients = operator_clients.collect();
    let operators = GroupName::new(operators).map_err(|bad| {
        problems.push(Problem::error(Place::start(PROJECT_FILE), bad.to_string(), "correct `operators`"));
    });
    if let Some(table) = table {
        table.finish(problems);
    }
    let nobody = || {
        IssuerSource::Development(DevelopmentDeclaration {
            listen: ([127, 0, 0, 1], 8789).into(),
            users_file: String::new(),
            users: BTreeMap::new(),
            clients: Vec::new(),
            dynamic_registration: false,
            client_documents: false,
        })
    };
    IdentityDeclaration {
        source: source.unwrap_or_else(nobody),
        groups_claim,
        scopes: scopes.map_or_else(|| vec!["tools".to_owned()], Spanned::into_inner),
        proofs,
        operators: operators.ok(),
        operator_clients,
    }
}

fn source(
    folder: &Path,
    table: &mut Table<'_>,
    groups: &GroupsClaim,
    problems: &mut Vec<Problem>,
) -> Option<IssuerSource> {
    let development = table.take::<bool>("development-issuer", problems).is_some_and(Spanned::into_inner);
    if development {
        let listen = address(Some(table), "development-listen", ([127, 0, 0, 1], 8789).into(), problems);
        if !listen.ip().is_loopback() {
            let what = "the development issuer would listen beyond loopback";
            problems.push(Problem::error(
                table.place(),
                what,
                "write a loopback address: anyone who reaches it can be anyone",
            ));
        }
        let users_file = table.require::<String>("users", problems)?;
        let users = users_of(folder, users_file.get_ref(), &table.place_of(&users_file), problems);
        let clients = clients::clients(folder, table, &users, problems);
        let mut is_on =
            |key: &'static str| table.take::<bool>(key, problems).is_some_and(Spanned::into_inner);
        return Some(IssuerSource::Development(DevelopmentDeclaration {
            listen,
            users_file: users_file.into_inner(),
            users,
            clients,
            dynamic_registration: is_on("development-registration"),
            client_documents: is_on("development-client-documents"),
        }));
    }
    Some(IssuerSource::External(issuers(folder, table, groups, problems)))
}

/// The users of this file as it stands now; `None` where it cannot be read, or anything is wrong with it.
pub(crate) fn users_now(folder: &Path, name: &str) -> Option<BTreeMap<String, User>> {
    let mut problems = Vec::new();
    let users = users_of(folder, name, &Place::start(PROJECT_FILE), &mut problems);
    problems.is_empty().then_some(users)
}

fn users_of(folder: &Path, name: &str, place: &Place, problems: &mut Vec<Problem>) -> BTreeMap<String, User> {
    let text = match read_text(&folder.join(name)) {
        Ok(text) => text,
        Err(error) => {
            let what = format!("`{name}` cannot be read: {error}");
            problems.push(Problem::error(
                place.clone(),
                what,
                "make the file, with one `[NAME]` for each user",
            ));
            return BTreeMap::new();
        }
    };
    let file = File { name, text: &text };
    let Some(mut root) = file.parse(problems) else { return BTreeMap::new() };
    let tables = root.tables(problems);
    tables.into_iter().map(|(name, table)| user(name.into_inner(), table, problems)).collect()
}

fn user(name: String, mut table: Table<'_>, problems: &mut Vec<Problem>) -> (String, User) {
    let groups = table.take::<Vec<String>>("groups", problems);
    let mut check_group = |group: &String| {
        if let Err(bad) = GroupName::new(group.clone()) {
            problems.push(Problem::error(table.place(), bad.to_string(), "rename the group"));
        }
    };
    let groups = groups.map(Spanned::into_inner).unwrap_or_default();
    groups.iter().for_each(&mut check_group);
    let claims = table.has("claims").then(|| table.table("claims", problems)).flatten();
    let claims = claims.map(|claims| claims.values(problems)).unwrap_or_default();
    let disabled = table.take::<bool>("disabled", problems).is_some_and(Spanned::into_inner);
    table.finish(problems);
    (name, User { groups, claims, disabled })
}
