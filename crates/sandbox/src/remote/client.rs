//! The gateway's side: a backend whose sandboxes are on another machine.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::frame::{Broken, Frame, Kind};
use super::message::{Narrower, Open, Purpose, Ready, is_too_large, send_program, take_outcome};
use super::wire::{Wire, said};
use super::{PROTOCOL, TlsFault, TlsTexts, tls};
use crate::backend::{Backend, Kernel};
use crate::{Outcome, Profile, Program, Refused, Stream, Watch};

/// How long a connection may take, with the proof of who is who.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long a place may take to be had: other programs may have to end first, and a sandbox to be built.
const READY_MAX: Duration = Duration::from_secs(30);
/// How long a program and its files may take to be handed over.
const SENDING_MAX: Duration = Duration::from_mins(1);
/// How much longer than its time a run may take until its outcome is here, with what it left.
const OUTCOME_MAX: Duration = Duration::from_mins(1);

/// Where a sandbox host is, and how both prove who they are.
#[derive(Clone)]
pub struct RemoteSettings {
    address: String,
    profile: String,
    server_name: ServerName<'static>,
    config: Arc<ClientConfig>,
}

impl RemoteSettings {
    /// A host at `HOST:PORT` whose certificate is for `server_name`, and the name that one of its profiles has there.
    pub fn new(
        address: impl Into<String>,
        server_name: &str,
        profile: impl Into<String>,
        texts: TlsTexts<'_>,
    ) -> Result<Self, TlsFault> {
        let (server_name, config) = (tls::name(server_name)?, tls::client(texts)?);
        Ok(Self { address: address.into(), profile: profile.into(), server_name, config })
    }
}

/// Without the key.
impl fmt::Debug for RemoteSettings {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("RemoteSettings")
            .field("address", &self.address)
            .field("server_name", &self.server_name)
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}

impl Eq for RemoteSettings {}

impl PartialEq for RemoteSettings {
    fn eq(&self, other: &Self) -> bool {
        self.address == other.address
            && self.profile == other.profile
            && self.server_name == other.server_name
            && Arc::ptr_eq(&self.config, &other.config)
    }
}

/// Sandboxes of one profile of a host.
#[derive(Clone)]
pub(crate) struct Remote(Arc<Inner>);

struct Inner {
    profile: Profile,
    settings: RemoteSettings,
}

impl Remote {
    pub(crate) fn new(profile: Profile, settings: RemoteSettings) -> Self {
        Self(Arc::new(Inner { profile, settings }))
    }

    /// A connection on which a place is kept. Nothing has run yet, whatever fails.
    async fn open(&self, purpose: Purpose) -> Result<Wire, Refused> {
        let settings = &self.0.settings;
        let mut wire = timeout(CONNECT_MAX, connect(settings))
            .await
            .unwrap_or_else(|_| Err("it does not answer".to_owned()))
            .map_err(|why| self.unreachable(&why))?;
        let open = Open { profile: settings.profile.clone(), purpose };
        wire.say(Kind::Open, &open).await.map_err(|broken| self.unreachable(&broken))?;
        let answer = timeout(READY_MAX, wire.next()).await.unwrap_or(Err(Broken::Silent));
        let answer = answer.map_err(|broken| self.unreachable(&broken))?;
        match answer.kind {
            Kind::Ready => {}
            Kind::Refused => return Err(self.refused(&answer)),
            _ => return Err(self.unreachable(&Broken::Protocol("it answers with something else"))),
        }
        let ready: Ready = said(&answer).map_err(|broken| self.unreachable(&broken))?;
        let (here, there) = (self.0.profile.language, ready.language);
        if here != there {
            let (here, there) = (here.as_str(), there.as_str());
            let why =
                format!("`{}` on {} is for {there}, not for {here}", settings.profile, settings.address);
            return Err(Refused::new("profile", why));
        }
        Ok(wire)
    }

    fn unreachable(&self, why: &impl fmt::Display) -> Refused {
        let reason =
            format!("the sandbox host at {} cannot be used, and nothing ran: {why}", self.0.settings.address);
        Refused::new("host", reason)
    }

    fn lost(&self, why: &impl fmt::Display) -> Refused {
        let reason = format!(
            "the sandbox host at {} was lost while a program was there: {why}; it may have run, inside its sandbox alone, \
             and is not run again",
            self.0.settings.address
        );
        Refused::new("lost", reason)
    }

    /// What the host says, as a line of ours: it goes into logs.
    fn refused(&self, frame: &Frame) -> Refused {
        let Ok(refused) = said::<Refused>(frame) else {
            return self.unreachable(&Broken::Protocol("a refusal that is none"));
        };
        let shown = |text: &str| text.chars().take(1000).collect::<String>().escape_debug().to_string();
        let reason = format!("{} says: {}", self.0.settings.address, shown(&refused.reason));
        Refused::new(&shown(&refused.layer), reason)
    }

