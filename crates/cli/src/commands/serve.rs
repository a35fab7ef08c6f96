//! `ringfence serve`: binds every address first, then opens the journal, then answers.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use ringfence_core::Level;
use ringfence_gateway::Gateway;
use ringfence_identity::development;
use ringfence_store::Role;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::failure::Failure;
use crate::http_server;
use crate::keys;
use crate::project::Project;
use crate::wiring::{self, Addresses, Checked};

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
    pub(crate) async fn start(mut checked: Checked, doors: Doors) -> Result<Self, Failure> {
        let addresses = doors.addresses()?;
        checked.rehearse(&addresses).await?;
        let issuer = match addresses.issuer {
            Some(_) => wiring::issuer(&checked.project, &addresses, &keys::issuer_key(&checked.project)?)?
                .map(Arc::new),
            None => None,
        };
        let systems = checked.open_systems(issuer.as_deref()).await;
        wiring::attack_sandboxes(&checked.project, &systems).await?;
        let agents = wiring::agents_settings(&checked.project, &addresses);
        let people = wiring::peoples_settings(&checked.project, &addresses);
        let gateway = checked.assemble(systems, issuer.as_deref(), &addresses, Role::Server)?;
        let (stop, listeners) = (CancellationToken::new(), TaskTracker::new());
        let agents_door = ringfence_gateway::agents_door(&gateway, &agents);
        listeners.spawn(http_server::serve(doors.agents, agents_door, stop.clone()));
        let peoples_door = ringfence_console::peoples_door(&gateway, people);
        listeners.spawn(http_server::serve(doors.people, peoples_door, stop.clone()));
        if let (Some(issuer), Some(listener)) = (&issuer, doors.issuer) {
            let router = development::router(issuer.clone(), wiring::now);
            listeners.spawn(http_server::serve(listener, router, stop.clone()));
        }
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
