//! The head of an HTTP/1.1 message (RFC 9112), read strictly: what readers are known to read in different ways is refused.

use std::io;

use tokio::io::AsyncRead;

use super::decision::Reason;
use super::replay::Replay;

/// The longest head, in bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// The most header lines.
const HEADERS_MAX: usize = 100;

/// Why there is no head.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoHead {
    #[error("the stream ended")]
    Gone(#[source] io::Error),
    #[error("it is not strict HTTP/1.1")]
    Malformed,
}

impl NoHead {
    pub(crate) fn reason(&self, malformed: Reason, gone: Reason) -> Reason {
        match self {
            Self::Gone(_) => gone,
            Self::Malformed => malformed,
        }
    }
}

/// The start line's parts, and the headers.
#[derive(Clone, Debug)]
pub(crate) struct RequestHead {
    pub(crate) method: String,
    pub(crate) target: String,
    /// Whether it is HTTP/1.1; otherwise HTTP/1.0.
    pub(crate) is_1_1: bool,
    pub(crate) headers: Headers,
}

/// An answer's status and headers.
#[derive(Clone, Debug)]
pub(crate) struct AnswerHead {
    pub(crate) status: u16,
    pub(crate) headers: Headers,
}

/// Header lines in order, names in lower case.
#[derive(Clone, Debug, Default)]
pub(crate) struct Headers(pub(crate) Vec<(String, Vec<u8>)>);

/// How a body is delimited.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Framing {
    /// Nothing says.
    Unsaid,
    Length(u64),
    Chunked,
}

impl RequestHead {
    pub(crate) async fn read(stream: &mut Replay<impl AsyncRead + Unpin>) -> Result<Self, NoHead> {
        let bytes = read_head(stream).await?;
        let mut lines = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut lines);
        let is_whole = request.parse(&bytes).is_ok_and(|status| status.is_complete());
        let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version)
        else {
            return Err(NoHead::Malformed);
        };
        if !is_whole || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(NoHead::Malformed);
        }
        let headers = Headers::of(request.headers);
        Ok(Self { method: method.to_owned(), target: target.to_owned(), is_1_1: version == 1, headers })
    }
}

impl AnswerHead {
    pub(crate) async fn read(stream: &mut Replay<impl AsyncRead + Unpin>) -> Result<Self, NoHead> {
        let bytes = read_head(stream).await?;
        let mut lines = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut answer = httparse::Response::new(&mut lines);
        let is_whole = answer.parse(&bytes).is_ok_and(|status| status.is_complete());
        match answer.code {
            Some(status @ 100..=999) if is_whole => Ok(Self { status, headers: Headers::of(answer.headers) }),
            _ => Err(NoHead::Malformed),
        }
    }
}

async fn read_head(stream: &mut Replay<impl AsyncRead + Unpin>) -> Result<Vec<u8>, NoHead> {
    // Each byte is looked at once, or bytes that come one by one would cost their square.
    let mut seen: usize = 0;
    loop {
        let held = stream.held();
        let from = seen.saturating_sub(3);
        let fresh = held.get(from..).unwrap_or_default();
        let end = fresh.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
        let fresh = fresh.get(..end.unwrap_or(fresh.len())).unwrap_or_default();
        let starts_well = held.first().is_none_or(u8::is_ascii_alphabetic);
        if from + fresh.len() > HEAD_BYTES_MAX || !starts_well || !is_strict(fresh) {
            return Err(NoHead::Malformed);
        }
        if let Some(end) = end {
            return Ok(stream.use_up(from + end));
        }
        seen = held.len();
        stream.look().await.map_err(NoHead::Gone)?;
    }
}

/// No bare CR or LF, no NUL, no folded line.
fn is_strict(head: &[u8]) -> bool {
    let pairs = head.windows(2).all(|pair| match pair {
        [b'\r', next] => *next == b'\n',
        [before, b'\n'] => *before == b'\r',
        [b'\n', next] => *next != b' ' && *next != b'\t',
        _ => true,
    });
    pairs && !head.contains(&0)
}