    /// Runs a program on a connection on which a place is kept; and whether it was the last.
    async fn play(
        &self,
        wire: &mut Wire,
        program: Program,
        watch: Arc<dyn Watch>,
        cancelled: CancellationToken,
    ) -> Result<(Outcome, bool), Refused> {
        let narrower = Narrower::of(&program, &self.0.profile.limits);
        let sent = timeout(SENDING_MAX, send_program(wire, program, narrower)).await;
        let sent = sent.unwrap_or(Err(Broken::Failed("it takes the program too slowly".to_owned())));
        if let Err(broken) = sent {
            return Err(self.why_not_taken(wire, &broken).await);
        }
        let within = Duration::from_millis(narrower.wall_ms).saturating_add(OUTCOME_MAX);
        match timeout(within, self.hear(wire, narrower, watch, cancelled)).await {
            Ok(heard) => heard,
            Err(_) => Err(self.lost(&"it has no outcome long after the program's time")),
        }
    }

    /// A refusal that came instead of an ear for the program, if there is one.
    async fn why_not_taken(&self, wire: &mut Wire, broken: &Broken) -> Refused {
        match timeout(Duration::from_secs(1), wire.next()).await {
            Ok(Ok(frame)) if frame.kind == Kind::Refused => self.refused(&frame),
            _ => self.lost(broken),
        }
    }

    async fn hear(
        &self,
        wire: &mut Wire,
        narrower: Narrower,
        watch: Arc<dyn Watch>,
        cancelled: CancellationToken,
    ) -> Result<(Outcome, bool), Refused> {
        let mut is_cancelled = false;
        // Both streams, and what of the last part is over the limit.
        let mut bytes_left = self.0.profile.limits.output_bytes_max.saturating_add(1 << 20).saturating_mul(2);
        loop {
            let frame = tokio::select! {
                frame = wire.next() => frame.map_err(|broken| self.lost(&broken))?,
                () = cancelled.cancelled(), if !is_cancelled => {
                    is_cancelled = true;
                    wire.send(Frame::bare(Kind::Cancel)).await.map_err(|broken| self.lost(&broken))?;
                    continue;
                }
            };
            let stream = match frame.kind {
                Kind::Stdout => Stream::Stdout,
                Kind::Stderr => Stream::Stderr,
                Kind::Refused => return Err(self.refused(&frame)),
                Kind::Outcome => {
                    let taken = take_outcome(wire, &frame, &narrower).await;
                    return taken.map_err(|broken| self.lost(&broken));
                }
                _ => return Err(self.lost(&Broken::Protocol("it speaks out of turn"))),
            };
            bytes_left = bytes_left
                .checked_sub(frame.payload.len() as u64)
                .ok_or_else(|| self.lost(&Broken::Protocol("more output than a program may write")))?;
            watch.wrote(stream, &frame.payload);
        }
    }
}

#[async_trait]
impl Backend for Remote {
    /// Whether the host is there, and has the profile.
    async fn warm(&self) -> Result<(), Refused> {
        self.open(Purpose::Look).await.map(drop)
    }

    async fn run(
        &self,
        program: Program,
        watch: Arc<dyn Watch>,
        cancelled: CancellationToken,
    ) -> Result<Outcome, Refused> {
        check(&program)?;
        let mut wire = tokio::select! {
            wire = self.open(Purpose::Run) => wire?,
            () = cancelled.cancelled() => return Err(Refused::new("host", "it was cancelled before it began")),
        };
        let (outcome, _) = self.play(&mut wire, program, watch, cancelled).await?;
        Ok(outcome)
    }

    /// What waits for programs waits there.
    async fn close(&self) {}

    async fn session(&self) -> Result<Box<dyn Kernel>, Refused> {
        let wire = self.open(Purpose::Session).await?;
        Ok(Box::new(Held { remote: self.clone(), wire: Some(wire) }))
    }
}

/// The sandbox of a session, while there is one.
struct Held {
    remote: Remote,
    wire: Option<Wire>,
}

#[async_trait]
impl Kernel for Held {
    async fn run(
        &mut self,
        program: Program,
        watch: Arc<dyn Watch>,
        cancelled: CancellationToken,
    ) -> Result<Outcome, Refused> {
        check(&program)?;
        // Taken out: whoever gives this up half-way has closed the connection, and so destroyed it.
        let mut wire = self.wire.take().ok_or_else(|| Refused::new("session", "it is over"))?;
        let (outcome, is_over) = self.remote.play(&mut wire, program, watch, cancelled).await?;
        if !is_over {
            self.wire = Some(wire);
        }
        Ok(outcome)
    }

    fn is_over(&self) -> bool {
        self.wire.is_none()
    }
}

fn check(program: &Program) -> Result<(), Refused> {
    if is_too_large(program) {
        return Err(Refused::new("input", "the program and its files are more than a sandbox host takes"));
    }
    Ok(())
}

/// A connection to a host that has proved who it is. Whether it believes us shows with its first answer.
async fn connect(settings: &RemoteSettings) -> Result<Wire, String> {
    let socket = TcpStream::connect(&settings.address).await.map_err(|error| error.to_string())?;
    socket.set_nodelay(true).map_err(|error| error.to_string())?;
    let connector = TlsConnector::from(settings.config.clone());
    let stream =
        connector.connect(settings.server_name.clone(), socket).await.map_err(|error| error.to_string())?;
    if stream.get_ref().1.alpn_protocol() != Some(PROTOCOL) {
        return Err("it speaks another version of the protocol".to_owned());
    }
    Ok(Wire::new(stream))
}
