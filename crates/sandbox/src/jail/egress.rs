//! The sandbox's side of its way out: sockets that listen in its network namespace and are handed out, so that nothing inside
//! answers them. The gateway's side decides; here nothing is known of any rule.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use crate::sys;
use crate::{Layer, Refused};

/// `CONNECT` and plain HTTP, for programs that know of a proxy.
const PROXY_PORT: u16 = 3128;
/// What a program may connect to: the proxy, what is answered for those that know of none, and names.
pub(super) const PORTS: [u16; 4] = [PROXY_PORT, 80, 443, 53];
/// The certificates that a program trusts, written with its files.
pub(crate) const AUTHORITIES_FILE: &str = "authorities.pem";

/// Listens on the proxy's port, on 80 and 443 of every loopback address, and for names, in this order.
pub(super) fn listen() -> Result<Vec<OwnedFd>, Refused> {
    let layer = |error: std::io::Error| Refused::new(Layer::NetworkNamespace.as_str(), error);
    sys::bring_up_loopback().map_err(layer)?;
    let tcp = |address, port| TcpListener::bind((address, port)).map(OwnedFd::from);
    let listened = [
        tcp(Ipv4Addr::LOCALHOST, PROXY_PORT),
        tcp(Ipv4Addr::UNSPECIFIED, 80),
        tcp(Ipv4Addr::UNSPECIFIED, 443),
        tcp(Ipv4Addr::LOCALHOST, 53),
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 53)).map(OwnedFd::from),
    ];
    listened.into_iter().collect::<Result<_, _>>().map_err(layer)
}

/// What tells programs of the proxy, and whom to trust.
pub(super) fn environment() -> Vec<(&'static str, String)> {
    let proxy = format!("http://127.0.0.1:{PROXY_PORT}");
    let of_proxy =
        ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"].map(|name| (name, proxy.clone()));
    let of_trust = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"];
    of_proxy.into_iter().chain(of_trust.map(|name| (name, format!("/program/{AUTHORITIES_FILE}")))).collect()
}
