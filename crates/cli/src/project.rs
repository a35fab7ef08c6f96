//! A project on disk: `ringfence.toml`, the users file, the tool files and the policies, read and checked as one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ringfence_actions::file::{Bytes, Table};
use ringfence_actions::{File, SystemKind};
use ringfence_core::{GroupName, Level, Place, Problem, SystemName};
use ringfence_identity::GroupsClaim;
use ringfence_sandbox::Language;
use toml::Spanned;
use url::Url;

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
    pub(crate) journal: JournalDeclaration,
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
pub(crate) struct Server {
    pub(crate) listen: SocketAddr,
    pub(crate) control: SocketAddr,
    /// The agents' door as clients reach it, where that is not its address.
    pub(crate) public_url: Option<String>,
    /// The people's door as browsers reach it, where that is not its address.
    pub(crate) control_url: Option<String>,
    pub(crate) allowed_origins: Vec<String>,
}

#[derive(Clone)]
pub(crate) struct IdentityDeclaration {
    pub(crate) source: IssuerSource,
    pub(crate) groups_claim: GroupsClaim,
    pub(crate) scopes: Vec<String>,
    /// Whoever may look at the people's door.
    pub(crate) operators: Option<GroupName>,
}

#[derive(Clone)]
pub(crate) enum IssuerSource {
    /// The built-in issuer for development, on loopback.
    Development { listen: SocketAddr, users: Vec<User> },
    /// A real one.
    External {
        issuer: String,
        jwks: String,
        algorithms: Vec<String>,
        token_type: String,
        lifetime_max_seconds: u64,
    },
}

#[derive(Clone)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) groups: Vec<String>,
    pub(crate) claims: BTreeMap<String, String>,
}

#[derive(Clone)]
pub(crate) struct JournalDeclaration {
    pub(crate) folder: PathBuf,
    pub(crate) head: PathBuf,
}

/// One `[systems.NAME]`.
pub(crate) struct System {
    pub(crate) place: Place,
    pub(crate) declaration: SystemDeclaration,
}

pub(crate) enum SystemDeclaration {
    Sqlite { path: PathBuf },
    Http { base_url: Url, exchange: Option<ExchangeDeclaration> },
    Sandbox(SandboxDeclaration),
}

#[derive(Clone)]
pub(crate) struct ExchangeDeclaration {
    pub(crate) audience: String,
    pub(crate) scopes: Vec<String>,
    /// The gateway's own client at the issuer; the development issuer makes one.
    pub(crate) client_id: Option<String>,
    pub(crate) client_secret_file: Option<PathBuf>,
    pub(crate) token_endpoint: Option<String>,
}

pub(crate) struct SandboxDeclaration {
    pub(crate) language: Language,
    pub(crate) seconds: Option<u64>,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) processes: Option<u64>,
    pub(crate) output_bytes: Option<u64>,
    /// The named weaker profile: limits of each process instead of the sandbox as a whole.
    pub(crate) rlimits_only: bool,
    pub(crate) parallel_max: u64,
}

impl SystemDeclaration {
    fn kind(&self) -> SystemKind {
        match self {
            Self::Sqlite { .. } => SystemKind::Sqlite,
            Self::Http { .. } => SystemKind::Http,
            Self::Sandbox(_) => SystemKind::Sandbox,
        }
    }
}

