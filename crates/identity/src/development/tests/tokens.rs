//! The token endpoint beyond codes, and what becomes of tokens.

use std::collections::BTreeMap;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ringfence_core::Secret;
use serde_json::json;

use super::house::{AGENTS, Came, Form, House, PEOPLE, SECRET, TICKETS, pairs, redemption, user};
use crate::TokenRefused;
use crate::development::Minting;

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const GATEWAY: &str = "ringfence-gateway";

#[tokio::test]
async fn a_refresh_token_is_good_once_and_a_second_time_ends_the_login() {
    let house = House::new().await;
    let first = house.login("bob").await;
    house.later(3_600_000);
    let second = house.refresh(&first.text("refresh_token"), &[]).await;
    assert_eq!(house.claims(&second.text("access_token"), AGENTS).await["sub"], "bob", "the control");
    assert_ne!(second.text("refresh_token"), first.text("refresh_token"));
    assert_eq!(house.refresh(&first.text("refresh_token"), &[]).await.error(), (400, "invalid_grant".into()));
    assert_eq!(
        house.refresh(&second.text("refresh_token"), &[]).await.error(),
        (400, "invalid_grant".into())
    );
    assert!(!house.is_active(&second.text("access_token")).await);
}

#[tokio::test]
async fn a_refresh_token_gives_nobody_else_and_nothing_more() {
    let house = House::new().await;
    let code = house.code("bob", &[("scope", "tools mail.send")]).await;
    let mut token = house.redeem(&code, &[]).await.text("refresh_token");
    let refused: [(&[(&str, &str)], &str); 4] = [
        (&[("client_id", "other")], "invalid_grant"),
        (&[("resource", PEOPLE)], "invalid_target"),
        (&[("scope", "tools root")], "invalid_scope"),
        (&[("client_id", "")], "invalid_client"),
    ];
    for (changed, code) in refused {
        assert_eq!(house.refresh(&token, changed).await.error().1, code, "{changed:?}");
    }
    for (asked, given) in [("tools", "tools"), ("", "tools mail.send")] {
        let came = house.refresh(&token, &[("scope", asked)]).await;
        assert_eq!(came.text("scope"), given, "narrower once is not narrower for ever (RFC 6749 §6)");
        token = came.text("refresh_token");
    }
    house.later(14 * 24 * 3_600_000);
    assert_eq!(house.refresh(&token, &[]).await.error().1, "invalid_grant", "two weeks");
}

#[tokio::test]
async fn whoever_knows_the_name_of_a_login_cannot_end_it() {
    let house = House::new().await;
    let given = house.login("bob").await;
    let name = house.claims(&given.text("access_token"), AGENTS).await["login"].as_str().unwrap().to_owned();
    let tag = given.text("refresh_token").rsplit_once('.').unwrap().1.to_owned();
    for forged in
        [format!("{name}.0.AAAA"), format!("{name}.1.{tag}"), format!("{name}.0"), format!("{name}.7.")]
    {
        assert_eq!(house.refresh(&forged, &[]).await.error().1, "invalid_grant", "{forged}");
        house.post("/revoke", &[("token", &forged), ("client_id", "app")]).await;
    }
    assert!(house.is_active(&given.text("access_token")).await);
    assert_eq!(house.refresh(&given.text("refresh_token"), &[]).await.status, 200, "the control");
}

#[tokio::test]
async fn of_two_that_refresh_at_once_one_gets_nothing() {
    let house = House::new().await;
    let token = house.login("bob").await.text("refresh_token");
    let (one, two) = tokio::join!(house.refresh(&token, &[]), house.refresh(&token, &[]));
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 400]);
}

#[tokio::test]
async fn a_user_who_is_gone_or_disabled_gets_nothing_more() {
    let house = House::new().await;
    for disabled in [true, false] {
        let (bob, alice) = (house.login("bob").await, house.login("alice").await);
        let minting =
            Minting { user: "bob", agent: "cli", audience: AGENTS, scopes: &[], lifetime_seconds: 60 };
        let minted = house.issuer.mint(minting, house.now()).ok().unwrap();
        assert!(house.is_active(minted.expose()).await, "the control");
        let mut users = BTreeMap::from([("alice".to_owned(), user("acme"))]);
        if disabled {
            users.insert("bob".into(), crate::development::User { disabled: true, ..user("acme") });
        }
        house.issuer.set_users(users.clone());
        assert!(!house.is_active(&bob.text("access_token")).await);
        assert!(!house.is_active(minted.expose()).await);
        assert!(house.issuer.mint(minting, house.now()).is_err());
        assert_eq!(house.refresh(&bob.text("refresh_token"), &[]).await.error().1, "invalid_grant");
        assert!(house.is_active(&alice.text("access_token")).await, "others go on");
        users.insert("bob".into(), user("acme"));
        house.issuer.set_users(users);
        assert!(
            !house.is_active(&bob.text("access_token")).await,
            "coming back does not bring the login back"
        );
    }
}

