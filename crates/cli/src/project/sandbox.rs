//! `kind = "sandbox"`: what a sandbox is, as the operator says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringfence_actions::file::Table;
use ringfence_core::Problem;
use ringfence_sandbox::egress::{Declared, DeclaredCredential, DeclaredRule, Entry, Limits as EgressLimits};
use ringfence_sandbox::{GvisorSettings, Isolation, Language, Limits, Profile, Resources, Root, Start};
use toml::Spanned;

use super::remote::{self, RemoteDeclaration};

/// One `[systems.NAME]` of kind `sandbox`.
#[derive(Clone)]
pub(crate) struct SandboxDeclaration {
    pub(crate) profile: Profile,
    /// The machine that it is on, where that is another one.
    pub(crate) host: Option<RemoteDeclaration>,
    /// Where it may connect to; none means no network.
    pub(crate) egress: Option<Declared>,
    /// The values of its credentials, by their names: where each is to be had.
    pub(crate) secrets: BTreeMap<String, SecretSource>,
    /// How long a session lives without a call, and at the most; none where each call has a sandbox of its own.
    pub(crate) session: Option<(Duration, Duration)>,
    pub(crate) parallel_max: u64,
}

/// Where a secret is to be had.
#[derive(Clone)]
pub(crate) enum SecretSource {
    Environment(String),
    File(PathBuf),
}

const MIB: u64 = 1 << 20;

pub(super) fn read(
    folder: &Path,
    table: &mut Table<'_>,
    problems: &mut Vec<Problem>,
) -> Option<SandboxDeclaration> {
    let language = table.require::<String>("language", problems)?;
    let Some(language) = Language::ALL.into_iter().find(|known| known.as_str() == language.get_ref()) else {
        let what = format!("`{}` is not a language of the sandbox", language.get_ref());
        problems.push(Problem::error(table.place_of(&language), what, "write `python`, `bash` or `node`"));
        return None;
    };
    if table.has("host") {
        return remote::read(folder, language, table, problems);
    }
    let mut profile = Profile::new(language);
    profile.resources = resources(table, problems);
    profile.start = start(language, table, problems);
    profile.preload = preload(language, table, problems);
    profile.ready = ready(table, problems);
    if let Some(root) = table.take::<String>("root", problems) {
        profile.root = Root::Folder(folder.join(root.into_inner()));
    }
    profile.isolation = isolation(&profile, table, problems);
    if profile.isolation != Isolation::Process {
        profile.ready = 0;
    }
    limits(&mut profile.limits, table, problems);
    let mut secrets = BTreeMap::new();
    let mut taken = Credentials { folder, secrets: &mut secrets, environment: &mut profile.environment };
    let egress = way_out(&mut taken, table, problems);
    if egress.is_some() && profile.isolation != Isolation::Process {
        let instead = "leave `egress` out, or take the built-in backend";
        problems.push(Problem::error(table.place(), "gVisor's sandboxes have no way out yet", instead));
    }
    let session = session(language, table, problems);
    let parallel_max = table.number("parallel", 1..=1024, problems).unwrap_or(4);
    Some(SandboxDeclaration { profile, host: None, egress, secrets, session, parallel_max })
}

/// One of these words, or a problem that names them.
fn word<T: Copy>(
    key: &'static str,
    words: &[(&str, T)],
    table: &mut Table<'_>,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    let written = table.take::<String>(key, problems)?;
    let known = words.iter().find(|(word, _)| word == written.get_ref()).map(|(_, meant)| *meant);
    if known.is_none() {
        let words: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
        let what = format!("`{}` is no value of `{key}`", written.get_ref());
        problems.push(Problem::error(
            table.place_of(&written),
            what,
            format!("write {}", words.join(" or ")),
        ));
    }
    known
}

/// `backend`, and what each one is set to.
fn isolation(profile: &Profile, table: &mut Table<'_>, problems: &mut Vec<Problem>) -> Isolation {
    let place = table.place();
    let words = [("process", false), ("gvisor", true)];
    let is_gvisor = word("backend", &words, table, problems).unwrap_or(false);
    let mut optional = |key| table.take::<String>(key, problems).map(Spanned::into_inner);
    let (runtime, platform) = (optional("runtime"), optional("platform"));
    if !is_gvisor {
        if runtime.is_some() || platform.is_some() {
            let instead = "write `backend = \"gvisor\"` besides, or leave them out";
            problems.push(Problem::error(place, "`runtime` and `platform` are gVisor's", instead));
        }
        return Isolation::Process;
    }
    if !profile.preload.is_empty() {
        let instead = "leave `preload` out, or take the built-in backend";
        problems.push(Problem::error(place, "gVisor's sandboxes load no modules ahead", instead));
    }
    let mut settings = GvisorSettings::default();
    settings.runtime = runtime.map_or(settings.runtime, PathBuf::from);
    settings.platform = platform.unwrap_or(settings.platform);
    Isolation::Gvisor(settings)
}