impl Project {
    /// Reads all files of a project. Only what keeps them from being read at all is a failure; the rest are problems.
    pub(crate) fn read(folder: &Path) -> Result<Self, Failure> {
        let text = read_text(&folder.join(PROJECT_FILE)).map_err(|error| not_a_project(folder, &error))?;
        let mut problems = Vec::new();
        let file = File { name: PROJECT_FILE, text: &text };
        let mut root = file.parse(&mut problems);
        let server = server(root.as_mut(), &mut problems);
        let identity = identity(folder, root.as_mut(), &mut problems);
        let journal = journal(folder, root.as_mut(), &mut problems);
        let systems = systems(folder, root.as_mut(), &mut problems);
        if let Some(root) = root {
            root.finish(&mut problems);
        }
        Ok(Self {
            folder: folder.to_owned(),
            text,
            server,
            identity,
            journal,
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

fn server(root: Option<&mut Table<'_>>, problems: &mut Vec<Problem>) -> Server {
    let mut table = section(root, "server", problems);
    let listen = address(table.as_mut(), "listen", ([127, 0, 0, 1], 8787).into(), problems);
    let control = address(table.as_mut(), "control", ([127, 0, 0, 1], 8788).into(), problems);
    let public_url = base_url(table.as_mut(), "public-url", problems);
    let control_url = base_url(table.as_mut(), "control-url", problems);
    let origins = table.as_mut().and_then(|table| table.take::<Vec<String>>("allowed-origins", problems));
    if let Some(table) = table {
        if listen == control && listen.port() != 0 {
            let what = "`listen` and `control` are the same address";
            problems.push(Problem::error(
                table.place(),
                what,
                "give each door its own: agents must not reach the people's door",
            ));
        }
        table.finish(problems);
    }
    for (door, url, key) in [(listen, &public_url, "public-url"), (control, &control_url, "control-url")] {
        if !door.ip().is_loopback() && url.is_none() {
            let what = format!("{door} is reached from other machines, and this door speaks plain HTTP");
            let instead =
                format!("put TLS in front of it and write `{key} = \"https://…\"`, or listen on loopback");
            problems.push(Problem::error(Place::start(PROJECT_FILE), what, instead));
        }
    }
    let allowed_origins = origins.map(Spanned::into_inner).unwrap_or_default();
    Server { listen, control, public_url, control_url, allowed_origins }
}

fn address(
    table: Option<&mut Table<'_>>,
    key: &'static str,
    otherwise: SocketAddr,
    problems: &mut Vec<Problem>,
) -> SocketAddr {
    let Some(table) = table else { return otherwise };
    let Some(text) = table.take::<String>(key, problems) else { return otherwise };
    text.get_ref().parse().unwrap_or_else(|_| {
        let what = format!("`{}` is not an address", text.get_ref());
        problems.push(Problem::error(
            table.place_of(&text),
            what,
            format!("write an IP address and a port, such as `{otherwise}`"),
        ));
        otherwise
    })
}

/// A base URL without a slash at its end.
fn base_url(table: Option<&mut Table<'_>>, key: &'static str, problems: &mut Vec<Problem>) -> Option<String> {
    let table = table?;
    let text = table.take::<String>(key, problems)?;
    let parsed =
        Url::parse(text.get_ref()).ok().filter(|url| url.query().is_none() && url.fragment().is_none());
    let secure = |url: &Url| url.scheme() == "https" || (url.scheme() == "http" && is_loopback(url));
    if parsed.as_ref().is_some_and(secure) {
        return Some(text.get_ref().trim_end_matches('/').to_owned());
    }
    let what = format!("`{}` is not a base URL", text.get_ref());
    let instead = "write `https://HOST`, without query or fragment; `http` is for loopback alone";
    problems.push(Problem::error(table.place_of(&text), what, instead));
    None
}

pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

fn identity(folder: &Path, root: Option<&mut Table<'_>>, problems: &mut Vec<Problem>) -> IdentityDeclaration {
    let missing = root.is_some();
    let mut table = section(root, "identity", problems);
    let source = match table.as_mut() {
        Some(table) => issuer(folder, table, problems),
        None => None,
    };
    if table.is_none() && missing {
        let instead = "add `[identity]` with `development-issuer = true`, or with `issuer = \"https://…\"`";
        problems.push(Problem::error(Place::start(PROJECT_FILE), "`[identity]` is missing", instead));
    }
    let mut text = |key: &'static str| table.as_mut().and_then(|table| table.take::<String>(key, problems));
    let groups_claim = text("groups-claim").map_or_else(|| "groups".to_owned(), Spanned::into_inner);
    let operators = text("operators").map_or_else(|| "operators".to_owned(), Spanned::into_inner);
    let scopes = table.as_mut().and_then(|table| table.take::<Vec<String>>("scopes", problems));
    let optional = table.as_mut().and_then(|table| table.take::<bool>("groups-optional", problems));
    let operators = GroupName::new(operators).map_err(|bad| {
        problems.push(Problem::error(Place::start(PROJECT_FILE), bad.to_string(), "correct `operators`"));
    });
    if let Some(table) = table {
        table.finish(problems);
    }
    let nobody = IssuerSource::Development { listen: ([127, 0, 0, 1], 8789).into(), users: Vec::new() };
    IdentityDeclaration {
        source: source.unwrap_or(nobody),
        groups_claim: GroupsClaim { name: groups_claim, optional: optional.is_some_and(Spanned::into_inner) },
        scopes: scopes.map_or_else(|| vec!["tools".to_owned()], Spanned::into_inner),
        operators: operators.ok(),
    }
}

fn issuer(folder: &Path, table: &mut Table<'_>, problems: &mut Vec<Problem>) -> Option<IssuerSource> {
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
        let users = table.require::<String>("users", problems)?;
        let users = users_file(folder, users.get_ref(), &table.place_of(&users), problems);
        return Some(IssuerSource::Development { listen, users });
    }
    let issuer = table.require::<String>("issuer", problems)?.into_inner();
    let jwks = table.require::<String>("jwks", problems)?.into_inner();
    let algorithms = table.take::<Vec<String>>("algorithms", problems).map(Spanned::into_inner);
    let token_type = table.take::<String>("token-type", problems).map(Spanned::into_inner);
    let lifetime = table.take::<u64>("lifetime-max-seconds", problems).map(Spanned::into_inner);
    Some(IssuerSource::External {
        issuer,
        jwks,
        algorithms: algorithms.unwrap_or_else(|| vec!["ES256".into(), "EdDSA".into(), "RS256".into()]),
        token_type: token_type.unwrap_or_else(|| "at+jwt".to_owned()),
        lifetime_max_seconds: lifetime.unwrap_or(3600),
    })
}

fn users_file(folder: &Path, name: &str, place: &Place, problems: &mut Vec<Problem>) -> Vec<User> {
    let text = match read_text(&folder.join(name)) {
        Ok(text) => text,
        Err(error) => {
            let what = format!("`{name}` cannot be read: {error}");
            problems.push(Problem::error(
                place.clone(),
                what,
                "make the file, with one `[NAME]` for each user",
            ));
            return Vec::new();
        }
    };
    let file = File { name, text: &text };
    let Some(mut root) = file.parse(problems) else { return Vec::new() };
    let tables = root.tables(problems);
    tables.into_iter().map(|(name, table)| user(name.into_inner(), table, problems)).collect()
}

fn user(name: String, mut table: Table<'_>, problems: &mut Vec<Problem>) -> User {
    let groups = table.take::<Vec<String>>("groups", problems);
    let mut check_group = |group: &String| {
        if let Err(bad) = GroupName::new(group.clone()) {
            problems.push(Problem::error(table.place(), bad.to_string(), "rename the group"));
        }
    };
    let groups = groups.map(Spanned::into_inner).unwrap_or_default();
    groups.iter().for_each(&mut check_group);
    let claims = table.has("claims").then(|| table.table("claims", problems)).flatten();
    let claims = claims.map(|claims| claims.strings(problems)).unwrap_or_default();
    table.finish(problems);
    User { name, groups, claims }
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

fn systems(
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
        "http" => http(folder, &mut table, problems),
        "sandbox" => sandbox(&mut table, problems).map(SystemDeclaration::Sandbox),
        other => {
            let what = format!("`{other}` is not a kind of system");
            problems.push(Problem::error(table.place_of(&kind), what, "write `sqlite`, `http` or `sandbox`"));
            return None;
        }
    };
    table.finish(problems);
    declaration
}

fn http(folder: &Path, table: &mut Table<'_>, problems: &mut Vec<Problem>) -> Option<SystemDeclaration> {
    let base = table.require::<String>("base-url", problems);
    let credential = table.has("credential").then(|| table.table("credential", problems)).flatten();
    let exchange = credential.and_then(|credential| exchange(folder, credential, problems));
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
    Some(SystemDeclaration::Http { base_url: base_url?, exchange })
}

fn exchange(
    folder: &Path,
    mut credential: Table<'_>,
    problems: &mut Vec<Problem>,
) -> Option<ExchangeDeclaration> {
    if !credential.has("exchange") {
        let instead = "write `credential = { exchange = { audience = \"https://…\" } }`";
        problems.push(Problem::error(credential.place(), "`credential` names no way to get one", instead));
        return None;
    }
    let mut exchange = credential.table("exchange", problems)?;
    credential.finish(problems);
    let audience = exchange.require::<String>("audience", problems);
    let mut optional = |key: &'static str| exchange.take::<String>(key, problems).map(Spanned::into_inner);
    let client_id = optional("client-id");
    let client_secret_file = optional("client-secret-file").map(|file| folder.join(file));
    let token_endpoint = optional("token-endpoint");
    let scopes = exchange.take::<Vec<String>>("scopes", problems).map(Spanned::into_inner);
    exchange.finish(problems);
    Some(ExchangeDeclaration {
        audience: audience?.into_inner(),
        scopes: scopes.unwrap_or_default(),
        client_id,
        client_secret_file,
        token_endpoint,
    })
}

fn sandbox(table: &mut Table<'_>, problems: &mut Vec<Problem>) -> Option<SandboxDeclaration> {
    let language = table.require::<String>("language", problems)?;
    let language = match language.get_ref().as_str() {
        "python" => Language::Python,
        "bash" => Language::Bash,
        other => {
            let what = format!("`{other}` is not a language of the sandbox");
            problems.push(Problem::error(table.place_of(&language), what, "write `python` or `bash`"));
            return None;
        }
    };
    if let Some(egress) =
        table.take::<Vec<String>>("egress", problems).filter(|egress| !egress.get_ref().is_empty())
    {
        let what = "this version gives a sandbox no network";
        problems.push(Problem::error(table.place_of(&egress), what, "write `egress = []`"));
    }
    let rlimits_only = match table.take::<String>("resources", problems) {
        None => false,
        Some(word) if word.get_ref() == "cgroup" => false,
        Some(word) if word.get_ref() == "rlimits" => true,
        Some(word) => {
            let what = format!("`{}` is no way to limit resources", word.get_ref());
            problems.push(Problem::error(
                table.place_of(&word),
                what,
                "write `cgroup`, or `rlimits` for the weaker one",
            ));
            false
        }
    };
    let parallel_max = table.take::<u64>("parallel", problems).map_or(4, Spanned::into_inner);
    let mut limits = table.has("limits").then(|| table.table("limits", problems)).flatten();
    let mut number = |key: &'static str| {
        limits.as_mut().and_then(|limits| limits.take::<u64>(key, problems)).map(Spanned::into_inner)
    };
    let (seconds, processes) = (number("seconds"), number("processes"));
    let mut size = |key: &'static str| {
        limits.as_mut().and_then(|limits| limits.take::<Bytes>(key, problems)).map(|size| size.into_inner().0)
    };
    let (memory_bytes, output_bytes) = (size("memory"), size("output"));
    if let Some(limits) = limits {
        limits.finish(problems);
    }
    Some(SandboxDeclaration {
        language,
        seconds,
        memory_bytes,
        processes,
        output_bytes,
        rlimits_only,
        parallel_max,
    })
}

/// The audiences that the gateway exchanges tokens for, with the scopes that each may carry.
pub(crate) fn exchange_audiences(
    systems: &BTreeMap<SystemName, System>,
) -> BTreeMap<String, BTreeSet<String>> {
    let mut audiences: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for system in systems.values() {
        if let SystemDeclaration::Http { exchange: Some(exchange), .. } = &system.declaration {
            audiences.entry(exchange.audience.clone()).or_default().extend(exchange.scopes.iter().cloned());
        }
    }
    audiences
}
