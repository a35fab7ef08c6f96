//! What a connection from inside says first, and where that leads.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::carry::{refuse, tunnel};
use super::client_hello;
use super::decision::{Reason, Via};
use super::exchange::exchange;
use super::head::RequestHead;
use super::host::{Host, authority};
use super::passage::{Gate, Passage, in_time};
use super::replay::Replay;
use super::request::{Asked, Place};
use super::rules::{No, Way};
use super::target::Scheme;

/// Serves one connection from its first byte to its record.
pub(crate) async fn converse(gate: Arc<Gate>, via: Via, number: u64, stream: TcpStream) {
    let mut passage = Passage::new(&gate, via, number);
    let conversation = async {
        match via {
            Via::Proxy => proxied(&mut passage, stream).await,
            Via::TransparentHttp | Via::TransparentTls => transparent(&mut passage, via, stream).await,
        }
    };
    let ended = tokio::select! {
        biased;
        () = gate.stop.cancelled() => Err(Reason::Stopped),
        ended = in_time(gate.rules.limits.connection(), conversation) => ended.unwrap_or_else(Err),
    };
    passage.close(ended.err().unwrap_or(Reason::Complete)).await;
}

/// A client that knows of the proxy: `CONNECT host:port`, or `GET http://host/`.
async fn proxied(passage: &mut Passage, stream: TcpStream) -> Result<(), Reason> {
    let mut client = Replay::new(stream);
    let request = read_request(passage, &mut client).await?;
    let placeholders = Arc::clone(&passage.gate.rules.placeholders);
    if request.method == "CONNECT" {
        let mut head = request.target.clone().into_bytes();
        head.push(b'\n');
        request.headers.write(&mut head);
        if placeholders.are_in(&head) {
            return no(passage, &mut client, Reason::Placeholder.into()).await;
        }
        return connect(passage, client, &request).await;
    }
    let Ok((host, port, asked)) = absolute(&request.target) else {
        passage.asked(request.target.as_bytes());
        return no(passage, &mut client, Reason::BadRequest.into()).await;
    };
    passage.toward(&host, port);
    let place = Place { scheme: Scheme::Plain, host: &host, port };
    exchange(passage, &mut client, place, &request, &asked).await
}

/// `http://host:port/path?query`.
fn absolute(target: &str) -> Result<(Host, u16, Asked), Reason> {
    let (scheme, rest) = target.split_at_checked("http://".len()).ok_or(Reason::BadRequest)?;
    if !scheme.eq_ignore_ascii_case("http://") {
        return Err(Reason::BadRequest);
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, asked) = rest.split_at_checked(end).ok_or(Reason::BadRequest)?;
    let (host, port) = authority(host.as_bytes()).map_err(|_| Reason::BadRequest)?;
    Ok((host, port.unwrap_or(80), Asked::parse(if asked.is_empty() { "/" } else { asked })?))
}

async fn connect(
    passage: &mut Passage,
    mut client: Replay<TcpStream>,
    request: &RequestHead,
) -> Result<(), Reason> {
    let target = request.target.as_bytes();
    let Ok((host, Some(port))) = authority(target) else {
        passage.asked(target);
        return no(passage, &mut client, Reason::BadRequest.into()).await;
    };
    passage.toward(&host, port);
    if let Err(reason) = check_connect(request, &host, port) {
        return no(passage, &mut client, reason.into()).await;
    }
    let gate = Arc::clone(&passage.gate);
    let way = match gate.rules.way(Scheme::Tls, &host, port) {
        Ok(way) => way,
        Err(refused) => return no(passage, &mut client, refused).await,
    };
    let agreed = client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n");
    in_time(gate.rules.limits.head(), agreed).await?.map_err(|_| Reason::ClientGone)?;
    secure(passage, client, way, &host, port).await
}

/// `Host` may be missing here (HTTP/1.0 clients leave it out), but not be another; and there is no body.
fn check_connect(request: &RequestHead, host: &Host, port: u16) -> Result<(), Reason> {
    let headers = &request.headers;
    if headers.has("content-length") || headers.has("transfer-encoding") || headers.has("upgrade") {
        return Err(Reason::BadRequest);
    }
    match headers.at_most_one("host").map_err(|_| Reason::BadRequest)?.map(authority) {
        None => Ok(()),
        Some(Ok((named, named_port))) if named == *host && named_port.is_none_or(|named| named == port) => {
            Ok(())
        }
        Some(_) => Err(Reason::HostMismatch),
    }
}