fn resources(table: &mut Table<'_>, problems: &mut Vec<Problem>) -> Resources {
    let words = [("cgroup", Resources::Cgroup), ("rlimits", Resources::RlimitsOnly)];
    word("resources", &words, table, problems).unwrap_or(Resources::Cgroup)
}

fn start(language: Language, table: &mut Table<'_>, problems: &mut Vec<Problem>) -> Start {
    let place = table.place();
    let words = [("fork", Start::Fork), ("exec", Start::Exec)];
    let start = word("start", &words, table, problems);
    if start == Some(Start::Fork) && language != Language::Python {
        let instead = "leave `start` out, or write `exec`";
        problems.push(Problem::error(place, "only Python is forked from an interpreter that waits", instead));
    }
    start.unwrap_or(if language == Language::Python { Start::Fork } else { Start::Exec })
}

fn preload(language: Language, table: &mut Table<'_>, problems: &mut Vec<Problem>) -> Vec<String> {
    let Some(modules) = table.take::<Vec<String>>("preload", problems) else { return Vec::new() };
    let is_name = |name: &String| {
        !name.is_empty() && name.split('.').all(|part| !part.is_empty() && part.chars().all(is_identifier))
    };
    if language != Language::Python || !modules.get_ref().iter().all(is_name) {
        let instead = "write names of Python modules, such as `[\"numpy\", \"pandas\"]`";
        problems.push(Problem::error(
            table.place_of(&modules),
            "`preload` is no list of Python modules",
            instead,
        ));
        return Vec::new();
    }
    modules.into_inner()
}

fn is_identifier(char: char) -> bool {
    char.is_ascii_alphanumeric() || char == '_'
}

fn ready(table: &mut Table<'_>, problems: &mut Vec<Problem>) -> usize {
    let ready = table.number("ready", 0..=256, problems).unwrap_or(2);
    usize::try_from(ready).unwrap_or(0)
}

fn limits(limits: &mut Limits, table: &mut Table<'_>, problems: &mut Vec<Problem>) {
    let Some(mut written) = table.has("limits").then(|| table.table("limits", problems)).flatten() else {
        return;
    };
    let mut number = |key, within, into: &mut u64| {
        if let Some(number) = written.number(key, within, problems) {
            *into = number;
        }
    };
    let mut seconds = limits.wall.as_secs();
    number("seconds", 1..=3600, &mut seconds);
    limits.wall = Duration::from_secs(seconds);
    number("processes", 1..=10_000, &mut limits.processes);
    number("millicores", 10..=1_024_000, &mut limits.cpu_millicores);
    number("files", 16..=10_000_000, &mut limits.files);
    number("artifact-files", 0..=1000, &mut limits.artifact_files);
    let mut size = |key, within, into: &mut u64| {
        if let Some(bytes) = written.size(key, within, problems) {
            *into = bytes;
        }
    };
    size("memory", MIB..=1 << 40, &mut limits.memory_bytes);
    size("output", 1 << 10..=64 * MIB, &mut limits.output_bytes);
    size("work", MIB..=1 << 40, &mut limits.work_bytes);
    size("temporary", MIB..=1 << 40, &mut limits.temporary_bytes);
    size("artifacts", MIB..=1 << 30, &mut limits.artifact_bytes);
    written.finish(problems);
}

pub(super) fn session(
    language: Language,
    table: &mut Table<'_>,
    problems: &mut Vec<Problem>,
) -> Option<(Duration, Duration)> {
    let mut session = table.has("session").then(|| table.table("session", problems)).flatten()?;
    if language != Language::Python {
        let instead = "leave `session` out; each call has a sandbox of its own then";
        problems.push(Problem::error(
            session.place(),
            "only Python keeps its state from call to call",
            instead,
        ));
    }
    let idle = session.number("idle-seconds", 1..=86_400, problems).unwrap_or(300);
    let total = session.number("seconds", 1..=86_400, problems).unwrap_or(3600);
    session.finish(problems);
    Some((Duration::from_secs(idle), Duration::from_secs(total)))
}

