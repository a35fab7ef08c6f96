//! One connection, whichever side: frames come and go through bounded queues, a sign of life goes out each second, and whoever is
//! silent for too long is gone. Dropping it closes the connection at once.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::frame::{Broken, CHUNK_MAX, Frame, Kind};

/// How long a peer may be silent: a network that is gone is noticed within it.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(5);
/// How often a sign of life is sent.
const ALIVE_EACH: Duration = Duration::from_secs(1);
/// How long one frame may take to be sent.
const SENDING_MAX: Duration = Duration::from_secs(5);
/// Frames that wait to be read, and to be sent.
const QUEUE: usize = 16;

pub(super) struct Wire {
    incoming: mpsc::Receiver<Result<Frame, Broken>>,
    outgoing: mpsc::Sender<Frame>,
    /// Set once: why there is nothing more to be read.
    ended: Option<Broken>,
    reader: AbortOnDropHandle<()>,
    writer: AbortOnDropHandle<()>,
}

/// Sends on a connection that somebody else reads from.
#[derive(Clone)]
pub(super) struct Sender(mpsc::Sender<Frame>);

impl Sender {
    /// Sends a part of an output if there is room for it now.
    pub(super) fn offer(&self, kind: Kind, bytes: &[u8]) {
        for part in bytes.chunks(CHUNK_MAX) {
            let _no_room = self.0.try_send(Frame { kind, payload: part.to_vec() });
        }
    }
}

impl Wire {
    pub(super) fn new(stream: impl AsyncRead + AsyncWrite + Send + 'static) -> Self {
        let (reading, writing) = tokio::io::split(stream);
        let (to_incoming, incoming) = mpsc::channel(QUEUE);
        let (outgoing, to_send) = mpsc::channel(QUEUE);
        let reader = tokio::spawn(read_all(reading, to_incoming));
        let writer = tokio::spawn(write_all(writing, to_send));
        Self {
            incoming,
            outgoing,
            ended: None,
            reader: AbortOnDropHandle::new(reader),
            writer: AbortOnDropHandle::new(writer),
        }
    }

    pub(super) fn sender(&self) -> Sender {
        Sender(self.outgoing.clone())
    }

    /// The next frame that says something. A wait that is given up loses nothing.
    pub(super) async fn next(&mut self) -> Result<Frame, Broken> {
        if let Some(broken) = &self.ended {
            return Err(broken.clone());
        }
        match self.incoming.recv().await.unwrap_or(Err(Broken::Closed)) {
            Ok(frame) => Ok(frame),
            Err(broken) => {
                self.ended = Some(broken.clone());
                Err(broken)
            }
        }
    }

    pub(super) async fn send(&self, frame: Frame) -> Result<(), Broken> {
        self.outgoing.send(frame).await.map_err(|_| Broken::Closed)
    }

    pub(super) async fn say(&self, kind: Kind, said: &impl Serialize) -> Result<(), Broken> {
        let payload = serde_json::to_vec(said).map_err(Broken::failed)?;
        self.send(Frame { kind, payload }).await
    }

    /// Sends bytes whose length the other side knows.
    pub(super) async fn send_bytes(&self, bytes: &[u8]) -> Result<(), Broken> {
        for part in bytes.chunks(CHUNK_MAX) {
            self.send(Frame { kind: Kind::Bytes, payload: part.to_vec() }).await?;
        }
        Ok(())
    }

    /// Takes so many bytes, which are a whole number of frames.
    pub(super) async fn take_bytes(&mut self, length: u64) -> Result<Vec<u8>, Broken> {
        let length = usize::try_from(length).map_err(Broken::failed)?;
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let part = self.next().await?;
            if part.kind != Kind::Bytes || part.payload.len() > length - bytes.len() {
                return Err(Broken::Protocol("something else came where bytes were announced"));
            }
            bytes.extend(part.payload);
        }
        Ok(bytes)
    }

    /// Lets what was sent arrive, and says farewell.
    pub(super) async fn finish(self) {
        let Self { incoming, outgoing, writer, reader, .. } = self;
        drop(outgoing);
        let _gave_up = timeout(SENDING_MAX, writer).await;
        drop((incoming, reader));
    }
}

/// What a frame says, strictly.
pub(super) fn said<T: DeserializeOwned>(frame: &Frame) -> Result<T, Broken> {
    serde_json::from_slice(&frame.payload).map_err(|_| Broken::Protocol("JSON that is not what it has to be"))
}

async fn read_all(mut from: impl AsyncRead + Unpin, to: mpsc::Sender<Result<Frame, Broken>>) {
    loop {
        // The whole frame has to be there in time: what comes byte by byte holds nobody.
        let read = timeout(SILENCE_MAX, Frame::read(&mut from)).await.unwrap_or(Err(Broken::Silent));
        let is_over = read.is_err();
        if matches!(&read, Ok(frame) if frame.kind == Kind::Alive) {
            continue;
        }
        if to.send(read).await.is_err() || is_over {
            return;
        }
    }
}

async fn write_all(mut to: impl AsyncWrite + Unpin, mut frames: mpsc::Receiver<Frame>) {
    loop {
        let frame = match timeout(ALIVE_EACH, frames.recv()).await {
            Ok(Some(frame)) => frame,
            Ok(None) => break,
            Err(_) => Frame::bare(Kind::Alive),
        };
        let Ok(bytes) = frame.encode() else { return };
        let sending = async {
            to.write_all(&bytes).await?;
            to.flush().await
        };
        if !matches!(timeout(SENDING_MAX, sending).await, Ok(Ok(()))) {
            return;
        }
    }
    let _gone_already = timeout(SENDING_MAX, to.shutdown()).await;
}
