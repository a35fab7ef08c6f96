//! Requests that are read: methods, paths, credentials.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::harness::*;
use crate::egress::*;

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: api.allowed.test\r\n{headers}\r\n")
}

fn post(path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: api.allowed.test\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
}

async fn bound_world(answer: fn(&str) -> String) -> (Upstream, World, String) {
    let upstream = Upstream::tls(answer).await;
    let world = World::new(bound(), &upstream);
    let pem = world.egress.ca_pem().unwrap().to_owned();
    (upstream, world, pem)
}

#[tokio::test]
async fn exactly_one_credential_goes_out_and_it_is_ours() {
    let (upstream, world, pem) = bound_world(fine).await;
    let headers = format!(
        "Authorization: Bearer {PLACEHOLDER}\r\naUTHORIZATION: Basic eA==\r\nAccept-Encoding: gzip\r\nRange: bytes=0-3\r\n"
    );
    let answer = world.asks(&pem, &get("/v1/users?a=b", &headers)).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("fine"), "{answer}");
    let expected = format!(
        "GET /v1/users?a=b HTTP/1.1\r\nhost: api.allowed.test\r\naccept-encoding: identity\r\n\
         authorization: Bearer {SECRET}\r\nconnection: close\r\n\r\n"
    );
    assert_eq!(upstream.got(), expected);
    let decisions = world.journal.decisions.lock().unwrap();
    assert_eq!(decisions[0].credential.as_deref(), Some("api"));
    assert_eq!(decisions[0].path.as_ref().map(Quoted::as_str), Some("/v1/users"));
    assert!(!serde_json::to_string(&*decisions).unwrap().contains(SECRET));
    assert!(!pem.contains("PRIVATE"));
}

#[tokio::test]
async fn only_declared_methods_and_canonical_paths_pass() {
    let (upstream, world, pem) = bound_world(fine).await;
    for path in [
        "/v2",
        "/v1x",
        "//v1",
        "/v1/../v2",
        "/v1/%2e%2e/v2",
        "/v1%2f",
        "/v1;x",
        "/%2576%31",
        "/v1/\\",
        "http://evil.test/",
    ] {
        let answer = world.asks(&pem, &get(path, "")).await;
        assert!(
            answer.starts_with("HTTP/1.1 403 ") || answer.starts_with("HTTP/1.1 400 "),
            "{path}: {answer}"
        );
    }
    for headers in [
        "X-HTTP-Method-Override: DELETE\r\n",
        "Upgrade: websocket\r\n",
        "X-Original-URL: /v2\r\n",
        "Host: evil.test\r\n",
    ] {
        assert!(world.asks(&pem, &get("/v1", headers)).await.starts_with("HTTP/1.1 400 "), "{headers}");
    }
    let evil = "GET /v1 HTTP/1.1\r\nHost: evil.test\r\n\r\n";
    assert!(world.asks(&pem, evil).await.starts_with("HTTP/1.1 400 "));
    assert!(world.asks(&pem, &post("/v1", "", "x")).await.starts_with("HTTP/1.1 403 "));
    assert_eq!((world.asked(), upstream.got()), (vec![], String::new()));
    let answer = world.asks(&pem, &format!("{}{evil}", get("/%76%31/a", ""))).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(upstream.got().starts_with("GET /v1/a HTTP/1.1\r\n") && !upstream.got().contains("evil.test"));
}

