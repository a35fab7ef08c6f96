//! One request and its answer. A connection carries one exchange, so that there is no second request to smuggle or to misroute.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use super::body::{Body, End};
use super::carry::{Found, Lane, finish, refuse};
use super::decision::Reason;
use super::head::{AnswerHead, Framing, Headers, RequestHead};
use super::meter::Way;
use super::passage::{Passage, in_time};
use super::replay::Replay;
use super::request::{Asked, Forward, Place, judge};
use super::rules::Rules;
use super::search::{Last, Needles, Search};
use super::target::Scheme;
use super::trust::server_name;

/// Answers of the hundreds before the answer.
const INTERIM_MAX: usize = 8;

/// Headers of an answer that are for one hop, that we write ourselves, or that lead around us.
const NOT_FORWARDED: &[&str] = &[
    "alt-svc",
    "connection",
    "content-length",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// Judges a request, and where it is allowed sends it and carries the answer back.
pub(crate) async fn exchange<S: AsyncRead + AsyncWrite + Send + Unpin>(
    passage: &mut Passage,
    client: &mut Replay<S>,
    place: Place<'_>,
    request: &RequestHead,
    asked: &Asked,
) -> Result<(), Reason> {
    let rules = Arc::clone(&passage.gate.rules);
    passage.requests(&request.method, asked.path.as_str());
    let forward = match judge(&rules, place, request, asked) {
        Ok(forward) => forward,
        Err(no) => {
            let reason = passage.deny(no).await;
            refuse(client, reason).await;
            return Err(reason);
        }
    };
    passage.allowed_by(forward.rule);
    let upstream = match open(passage, place).await {
        Ok(upstream) => upstream,
        Err(reason) => {
            passage.close(reason).await;
            refuse(client, reason).await;
            return Err(reason);
        }
    };
    let mut has_answered = false;
    let ended = relay(passage, client, upstream, &forward, &mut has_answered).await;
    passage.close(ended.err().unwrap_or(Reason::Complete)).await;
    match ended {
        Err(reason) if !has_answered => refuse(client, reason).await,
        _ => finish(client).await,
    }
    ended
}

async fn open(passage: &mut Passage, place: Place<'_>) -> Result<Box<dyn Duplex>, Reason> {
    let stream = passage.leave().await?;
    if place.scheme == Scheme::Plain {
        return Ok(Box::new(stream));
    }
    let name = server_name(place.host).ok_or(Reason::UpstreamTls)?;
    let connector = TlsConnector::from(passage.gate.outside.trust.client());
    let connecting = in_time(passage.gate.rules.limits.head(), connector.connect(name, stream));
    Ok(Box::new(connecting.await?.map_err(|_| Reason::UpstreamTls)?))
}

async fn relay<S: AsyncRead + AsyncWrite + Send + Unpin>(
    passage: &Passage,
    client: &mut Replay<S>,
    upstream: Box<dyn Duplex>,
    forward: &Forward<'_>,
    has_answered: &mut bool,
) -> Result<(), Reason> {
    let rules = &passage.gate.rules;
    let idle = rules.limits.idle();
    let (from_client, mut to_client) = tokio::io::split(client);
    let (from_upstream, mut to_upstream) = tokio::io::split(upstream);
    let mut up = Lane { to: &mut to_upstream, meter: &passage.meter, way: Way::Up, idle };
    up.send(&forward.head).await?;
    if forward.waits {
        in_time(idle, to_client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n"))
            .await?
            .map_err(|_| Reason::ClientGone)?;
    }
    let upload = async {
        let Some(end) = forward.body else { return Ok(()) };
        let body = Body::new(Replay::new(from_client), end, Reason::BadRequest, Reason::ClientGone);
        match up.send_body(body, end, Search::new(&rules.placeholders), Found::Refuse).await {
            // A server may have answered before it read everything.
            Err(Reason::UpstreamGone) => Ok(()),
            other => other,
        }
    };
    let down = Lane { to: &mut to_client, meter: &passage.meter, way: Way::Down, idle };
    let answer = answer(rules, from_upstream, down, forward.is_head, has_answered);
    tokio::pin!(upload, answer);
    let mut is_uploaded = false;
    loop {
        tokio::select! {
            biased;
            sent = &mut upload, if !is_uploaded => {
                sent?;
                is_uploaded = true;
            }
            done = &mut answer => return done,
        }
    }
}

/// Carries the answer, with secrets masked.
async fn answer<W: AsyncWrite + Unpin>(
    rules: &Rules,
    from: impl AsyncRead + Unpin,
    mut down: Lane<'_, W>,
    is_head: bool,
    has_answered: &mut bool,
) -> Result<(), Reason> {
    let mut from = Replay::new(from);
    let head = final_head(&mut from).await?;
    if !rules.secrets.is_empty() && !head.headers.is_identity() {
        return Err(Reason::BadAnswer);
    }
    let framing = head.headers.framing().map_err(|_| Reason::BadAnswer)?;
    let has_body = !is_head && head.status != 204 && head.status != 304;
    let end = match framing {
        _ if !has_body => End::After(0),
        Framing::Length(length) => End::After(length),
        Framing::Chunked => End::EmptyChunk,
        Framing::Unsaid => End::Stream,
    };
    *has_answered = true;
    down.send(&write(&rules.secrets, &head, framing, has_body)).await?;
    let body = Body::new(from, end, Reason::BadAnswer, Reason::UpstreamGone);
    down.send_body(body, end, Search::new(&rules.secrets), Found::Mask).await
}

async fn final_head(from: &mut Replay<impl AsyncRead + Unpin>) -> Result<AnswerHead, Reason> {
    for _ in 0..INTERIM_MAX {
        let head = AnswerHead::read(from)
            .await
            .map_err(|no_head| no_head.reason(Reason::BadAnswer, Reason::UpstreamGone))?;
        match head.status {
            101 => return Err(Reason::BadAnswer),
            100..=199 => {}
            _ => return Ok(head),
        }
    }
    Err(Reason::BadAnswer)
}

fn write(secrets: &Arc<Needles>, head: &AnswerHead, framing: Framing, has_body: bool) -> Vec<u8> {
    let is_forwarded = |name: &str| !NOT_FORWARDED.contains(&name);
    let headers = Headers(head.headers.0.iter().filter(|(name, _)| is_forwarded(name)).cloned().collect());
    let mut lines = Vec::new();
    headers.write(&mut lines);
    // The reason phrase stays behind: it is the server's free text.
    let mut out = format!("HTTP/1.1 {} \r\n", head.status).into_bytes();
    let _masked = Search::new(secrets).pass(&lines, Last::Yes, &mut out);
    match framing {
        Framing::Length(length) => out.extend_from_slice(format!("content-length: {length}\r\n").as_bytes()),
        Framing::Chunked | Framing::Unsaid if has_body => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        Framing::Chunked | Framing::Unsaid => {}
    }
    out.extend_from_slice(b"connection: close\r\n\r\n");
    out
}
