//! The token check against tokens that are wrong in one way each, and the exchange against the development issuer.

mod bound;
mod fake;
mod introspection;
mod issuers;
mod rotation;

use std::collections::BTreeMap;
use std::sync::Arc;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use ringfence_core::{Authorities, Instant, Run, Secret, SystemName};
use serde_json::{Map, Value, json};

use crate::credential::{ClientSettings, Exchange, ExchangeSettings, Target, Wanted};
use crate::development::{Issuer, IssuerSettings, Minting, User, new_key, router};
use crate::{Door, Endpoint, GroupsClaim, Identity, KnownAgents, TokenRefused, for_tests};

const NOW: Instant = Instant(1_800_000_000_000);
const AUDIENCE: &str = "http://127.0.0.1:8787/mcp";
const PEOPLE: &str = "http://127.0.0.1:8788";

fn settings(listen: &str) -> IssuerSettings {
    let bob = User {
        groups: vec!["analysts".into()],
        claims: BTreeMap::from([("tenant".into(), "acme".into())]),
        disabled: false,
    };
    IssuerSettings {
        listen: listen.parse().unwrap(),
        groups_claim: "groups".into(),
        users: BTreeMap::from([("bob".into(), bob)]),
        resources: vec![AUDIENCE.into(), PEOPLE.into()],
        downstream: BTreeMap::from([("https://tickets".into(), ["edit".to_owned()].into())]),
        logins: crate::development::Logins::default(),
    }
}

fn minting() -> Minting<'static> {
    Minting { user: "bob", agent: "cli", audience: AUDIENCE, scopes: &[], lifetime_seconds: 600 }
}