#[tokio::test]
async fn a_placeholder_goes_nowhere_but_where_it_belongs() {
    let (upstream, world, pem) = bound_world(fine).await;
    let percent = PLACEHOLDER.bytes().map(|byte| format!("%{byte:02x}")).collect::<Vec<_>>().concat();
    let json = PLACEHOLDER.bytes().map(|byte| format!("\\u{byte:04x}")).collect::<Vec<_>>().concat();
    let basic = STANDARD.encode(format!("user:{PLACEHOLDER}"));
    let host = "api.allowed.test";
    let cases = [
        get("/v1", &format!("X-Other: {PLACEHOLDER}\r\n")),
        get("/v1", &format!("User-Agent: a/{PLACEHOLDER}\r\n")),
        get(&format!("/v1?q={PLACEHOLDER}"), ""),
        get(&format!("/v1?q={percent}"), ""),
        post("/open", &format!("Authorization: Bearer {PLACEHOLDER}\r\n"), ""),
        post("/open", &format!("Authorization: Basic {basic}\r\n"), ""),
        post("/open", "", &format!("{{\"a\": \"{PLACEHOLDER}\"}}")),
        post("/open", "", &format!("{{\"a\": \"{json}\"}}")),
        post("/open", "Content-Encoding: gzip\r\n", "x"),
        format!(
            "POST /open HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nplaceholder\r\n7\r\n-abcdef\r\n0\r\n\r\n"
        ),
    ];
    for case in &cases {
        let answer = world.asks(&pem, case).await;
        assert!(!answer.ends_with("fine") || case.starts_with("POST /open"), "{case}: {answer}");
    }
    let other = format!("GET http://other.test/{PLACEHOLDER} HTTP/1.1\r\nHost: other.test\r\n\r\n");
    assert!(world.says(&other).await.starts_with("HTTP/1.1 403 "));
    let connect = format!("CONNECT {host}:443 HTTP/1.1\r\nX: {PLACEHOLDER}\r\n\r\n");
    assert!(world.says(&connect).await.starts_with("HTTP/1.1 403 "));
    assert!(world.connect(&format!("{PLACEHOLDER}.test:443")).await.is_err());
    let got = upstream.got();
    for spelling in [PLACEHOLDER, "-abcdef", &percent, &json, &basic] {
        assert!(!got.contains(spelling), "{spelling}: {got}");
    }
    assert!(world.asks(&pem, &post("/open", "", "harmless")).await.ends_with("fine"));
    assert!(upstream.got().ends_with("harmless"));
    let (decided, _) = world.ended().await;
    let alarms = decided.iter().filter(|(_, reason)| *reason == Reason::Placeholder).count();
    assert_eq!(alarms, cases.len() - 1 + 3, "{decided:?}");
    assert!(decided.contains(&(Verdict::Deny, Reason::EncodedBody)));
}

#[tokio::test]
async fn no_credential_goes_over_plain_http() {
    let upstream = Upstream::plain(fine).await;
    let world = World::new(bound(), &upstream);
    let plain = |host: &str| format!("GET http://{host}/v1 HTTP/1.1\r\nHost: {host}\r\n\r\n");
    assert!(world.says(&plain(ALLOWED)).await.starts_with("HTTP/1.1 403 "));
    assert_eq!(upstream.got(), "");
    assert!(world.says(&plain("other.test")).await.starts_with("HTTP/1.1 200 "));
    assert!(!upstream.got().contains(SECRET));
    assert_eq!(world.ended().await.0[0], (Verdict::Deny, Reason::PlainToCredentialHost));
}

/// Echoes the credential in every way, in chunks that cut it.
fn echo(head: &str) -> String {
    let secret = head.split("Bearer ").nth(1).unwrap().split("\r\n").next().unwrap();
    let body = format!("{secret} {} {} end", STANDARD.encode(format!("u:{secret}")), hex::encode(secret));
    let (one, two) = body.split_at(7);
    format!(
        "HTTP/1.1 200 {secret}\r\nX-Echo: {secret}\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{one}\r\n{:x}\r\n{two}\r\n0\r\n\r\n",
        one.len(),
        two.len()
    )
}

