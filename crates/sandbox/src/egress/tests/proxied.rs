//! Clients that know of the proxy.

use std::sync::atomic::Ordering;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::harness::*;
use crate::egress::*;

#[tokio::test]
async fn no_rules_let_nothing_pass() {
    let upstream = Upstream::plain(fine).await;
    let world = World::new(Declared::default(), &upstream);
    for target in ["api.allowed.test:443", "127.0.0.1:22", "evil.test:443"] {
        assert!(world.connect(target).await.unwrap_err().starts_with("HTTP/1.1 403 "));
    }
    assert!(
        world
            .says("GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 403 ")
    );
    assert_eq!((world.asked(), upstream.got()), (vec![], String::new()));
    let (decided, totals) = world.ended().await;
    assert_eq!(decided, [(Verdict::Deny, Reason::NoRule); 4]);
    assert_eq!(totals, Totals { bytes_up: 0, bytes_down: 0, connections: 4, denied: 4 });
}

#[tokio::test]
async fn a_tunnel_leads_to_the_allowed_host_and_each_end_is_on_record() {
    let upstream = Upstream::tls(fine).await;
    let world = World::new(allow(&[ALLOWED]), &upstream);
    for target in ["evil.test:443", "api.allowed.test:22", "api.allowed.test:80", "api.allowed.test:8443"] {
        assert!(world.connect(target).await.unwrap_err().starts_with("HTTP/1.1 403 "), "{target}");
    }
    let answer = world.asks(&upstream.ca_pem, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let answer = tokio::time::timeout(std::time::Duration::from_millis(300), answer).await;
    assert!(answer.is_err(), "the server keeps it open");
    assert!(upstream.got().starts_with("GET / "));
    assert_eq!(world.asked(), ["api.allowed.test:443"]);
    let journal = world.journal.clone();
    let (decided, totals) = world.ended().await;
    assert_eq!(decided[..4], [(Verdict::Deny, Reason::NoRule); 4]);
    assert_eq!(decided[4], (Verdict::Allow, Reason::Rule));
    let decisions = journal.decisions.lock().unwrap();
    let end = decisions.last().unwrap();
    assert_eq!((end.verdict, end.address), (Verdict::End, Some("127.0.0.1".parse().unwrap())));
    assert_eq!(end.rule.as_deref(), Some(ALLOWED));
    assert!(end.bytes_up > 100 && end.bytes_down > 100);
    assert_eq!((end.bytes_up, end.bytes_down), (totals.bytes_up, totals.bytes_down));
}

#[tokio::test]
async fn spellings_of_a_host_are_refused_before_anything_is_resolved() {
    let upstream = Upstream::plain(fine).await;
    let world = World::new(allow(&[ALLOWED]), &upstream);
    let long = format!("{}.allowed.test", "a.".repeat(130));
    for host in [
        "evil.test\0.allowed.test",
        "evil.test%00.allowed.test",
        "evil.test\t.allowed.test",
        "evil.test .allowed.test",
        "evil.test\n.allowed.test",
        "api\u{ff0e}allowed.test",
        "api\u{3002}allowed.test",
        "api.allowed.test@evil.test",
        "evil-allowed.test",
        "api.allowed.test.evil.test",
        "xn--pi-6kc.allowed.test",
        "2130706433",
        "0x7f.1",
        &long,
    ] {
        let answer = world.says(&format!("CONNECT {host}:443 HTTP/1.1\r\n\r\n")).await;
        assert!(
            answer.starts_with("HTTP/1.1 400 ") || answer.starts_with("HTTP/1.1 403 "),
            "{host:?}: {answer}"
        );
    }
    assert_eq!((world.asked(), upstream.got()), (vec![], String::new()));
    assert!(world.connect("API.Allowed.Test.:443").await.is_ok());
    let decisions = world.journal.decisions.lock().unwrap();
    let text = serde_json::to_string(&*decisions).unwrap();
    assert!(!text.contains('\n') && !text.contains("\\n\\") && !text.contains("\\u0000"));
}

#[tokio::test]
async fn plain_http_goes_where_its_target_and_its_host_agree() {
    let upstream = Upstream::plain(fine).await;
    let world = World::new(allow(&["http://api.allowed.test", ALLOWED]), &upstream);
    for (target, host) in [
        ("http://evil.test/", "evil.test"),
        ("http://api.allowed.test/", "evil.test"),
        ("http://api.allowed.test/", "api.allowed.test\r\nHost: evil.test"),
        ("http://api.allowed.test@evil.test/", "api.allowed.test"),
        ("http://api.allowed.test:443/", "api.allowed.test:443"),
        ("https://api.allowed.test/", "api.allowed.test"),
        ("/", "api.allowed.test"),
        ("http://api.allowed.test/", "api.allowed.test\r\nContent-Length: 1\r\nTransfer-Encoding: chunked"),
        ("http://api.allowed.test/", "api.allowed.test\r\nUpgrade: h2c\r\nConnection: Upgrade"),
        ("http://api.allowed.test/", "api.allowed.test\r\nUpgrade: websocket"),
        ("http://api.allowed.test/", "api.allowed.test\r\nX-HTTP-Method-Override: DELETE"),
        ("http://api.allowed.test/a//b", "api.allowed.test"),
        ("http://api.allowed.test/a/%2e%2e/b", "api.allowed.test"),
    ] {
        let answer = world.says(&format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert!(
            answer.starts_with("HTTP/1.1 400 ") || answer.starts_with("HTTP/1.1 403 "),
            "{target} {host}: {answer}"
        );
    }
    assert!(
        world.says("GET http://api.allowed.test/ HTTP/1.1\nHost: a\n\n").await.starts_with("HTTP/1.1 400 ")
    );
    assert_eq!((world.asked(), upstream.got()), (vec![], String::new()));
    let good = "GET http://api.allowed.test/a?b HTTP/1.1\r\nHost: api.allowed.test\r\n\r\n";
    let answer =
        world.says(&format!("{good}GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nfine"), "{answer}");
    assert_eq!(upstream.got(), "GET /a?b HTTP/1.1\r\nhost: api.allowed.test\r\nconnection: close\r\n\r\n");
}

#[tokio::test]
async fn only_a_checked_address_is_dialled() {
    let upstream = Upstream::plain(fine).await;
    let good = "GET http://api.allowed.test/ HTTP/1.1\r\nHost: api.allowed.test\r\n\r\n";
    let declared = allow(&["http://api.allowed.test"]);
    let hidden =
        ["10.0.0.1:80", "169.254.169.254:80", "[::1]:80", "[fd00:ec2::254]:80", "[::ffff:127.0.0.1]:80"];
    let hidden: Vec<std::net::SocketAddr> = hidden.iter().map(|address| address.parse().unwrap()).collect();
    let mut mixed = hidden.clone();
    mixed.push(upstream.address);
    let world = World::exactly(&declared, mixed.clone(), "");
    assert!(world.says(good).await.starts_with("HTTP/1.1 403 "));
    assert_eq!(world.asked().len(), 1);
    assert_eq!(world.ended().await.0, [(Verdict::Deny, Reason::NoPublicAddress)]);
    assert_eq!(upstream.got(), "");
    let world = World::resolving(declared, mixed, "");
    assert!(world.says(good).await.starts_with("HTTP/1.1 200 "));
    assert_eq!(world.asked().len(), 1);
}

#[tokio::test]
async fn the_proxy_leads_neither_to_itself_nor_to_its_neighbours() {
    let upstream = Upstream::plain(fine).await;
    let proxy = upstream.address;
    let text = format!("http://127.0.0.1:{}", proxy.port());
    let world = World::exactly(&allow(&[&text]), vec![], "");
    let get = format!("GET {text}/ HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n", proxy.port());
    assert!(world.says(&get).await.starts_with("HTTP/1.1 403 "));
    assert_eq!(world.ended().await.0, [(Verdict::Deny, Reason::NoPublicAddress)]);
    let world = World::new(allow(&[&text]), &upstream);
    assert!(world.says(&get).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn what_is_not_tls_to_the_named_host_is_closed() {
    let upstream = Upstream::tls(fine).await;
    let world = World::new(allow(&[ALLOWED]), &upstream);
    for text in ["SSH-2.0-client\r\n", "GET / HTTP/1.1\r\nHost: api.allowed.test\r\n\r\n", "\0\0\0\0"] {
        let stream = world.connect("api.allowed.test:443").await.unwrap();
        assert_eq!(say(stream, text.as_bytes()).await, "");
    }
    let stream = world.connect("api.allowed.test:443").await.unwrap();
    assert!(secure(stream, "evil.test", &upstream.ca_pem).await.is_err());
    let stream = world.connect("api.allowed.test:443").await.unwrap();
    assert!(secure(stream, "192.0.2.1", &upstream.ca_pem).await.is_err());
    assert_eq!(world.asked(), Vec::<String>::new());
    let stream = world.connect("api.allowed.test:443").await.unwrap();
    assert!(secure(stream, ALLOWED, &upstream.ca_pem).await.is_ok());
    let (decided, _) = world.ended().await;
    let deny = |reason| (Verdict::Deny, reason);
    assert_eq!(decided[..3], [deny(Reason::NotTls); 3]);
    assert_eq!(decided[3..5], [deny(Reason::SniMismatch), deny(Reason::SniMissing)]);
    assert_eq!(decided[5], (Verdict::Allow, Reason::Rule));
}

#[tokio::test]
async fn what_cannot_be_recorded_does_not_leave() {
    let upstream = Upstream::plain(fine).await;
    let world = World::new(allow(&["http://api.allowed.test"]), &upstream);
    let good = "GET http://api.allowed.test/ HTTP/1.1\r\nHost: api.allowed.test\r\n\r\n";
    world.journal.is_broken.store(true, Ordering::Relaxed);
    assert!(world.says(good).await.starts_with("HTTP/1.1 503 "));
    assert_eq!(upstream.got(), "");
    world.journal.is_broken.store(false, Ordering::Relaxed);
    assert!(world.says(good).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_deny_rule_wins() {
    let upstream = Upstream::plain(fine).await;
    let mut declared = allow(&["http://api.allowed.test", "http://b.allowed.test"]);
    declared.deny = vec!["b.allowed.test".to_owned()];
    let world = World::new(declared, &upstream);
    let get = |host: &str| format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n");
    assert!(world.says(&get("b.allowed.test")).await.starts_with("HTTP/1.1 403 "));
    assert!(world.says(&get("api.allowed.test")).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn an_upload_is_cut_at_its_budget_and_recorded() {
    let upstream = Upstream::plain(fine).await;
    let mut declared = allow(&["http://api.allowed.test"]);
    declared.limits.bytes_up_max = 100_000;
    let world = World::new(declared, &upstream);
    let mut stream = TcpStream::connect(world.proxy).await.unwrap();
    let head = "POST http://api.allowed.test/ HTTP/1.1\r\nHost: api.allowed.test\r\nContent-Length: 1073741824\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let piece = vec![b'x'; 64 << 10];
    let mut sent = 0;
    while sent < 64 << 20 && stream.write_all(&piece).await.is_ok() {
        sent += piece.len();
    }
    assert!(sent < 64 << 20);
    let good = "GET http://api.allowed.test/ HTTP/1.1\r\nHost: api.allowed.test\r\n\r\n";
    assert!(world.says(good).await.starts_with("HTTP/1.1 403 "));
    let (decided, totals) = world.ended().await;
    let expected =
        [(Verdict::Allow, Reason::Rule), (Verdict::End, Reason::BudgetUp), (Verdict::Deny, Reason::BudgetUp)];
    assert_eq!(decided, expected);
    assert_eq!(totals.bytes_up, 100_000);
    assert!(upstream.got().len() <= 100_000);
}

#[tokio::test]
async fn a_download_is_cut_at_its_budget() {
    let upstream = Upstream::plain(|_| ok(&"x".repeat(1 << 20))).await;
    let mut declared = allow(&["http://api.allowed.test"]);
    declared.limits.bytes_down_max = 50_000;
    let world = World::new(declared, &upstream);
    let answer = world.says("GET http://api.allowed.test/ HTTP/1.1\r\nHost: api.allowed.test\r\n\r\n").await;
    assert_eq!(answer.len(), 50_000);
    assert_eq!(world.ended().await.0[1], (Verdict::End, Reason::BudgetDown));
}

#[tokio::test]
async fn slow_many_and_large_are_bounded() {
    let upstream = Upstream::plain(fine).await;
    let mut declared = allow(&["http://api.allowed.test"]);
    declared.limits =
        Limits { head_seconds: 1, connections_at_once_max: 2, connections_max: 6, ..Limits::default() };
    let world = World::new(declared, &upstream);
    // Two slow ones take both slots; the good one waits until their time is up.
    let mut slow = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(world.proxy).await.unwrap();
        stream.write_all(b"GET http://api.allowed.test/ HTTP/1.1\r\nx: ").await.unwrap();
        slow.push(stream);
    }
    let good = "GET http://api.allowed.test/ HTTP/1.1\r\nHost: api.allowed.test\r\n\r\n";
    assert!(world.says(good).await.starts_with("HTTP/1.1 200 "));
    for mut stream in slow {
        let mut answer = String::new();
        let _cut = stream.read_to_string(&mut answer).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    let large = format!("GET http://api.allowed.test/ HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    let answer = world.says(&large).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    for _ in 0..3 {
        world.says(good).await;
    }
    // The listener is closed now.
    let last = TcpStream::connect(world.proxy).await;
    if let Ok(stream) = last {
        assert_eq!(say(stream, good.as_bytes()).await, "");
    }
    let (decided, totals) = world.ended().await;
    assert_eq!(decided.last(), Some(&(Verdict::Deny, Reason::TooManyConnections)));
    assert_eq!(totals.connections, 7);
}

#[tokio::test]
async fn dropping_the_egress_ends_everything() {
    let upstream = Upstream::tls(fine).await;
    let world = World::new(allow(&[ALLOWED]), &upstream);
    let stream = world.connect("api.allowed.test:443").await.unwrap();
    let mut stream = secure(stream, ALLOWED, &upstream.ca_pem).await.unwrap();
    drop(world.egress);
    let mut rest = Vec::new();
    let _cut = stream.read_to_end(&mut rest).await;
    assert_eq!(rest, b"");
}
