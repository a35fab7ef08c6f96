//! Clients that know nothing: names lead to our addresses, and addresses back to names.

use tokio::net::TcpStream;

use super::harness::*;
use crate::egress::*;

#[tokio::test]
async fn a_client_that_knows_nothing_reaches_the_allowed_host_over_http() {
    let upstream = Upstream::plain(fine).await;
    let world = World::new(allow(&["http://api.allowed.test"]), &upstream);
    let (allowed, evil) = (world.ask_name(ALLOWED).await, world.ask_name("evil.test").await);
    assert_eq!(world.asked(), Vec::<String>::new());
    let port = world.http.port();
    let get = |host: &str| format!("GET /a HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes();
    let answer = |address, host: &'static str| async move {
        say(TcpStream::connect((address, port)).await.unwrap(), &get(host)).await
    };
    assert!(answer(evil, "evil.test").await.starts_with("HTTP/1.1 403 "));
    assert!(answer(evil, ALLOWED).await.starts_with("HTTP/1.1 403 "));
    assert!(answer(allowed, "evil.test").await.starts_with("HTTP/1.1 400 "));
    assert_eq!(answer("127.0.0.1".parse().unwrap(), ALLOWED).await, "");
    assert_eq!(answer("127.1.9.9".parse().unwrap(), ALLOWED).await, "");
    assert_eq!((world.asked(), upstream.got()), (vec![], String::new()));
    assert!(answer(allowed, ALLOWED).await.starts_with("HTTP/1.1 200 "));
    assert_eq!(world.asked(), ["api.allowed.test:80"]);
    let reasons: Vec<_> = world.ended().await.0.into_iter().map(|(_, reason)| reason).collect();
    let unknown = Reason::UnknownAddress;
    let denied = [Reason::NoRule, Reason::NoRule, Reason::HostMismatch, unknown, unknown];
    assert_eq!(reasons[..5], denied);
    assert_eq!(reasons[5..], [Reason::Rule, Reason::Complete]);
}

#[tokio::test]
async fn a_client_that_knows_nothing_reaches_the_allowed_host_over_tls() {
    let upstream = Upstream::tls(fine).await;
    let world = World::new(allow(&[ALLOWED]), &upstream);
    let (allowed, evil) = (world.ask_name(ALLOWED).await, world.ask_name("evil.test").await);
    let to = |address, name: &'static str| {
        let (port, pem) = (world.tls.port(), upstream.ca_pem.clone());
        async move { secure(TcpStream::connect((address, port)).await.unwrap(), name, &pem).await.is_ok() }
    };
    assert!(!to(evil, "evil.test").await);
    assert!(!to(evil, ALLOWED).await);
    assert!(!to(allowed, "evil.test").await);
    assert_eq!(world.asked(), Vec::<String>::new());
    assert!(to(allowed, ALLOWED).await);
    assert_eq!(world.asked(), ["api.allowed.test:443"]);
}
