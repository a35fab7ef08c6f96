//! The authorization endpoint and codes.

use serde_json::json;

use super::house::{AGENTS, BACK, House, PEOPLE, VERIFIER, challenge, hidden};

#[tokio::test]
async fn a_user_logs_in_by_a_code_and_the_client_gets_a_token_for_the_door_it_named() {
    let house = House::new().await;
    let changed = [("resource", "http://127.0.0.1:8788/"), ("scope", "mail.send openid tools")];
    let (address, answer) = house.answer("alice", &changed).await.sent_back();
    assert_eq!(address, BACK);
    assert_eq!((answer["state"].as_str(), answer["iss"].as_str()), ("the state", house.base.as_str()));
    let came = house.redeem(&answer["code"], &[("resource", PEOPLE)]).await;
    assert_eq!(came.header("cache-control"), "no-store");
    let given = came.json();
    assert_eq!(
        (&given["token_type"], &given["scope"], &given["expires_in"]),
        (&json!("Bearer"), &json!("mail.send tools"), &json!(3600)),
        "what does not exist is not granted"
    );
    let claims = house.claims(given["access_token"].as_str().unwrap(), PEOPLE).await;
    assert_eq!(
        (&claims["sub"], &claims["client_id"], &claims["tenant"], &claims["groups"], &claims["iss"]),
        (&json!("alice"), &json!("app"), &json!("acme"), &json!(["analysts"]), &json!(house.base))
    );
    // Without a word about resource and scope: the agents' door, and what every client gets.
    let given = house.login("bob").await;
    assert_eq!(given.text("scope"), "tools");
    assert_eq!(house.claims(&given.text("access_token"), AGENTS).await["sub"], "bob");
}

#[tokio::test]
async fn the_page_says_who_asks_for_what_and_can_do_nothing_else() {
    let house = House::with(|settings| {
        settings
            .users
            .insert("carol".into(), crate::development::User { disabled: true, ..Default::default() });
    })
    .await;
    let page = house.page(&[("login_hint", "bob"), ("state", "\"><script>alert(1)</script>")]).await;
    for shown in [
        "The &#60;app&#62;",
        AGENTS,
        "<code>tools</code>",
        BACK,
        "value=\"alice\" required>",
        "value=\"bob\" required checked>",
    ] {
        assert!(page.text.contains(shown), "{shown}: {}", page.text);
    }
    assert!(!page.text.contains("<script") && !page.text.contains("carol"), "{}", page.text);
    let policy = page.header("content-security-policy");
    let style = page.text.split_once("<style>").unwrap().1.split_once("</style>").unwrap().0;
    let hash = ringfence_core::Digest::of(&[style.as_bytes()]);
    let hash = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, hash.as_bytes());
    assert_eq!(
        policy,
        format!(
            "default-src 'none'; style-src 'sha256-{hash}'; form-action 'self' https://app.example.com; frame-ancestors 'none'; base-uri 'none'"
        )
    );
    assert_eq!(page.header("x-frame-options"), "DENY");
    assert_eq!(page.header("cache-control"), "no-store");
    // A disabled user cannot be chosen by hand either, and nobody is logged in by a hint.
    assert_eq!(house.answer("carol", &[]).await.status, 400);
    assert_eq!(house.answer("", &[("login_hint", "bob")]).await.status, 400);
    assert_eq!(house.answer("bob", &[]).await.status, 303, "the control");
}

#[tokio::test]
async fn a_request_that_is_not_sound_is_refused_where_it_may_be_heard() {
    let house = House::new().await;
    let loopback = [("redirect_uri", "http://127.0.0.1:4711/cb")];
    assert_eq!(house.page(&[]).await.status, 200, "the control");
    assert_eq!(house.answer("bob", &loopback).await.sent_back().0, "http://127.0.0.1:4711/cb");
    // Open redirects: shown to the user, and nothing is sent anywhere.
    for shown in [
        [("redirect_uri", "https://evil.example/cb")],
        [("redirect_uri", "https://app.example.com/cb/../evil")],
        [("redirect_uri", "https://app.example.com/cb?x=1")],
        [("redirect_uri", "https://app.example.com@evil.example/cb")],
        [("redirect_uri", "http://127.0.0.1:1@evil.example/cb")],
        [("redirect_uri", "javascript:alert(1)")],
        [("redirect_uri", "")],
        [("client_id", "unknown")],
        [("client_id", "")],
    ] {
        let came = house.page(&shown).await;
        assert_eq!((came.status, came.header("location")), (400, ""), "{shown:?}");
        assert!(came.text.contains("cannot go on"), "{came:?}");
    }
    let twice = format!("/authorize?{}&redirect_uri=https%3A%2F%2Fevil.example%2Fcb", House::request(&[]));
    assert_eq!(house.get(&twice).await.status, 400);
    let plain = [("code_challenge", VERIFIER), ("code_challenge_method", "plain")];
    let sent: [(&[(&str, &str)], &str); 9] = [
        (&[("response_type", "token")], "unsupported_response_type"),
        (&[("code_challenge", "")], "invalid_request"),
        (&[("code_challenge_method", "")], "invalid_request"),
        (&plain, "invalid_request"),
        (&[("code_challenge", "short")], "invalid_request"),
        (&[("resource", "https://tickets.example.com")], "invalid_target"),
        (&[("resource", "http://127.0.0.1:8787/mcp/")], "invalid_target"),
        (&[("scope", "root")], "invalid_scope"),
        (&[("request", "e30.e30.")], "request_not_supported"),
    ];
    for (changed, code) in sent {
        let (address, answer) = house.page(changed).await.sent_back();
        assert_eq!(
            (address.as_str(), answer["error"].as_str(), answer["state"].as_str(), answer["iss"].as_str()),
            (BACK, code, "the state", house.base.as_str()),
            "{changed:?}"
        );
    }
}

