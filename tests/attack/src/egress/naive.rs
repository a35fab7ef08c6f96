//! A proxy as it has been shipped: it reads loosely, an empty list means everything, and it asks about plain HTTP nothing. The
//! control of what the way out refuses: there, each attack has to work.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::world::Names;

/// What it puts in wherever it reads the other.
#[derive(Clone)]
pub(super) struct Injected {
    pub(super) placeholder: String,
    pub(super) secret: String,
}

/// Serves until the set is dropped.
pub(super) async fn serve(names: Arc<Names>, injected: Injected) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(pass(stream, names.clone(), injected.clone()));
        }
    });
    (address, serving)
}

async fn pass(mut client: TcpStream, names: Arc<Names>, injected: Injected) {
    let mut held = Vec::new();
    while !held.windows(2).any(|two| two == b"\n\n") && !held.windows(4).any(|four| four == b"\r\n\r\n") {
        let mut buffer = [0; 16 << 10];
        let Ok(count @ 1..) = client.read(&mut buffer).await else { return };
        held.extend_from_slice(&buffer[..count]);
    }
    let text = String::from_utf8_lossy(&held).into_owned();
    let Some((method, rest)) = text.split_once(' ') else { return };
    let target = rest.split(" HTTP/").next().unwrap_or_default();
    let is_tunnel = method == "CONNECT";
    let place = if is_tunnel { target } else { target.split_once("//").map_or(target, |it| it.1) };
    let Some(mut server) = dial(place, if is_tunnel { 443 } else { 80 }, &names).await else { return };
    let first = if is_tunnel {
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await
    } else {
        let text = text.replace(&injected.placeholder, &injected.secret);
        server.write_all(text.as_bytes()).await
    };
    if first.is_ok() {
        let _cut = copy_bidirectional(&mut client, &mut server).await;
    }
}

/// The name as a C string after the last `@`, with whatever looks like a dot as a dot.
async fn dial(place: &str, port: u16, names: &Names) -> Option<TcpStream> {
    let place = place.split(['/', '?', '#']).next()?;
    let place = place.rsplit('@').next()?.replace(['\u{ff0e}', '\u{3002}'], ".");
    let (host, port) = match place.rsplit_once(':') {
        Some((host, number)) => (host, number.trim().parse().unwrap_or(port)),
        None => (place.as_str(), port),
    };
    let host = host.split(['\0', '%', '\t', ' ', '\r', '\n']).next()?.trim_end_matches('.');
    let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
    // `127.1`, `0x7f.1`, `2130706433`: the resolver reads them as numbers, and asks nobody.
    let is_number = host.starts_with(|first: char| first.is_ascii_digit());
    let number = if is_number || host == "localhost" {
        (host.as_str(), port).to_socket_addrs().ok()?.next().map(|found| found.ip())
    } else {
        host.parse().ok()
    };
    let address = match number {
        Some(address) => SocketAddr::new(address, port),
        None => names.first(&host),
    };
    // Nothing but our own traps is ever reached.
    let is_ours = names.in_network_of_traps || address.ip().to_canonical().is_loopback();
    if is_ours || address.ip().is_unspecified() { TcpStream::connect(address).await.ok() } else { None }
}