#[tokio::test]
async fn a_client_of_the_project_gets_a_token_of_its_own() {
    let house = House::new().await;
    let own = [("grant_type", "client_credentials")];
    let given = house.post_as("backend", "/token", &own).await;
    let claims = house.claims(&given.text("access_token"), PEOPLE).await;
    assert_eq!(
        (&claims["sub"], &claims["client_id"], &claims["groups"], &claims["scope"]),
        (&json!("backend"), &json!("backend"), &json!([]), &json!("tools"))
    );
    assert_eq!(given.json().get("refresh_token"), None);
    assert!(house.is_active(&given.text("access_token")).await);
    // By `Basic`, each part encoded (RFC 6749 §2.3.1).
    let encode = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let basic = STANDARD.encode(format!("{}:{}", encode("backend"), encode(SECRET)));
    let request = house.http.post(format!("{}/token", house.base)).form(&own);
    let came = house.send(request.header("authorization", format!("Basic {basic}"))).await;
    assert_eq!(came.status, 200, "{came:?}");
    let wrong: [(Form<'_>, &str); 5] = [
        (&[("client_id", "backend"), ("client_secret", "guess")], "invalid_client"),
        (&[("client_id", "backend")], "invalid_client"),
        (&[("client_id", "app"), ("client_secret", "anything")], "invalid_client"),
        (&[("client_id", "app")], "unauthorized_client"),
        (&[("client_id", "backend"), ("client_secret", SECRET), ("scope", "root")], "invalid_scope"),
    ];
    for (who, code) in wrong {
        let form: Vec<_> = who.iter().copied().chain(own).collect();
        assert_eq!(house.post("/token", &form).await.error().1, code, "{who:?}");
    }
    let both = house.http.post(format!("{}/token", house.base));
    let both = both.header("authorization", format!("Basic {basic}"));
    let both = both.form(&[("grant_type", "client_credentials"), ("client_secret", SECRET)]);
    assert_eq!(house.send(both).await.error().1, "invalid_request");
}

async fn exchange(house: &House, client: &str, subject: &str, changed: Form<'_>) -> Came {
    let mut form = BTreeMap::from([
        ("grant_type", EXCHANGE),
        ("subject_token", subject),
        ("subject_token_type", ACCESS_TOKEN),
        ("audience", TICKETS),
        ("scope", "read"),
    ]);
    form.extend(changed.iter().copied());
    form.retain(|_, value| !value.is_empty());
    house.post_as(client, "/token", &pairs(&form)).await
}

#[tokio::test]
async fn an_exchange_gives_what_the_table_has_and_never_more_than_was_asked_for() {
    let house = House::new().await;
    let subject = house.login("bob").await.text("access_token");
    let given = exchange(&house, GATEWAY, &subject, &[]).await;
    assert_eq!((given.text("scope"), given.json()["expires_in"].clone()), ("read".into(), json!(60)));
    let claims = house.claims(&given.text("access_token"), TICKETS).await;
    assert_eq!(claims["act"], json!({ "sub": GATEWAY, "act": { "sub": "app" } }));
    assert_eq!(
        (&claims["sub"], &claims["scope"], &claims["tenant"]),
        (&json!("bob"), &json!("read"), &json!("acme"))
    );
    // None asked for is none given.
    let none = exchange(&house, GATEWAY, &subject, &[("scope", "")]).await;
    assert_eq!(house.claims(&none.text("access_token"), TICKETS).await["scope"], "");
    let downstream = given.text("access_token");
    let wrong: [(&str, &str, Form<'_>, &str); 11] = [
        (GATEWAY, &subject, &[("scope", "read root")], "invalid_scope"),
        (GATEWAY, &subject, &[("audience", "https://other.example")], "invalid_target"),
        (GATEWAY, &subject, &[("resource", TICKETS)], "invalid_request"),
        (
            GATEWAY,
            &subject,
            &[("subject_token_type", "urn:ietf:params:oauth:token-type:id_token")],
            "invalid_request",
        ),
        (
            GATEWAY,
            &subject,
            &[("requested_token_type", "urn:ietf:params:oauth:token-type:refresh_token")],
            "invalid_request",
        ),
        (GATEWAY, &subject, &[("actor_token", "x")], "invalid_request"),
        (GATEWAY, &downstream, &[], "invalid_grant"),
        (GATEWAY, "guess", &[], "invalid_grant"),
        ("backend", &subject, &[], "invalid_target"),
        // At a door the user's own token is a bound as well.
        ("backend", &subject, &[("audience", AGENTS), ("scope", "tools admin")], "invalid_scope"),
        ("backend", &subject, &[("audience", PEOPLE), ("scope", "tools")], "invalid_target"),
    ];
    for (client, subject, changed, code) in wrong {
        assert_eq!(exchange(&house, client, subject, changed).await.error().1, code, "{client} {changed:?}");
    }
    let public = [("grant_type", EXCHANGE), ("client_id", "app"), ("subject_token", &subject)];
    assert_eq!(house.post("/token", &public).await.error().1, "unauthorized_client");
}

#[tokio::test]
async fn whoever_acts_stays_visible_and_a_chain_ends() {
    let house = House::new().await;
    let mut token = house.login("bob").await.text("access_token");
    let at_door = [("audience", AGENTS), ("scope", "tools")];
    token = exchange(&house, "backend", &token, &at_door).await.text("access_token");
    let given = exchange(&house, GATEWAY, &token, &[]).await.text("access_token");
    let claims = house.claims(&given, TICKETS).await;
    assert_eq!(
        claims["act"],
        json!({ "sub": GATEWAY, "act": { "sub": "backend", "act": { "sub": "app" } } })
    );
    for _ in 0..3 {
        token = exchange(&house, "backend", &token, &at_door).await.text("access_token");
    }
    assert_eq!(exchange(&house, "backend", &token, &at_door).await.error().1, "invalid_request");
    // What comes of a token never outlives it.
    house.later(50_000);
    let late = exchange(&house, GATEWAY, &token, &[]).await;
    assert_eq!(late.json()["error"], "invalid_request", "five act already");
    let subject = house.login("bob").await.text("access_token");
    house.later(3_590_000);
    assert_eq!(exchange(&house, GATEWAY, &subject, &[]).await.json()["expires_in"], 10);
}

#[tokio::test]
async fn what_a_client_gives_back_is_gone_and_only_its_own() {
    let house = House::new().await;
    let revoke = async |token: &str, client: &str| {
        house.post("/revoke", &[("token", token), ("client_id", client)]).await.status
    };
    let given = house.login("bob").await;
    let (access, refresh) = (given.text("access_token"), given.text("refresh_token"));
    assert_eq!([revoke(&access, "other").await, revoke(&refresh, "other").await], [400, 400]);
    assert!(house.is_active(&access).await, "the control");
    assert_eq!(revoke(&access, "app").await, 200);
    assert!(!house.is_active(&access).await);
    assert_eq!(exchange(&house, GATEWAY, &access, &[]).await.error().1, "invalid_grant");
    let next = house.refresh(&refresh, &[]).await;
    assert!(house.is_active(&next.text("access_token")).await, "the login goes on");
    assert_eq!(revoke(&next.text("refresh_token"), "app").await, 200);
    assert!(!house.is_active(&next.text("access_token")).await);
    assert_eq!(house.refresh(&next.text("refresh_token"), &[]).await.error().1, "invalid_grant");
    assert_eq!(revoke("no token at all", "app").await, 200);
    assert_eq!(
        house.post("/revoke", &[("token", "x"), ("client_id", "backend")]).await.error().1,
        "invalid_client"
    );
}

#[tokio::test]
async fn only_the_gateway_and_clients_of_the_project_look_into_tokens() {
    let house = House::new().await;
    let given = house.login("bob").await;
    let token = given.text("access_token");
    let shown = house.post_as(GATEWAY, "/introspect", &[("token", &token)]).await.json();
    assert_eq!(
        (
            &shown["active"],
            &shown["sub"],
            &shown["aud"],
            &shown["client_id"],
            &shown["scope"],
            &shown["token_type"]
        ),
        (&json!(true), &json!("bob"), &json!(AGENTS), &json!("app"), &json!("tools"), &json!("Bearer"))
    );
    assert!(house.post_as("backend", "/introspect", &[("token", &token)]).await.json()["active"] == true);
    let registered = house.http.post(format!("{}/register", house.base));
    let registered = house.send(registered.json(&json!({ "redirect_uris": ["http://127.0.0.1/cb"] }))).await;
    let (id, secret) = (registered.text("client_id"), registered.text("client_secret"));
    let strangers: [Form<'_>; 4] = [
        &[],
        &[("client_id", "app")],
        &[("client_id", GATEWAY), ("client_secret", "guess")],
        &[("client_id", &id), ("client_secret", &secret)],
    ];
    for who in strangers {
        let form: Vec<_> = who.iter().copied().chain([("token", token.as_str())]).collect();
        assert_eq!(house.post("/introspect", &form).await.error(), (401, "invalid_client".into()), "{who:?}");
    }
    for dead in ["guess", &given.text("refresh_token"), &token[..token.len() - 2]] {
        let shown = house.post_as(GATEWAY, "/introspect", &[("token", dead)]).await;
        assert_eq!(shown.json(), json!({ "active": false }), "{dead}");
    }
    house.later(3_700_000);
    assert!(!house.is_active(&token).await, "expired");
}

#[tokio::test]
async fn what_is_no_access_token_passes_for_none() {
    let house = House::new().await;
    let given = house.login("bob").await;
    let check = house.issuer.check(AGENTS).unwrap();
    let access = Secret::new(given.text("access_token"));
    assert!(check.check(&access, house.now()).await.is_ok(), "the control");
    // The same claims as an ID token would have them, signed by the same key.
    let claims = house.claims(access.expose(), AGENTS).await;
    for typ in [Some("JWT"), None] {
        let header = jsonwebtoken::Header {
            typ: typ.map(str::to_owned),
            kid: Some("development-1".into()),
            ..jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256)
        };
        let token = Secret::new(jsonwebtoken::encode(&header, &claims, &house.issuer.key).unwrap());
        assert_eq!(check.check(&token, house.now()).await.err(), Some(TokenRefused::Type));
        assert!(!house.is_active(token.expose()).await);
        assert_eq!(exchange(&house, GATEWAY, token.expose(), &[]).await.error().1, "invalid_grant");
    }
    let refresh = Secret::new(given.text("refresh_token"));
    assert_eq!(check.check(&refresh, house.now()).await.err(), Some(TokenRefused::Malformed));
}

struct Prover(Ed25519KeyPair);

impl Prover {
    fn new() -> Self {
        Self(Ed25519KeyPair::generate().unwrap())
    }

    fn thumbprint(&self) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.0.public_key());
        let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
        URL_SAFE_NO_PAD.encode(ringfence_core::Digest::of(&[members.as_bytes()]).as_bytes())
    }

    fn proof(&self, house: &House, id: &str, url: &str) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.0.public_key());
        let key = json!({ "kty": "OKP", "crv": "Ed25519", "x": x });
        let header = json!({ "typ": "dpop+jwt", "alg": "EdDSA", "jwk": key });
        let claims = json!({ "jti": id, "htm": "POST", "htu": url, "iat": house.now().seconds() });
        let encode = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(header), encode(claims));
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(self.0.sign(signed.as_bytes())))
    }

    async fn post(&self, house: &House, id: &str, form: Form<'_>) -> Came {
        let url = format!("{}/token", house.base);
        let request = house.http.post(&url).form(form).header("dpop", self.proof(house, id, &url));
        house.send(request).await
    }
}