#[tokio::test]
async fn an_answer_counts_only_for_the_page_that_was_shown() {
    let house = House::new().await;
    let page = house.page(&[]).await.text;
    let (request, seal) = (hidden(&page, "request"), hidden(&page, "seal"));
    let other = House::request(&[("client_id", "other")]);
    let another_seal = hidden(&house.page(&[("client_id", "other")]).await.text, "seal");
    let fields = |request, seal| [("request", request), ("seal", seal), ("user", "bob"), ("answer", "allow")];
    let post = async |fields: [(&str, &str); 4], headers: &[(&str, &str)]| {
        let request = house.http.post(format!("{}/authorize", house.base)).form(&fields);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        house.send(request).await
    };
    let own = [("origin", house.base.as_str()), ("sec-fetch-site", "same-origin")];
    let came = post(fields(&request, &seal), &own).await;
    assert!(came.sent_back().1.contains_key("code"), "the control");
    for (fields, what) in [
        (fields(&request, ""), "none"),
        (fields(&request, "9999999999999.AAAA"), "invented"),
        (fields(&request, &another_seal), "of another request"),
        (fields(&other, &seal), "for another request"),
    ] {
        assert_eq!(post(fields, &own).await.status, 400, "{what}");
    }
    for foreign in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("origin", "http://localhost:1"),
        ("sec-fetch-site", "cross-site"),
    ] {
        let came = post(fields(&request, &seal), &[foreign]).await;
        assert!(matches!(came.status, 400 | 403) && came.header("location").is_empty(), "{foreign:?}");
    }
    let denied = [("request", request.as_str()), ("seal", &seal), ("user", "bob"), ("answer", "deny")];
    assert_eq!(post(denied, &own).await.sent_back().1["error"], "access_denied");
    house.later(600_001);
    assert_eq!(post(fields(&request, &seal), &own).await.status, 400, "too old");
}

#[tokio::test]
async fn a_code_is_good_once_for_a_minute_and_for_its_own_request() {
    let house = House::new().await;
    let refused = (400, "invalid_grant".to_owned());
    let wrong: [(&[(&str, &str)], &str); 6] = [
        (&[("client_id", "other")], "another client"),
        (&[("redirect_uri", "http://127.0.0.1/cb")], "another address"),
        (&[("redirect_uri", "")], "no address"),
        (&[("code_verifier", "another-verifier-of-forty-three-letters-or-more")], "another verifier"),
        (&[("code_verifier", &challenge())], "the challenge itself"),
        (&[("code", "guessed")], "no code"),
    ];
    for (changed, what) in wrong {
        let code = house.code("bob", &[]).await;
        assert_eq!(house.redeem(&code, changed).await.error(), refused, "{what}");
        let again = house.redeem(&code, &[]).await;
        assert_eq!(again.status, if what == "no code" { 200 } else { 400 }, "{what}: it is spent");
    }
    let code = house.code("bob", &[]).await;
    assert_eq!(house.redeem(&code, &[("resource", PEOPLE)]).await.error(), (400, "invalid_target".into()));
    assert_eq!(
        house.redeem(&house.code("bob", &[]).await, &[("code_verifier", "")]).await.error().1,
        "invalid_request"
    );
    let code = house.code("bob", &[]).await;
    house.later(59_999);
    assert_eq!(house.redeem(&code, &[]).await.status, 200, "the control");
    let code = house.code("bob", &[]).await;
    house.later(60_000);
    assert_eq!(house.redeem(&code, &[]).await.error(), refused, "too late");
}

#[tokio::test]
async fn a_code_that_comes_again_ends_all_that_it_led_to() {
    let house = House::new().await;
    let (code, bystander) = (house.code("bob", &[]).await, house.login("alice").await);
    let given = house.redeem(&code, &[]).await;
    assert!(house.is_active(&given.text("access_token")).await, "the control");
    assert_eq!(house.redeem(&code, &[]).await.error(), (400, "invalid_grant".into()));
    assert!(!house.is_active(&given.text("access_token")).await);
    assert_eq!(house.refresh(&given.text("refresh_token"), &[]).await.error().1, "invalid_grant");
    assert!(house.is_active(&bystander.text("access_token")).await, "others go on");
}

#[tokio::test]
async fn two_issuers_can_be_told_apart() {
    let (mine, theirs) = (House::new().await, House::new().await);
    let answer = theirs.answer("bob", &[]).await.sent_back().1;
    // What a client compares (RFC 9207 §2.4), and what happens where one does not: the code means nothing here.
    assert_ne!(answer["iss"], mine.base);
    assert_eq!(mine.redeem(&answer["code"], &[]).await.error(), (400, "invalid_grant".into()));
    assert_eq!(theirs.redeem(&answer["code"], &[]).await.status, 200, "the control");
}
