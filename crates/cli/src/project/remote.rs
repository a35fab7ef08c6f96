//! `host = { … }` of a sandbox: its programs run on another machine, whose profile says what a sandbox is. What is said here only
//! narrows that.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use ringfence_actions::file::Table;
use ringfence_core::{Place, Problem};
use ringfence_sandbox::{Language, Profile};

use super::sandbox::{SandboxDeclaration, session};
use super::tls::TlsFiles;

/// Where a sandbox host is.
#[derive(Clone)]
pub(crate) struct RemoteDeclaration {
    pub(crate) address: String,
    pub(crate) server_name: String,
    pub(crate) server_name_place: Place,
    pub(crate) profile: String,
    pub(crate) tls: TlsFiles,
}

/// As long as a program may take where nothing is said: the host's profile decides then.
const WALL_MAX: Duration = Duration::from_hours(1);

pub(super) fn read(
    folder: &Path,
    language: Language,
    table: &mut Table<'_>,
    problems: &mut Vec<Problem>,
) -> Option<SandboxDeclaration> {
    let host = table.table("host", problems).and_then(|host| self::host(folder, host, problems));
    let mut profile = Profile::new(language);
    let limits = &mut profile.limits;
    limits.wall = WALL_MAX;
    if let Some(mut written) = table.has("limits").then(|| table.table("limits", problems)).flatten() {
        if let Some(seconds) = written.number("seconds", 1..=3600, problems) {
            limits.wall = Duration::from_secs(seconds);
        }
        limits.output_bytes =
            written.size("output", 1 << 10..=64 << 20, problems).unwrap_or(limits.output_bytes);
        limits.artifact_files =
            written.number("artifact-files", 0..=1000, problems).unwrap_or(limits.artifact_files);
        limits.artifact_bytes =
            written.size("artifacts", 1 << 20..=1 << 30, problems).unwrap_or(limits.artifact_bytes);
        written.finish(problems);
    }
    let session = session(language, table, problems);
    let parallel_max = table.number("parallel", 1..=1024, problems).unwrap_or(4);
    Some(SandboxDeclaration {
        profile,
        host: Some(host?),
        egress: None,
        secrets: BTreeMap::new(),
        session,
        parallel_max,
    })
}

fn host(folder: &Path, mut table: Table<'_>, problems: &mut Vec<Problem>) -> Option<RemoteDeclaration> {
    let address = table.require::<String>("address", problems);
    if let Some(address) = address.as_ref().filter(|address| !is_address(address.get_ref())) {
        let what = format!("`{}` is no address", address.get_ref());
        problems.push(Problem::error(
            table.place_of(address),
            what,
            "write `HOST:PORT`, such as `10.0.0.2:7443`",
        ));
    }
    let server_name = table.require::<String>("server-name", problems);
    let server_name_place = server_name.as_ref().map(|name| table.place_of(name));
    let profile = table.require::<String>("profile", problems);
    let tls = TlsFiles::read(folder, &mut table, problems);
    table.finish(problems);
    Some(RemoteDeclaration {
        address: address?.into_inner(),
        server_name: server_name?.into_inner(),
        server_name_place: server_name_place?,
        profile: profile?.into_inner(),
        tls: tls?,
    })
}

fn is_address(text: &str) -> bool {
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && is_port(port))
}
