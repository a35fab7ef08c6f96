//! A stream whose beginning can be looked at and then read again.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// Bytes asked for at a time.
const READ_BYTES: usize = 16 << 10;

/// A stream, and what was read of it but not used.
#[derive(Debug)]
pub(crate) struct Replay<S> {
    held: Vec<u8>,
    inner: S,
}

impl<S> Replay<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { held: Vec::new(), inner }
    }

    /// What was read and not used.
    pub(crate) fn held(&self) -> &[u8] {
        &self.held
    }

    /// Uses the first `count` bytes of it.
    pub(crate) fn use_up(&mut self, count: usize) -> Vec<u8> {
        let rest = self.held.split_off(count.min(self.held.len()));
        std::mem::replace(&mut self.held, rest)
    }
}

impl<S: AsyncRead + Unpin> Replay<S> {
    /// Reads once more and holds it. The end of the stream is an error: whoever looks ahead is not done.
    pub(crate) async fn look(&mut self) -> io::Result<()> {
        let held = self.held.len();
        self.held.resize(held + READ_BYTES, 0);
        let read = self.inner.read(self.held.get_mut(held..).unwrap_or_default()).await;
        self.held.truncate(held + read.as_ref().map_or(0, |count| *count));
        if read? == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Replay<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.held.is_empty() {
            return Pin::new(&mut self.inner).poll_read(task, buffer);
        }
        let taken = self.use_up(buffer.remaining());
        buffer.put_slice(&taken);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Replay<S> {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(task, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(task)
    }
}
