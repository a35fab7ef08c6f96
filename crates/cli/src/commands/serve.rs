//! `ringfence serve`: binds every address first, then opens the journal, then answers.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, header};
use ringfence_core::Level;
use ringfence_gateway::Gateway;
use ringfence_identity::connect::{self, ConnectSettings};
use ringfence_identity::credential::Accounts;
use ringfence_identity::development;
use ringfence_identity::login::CodeClient;
use ringfence_store::Role;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::failure::Failure;
use crate::project::Project;
use crate::users_file::UsersFile;
use crate::wiring::{self, Addresses, Checked};
use crate::{credentials, http_server, keys};

/// How long connections have to end once every call has.
const CONNECTIONS_GRACE: Duration = Duration::from_secs(5);

/// The listeners of a gateway, bound and not yet served.
pub(crate) struct Doors {
    agents: TcpListener,
    people: TcpListener,
    issuer: Option<TcpListener>,
}

impl Doors {
    /// Binds every address of a project.
    pub(crate) async fn bind(project: &Project) -> Result<Self, Failure> {
        let declared = Addresses::declared(project);
        let issuer = match declared.issuer {
            Some(address) => Some(bind(address, "development-listen").await?),
            None => None,
        };
        Ok(Self {
            agents: bind(declared.agents, "listen").await?,
            people: bind(declared.people, "control").await?,
            issuer,
        })
    }

    pub(crate) fn addresses(&self) -> Result<Addresses, Failure> {
        let address = |listener: &TcpListener| listener.local_addr().map_err(Failure::of);
        let issuer = self.issuer.as_ref().map(address).transpose()?;
        Ok(Addresses { agents: address(&self.agents)?, people: address(&self.people)?, issuer })
    }
}

pub(crate) async fn bind(address: SocketAddr, key: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            let help = format!("stop what listens there, or write another `{key}` in ringfence.toml");
            Failure::new(format!("address {address} is taken"), help)
        }
        _ => {
            let help = format!("write an address of this machine as `{key}` in ringfence.toml");
            Failure::new(format!("address {address} cannot be listened on: {error}"), help)
        }
    })
}

/// The pages where users connect accounts, before there is a gateway.
struct Connecting {
    accounts: Arc<Accounts>,
    login: CodeClient,
    base: String,
    hosts: Vec<String>,
}

impl Connecting {
    /// None where no system has accounts.
    fn of(
        checked: &Checked,
        issuer: Option<&development::Issuer>,
        addresses: &Addresses,
    ) -> Result<Option<Self>, Failure> {
        let Some(accounts) = checked.accounts.clone() else { return Ok(None) };
        let base = wiring::peoples_audience(&checked.project, addresses);
        let login = credentials::login(&checked.project, issuer, base.clone())?;
        let hosts = wiring::peoples_settings(&checked.project, addresses).hosts;
        Ok(Some(Self { accounts, login, base, hosts }))
    }

    /// Whoever logs in there is verified as at the rest of the people's door.
    fn router(self, gateway: &Gateway) -> Router {
        let Self { accounts, login, base, hosts } = self;
        let gateway = gateway.clone();
        let person: connect::Person = Arc::new(move |token| {
            let gateway = gateway.clone();
            Box::pin(async move {
                let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose())).ok()?;
                value.set_sensitive(true);
                let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value)]);
                let person = gateway.person(&headers).await.ok()?.principal;
                Some((person.issuer().to_owned(), person.subject().to_owned()))
            })
        });
        connect::router(ConnectSettings { accounts, login, person, base, hosts, now: wiring::now })
    }
}

/// A gateway that is put together, before anybody can reach it.
pub(super) struct Built {
    pub(super) gateway: Gateway,
    pub(super) issuer: Option<Arc<development::Issuer>>,
    pub(super) users: UsersFile,
    pub(super) agents_door: Router,
    peoples_door: Router,
}

