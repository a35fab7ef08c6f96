//! Puts a gateway together out of a project. The one place that makes the authorities and hands each to its crate.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use ringfence_actions::{ActionSpace, File};
use ringfence_console::PeoplesDoorSettings;
use ringfence_core::{Authorities, Digest, Instant, Level, Place, Problem, Recorder, Secret, Verifier};
use ringfence_gateway::{CallLimits, Clock, DoorSettings, Gateway, Parts};
use ringfence_identity::credential::Accounts;
use ringfence_identity::development::{Issuer, IssuerSettings, Logins};
use ringfence_policy::{Policies, PolicyFile};
use ringfence_sandbox::egress::Rules;
use ringfence_sandbox::remote::{HostSettings, Hosted, RemoteSettings};
use ringfence_sandbox::{Isolation, WayOut};
use ringfence_store::{Journal, JournalRefused, JournalSettings, Role, Runs};
use ringfence_tools::{HttpSettings, PostgresSettings, SandboxSettings, SystemSettings, Systems};
use url::Url;
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::project::{
    CredentialWay, HostDeclaration, HostProject, IssuerSource, PROJECT_FILE, PostgresDeclaration, Project,
    RemoteDeclaration, SandboxDeclaration, SecretSource, System, SystemDeclaration, exchange_audiences,
};
use crate::{credentials, keys, trust};

/// Where the doors and the development issuer really listen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) agents: SocketAddr,
    pub(crate) people: SocketAddr,
    pub(crate) issuer: Option<SocketAddr>,
}

impl Addresses {
    /// The addresses that the project declares.
    pub(crate) fn declared(project: &Project) -> Self {
        let issuer = match &project.identity.source {
            IssuerSource::Development(declared) => Some(declared.listen),
            IssuerSource::External(_) => None,
        };
        Self { agents: project.server.listen, people: project.server.control, issuer }
    }
}

/// A project whose tools and policies were read.
pub(crate) struct Checked {
    pub(crate) project: Project,
    pub(crate) space: Arc<ActionSpace>,
    /// The accounts that users connect, once the systems are open.
    pub(crate) accounts: Option<Arc<Accounts>>,
    policies: Option<Policies>,
    recorder: Recorder,
    verifier: Verifier,
}

impl Checked {
    /// Reads a project. What is wrong with it is in its problems.
    pub(crate) fn read(folder: &Path) -> Result<Self, Failure> {
        let mut project = Project::read(folder)?;
        let Authorities { decider, recorder, verifier } = Authorities::establish();
        let mut problems = std::mem::take(&mut project.problems);
        let names: Vec<String> =
            project.tool_files.iter().map(|file| format!("tools/{}", file.name)).collect();
        let files: Vec<File<'_>> = project
            .tool_files
            .iter()
            .zip(&names)
            .map(|(file, name)| File { name, text: &file.text })
            .collect();
        let space = ActionSpace::read(&files, &project.kinds(), &mut problems);
        let policy_files =
            project.policy_files.iter().map(|file| PolicyFile { name: &file.name, text: &file.text });
        let policies = Policies::load(&policy_files.collect::<Vec<_>>(), &space, decider, &mut problems);
        check_audiences(&project, &mut problems);
        trust::check_exchanges(&project, &mut problems);
        credentials::check_scopes(&project, &space, &mut problems);
        credentials::note_shared(&project, &mut problems);
        project.problems = problems;
        Ok(Self { project, space: Arc::new(space), accounts: None, policies, recorder, verifier })
    }

    /// Fails where anything keeps the project from being served.
    pub(crate) fn refuse_problems(&self) -> Result<(), Failure> {
        if !self.project.has_errors() {
            return Ok(());
        }
        let errors: Vec<&Problem> =
            self.project.problems.iter().filter(|problem| problem.level == Level::Error).collect();
        for problem in &errors {
            crate::print::problem(&self.project.folder, problem);
        }
        let message = format!(
            "the project in `{}` has {}",
            self.project.folder.display(),
            count(errors.len(), "error")
        );
        Err(Failure::new(message, "correct what is named above; `ringfence check` shows warnings too"))
    }

