//! Several issuers, each judged by its own keys and rules; which clients are agents; and what an application's token is.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use ringfence_core::{Authorities, GroupName, Secret};
use serde_json::{Value, json};

use super::fake::{Fake, Key, trusted, with};
use super::{AUDIENCE, NOW, PEOPLE};
use crate::{
    Application, Door, GroupsClaim, Identity, KeySource, KnownAgents, TokenCheck, TokenRefused, TokenRules,
    TrustedIssuer,
};

fn identity(first: TrustedIssuer, second: Option<TrustedIssuer>) -> Identity {
    let TrustedIssuer { agents, people, groups } = first;
    let identity = Identity::new(agents, people, groups, Authorities::establish().verifier);
    second.into_iter().fold(identity, Identity::trusting).knowing(KnownAgents::Any)
}

#[tokio::test]
async fn each_issuer_is_judged_by_its_own_keys_and_rules_alone() {
    // Both call their key the same.
    let (key_a, key_b) = (Key::named("1"), Key::named("1"));
    let (a, b) = (Fake::publishing(&[&key_a]).await, Fake::publishing(&[&key_b]).await);
    let rules = TokenRules { token_type: "jwt".into(), lifetime_max_seconds: 60, ..b.rules() };
    let of_b = TrustedIssuer {
        groups: GroupsClaim { name: "roles".into(), optional: true },
        ..trusted(TokenCheck::new(rules, b.at("/jwks")).unwrap())
    };
    let identity = identity(a.trusted(), Some(of_b));
    let judge = async |token: Secret| {
        let identified = identity.identify(Door::Agents, &token, NOW).await?;
        let groups = identified.principal.groups().iter().map(GroupName::to_string).collect::<Vec<_>>();
        Ok((identified.principal.issuer().to_owned(), groups))
    };
    let short = |claims: Value| with(claims, "exp", json!(NOW.seconds() + 60));
    // The controls.
    assert_eq!(judge(key_a.token(&a.claims())).await, Ok((a.name.clone(), vec!["analysts".into()])));
    let with_roles = with(short(b.claims()), "roles", json!(["r"]));
    assert_eq!(judge(key_b.typed("jwt", &with_roles)).await, Ok((b.name.clone(), vec!["r".into()])));
    let iss = |value: Value| with(a.claims(), "iss", value);
    for (what, token, why) in [
        ("A's name, B's key", key_b.token(&a.claims()), TokenRefused::Signature),
        ("B's name, A's key", key_a.typed("jwt", &short(b.claims())), TokenRefused::Signature),
        ("A's token by B's type", key_a.typed("jwt", &a.claims()), TokenRefused::Type),
        ("B's token by A's type", key_b.token(&short(b.claims())), TokenRefused::Type),
        ("B's token as long as A's", key_b.typed("jwt", &b.claims()), TokenRefused::Claims),
        ("a stranger's name", key_a.token(&iss(json!("https://evil.example"))), TokenRefused::Issuer),
        ("almost A's name", key_a.token(&iss(json!(format!("{}/", a.name)))), TokenRefused::Issuer),
        ("a list of both", key_a.token(&iss(json!([a.name, b.name]))), TokenRefused::Malformed),
        ("no name", key_a.token(&iss(Value::Null)), TokenRefused::Malformed),
    ] {
        assert_eq!(judge(token).await, Err(why), "{what}");
    }
    // A stranger's token makes nobody ask for keys.
    let asked = (a.keys_asked(), b.keys_asked());
    let stranger = Key::named("unheard-of").token(&iss(json!("https://evil.example")));
    assert_eq!(judge(stranger).await, Err(TokenRefused::Issuer));
    assert_eq!((a.keys_asked(), b.keys_asked()), asked);
}

#[tokio::test]
async fn times_are_taken_with_five_seconds_of_leeway_and_no_more() {
    let key = Key::named("1");
    let issuer = Fake::publishing(&[&key]).await;
    let (check, now) = (issuer.check(), NOW.seconds());
    for (name, value, expected) in [
        ("exp", now + 1, None),
        ("exp", now - 4, None),
        ("exp", now - 5, Some(TokenRefused::Expired)),
        ("nbf", now + 5, None),
        ("nbf", now + 6, Some(TokenRefused::NotYet)),
        ("iat", now + 5, None),
        ("iat", now + 6, Some(TokenRefused::NotYet)),
    ] {
        let claims = with(with(issuer.claims(), "iat", json!(now - 60)), name, json!(value));
        assert_eq!(check.check(&key.token(&claims), NOW).await.err(), expected, "{name} {value} at {now}");
    }
}

#[tokio::test]
async fn nothing_but_a_signature_of_the_issuer_is_one() {
    let key = Key::named("1");
    let issuer = Fake::publishing(&[&key]).await;
    let check = issuer.check();
    assert!(check.check(&key.token(&issuer.claims()), NOW).await.is_ok(), "the control");
    // The public key, in each form in which it is published, taken for a shared secret.
    let part = |name: &str| URL_SAFE_NO_PAD.decode(key.public[name].as_str().unwrap()).unwrap();
    let point = [&[4u8][..], &part("x"), &part("y")].concat();
    let jwks = json!({ "keys": [key.public] }).to_string();
    for secret in [point.as_slice(), key.public.to_string().as_bytes(), jwks.as_bytes()] {
        let header =
            Header { typ: Some("at+jwt".into()), kid: Some("1".into()), ..Header::new(Algorithm::HS256) };
        let forged =
            jsonwebtoken::encode(&header, &issuer.claims(), &EncodingKey::from_secret(secret)).unwrap();
        assert_eq!(check.check(&Secret::new(forged), NOW).await.err(), Some(TokenRefused::Algorithm));
    }
    let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    for algorithm in ["none", "None", "NONE", ""] {
        let header = encode(json!({ "alg": algorithm, "typ": "at+jwt", "kid": "1" }));
        let unsigned = Secret::new(format!("{header}.{}.", encode(issuer.claims())));
        assert_eq!(check.check(&unsigned, NOW).await.err(), Some(TokenRefused::Malformed), "{algorithm}");
    }
}