/// A client that knows nothing: it connected to an address that stands for a name.
async fn transparent(passage: &mut Passage, via: Via, stream: TcpStream) -> Result<(), Reason> {
    let local = stream.local_addr().map_err(|_| Reason::ClientGone)?;
    let gate = Arc::clone(&passage.gate);
    let host = match local.ip() {
        IpAddr::V4(address) => gate.names.host(address),
        IpAddr::V6(_) => None,
    };
    let Some(host) = host else { return Err(Reason::UnknownAddress) };
    let scheme = if via == Via::TransparentTls { Scheme::Tls } else { Scheme::Plain };
    let port = scheme.default_port();
    passage.toward(&host, port);
    let mut client = Replay::new(stream);
    match gate.rules.way(scheme, &host, port) {
        Ok(way) if scheme == Scheme::Tls => secure(passage, client, way, &host, port).await,
        Ok(_) => read_exchange(passage, client, scheme, &host, port).await,
        Err(refused) if scheme == Scheme::Plain => no(passage, &mut client, refused).await,
        Err(refused) => Err(passage.deny(refused).await),
    }
}

/// A connection that should be TLS to `host`.
async fn secure(
    passage: &mut Passage,
    mut client: Replay<TcpStream>,
    way: Way<'_>,
    host: &Host,
    port: u16,
) -> Result<(), Reason> {
    let (Way::Tunnel(rule) | Way::Inspect(rule)) = way;
    let limits = passage.gate.rules.limits;
    if !rule.hello.allow_any_protocol {
        let hello = in_time(limits.head(), client_hello::look(&mut client)).await??;
        hello.check(host, rule.hello)?;
    }
    if let Way::Tunnel(rule) = way {
        passage.allowed_by(rule);
        let upstream = passage.leave().await?;
        return tunnel(client, upstream, &passage.meter, limits.idle()).await;
    }
    let authority = passage.gate.authority.as_ref().ok_or(Reason::ClientTls)?;
    let config = authority.server(host).map_err(|_| Reason::ClientTls)?;
    let accepting = TlsAcceptor::from(config).accept(client);
    let client = in_time(limits.head(), accepting).await?.map_err(|_| Reason::ClientTls)?;
    read_exchange(passage, Replay::new(client), Scheme::Tls, host, port).await
}

/// An exchange with a host that is known before the request is read: only `/path?query` will do.
async fn read_exchange<S: AsyncRead + AsyncWrite + Send + Unpin>(
    passage: &mut Passage,
    mut client: Replay<S>,
    scheme: Scheme,
    host: &Host,
    port: u16,
) -> Result<(), Reason> {
    let request = read_request(passage, &mut client).await?;
    let Ok(asked) = Asked::parse(&request.target) else {
        passage.asked(request.target.as_bytes());
        return no(passage, &mut client, Reason::BadRequest.into()).await;
    };
    exchange(passage, &mut client, Place { scheme, host, port }, &request, &asked).await
}

async fn read_request<S: AsyncRead + AsyncWrite + Unpin>(
    passage: &mut Passage,
    client: &mut Replay<S>,
) -> Result<RequestHead, Reason> {
    let reading = in_time(passage.gate.rules.limits.head(), RequestHead::read(client)).await;
    let reason = match reading {
        Ok(Ok(request)) => return Ok(request),
        Ok(Err(no_head)) => no_head.reason(Reason::BadRequest, Reason::ClientGone),
        Err(reason) => reason,
    };
    no(passage, client, reason.into()).await.and(Err(reason))
}

/// Records a no, says it in HTTP, and gives its reason back.
async fn no<S: AsyncRead + AsyncWrite + Unpin>(
    passage: &mut Passage,
    client: &mut Replay<S>,
    refused: No,
) -> Result<(), Reason> {
    let reason = passage.deny(refused).await;
    if reason != Reason::ClientGone {
        refuse(client, reason).await;
    }
    Err(reason)
}
