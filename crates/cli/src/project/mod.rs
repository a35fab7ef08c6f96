//! A project on disk: `ringfence.toml`, the users file, the tool files and the policies, read and checked as one.

mod agents;
mod clients;
mod credential;
mod host;
mod identity;
mod issuers;
mod postgres;
mod remote;
mod runs;
mod sandbox;
mod server;
mod systems;
mod tls;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ringfence_actions::file::Table;
use ringfence_actions::{File, SystemKind};
use ringfence_core::{Level, Place, Problem, SystemName};
use ringfence_gateway::{ApplicationRule, RunLimits};
use ringfence_identity::KnownAgents;
use toml::Spanned;

pub(crate) use credential::{ClientDeclaration, CredentialDeclaration, CredentialWay, LoginDeclaration};
pub(crate) use host::{HostDeclaration, HostProject};
pub(crate) use identity::{IdentityDeclaration, IssuerSource, users_now};
pub(crate) use issuers::IssuerDeclaration;
pub(crate) use postgres::PostgresDeclaration;
pub(crate) use remote::RemoteDeclaration;
pub(crate) use sandbox::{SandboxDeclaration, SecretSource};
pub(crate) use server::Server;
pub(crate) use systems::{System, SystemDeclaration, exchange_audiences};

use crate::failure::Failure;

/// The name of the file that makes a folder a project.
pub(crate) const PROJECT_FILE: &str = "ringfence.toml";

/// A project as its files declare it, with every problem that was found on the way.
pub(crate) struct Project {
    pub(crate) folder: PathBuf,
    /// The text of `ringfence.toml`.
    pub(crate) text: String,
    pub(crate) server: Server,
    pub(crate) identity: IdentityDeclaration,
    pub(crate) agents: KnownAgents,
    pub(crate) journal: JournalDeclaration,
    /// Who may start runs.
    pub(crate) applications: Vec<ApplicationRule>,
    pub(crate) run_limits: RunLimits,
    /// The gateway's own client at the issuer, for people's browsers.
    pub(crate) login: Option<LoginDeclaration>,
    /// Seals the accounts that users connect.
    pub(crate) accounts_key: Option<SecretSource>,
    pub(crate) systems: BTreeMap<SystemName, System>,
    pub(crate) tool_files: Vec<TextFile>,
    pub(crate) policy_files: Vec<TextFile>,
    pub(crate) problems: Vec<Problem>,
}

/// A file with its name as problems show it.
pub(crate) struct TextFile {
    pub(crate) name: String,
    pub(crate) text: String,
}

#[derive(Clone)]
pub(crate) struct JournalDeclaration {
    pub(crate) folder: PathBuf,
    pub(crate) head: PathBuf,
}

impl Project {
    /// Reads all files of a project. Only what keeps them from being read at all is a failure; the rest are problems.
    pub(crate) fn read(folder: &Path) -> Result<Self, Failure> {
        let text = read_text(&folder.join(PROJECT_FILE)).map_err(|error| not_a_project(folder, &error))?;
        let mut problems = Vec::new();
        let file = File { name: PROJECT_FILE, text: &text };
        let mut root = file.parse(&mut problems);
        let server = server::server(root.as_mut(), &mut problems);
        let identity = identity::identity(folder, root.as_mut(), &mut problems);
        let agents = agents::agents(root.as_mut(), &mut problems);
        let journal = journal(folder, root.as_mut(), &mut problems);
        let applications = runs::applications(root.as_mut(), &identity.issuers(), &mut problems);
        runs::check_operator_clients(&identity.operator_clients, &applications, &agents, &mut problems);
        let run_limits = runs::limits(root.as_mut(), &mut problems);
        let login = section(root.as_mut(), "login", &mut problems)
            .and_then(|table| credential::login(folder, table, &mut problems));
        let accounts_key = accounts_key(folder, root.as_mut(), &mut problems);
        let systems = systems::systems(folder, root.as_mut(), &mut problems);
        if let Some(root) = root {
            root.finish(&mut problems);
        }
        Ok(Self {
            folder: folder.to_owned(),
            text,
            server,
            identity,
            agents,
            journal,
            applications,
            run_limits,
            login,
            accounts_key,
            systems,
            tool_files: texts(folder, "tools", "toml", &mut problems)?,
            policy_files: texts(folder, "policies", "cedar", &mut problems)?,
            problems,
        })
    }