#[tokio::test]
async fn a_secret_that_is_echoed_is_masked() {
    let (upstream, world, pem) = bound_world(echo).await;
    let answer = world.asks(&pem, &get("/v1", "")).await;
    assert!(upstream.got().contains(SECRET));
    assert!(answer.contains("x-echo: ******************\r\n") && answer.ends_with("0\r\n\r\n"), "{answer}");
    let inner = STANDARD.encode(format!("u:{SECRET}"));
    for spelling in [SECRET, "sk-live", &inner[4..inner.len() - 4], &hex::encode(SECRET)] {
        assert!(!answer.contains(spelling), "{spelling}: {answer}");
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_searched_is_refused() {
    let gzip = |_: &str| "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx".to_owned();
    let (_upstream, world, pem) = bound_world(gzip).await;
    assert!(world.asks(&pem, &get("/v1", "")).await.starts_with("HTTP/1.1 502 "));
    let both =
        |_: &str| "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx".to_owned();
    let (_upstream, world, pem) = bound_world(both).await;
    assert!(world.asks(&pem, &get("/v1", "")).await.starts_with("HTTP/1.1 502 "));
}

#[tokio::test]
async fn a_redirect_is_given_back_and_not_followed() {
    let redirect = |_: &str| {
        "HTTP/1.1 302 Found\r\nLocation: https://evil.test/\r\nContent-Length: 0\r\n\r\n".to_owned()
    };
    let (_upstream, world, pem) = bound_world(redirect).await;
    let answer = world.asks(&pem, &get("/v1", "")).await;
    assert!(
        answer.starts_with("HTTP/1.1 302 ") && answer.contains("location: https://evil.test/"),
        "{answer}"
    );
    assert_eq!(world.asked(), ["api.allowed.test:443"]);
}

#[tokio::test]
async fn a_sandbox_trusts_its_own_authority_alone_and_so_do_we_outside() {
    let (upstream, world, pem) = bound_world(fine).await;
    let neighbour = World::new(bound(), &upstream);
    let theirs = neighbour.egress.ca_pem().unwrap().to_owned();
    assert_ne!(pem, theirs);
    assert_eq!(world.asks(&theirs, &get("/v1", "")).await, "");
    assert_eq!(upstream.got(), "");
    assert!(world.asks(&pem, &get("/v1", "")).await.starts_with("HTTP/1.1 200 "));
    // A server whose certificate nobody vouches for.
    let world = World::resolving(bound(), vec![upstream.address], &theirs);
    let pem = world.egress.ca_pem().unwrap().to_owned();
    assert!(world.asks(&pem, &get("/v1", "")).await.starts_with("HTTP/1.1 502 "));
    assert_eq!(world.ended().await.0[1], (Verdict::End, Reason::UpstreamTls));
}

#[test]
fn rules_that_weaken_a_credential_are_refused() {
    let problems = |change: fn(&mut DeclaredRule)| {
        let mut declared = bound();
        let Entry::Rule(rule) = &mut declared.allow[0] else { unreachable!() };
        change(rule);
        let secret = Secret::new(SECRET.to_owned().into()).unwrap();
        Rules::check(&declared, &std::collections::BTreeMap::from([("api".to_owned(), secret)])).err()
    };
    assert_eq!(problems(|_| {}), None);
    assert!(problems(|rule| rule.to = "*.allowed.test".to_owned()).is_some());
    assert!(problems(|rule| rule.to = "http://api.allowed.test".to_owned()).is_some());
    assert!(problems(|rule| rule.inspect = false).is_some());
    assert!(problems(|rule| rule.paths.clear()).is_some());
    assert!(problems(|rule| rule.credential.as_mut().unwrap().header = "Host".to_owned()).is_some());
    assert!(problems(|rule| rule.credential.as_mut().unwrap().secret = "none".to_owned()).is_some());
    assert!(problems(|rule| rule.credential.as_mut().unwrap().placeholder = SECRET.to_owned()).is_some());
    for text in ["*.test", "*", "*.allowed.test", "ftp://a.test", "a.test:0", "a.test/x", "u@a.test", ""] {
        assert!(Rules::parse(&[text]).is_err(), "{text}");
    }
}
