//! `sandbox-host.toml`: what a machine offers that runs programs for gateways, and to whom.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ringfence_actions::File;
use ringfence_actions::file::Table;
use ringfence_core::{Place, Problem, SystemName};

use super::sandbox::{self, SandboxDeclaration};
use super::section;
use super::tls::TlsFiles;
use crate::failure::Failure;

/// The name of the file, where a folder is named.
const HOST_FILE: &str = "sandbox-host.toml";

/// A host as its file declares it.
pub(crate) struct HostProject {
    pub(crate) folder: PathBuf,
    pub(crate) host: Option<HostDeclaration>,
    pub(crate) profiles: Vec<HostProfile>,
    pub(crate) problems: Vec<Problem>,
}

/// `[host]`.
pub(crate) struct HostDeclaration {
    pub(crate) listen: SocketAddr,
    pub(crate) clients: Vec<String>,
    pub(crate) clients_place: Place,
    pub(crate) connections_max: usize,
    pub(crate) tls: TlsFiles,
}

/// `[profiles.NAME]`.
pub(crate) struct HostProfile {
    pub(crate) name: String,
    pub(crate) place: Place,
    pub(crate) declaration: SandboxDeclaration,
}

impl HostProject {
    /// Reads a host's file, or the one in a folder.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let path = if path.is_dir() { path.join(HOST_FILE) } else { path.to_owned() };
        let text = std::fs::read_to_string(&path).map_err(|error| {
            let help = format!("name a `{HOST_FILE}`, or the folder with it; docs/sandbox-host.md shows one");
            Failure::new(format!("`{}` cannot be read: {error}", path.display()), help)
        })?;
        let folder = path.parent().unwrap_or(Path::new(".")).to_owned();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut problems = Vec::new();
        let mut root = File { name: &name, text: &text }.parse(&mut problems);
        let host = section(root.as_mut(), "host", &mut problems);
        if host.is_none() && root.is_some() {
            let instead = "write `[host]` with `listen`, `ca`, `certificate` and `key`";
            problems.push(Problem::error(Place::start(&name), "`[host]` is missing", instead));
        }
        let host = host.and_then(|host| self::host(&folder, host, &mut problems));
        let profiles = profiles(&folder, root.as_mut(), &mut problems);
        if profiles.is_empty() && problems.is_empty() {
            let instead = "write `[profiles.python]` with `language = \"python\"`";
            problems.push(Problem::error(Place::start(&name), "it offers nothing", instead));
        }
        if let Some(root) = root {
            root.finish(&mut problems);
        }
        Ok(Self { folder, host, profiles, problems })
    }
}

fn host(folder: &Path, mut table: Table<'_>, problems: &mut Vec<Problem>) -> Option<HostDeclaration> {
    let listen = table.require::<String>("listen", problems);
    let address = listen.as_ref().and_then(|listen| listen.get_ref().parse().ok());
    if let (Some(listen), None) = (&listen, address) {
        let what = format!("`{}` is no address", listen.get_ref());
        problems.push(Problem::error(
            table.place_of(listen),
            what,
            "write an IP address and a port, such as `10.0.0.2:7443`",
        ));
    }
    let clients = table.take::<Vec<String>>("clients", problems);
    let clients_place = clients.as_ref().map_or_else(|| table.place(), |clients| table.place_of(clients));
    let connections_max = table.number("connections", 1..=4096, problems).unwrap_or(64);
    let tls = TlsFiles::read(folder, &mut table, problems);
    if let Some(clients) = clients.as_ref().filter(|clients| clients.get_ref().is_empty()) {
        let instead = "name whom it lets in, or leave `clients` out for all whom the authority knows";
        problems.push(Problem::error(table.place_of(clients), "`clients` is empty", instead));
    }
    table.finish(problems);
    Some(HostDeclaration {
        listen: address?,
        clients: clients.map(toml::Spanned::into_inner).unwrap_or_default(),
        clients_place,
        connections_max: usize::try_from(connections_max).unwrap_or(1),
        tls: tls?,
    })
}

fn profiles(folder: &Path, root: Option<&mut Table<'_>>, problems: &mut Vec<Problem>) -> Vec<HostProfile> {
    let Some(mut table) = section(root, "profiles", problems) else { return Vec::new() };
    let mut profiles = Vec::new();
    for (name, mut profile) in table.tables(problems) {
        let place = table.place_of(&name);
        if let Err(bad) = SystemName::new(name.get_ref().clone()) {
            problems.push(Problem::error(place, bad.to_string(), "rename the profile"));
            continue;
        }
        let declaration = sandbox::read(folder, &mut profile, problems);
        profile.finish(problems);
        let Some(declaration) = declaration else { continue };
        let mut refuse =
            |what: &str, instead: &str| problems.push(Problem::error(place.clone(), what, instead));
        if declaration.host.is_some() {
            refuse("a sandbox host runs its programs itself", "leave `host` out");
        }
        if declaration.egress.is_some() {
            refuse("a sandbox host gives its programs no network in this version", "leave `egress` out");
        }
        if declaration.session.is_some() {
            refuse("how long a session lives is the gateway's to say", "leave `session` out");
        }
        profiles.push(HostProfile { name: name.into_inner(), place, declaration });
    }
    profiles
}
