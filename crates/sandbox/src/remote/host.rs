//! The host's side: one listener, a few profiles, and no other power.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustls::ServerConfig;
use rustls::pki_types::ServerName;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::frame::{Broken, Kind};
use super::message::{Narrower, Open, Purpose, Ready, send_outcome, send_refused, take_program};
use super::wire::{Sender, Wire, said};
use super::{PROTOCOL, TlsFault, TlsTexts, tls};
use crate::egress::{self, Decision, Unrecorded};
use crate::{Language, Outcome, Program, Refused, Sandbox, Session, Stream, Watch};

/// How long a stranger may take to prove who it is.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// Strangers that prove it at the same time; more wait to be accepted.
const HANDSHAKES: usize = 64;
/// How long a client may take to say what it wants.
const OPEN_MAX: Duration = Duration::from_secs(5);
/// How long a client may take to hand a program over.
const PROGRAM_MAX: Duration = Duration::from_mins(1);
/// How long a session may wait for its next program.
const IDLE_MAX: Duration = Duration::from_mins(15);
/// How long one that asks waits for a place, where as many programs run as may.
const PLACE_MAX: Duration = Duration::from_secs(15);
/// How long an outcome may take to be handed over.
const OUTCOME_MAX: Duration = Duration::from_mins(1);

/// How a host proves who it is, and whom it lets in.
pub struct HostSettings {
    config: Arc<ServerConfig>,
    clients: Vec<ServerName<'static>>,
    connections_max: usize,
}

impl HostSettings {
    /// Lets in whoever has a certificate of the authority; where `clients` are named, only one that is for one of these names.
    pub fn new(texts: TlsTexts<'_>, clients: &[String], connections_max: usize) -> Result<Self, TlsFault> {
        let clients = clients.iter().map(|client| tls::name(client)).collect::<Result<_, _>>()?;
        Ok(Self { config: tls::server(texts)?, clients, connections_max })
    }
}

/// One profile that a host offers.
pub struct Hosted {
    /// Its sandboxes.
    pub sandbox: Sandbox,
    /// What they run.
    pub language: Language,
    /// How many at the same time; more wait a while.
    pub parallel_max: usize,
}

struct Offered {
    hosted: Hosted,
    places: Semaphore,
}

struct Host {
    profiles: BTreeMap<String, Offered>,
    clients: Vec<ServerName<'static>>,
    acceptor: TlsAcceptor,
    /// Connections of those that have proved who they are.
    connections: Semaphore,
    stop: CancellationToken,
}

/// Serves until `stop`; returns when every run has ended and nothing of it is left.
pub async fn serve(
    listener: TcpListener,
    settings: HostSettings,
    profiles: BTreeMap<String, Hosted>,
    stop: CancellationToken,
) {
    let offered = |hosted: Hosted| Offered { places: Semaphore::new(hosted.parallel_max), hosted };
    let host = Arc::new(Host {
        profiles: profiles.into_iter().map(|(name, hosted)| (name, offered(hosted))).collect(),
        clients: settings.clients,
        acceptor: TlsAcceptor::from(settings.config),
        connections: Semaphore::new(settings.connections_max),
        stop,
    });
    let (strangers, connections) = (Arc::new(Semaphore::new(HANDSHAKES)), TaskTracker::new());
    loop {
        let Ok(stranger) = strangers.clone().acquire_owned().await else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = host.stop.cancelled() => break,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: waiting helps, spinning does not.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let host = host.clone();
        connections.spawn(async move {
            let known = host.let_in(socket).await;
            drop(stranger);
            match known {
                Ok(stream) => host.connection(Wire::new(stream), peer).await,
                Err(why) => tracing::warn!(%peer, why, "a connection was refused"),
            }
        });
    }
    // Nobody is accepted any more, whatever still waits.
    drop(listener);
    connections.close();
    connections.wait().await;
    for offered in host.profiles.values() {
        offered.hosted.sandbox.close().await;
    }
}

