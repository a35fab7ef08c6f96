//! Frames: a kind, a length of four bytes (most significant first), a payload. What is no frame ends the connection.

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The longest payload of JSON.
pub(super) const JSON_MAX: usize = 1 << 20;
/// The longest payload of raw bytes; what is longer comes in several frames.
pub(super) const CHUNK_MAX: usize = 64 << 10;
/// Kind and length.
const HEAD: usize = 5;

/// What a frame is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// Nothing, so that the other side knows that someone is there.
    Alive,
    /// Which profile, for a run or a session.
    Open,
    /// A place is kept.
    Ready,
    /// Lengths and limits of a program.
    Program,
    /// The next part of what was announced.
    Bytes,
    /// The run is no longer wanted; its outcome is.
    Cancel,
    /// Standard output, as it comes.
    Stdout,
    /// Standard error, as it comes.
    Stderr,
    /// How it ended, and the lengths of what follows.
    Outcome,
    /// Nothing ran, or nothing runs any more.
    Refused,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::Alive,
        Self::Open,
        Self::Ready,
        Self::Program,
        Self::Bytes,
        Self::Cancel,
        Self::Stdout,
        Self::Stderr,
        Self::Outcome,
        Self::Refused,
    ];

    fn letter(self) -> u8 {
        match self {
            Self::Alive => b'A',
            Self::Open => b'O',
            Self::Ready => b'R',
            Self::Program => b'P',
            Self::Bytes => b'B',
            Self::Cancel => b'C',
            Self::Stdout => b'1',
            Self::Stderr => b'2',
            Self::Outcome => b'E',
            Self::Refused => b'X',
        }
    }

    fn of(letter: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.letter() == letter)
    }

    /// How long its payload may be.
    fn lengths(self) -> std::ops::RangeInclusive<usize> {
        match self {
            Self::Alive | Self::Cancel => 0..=0,
            Self::Bytes | Self::Stdout | Self::Stderr => 1..=CHUNK_MAX,
            Self::Open | Self::Ready | Self::Program | Self::Outcome | Self::Refused => 2..=JSON_MAX,
        }
    }
}

/// One frame.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) payload: Vec<u8>,
}

/// Why a connection is of no more use.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Broken {
    /// The other side closed it.
    #[error("the connection was closed")]
    Closed,
    /// Nothing came for too long, not even a sign of life.
    #[error("nothing was heard for {} seconds", super::wire::SILENCE_MAX.as_secs())]
    Silent,
    /// It failed.
    #[error("{0}")]
    Failed(String),
    /// The other side says what the protocol does not have.
    #[error("the other side does not keep to the protocol: {0}")]
    Protocol(&'static str),
}

impl Broken {
    pub(super) fn failed(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }
}

impl Frame {
    /// One without a payload.
    pub(super) fn bare(kind: Kind) -> Self {
        Self { kind, payload: Vec::new() }
    }

    /// The bytes of it; a payload that is too long is a fault of this program.
    pub(super) fn encode(&self) -> Result<Vec<u8>, Broken> {
        if !self.kind.lengths().contains(&self.payload.len()) {
            return Err(Broken::Protocol("a frame that was to be sent is too long"));
        }
        let length = u32::try_from(self.payload.len()).map_err(Broken::failed)?;
        let mut bytes = Vec::with_capacity(HEAD + self.payload.len());
        bytes.push(self.kind.letter());
        bytes.extend(length.to_be_bytes());
        bytes.extend(&self.payload);
        Ok(bytes)
    }

    /// Reads the next one. Nothing is set aside for it that its kind may not have.
    pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> Result<Self, Broken> {
        let mut head = [0; HEAD];
        if from.read(&mut head[..1]).await.map_err(read_failed)? == 0 {
            return Err(Broken::Closed);
        }
        from.read_exact(&mut head[1..]).await.map_err(read_failed)?;
        let [letter, length @ ..] = head;
        let kind = Kind::of(letter).ok_or(Broken::Protocol("an unknown kind of frame"))?;
        let length = usize::try_from(u32::from_be_bytes(length)).map_err(Broken::failed)?;
        if !kind.lengths().contains(&length) {
            return Err(Broken::Protocol("a frame of a length that its kind may not have"));
        }
        let mut payload = vec![0; length];
        from.read_exact(&mut payload).await.map_err(read_failed)?;
        Ok(Self { kind, payload })
    }
}

fn read_failed(error: std::io::Error) -> Broken {
    // Without a word of farewell, or in the middle of a frame: gone all the same.
    if error.kind() == std::io::ErrorKind::UnexpectedEof { Broken::Closed } else { Broken::failed(error) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(mut bytes: &[u8]) -> (Result<Frame, Broken>, usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let read = runtime.block_on(Frame::read(&mut bytes));
        (read, bytes.len())
    }

    fn frames() -> impl Strategy<Value = Frame> {
        let kind = prop::sample::select(Kind::ALL.to_vec());
        (kind, prop::collection::vec(any::<u8>(), 0..300)).prop_map(|(kind, mut payload)| {
            let lengths = kind.lengths();
            payload.resize(payload.len().clamp(*lengths.start(), *lengths.end()), b' ');
            Frame { kind, payload }
        })
    }

    proptest! {
        #[test]
        fn writing_and_reading_are_inverse(frame in frames(), after in prop::collection::vec(any::<u8>(), 0..20)) {
            let mut bytes = frame.encode().unwrap();
            bytes.extend(&after);
            prop_assert_eq!(read(&bytes), (Ok(frame), after.len()));
        }

        #[test]
        fn whatever_is_cut_short_is_no_frame(frame in frames(), cut in any::<prop::sample::Index>()) {
            let bytes = frame.encode().unwrap();
            prop_assert_eq!(read(&bytes[..cut.index(bytes.len())]).0, Err(Broken::Closed));
        }

        #[test]
        fn garbage_is_read_as_a_frame_only_where_it_is_one(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            if let (Ok(frame), left) = read(&bytes) {
                prop_assert_eq!(&frame.encode().unwrap()[..], &bytes[..bytes.len() - left]);
            }
        }
    }

    #[test]
    fn a_length_that_a_kind_may_not_have_is_refused_before_anything_is_set_aside_for_it() {
        let refused =
            |bytes: &[u8]| matches!(read(bytes).0, Err(Broken::Protocol(why)) if why.contains("length"));
        assert!(refused(b"B\xff\xff\xff\xff"), "four gigabytes");
        assert!(refused(b"B\x00\x01\x00\x01"), "one byte more than a part may have");
        assert!(refused(b"B\x00\x00\x00\x00"), "an empty part, which would keep a wait alive for ever");
        assert!(refused(b"P\x00\x10\x00\x01"));
        assert!(refused(b"A\x00\x00\x00\x01"));
        assert_eq!(read(b"GET / HTTP/1.1\r\n\r\n").0, Err(Broken::Protocol("an unknown kind of frame")));
        let too_long = Frame { kind: Kind::Bytes, payload: vec![0; CHUNK_MAX + 1] };
        assert!(too_long.encode().is_err());
    }
}