#[tokio::test]
async fn a_token_is_bound_to_the_key_that_was_proved_and_so_is_its_login() {
    let house = House::new().await;
    let (owner, thief) = (Prover::new(), Prover::new());
    let bound = [("dpop_jkt", owner.thumbprint())];
    let bound: Vec<(&str, &str)> = bound.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let code = house.code("bob", &bound).await;
    assert_eq!(house.redeem(&code, &[]).await.error().1, "invalid_grant", "without the key it named");
    let code = house.code("bob", &bound).await;
    assert_eq!(thief.post(&house, "1", &pairs(&redemption(&code, &[]))).await.error().1, "invalid_grant");
    let code = house.code("bob", &bound).await;
    let given = owner.post(&house, "1", &pairs(&redemption(&code, &[]))).await;
    assert_eq!(given.text("token_type"), "DPoP");
    let claims = house.claims(&given.text("access_token"), AGENTS).await;
    assert_eq!(claims["cnf"], json!({ "jkt": owner.thumbprint() }));
    let token = given.text("refresh_token");
    let refresh = [("grant_type", "refresh_token"), ("client_id", "app"), ("refresh_token", token.as_str())];
    assert_eq!(house.post("/token", &refresh).await.error().1, "invalid_dpop_proof");
    assert_eq!(thief.post(&house, "2", &refresh).await.error().1, "invalid_dpop_proof");
    assert_eq!(
        owner.post(&house, "1", &refresh).await.error().1,
        "invalid_dpop_proof",
        "the proof was spent"
    );
    let elsewhere = owner.proof(&house, "3", "https://elsewhere.example/token");
    let request = house.http.post(format!("{}/token", house.base)).form(&refresh).header("dpop", elsewhere);
    assert_eq!(house.send(request).await.error().1, "invalid_dpop_proof");
    assert_eq!(owner.post(&house, "4", &refresh).await.text("token_type"), "DPoP", "the control");
}