impl Host {
    /// A connection of somebody who has proved to be one of those that may.
    async fn let_in(&self, socket: TcpStream) -> Result<TlsStream<TcpStream>, String> {
        let _slower_without = socket.set_nodelay(true);
        let shaking = timeout(HANDSHAKE_MAX, self.acceptor.accept(socket));
        let stream = tokio::select! {
            stream = shaking => stream.map_err(|_| "it did not prove who it is in time".to_owned())?,
            () = self.stop.cancelled() => return Err("the host stops".to_owned()),
        };
        let stream = stream.map_err(|error| error.to_string())?;
        let session = stream.get_ref().1;
        if session.alpn_protocol() != Some(PROTOCOL) {
            return Err("it speaks another protocol".to_owned());
        }
        let certificate = session.peer_certificates().and_then(<[_]>::first);
        let is_named = |certificate| self.clients.is_empty() || tls::is_for(certificate, &self.clients);
        if !certificate.is_some_and(is_named) {
            return Err("its certificate is for none of the names that may".to_owned());
        }
        Ok(stream)
    }

    async fn connection(&self, mut wire: Wire, peer: SocketAddr) {
        let served = match self.connections.try_acquire() {
            Ok(_place) => self.serve(&mut wire, peer).await,
            Err(_) => Err(Ending::Refused(Refused::new("host", "it has as many connections as it may"))),
        };
        match served {
            Ok(()) => {}
            Err(Ending::Broken(Broken::Closed)) => tracing::info!(%peer, "the client has left"),
            Err(Ending::Broken(broken)) => tracing::warn!(%peer, %broken, "the connection is ended"),
            Err(Ending::Refused(refused)) => {
                tracing::warn!(%peer, %refused, "refused");
                let _gone_already = send_refused(&wire, &refused).await;
            }
        }
        wire.finish().await;
    }

    async fn serve(&self, wire: &mut Wire, peer: SocketAddr) -> Result<(), Ending> {
        let frame = within(OPEN_MAX, wire.next()).await?;
        if frame.kind != Kind::Open {
            return Err(Broken::Protocol("it does not say what it wants").into());
        }
        let open: Open = said(&frame)?;
        let Some(Offered { hosted, places }) = self.profiles.get(&open.profile) else {
            return Err(Refused::new("profile", "it offers no profile of this name").into());
        };
        let ready = Ready { language: hosted.language };
        if open.purpose == Purpose::Look {
            return Ok(wire.say(Kind::Ready, &ready).await?);
        }
        let busy = || Refused::new("host", "as many programs are running as may; nothing ran");
        let _place = self
            .unless_left(wire, async {
                timeout(PLACE_MAX, places.acquire()).await.ok().and_then(Result::ok).ok_or_else(busy)
            })
            .await??;
        match open.purpose {
            Purpose::Session => self.session(wire, hosted, ready, peer).await,
            Purpose::Run | Purpose::Look => self.run(wire, hosted, ready, peer).await,
        }
    }

    async fn run(
        &self,
        wire: &mut Wire,
        hosted: &Hosted,
        ready: Ready,
        peer: SocketAddr,
    ) -> Result<(), Ending> {
        wire.say(Kind::Ready, &ready).await?;
        let (program, narrower) = self.program(wire, PROGRAM_MAX).await?;
        let (watch, cancelled) = (Arc::new(Told(wire.sender())), CancellationToken::new());
        let running = hosted.sandbox.run(program, watch, cancelled.clone());
        let outcome = self.see_to(wire, running, &cancelled).await?;
        hand_over(wire, outcome, narrower, true, peer).await
    }

    async fn session(
        &self,
        wire: &mut Wire,
        hosted: &Hosted,
        ready: Ready,
        peer: SocketAddr,
    ) -> Result<(), Ending> {
        let mut session: Session = self.unless_left(wire, hosted.sandbox.session()).await??;
        wire.say(Kind::Ready, &ready).await?;
        while !session.is_over() {
            let (program, narrower) = self.program(wire, IDLE_MAX).await?;
            let (watch, cancelled) = (Arc::new(Told(wire.sender())), CancellationToken::new());
            let running = session.run(program, watch, cancelled.clone());
            let outcome = self.see_to(wire, running, &cancelled).await?;
            hand_over(wire, outcome, narrower, session.is_over(), peer).await?;
        }
        Ok(())
    }

