//! The bytes of a connection, counted: no answer takes more memory than its call may, not even one that is a single row.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::config::Host;

/// How long a peer may leave what was sent unanswered before its connection counts as dead.
const SILENCE: Duration = Duration::from_secs(30);

/// How many more bytes may come.
#[derive(Clone, Default)]
pub(super) struct Allowance(Arc<AtomicU64>);

impl Allowance {
    /// From now on, so many.
    pub(super) fn set(&self, bytes: u64) {
        self.0.store(bytes, Ordering::Relaxed);
    }

    /// Whether more came, so that the connection was given up.
    pub(super) fn is_used_up(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    fn take(&self, bytes: usize) -> io::Result<()> {
        let left = self.0.load(Ordering::Relaxed).saturating_sub(bytes as u64);
        self.0.store(left, Ordering::Relaxed);
        if left == 0 { Err(io::Error::other("the answer is too large")) } else { Ok(()) }
    }
}

/// A socket with an allowance.
pub(super) struct Wire {
    socket: Socket,
    allowance: Allowance,
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Wire {
    pub(super) async fn dial(host: &Host, port: u16, allowance: Allowance) -> io::Result<Self> {
        let socket = match host {
            Host::Tcp(name) => Socket::Tcp(tcp(name, port).await?),
            Host::Unix(folder) => {
                Socket::Unix(UnixStream::connect(folder.join(format!(".s.PGSQL.{port}"))).await?)
            }
        };
        Ok(Self { socket, allowance })
    }
}

async fn tcp(name: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((name.trim_matches(['[', ']']), port)).await?;
    stream.set_nodelay(true)?;
    rustix::net::sockopt::set_socket_keepalive(&stream, true)?;
    rustix::net::sockopt::set_tcp_keepidle(&stream, SILENCE)?;
    let milliseconds = u32::try_from(SILENCE.as_millis()).unwrap_or(u32::MAX);
    rustix::net::sockopt::set_tcp_user_timeout(&stream, milliseconds)?;
    Ok(stream)
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        let before = buffer.filled().len();
        let read = match &mut wire.socket {
            Socket::Tcp(stream) => Pin::new(stream).poll_read(task, buffer),
            Socket::Unix(stream) => Pin::new(stream).poll_read(task, buffer),
        };
        match read {
            Poll::Ready(Ok(())) => Poll::Ready(wire.allowance.take(buffer.filled().len() - before)),
            other => other,
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().socket {
            Socket::Tcp(stream) => Pin::new(stream).poll_write(task, bytes),
            Socket::Unix(stream) => Pin::new(stream).poll_write(task, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            Socket::Tcp(stream) => Pin::new(stream).poll_flush(task),
            Socket::Unix(stream) => Pin::new(stream).poll_flush(task),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            Socket::Tcp(stream) => Pin::new(stream).poll_shutdown(task),
            Socket::Unix(stream) => Pin::new(stream).poll_shutdown(task),
        }
    }
}