    /// Opens the systems, and so proves every statement. Problems are added to the project's.
    pub(crate) async fn open_systems(&mut self, issuer: Option<&Issuer>, addresses: &Addresses) -> Systems {
        let mut problems = std::mem::take(&mut self.project.problems);
        let base = peoples_audience(&self.project, addresses);
        self.accounts = credentials::accounts(&self.project, base.clone(), &mut problems);
        if self.accounts.is_some()
            && let Err(failure) = credentials::login(&self.project, issuer, base)
        {
            let (what, instead) = failure.into_parts("correct `[login]`");
            problems.push(Problem::error(Place::start(PROJECT_FILE), what, instead));
        }
        let settings = system_settings(&self.project, issuer, self.accounts.as_ref(), &mut problems);
        let systems = Systems::open(settings, self.space.clone(), &mut problems).await;
        problems.sort();
        self.project.problems = problems;
        systems
    }

    /// Tries all that could be refused before the first key is made, so that a refusal leaves nothing behind.
    pub(crate) async fn rehearse(&mut self, addresses: &Addresses) -> Result<(), Failure> {
        keys::journal_key_is_there_or_not_needed(&self.project)?;
        if addresses.issuer.is_none() || keys::issuer_key_file(&self.project).exists() {
            return Ok(());
        }
        let key = ringfence_identity::development::new_key()
            .ok_or_else(|| Failure::new("this machine has no randomness", "try again later"))?;
        let issuer = issuer(&self.project, &self.space, addresses, &key)?;
        let systems = self.open_systems(issuer.as_ref(), addresses).await;
        self.refuse_problems()?;
        attack_sandboxes(&self.project, &systems).await
    }

    /// Opens the journal alone, to record something that is no call.
    pub(crate) fn open_journal(self, role: Role) -> Result<Journal, Failure> {
        journal(&self.project, self.recorder, role)
    }

    /// Puts the gateway together and opens its journal.
    pub(crate) fn assemble(
        self,
        systems: Systems,
        issuer: Option<&Issuer>,
        addresses: &Addresses,
        role: Role,
    ) -> Result<Gateway, Failure> {
        self.refuse_problems()?;
        let Self { project, space, policies, recorder, verifier, .. } = self;
        let clock = Clock::system();
        let Some(policies) = policies else {
            return Err(Failure::new("the policies could not be read", "run `ringfence check`"));
        };
        let identity = trust::identity(&project, issuer, addresses, verifier)?;
        let journal = journal(&project, recorder, role)?;
        let runs = Runs::open(&project.journal.folder, &journal, clock.now()).map_err(Failure::of)?;
        Ok(Gateway::new(Parts {
            space,
            policies,
            identity,
            journal,
            runs,
            run_limits: project.run_limits,
            applications: project.applications,
            systems,
            limits: CallLimits::default(),
            clock,
        }))
    }
}

fn journal(project: &Project, recorder: Recorder, role: Role) -> Result<Journal, Failure> {
    let key = keys::journal_key(project)?;
    let settings = JournalSettings {
        folder: project.journal.folder.clone(),
        head_file: project.journal.head.clone(),
        key: &key,
        program: concat!("ringfence ", env!("CARGO_PKG_VERSION")).to_owned(),
        configuration: configuration(project),
        role,
    };
    Journal::open(settings, recorder, now()).map_err(|refused| {
        let failure = Failure::of(&refused);
        let JournalRefused::Served(_) = refused else { return failure };
        let audience = agents_audience(project, &Addresses::declared(project));
        failure.or(&format!("a desktop client reaches that one by `ringfence stdio --connect {audience}`"))
    })
}

