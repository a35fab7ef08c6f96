//! Listens on sockets that were bound inside the sandbox's network namespace, and answers for as long as the sandbox lives.

use std::io;
use std::net::{TcpListener as StdTcpListener, UdpSocket as StdUdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::authority::Authority;
use super::conversation::converse;
use super::decision::{Reason, Via};
use super::dns;
use super::meter::{Counts, Totals};
use super::names::Names;
use super::passage::{Gate, Outside, Passage, in_time};
use super::rules::Rules;

/// The longest message of the name server, in bytes.
const MESSAGE_BYTES_MAX: usize = 2048;
/// How long to wait after a socket failed, so that one that keeps failing costs little.
const PAUSE: Duration = Duration::from_millis(20);

/// Sockets bound inside the sandbox. What is missing is not served.
#[derive(Debug, Default)]
pub struct Listeners {
    /// 127.0.0.1:3128: `CONNECT`, and plain HTTP in absolute form.
    pub proxy: Option<StdTcpListener>,
    /// 0.0.0.0:80: plain HTTP to addresses that the name server made up.
    pub http: Option<StdTcpListener>,
    /// 0.0.0.0:443: TLS to such addresses.
    pub tls: Option<StdTcpListener>,
    /// 127.0.0.1:53, or wherever `resolv.conf` inside points: the name server.
    pub dns_udp: Option<StdUdpSocket>,
    /// The name server over TCP.
    pub dns_tcp: Option<StdTcpListener>,
}

/// The way out of one sandbox. Dropping it ends every connection.
pub struct Egress {
    gate: Arc<Gate>,
    tasks: TaskTracker,
    _stop: DropGuard,
}

/// The egress could not begin.
#[derive(Debug, thiserror::Error)]
pub enum NotServed {
    /// A socket could not be used.
    #[error("a listening socket could not be used")]
    Socket(#[source] io::Error),
    /// The sandbox's own authority could not be made.
    #[error("no certificate authority could be made for the sandbox")]
    Authority,
}

/// Begins to serve. Must be called in a tokio runtime.
pub fn serve(listeners: Listeners, rules: Arc<Rules>, outside: Outside) -> Result<Egress, NotServed> {
    let authority =
        if rules.inspects() { Some(Authority::generate().map_err(|_| NotServed::Authority)?) } else { None };
    let slots =
        Arc::new(Semaphore::new(rules.limits.connections_at_once_max.try_into().unwrap_or(usize::MAX)));
    let stop = CancellationToken::new();
    let counts = Arc::new(Counts::default());
    let gate = Gate { rules, outside, counts, names: Names::default(), authority, stop: stop.clone() };
    let server = Server { gate: Arc::new(gate), tasks: TaskTracker::new(), slots };
    let doors = [
        (listeners.proxy, Door::Way(Via::Proxy)),
        (listeners.http, Door::Way(Via::TransparentHttp)),
        (listeners.tls, Door::Way(Via::TransparentTls)),
        (listeners.dns_tcp, Door::Names),
    ];
    for (listener, door) in doors {
        if let Some(listener) = listener {
            listener.set_nonblocking(true).map_err(NotServed::Socket)?;
            let listener = TcpListener::from_std(listener).map_err(NotServed::Socket)?;
            server.tasks.spawn(server.clone().accept(listener, door));
        }
    }
    if let Some(socket) = listeners.dns_udp {
        socket.set_nonblocking(true).map_err(NotServed::Socket)?;
        let socket = UdpSocket::from_std(socket).map_err(NotServed::Socket)?;
        server.tasks.spawn(server.clone().answer_names(socket));
    }
    server.tasks.close();
    Ok(Egress { gate: server.gate, tasks: server.tasks, _stop: stop.drop_guard() })
}

impl Egress {
    /// The authority that programs inside must trust where a rule inspects: a certificate, never a key.
    #[must_use]
    pub fn ca_pem(&self) -> Option<&str> {
        self.gate.authority.as_ref().map(Authority::pem)
    }

    /// What was used so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.gate.counts.totals()
    }

    /// Ends every connection, waits until each end is on record, and says what was used.
    pub async fn stop(self) -> Totals {
        self.gate.stop.cancel();
        self.tasks.wait().await;
        self.totals()
    }
}

/// What is behind a listener.
#[derive(Clone, Copy)]
enum Door {
    Way(Via),
    Names,
}

#[derive(Clone)]
struct Server {
    gate: Arc<Gate>,
    tasks: TaskTracker,
    slots: Arc<Semaphore>,
}

impl Server {
    /// Accepts one connection at a time, and the next only when there is a slot: others wait in the kernel's queue.
    async fn accept(self, listener: TcpListener, door: Door) {
        let stop = self.gate.stop.clone();
        loop {
            let accepting = async {
                let accepted = listener.accept().await.ok()?;
                let slot = Arc::clone(&self.slots).acquire_owned().await.ok()?;
                Some((accepted.0, slot))
            };
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                accepted = accepting => accepted,
            };
            let Some((stream, slot)) = accepted else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let number = self.gate.counts.connections.fetch_add(1, Ordering::Relaxed) + 1;
            if number > self.gate.rules.limits.connections_max {
                // Said once, by the first that is too many.
                if number == self.gate.rules.limits.connections_max + 1 {
                    let via = if let Door::Way(via) = door { via } else { Via::Proxy };
                    Passage::new(&self.gate, via, number).close(Reason::TooManyConnections).await;
                }
                return;
            }
            self.tasks.spawn(enter(Arc::clone(&self.gate), door, number, stream, slot));
        }
    }

    async fn answer_names(self, socket: UdpSocket) {
        let mut message = vec![0; MESSAGE_BYTES_MAX];
        loop {
            let received = tokio::select! {
                biased;
                () = self.gate.stop.cancelled() => return,
                received = socket.recv_from(&mut message) => received,
            };
            let Ok((count, from)) = received else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            if let Some(answer) = dns::answer(message.get(..count).unwrap_or_default(), &self.gate.names) {
                // A full queue loses an answer, as networks do.
                let _lost = socket.try_send_to(&answer, from);
            }
        }
    }
}

async fn enter(gate: Arc<Gate>, door: Door, number: u64, stream: TcpStream, slot: OwnedSemaphorePermit) {
    match door {
        Door::Way(via) => converse(gate, via, number, stream).await,
        Door::Names => {
            let most = gate.rules.limits.head();
            tokio::select! {
                biased;
                () = gate.stop.cancelled() => {}
                _ = in_time(most, answer_names_on(&gate, stream)) => {}
            }
        }
    }
    drop(slot);
}

/// The name server over TCP: each message after its length (RFC 7766).
async fn answer_names_on(gate: &Gate, mut stream: TcpStream) -> io::Result<()> {
    loop {
        let mut message = vec![0; usize::from(stream.read_u16().await?).min(MESSAGE_BYTES_MAX)];
        stream.read_exact(&mut message).await?;
        let Some(answer) = dns::answer(&message, &gate.names) else { return Ok(()) };
        stream.write_u16(u16::try_from(answer.len()).map_err(io::Error::other)?).await?;
        stream.write_all(&answer).await?;
    }
}
