//! Tokens that the issuer is asked about (RFC 7662).

use std::sync::Arc;

use axum::http::StatusCode;
use ringfence_core::{Authorities, Instant, Secret};
use serde_json::{Value, json};

use super::fake::{Fake, Key, trusted, with};
use super::{AUDIENCE, NOW, PEOPLE};
use crate::{
    Door, Endpoint, Identity, Introspection, IntrospectionSettings, KnownAgents, TokenCheck, TokenRefused,
    TrustedIssuer,
};

fn later(seconds: u64) -> Instant {
    Instant(NOW.0 + seconds * 1000)
}

fn introspection(issuer: &Fake, secret: &str) -> Introspection {
    Introspection::new(IntrospectionSettings {
        endpoint: Endpoint::new(&format!("{}/introspect", issuer.name)).unwrap(),
        client_id: "gateway".into(),
        client_secret: Secret::new(secret.into()),
    })
    .unwrap()
}

fn opaque(issuer: &Fake) -> TokenCheck {
    issuer.check().opaque(introspection(issuer, "a secret"), 60)
}

/// Tells the issuer what to say of a token.
fn tell(issuer: &Fake, token: &str, claims: Value) {
    issuer.told.tokens.lock().unwrap().insert(token.into(), with(claims, "active", json!(true)));
}

async fn judge(check: &TokenCheck, token: &str, now: Instant) -> Result<String, TokenRefused> {
    check.check(&Secret::new(token.into()), now).await.map(|token| token.subject)
}

#[tokio::test]
async fn an_opaque_token_is_what_its_issuer_says_and_in_every_part() {
    let issuer = Fake::publishing(&[]).await;
    tell(&issuer, "good", issuer.claims());
    let bob = || Ok("bob".to_owned());
    assert_eq!(judge(&opaque(&issuer), "good", NOW).await, bob(), "the control");
    let now = NOW.seconds();
    for (name, value, why) in [
        ("iss", json!("https://evil.example"), TokenRefused::Issuer),
        ("iss", json!([issuer.name]), TokenRefused::Issuer),
        ("aud", Value::Null, TokenRefused::Audience),
        ("aud", json!(PEOPLE), TokenRefused::Audience),
        ("aud", json!([AUDIENCE, PEOPLE]), TokenRefused::Audience),
        ("sub", Value::Null, TokenRefused::Claims),
        ("client_id", Value::Null, TokenRefused::Claims),
        ("exp", Value::Null, TokenRefused::Claims),
        ("exp", json!(now - 5), TokenRefused::Expired),
        ("exp", json!(now + 3601), TokenRefused::Claims),
        ("nbf", json!(now + 60), TokenRefused::NotYet),
        ("token_type", json!("N_A"), TokenRefused::Type),
        ("token_type", json!(["Bearer"]), TokenRefused::Type),
        ("token_type", json!("DPoP"), TokenRefused::Bound),
        ("active", json!("true"), TokenRefused::Unavailable),
        ("active", Value::Null, TokenRefused::Unavailable),
        ("active", json!(false), TokenRefused::Inactive),
    ] {
        let said = with(with(issuer.claims(), "active", json!(true)), name, value.clone());
        issuer.told.tokens.lock().unwrap().insert("bad".into(), said);
        assert_eq!(judge(&opaque(&issuer), "bad", NOW).await, Err(why), "{name} = {value}");
    }
    // What RFC 7662 lets an issuer leave out, and what it may say besides.
    for (name, value) in [("iss", Value::Null), ("iat", Value::Null), ("token_type", json!("bearer"))] {
        tell(&issuer, "good", with(issuer.claims(), name, value));
        assert_eq!(judge(&opaque(&issuer), "good", NOW).await, bob(), "{name}");
    }
    assert_eq!(judge(&opaque(&issuer), "unheard-of", NOW).await, Err(TokenRefused::Inactive));
    let stranger = issuer.check().opaque(introspection(&issuer, "a guess"), 60);
    assert_eq!(judge(&stranger, "good", NOW).await, Err(TokenRefused::Unavailable));
    for failure in
        [(StatusCode::INTERNAL_SERVER_ERROR, ""), (StatusCode::OK, "<html>"), (StatusCode::OK, "[]")]
    {
        *issuer.told.introspection_fails.lock().unwrap() = Some((failure.0, failure.1.to_owned()));
        assert_eq!(judge(&opaque(&issuer), "good", NOW).await, Err(TokenRefused::Unavailable), "{failure:?}");
    }
}