/// Fails where a sandbox does not hold on this machine.
pub(crate) async fn attack_sandboxes(project: &Project, systems: &Systems) -> Result<(), Failure> {
    systems.attack_sandboxes().await.map_err(|(system, why)| {
        if project.systems.get(&system).is_some_and(System::is_remote) {
            let what = format!("the sandbox `{system}` cannot be used: {why}");
            return Failure::new(
                what,
                "look at its host: `ringfence sandbox-host FILE --check`, and its log",
            );
        }
        let what = format!("the sandbox `{system}` does not hold on this machine: {why}");
        Failure::new(what, "run `ringfence doctor`, which says what this machine lacks")
    })
}

pub(crate) fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

pub(crate) fn now() -> Instant {
    Clock::system().now()
}

/// The digest of all files that decide what may happen.
fn configuration(project: &Project) -> Digest {
    let files = project.tool_files.iter().map(|file| ("tools", file));
    let files = files.chain(project.policy_files.iter().map(|file| ("policies", file)));
    let parts: Vec<String> = files
        .map(|(kind, file)| format!("{kind}/{} {}\n", file.name, Digest::of(&[file.text.as_bytes()])))
        .collect();
    Digest::of(&[
        Digest::of(&[project.text.as_bytes()]).to_string().as_bytes(),
        b"\n",
        parts.concat().as_bytes(),
    ])
}

/// The audience of the agents' door (RFC 8707: the URL of the resource).
pub(crate) fn agents_audience(project: &Project, addresses: &Addresses) -> String {
    let base = project.server.public_url.clone().unwrap_or_else(|| format!("http://{}", addresses.agents));
    format!("{base}/mcp")
}

/// The audience of the people's door.
pub(crate) fn peoples_audience(project: &Project, addresses: &Addresses) -> String {
    project.server.control_url.clone().unwrap_or_else(|| format!("http://{}", addresses.people))
}

/// A token for one door must be good at no other, and at no system: an audience stands for one of them alone.
fn check_audiences(project: &Project, problems: &mut Vec<Problem>) {
    let addresses = Addresses::declared(project);
    let doors = [agents_audience(project, &addresses), peoples_audience(project, &addresses)];
    let same = |a: &str, b: &str| match (Url::parse(a), Url::parse(b)) {
        (Ok(a), Ok(b)) => a.as_str().trim_end_matches('/') == b.as_str().trim_end_matches('/'),
        _ => a == b,
    };
    let [agents, people] = &doors;
    if same(agents, people) {
        let what = format!("both doors have the audience `{agents}`");
        let instead = "give `public-url` and `control-url` addresses of their own: a token for one would open the other";
        problems.push(Problem::error(Place::start(PROJECT_FILE), what, instead));
    }
    for system in project.systems.values() {
        let SystemDeclaration::Http { credential: Some(declared), .. } = &system.declaration else {
            continue;
        };
        let CredentialWay::Exchange { target, .. } = &declared.way else { continue };
        if doors.iter().any(|door| same(door, target.name())) {
            let what = format!("the audience `{}` is one of the gateway's own doors", target.name());
            let instead = "name the system itself: a tool would get a token that opens the gateway";
            problems.push(Problem::error(system.place.clone(), what, instead));
        }
    }
}

pub(crate) fn agents_settings(project: &Project, addresses: &Addresses) -> DoorSettings {
    let issuers = match &project.identity.source {
        IssuerSource::Development(declared) => {
            vec![format!("http://{}", addresses.issuer.unwrap_or(declared.listen))]
        }
        IssuerSource::External(declared) => declared.iter().map(|issuer| issuer.issuer.clone()).collect(),
    };
    DoorSettings {
        resource: agents_audience(project, addresses),
        issuers,
        scopes: project.identity.scopes.clone(),
        proofs: project.identity.proofs,
        hosts: hosts(&addresses.agents, project.server.public_url.as_deref()),
        origins: project.server.allowed_origins.clone(),
    }
}

pub(crate) fn peoples_settings(project: &Project, addresses: &Addresses) -> PeoplesDoorSettings {
    let hosts = hosts(&addresses.people, project.server.control_url.as_deref());
    PeoplesDoorSettings {
        resource: peoples_audience(project, addresses),
        operators: project.identity.operators.clone(),
        operator_clients: project.identity.operator_clients.clone(),
        mcp: agents_audience(project, addresses),
        hosts,
    }
}