/// The claims of a sound token, with one of them changed.
fn with(name: &str, value: Value) -> Map<String, Value> {
    let now = NOW.seconds();
    let mut claims = json!({
        "iss": "http://127.0.0.1:8789", "sub": "bob", "aud": AUDIENCE, "iat": now, "exp": now + 60, "client_id": "cli"
    });
    claims[name] = value;
    claims
        .as_object()
        .unwrap()
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

#[tokio::test]
async fn a_token_that_is_wrong_in_any_one_way_is_refused_for_that() {
    let key = new_key().unwrap();
    let issuer = Issuer::new(&key, settings("127.0.0.1:8789")).unwrap();
    let check = issuer.check(AUDIENCE).unwrap();
    let der = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, key.expose()).unwrap();
    let signing = EncodingKey::from_ec_der(&der);
    let header = Header {
        typ: Some("at+jwt".into()),
        kid: Some("development-1".into()),
        ..Header::new(Algorithm::ES256)
    };
    let sign = |header: &Header, claims: &Map<String, Value>| {
        Secret::new(jsonwebtoken::encode(header, claims, &signing).unwrap())
    };
    let now = NOW.seconds();

    // The control: the same claims, unchanged, pass.
    assert_eq!(
        check.check(&sign(&header, &with("x", Value::Null)), NOW).await.map(|token| token.subject),
        Ok("bob".into())
    );
    let by_claim = [
        ("iss", json!("http://evil"), TokenRefused::Issuer),
        ("iss", json!(["http://127.0.0.1:8789"]), TokenRefused::Issuer),
        ("iss", Value::Null, TokenRefused::Issuer),
        ("aud", json!(PEOPLE), TokenRefused::Audience),
        ("aud", json!([AUDIENCE, PEOPLE]), TokenRefused::Audience),
        ("aud", Value::Null, TokenRefused::Audience),
        ("exp", json!(now - 5), TokenRefused::Expired),
        ("exp", json!("9999999999"), TokenRefused::Claims),
        ("exp", Value::Null, TokenRefused::Claims),
        ("exp", json!(now + 90_000), TokenRefused::Claims),
        ("iat", json!(now + 60), TokenRefused::NotYet),
        ("iat", Value::Null, TokenRefused::Claims),
        ("nbf", json!(now + 60), TokenRefused::NotYet),
        ("sub", json!(""), TokenRefused::Claims),
        ("sub", json!(["bob"]), TokenRefused::Claims),
        ("client_id", Value::Null, TokenRefused::Claims),
    ];
    for (name, value, why) in by_claim {
        let token = sign(&header, &with(name, value.clone()));
        assert_eq!(check.check(&token, NOW).await.err(), Some(why), "{name} = {value}");
    }
    let claims = with("x", Value::Null);
    let by_header = [
        (Header { typ: Some("JWT".into()), ..header.clone() }, TokenRefused::Type),
        (Header { typ: None, ..header.clone() }, TokenRefused::Type),
        (Header { kid: None, ..header.clone() }, TokenRefused::Key),
        (Header { kid: Some("other".into()), ..header.clone() }, TokenRefused::Key),
        (Header { crit: Some(vec!["b64".into()]), ..header.clone() }, TokenRefused::Malformed),
    ];
    for (header, why) in by_header {
        assert_eq!(check.check(&sign(&header, &claims), NOW).await.err(), Some(why), "{header:?}");
    }
    let sound = sign(&header, &claims).expose().to_owned();
    let (signed, signature) = sound.rsplit_once('.').unwrap();
    let payload = signed.split_once('.').unwrap().1;
    let encode = |text: &str| base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, text);
    // A foreign key under a known name, no algorithm at all, the public key taken for a shared secret, a changed payload.
    let foreign =
        base64::Engine::decode(&base64::engine::general_purpose::STANDARD, new_key().unwrap().expose())
            .unwrap();
    let foreign = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ec_der(&foreign)).unwrap();
    let none = format!("{}.{payload}.", encode(r#"{"alg":"none","typ":"at+jwt","kid":"development-1"}"#));
    let shared = Header { alg: Algorithm::HS256, ..header.clone() };
    let shared = jsonwebtoken::encode(&shared, &claims, &EncodingKey::from_secret(b"public key")).unwrap();
    let altered =
        format!("{}.{}.{signature}", signed.split_once('.').unwrap().0, encode(&payload.to_uppercase()));
    for (token, why) in [
        (foreign, TokenRefused::Signature),
        (none, TokenRefused::Malformed),
        (shared, TokenRefused::Algorithm),
        (altered, TokenRefused::Signature),
        ("a.b".into(), TokenRefused::Malformed),
    ] {
        assert_eq!(check.check(&Secret::new(token.clone()), NOW).await.err(), Some(why), "{token}");
    }
}

#[tokio::test]
async fn each_accepted_algorithm_verifies_with_its_own_key_alone() {
    use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
    let ed25519 = aws_lc_rs::signature::Ed25519KeyPair::generate().unwrap().to_pkcs8v1().unwrap();
    let rsa = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let rsa: Pkcs8V1Der<'_> = rsa.as_der().unwrap();
    let pem = |der: &[u8]| {
        let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, der);
        format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n")
    };
    let keys = [
        (Algorithm::EdDSA, EncodingKey::from_ed_der(ed25519.as_ref())),
        (Algorithm::RS256, EncodingKey::from_rsa_pem(pem(rsa.as_ref()).as_bytes()).unwrap()),
    ];
    let published = keys.iter().map(|(algorithm, key)| {
        let mut key = jsonwebtoken::jwk::Jwk::from_encoding_key(key, *algorithm).unwrap();
        key.common.key_id = Some(format!("{algorithm:?}"));
        key
    });
    let published = jsonwebtoken::jwk::JwkSet { keys: published.collect() };
    let check = |algorithms: Vec<crate::SigningAlgorithm>| {
        let rules = crate::TokenRules {
            issuer: "http://127.0.0.1:8789".into(),
            audience: AUDIENCE.into(),
            algorithms,
            token_type: "at+jwt".into(),
            lifetime_max_seconds: 3600,
        };
        crate::TokenCheck::new(rules, crate::KeySource::Fixed(published.clone())).unwrap()
    };
    let both = check(vec![crate::SigningAlgorithm::EdDsa, crate::SigningAlgorithm::Rs256]);
    for (algorithm, key) in &keys {
        let token = |kid: String| {
            let header = Header { typ: Some("at+jwt".into()), kid: Some(kid), ..Header::new(*algorithm) };
            Secret::new(jsonwebtoken::encode(&header, &with("x", Value::Null), key).unwrap())
        };
        let good = token(format!("{algorithm:?}"));
        assert_eq!(
            both.check(&good, NOW).await.map(|token| token.subject),
            Ok("bob".into()),
            "{algorithm:?}"
        );
        for (other, _) in keys.iter().filter(|(other, _)| other != algorithm) {
            let confused = both.check(&token(format!("{other:?}")), NOW).await;
            assert_eq!(confused.err(), Some(TokenRefused::Key), "{algorithm:?} with the key of {other:?}");
        }
        let neither = check(vec![crate::SigningAlgorithm::Es256]);
        assert_eq!(neither.check(&good, NOW).await.err(), Some(TokenRefused::Algorithm));
    }
}

