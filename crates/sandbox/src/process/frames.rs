//! What the driver in an interpreter says: `kind, status, length, text`. It is the program's word, and believed of it alone.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// One frame.
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) status: i32,
    pub(super) text: String,
}

/// Frames as they come. A wait that is given up loses nothing.
pub(super) struct Frames {
    /// None once nothing more is listened to.
    socket: Option<UnixStream>,
    read: Vec<u8>,
}

/// Kind, status and length.
const HEAD: usize = 9;
/// The longest text that is taken, in bytes.
const TEXT_MAX: usize = 1 << 17;

impl Frames {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self { socket: Some(socket), read: Vec::new() }
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match &mut self.socket {
            Some(socket) => socket.write_all(bytes).await,
            None => Err(std::io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Listens no more. Descriptors that a program has sent here are let go of, its own outputs among them.
    pub(super) fn close(&mut self) {
        self.socket = None;
    }

    /// The next frame; none where the other side is gone, or says what is no frame.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some((head, rest)) = self.read.split_at_checked(HEAD) {
                let number = |from: usize| {
                    head.get(from..from + 4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_le_bytes)
                };
                let (kind, status) = (*head.first()?, number(1)?);
                let length = usize::try_from(number(5)?).ok().filter(|length| *length <= TEXT_MAX)?;
                if let Some(text) = rest.get(..length) {
                    let text = String::from_utf8_lossy(text).into_owned();
                    self.read.drain(..HEAD + length);
                    return Some(Frame { kind, status, text });
                }
            }
            if self.socket.as_mut()?.read_buf(&mut self.read).await.ok()? == 0 {
                return None;
            }
        }
    }
}