/// The `Host` headers of a listener: its address, `localhost` where it is on loopback, and its public name.
fn hosts(address: &SocketAddr, public: Option<&str>) -> Vec<String> {
    let mut hosts = vec![address.to_string()];
    if address.ip().is_loopback() {
        hosts.push(format!("localhost:{}", address.port()));
    }
    if let Some(url) = public.and_then(|public| Url::parse(public).ok()) {
        let host = url.host_str().unwrap_or_default().to_owned();
        hosts.push(match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host,
        });
    }
    hosts
}

/// The development issuer of a project that has one, with this key.
pub(crate) fn issuer(
    project: &Project,
    space: &ActionSpace,
    addresses: &Addresses,
    key: &Secret,
) -> Result<Option<Issuer>, Failure> {
    let (IssuerSource::Development(declared), Some(listen)) = (&project.identity.source, addresses.issuer)
    else {
        return Ok(None);
    };
    let settings = IssuerSettings {
        listen,
        groups_claim: project.identity.groups_claim.name.clone(),
        users: declared.users.clone(),
        resources: vec![agents_audience(project, addresses), peoples_audience(project, addresses)],
        downstream: exchange_audiences(&project.systems),
        logins: Logins {
            scopes: project.identity.scopes.clone(),
            further_scopes: space.tools().filter_map(|tool| tool.scope().map(str::to_owned)).collect(),
            clients: declared.clients.clone(),
            dynamic_registration: declared.dynamic_registration,
            client_documents: declared.client_documents,
        },
    };
    Issuer::new(key, settings).map(Some).map_err(Failure::of)
}