impl Headers {
    fn of(lines: &[httparse::Header<'_>]) -> Self {
        Self(lines.iter().map(|line| (line.name.to_ascii_lowercase(), line.value.to_vec())).collect())
    }

    pub(crate) fn all<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'h [u8]> {
        self.0.iter().filter(move |(found, _)| found == name).map(|(_, value)| value.as_slice())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.all(name).next().is_some()
    }

    /// The header's value, where it stands at most once.
    pub(crate) fn at_most_one<'h>(&'h self, name: &'h str) -> Result<Option<&'h [u8]>, NoHead> {
        let mut all = self.all(name);
        let first = all.next();
        if all.next().is_some() { Err(NoHead::Malformed) } else { Ok(first) }
    }

    /// How the body is delimited (RFC 9112 §6.3); both ways at once, or one of them twice, is no way.
    pub(crate) fn framing(&self) -> Result<Framing, NoHead> {
        let length = self.at_most_one("content-length")?;
        match (self.at_most_one("transfer-encoding")?, length) {
            (None, None) => Ok(Framing::Unsaid),
            (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
            (None, Some(digits)) if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
                let digits = std::str::from_utf8(digits).map_err(|_| NoHead::Malformed)?;
                digits.parse().map(Framing::Length).map_err(|_| NoHead::Malformed)
            }
            _ => Err(NoHead::Malformed),
        }
    }

    /// Whether a body is as it is, without compression.
    pub(crate) fn is_identity(&self) -> bool {
        self.all("content-encoding").all(|coding| coding.eq_ignore_ascii_case(b"identity"))
    }

    /// The lines as they go on the wire.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        for (name, value) in &self.0 {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn framing(text: &str) -> Option<Framing> {
        let head = RequestHead::read(&mut Replay::new(text.as_bytes())).await.ok()?;
        head.headers.framing().ok()
    }

    #[tokio::test]
    async fn a_head_that_readers_read_differently_is_refused() {
        let start = "POST / HTTP/1.1\r\nhost: a\r\n";
        assert_eq!(framing(&format!("{start}content-length: 3\r\n\r\n")).await, Some(Framing::Length(3)));
        assert_eq!(
            framing(&format!("{start}Transfer-Encoding: Chunked\r\n\r\n")).await,
            Some(Framing::Chunked)
        );
        for rest in [
            "content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
            "content-length: 3\r\ncontent-length: 3\r\n\r\n",
            "content-length: 3, 3\r\n\r\n",
            "content-length: +3\r\n\r\n",
            "content-length: \r\n\r\n",
            "content-length : 3\r\n\r\n",
            "content-length: 99999999999999999999\r\n\r\n",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
            "transfer-encoding: gzip, chunked\r\n\r\n",
            "transfer-encoding: xchunked\r\n\r\n",
            "x: 1\n\r\n",
            "x: 1\r\n folded\r\n\r\n",
            "x: \0\r\n\r\n",
            "x: 1\rcontent-length: 3\r\n\r\n",
        ] {
            assert_eq!(framing(&format!("{start}{rest}")).await, None, "{rest:?}");
        }
        for text in
            ["\r\nGET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\n\n", "GET  / HTTP/1.1\r\n\r\n", "GET /\r\n\r\n"]
        {
            assert_eq!(framing(text).await, None, "{text:?}");
        }
    }

    #[tokio::test]
    async fn a_head_that_comes_byte_by_byte_is_the_same() {
        let (mut ours, mut theirs) = tokio::io::duplex(1);
        let text = b"GET / HTTP/1.1\r\nhost: a\r\n\r\nrest";
        let writing = tokio::io::AsyncWriteExt::write_all(&mut theirs, text);
        let mut stream = Replay::new(&mut ours);
        let (head, _) = tokio::join!(RequestHead::read(&mut stream), async {
            tokio::time::timeout(std::time::Duration::from_millis(50), writing).await
        });
        assert_eq!(head.unwrap().headers.0, [("host".to_owned(), b"a".to_vec())]);
    }

    #[tokio::test]
    async fn a_head_has_bounds() {
        let long = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(HEAD_BYTES_MAX));
        assert_eq!(framing(&long).await, None);
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "x: 1\r\n".repeat(HEADERS_MAX + 1));
        assert_eq!(framing(&many).await, None);
    }
}