#[tokio::test]
async fn an_answer_is_kept_for_a_minute_at_most_and_never_beyond_the_token() {
    let issuer = Fake::publishing(&[]).await;
    let short = |seconds: u64| with(issuer.claims(), "exp", json!(NOW.seconds() + seconds));
    tell(&issuer, "long", issuer.claims());
    tell(&issuer, "short", short(30));
    // More than a minute is not kept, whatever was asked for.
    let check = issuer.check().opaque(introspection(&issuer, "a secret"), 3600);
    let asked = async |token: &str, now: Instant| {
        let before = issuer.tokens_asked();
        let judged = judge(&check, token, now).await.map(drop);
        (judged, issuer.tokens_asked() - before)
    };
    assert_eq!(asked("long", NOW).await, (Ok(()), 1));
    assert_eq!(asked("long", later(59)).await, (Ok(()), 0), "kept");
    assert_eq!(asked("long", later(60)).await, (Ok(()), 1));
    assert_eq!(asked("short", NOW).await, (Ok(()), 1));
    assert_eq!(asked("short", later(29)).await, (Ok(()), 0));
    assert_eq!(asked("short", later(30)).await, (Ok(()), 1), "not beyond its end");
    assert_eq!(asked("short", later(35)).await, (Err(TokenRefused::Expired), 1));
    // Revoked: heard within the minute. That a token is not active is not kept.
    issuer.told.tokens.lock().unwrap().clear();
    assert_eq!(asked("long", later(119)).await, (Ok(()), 0));
    assert_eq!(asked("long", later(120)).await, (Err(TokenRefused::Inactive), 1));
    assert_eq!(asked("long", later(120)).await, (Err(TokenRefused::Inactive), 1));
    tell(&issuer, "long", issuer.claims());
    assert_eq!(asked("long", later(120)).await, (Ok(()), 1));
}

#[tokio::test]
async fn a_hundred_callers_at_once_each_get_their_own_answer_and_one_is_asked_for() {
    let issuer = Fake::publishing(&[]).await;
    let check = Arc::new(opaque(&issuer));
    for user in 0..10 {
        tell(&issuer, &format!("of-{user}"), with(issuer.claims(), "sub", json!(format!("user-{user}"))));
    }
    let callers = (0..100).map(|number| {
        let (check, user) = (check.clone(), number % 10);
        tokio::spawn(async move { (user, judge(&check, &format!("of-{user}"), NOW).await) })
    });
    for caller in callers.collect::<Vec<_>>() {
        let (user, subject) = caller.await.unwrap();
        assert_eq!(subject, Ok(format!("user-{user}")));
    }
    assert_eq!(issuer.tokens_asked(), 10);
}

#[tokio::test]
async fn a_user_who_is_disabled_loses_access_by_the_next_recheck() {
    let key = Key::named("1");
    let issuer = Fake::publishing(&[&key]).await;
    let token = key.token(&issuer.claims());
    tell(&issuer, token.expose(), json!({ "sub": "bob", "client_id": "cli" }));
    let identity = |check: TokenCheck| {
        let TrustedIssuer { agents, people, groups } = trusted(check);
        Identity::new(agents, people, groups, Authorities::establish().verifier).knowing(KnownAgents::Any)
    };
    let checked = identity(issuer.check().rechecked(introspection(&issuer, "a secret"), 20));
    let unchecked = identity(issuer.check());
    let judge = async |now: Instant| {
        let identified = checked.identify(Door::Agents, &token, now).await.map(drop);
        assert_eq!(checked.still_good(Door::Agents, &token, now).await, identified);
        identified
    };
    assert_eq!(judge(NOW).await, Ok(()));
    issuer.told.tokens.lock().unwrap().clear();
    assert_eq!(judge(later(19)).await, Ok(()));
    assert_eq!(judge(later(20)).await, Err(TokenRefused::Inactive));
    assert_eq!(unchecked.still_good(Door::Agents, &token, later(20)).await, Ok(()), "the control");
    *issuer.told.introspection_fails.lock().unwrap() = Some((StatusCode::BAD_GATEWAY, String::new()));
    assert_eq!(judge(later(40)).await, Err(TokenRefused::Unavailable));
    *issuer.told.introspection_fails.lock().unwrap() = None;
    // An answer that speaks of another token.
    for (name, value) in
        [("sub", "alice"), ("client_id", "other"), ("iss", "https://evil.example"), ("jti", "2")]
    {
        let mut said = json!({});
        said[name] = json!(value);
        tell(&issuer, token.expose(), said);
        let fresh = identity(issuer.check().rechecked(introspection(&issuer, "a secret"), 20));
        let judged = fresh.identify(Door::Agents, &token, later(60)).await;
        assert_eq!(judged.err(), Some(TokenRefused::Claims), "{name}");
    }
}

#[tokio::test]
async fn only_what_is_no_jwt_of_another_goes_to_the_issuer_of_opaque_tokens() {
    let key = Key::named("1");
    let (signing, asked) = (Fake::publishing(&[&key]).await, Fake::publishing(&[]).await);
    tell(&asked, "opaque", asked.claims());
    let TrustedIssuer { agents, people, groups } = signing.trusted();
    let identity = Identity::new(agents, people, groups, Authorities::establish().verifier)
        .trusting(trusted(opaque(&asked)))
        .knowing(KnownAgents::Any);
    let judge = async |token: Secret| {
        let identified = identity.identify(Door::Agents, &token, NOW).await;
        identified.map(|identified| identified.principal.issuer().to_owned())
    };
    assert_eq!(judge(Secret::new("opaque".into())).await, Ok(asked.name.clone()));
    assert_eq!(asked.tokens_asked(), 1);
    assert_eq!(judge(key.token(&signing.claims())).await, Ok(signing.name.clone()));
    let stranger = key.token(&with(signing.claims(), "iss", json!("https://evil.example")));
    assert_eq!(judge(stranger).await, Err(TokenRefused::Issuer));
    assert_eq!(asked.tokens_asked(), 1, "nobody else's token was sent there");
}
