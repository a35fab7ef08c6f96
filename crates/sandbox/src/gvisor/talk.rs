//! How the gateway and the guest talk: over the guest's standard input, a socket, since `runsc` hands in no other descriptor.
//! Both ways `kind, status, length, bytes`, the way the driver in an interpreter speaks.

use std::io::{self, Read, Write};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// The interpreter waits for a program.
pub(super) const READY: u8 = b'R';
/// A layer could not be put up: its name, a NUL, the reason.
pub(super) const REFUSED: u8 = b'X';
/// The program has ended, without a value and with one.
pub(super) const DONE: u8 = b'D';
pub(super) const VALUE: u8 = b'V';
/// The interpreter has ended: its exit status, or its signal below 0.
pub(super) const ENDED: u8 = b'E';
/// An artifact begins: its name.
pub(super) const ARTIFACT: u8 = b'A';
/// More of the bytes of an artifact.
pub(super) const BYTES: u8 = b'B';
/// What is left out: its name, a NUL, why.
pub(super) const LEFT_OUT: u8 = b'L';
/// No further artifact.
pub(super) const COLLECTED: u8 = b'Z';
/// To the guest: run the program; for Python with what its driver reads.
pub(super) const PROGRAM: u8 = b'P';
/// To the guest: hand out the artifacts. A status of 1: kill what still runs first.
pub(super) const COLLECT: u8 = b'C';

/// Kind, status and length.
const HEAD: usize = 9;
/// The most bytes that the guest says at once.
pub(super) const SAID_MAX: usize = 1 << 17;
/// The most bytes that it is told at once: a program.
const TOLD_MAX: usize = 1 << 30;

/// One message.
pub(super) struct Said {
    pub(super) kind: u8,
    pub(super) status: i32,
    pub(super) bytes: Vec<u8>,
}

impl Said {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// Two texts with a NUL between them.
    pub(super) fn pair(&self) -> Option<(String, String)> {
        let text = self.text();
        text.split_once('\0').map(|(one, other)| (one.to_owned(), other.to_owned()))
    }
}

/// The gateway's end. A wait that is given up loses nothing.
pub(super) struct Talk {
    socket: UnixStream,
    read: Vec<u8>,
}

impl Talk {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self { socket, read: Vec::new() }
    }

    pub(super) async fn say(&mut self, kind: u8, status: i32, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(&head(kind, status, bytes.len())?).await?;
        self.socket.write_all(bytes).await
    }

    /// What is said next; none where the other side is gone, or says what is no message.
    pub(super) async fn next(&mut self) -> Option<Said> {
        loop {
            if let Some((head, rest)) = self.read.split_at_checked(HEAD) {
                let (kind, status, length) = parse(head, SAID_MAX)?;
                if let Some(bytes) = rest.get(..length) {
                    let bytes = bytes.to_vec();
                    self.read.drain(..HEAD + length);
                    return Some(Said { kind, status, bytes });
                }
            }
            if self.socket.read_buf(&mut self.read).await.ok()? == 0 {
                return None;
            }
        }
    }
}

/// The guest's side of it.
pub(super) fn write(to: &mut impl Write, kind: u8, status: i32, bytes: &[u8]) -> io::Result<()> {
    let mut message = head(kind, status, bytes.len())?.to_vec();
    message.extend(bytes);
    to.write_all(&message)
}

/// The guest's side of it; waits.
pub(super) fn read(from: &mut impl Read) -> io::Result<Said> {
    let mut head = [0; HEAD];
    from.read_exact(&mut head)?;
    let (kind, status, length) = parse(&head, TOLD_MAX).ok_or(io::ErrorKind::InvalidData)?;
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    Ok(Said { kind, status, bytes })
}

fn head(kind: u8, status: i32, length: usize) -> io::Result<[u8; HEAD]> {
    let mut head = [kind; HEAD];
    let length = u32::try_from(length).map_err(io::Error::other)?;
    for (place, byte) in
        head.iter_mut().skip(1).zip(status.to_le_bytes().into_iter().chain(length.to_le_bytes()))
    {
        *place = byte;
    }
    Ok(head)
}

fn parse(head: &[u8], most: usize) -> Option<(u8, i32, usize)> {
    let number = |from: usize| head.get(from..from + 4)?.try_into().ok();
    let status = i32::from_le_bytes(number(1)?);
    let length = usize::try_from(u32::from_le_bytes(number(5)?)).ok().filter(|length| *length <= most)?;
    Some((*head.first()?, status, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_too_much_is_not() {
        let mut bytes = Vec::new();
        write(&mut bytes, ENDED, -9, b"a\0b").unwrap();
        let said = read(&mut bytes.as_slice()).unwrap();
        assert_eq!((said.kind, said.status, said.pair()), (ENDED, -9, Some(("a".into(), "b".into()))));
        let head = head(BYTES, 0, SAID_MAX + 1).unwrap();
        assert!(parse(&head, SAID_MAX).is_none());
    }
}