/// `egress`, `egress-rules`, `egress-deny`, `egress-private`, `egress-limits`: where it may connect to.
fn way_out(
    credentials: &mut Credentials<'_>,
    table: &mut Table<'_>,
    problems: &mut Vec<Problem>,
) -> Option<Declared> {
    let mut texts =
        |key| table.take::<Vec<String>>(key, problems).map(Spanned::into_inner).unwrap_or_default();
    let mut allow: Vec<Entry> = texts("egress").into_iter().map(Entry::Text).collect();
    let (deny, private) = (texts("egress-deny"), texts("egress-private"));
    if let Some(mut rules) =
        table.has("egress-rules").then(|| table.table("egress-rules", problems)).flatten()
    {
        for (name, mut written) in rules.tables(problems) {
            if let Some(rule) = rule(credentials, name.get_ref(), &mut written, problems) {
                allow.push(Entry::Rule(rule));
            }
            written.finish(problems);
        }
    }
    let limits = egress_limits(table, problems);
    (!allow.is_empty()).then_some(Declared { allow, deny, private, limits })
}

fn egress_limits(table: &mut Table<'_>, problems: &mut Vec<Problem>) -> EgressLimits {
    let mut limits = EgressLimits::default();
    let written = table.has("egress-limits").then(|| table.table("egress-limits", problems)).flatten();
    let Some(mut written) = written else { return limits };
    if let Some(up) = written.size("up", 1 << 10..=1 << 40, problems) {
        limits.bytes_up_max = up;
    }
    if let Some(down) = written.size("down", 1 << 10..=1 << 40, problems) {
        limits.bytes_down_max = down;
    }
    if let Some(connections) = written.number("connections", 1..=1_000_000, problems) {
        limits.connections_max = connections;
    }
    written.finish(problems);
    limits
}

fn rule(
    credentials: &mut Credentials<'_>,
    name: &str,
    table: &mut Table<'_>,
    problems: &mut Vec<Problem>,
) -> Option<DeclaredRule> {
    let to = table.require::<String>("to", problems);
    let mut flag = |key| table.take::<bool>(key, problems).is_some_and(Spanned::into_inner);
    let (inspect, allow_missing_sni) = (flag("inspect"), flag("allow-missing-sni"));
    let (allow_ech, allow_any_protocol) = (flag("allow-ech"), flag("allow-any-protocol"));
    let mut texts =
        |key| table.take::<Vec<String>>(key, problems).map(Spanned::into_inner).unwrap_or_default();
    let (methods, paths) = (texts("methods"), texts("paths"));
    let credential = table.has("credential").then(|| table.table("credential", problems)).flatten();
    let credential = match credential {
        Some(credential) => Some(credentials.take(name, credential, problems)?),
        None => None,
    };
    Some(DeclaredRule {
        to: to?.into_inner(),
        inspect,
        methods,
        paths,
        allow_missing_sni,
        allow_ech,
        allow_any_protocol,
        credential,
    })
}

/// What credentials need besides their rule.
struct Credentials<'a> {
    folder: &'a Path,
    secrets: &'a mut BTreeMap<String, SecretSource>,
    /// Of the program: where it finds the placeholders.
    environment: &'a mut BTreeMap<String, String>,
}

impl Credentials<'_> {
    /// The secret itself stands in the gateway's environment or in a file of its own, never here and never inside.
    fn take(
        &mut self,
        name: &str,
        mut table: Table<'_>,
        problems: &mut Vec<Problem>,
    ) -> Option<DeclaredCredential> {
        let header = table.require::<String>("header", problems);
        let placeholder = table.require::<String>("placeholder", problems);
        let mut optional = |key| table.take::<String>(key, problems).map(Spanned::into_inner);
        let format = optional("format").unwrap_or("{}".to_owned());
        let (environment, file, variable) = (optional("env"), optional("file"), optional("variable"));
        let source = match (environment, file) {
            (Some(variable), None) => Some(SecretSource::Environment(variable)),
            (None, Some(file)) => Some(SecretSource::File(self.folder.join(file))),
            _ => {
                let instead = "write `env = \"VARIABLE\"` or `file = \"…\"`: where the secret is to be had";
                problems.push(Problem::error(table.place(), "a credential has one secret", instead));
                None
            }
        };
        table.finish(problems);
        let (header, placeholder) = (header?.into_inner(), placeholder?.into_inner());
        self.environment.extend(variable.map(|variable| (variable, placeholder.clone())));
        self.secrets.insert(name.to_owned(), source?);
        Some(DeclaredCredential { secret: name.to_owned(), header, format, placeholder })
    }
}