#[tokio::test]
async fn a_token_for_one_door_is_refused_at_the_other() {
    let issuer = Issuer::new(&new_key().unwrap(), settings("127.0.0.1:8789")).unwrap();
    let (agents, people) = (issuer.check(AUDIENCE).unwrap(), issuer.check(PEOPLE).unwrap());
    let identity = Identity::new(agents, people, groups(false), Authorities::establish().verifier)
        .knowing(KnownAgents::Any);
    let token = issuer.mint(minting(), NOW).ok().unwrap();
    let identified = identity.identify(Door::Agents, &token, NOW).await.unwrap();
    assert_eq!(identified.principal.subject(), "bob");
    assert_eq!(
        identified.principal.groups().iter().map(ringfence_core::GroupName::as_str).collect::<Vec<_>>(),
        ["analysts"]
    );
    assert_eq!(identity.identify(Door::People, &token, NOW).await.err(), Some(TokenRefused::Audience));
}

fn groups(optional: bool) -> GroupsClaim {
    GroupsClaim { name: "groups".into(), optional }
}

#[tokio::test]
async fn a_token_that_may_hide_a_group_or_a_claim_is_refused() {
    let key = new_key().unwrap();
    let issuer = Issuer::new(&key, settings("127.0.0.1:8789")).unwrap();
    let der = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, key.expose()).unwrap();
    let signing = EncodingKey::from_ec_der(&der);
    let encode = |text: &str| base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, text);
    // Signed as it stands, so that a claim can stand twice.
    let token = |more: &str| {
        let claims = Value::Object(with("x", Value::Null)).to_string();
        let claims = format!("{}{more}}}", claims.trim_end_matches('}'));
        let signed = format!(
            "{}.{}",
            encode(r#"{"alg":"ES256","typ":"at+jwt","kid":"development-1"}"#),
            encode(&claims)
        );
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &signing, Algorithm::ES256).unwrap();
        Secret::new(format!("{signed}.{signature}"))
    };
    let identify = async |more: &str, optional: bool| {
        let (agents, people) = (issuer.check(AUDIENCE).unwrap(), issuer.check(PEOPLE).unwrap());
        let identity = Identity::new(agents, people, groups(optional), Authorities::establish().verifier)
            .knowing(KnownAgents::Any);
        identity
            .identify(Door::Agents, &token(more), NOW)
            .await
            .map(|identified| identified.principal.groups().len())
    };
    assert_eq!(identify(r#","groups":["contractors"]"#, false).await, Ok(1), "the control");
    assert_eq!(identify("", true).await, Ok(0), "where the operator says that groups may be absent");
    for (more, optional) in [
        ("", false),
        (r#","_claim_names":{"groups":"src1"}"#, true),
        (r#","hasgroups":true"#, true),
        (r#","groups":"contractors""#, true),
        (r#","groups":["contractors"],"groups":[]"#, false),
        (r#","groups":[],"scope":"a","scope":"b""#, false),
        (r#","groups":[],"client_id":"""#, false),
    ] {
        assert_eq!(identify(more, optional).await, Err(TokenRefused::Claims), "{more}");
    }
}

/// A server on loopback that answers every request like this, after a while.
async fn answering(answer: Value, after: std::time::Duration) -> (String, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = axum::Router::new().fallback(move || async move {
        tokio::time::sleep(after).await;
        axum::Json(answer)
    });
    (url, tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }))
}

#[tokio::test]
async fn an_unknown_key_name_does_not_hold_up_those_who_have_a_known_one() {
    let key = new_key().unwrap();
    let issuer = Issuer::new(&key, settings("127.0.0.1:8789")).unwrap();
    let token = issuer.mint(minting(), NOW).ok().unwrap();
    let unknown = token.expose().replacen(
        &token.expose()[..token.expose().find('.').unwrap()],
        &base64::Engine::encode(
            &base64::engine::general_purpose::URL_SAFE_NO_PAD,
            r#"{"alg":"ES256","typ":"at+jwt","kid":"junk"}"#,
        ),
        1,
    );
    let (url, serving) =
        answering(json!(issuer.published_keys()), std::time::Duration::from_millis(700)).await;
    let rules = crate::TokenRules {
        issuer: "http://127.0.0.1:8789".into(),
        audience: AUDIENCE.into(),
        algorithms: vec![crate::SigningAlgorithm::Es256],
        token_type: "at+jwt".into(),
        lifetime_max_seconds: 3600,
    };
    let check = crate::TokenCheck::new(rules, crate::KeySource::Url(Endpoint::new(&url).unwrap())).unwrap();
    assert!(check.check(&token, NOW).await.is_ok(), "fetched once");
    let later = Instant(NOW.0 + 20_000);
    let unknown = Secret::new(unknown);
    let (junk, (known, took)) = tokio::join!(check.check(&unknown, later), async {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        let began = std::time::Instant::now();
        (check.check(&token, later).await, began.elapsed())
    });
    assert_eq!(junk.err(), Some(TokenRefused::Key));
    assert!(known.is_ok() && took < std::time::Duration::from_millis(400), "{took:?}");
    serving.abort();
}

#[test]
fn the_development_issuer_refuses_to_listen_beyond_loopback() {
    let refused = Issuer::new(&new_key().unwrap(), settings("0.0.0.0:8789")).err().unwrap();
    assert!(refused.to_string().contains("loopback alone"), "{refused}");
}

fn wanted<'a>(run: &'a Run, system: &'a SystemName, token: &'a Secret, now: Instant) -> Wanted<'a> {
    Wanted { run, subject_token: Some(token), system, scopes: None, now }
}

#[tokio::test]
async fn an_exchange_gives_a_token_in_the_users_name_for_one_system_alone() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listen = listener.local_addr().unwrap();
    let issuer = Arc::new(Issuer::new(&new_key().unwrap(), settings(&listen.to_string())).unwrap());
    let serving = tokio::spawn(axum::serve(listener, router(issuer.clone(), || NOW)).into_future());
    let exchange = |audience: &str, scope: &str, secret: Secret| {
        let client = ClientSettings {
            token_endpoint: Endpoint::new(&format!("http://{listen}/token")).unwrap(),
            client_id: crate::development::GATEWAY_CLIENT.into(),
            client_secret: Some(secret),
        };
        let (target, scopes) = (Target::Audience(audience.into()), vec![scope.into()]);
        Exchange::new(ExchangeSettings { client, target, scopes, act_required: false }).unwrap()
    };
    let (run, system) = (for_tests::run("bob"), for_tests::system("tickets"));
    let subject = issuer.mint(minting(), NOW).ok().unwrap();
    let tickets = exchange("https://tickets", "edit", issuer.gateway_secret());
    let token = tickets.token_for(wanted(&run, &system, &subject, NOW)).await.ok().unwrap();
    let claims = issuer.check("https://tickets").unwrap().check(&token, NOW).await.unwrap().claims;
    assert_eq!(
        (&claims["sub"], &claims["act"]["act"]["sub"], &claims["tenant"]),
        (&json!("bob"), &json!("cli"), &json!("acme"))
    );
    assert!(token.expose() != subject.expose());
    assert_eq!(
        tickets.token_for(wanted(&run, &system, &subject, NOW)).await.ok().unwrap().expose(),
        token.expose(),
        "kept"
    );
    let later = Instant(NOW.0 + 55_000);
    assert_ne!(
        tickets.token_for(wanted(&run, &system, &subject, later)).await.ok().unwrap().expose(),
        token.expose(),
        "not beyond its life"
    );

    let refused = async |exchange: Exchange, subject: &Secret| {
        exchange.token_for(wanted(&run, &system, subject, NOW)).await.err().map(|error| error.to_string())
    };
    let said = |code: &str| Some(format!("the issuer refused: {code}"));
    assert_eq!(
        refused(exchange("https://other", "edit", issuer.gateway_secret()), &subject).await,
        said("invalid_target")
    );
    assert_eq!(
        refused(exchange("https://tickets", "admin", issuer.gateway_secret()), &subject).await,
        Some("the issuer does not give the scopes `admin` for this user".into())
    );
    assert_eq!(
        refused(exchange("https://tickets", "edit", Secret::new("guess".into())), &subject).await,
        said("invalid_client")
    );
    assert_eq!(
        refused(exchange("https://tickets", "edit", issuer.gateway_secret()), &token).await,
        said("invalid_grant")
    );
    serving.abort();
}