    /// The next program, which begins to come within this time.
    async fn program(&self, wire: &mut Wire, begins_within: Duration) -> Result<(Program, Narrower), Ending> {
        let stops = || Refused::new("host", "it stops; nothing ran");
        let head = tokio::select! {
            head = within(begins_within, wire.next()) => head?,
            () = self.stop.cancelled() => return Err(stops().into()),
        };
        match head.kind {
            Kind::Program => {}
            // For a program that has ended in the meantime.
            Kind::Cancel => return Err(Broken::Closed.into()),
            _ => return Err(Broken::Protocol("it speaks out of turn").into()),
        }
        let taking = timeout(PROGRAM_MAX, take_program(wire, &head));
        tokio::select! {
            taken = taking => Ok(taken.unwrap_or(Err(Broken::Protocol("it hands its program over too slowly")))?),
            () = self.stop.cancelled() => Err(stops().into()),
        }
    }

    /// Waits for a run to end, and ends it where nobody wants it any more. Whichever way, its sandbox is gone afterwards.
    async fn see_to(
        &self,
        wire: &mut Wire,
        running: impl Future<Output = Result<Outcome, Refused>>,
        cancelled: &CancellationToken,
    ) -> Result<Outcome, Ending> {
        tokio::pin!(running);
        let mut is_stopping = false;
        loop {
            tokio::select! {
                outcome = &mut running => {
                    let stopped = Refused::new("lost", "the host was stopped, and the run with it; it is not run again");
                    return if is_stopping { Err(stopped.into()) } else { Ok(outcome?) };
                }
                frame = wire.next() => match frame {
                    Ok(frame) if frame.kind == Kind::Cancel => cancelled.cancel(),
                    said => {
                        cancelled.cancel();
                        let ended = running.await;
                        tracing::info!(ended = ?ended.map(|outcome| outcome.ended), "the run was given up");
                        return Err(said.err().unwrap_or(Broken::Protocol("it speaks out of turn")).into());
                    }
                },
                () = self.stop.cancelled(), if !is_stopping => {
                    is_stopping = true;
                    cancelled.cancel();
                }
            }
        }
    }

    /// Waits for something before a program is here, as long as the client waits too.
    async fn unless_left<T>(&self, wire: &mut Wire, wanted: impl Future<Output = T>) -> Result<T, Ending> {
        tokio::select! {
            had = wanted => Ok(had),
            said = wire.next() => Err(said.err().unwrap_or(Broken::Protocol("it speaks out of turn")).into()),
            () = self.stop.cancelled() => Err(Refused::new("host", "it stops; nothing ran").into()),
        }
    }
}

/// Why a connection is served no longer.
enum Ending {
    Broken(Broken),
    Refused(Refused),
}

impl From<Broken> for Ending {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

impl From<Refused> for Ending {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

/// Tells the client what the program writes, as far as the connection bears it; the outcome has it whole.
struct Told(Sender);

/// What leaves has to be in the gateway's journal first, and this wire does not ask for that: so nothing leaves.
#[async_trait]
impl egress::Watch for Told {
    async fn decided(&self, _: &Decision) -> Result<(), Unrecorded> {
        Err(Unrecorded)
    }
}

impl Watch for Told {
    fn wrote(&self, stream: Stream, bytes: &[u8]) {
        let kind = match stream {
            Stream::Stdout => Kind::Stdout,
            Stream::Stderr => Kind::Stderr,
        };
        self.0.offer(kind, bytes);
    }
}

async fn within<T>(time: Duration, waiting: impl Future<Output = Result<T, Broken>>) -> Result<T, Broken> {
    timeout(time, waiting).await.unwrap_or(Err(Broken::Protocol("it says nothing for too long")))
}

async fn hand_over(
    wire: &Wire,
    mut outcome: Outcome,
    narrower: Narrower,
    is_over: bool,
    peer: SocketAddr,
) -> Result<(), Ending> {
    let receipt = &outcome.receipt;
    tracing::info!(%peer, ended = ?outcome.ended, wall_us = receipt.used.wall_us, nothing_left = receipt.nothing_left, "ran");
    narrower.cut(&mut outcome);
    Ok(within(OUTCOME_MAX, send_outcome(wire, outcome, is_over)).await?)
}