    /// The kind of each system, as tool files need it.
    pub(crate) fn kinds(&self) -> BTreeMap<SystemName, SystemKind> {
        self.systems.iter().map(|(name, system)| (name.clone(), system.declaration.kind())).collect()
    }

    /// Whether any problem keeps it from being served.
    pub(crate) fn has_errors(&self) -> bool {
        self.problems.iter().any(|problem| problem.level == Level::Error)
    }
}

fn read_text(path: &Path) -> std::io::Result<String> {
    std::fs::read_to_string(path)
}

fn not_a_project(folder: &Path, error: &std::io::Error) -> Failure {
    let path = folder.join(PROJECT_FILE);
    let help = match error.kind() {
        std::io::ErrorKind::NotFound => {
            format!("run `ringfence init {}` to make a project there", folder.display())
        }
        std::io::ErrorKind::PermissionDenied => format!("make `{}` readable for this user", path.display()),
        _ => "name a folder that holds a project".to_owned(),
    };
    Failure::new(format!("`{}` cannot be read: {error}", path.display()), help)
}

/// The files of a sub-folder with this ending, in the order of their names. A file that is not read might hold a forbid, so
/// whatever else is there is an error; hidden files alone are left out.
fn texts(
    folder: &Path,
    name: &str,
    ending: &str,
    problems: &mut Vec<Problem>,
) -> Result<Vec<TextFile>, Failure> {
    let path = folder.join(name);
    let unreadable = |error: std::io::Error| {
        Failure::new(
            format!("`{}` cannot be read: {error}", path.display()),
            format!("make the folder `{name}`, readable for this user"),
        )
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&path).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let file_name = entry.file_name().to_string_lossy().into_owned();
        if file_name.starts_with('.') {
            continue;
        }
        let place = Place::start(&format!("{name}/{file_name}"));
        if !file_name.ends_with(&format!(".{ending}")) {
            let instead =
                format!("end its name in `.{ending}`, put it directly into `{name}`, or move it away");
            problems.push(Problem::error(place, "this is not read", instead));
            continue;
        }
        match read_text(&entry.path()) {
            Ok(text) => files.push(TextFile { name: file_name, text }),
            Err(error) => {
                let what = format!("this cannot be read: {error}");
                problems.push(Problem::error(place, what, "make it a text file, readable for this user"));
            }
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    if files.is_empty() {
        let place = Place::start(name);
        problems.push(Problem::warn(
            place,
            format!("there is no `{name}/*.{ending}`"),
            "as it stands, agents can do nothing",
        ));
    }
    Ok(files)
}

fn section<'a>(
    root: Option<&mut Table<'a>>,
    name: &'static str,
    problems: &mut Vec<Problem>,
) -> Option<Table<'a>> {
    let root = root?;
    root.has(name).then(|| root.table(name, problems)).flatten()
}

fn accounts_key(
    folder: &Path,
    root: Option<&mut Table<'_>>,
    problems: &mut Vec<Problem>,
) -> Option<SecretSource> {
    let mut table = section(root, "accounts", problems)?;
    let key = credential::secret_source(folder, &mut table, "key", problems);
    table.finish(problems);
    key
}

fn journal(folder: &Path, root: Option<&mut Table<'_>>, problems: &mut Vec<Problem>) -> JournalDeclaration {
    let mut table = section(root, "journal", problems);
    let mut path = |key: &'static str, otherwise: &str| {
        let given = table.as_mut().and_then(|table| table.take::<String>(key, problems));
        folder.join(given.map_or_else(|| otherwise.to_owned(), Spanned::into_inner))
    };
    let declaration =
        JournalDeclaration { folder: path("folder", "state"), head: path("head", "state/journal.head") };
    if let Some(table) = table {
        table.finish(problems);
    }
    declaration
}