fn system_settings(
    project: &Project,
    issuer: Option<&Issuer>,
    accounts: Option<&Arc<Accounts>>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<ringfence_core::SystemName, SystemSettings> {
    let mut settings = BTreeMap::new();
    for (name, system) in &project.systems {
        let made = match &system.declaration {
            SystemDeclaration::Sqlite { path } => {
                Ok(SystemSettings::Sqlite { path: path.clone(), place: system.place.clone() })
            }
            SystemDeclaration::Postgres(declared) => postgres(declared, &system.place),
            SystemDeclaration::Http { base_url, credential } => {
                let credential =
                    credential.as_ref().map(|declared| credentials::credential(declared, issuer, accounts));
                credential.transpose().map(|credential| {
                    SystemSettings::Http(HttpSettings { base_url: base_url.clone(), credential })
                })
            }
            SystemDeclaration::Sandbox(declared) => {
                let isolation = match declared.host.as_ref().map(|host| remote(host, problems)) {
                    // What is wrong is said, with its place.
                    Some(None) => continue,
                    Some(Some(remote)) => Isolation::Remote(remote),
                    None => declared.profile.isolation.clone(),
                };
                sandbox(declared).map(|mut settings| {
                    settings.profile.isolation = isolation;
                    SystemSettings::Sandbox(Box::new(settings))
                })
            }
        };
        match made {
            Ok(made) => drop(settings.insert(name.clone(), made)),
            Err((what, instead)) => problems.push(Problem::error(system.place.clone(), what, instead)),
        }
    }
    settings
}

/// The sandbox host of a system, where all that it needs is there and sound.
fn remote(declared: &RemoteDeclaration, problems: &mut Vec<Problem>) -> Option<RemoteSettings> {
    let contents = declared.tls.contents(problems)?;
    let (address, profile) = (declared.address.clone(), declared.profile.clone());
    let made = RemoteSettings::new(address, &declared.server_name, profile, contents.texts());
    made.map_err(|fault| problems.push(declared.tls.problem(&fault, &declared.server_name_place))).ok()
}

/// Where a sandbox host listens, and whom it lets in; what is wrong becomes its problem.
pub(crate) fn host_settings(project: &mut HostProject) -> Option<(SocketAddr, HostSettings)> {
    let HostDeclaration { listen, clients, clients_place, connections_max, tls } = project.host.as_ref()?;
    let contents = tls.contents(&mut project.problems)?;
    let made = HostSettings::new(contents.texts(), clients, *connections_max);
    let made = made.map_err(|fault| project.problems.push(tls.problem(&fault, clients_place))).ok();
    made.map(|settings| (*listen, settings))
}

/// What a sandbox host offers; what is wrong becomes its problem.
pub(crate) fn host_profiles(project: &mut HostProject) -> BTreeMap<String, Hosted> {
    let mut profiles = BTreeMap::new();
    for offered in &project.profiles {
        match sandbox(&offered.declaration) {
            Ok(made) => {
                let hosted = crate::commands::hosted(made.profile, made.parallel_max);
                profiles.insert(offered.name.clone(), hosted);
            }
            Err((what, instead)) => {
                project.problems.push(Problem::error(offered.place.clone(), what, instead));
            }
        }
    }
    profiles
}

/// A sandbox as it was declared, or what is wrong and what to write instead.
pub(crate) fn sandbox(declared: &SandboxDeclaration) -> Result<SandboxSettings, (String, String)> {
    let mut profile = declared.profile.clone();
    if let Some(egress) = &declared.egress {
        let secrets =
            declared.secrets.iter().map(|(name, source)| Ok((name.clone(), egress_secret(source)?)));
        let secrets = secrets.collect::<Result<_, (String, String)>>()?;
        let rules = Rules::check(egress, &secrets)
            .map_err(|problems| (problems.to_string(), "correct the entry of `egress`".to_owned()))?;
        let way_out = WayOut::new(rules)
            .map_err(|error| (error.to_string(), "a way out checks servers by them".to_owned()))?;
        profile.egress = Some(way_out);
    }
    let parallel_max = usize::try_from(declared.parallel_max).unwrap_or(1).max(1);
    Ok(SandboxSettings { profile, session: declared.session, parallel_max })
}

fn postgres(declared: &PostgresDeclaration, place: &Place) -> Result<SystemSettings, (String, String)> {
    let unread = |path: &Path, error: std::io::Error| {
        (format!("`{}` cannot be read: {error}", path.display()), "name the authority's PEM file".to_owned())
    };
    let ca = declared.ca.as_deref();
    let ca = ca.map(|path| std::fs::read_to_string(path).map_err(|error| unread(path, error))).transpose()?;
    Ok(SystemSettings::Postgres(Box::new(PostgresSettings {
        url: credentials::secret(&declared.url)?,
        ca,
        act_as: declared.act_as.clone(),
        claims: declared.claims.clone(),
        schemas: declared.schemas.clone(),
        connections_max: declared.connections_max,
        place: place.clone(),
    })))
}

fn egress_secret(source: &SecretSource) -> Result<ringfence_sandbox::egress::Secret, (String, String)> {
    let text = credentials::secret(source)?.expose().to_owned();
    ringfence_sandbox::egress::Secret::new(Zeroizing::new(text))
        .map_err(|error| (error.to_string(), "correct the secret".to_owned()))
}

/// What is wrong with keys that are there already, or were; what is not needed yet is made when it is.
pub(crate) fn check_keys(project: &mut Project) {
    let journal = keys::journal_key_is_there_or_not_needed(project);
    let issuer = match &project.identity.source {
        IssuerSource::Development(_) => keys::issuer_key_is_sound(project),
        IssuerSource::External(_) => Ok(()),
    };
    for (file, looked) in
        [(keys::issuer_key_file(project), issuer), (keys::journal_key_file(project), journal)]
    {
        if let Err(failure) = looked {
            let name = file.strip_prefix(&project.folder).unwrap_or(&file).display().to_string();
            let (what, instead) = failure.into_parts("make it readable for this user alone");
            project.problems.push(Problem::error(Place::start(&name), what, instead));
        }
    }
    trust::check(project);
}
