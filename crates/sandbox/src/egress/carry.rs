//! Carries bytes from one side to the other: counted, bounded in time, searched.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::body::{Body, End};
use super::decision::Reason;
use super::meter::{Meter, Way};
use super::passage::in_time;
use super::search::{Last, Search};

/// How long a refused client may take to read why, and how much of what it still sends is thrown away.
const FAREWELL: Duration = Duration::from_secs(1);
const FAREWELL_BYTES: u64 = 256 << 10;

/// One direction of one connection.
pub(crate) struct Lane<'w, W> {
    pub(crate) to: &'w mut W,
    pub(crate) meter: &'w Meter,
    pub(crate) way: Way,
    pub(crate) idle: Duration,
}

impl<W: AsyncWrite + Unpin> Lane<'_, W> {
    /// Sends as much as the budget allows; what it does not is an error.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<(), Reason> {
        let granted = self.meter.take(self.way, bytes.len());
        let gone = match self.way {
            Way::Up => Reason::UpstreamGone,
            Way::Down => Reason::ClientGone,
        };
        let sending = async {
            self.to.write_all(bytes.get(..granted).unwrap_or_default()).await?;
            self.to.flush().await
        };
        in_time(self.idle, sending).await?.map_err(|_| gone)?;
        if granted < bytes.len() { Err(self.way.exhausted()) } else { Ok(()) }
    }

    /// Sends a body through a search; in chunks, unless its length was said. Lengths do not change on the way.
    pub(crate) async fn send_body<R: AsyncRead + Unpin>(
        &mut self,
        mut body: Body<R>,
        end: End,
        mut search: Search,
        found: Found,
    ) -> Result<(), Reason> {
        let in_chunks = !matches!(end, End::After(_));
        loop {
            let piece = in_time(self.idle, body.piece()).await??;
            let last = if piece.is_none() { Last::Yes } else { Last::No };
            let mut clean = Vec::new();
            if search.pass(&piece.unwrap_or_default(), last, &mut clean) && found == Found::Refuse {
                return Err(Reason::Placeholder);
            }
            if in_chunks && !clean.is_empty() {
                clean = [format!("{:x}\r\n", clean.len()).as_bytes(), &clean, b"\r\n"].concat();
            }
            if in_chunks && last == Last::Yes {
                clean.extend_from_slice(b"0\r\n\r\n");
            }
            self.send(&clean).await?;
            if last == Last::Yes {
                return Ok(());
            }
        }
    }
}

/// What is done about a find: a secret is masked, a placeholder ends it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Found {
    Mask,
    Refuse,
}

/// Carries everything, unread, until both sides are done.
pub(crate) async fn tunnel(
    client: impl AsyncRead + AsyncWrite,
    upstream: impl AsyncRead + AsyncWrite,
    meter: &Meter,
    idle: Duration,
) -> Result<(), Reason> {
    let (client_read, mut client_write) = tokio::io::split(client);
    let (upstream_read, mut upstream_write) = tokio::io::split(upstream);
    let up = pump(client_read, Lane { to: &mut upstream_write, meter, way: Way::Up, idle });
    let down = pump(upstream_read, Lane { to: &mut client_write, meter, way: Way::Down, idle });
    tokio::try_join!(up, down).map(|_| ())
}

async fn pump<W: AsyncWrite + Unpin>(
    mut from: impl AsyncRead + Unpin,
    mut lane: Lane<'_, W>,
) -> Result<(), Reason> {
    let gone = if lane.way == Way::Up { Reason::ClientGone } else { Reason::UpstreamGone };
    let mut buffer = vec![0; 16 << 10];
    loop {
        let before = lane.meter.own();
        let count = match in_time(lane.idle, from.read(&mut buffer)).await {
            Ok(read) => read.map_err(|_| gone)?,
            // The other direction moves.
            Err(_) if lane.meter.own() != before => continue,
            Err(reason) => return Err(reason),
        };
        if count == 0 {
            let _gone_already = in_time(lane.idle, lane.to.shutdown()).await?;
            return Ok(());
        }
        lane.send(buffer.get(..count).unwrap_or_default()).await?;
    }
}

/// Tells the client why not, in HTTP.
pub(crate) async fn refuse(client: &mut (impl AsyncRead + AsyncWrite + Unpin), reason: Reason) {
    let (status, text) = match reason {
        Reason::BadRequest | Reason::HostMismatch | Reason::Upgrade | Reason::Override => {
            (400, "the egress proxy takes strict HTTP/1.1 alone")
        }
        Reason::TimeLimit => (408, "too slow"),
        Reason::EncodedBody => (415, "send the body without content-encoding"),
        Reason::Unresolved | Reason::Unreachable | Reason::UpstreamTls | Reason::UpstreamGone => {
            (502, "the server could not be reached")
        }
        Reason::BadAnswer => (502, "the server's answer was refused"),
        Reason::Unrecorded | Reason::Stopped => (503, "the egress proxy is not available"),
        _ => (403, "the egress rules of this sandbox do not allow it"),
    };
    let answer = format!(
        "HTTP/1.1 {status} \r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}\n",
        text.len() + 1
    );
    let telling = async {
        client.write_all(answer.as_bytes()).await?;
        client.flush().await
    };
    if matches!(in_time(FAREWELL, telling).await, Ok(Ok(()))) {
        finish(client).await;
    }
}

/// Ends our side, then reads a little of what still comes, so that the client is not reset before it has read the answer.
pub(crate) async fn finish(client: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let ending = async {
        client.shutdown().await?;
        tokio::io::copy(&mut client.take(FAREWELL_BYTES), &mut tokio::io::sink()).await
    };
    let _gone_already = in_time(FAREWELL, ending).await;
}
