//! A message's body, in pieces.

use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::decision::Reason;
use super::replay::Replay;

/// The longest line of a chunk's size, in bytes.
const SIZE_LINE_BYTES_MAX: usize = 18;
/// The longest trailer, in bytes. Trailers are read and left out.
const TRAILER_BYTES_MAX: usize = 8 << 10;
/// The most bytes of one piece.
const PIECE_BYTES_MAX: u64 = 16 << 10;

/// Where a body ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    /// After this many bytes.
    After(u64),
    /// With an empty chunk.
    EmptyChunk,
    /// With the stream.
    Stream,
}

/// Reads a body. `malformed` and `gone` are the reasons of whoever sends it.
#[derive(Debug)]
pub(crate) struct Body<R> {
    stream: Replay<R>,
    end: End,
    /// Bytes left of the chunk in hand.
    chunk_left: u64,
    is_first_chunk: bool,
    malformed: Reason,
    gone: Reason,
}

impl<R: AsyncRead + Unpin> Body<R> {
    pub(crate) fn new(stream: Replay<R>, end: End, malformed: Reason, gone: Reason) -> Self {
        Self { stream, end, chunk_left: 0, is_first_chunk: true, malformed, gone }
    }

    /// The next piece; `None` at the end.
    pub(crate) async fn piece(&mut self) -> Result<Option<Vec<u8>>, Reason> {
        match self.end {
            End::After(0) => Ok(None),
            End::After(left) => {
                let piece = self.read(left).await?;
                self.end = End::After(left - piece.len() as u64);
                if piece.is_empty() { Err(self.gone) } else { Ok(Some(piece)) }
            }
            End::Stream => Ok(Some(self.read(PIECE_BYTES_MAX).await?).filter(|piece| !piece.is_empty())),
            End::EmptyChunk => self.chunk_piece().await,
        }
    }

    async fn chunk_piece(&mut self) -> Result<Option<Vec<u8>>, Reason> {
        if self.chunk_left == 0 {
            if !self.is_first_chunk && !self.line(0).await?.is_empty() {
                return Err(self.malformed);
            }
            self.is_first_chunk = false;
            self.chunk_left = self.chunk_size().await?;
            if self.chunk_left == 0 {
                self.trailer().await?;
                self.end = End::After(0);
                return Ok(None);
            }
        }
        let piece = self.read(self.chunk_left).await?;
        self.chunk_left -= piece.len() as u64;
        if piece.is_empty() { Err(self.gone) } else { Ok(Some(piece)) }
    }

    /// Digits alone: extensions are refused (RFC 9112 §7.1.1 lets a recipient ignore them, and smuggling lives there).
    async fn chunk_size(&mut self) -> Result<u64, Reason> {
        let line = self.line(SIZE_LINE_BYTES_MAX).await?;
        let digits = std::str::from_utf8(&line).map_err(|_| self.malformed)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(self.malformed);
        }
        u64::from_str_radix(digits, 16).map_err(|_| self.malformed)
    }

    async fn trailer(&mut self) -> Result<(), Reason> {
        let mut total = 0;
        loop {
            let line = self.line(TRAILER_BYTES_MAX).await?;
            total += line.len();
            if line.is_empty() {
                return Ok(());
            }
            if total > TRAILER_BYTES_MAX {
                return Err(self.malformed);
            }
        }
    }

    /// A line of at most `most` bytes without its CRLF.
    async fn line(&mut self, most: usize) -> Result<Vec<u8>, Reason> {
        loop {
            let held = self.stream.held();
            if let Some(at) = held.iter().position(|byte| *byte == b'\n') {
                let mut line = self.stream.use_up(at + 1);
                line.truncate(at);
                let is_clean = line.pop() == Some(b'\r') && !line.contains(&b'\r') && line.len() <= most;
                return if is_clean { Ok(line) } else { Err(self.malformed) };
            }
            if held.len() > most + 1 {
                return Err(self.malformed);
            }
            self.stream.look().await.map_err(|_| self.gone)?;
        }
    }

    async fn read(&mut self, most: u64) -> Result<Vec<u8>, Reason> {
        let mut piece = vec![0; usize::try_from(most.min(PIECE_BYTES_MAX)).unwrap_or_default()];
        let count = self.stream.read(&mut piece).await.map_err(|_| self.gone)?;
        piece.truncate(count);
        Ok(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(text: &str, end: End) -> Result<String, Reason> {
        let stream = Replay::new(text.as_bytes());
        let mut body = Body::new(stream, end, Reason::BadRequest, Reason::ClientGone);
        let mut all = Vec::new();
        while let Some(piece) = body.piece().await? {
            all.extend(piece);
        }
        Ok(String::from_utf8(all).unwrap())
    }

    #[tokio::test]
    async fn a_body_ends_where_its_head_says() {
        assert_eq!(read("abcdef", End::After(3)).await.as_deref(), Ok("abc"));
        assert_eq!(read("abcdef", End::Stream).await.as_deref(), Ok("abcdef"));
        let chunks = "3\r\nabc\r\nA\r\n0123456789\r\n0\r\nx: trailer\r\n\r\nnext";
        assert_eq!(read(chunks, End::EmptyChunk).await.as_deref(), Ok("abc0123456789"));
    }

    #[tokio::test]
    async fn a_body_that_readers_read_differently_is_refused() {
        for text in [
            "3;x=1\r\nabc\r\n0\r\n\r\n",
            "3\nabc\r\n0\r\n\r\n",
            "+3\r\nabc\r\n0\r\n\r\n",
            "0x3\r\nabc\r\n0\r\n\r\n",
            "\r\nabc\r\n0\r\n\r\n",
            "3\r\nabcd\r\n0\r\n\r\n",
            "3\r\nabc\n0\r\n\r\n",
            "11111111111111111\r\nabc",
        ] {
            assert_eq!(read(text, End::EmptyChunk).await, Err(Reason::BadRequest), "{text:?}");
        }
        assert_eq!(read("ab", End::After(3)).await, Err(Reason::ClientGone));
        assert_eq!(read("3\r\nab", End::EmptyChunk).await, Err(Reason::ClientGone));
    }
}