impl Built {
    /// Opens the systems and the journal of a project, as the one that serves it.
    pub(super) async fn of(mut checked: Checked, addresses: &Addresses) -> Result<Self, Failure> {
        checked.rehearse(addresses).await?;
        let issuer = match addresses.issuer {
            Some(_) => {
                let key = keys::issuer_key(&checked.project)?;
                wiring::issuer(&checked.project, &checked.space, addresses, &key)?.map(Arc::new)
            }
            None => None,
        };
        let users = UsersFile::of(&checked.project);
        let systems = checked.open_systems(issuer.as_deref(), addresses).await;
        wiring::attack_sandboxes(&checked.project, &systems).await?;
        let agents = wiring::agents_settings(&checked.project, addresses);
        let people = wiring::peoples_settings(&checked.project, addresses);
        let connecting = Connecting::of(&checked, issuer.as_deref(), addresses)?;
        let gateway = checked.assemble(systems, issuer.as_deref(), addresses, Role::Server)?;
        let agents_door = ringfence_gateway::agents_door(&gateway, &agents);
        let mut peoples_door = ringfence_console::peoples_door(&gateway, people);
        if let Some(connecting) = connecting {
            peoples_door = peoples_door.merge(connecting.router(&gateway));
        }
        Ok(Self { gateway, issuer, users, agents_door, peoples_door })
    }
}

/// A gateway that answers.
pub(crate) struct Serving {
    pub(crate) gateway: Gateway,
    pub(crate) addresses: Addresses,
    pub(crate) issuer: Option<Arc<development::Issuer>>,
    stop: CancellationToken,
    listeners: TaskTracker,
}

impl Serving {
    /// Assembles the gateway of a project and serves it on bound listeners.
    pub(crate) async fn start(checked: Checked, doors: Doors) -> Result<Self, Failure> {
        let addresses = doors.addresses()?;
        let Built { gateway, issuer, users, agents_door, peoples_door } =
            Built::of(checked, &addresses).await?;
        let (stop, listeners) = (CancellationToken::new(), TaskTracker::new());
        listeners.spawn(http_server::serve(doors.agents, agents_door, stop.clone()));
        listeners.spawn(http_server::serve(doors.people, peoples_door, stop.clone()));
        if let (Some(issuer), Some(listener)) = (&issuer, doors.issuer) {
            let router = development::router(issuer.clone(), wiring::now);
            listeners.spawn(http_server::serve(listener, router, stop.clone()));
            listeners.spawn(users.follow(issuer.clone(), stop.clone()));
        }
        listeners.spawn(gateway.clone().watch_runs(stop.clone()));
        Ok(Self { gateway, addresses, issuer, stop, listeners })
    }

    /// Stops: nothing new is accepted, calls under way finish within `grace`, and the journal is closed.
    pub(crate) async fn finish(self, grace: Duration) {
        self.stop.cancel();
        self.gateway.finish(grace).await;
        self.listeners.close();
        let _ended_in_time = tokio::time::timeout(CONNECTIONS_GRACE, self.listeners.wait()).await;
    }
}

pub(crate) async fn run(dir: PathBuf, grace: Duration) -> Result<ExitCode, Failure> {
    let checked = Checked::read(&dir)?;
    checked.refuse_problems()?;
    for problem in checked.project.problems.iter().filter(|problem| problem.level == Level::Warn) {
        tracing::warn!("{problem}");
    }
    let doors = Doors::bind(&checked.project).await?;
    let stop = Stop::listen()?;
    let resource = wiring::agents_audience(&checked.project, &doors.addresses()?);
    let serving = Serving::start(checked, doors).await?;
    let tools = serving.gateway.status().tools;
    if let Some(issuer) = &serving.issuer {
        tracing::warn!(
            issuer = issuer.name(),
            "the development issuer is on: for development, never for production"
        );
    }
    tracing::info!(mcp = %resource, control = %format!("http://{}", serving.addresses.people), tools, "serving");
    stop.wait().await?;
    tracing::info!("stopping: calls under way may finish");
    tokio::select! {
        () = serving.finish(grace) => {}
        _ = tokio::signal::ctrl_c() => {
            tracing::warn!("stopped at once; calls under way are closed as unknown at the next start");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What tells a gateway to stop. Heard from the moment it is made: a gateway that says it serves stops in good order.
pub(super) struct Stop(Signal);

impl Stop {
    pub(super) fn listen() -> Result<Self, Failure> {
        signal(SignalKind::terminate()).map(Self).map_err(Failure::of)
    }

    pub(super) async fn wait(mut self) -> Result<(), Failure> {
        tokio::select! {
            _ = self.0.recv() => Ok(()),
            pressed = tokio::signal::ctrl_c() => pressed.map_err(Failure::of),
        }
    }
}
