//! `[systems]`: what the tools act on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ringfence_actions::SystemKind;
use ringfence_actions::file::Table;
use ringfence_core::{Place, Problem, SystemName};
use url::Url;

use super::credential::{self, CredentialDeclaration, CredentialWay};
use super::postgres::{self, PostgresDeclaration};
use super::sandbox::{self, SandboxDeclaration};
use super::section;
use super::server::is_loopback;

/// One `[systems.NAME]`.
pub(crate) struct System {
    pub(crate) place: Place,
    pub(crate) declaration: SystemDeclaration,
}

impl System {
    /// Whether its programs run on another machine.
    pub(crate) fn is_remote(&self) -> bool {
        matches!(&self.declaration, SystemDeclaration::Sandbox(sandbox) if sandbox.host.is_some())
    }
}

pub(crate) enum SystemDeclaration {
    Sqlite { path: PathBuf },
    Http { base_url: Url, credential: Option<Box<CredentialDeclaration>> },
    Postgres(Box<PostgresDeclaration>),
    Sandbox(Box<SandboxDeclaration>),
}

impl SystemDeclaration {
    pub(super) fn kind(&self) -> SystemKind {
        match self {
            Self::Sqlite { .. } => SystemKind::Sqlite,
            Self::Postgres(_) => SystemKind::Postgres,
            Self::Http { .. } => SystemKind::Http,
            Self::Sandbox(_) => SystemKind::Sandbox,
        }
    }
}

pub(super) fn systems(
    folder: &Path,
    root: Option<&mut Table<'_>>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<SystemName, System> {
    let Some(mut table) = section(root, "systems", problems) else { return BTreeMap::new() };
    let mut systems = BTreeMap::new();
    for (name, system) in table.tables(problems) {
        let place = table.place_of(&name);
        let name = match SystemName::new(name.into_inner()) {
            Ok(name) => name,
            Err(bad) => {
                problems.push(Problem::error(place, bad.to_string(), "rename the system"));
                continue;
            }
        };
        if let Some(declaration) = self::system(folder, system, problems) {
            systems.insert(name, System { place, declaration });
        }
    }
    systems
}

fn system(folder: &Path, mut table: Table<'_>, problems: &mut Vec<Problem>) -> Option<SystemDeclaration> {
    let kind = table.require::<String>("kind", problems)?;
    let declaration = match kind.get_ref().as_str() {
        "sqlite" => {
            let path = table.require::<String>("path", problems);
            path.map(|path| SystemDeclaration::Sqlite { path: folder.join(path.into_inner()) })
        }
        "postgres" => {
            postgres::read(folder, &mut table, problems).map(Box::new).map(SystemDeclaration::Postgres)
        }
        "http" => http(folder, &mut table, problems),
        "sandbox" => {
            sandbox::read(folder, &mut table, problems).map(Box::new).map(SystemDeclaration::Sandbox)
        }
        other => {
            let what = format!("`{other}` is not a kind of system");
            problems.push(Problem::error(
                table.place_of(&kind),
                what,
                "write `sqlite`, `postgres`, `http` or `sandbox`",
            ));
            return None;
        }
    };
    table.finish(problems);
    declaration
}

fn http(folder: &Path, table: &mut Table<'_>, problems: &mut Vec<Problem>) -> Option<SystemDeclaration> {
    let base = table.require::<String>("base-url", problems);
    let credential = credential::credential(folder, table, problems).map(Box::new);
    let base = base?;
    let parsed = Url::parse(base.get_ref()).ok();
    let sound = |url: &Url| {
        (url.scheme() == "https" || (url.scheme() == "http" && is_loopback(url)))
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    };
    let base_url = parsed.filter(sound);
    if base_url.is_none() {
        let what = format!("`{}` is not the base URL of a system", base.get_ref());
        let instead = "write `https://HOST`, without user, query or fragment; `http` is for loopback alone";
        problems.push(Problem::error(table.place_of(&base), what, instead));
    }
    Some(SystemDeclaration::Http { base_url: base_url?, credential })
}

/// The audiences that the gateway exchanges tokens for, with the scopes that each may carry.
pub(crate) fn exchange_audiences(
    systems: &BTreeMap<SystemName, System>,
) -> BTreeMap<String, BTreeSet<String>> {
    let mut audiences: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for system in systems.values() {
        let SystemDeclaration::Http { credential: Some(declared), .. } = &system.declaration else {
            continue;
        };
        if let CredentialWay::Exchange { target, scopes, .. } = &declared.way {
            audiences.entry(target.name().to_owned()).or_default().extend(scopes.iter().cloned());
        }
    }
    audiences
}