#[tokio::test]
async fn an_id_token_is_not_an_access_token() {
    let key = Key::named("1");
    let issuer = Fake::publishing(&[&key]).await;
    let id_token = with(with(issuer.claims(), "nonce", json!("n")), "at_hash", json!("h"));
    let strict = issuer.check();
    assert_eq!(strict.check(&key.typed("JWT", &id_token), NOW).await.err(), Some(TokenRefused::Type));
    // An issuer that types all its tokens alike.
    let rules = TokenRules { token_type: "JWT".into(), ..issuer.rules() };
    let lax = TokenCheck::new(rules, issuer.at("/jwks")).unwrap();
    assert!(lax.check(&key.typed("JWT", &issuer.claims()), NOW).await.is_ok(), "the control");
    assert_eq!(lax.check(&key.typed("JWT", &id_token), NOW).await.err(), Some(TokenRefused::Type));
    let for_client = with(issuer.claims(), "aud", json!("cli"));
    assert_eq!(lax.check(&key.typed("JWT", &for_client), NOW).await.err(), Some(TokenRefused::Audience));
}

#[tokio::test]
async fn an_agent_is_one_that_the_operator_knows() {
    let key = Key::named("1");
    let issuer = Fake::publishing(&[&key]).await;
    let token = key.token(&issuer.claims());
    let judge = async |known: KnownAgents| {
        let identity = identity(issuer.trusted(), None).knowing(known);
        identity.identify(Door::Agents, &token, NOW).await.map(|identified| identified.agent.to_string())
    };
    let only = |known: &[&str]| {
        KnownAgents::Only(known.iter().map(|&known| known.to_owned()).collect::<BTreeSet<_>>())
    };
    assert_eq!(judge(only(&["other", "cli"])).await, Ok("cli".into()), "the control");
    assert_eq!(judge(KnownAgents::Any).await, Ok("cli".into()), "where the operator takes any");
    for known in [only(&["CLI"]), only(&["cli2", ""]), only(&[])] {
        assert_eq!(judge(known.clone()).await, Err(TokenRefused::Agent), "{known:?}");
    }
    let TrustedIssuer { agents, people, groups } = issuer.trusted();
    let untold = Identity::new(agents, people, groups, Authorities::establish().verifier);
    assert_eq!(untold.identify(Door::Agents, &token, NOW).await.err(), Some(TokenRefused::Agent));
}

#[tokio::test]
async fn an_application_shows_a_token_of_its_own() {
    let key = Key::named("1");
    let issuer = Fake::publishing(&[&key]).await;
    let identity = identity(issuer.trusted(), None);
    let own = |name: &str, value: Value| {
        let claims = with(with(issuer.claims(), "sub", json!("backend")), "client_id", json!("backend"));
        key.token(&with(with(with(claims, "aud", json!(PEOPLE)), "groups", Value::Null), name, value))
    };
    let expected = Application {
        issuer: issuer.name.clone(),
        client: ringfence_core::AgentId::new("backend").unwrap(),
        key: None,
        scopes: ["tools".to_owned()].into(),
        expires: ringfence_core::Instant((NOW.seconds() + 600) * 1000),
    };
    assert_eq!(identity.application(Door::People, &own("x", Value::Null), NOW).await, Ok(expected));
    for (name, value, why) in [
        ("sub", json!("bob"), TokenRefused::NotAnApplication),
        ("aud", json!(AUDIENCE), TokenRefused::Audience),
        ("exp", json!(NOW.seconds() - 5), TokenRefused::Expired),
    ] {
        let refused = identity.application(Door::People, &own(name, value), NOW).await;
        assert_eq!(refused, Err(why), "{name}");
    }
    // An application is no user: without groups it is nobody.
    let alone = identity.identify(Door::People, &own("x", Value::Null), NOW).await;
    assert_eq!(alone.err(), Some(TokenRefused::Claims));
}

#[tokio::test]
async fn keys_that_are_not_for_signatures_verify_nothing() {
    let key = Key::named("1");
    let issuer = Fake::publishing(&[]).await;
    let token = key.token(&issuer.claims());
    let judge = async |public: Value| {
        let set = json!({ "keys": [{ "kty": "strange", "kid": "0" }, public] });
        *issuer.told.keys.lock().unwrap() = Some(set);
        issuer.check().check(&token, NOW).await.err()
    };
    assert_eq!(judge(key.public.clone()).await, None, "the control, beside a key of an unknown kind");
    assert_eq!(judge(with(key.public.clone(), "use", json!("enc"))).await, Some(TokenRefused::Key));
    assert_eq!(judge(with(key.public.clone(), "alg", json!("ES384"))).await, Some(TokenRefused::Key));
    assert_eq!(judge(with(key.public.clone(), "key_ops", json!(["sign"]))).await, Some(TokenRefused::Key));
    let twice = json!({ "keys": [key.public, Key::named("1").public] });
    let twice = KeySource::Fixed(serde_json::from_value(twice).unwrap());
    let twice = TokenCheck::new(issuer.rules(), twice).unwrap().check(&token, NOW).await;
    assert_eq!(twice.err(), Some(TokenRefused::Key), "a name that two keys have names none");
}
